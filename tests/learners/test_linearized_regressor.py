"""Facts of sheet 033 about regression with a linearised network."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from torch import nn

from tangrams.kernels import EmpiricalNTK
from tangrams.learners import LinearizedRegressor


def gram(n, rank, seed=0):
    F = torch.randn(n, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F @ F.mT


def targets(n, C, seed=1):
    return torch.randn(n, C, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_without_a_ridge_the_targets_are_reproduced():
    K, y = gram(8, 20), targets(8, 3)
    np.testing.assert_allclose(LinearizedRegressor("precomputed").fit(K, y).predict(K), y, rtol=0, atol=1e-9)


def test_predictions_are_the_formula_with_an_inverse():
    K, y, cross = gram(8, 20), targets(8, 3), targets(5, 8)
    f0, f0_new = targets(8, 3, 5), targets(5, 3, 6)
    ridge = 0.3 * K.diagonal().mean()
    expected = f0_new + cross @ (K + ridge * torch.eye(8, dtype=torch.float64)).inverse() @ (y - f0)
    model = LinearizedRegressor("precomputed", delta=0.3).fit(K, y, f0)
    np.testing.assert_allclose(model.predict(cross, f0_new), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("delta", [0.0, 0.2])
@pytest.mark.parametrize("rank", [4, 20])
def test_finite_time_is_the_flow_of_the_matrix_exponential(rank, delta):
    """The ODE's solution, from the exponential of an augmented matrix that needs no inverse."""
    K, y, cross, t = gram(8, rank), targets(8, 2), targets(5, 8), 0.07
    A = (K + delta * K.diagonal().mean() * torch.eye(8, dtype=torch.float64)).numpy()
    augmented = np.block([[-A, np.eye(8)], [np.zeros((8, 16))]])
    integral = expm(augmented * t)[:8, 8:]  # ∫₀ᵗ e^{−A s} ds
    expected = cross.numpy() @ integral @ y.numpy()
    model = LinearizedRegressor("precomputed", delta=delta, time=t).fit(K, y)
    np.testing.assert_allclose(model.predict(cross), expected, rtol=1e-9, atol=1e-9)


def test_time_zero_is_the_network_itself_and_infinity_the_limit():
    K, y, f0 = gram(8, 20), targets(8, 2), targets(8, 2, 5)
    start = LinearizedRegressor("precomputed", time=0.0).fit(K, y, f0).predict(K, f0)
    np.testing.assert_allclose(start, f0, rtol=0, atol=1e-12)
    late = LinearizedRegressor("precomputed", time=1e6).fit(K, y, f0).predict(K, f0)
    limit = LinearizedRegressor("precomputed", time=math.inf).fit(K, y, f0).predict(K, f0)
    np.testing.assert_allclose(late, limit, rtol=0, atol=1e-6)


def test_a_singular_gram_is_solved_by_its_pseudo_inverse():
    K, cross = gram(8, 3), gram(8, 3)[:4]
    y = K @ targets(8, 2)  # in the range
    model = LinearizedRegressor("precomputed").fit(K, y)
    expected = cross @ torch.linalg.pinv(K, hermitian=True, rtol=1e-10) @ y
    np.testing.assert_allclose(model.predict(cross), expected, rtol=1e-8, atol=1e-8)
    off_range = LinearizedRegressor("precomputed").fit(K, targets(8, 2)).predict(cross)
    best = cross @ torch.linalg.pinv(K, hermitian=True, rtol=1e-10) @ targets(8, 2)
    np.testing.assert_allclose(off_range, best, rtol=1e-7, atol=1e-7)


def network(C, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, C)).double()


def test_the_full_kernel_couples_outputs_and_equals_the_flat_formula():
    net, x, z = network(3), targets(6, 4), targets(2, 4, 7)
    kernel = EmpiricalNTK(net)
    y, f0, f0_new = targets(6, 3), net(x).detach(), net(z).detach()
    solved = torch.linalg.pinv(kernel.gram(x), hermitian=True) @ (y - f0).reshape(-1)
    expected = f0_new + (kernel.gram(z, x) @ solved).reshape(2, 3)
    model = LinearizedRegressor(kernel).fit(x, y, f0)
    np.testing.assert_allclose(model.predict(z, f0_new), expected, rtol=1e-6, atol=1e-6)


def test_pseudo_equals_full_where_the_readout_alone_is_trained():
    net, x, z = network(3), targets(6, 4), targets(2, 4, 7)
    y = targets(6, 3)
    full = LinearizedRegressor(EmpiricalNTK(net, params=[net[2]]), delta=1e-3).fit(x, y).predict(z)
    pseudo = LinearizedRegressor(EmpiricalNTK(net, "sum", params=[net[2]]), delta=1e-3).fit(x, y).predict(z)
    np.testing.assert_allclose(pseudo, full, rtol=1e-8, atol=1e-10)


def test_a_linear_network_trained_by_small_steps_follows_the_flow():
    """Gradient descent on the sum of half squares of a model that is linear in its weights: t = η · steps."""
    torch.manual_seed(0)
    net = nn.Linear(4, 2).double()
    x, y, z = targets(6, 4), targets(6, 2), targets(3, 4, 7)
    f0, f0_new = net(x).detach(), net(z).detach()
    kernel = EmpiricalNTK(net, "trace")
    expected = LinearizedRegressor(kernel, time=0.2).fit(x, y, f0).predict(z, f0_new)
    steps = 4000
    for _ in range(steps):
        loss = (net(x) - y).square().sum() / 2
        gradients = torch.autograd.grad(loss, list(net.parameters()))
        with torch.no_grad():
            for p, g in zip(net.parameters(), gradients, strict=True):
                p.sub_(0.2 / steps * g)
    np.testing.assert_allclose(net(z).detach(), expected, rtol=2e-3, atol=2e-3)


def test_flat_targets_give_flat_predictions():
    K = gram(8, 20)
    assert LinearizedRegressor("precomputed").fit(K, targets(8, 1)[:, 0]).predict(K).shape == (8,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"delta": -1.0}, "delta"), ({"time": -0.1}, "time"), ({"delta": float("nan")}, "delta")],
)
def test_parameters_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LinearizedRegressor("precomputed", **arguments).fit(gram(8, 20), targets(8, 1))


def test_an_offset_is_wanted_exactly_when_it_was_fitted_with():
    K, y = gram(8, 20), targets(8, 2)
    with pytest.raises(ValueError, match="fitted with an offset"):
        LinearizedRegressor("precomputed").fit(K, y, y).predict(K)
    with pytest.raises(ValueError, match="fitted without an offset"):
        LinearizedRegressor("precomputed").fit(K, y).predict(K, y)
    with pytest.raises(ValueError, match="8 × 2 outputs"):
        LinearizedRegressor("precomputed").fit(K, y, targets(8, 3))


def test_a_gram_of_another_size_is_refused():
    with pytest.raises(ValueError, match="8 rows, 5 targets of 2"):
        LinearizedRegressor("precomputed").fit(gram(8, 20), targets(5, 2))


@pytest.mark.parametrize("time", [0.05, 2.0, math.inf])
def test_the_flow_of_means_of_055_is_this_flow_at_another_clock(time):
    """Its loss is the mean over n samples, so its time t is n times ours; its ridge is in the kernel's own units."""
    from tangrams.learners import KernelGradientFlow

    K, y, f0, cross, f0_new = gram(8, 20), targets(8, 2), targets(8, 2, 5), targets(5, 8), targets(5, 2, 6)
    ours = LinearizedRegressor("precomputed", delta=0.1, time=time).fit(K, y, f0).predict(cross, f0_new)
    ridge = 0.1 * float(K.diagonal().mean())
    theirs = KernelGradientFlow("precomputed", time=8 * time, ridge=ridge).fit(K, y, f0).predict(cross, f0=f0_new)
    np.testing.assert_allclose(ours, theirs, rtol=1e-8, atol=1e-10)
