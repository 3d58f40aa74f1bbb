"""Quadrature rules."""

import torch

from tangrams.data.quadrature import gauss_legendre
from tangrams.lens import zonal_spectrum


def test_the_rule_is_exact_for_polynomials_up_to_its_degree():
    nodes, weights = gauss_legendre(6)
    powers = torch.arange(12, dtype=torch.float64)
    exact = torch.where(powers % 2 == 0, 2 / (powers + 1), 0.0)
    torch.testing.assert_close(weights @ nodes[:, None] ** powers, exact, rtol=0, atol=1e-13)


def test_spectra_of_several_kernels_work_the_rule_out_once():
    gauss_legendre.cache_clear()
    for power in (1, 2, 3):
        zonal_spectrum(lambda t, power=power: t**power, 3, 5, nodes=300)
    assert gauss_legendre.cache_info().misses == 1
