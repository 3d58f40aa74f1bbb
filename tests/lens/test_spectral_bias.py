"""Spectra on spheres against closed forms, and energies against functions whose parts are known."""

import math

import pytest
import torch
from scipy.special import eval_chebyt, eval_gegenbauer

from tangrams.data import sphere_quadrature
from tangrams.kernels import FullyConnectedNTK
from tangrams.kernels.ntk import Dense, ProductNTK, ReLU, Serial
from tangrams.lens import (
    band_psnr,
    degree_energy,
    frequency_error,
    gegenbauer,
    harmonics,
    radial_power,
    zonal_spectrum,
)

RELU = Serial(Dense(math.sqrt(2)), ReLU())


def on_the_sphere(kernel, dim):
    """The profile at inputs of squared radius ``dim``, where the layers' units have variance one."""

    def profile(t):
        points = torch.zeros(len(t), dim, dtype=torch.float64)
        points[:, 0], points[:, 1] = t, (1 - t**2).clamp_min(0).sqrt()
        north = torch.zeros(1, dim, dtype=torch.float64)
        north[0, 0] = 1
        return kernel.gram(north * math.sqrt(dim), points * math.sqrt(dim))[0]

    return profile


@pytest.mark.parametrize("dim", [3, 4, 7])
def test_polynomials_are_those_of_scipy_scaled_to_one(dim):
    t = torch.linspace(-1, 1, 21, dtype=torch.float64)
    alpha = (dim - 2) / 2
    for degree, values in enumerate(gegenbauer(t, dim, 8)):
        expected = eval_gegenbauer(degree, alpha, t.numpy()) / eval_gegenbauer(degree, alpha, 1.0)
        torch.testing.assert_close(values, torch.from_numpy(expected), rtol=1e-10, atol=1e-12)


def test_on_the_circle_they_are_chebyshev_polynomials():
    t = torch.linspace(-1, 1, 21, dtype=torch.float64)
    for degree, values in enumerate(gegenbauer(t, 2, 6)):
        torch.testing.assert_close(values, torch.from_numpy(eval_chebyt(degree, t.numpy())), rtol=1e-12, atol=1e-12)


def test_counts_of_harmonics():
    assert harmonics(2, 4).tolist() == [1, 2, 2, 2, 2]
    assert harmonics(3, 4).tolist() == [1, 3, 5, 7, 9]
    assert harmonics(4, 3).tolist() == [1, 4, 9, 16]


@pytest.mark.parametrize("dim", [2, 3, 5])
def test_a_harmonic_has_one_eigenvalue(dim):
    for degree in range(4):
        found = zonal_spectrum(lambda t, degree=degree: gegenbauer(t, dim, 4)[degree], dim, 6)
        expected = torch.zeros(7, dtype=torch.float64)
        expected[degree] = 1 / harmonics(dim, degree)[degree]
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dim", [3, 6])
def test_eigenvalues_with_their_multiplicities_add_up_to_the_diagonal(dim):
    profile = lambda t: (2 * t).exp()  # noqa: E731
    spectrum = zonal_spectrum(profile, dim, 40)
    assert float(harmonics(dim, 40) @ spectrum) == pytest.approx(
        math.exp(2), rel=1e-7
    )  # but for eigenvalues below the noise


def test_spectra_of_products_on_the_sphere():
    """Figures of an independent quadrature: a ReLU network, two ReLU factors, a linear and a ReLU factor."""
    network = zonal_spectrum(on_the_sphere(FullyConnectedNTK(2, ReLU()), 3), 3, 9)
    product = zonal_spectrum(on_the_sphere(ProductNTK(RELU, RELU), 3), 3, 9)
    mixed = zonal_spectrum(on_the_sphere(ProductNTK(Dense(1.0), RELU), 3), 3, 9)
    network, product, mixed = (found / found[0] for found in (network, product, mixed))
    assert network[[2, 4, 8]].tolist() == pytest.approx([0.156, 0.0104, 1.16e-3], rel=5e-3)
    assert product[[2, 3, 4, 5, 8]].tolist() == pytest.approx([0.339, 0.0937, 0.0182, 6.96e-3, 1.30e-3], rel=5e-3)
    assert mixed[[2, 3, 5]].tolist() == pytest.approx([0.400, 0.0937, 6.96e-3], rel=5e-3)
    assert (network[[3, 5, 7, 9]] == 0).all()
    assert (mixed[[4, 6, 8]] == 0).all()
    assert (product > 0).all()
    assert (product[1:] >= network[1:]).all()


def test_energies_are_those_of_the_parts():
    points, weights = sphere_quadrature(12)
    pole = torch.tensor([0.48, -0.6, 0.64], dtype=torch.float64)
    parts = gegenbauer(points @ pole, 3, 5)
    values = 2 * parts[1] - 0.5 * parts[4]
    expected = torch.zeros(6, dtype=torch.float64)
    expected[1], expected[4] = 4 / 3, 0.25 / 9
    torch.testing.assert_close(degree_energy(points, weights, values, 5), expected, rtol=1e-11, atol=1e-14)
    assert float(weights @ values.square()) == pytest.approx(float(expected.sum()), rel=1e-12)


def test_the_quadrature_integrates_its_degree_and_no_more():
    points, weights = sphere_quadrature(6)
    assert float(weights.sum()) == pytest.approx(1)
    for power in range(7):
        expected = 0 if power % 2 else 1 / (power + 1)
        for axis in range(3):
            assert float(weights @ points[:, axis] ** power) == pytest.approx(expected, abs=1e-14)
    assert abs(float(weights @ points[:, 2] ** 8) - 1 / 9) > 1e-4


def test_the_error_of_a_frequency_is_its_own():
    t = torch.arange(64, dtype=torch.float64) / 64
    target = torch.sin(2 * math.pi * 3 * t) + 0.5 * torch.cos(2 * math.pi * 7 * t)
    prediction = torch.sin(2 * math.pi * 3 * t) + 0.2 * torch.cos(2 * math.pi * 7 * t)
    assert frequency_error(prediction, target, [3, 7]).tolist() == pytest.approx([0, 0.6], abs=1e-12)


def test_rings_add_up_to_the_image():
    image = torch.randn(2, 12, 17, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(radial_power(image, 5).sum(1), image.square().mean((1, 2)), rtol=1e-12, atol=0)
    wave = torch.cos(math.pi * torch.arange(16, dtype=torch.float64))[None].expand(16, -1)
    assert radial_power(wave, 4).argmax() == 2  # half a cycle per pixel along one axis: .707 of the corner
    assert band_psnr(image + 0.1, image, 4)[0].tolist()[0] == pytest.approx(20, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gegenbauer(torch.ones(2), 1, 3), "dim"),
        (lambda: zonal_spectrum(lambda t: t, 3, 10, nodes=5), "nodes"),
        (lambda: degree_energy(torch.ones(3, 3), torch.ones(3), torch.ones(3), 2), "unit length"),
        (lambda: degree_energy(torch.eye(3), torch.ones(2), torch.ones(3), 2), "per point"),
        (lambda: frequency_error(torch.ones(8), torch.ones(8), [5]), "up to 4"),
        (lambda: frequency_error(torch.ones(8), torch.ones(8), [2]), "nothing"),
        (lambda: radial_power(torch.ones(4, 4), 0), "bands"),
        (lambda: band_psnr(torch.ones(4, 4), torch.ones(4, 5), 2), "shapes"),
        (lambda: sphere_quadrature(-1), "degree"),
    ],
    ids=range(9),
)
def test_impossible_arguments_are_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call()
