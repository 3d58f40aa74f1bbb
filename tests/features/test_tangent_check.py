"""The check sees what it must see: a reader that is wrong on purpose is found out."""

import pytest
import torch
from torch import nn

from tangrams.features import TangentError, TangentFeatures
from tangrams.features._reference import reference_rows
from tangrams.features.tangent import check, generic, groups
from tangrams.features.tangent.consumers import Convolution
from tangrams.features.tangent.consumers.linear import Linear
from tangrams.features.tangent.tile import Tile


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).double()


@pytest.fixture
def x():
    return torch.randn(8, 4, dtype=torch.float64)


def test_a_wrong_factor_sends_its_parameter_to_the_generic_route(model, x, monkeypatch):
    load = Linear.load

    def wrong(self, axis, n, dtype):
        load(self, axis, n, dtype)
        if self.inputs.shape[-1] == 6:
            self.inputs = self.inputs * 1.0001

    monkeypatch.setattr(Linear, "load", wrong)
    phi = TangentFeatures(model)
    J = reference_rows(model, x)
    torch.testing.assert_close(phi.gram(x), J @ J.mT, rtol=1e-10, atol=1e-12)
    plan = phi.plan(x)
    assert plan.routes["2.weight"] == "vmap"
    assert plan.routes["0.weight"] == "structured"
    assert "check" in plan.reasons["2.weight"]


def test_a_wrong_row_is_found_before_any_row_is_given_out(model, x, monkeypatch):
    rows = Linear.rows

    def wrong(self, slot, gradient, out):
        rows(self, slot, gradient, out)
        if slot == self.weight_slot:
            out[0] += 1e-3

    monkeypatch.setattr(Linear, "rows", wrong)
    phi = TangentFeatures(model)
    torch.testing.assert_close(phi.rows(x).dense(), reference_rows(model, x), rtol=1e-10, atol=1e-12)


def test_an_error_of_the_contraction_is_found(model, x, monkeypatch):
    add = Tile.add_outer

    def wrong(self, a, b, bias, left, right):
        add(self, a, b, bias, left * 1.001 if self.symmetric else left, right)

    monkeypatch.setattr(Tile, "add_outer", wrong)  # the groups' own forms are right, their sum is not
    K = TangentFeatures(model).gram(x)
    J = reference_rows(model, x)
    torch.testing.assert_close(K, J @ J.mT, rtol=1e-10, atol=1e-12)


def test_a_missing_use_is_found(x, monkeypatch):
    torch.manual_seed(0)
    shared = nn.Linear(4, 4).double()
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Tanh(), nn.Linear(4, 2).double())
    add = groups.add_uses

    def half(uses, out, consumers, gradients):
        add(uses[:1], out, consumers, gradients)

    monkeypatch.setattr(groups, "add_uses", half)
    phi = TangentFeatures(model)
    J = reference_rows(model, x)
    torch.testing.assert_close(phi.gram(x), J @ J.mT, rtol=1e-10, atol=1e-12)
    assert phi.plan(x).routes["0.weight"] == "vmap"


def test_the_full_check_sees_what_the_first_samples_do_not_show(monkeypatch):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten(), nn.Linear(12, 2)).double()
    x = torch.randn(40, 1, 4, 4, dtype=torch.float64)
    fresh = Convolution.fresh_rows

    def wrong(self, slot, gradient):
        found = fresh(self, slot, gradient)
        if found is not None and len(found) == 40:
            found[-1] *= 2
        return found

    monkeypatch.setattr(Convolution, "fresh_rows", wrong)
    J = reference_rows(model, x, "sum")
    whole = TangentFeatures(model, "sum", check="full").gram(x)
    torch.testing.assert_close(whole, J @ J.mT, rtol=1e-10, atol=1e-12)


def test_a_parameter_whose_true_gradient_is_zero_raises_no_alarm():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6, elementwise_affine=False), nn.Linear(6, 3))
    with torch.no_grad():
        model[0].weight.mul_(1e-3)  # the layer norm makes rounding large
    x = torch.randn(30, 4)
    phi = TangentFeatures(model)
    phi.gram(x)
    assert not phi.plan(x).reasons


def test_at_most_sixteen_samples_are_checked_by_default():
    assert [check.sample_size(n) for n in (1, 4, 20, 100, 500)] == [1, 4, 4, 8, 16]


class _Total(nn.Module):
    """The sum of a network's outputs, less a constant."""

    def __init__(self, body, constant):
        super().__init__()
        self.body, self.constant = body, constant

    def forward(self, x):
        return self.body(x).sum(1, keepdim=True) - self.constant


def _probabilities():
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4), nn.Softmax(1))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize(
    ("make", "output"),
    [(_probabilities, "sum"), (lambda: _Total(_probabilities(), 1.0), "all")],
    ids=["sum of probabilities", "zero inside the network"],
)
def test_outputs_that_never_change_have_a_gram_matrix_of_rounding(make, output, n, dtype):
    torch.manual_seed(n)
    model, x = make().to(dtype), torch.randn(n, 6, dtype=dtype)
    tiny = 1e4 * torch.finfo(dtype).eps
    assert TangentFeatures(model, output).gram(x).abs().max() < tiny**2
    assert TangentFeatures(model, output).diag(x).abs().max() < tiny**2
    assert TangentFeatures(model, output).rows(x).dense().abs().max() < tiny


def test_samples_that_are_coupled_below_the_size_of_the_layers_are_still_refused():
    class Coupled(_Total):
        def forward(self, x):
            values = super().forward(x)
            return values + 1e-9 * (x - x.mean(0)).sum(1, keepdim=True)

    model = Coupled(_probabilities(), 1.0).double()
    with pytest.raises(TangentError, match="coupled"):
        TangentFeatures(model).gram(torch.randn(7, 6, dtype=torch.float64))


@pytest.mark.parametrize("budget", ["1GiB", "1KiB"])
@pytest.mark.parametrize(("width", "seed"), [(1, 5), (1, 24), (2, 0), (2, 53)])
def test_rounding_of_a_nearly_vanishing_gradient_raises_no_alarm(width, seed, budget):
    """RMSNorm all but cancels what comes before it; a small budget has the first layer's share checked alone."""
    torch.manual_seed(seed)
    layers = [nn.Linear(5, width, bias=False), *([nn.ReLU()] if width == 2 else []), nn.RMSNorm((width,)), nn.PReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, 3)).double()
    x = torch.randn(20, *([1] if width == 2 else []), 5).double()
    J = reference_rows(model, x, "trace")
    found = TangentFeatures(model, "trace", memory_budget=budget).gram(x)
    torch.testing.assert_close(found, J @ J.mT, rtol=1e-10, atol=1e-12)


def test_a_gradient_that_is_zero_in_exact_arithmetic_is_accepted_for_few_samples():
    """A normalisation over a single feature is constant: all that is left of its gradient is rounding."""
    for seed in range(8):
        torch.manual_seed(seed)
        norm = nn.LayerNorm((1,))
        norm.bias.requires_grad_(False).fill_(0.01)
        model = nn.Sequential(nn.Conv1d(1, 1, 2), nn.PReLU(), nn.Sigmoid(), norm, nn.Tanh(), nn.Flatten()).double()
        x = torch.randn(2, 1, 2, dtype=torch.float64)
        phi = TangentFeatures(model, "sum")
        assert phi.gram(x).abs().max() < 1e-20
        assert phi.rows(x).dense().abs().max() < 1e-10


def test_gradients_visited_one_by_one_are_those_of_autograd_and_leave_no_hook():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared, nn.Linear(4, 1))
    weights, values = dict(model.named_parameters()), model(torch.randn(3, 4))
    cotangent = torch.randn_like(values)
    calls = []
    weights["0.weight"].register_hook(calls.append)
    before = {name: p._backward_hooks for name, p in weights.items()}
    found = {}
    assert generic.visit_gradients(values, cotangent, weights, found.__setitem__)
    assert not calls
    assert {name: p._backward_hooks for name, p in weights.items()} == before
    expected = torch.autograd.grad(values, list(weights.values()), cotangent)
    torch.testing.assert_close(found, dict(zip(weights, expected, strict=True)))


def test_gradients_that_come_in_parts_are_noticed():
    class Parts(torch.autograd.Function):
        """Runs a backward pass inside the backward pass."""

        @staticmethod
        def forward(ctx, x, layer):
            ctx.save_for_backward(x)
            ctx.layer = layer
            return layer(x.detach())

        @staticmethod
        def backward(ctx, gradient):
            with torch.enable_grad():
                y = ctx.layer(ctx.saved_tensors[0].detach())
            torch.autograd.backward(y, gradient)
            return gradient, None

    layer = nn.Linear(4, 4)
    x = torch.randn(3, 4)
    values = Parts.apply(layer(x), layer) * layer(x)
    weights = dict(layer.named_parameters())
    assert not generic.visit_gradients(values, torch.ones_like(values), weights, lambda name, gradient: None)
