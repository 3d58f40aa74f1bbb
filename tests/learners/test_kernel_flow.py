"""Kernel gradient flow against matrix exponentials, gradient descent, Gaussian processes and neural-tangents."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from tangrams.kernels import FullyConnectedNNGP, FullyConnectedNTK, LaplaceKernel
from tangrams.kernels.ntk import AnalyticNTK, Dense, ReLU, Serial
from tangrams.learners.kernel_flow import KernelGradientFlow
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance

TestKernelGradientFlow = estimator_conformance(
    Case(KernelGradientFlow),
    Case(lambda: KernelGradientFlow(time=2.0, learning_rate=0.5, ridge=0.1), name="KernelGradientFlow-early"),
)

FROZEN = Path(__file__).parents[1] / "kernels" / "neural_tangents.npz"


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    X, new = (torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (12, 5))
    y, start, start_new = (torch.randn(n, 2, generator=generator, dtype=torch.float64).numpy() for n in (12, 12, 5))
    return X, new, y, start, start_new


@pytest.mark.parametrize("t", [0.0, 0.3, 7.0, 500.0])
@pytest.mark.parametrize("ridge", [0.0, 0.2])
def test_predictions_equal_the_matrix_exponential(problem, t, ridge):
    X, new, y, start, start_new = problem
    kernel = FullyConnectedNTK(3, b_std=0.1)
    flow = KernelGradientFlow(kernel, learning_rate=0.7, ridge=ridge).fit(X, y, start)
    K, cross = kernel.gram(X) + ridge * torch.eye(12, dtype=torch.float64), kernel.gram(new, X)
    decay = torch.linalg.matrix_exp(-0.7 * t / 12 * K)
    residual = torch.from_numpy(y - start)
    expected = torch.from_numpy(start_new) + cross @ torch.linalg.lstsq(K, residual - decay @ residual).solution
    np.testing.assert_allclose(flow.predict(new, t, start_new), expected.numpy(), rtol=1e-9, atol=1e-9)


def test_time_zero_gives_the_start_and_time_infinity_interpolates(problem):
    X, new, y, start, start_new = problem
    flow = KernelGradientFlow(FullyConnectedNTK(3, b_std=0.1)).fit(X, y, start)
    np.testing.assert_array_equal(flow.predict(new, 0.0, start_new), start_new)
    np.testing.assert_allclose(flow.predict(X, math.inf, start), y, atol=1e-9)


def test_flowing_for_two_times_in_turn_is_flowing_for_their_sum(problem):
    X, new, y, start, start_new = problem
    kernel = LaplaceKernel(2.0).double()
    first = KernelGradientFlow(kernel).fit(X, y, start)
    middle, middle_new = first.predict(X, 2.0, start), first.predict(new, 2.0, start_new)
    second = KernelGradientFlow(kernel).fit(X, y, middle)
    np.testing.assert_allclose(second.predict(new, 3.0, middle_new), first.predict(new, 5.0, start_new), atol=1e-11)


def test_small_steps_of_gradient_descent_follow_the_flow(problem):
    X, new, y, *_ = problem
    targets, weights, step = torch.from_numpy(y), torch.zeros(3, 2, dtype=torch.float64), 1e-4
    ridge = 0.5
    for _ in range(20_000):
        gradient = (X.T @ (X @ weights - targets) + ridge * weights) / len(X)
        weights = weights - step * gradient
    flow = KernelGradientFlow(ridge=ridge).fit(X, y)
    # A step of h follows the flow to O(h) relative.
    np.testing.assert_allclose(flow.predict(new, 2.0), (new @ weights).numpy(), atol=1e-4)


def test_rates_above_the_maximum_diverge_and_below_it_converge(problem):
    X, _, y, *_ = problem
    kernel = FullyConnectedNTK(2)
    flow = KernelGradientFlow(kernel).fit(X, y)
    K, targets = kernel.gram(X), torch.from_numpy(y)
    for factor, settles in ((0.99, True), (1.01, False)):
        outputs = torch.zeros_like(targets)
        for _ in range(3000):
            outputs = outputs - factor * flow.max_learning_rate_ / len(X) * K @ (outputs - targets)
        assert (float((outputs - targets).abs().max()) < float(targets.abs().max())) == settles


def test_residual_components_decay_at_their_own_rate(problem):
    X, _, y, *_ = problem
    flow = KernelGradientFlow(FullyConnectedNTK(2)).fit(X, y)
    U, values = flow.spectrum_.eigenvectors, flow.spectrum_.eigenvalues
    left = U.T @ torch.from_numpy(y - flow.predict(X, 4.0))
    expected = torch.exp(-4.0 * values / len(X))[:, None] * (U.T @ torch.from_numpy(y))
    torch.testing.assert_close(left, expected, rtol=1e-9, atol=1e-10)


def test_components_outside_the_kernels_range_are_never_learned():
    X = torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64)
    flow = KernelGradientFlow().fit(X, [1.0, 1.0, 5.0])
    slope = (1 + 2 + 15) / 14
    assert flow.rank_ == 1
    for t in (math.inf, 1e12):
        np.testing.assert_allclose(flow.predict(X, t), slope * X[:, 0].numpy(), rtol=1e-10)


def test_a_precomputed_kernel_gives_the_same(problem):
    X, new, y, *_ = problem
    kernel = FullyConnectedNTK(3)
    whole = KernelGradientFlow(kernel, time=1.5).fit(X, y).predict(new)
    parts = KernelGradientFlow("precomputed", time=1.5).fit(kernel.gram(X), y).predict(kernel.gram(new, X))
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


def test_outputs_that_learn_together_equal_a_kronecker_kernel(problem):
    X, new, y, *_ = problem
    kernel, mix = FullyConnectedNTK(3), torch.tensor([[1.0, 0.4], [0.4, 0.8]], dtype=torch.float64)
    joint = KernelGradientFlow("precomputed").fit(torch.kron(kernel.gram(X), mix), y)
    predicted = joint.predict(torch.kron(kernel.gram(new, X), mix), 2.0)
    # Apart in the eigenbasis of the mixing matrix, each with its eigenvalue times the kernel.
    values, V = torch.linalg.eigh(mix)
    expected = np.zeros((5, 2))
    for value, v in zip(values, V.T, strict=True):
        flow = KernelGradientFlow(kernel, learning_rate=float(value)).fit(X, y @ v.numpy())
        expected += np.outer(flow.predict(new, 2.0), v.numpy())
    np.testing.assert_allclose(predicted, expected, rtol=1e-9, atol=1e-10)


def test_training_the_last_layer_gives_the_posterior_of_a_gaussian_process(problem):
    X, new, y, *_ = problem
    kernel = LaplaceKernel().double()
    kernel.initialize(lengthscale=1.7)
    posterior = KernelGradientFlow(kernel, ridge=0.3).fit(X, y).gp_posterior(new, prior=kernel)
    reference = GaussianProcessRegressor(Matern(1.7, nu=0.5), alpha=0.3, optimizer=None).fit(X, y)
    mean, covariance = reference.predict(new, return_cov=True)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-10)
    # Of the flow: without the noise that the ridge stands for, A (K + δ) Aᵀ lacks its second part.
    A = kernel.gram(new, X).detach() @ torch.cholesky_inverse(
        torch.linalg.cholesky(kernel.gram(X).detach() + 0.3 * torch.eye(12, dtype=torch.float64))
    )
    np.testing.assert_allclose(posterior.covariance + 0.3 * (A @ A.T).numpy(), covariance[..., 0], atol=1e-10)


@pytest.mark.parametrize(("name", "t"), [("early", 3.0), ("late", math.inf)])
@pytest.mark.parametrize("kind", ["ntk", "nngp"])
def test_ensemble_laws_equal_those_of_neural_tangents(name, t, kind):
    net = Serial(Dense(1.3, 0.2), ReLU(), Dense(0.9, 0.1), ReLU(), Dense())
    with np.load(FROZEN) as frozen:
        X, new = (torch.from_numpy(frozen[f"vectors/{which}"]) for which in ("x1", "x2"))
        y, mean, covariance = (
            frozen[f"flow/{part}"] for part in ("y", f"{name}_{kind}_mean", f"{name}_{kind}_covariance")
        )
    ntk = AnalyticNTK(net)
    flow = KernelGradientFlow(ntk if kind == "ntk" else ntk.nngp, learning_rate=0.7).fit(X, y)
    posterior = flow.gp_posterior(new, t, prior=ntk.nngp)
    np.testing.assert_allclose(posterior.mean, mean, atol=1e-6)
    np.testing.assert_allclose(posterior.covariance, covariance, atol=1e-6)


def test_the_ensemble_law_is_that_of_sampled_starts(problem):
    X, new, y, *_ = problem
    kernel = FullyConnectedNTK(2)
    prior = FullyConnectedNNGP(2)
    posterior = KernelGradientFlow(kernel).fit(X, y[:, 0]).gp_posterior(new, 2.0)
    factor = torch.linalg.cholesky(prior.gram(torch.cat([X, new])))
    generator = torch.Generator().manual_seed(1)
    draws = (factor @ torch.randn(17, 4000, generator=generator, dtype=torch.float64)).numpy()
    many = KernelGradientFlow(kernel).fit(X, np.repeat(y[:, :1], 4000, 1), draws[:12])
    samples = many.predict(new, 2.0, draws[12:])
    z = (samples.mean(1) - posterior.mean) / np.sqrt(np.diag(posterior.covariance) / 4000)
    assert np.abs(z).max() < 4
    ratio = samples.var(1, ddof=1) / np.diag(posterior.covariance)
    assert np.abs(ratio - 1).max() < 4 * math.sqrt(2 / 3999)


def test_bad_arguments_are_refused(problem):
    X, new, y, start, _ = problem
    flow = KernelGradientFlow().fit(X, y)
    with pytest.raises(ValueError, match="t ≥ 0"):
        flow.predict(new, -1.0)
    with pytest.raises(ValueError, match="learning_rate > 0"):
        KernelGradientFlow(learning_rate=0.0).fit(X, y)
    with pytest.raises(ValueError, match="ridge"):
        KernelGradientFlow(ridge=-1.0).fit(X, y)
    with pytest.raises(
        ValueError,
        match="f0=",
    ):
        KernelGradientFlow().fit(X, y, start).predict(new)
    with pytest.raises(ValueError, match="f0"):
        KernelGradientFlow().fit(X, y, start[:, :1])
    with pytest.raises(ValueError, match="f0"):
        flow.predict(new, 1.0, start)
    with pytest.raises(ValueError, match="negative eigenvalues"):
        KernelGradientFlow("precomputed").fit(np.diag([1.0, -1.0, 1.0]), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="prior"):
        flow.gp_posterior(new)
