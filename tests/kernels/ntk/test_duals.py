"""Duals of activations against quadrature in one dimension more than they need."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from tangrams.kernels.ntk import (
    GELU,
    RBF,
    ABReLU,
    Abs,
    Cos,
    Erf,
    Exp,
    Gaussian,
    Heaviside,
    Hermite,
    LeakyReLU,
    Polynomial,
    QuadratureDual,
    ReLU,
    Sign,
    Sin,
)

SMOOTH = [
    Erf(),
    Erf(1.5, 0.7),
    Sin(),
    Sin(1.2, 0.8, 0.3),
    Cos(),
    Cos(1.2, 0.8, 0.3),
    RBF(0.4),
    Exp(0.8, 0.5),
    Gaussian(1.2, 0.3),
    GELU(),
    Polynomial([0.3, -1.0, 0.5, 0.25]),
    Hermite(4),
]
KINKED = [ReLU(), LeakyReLU(0.2), ABReLU(-0.5, 1.5), Abs(), Heaviside(), Sign()]

P = torch.tensor([1.0, 0.5, 2.0, 1.3, 0.7, 1.0], dtype=torch.float64)
Q = torch.tensor([1.0, 1.5, 0.8, 1.3, 1.9, 1.0], dtype=torch.float64)
R = torch.tensor([0.3, -0.6, 1.1, 0.0, -1.0, 0.999], dtype=torch.float64)


def name(dual):
    return repr(dual)


def derivative(dual):
    return lambda u: torch.func.jvp(dual.function, (u,), (torch.ones_like(u),))[1]


def gauss_hermite(fn, p, q, r, order=200):
    """E fn(u) fn(v) by the product rule, entry by entry."""
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(order))
    weights = weights / weights.sum()
    values = []
    for pi, qi, ri in zip(p, q, r, strict=True):
        u = pi.sqrt() * nodes[:, None] + 0 * nodes[None]
        v = ri / pi.sqrt() * nodes[:, None] + (qi - ri**2 / pi).sqrt() * nodes[None]
        values.append(weights @ (fn(u) * fn(v)) @ weights)
    return torch.stack(values)


def polar(fn, p, q, r, angles=20_000):
    """E fn(u) fn(v) of a positively homogeneous fn: a moment of the radius times a mean over the angle.

    The midpoint rule is split at the directions where u or v change sign.
    """
    degree = math.log2(float(abs(fn(torch.tensor(2.0))) / abs(fn(torch.tensor(1.0)))))
    radius = 2**degree * math.gamma(degree + 1)  # E ρ^(2 degree) of a standard normal in the plane
    values = []
    for pi, qi, ri in zip(p, q, r, strict=True):
        sine = (qi - ri**2 / pi).sqrt()
        turn = math.atan2(float(sine), float(ri / pi.sqrt()))  # v = √q cos(a − turn)
        corners = sorted({k * math.pi / 2 for k in (-2, -1, 1, 2)} | {turn + k * math.pi / 2 for k in (-3, -1, 1)})
        corners = [-math.pi] + [c for c in corners if -math.pi < c < math.pi] + [math.pi]
        total = 0.0
        nodes, weights = np.polynomial.legendre.leggauss(40)
        for low, high in pairwise(corners):
            a = torch.from_numpy((high - low) / 2 * nodes + (high + low) / 2)
            u, v = pi.sqrt() * a.cos(), qi.sqrt() * (a - turn).cos()
            total += float((torch.from_numpy(weights) * fn(u) * fn(v)).sum()) * (high - low) / 2
        values.append(radius * total / (2 * math.pi))
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize("dual", SMOOTH, ids=name)
def test_smooth_duals_equal_quadrature(dual):
    torch.testing.assert_close(dual.T(P, Q, R), gauss_hermite(dual.function, P, Q, R), rtol=1e-10, atol=1e-10)
    expected = gauss_hermite(derivative(dual), P, Q, R)
    torch.testing.assert_close(dual.Tdot(P, Q, R), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dual", KINKED, ids=name)
def test_kinked_duals_equal_polar_quadrature(dual):
    torch.testing.assert_close(dual.T(P, Q, R), polar(dual.function, P, Q, R), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dual", KINKED[:4], ids=name)
def test_slopes_of_kinked_duals_equal_polar_quadrature(dual):
    def slope(u):
        return torch.where(u < 0, u.new_tensor(dual.negative_slope), u.new_tensor(dual.positive_slope))

    torch.testing.assert_close(dual.Tdot(P, Q, R), polar(slope, P, Q, R), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("dual", [*SMOOTH, *KINKED[:4], QuadratureDual(torch.erf, 100)], ids=name)
def test_the_derivative_dual_is_the_slope_of_the_dual(dual):
    r = R.clone().requires_grad_()
    (slope,) = torch.autograd.grad(dual.T(P, Q, r).sum(), r)
    torch.testing.assert_close(slope, dual.Tdot(P, Q, R), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dual", [*SMOOTH, *KINKED], ids=name)
def test_the_diagonal_is_the_second_moment_and_bounds_the_rest(dual):
    own = dual.T(P, P, P)
    z, weights = (torch.from_numpy(part) for part in np.polynomial.hermite_e.hermegauss(100))
    second = torch.stack([(weights / weights.sum() * dual.function(p.sqrt() * z) ** 2).sum() for p in P])
    torch.testing.assert_close(own, second, rtol=1e-6, atol=1e-9)
    assert bool((dual.T(P, Q, R) ** 2 <= own * dual.T(Q, Q, Q) * (1 + 1e-12)).all())


@pytest.mark.parametrize("dual", [*SMOOTH, *KINKED], ids=name)
def test_odd_activations_are_marked(dual):
    u = torch.linspace(0.1, 3, 50, dtype=torch.float64)
    assert dual.odd == torch.allclose(dual.function(-u), -dual.function(u), atol=1e-12)


@pytest.mark.parametrize("dual", [*SMOOTH, *KINKED, QuadratureDual(torch.tanh)], ids=name)
def test_gradients_are_finite_at_coinciding_opposite_and_silent_units(dual):
    p = torch.tensor([1.0, 1.0, 0.0, 0.0, 1e-300], dtype=torch.float64, requires_grad=True)
    q = torch.tensor([1.0, 1.0, 1.0, 0.0, 1e-300], dtype=torch.float64, requires_grad=True)
    r = torch.tensor([1.0, -1.0, 0.0, 0.0, 1e-300], dtype=torch.float64, requires_grad=True)
    for value in (dual.T(p, q, r), dual.Tdot(p, q, r)):
        assert torch.isfinite(value).all()
        if not value.requires_grad:  # the slope of a step is zero everywhere
            continue
        gradients = torch.autograd.grad(value.sum(), (p, q, r), allow_unused=True, retain_graph=True)
        assert all(torch.isfinite(gradient).all() for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("dual", KINKED[:4], ids=name)
def test_the_relu_family_is_homogeneous(dual):
    torch.testing.assert_close(dual.T(4 * P, 9 * Q, 6 * R), 6 * dual.T(P, Q, R), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(dual.Tdot(4 * P, 9 * Q, 6 * R), dual.Tdot(P, Q, R), rtol=1e-12, atol=1e-14)


def test_hermite_duals_are_powers_of_the_correlation():
    one = torch.ones(9, dtype=torch.float64)
    r = torch.linspace(-1, 1, 9, dtype=torch.float64)
    for degree in range(6):
        torch.testing.assert_close(Hermite(degree).T(one, one, r), r**degree, rtol=1e-12, atol=1e-12)


def test_quadrature_equals_a_closed_dual_also_where_units_coincide():
    numerical, closed = QuadratureDual(torch.erf, 100, odd=True), Erf()
    p, q, r = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 1.0, 0.0], [1.0, 2.0, 1.0], [1.0, 0.4, 0.0]))
    torch.testing.assert_close(numerical.T(p, q, r), closed.T(p, q, r), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(numerical.Tdot(p, q, r), closed.Tdot(p, q, r), rtol=1e-10, atol=1e-10)
    gradients = []
    for dual in (numerical, closed):
        leaves = [part.clone().requires_grad_() for part in (p[:2], q[:2], r[:2])]
        gradients.append(torch.autograd.grad(dual.T(*leaves).sum(), leaves))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_quadrature_of_a_kinked_function_is_only_good_to_a_thousandth():
    error = (QuadratureDual(torch.relu, 64).T(P, Q, R) - ReLU().T(P, Q, R)).abs().max()
    assert 1e-5 < float(error) < 1e-2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RBF(0.0), "gamma > 0"),
        (lambda: Gaussian(1.0, -1.0), "b ≥ 0"),
        (lambda: Hermite(-1), "degree ≥ 0"),
        (lambda: Polynomial([]), "coefficients"),
        (lambda: Polynomial([math.nan]), "coefficients"),
        (lambda: QuadratureDual(torch.tanh, 0), "order ≥ 1"),
    ],
)
def test_impossible_duals_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
