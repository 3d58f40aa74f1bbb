"""The normalised ReLU kernel against scikit-ntk, and Gaussian processes with it against scikit-learn's."""

import numpy as np
import pytest
import torch

from tangrams.kernels import LaplaceKernel, NormalizedReLUNTK
from tangrams.lens import posterior_mean

skntk = pytest.importorskip("skntk")
pytestmark = pytest.mark.peers


def ours(depth, bias):
    kernel = NormalizedReLUNTK(depth).double()
    kernel.initialize(bias=bias)
    return kernel


@pytest.fixture
def x():
    return torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("depth", [1, 2, 3, 10])
@pytest.mark.parametrize("bias", [0.05, 0.7])
def test_values_and_the_gradient_in_the_log_bias_equal_scikit_ntk(x, depth, bias):
    theirs = skntk.NeuralTangentKernel(depth=depth, bias=bias)
    kernel = ours(depth, bias)
    np.testing.assert_allclose(kernel.gram(x[:4], x[4:]).detach(), theirs(x[:4].numpy(), x[4:].numpy()), rtol=1e-10)
    value, gradient = theirs(x.numpy(), eval_gradient=True)
    # The other side takes acos near one on the diagonal.
    np.testing.assert_allclose(kernel.gram(x).detach(), value, rtol=1e-6)
    # dk/dlog β, from ours in the raw parameter: β = softplus(raw).
    by_raw = torch.stack(
        [
            torch.stack([torch.autograd.grad(entry, kernel.raw_bias, retain_graph=True)[0].squeeze() for entry in row])
            for row in kernel.gram(x)
        ]
    )
    expected = by_raw / (1 - np.exp(-bias)) * bias
    np.testing.assert_allclose(expected, gradient[..., 0], rtol=1e-5, atol=1e-7)


def test_posterior_means_equal_those_of_scikit_learn(x):
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern

    y = torch.sin(x.sum(1))
    for kernel, peer in (
        (ours(3, 0.5), skntk.NeuralTangentKernel(depth=3, bias=0.5)),
        (LaplaceKernel().double(), Matern(1.0, nu=0.5)),
    ):
        reference = GaussianProcessRegressor(peer, alpha=0.01, optimizer=None).fit(x[:6].numpy(), y[:6].numpy())
        mean = posterior_mean(kernel, x[:6], y[:6], x[6:], ridge=0.01)
        np.testing.assert_allclose(mean, reference.predict(x[6:].numpy()), atol=1e-6)
