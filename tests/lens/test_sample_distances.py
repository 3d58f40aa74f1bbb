"""Distances of samples against exact transport and closed forms."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from tangrams.kernels import LaplaceKernel
from tangrams.lens import sinkhorn_divergence, squared_mmd
from tangrams.operators import ConvergenceError


def clouds(n=30, shift=2.0):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, 2, generator=g, dtype=torch.float64), torch.randn(
        n, 2, generator=g, dtype=torch.float64
    ) + shift


def test_with_little_blur_it_is_the_cost_of_the_best_assignment():
    x, y = clouds()
    cost = torch.cdist(x, y).square() / 2
    exact = float(cost[linear_sum_assignment(cost.numpy())].mean())
    assert float(sinkhorn_divergence(x, y, blur=0.03)) == pytest.approx(exact, rel=2e-3)


def test_a_shift_costs_half_its_square_at_any_blur():
    x, _ = clouds()
    shift = torch.tensor([1.5, -0.5], dtype=torch.float64)
    for blur in (0.1, 1.0):
        assert float(sinkhorn_divergence(x, x + shift, blur=blur)) == pytest.approx(1.25, rel=1e-4)


def test_equal_sets_are_at_distance_zero_in_any_order():
    x, y = clouds()
    assert abs(float(sinkhorn_divergence(x, x.flip(0), blur=0.2))) < 1e-6
    assert float(sinkhorn_divergence(x, y)) == pytest.approx(float(sinkhorn_divergence(y, x)), rel=1e-4)
    assert float(sinkhorn_divergence(x[:7], y)) > 0


def test_mmd_by_loops():
    x, y = clouds(5)
    k = LaplaceKernel(1.0).double()
    expected = sum(float(k.gram(a[None], b[None])) for a in x for b in x) / 25
    expected += sum(float(k.gram(a[None], b[None])) for a in y for b in y) / 25
    expected -= 2 * sum(float(k.gram(a[None], b[None])) for a in x for b in y) / 25
    assert float(squared_mmd(k, x, y)) == pytest.approx(expected, rel=1e-10)
    assert abs(float(squared_mmd(k, x, x))) < 1e-12


def test_impossible_arguments_are_refused():
    x, y = clouds(4)
    with pytest.raises(ValueError, match="blur"):
        sinkhorn_divergence(x, y, blur=0)
    with pytest.raises(ValueError, match="samples"):
        sinkhorn_divergence(x[:0], y)
    with pytest.raises(ValueError, match="finite"):
        sinkhorn_divergence(x * torch.nan, y)
    with pytest.raises(ValueError, match="max_iterations"):
        sinkhorn_divergence(x, y, max_iterations=0)
    with pytest.raises(ConvergenceError, match="blur"):
        sinkhorn_divergence(x, y, blur=1e-3, max_iterations=2)
