import copy
import functools
import json
import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from tangrams.lens.layers import FEWEST_EIGENVALUES, layer_health

CONV, DENSE, LAST = "2", "6", "8"


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def scale(path, factor):
    def change(net):
        net.get_submodule(path).weight.mul_(factor)

    return change


def kill(net):
    net.get_submodule(CONV).bias[:24] -= 10


def freeze(net):
    net.get_submodule(CONV).requires_grad_(False)


@functools.cache
def digits():
    data = load_digits()
    return torch.tensor(data.images[:600], dtype=torch.float32)[:, None] / 16, torch.tensor(data.target[:600])


@functools.cache
def trained(seed, change=None, rate=5e-3, epochs=20):
    x, y = digits()
    net = network(seed)
    if change is not None:
        with torch.no_grad():
            change(net)
    optimizer = torch.optim.Adam([p for p in net.parameters() if p.requires_grad], rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for index in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
        schedule.step()
    return layer_health(net, x)


def flags(rows, name):
    (row,) = [r for r in rows if r.name == name]
    return {(f.measure, f.direction) for f in row.flags}


SEEDS = (0, 1, 2)
TEN, TEN_CONV, THIRTY = scale(DENSE, 10), scale(CONV, 10), scale(LAST, 30)


@pytest.mark.parametrize("seed", SEEDS)
def test_healthy_networks_raise_no_norm_or_exponent_flag(seed):
    rows = trained(seed)
    assert [r.name for r in rows] == ["0", CONV, DENSE, LAST]
    assert not [f for r in rows for f in r.flags if f.measure != "dead"]


@pytest.mark.parametrize("seed", SEEDS)
def test_an_untrained_network_is_flagged_in_every_layer_with_enough_eigenvalues(seed):
    rows = layer_health(network(seed), digits()[0])
    for name in (CONV, DENSE):
        assert flags(rows, name) >= {("norm", "low"), ("exponent", "high")}
    assert ("norm", "low") in flags(rows, LAST)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("name", "change"), [(DENSE, TEN), (CONV, TEN_CONV), (LAST, THIRTY)])
def test_a_layer_that_started_too_large_is_the_one_with_the_large_norm(seed, name, change):
    rows = trained(seed, change)
    assert [r.name for r in rows if ("norm", "high") in flags(rows, r.name)] == [name]
    if name != LAST:
        assert [r.name for r in rows if ("exponent", "high") in flags(rows, r.name)] == [name]


@pytest.mark.parametrize("seed", SEEDS)
def test_dead_units_are_flagged_where_they_are(seed):
    rows = trained(seed, kill)
    assert [r.name for r in rows if ("dead", "high") in flags(rows, r.name)] == [CONV]
    (row,) = [r for r in rows if r.name == CONV]
    assert row.dead.units == 32
    assert row.dead.share >= 0.75


@pytest.mark.parametrize("seed", SEEDS)
def test_a_frozen_layer_looks_like_a_fresh_one(seed):
    rows = trained(seed, freeze)
    fresh = {("norm", "low"), ("exponent", "high")}
    assert [r.name for r in rows if flags(rows, r.name) >= fresh] == [CONV]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_learning_rate_eight_times_too_large_shows_in_the_norms_of_the_hidden_layers(seed):
    rows = trained(seed, None, 8 * 5e-3)
    for name in (CONV, DENSE):
        assert ("norm", "high") in flags(rows, name)
    assert ("norm", "high") not in flags(rows, "0")


@pytest.mark.parametrize("seed", SEEDS)
def test_scaling_a_trained_layer_by_ten_is_flagged_in_that_layer_alone(seed):
    x, _ = digits()
    net = network(seed)
    with torch.no_grad():  # a stand-in for training: a heavy direction in each weight
        for layer in (net[2], net[6], net[8], net[0]):
            flat = layer.weight.flatten(1)
            u, s, v = torch.linalg.svd(flat, full_matrices=False)
            layer.weight.copy_((u * (s * (1 + 2 * torch.linspace(1, 0, len(s)) ** 6)) @ v).view_as(layer.weight))
        net[6].weight.mul_(10)
    rows = layer_health(net, x)
    assert [r.name for r in rows if ("norm", "high") in flags(rows, r.name)] == [DENSE]


def slow_silent(net, x, path):
    """Share of units that a ReLU right behind the layer silences on every sample."""
    kept = []
    handle = net.get_submodule(path).register_forward_hook(lambda m, i, o: kept.append(o.detach()))
    net(x)
    handle.remove()
    out = kept[0].movedim(1, -1).flatten(0, -2)
    return float((out <= 0).all(0).double().mean())


class Functional(nn.Module):
    """The same network, with activations that no module hook sees, some of them in place."""

    def __init__(self, net, in_place):
        super().__init__()
        self.net, self.in_place = net, in_place

    def forward(self, x):
        relu = F.relu_ if self.in_place else F.relu
        x = relu(self.net[0](x))
        x = F.max_pool2d(relu(self.net[2](x)), 2)
        return {"logits": self.net[8](relu(self.net[6](x.flatten(1))))}


@pytest.mark.parametrize("in_place", [False, True])
def test_silent_units_are_found_behind_functional_and_in_place_activations(in_place):
    x, _ = digits()
    net = network(0)
    with torch.no_grad():
        net[2].bias[:20] -= 10
        net[6].bias[10:] -= 100
    plain = {r.name: r.dead.share for r in layer_health(net, x)}
    wrapped = {r.name: r.dead.share for r in layer_health(Functional(net, in_place), x, batch_size=100)}
    assert wrapped == {f"net.{name}": share for name, share in plain.items()}
    assert plain["6"] == pytest.approx(slow_silent(net, x, "6"))
    assert plain["2"] == pytest.approx(slow_silent(net, x, "2"))
    assert plain["2"] == pytest.approx(20 / 32)


def test_a_unit_that_is_never_read_is_silent_too():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    with torch.no_grad():
        net[2].weight[:, 1] = 0
    rows = layer_health(net, torch.randn(50, 3))
    assert rows[0].dead.share == 0.25
    assert rows[1].dead.share == 0


def test_units_count_over_positions_and_repeated_calls():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.relu(self.mix(torch.relu(self.mix(x)))).mean(1))

    net = Twice()
    with torch.no_grad():
        net.mix.weight[0] = 0
        net.mix.bias[0] = -1
    rows = layer_health(net, torch.randn(20, 6, 4))
    assert rows[0].dead.units == 4
    assert rows[0].dead.share >= 0.25


def test_tangent_share_is_the_exact_share_for_one_output():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    x = torch.randn(12, 3, dtype=torch.float64)
    rows = layer_health(net, x, tangent_samples=12)
    squares = {"0": 0.0, "2": 0.0}
    for sample in x:
        for name, gradient in zip(
            [n for n, _ in net.named_parameters()],
            torch.autograd.grad(net(sample[None]).sum(), list(net.parameters())),
            strict=True,
        ):
            squares[name.split(".")[0]] += float(gradient.square().sum())
    total = sum(squares.values())
    for row in rows:
        assert row.tangent_share == pytest.approx(squares[row.name] / total, rel=1e-10)


def test_frozen_layers_have_no_tangent_share_unless_all_are():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    x = torch.randn(20, 4)
    whole = [row.tangent_share for row in layer_health(net, x)]
    net[0].requires_grad_(False)
    shares = [row.tangent_share for row in layer_health(net, x)]
    assert shares == pytest.approx([0, *(share / (1 - whole[0]) for share in whole[1:])])
    net.requires_grad_(False)
    assert [row.tangent_share for row in layer_health(net, x)] == whole


def test_tangent_share_is_unbiased_over_outputs():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 5)), torch.randn(200, 4)
    exact = {"0": 0.0, "2": 0.0}
    for c in range(5):
        for sample in x:
            gradients = torch.autograd.grad(net(sample[None])[0, c], list(net.parameters()))
            for (name, _), gradient in zip(net.named_parameters(), gradients, strict=True):
                exact[name.split(".")[0]] += float(gradient.square().sum())
    expected = exact["0"] / sum(exact.values())
    found = [layer_health(net, x, seed=s, tangent_samples=200)[0].tangent_share for s in range(8)]
    spread = torch.tensor(found).std() / math.sqrt(8)
    assert abs(sum(found) / 8 - expected) < 4 * float(spread) + 1e-3


def test_ratios_do_not_change_when_a_module_is_cast_and_are_the_value_over_the_fresh():
    net, x = network(1), digits()[0]
    for a, b in zip(layer_health(net, x), layer_health(copy.deepcopy(net).double(), x.double()), strict=True):
        assert a.norm.ratio == pytest.approx(b.norm.ratio, rel=1e-5)
        assert a.norm.ratio == pytest.approx(a.norm.value / a.norm.fresh)
        assert a.norm.value == pytest.approx(
            float(torch.linalg.matrix_norm(net.get_submodule(a.name).weight.flatten(1), 2))
        )


def test_exponents_are_blank_under_thirty_eigenvalues():
    for width in (FEWEST_EIGENVALUES - 1, FEWEST_EIGENVALUES):
        (row, _) = layer_health(nn.Sequential(nn.Linear(64, width), nn.Linear(width, 2)), torch.randn(8, 64))
        assert row.eigenvalues == width
        assert (row.exponent is None) == (width < FEWEST_EIGENVALUES)


class Zoo(nn.Module):
    """Kinds of weights: recurrent, attention, embedded, normalised, tied, raw, unused."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8)
        self.recurrent = nn.GRU(8, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.normal = parametrizations.weight_norm(nn.Linear(8, 8))
        self.norm = nn.LayerNorm(8)
        self.raw = nn.Parameter(torch.randn(8, 8))
        self.unused = nn.Linear(8, 8)
        self.out = nn.Linear(8, 20, bias=False)
        self.out.weight = self.words.weight

    def forward(self, tokens):
        x, _ = self.recurrent(self.words(tokens))
        x, _ = self.attention(x, x, x)
        return self.out(self.norm(self.normal(x.mean(1)) @ self.raw))


def test_every_kind_of_weight_has_a_row_once_and_fits_json():
    torch.manual_seed(0)
    net = Zoo()
    rows = layer_health(net, torch.randint(0, 20, (16, 5)))
    assert [r.name for r in rows] == [
        "raw",
        "words",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
        "attention",
        "attention.out_proj",
        "normal",
        "unused",
    ]
    by_name = {r.name: r for r in rows}
    assert by_name["raw"].norm is None
    assert by_name["normal"].kind == "Linear"
    assert by_name["unused"].tangent_share == 0
    assert by_name["normal"].dead.share == 0
    text = json.dumps([r.to_json() for r in rows], allow_nan=False)
    assert json.loads(text)[2]["shape"] == [24, 8]


def test_rows_fit_the_schema_of_a_study():
    jsonschema = pytest.importorskip("jsonschema")
    from tangrams.study.report import schema

    rule = copy.deepcopy(schema()["properties"]["layers"]["anyOf"][0]["properties"]["layers"])
    rule["$defs"] = schema()["$defs"]
    rows = [r.to_json() for r in trained(0) + trained(0, kill)]
    jsonschema.Draft202012Validator(rule).validate(rows)


def test_bad_networks_and_samples_are_refused_with_their_place():
    net, x = network(0), digits()[0]
    with pytest.raises(ValueError, match="no samples"):
        layer_health(net, x[:0])
    with pytest.raises(ValueError, match="no weight of two or more axes"):
        layer_health(nn.BatchNorm1d(3), torch.randn(4, 3))
    with torch.no_grad():
        net[6].weight[3, 4] = math.nan
    with pytest.raises(ValueError, match=r"layer '6' \(Linear\).*not finite"):
        layer_health(net, x)


class Delicate(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.first.weight.requires_grad_(False)

    def forward(self, x):
        self.calls += 1
        if float(x.abs().max()) > 1e5:
            raise RuntimeError("too large")
        return self.last(self.drop(torch.relu_(self.norm(self.first(x)))))


@pytest.mark.parametrize("breaks", [False, True])
def test_the_network_hooks_gradients_and_random_state_are_left_as_they_were(breaks):
    torch.manual_seed(0)
    model, x = Delicate().train(), torch.randn(10, 4)
    model.first.register_forward_hook(lambda m, i, o: None)
    model(x).sum().backward()
    model.drop.eval()

    def state():
        return (
            {k: v.clone() for k, v in model.state_dict().items()},
            [None if p.grad is None else p.grad.clone() for p in model.parameters()],
            [(m.training, len(m._forward_hooks)) for m in model.modules()],
            [p.requires_grad for p in model.parameters()],
            torch.get_rng_state(),
        )

    before = state()
    if breaks:
        x[3] = 1e6
        with pytest.raises(RuntimeError, match="too large"):
            layer_health(model, x)
    else:
        with torch.no_grad():
            layer_health(model, x)
    after = state()
    assert all(torch.equal(before[0][k], after[0][k]) for k in before[0])
    assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(before[1], after[1], strict=True))
    assert before[2:4] == after[2:4]
    assert torch.equal(before[4], after[4])
