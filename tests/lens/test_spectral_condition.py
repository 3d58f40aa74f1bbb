"""How far training moved each layer, in the norms that count."""

import math

import pytest
import torch
from torch import nn

from tangrams.lens import rms_norm, spectral_report
from tangrams.nn.parametrizations import MaximalUpdate
from tangrams.testing import Snapshot


def mlp(width=40):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 2))


def stepped(model, x, y, lr=0.1):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (model(x) - y).square().sum().backward()
    torch.optim.SGD(model.parameters(), lr).step()
    model.zero_grad()
    return before


def test_one_samples_update_has_rank_one_and_is_aligned_with_its_input():
    model, x = mlp(), torch.randn(1, 6)
    rows = spectral_report(model, stepped(model, x, torch.ones(1, 2)), x)
    assert [row.name for row in rows] == ["0", "2", "4"]
    for row in rows:
        assert row.alignment == pytest.approx(1, abs=1e-4)
        assert row.stable_rank == pytest.approx(1, abs=1e-4)


def test_the_norms_are_those_of_dense_algebra():
    model, x = mlp(100), torch.randn(20, 6)
    before = stepped(model, x, torch.ones(20, 2), lr=0.01)
    old = mlp(100)
    old.load_state_dict(before)
    row = spectral_report(model, before, x)[1]
    W, D = old[2].weight.detach(), (model[2].weight - old[2].weight).detach()
    h = old[:2](x).detach()
    assert row.weight == pytest.approx(float(torch.linalg.matrix_norm(W, ord=2)), rel=1e-5)
    assert row.update == pytest.approx(float(torch.linalg.matrix_norm(D, ord=2)), rel=1e-5)
    assert row.frobenius == pytest.approx((float(W.norm()), float(D.norm())))
    assert row.feature == pytest.approx(float(old[:3](x).square().mean().sqrt()), rel=1e-5)
    assert row.feature_change == pytest.approx(float((model[:3](x) - old[:3](x)).square().mean().sqrt()), rel=1e-4)
    assert row.alignment == pytest.approx(float((h @ D.mT).norm()) / (row.update * float(h.norm())), rel=1e-4)
    assert row.update_ratio == row.update
    assert row.relative_update == row.update / row.weight
    assert row.relative_feature_change == row.feature_change / row.feature


def test_convolutions_are_matrices_on_patches():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 5, 3, groups=5), nn.Flatten(), nn.Linear(80, 1)
    )
    x = torch.randn(3, 2, 6, 6)
    before = stepped(model, x, torch.ones(3, 1), lr=1e-3)
    first, second, _ = spectral_report(model, before, x)
    D = (model[0].weight - before["0.weight"]).detach().flatten(1)
    patches = nn.functional.unfold(x, 3, padding=1)
    expected = (D @ patches).norm() / (torch.linalg.matrix_norm(D, ord=2) * patches.norm())
    assert first.alignment == pytest.approx(float(expected), rel=1e-4)
    assert first.target == math.sqrt(5 / 18)
    depthwise = (model[2].weight - before["2.weight"]).detach().flatten(1)
    assert second.update == pytest.approx(float(depthwise.norm(dim=1).max()), rel=1e-5)
    assert 0 < second.alignment <= 1


def test_the_weight_under_a_multiplier_is_the_one_that_counts():
    model = mlp(40)
    MaximalUpdate().apply(model, mlp(10))
    x = torch.randn(5, 6)
    row = spectral_report(model, stepped(model, x, torch.ones(5, 2)), x)[-1]
    now = torch.linalg.matrix_norm(model[4].weight.detach(), ord=2)
    assert row.weight <= float(now) + row.update
    assert row.weight >= float(now) - row.update


def test_the_network_is_left_as_it_was_and_bad_states_are_refused():
    model, x, table = mlp().train(), torch.randn(4, 6), nn.Embedding(3, 2)
    before = stepped(model, x, torch.ones(4, 2))
    model.zero_grad(set_to_none=True)
    snapshot = Snapshot(model)
    spectral_report(model, before, x)
    assert not snapshot.differences()
    with pytest.raises(ValueError, match=r"'0.weight'"):
        spectral_report(model, {}, x)
    with pytest.raises(ValueError, match="no linear layer"):
        spectral_report(table, table.state_dict(), torch.tensor([1]))
    assert not snapshot.differences()


def test_the_rms_norm_of_an_identity_is_one_and_vectors_are_refused():
    assert float(rms_norm(torch.eye(100))) == pytest.approx(1, rel=1e-5)
    weight = torch.randn(30, 70)
    expected = math.sqrt(70 / 30) * float(torch.linalg.matrix_norm(weight, ord=2))
    assert float(rms_norm(weight)) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="two or more axes"):
        rms_norm(torch.ones(3))
