"""Sharpness of networks in training, and the report on what transfers."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.lens import (
    SharpnessTracker,
    StochasticLossError,
    directional_sharpness,
    loss_gauss_newton,
    loss_hessian,
    sharpness,
    step_scales,
    super_consistency,
    trace_estimate,
    transfer_curve,
)
from tangrams.nn import ResidualMLP
from tangrams.nn.optim import AdaBelief
from tangrams.nn.parametrizations import NeuralTangent, Spectral
from tangrams.operators.curvature import PreconditionedCurvature
from tangrams.testing import Snapshot

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = torch.randn(12, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss(f, y):
    return (f - y).square().sum(1).mean() / 2


def network(width=16):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, width), nn.BatchNorm1d(width), nn.Tanh(), nn.Dropout(0.5), nn.Linear(width, 2)
    ).double()


def test_the_network_is_read_in_eval_mode_and_left_as_it_was():
    model = network().train()
    snapshot = Snapshot(model)
    H, G = loss_hessian(model, loss, X, Y), loss_gauss_newton(model, loss, X, Y)
    top, other = sharpness(H, rtol=1e-8), sharpness(G, rtol=1e-8)
    assert not snapshot.differences()
    dense = H.to_dense()
    assert top.value == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-7)
    assert float((dense @ top.vector - top.value * top.vector).norm()) < 1e-7 * top.value
    gram = TangentFeatures(model, output="all").gram(X)
    assert other.value == pytest.approx(float(torch.linalg.eigvalsh(gram)[-1]) / len(X), rel=1e-8)
    assert not snapshot.differences()


def test_products_without_the_matrix_find_the_same_sharpness():
    """More parameters than are ever formed densely."""
    model = network(width=64)
    H = loss_hessian(model, loss, X, Y)
    assert H.shape[0] > 100
    found = sharpness(H, rtol=1e-6)
    values = torch.linalg.eigvalsh(H.to_dense())
    assert found.value == pytest.approx(float(values[-1]), rel=1e-6)
    assert sharpness(H * -1.0, rtol=1e-6).value == pytest.approx(-float(values[0]), rel=1e-5)


def test_traces_and_directions_are_those_of_the_dense_matrix():
    H = loss_hessian(network(), loss, X, Y)
    dense = H.to_dense()
    found = trace_estimate(H, 64)
    assert abs(found.value - float(dense.trace())) < 4 * found.standard_error
    d = torch.randn(H.shape[0], dtype=torch.float64)
    assert directional_sharpness(H, d) == pytest.approx(float(d @ dense @ d / (d @ d)))
    with pytest.raises(ValueError, match="other than zero"):
        directional_sharpness(H, 0 * d)
    with pytest.raises(ValueError, match="length"):
        directional_sharpness(H, d[1:])
    with pytest.raises(ValueError, match="two or more"):
        trace_estimate(H, 1)


class Noisy(nn.Linear):
    def forward(self, x):
        return super().forward(x) + torch.randn(())


def test_a_loss_that_draws_and_one_that_is_no_scalar_are_refused():
    with pytest.raises(StochasticLossError, match="differs between two"):
        loss_hessian(Noisy(4, 2).double(), loss, X, Y)
    with pytest.raises(ValueError, match="scalar"):
        loss_hessian(nn.Linear(4, 2).double(), lambda f, y: (f - y).square(), X, Y)
    with pytest.raises(ValueError, match="float32 or float64"):
        loss_hessian(nn.Linear(4, 2).bfloat16(), loss, X.bfloat16(), Y.bfloat16())


def trained(model, optimizer, steps, every=1, x=X, y=Y):
    tracker = SharpnessTracker(model, loss, x, y, optimizer=optimizer, every=every, rtol=1e-5)
    for _ in range(steps):
        tracker.step()
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return tracker


def test_a_linear_model_keeps_its_sharpness_and_diverges_beyond_the_edge():
    """Gradient descent on a quadratic: stable below 2 / λ, not above."""
    for factor, falls in ((1.9, True), (2.1, False)):
        model = nn.Linear(4, 2).double()
        top = sharpness(loss_hessian(model, loss, X, Y)).value
        tracker = trained(model, torch.optim.SGD(model.parameters(), factor / top), 60, every=20)
        assert tracker.steps == [0, 20, 40]
        assert max(tracker.values) - min(tracker.values) < 1e-8
        assert tracker.values[0] == pytest.approx(factor, rel=1e-6)
        assert (tracker.losses[-1] < tracker.losses[0]) == falls


def test_momentum_has_its_edge_at_two_and_twice_its_coefficient():
    model = nn.Linear(4, 2).double()
    top = sharpness(loss_hessian(model, loss, X, Y)).value
    for factor, falls in ((2 * 1.5 * 0.97, True), (2 * 1.5 * 1.03, False)):
        model = nn.Linear(4, 2).double()
        tracker = trained(model, torch.optim.SGD(model.parameters(), factor / top, momentum=0.5), 120, every=40)
        assert (tracker.losses[-1] < tracker.losses[0]) == falls


def test_the_steps_of_adam_are_read_from_its_second_moments():
    model = nn.Linear(4, 2).double()
    frozen = nn.Linear(4, 2).double()
    both = nn.ModuleDict({"a": model, "b": frozen})
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    loss(model(X), Y).backward()
    gradient = model.weight.grad.clone()
    optimizer.step()
    scales = step_scales(both, optimizer)
    torch.testing.assert_close(scales["a.weight"], 0.1 / (gradient.abs() + 1e-8))
    assert not scales["b.weight"].any()


@pytest.mark.parametrize(
    ("make", "mean"),
    [
        (lambda p: torch.optim.Adam(p, 0.1), "exp_avg"),
        (lambda p: torch.optim.Adam(p, 0.1, amsgrad=True), "exp_avg"),
        (lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.0), "exp_avg"),
        (lambda p: AdaBelief(p, 0.1), "mean"),
    ],
    ids=["adam", "amsgrad", "adamw", "adabelief"],
)
def test_a_step_is_the_scale_times_the_mean_gradient(make, mean):
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2, bias=False).double()
    optimizer = make(model.parameters())
    for step in range(1, 5):
        before = model.weight.detach().clone()
        model.weight.grad = torch.randn(2, 3, generator=generator, dtype=torch.float64) / step**2
        optimizer.step()
        expected = -step_scales(model, optimizer)["weight"] * optimizer.state[model.weight][mean] / (1 - 0.9**step)
        torch.testing.assert_close(model.weight.detach() - before, expected)


def test_optimisers_that_scale_otherwise_are_refused():
    model = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="RMSprop"):
        step_scales(model, torch.optim.RMSprop(model.parameters()))


def test_the_effective_sharpness_does_not_depend_on_the_convention():
    """The same network with multipliers and without: λ of P^½ H P^½ agrees, λ of H does not."""
    found = []
    for fold in (False, True):
        model = ResidualMLP(4, 16, 2, 2).double()
        plan = NeuralTangent().apply(model, generator=torch.Generator().manual_seed(0))
        if fold:
            plain = ResidualMLP(4, 16, 2, 2).double()
            with torch.no_grad():
                for row in plan.rows:
                    plain.get_parameter(row.name).copy_(row.parameter * row.scaling.multiplier)
            groups = [
                {"params": [plain.get_parameter(row.name)], "lr": 0.1 * row.scaling.folded().sgd} for row in plan.rows
            ]
            model, optimizer = plain, torch.optim.SGD(groups)
        else:
            optimizer = torch.optim.SGD(plan.sgd(0.1))
        H = loss_hessian(model, loss, X, Y)
        found.append(
            sharpness(PreconditionedCurvature(curvature=H, scales=step_scales(model, optimizer)), rtol=1e-8).value
        )
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("rule", [Spectral(), NeuralTangent()], ids=lambda rule: type(rule).__name__)
def test_the_effective_sharpness_at_the_start_is_flat_in_width(rule):
    means = []
    x, y = X.float(), Y.float()
    for width in (64, 256):
        values = []
        for seed in range(5):
            model = ResidualMLP(4, width, 2, 2)
            plan = rule.apply(model, generator=torch.Generator().manual_seed(seed))
            G = loss_gauss_newton(model, loss, x, y)
            scales = step_scales(model, torch.optim.SGD(plan.sgd(0.1)))
            values.append(sharpness(PreconditionedCurvature(curvature=G, scales=scales), rtol=1e-2).value)
        means.append(sum(values) / len(values))
    assert abs(math.log(means[1] / means[0]) / math.log(256 / 64)) < 0.15


def test_a_transfer_curve_finds_the_best_rates_and_their_drift():
    def train(size, lr, seed):
        best = 0.5 * (size / 16) ** -0.5
        return math.inf if lr > 2.5 * best else (math.log(lr / best)) ** 2 + 0.01 * seed

    lrs = tuple(2.0**k for k in range(-5, 2))
    curve = transfer_curve(train, (16, 64, 256), lrs, seeds=2)
    assert curve.best == (0.5, 0.25, 0.125)
    assert curve.drift == pytest.approx(-0.5)
    assert curve.steps == 2
    assert curve.loss.shape == (3, 7, 2)
    assert transfer_curve(lambda size, lr, seed: abs(lr - 0.5), (16, 64), lrs).steps == 0
    with pytest.raises(ValueError, match="every rate diverged"):
        transfer_curve(lambda *_: math.nan, (16, 64), lrs)
    with pytest.raises(ValueError, match="ascending"):
        transfer_curve(train, (16, 64), (1.0, 0.5))


def test_super_consistency_is_read_from_trajectories():
    t = np.arange(1.0, 5.0)
    same = super_consistency({64: t, 16: t, 256: t})
    assert same.sizes == (16, 64, 256)
    assert not same.deviation.any()
    assert np.abs(same.slope).max() < 1e-12
    grown = super_consistency({n: t * n**0.5 for n in (16, 64, 256)})
    np.testing.assert_allclose(grown.slope, 0.5)
    np.testing.assert_allclose(grown.deviation[0], 0.75)
    np.testing.assert_allclose(grown.spread, np.std(np.log([4.0, 8.0, 16.0])))
    for bad, word in (({16: t}, "two sizes"), ({16: t, 64: t[1:]}, "same times"), ({16: t, 64: -t}, "positive")):
        with pytest.raises(ValueError, match=word):
            super_consistency(bad)
    with pytest.raises(ValueError, match="every ≥ 1"):
        SharpnessTracker(nn.Linear(4, 2), loss, X, Y, every=0)
