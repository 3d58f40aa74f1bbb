"""Normalised gradient descent: the suite of optimisers, and the geometry of its steps."""

import math

import pytest
import torch
from torch import nn

from tangrams.nn.optim import FrobeniusSGD, SpectralSGD
from tangrams.nn.parametrizations import FanError, MaximalUpdate, Spectral
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.optimizer import OptimizerSuite


def parameters(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    shapes = ((5, 3), (4,), (70, 90), (3, 2, 2, 2))
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)) for shape in shapes]


def by_hand(norm, momentum=0.0, lr=0.1):
    def reference(initial, gradients):
        values, buffers = [v.clone() for v in initial], [torch.zeros_like(v) for v in initial]
        for step in gradients:
            for value, buffer, gradient in zip(values, buffers, step, strict=True):
                buffer.mul_(momentum).add_(gradient)
                matrix = buffer.reshape(len(buffer), -1)
                value -= lr * math.sqrt(matrix.shape[0] / matrix.shape[1]) * buffer / norm(matrix)
        return values

    return reference


def spectral(matrix):
    return torch.linalg.matrix_norm(matrix, ord=2)


def small():
    return [p for p in parameters() if p.numel() < 1000]


TestOptimisers = conformance(
    OptimizerSuite,
    Case(lambda: SpectralSGD(small(), lr=0.1), reference=by_hand(spectral)),
    Case(
        lambda: SpectralSGD(parameters(torch.float32), lr=0.1, momentum=0.9),
        reference=by_hand(spectral, 0.9),
        name="momentum",
    ),
    Case(lambda: FrobeniusSGD(parameters(), lr=0.1), reference=by_hand(torch.linalg.matrix_norm)),
)


def step(optimiser, parameter, gradient):
    before = parameter.detach().clone()
    parameter.grad = gradient
    optimiser.step()
    return parameter.detach() - before


@pytest.mark.parametrize("shape", [(200, 300), (512, 128), (64, 8, 3, 3)], ids=str)
@pytest.mark.parametrize("rank", [2, None])
def test_an_update_has_the_norm_of_its_rate(shape, rank):
    """Also for a gradient with no gap at the top of its spectrum, and after a change of direction."""
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.zeros(shape))
    optimiser = SpectralSGD([parameter], lr=0.3)
    rows, columns = shape[0], math.prod(shape[1:])
    for _ in range(3):
        gradient = torch.randn(rows, columns) if rank is None else torch.randn(rows, rank) @ torch.randn(rank, columns)
        update = step(optimiser, parameter, 1e-6 * gradient.reshape(shape))
        assert float(spectral(update.flatten(1))) == pytest.approx(0.3 * math.sqrt(rows / columns), rel=1e-3)


def test_updates_turn_with_the_gradient_and_do_not_feel_its_size():
    torch.manual_seed(0)
    gradient = torch.randn(80, 70, dtype=torch.float64)
    U = torch.linalg.qr(torch.randn(80, 80, dtype=torch.float64)).Q
    V = torch.linalg.qr(torch.randn(70, 70, dtype=torch.float64)).Q

    def update(g):
        parameter = nn.Parameter(torch.zeros_like(g))
        return step(SpectralSGD([parameter], lr=1.0), parameter, g)

    torch.testing.assert_close(update(U @ gradient @ V), U @ update(gradient) @ V, rtol=0, atol=1e-5)
    torch.testing.assert_close(update(1e-9 * gradient), update(gradient), rtol=0, atol=1e-6)
    torch.testing.assert_close(update(1e9 * gradient), update(gradient), rtol=0, atol=1e-6)


def test_the_frobenius_step_is_shorter_by_the_root_of_the_stable_rank():
    torch.manual_seed(0)
    gradient = torch.randn(40, 3) @ torch.randn(3, 30)
    parameter, other = nn.Parameter(torch.zeros(40, 30)), nn.Parameter(torch.zeros(40, 30))
    long = step(SpectralSGD([parameter], lr=1.0), parameter, gradient)
    short = step(FrobeniusSGD([other], lr=1.0), other, gradient)
    stable_rank = float((gradient.norm() / spectral(gradient)) ** 2)
    torch.testing.assert_close(long, short * math.sqrt(stable_rank), rtol=1e-4, atol=1e-6)
    assert 1 < stable_rank < 3


def test_a_start_that_is_orthogonal_to_the_top_finds_it():
    parameter = nn.Parameter(torch.zeros(100, 100))
    optimiser = SpectralSGD([parameter], lr=1.0)
    first, second = torch.zeros(100, 100), torch.zeros(100, 100)
    first[0, 0], second[0, 0], second[1, 1] = 1.0, 1.0, 5.0
    step(optimiser, parameter, first)
    update = step(optimiser, parameter, second)
    assert float(update[1, 1]) == pytest.approx(-1.0, rel=1e-3)


def test_groups_of_a_plan_know_what_each_weight_is():
    """An embedding is normed by its longest row, a gain by its largest entry, a multiplier undone."""

    def build(width):
        torch.manual_seed(0)
        return nn.ModuleDict(
            {"table": nn.Embedding(5, width), "norm": nn.LayerNorm(width), "readout": nn.Linear(width, 2)}
        )

    model = build(16)
    plan = MaximalUpdate().apply(model, build(4))
    optimiser = SpectralSGD(plan.spectral(0.1), lr=1.0)
    before = {row.name: row.parameter.detach().clone() for row in plan.rows}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimiser.step()
    change = {row.name: row.parameter.detach() - before[row.name] for row in plan.rows}
    assert float(change["table.weight"].norm(dim=1).max()) == pytest.approx(0.1 * math.sqrt(16), rel=1e-4)
    assert float(change["norm.weight"].abs().max()) == pytest.approx(0.1, rel=1e-4)
    assert float(change["norm.bias"].square().mean().sqrt()) == pytest.approx(0.1, rel=1e-4)
    effective = change["readout.weight"] / 4
    assert float(spectral(effective)) == pytest.approx(0.1 * math.sqrt(2 / 16), rel=1e-4)


def test_training_with_it_moves_features_by_the_same_at_every_width():
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
    moved = []
    for width in (32, 512):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        optimiser = SpectralSGD(Spectral().apply(model).spectral(0.05), lr=1.0)
        before = model[:3](x).detach()
        for _ in range(3):
            optimiser.zero_grad()
            (model(x) - 1).square().mean().backward()
            optimiser.step()
        moved.append(float((model[:3](x) - before).norm() / before.norm()))
    assert 0.8 < moved[1] / moved[0] < 1.25


@pytest.mark.parametrize("optimizer", [SpectralSGD, FrobeniusSGD])
def test_a_weight_without_entries_is_passed_over(optimizer):
    empty, weight = (torch.nn.Parameter(torch.zeros(rows, 3)) for rows in (0, 3))
    empty.grad, weight.grad = torch.zeros(0, 3), torch.eye(3)
    optimizer([empty, weight], lr=0.1).step()
    assert weight.detach().diagonal().lt(0).all()


@pytest.mark.parametrize("optimizer", [SpectralSGD, FrobeniusSGD])
@pytest.mark.parametrize("size", [1e-6, 2e3])
def test_half_precision_does_not_feel_the_size_of_a_gradient(optimizer, size):
    """In float16 the squares of these gradients vanish or overflow, and so does one over a small norm."""
    moved = []
    for dtype in (torch.float16, torch.float64):
        weight = nn.Parameter(torch.zeros(40, 40, dtype=dtype))
        gradient = torch.randn(40, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        weight.grad = (size * gradient).to(torch.float16).to(dtype)
        optimizer([weight], lr=0.1).step()
        moved.append(weight.detach().double())
    assert float((moved[0] - moved[1]).norm() / moved[1].norm()) < 1e-3


def test_bad_options_and_views_are_refused():
    for options, word in (({"lr": -1.0}, "lr ≥ 0"), ({"lr": 0.1, "momentum": 1.0}, "momentum")):
        with pytest.raises(ValueError, match=word):
            SpectralSGD(parameters(), **options)
    optimiser = SpectralSGD(parameters(), lr=0.1)
    with pytest.raises(FanError, match="blocks"):
        optimiser.add_param_group({"params": [nn.Parameter(torch.zeros(3, 2))], "view": (1, 2, 2)})
    assert len(optimiser.param_groups) == 1
