"""The check sees what it must see: a reader that is wrong on purpose is found out."""

import pytest
import torch
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.features._reference import reference_rows
from tangrams.features.tangent import check, groups
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
    add = Tile.add_weighted

    def wrong(self, weight, left, right):
        add(self, weight * 1.001 if self.symmetric else weight, left, right)

    monkeypatch.setattr(Tile, "add_weighted", wrong)  # the groups' own forms are right, their sum is not
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
