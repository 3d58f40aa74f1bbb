"""Each route against dense rows from plain autograd, and that the route meant is the one taken."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.features._reference import reference_rows


class Weights(nn.Module):
    """Parameters used by hand."""

    def __init__(self, forward, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.randn(shape, dtype=torch.float64)))
        self.function = forward

    def forward(self, x):
        return self.function(self, x)


def net(*layers):
    return nn.Sequential(*layers).double()


def image(n=6, c=3, size=7):
    return torch.randn(n, c, size, size, dtype=torch.float64)


def sequence(n=6, t=5, d=4):
    return torch.randn(n, t, d, dtype=torch.float64)


def ints(n=6, t=5, v=50):
    return torch.randint(0, v, (n, t))


class Mean(nn.Module):
    def forward(self, x):
        return torch.tanh(x).mean(1)


class Flat(nn.Module):
    """Three outputs, each a mix of all positions."""

    def forward(self, x):
        z = torch.tanh(x).flatten(1)
        return z @ torch.linspace(-1, 1, 3 * z.shape[1], dtype=z.dtype).sin().reshape(-1, 3)


CASES = {
    "linear": (
        lambda: net(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)),
        lambda: sequence()[:, 0],
        "structured",
        "0.weight",
    ),
    "last": (
        lambda: net(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)),
        lambda: sequence()[:, 0],
        "identity",
        "2.weight",
    ),
    "positions": (lambda: net(nn.Linear(4, 70), Mean(), nn.Linear(70, 2)), sequence, "materialised", "0.weight"),
    "pairs": (
        lambda: net(nn.Linear(40, 60), Mean(), nn.Linear(60, 2)),
        lambda: sequence(t=2, d=40),
        "pairs",
        "0.weight",
    ),
    "no bias": (lambda: net(nn.Linear(4, 3, bias=False), Mean()), sequence, "materialised", "0.weight"),
    "convolution": (lambda: net(nn.Conv2d(3, 4, 3, 2, 1), Flat(), nn.Linear(3, 2)), image, "materialised", "0.weight"),
    "grouped": (
        lambda: net(nn.Conv2d(4, 6, 3, groups=2, dilation=2), Flat()),
        lambda: image(c=4),
        "materialised",
        "0.weight",
    ),
    "transposed": (
        lambda: net(nn.ConvTranspose2d(3, 4, 3, 2, 1, output_padding=1, groups=1), Flat()),
        lambda: image(size=4),
        "materialised",
        "0.weight",
    ),
    "transposed, grouped": (
        lambda: net(nn.ConvTranspose2d(4, 6, 3, 2, groups=2, dilation=2), Flat()),
        lambda: image(c=4, size=4),
        "materialised",
        "0.weight",
    ),
    "three dimensions": (
        lambda: net(nn.Conv3d(2, 3, 2, padding=1), Flat()),
        lambda: torch.randn(6, 2, 3, 4, 3, dtype=torch.float64),
        "materialised",
        "0.weight",
    ),
    "one dimension": (
        lambda: net(nn.Conv1d(2, 3, 3, stride=2), Flat()),
        lambda: torch.randn(6, 2, 9, dtype=torch.float64),
        "materialised",
        "0.weight",
    ),
    "circular": (
        lambda: net(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), Flat()),
        image,
        "materialised",
        "0.weight",
    ),
    "tokens": (lambda: net(nn.Embedding(50, 4, padding_idx=3), Mean(), nn.Linear(4, 2)), ints, "tokens", "0.weight"),
    "small table": (
        lambda: net(nn.Embedding(7, 4), Mean(), nn.Linear(4, 2)),
        lambda: ints(v=7),
        "materialised",
        "0.weight",
    ),
    "layer norm": (lambda: net(nn.Linear(4, 3), nn.LayerNorm(3), Mean()), sequence, "materialised", "1.weight"),
    "group norm": (lambda: net(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), Flat()), image, "materialised", "1.weight"),
    "batch norm": (lambda: net(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), Flat()), image, "materialised", "1.weight"),
    "prelu": (lambda: net(nn.Conv2d(3, 4, 3), nn.PReLU(4), Flat()), image, "materialised", "1.weight"),
    "scale": (lambda: Weights(lambda m, x: torch.tanh(x * m.w).sum(1), w=(4,)), sequence, "materialised", "w"),
    "shift": (lambda: Weights(lambda m, x: torch.tanh(x - m.w).sum(1), w=(5, 4)), sequence, "materialised", "w"),
    "expanded": (
        lambda: Weights(lambda m, x: torch.tanh(torch.cat([m.w.expand(len(x), 1, 4), x], 1)).sum(1), w=(1, 1, 4)),
        sequence,
        "materialised",
        "w",
    ),
    "matrix on the left": (
        lambda: Weights(lambda m, x: torch.tanh(m.w @ x.mT).sum(2), w=(3, 4)),
        sequence,
        "materialised",
        "w",
    ),
    "matrix on the right": (
        lambda: Weights(lambda m, x: torch.tanh(x @ m.w).sum(1), w=(4, 3)),
        sequence,
        "materialised",
        "w",
    ),
    "batched": (
        lambda: Weights(lambda m, x: torch.tanh(torch.bmm(x, m.w.expand(len(x), 4, 3))).sum(1), w=(4, 3)),
        sequence,
        "materialised",
        "w",
    ),
    "one by one as linear": (
        lambda: Weights(lambda m, x: torch.tanh(F.linear(x, m.w.view(3, 4))).sum(1), w=(3, 4, 1, 1)),
        sequence,
        "materialised",
        "w",
    ),
    "squared": (lambda: Weights(lambda m, x: torch.tanh(x @ (m.w**2)).sum(1), w=(4, 3)), sequence, "vmap", "w"),
    "sequence first": (
        lambda: Weights(lambda m, x: torch.tanh(F.linear(x.transpose(0, 1), m.w)).sum(0), w=(3, 4)),
        lambda: sequence(t=6),
        "materialised",
        "w",
    ),
    "frames": (
        lambda: Weights(lambda m, x: torch.tanh(F.conv1d(x.reshape(-1, 2, 4), m.w)).reshape(len(x), -1), w=(3, 2, 2)),
        lambda: torch.randn(6, 3, 2, 4, dtype=torch.float64),
        "materialised",
        "w",
    ),
}


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("output", ["all", "sum", "trace"])
@pytest.mark.parametrize("name", CASES)
def test_a_route_gives_the_gram_matrix_of_plain_autograd(name, output):
    make, draw, route, parameter = CASES[name]
    model, x, y = make(), draw(), draw()[:4]
    phi = TangentFeatures(model, output, check="full")
    J, L = reference_rows(model, x, output), reference_rows(model, y, output)
    torch.testing.assert_close(phi.gram(x), J @ J.mT, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi.gram(x, y), J @ L.mT, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi.diag(x), J.square().sum(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi.rows(x).dense(), J, rtol=1e-10, atol=1e-12)
    if output == "all":
        assert phi.plan(x).routes[parameter] == route


@pytest.mark.parametrize("output", ["all", "sum", "trace"])
@pytest.mark.parametrize("name", CASES)
def test_a_small_budget_takes_more_passes_and_changes_nothing(name, output):
    make, draw, _, _ = CASES[name]
    model = make()
    x = torch.cat([draw(), draw(), draw()])
    J = reference_rows(model, x, output)
    small = TangentFeatures(model, output, memory_budget="64KiB", batch_size=4)
    torch.testing.assert_close(small.gram(x), J @ J.mT, rtol=1e-10, atol=1e-12)


def test_a_layer_too_large_for_the_budget_is_cut_by_output_channels():
    model = net(nn.Conv2d(3, 64, 5), Flat(), nn.Linear(3, 2))
    x = image(20)
    phi = TangentFeatures(model, "sum", memory_budget="512KiB", batch_size=4)
    plan = phi.plan(x)
    cut = [
        g
        for members in plan.groups
        for g in members
        if any(getattr(p, "channels", None) for p in getattr(g, "parts", ()))
    ]
    assert len(cut) > 1
    assert plan.passes > 1
    J = reference_rows(model, x, "sum")
    torch.testing.assert_close(phi.gram(x), J @ J.mT, rtol=1e-10, atol=1e-12)


def test_panels_and_passes_add_up_for_many_samples():
    model = net(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    x = torch.randn(700, 4, dtype=torch.float64)
    J = reference_rows(model, x)
    phi = TangentFeatures(model, memory_budget="100KiB")
    assert phi.plan(x).panel < 700
    torch.testing.assert_close(phi.gram(x), J @ J.mT, rtol=1e-10, atol=1e-12)


def test_symmetric_grams_are_exactly_symmetric():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 4))
    for output in ("all", "sum", "trace"):
        K = TangentFeatures(model, output).gram(torch.randn(90, 20))
        assert torch.equal(K, K.mT)


def test_large_triangles_equal_the_whole_product():
    model = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 144, 4)).double()
    x = torch.randn(40, 1, 12, 12, dtype=torch.float64)
    J = TangentFeatures(model).rows(x).dense()
    torch.testing.assert_close(TangentFeatures(model).gram(x), J @ J.mT, rtol=1e-10, atol=1e-10)
