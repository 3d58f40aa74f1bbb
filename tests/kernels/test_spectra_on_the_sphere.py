"""The ReLU tangent kernel with a bias and the Laplace kernel have the same functions on the sphere."""

import numpy as np
import pytest
import torch

from tangrams.kernels import GammaExponential, LaplaceKernel, NormalizedReLUNTK
from tangrams.lens import zonal


def funk_hecke(kernel, degrees):
    """Eigenvalues on S²: ½ ∫ k(cos a) P_l(cos a) sin a da, whose integrand is smooth in the angle."""
    nodes, weights = np.polynomial.legendre.leggauss(500)
    angle = (nodes + 1) * np.pi / 2
    values = zonal(kernel)(torch.from_numpy(np.cos(angle))).numpy() * np.sin(angle) * weights * np.pi / 4
    polynomials = np.polynomial.legendre.legvander(np.cos(angle), max(degrees))
    return (values @ polynomials)[list(degrees)]


def slope(kernel):
    degrees = np.arange(20, 61)
    values = funk_hecke(kernel, degrees)
    assert (values > 0).all()
    return np.polyfit(np.log(degrees), np.log(values), 1)[0]


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_eigenvalues_decay_at_the_same_rate(depth):
    laplace = slope(LaplaceKernel(1.0).double())
    ntk = slope(NormalizedReLUNTK(depth, 1.0).double())
    assert laplace == pytest.approx(-3, abs=0.1)
    assert ntk == pytest.approx(laplace, abs=0.25)


def test_a_smoother_kernel_decays_faster():
    assert slope(GammaExponential(1.5).double()) < -3.4


def test_without_a_bias_one_hidden_layer_has_no_odd_degrees_above_one():
    values = funk_hecke(NormalizedReLUNTK(1, 0.0).double(), range(10))
    assert np.abs(values[[3, 5, 7, 9]]).max() < 1e-10
    assert (values[[0, 1, 2, 4, 6, 8]] > 1e-4).all()
