"""Matching kernels by angle and by posterior mean."""

import math

import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern

from tangrams.kernels import GammaExponential, LaplaceKernel, NormalizedReLUNTK
from tangrams.lens.kernel_matching import match_pointwise, match_posterior, posterior_mean, zonal

COSINES = torch.linspace(-1, 0.999, 200, dtype=torch.float64)


def laplace(lengthscale):
    kernel = LaplaceKernel().double()
    kernel.initialize(lengthscale=lengthscale)
    return kernel


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    X, new = (torch.nn.functional.normalize(torch.randn(n, 3, generator=generator).double(), dim=1) for n in (60, 40))
    targets = [x[:, 0] * x[:, 1] + torch.sin(3 * x[:, 2]) for x in (X, new)]
    return X, targets[0], new, targets[1]


def test_matching_a_laplace_kernel_pointwise_gives_its_length_scale_at_every_angle():
    match = match_pointwise(zonal(laplace(0.7)), COSINES)
    torch.testing.assert_close(match.lengthscale, torch.full_like(COSINES, 0.7), rtol=1e-10, atol=0)
    assert match.best == pytest.approx(0.7, rel=1e-9)
    assert match.residual < 1e-9


def test_the_pointwise_length_scale_reproduces_the_tangent_kernel_and_varies():
    profile = zonal(NormalizedReLUNTK(2, 0.5).double())
    match = match_pointwise(profile, COSINES)
    torch.testing.assert_close(
        torch.exp(-(2 - 2 * COSINES).sqrt() / match.lengthscale), profile(COSINES), rtol=1e-12, atol=0
    )
    assert match.largest > 1.5 * match.smallest
    assert match.smallest <= match.best <= match.largest
    for other in (0.98, 1.02):
        worse = ((-(2 - 2 * COSINES).sqrt() / (match.best * other)).exp() - profile(COSINES)).square().sum()
        best = ((-(2 - 2 * COSINES).sqrt() / match.best).exp() - profile(COSINES)).square().sum()
        assert worse > best


def test_the_zonal_profile_is_the_kernel_in_any_dimension(problem):
    X, *_ = problem
    kernel = NormalizedReLUNTK(3, 0.3).double()
    cosines = (X @ X.T).clamp(-1, 1)
    off = ~torch.eye(len(X), dtype=torch.bool)
    torch.testing.assert_close(zonal(kernel)(cosines[off]), kernel.gram(X).detach()[off], rtol=1e-7, atol=1e-9)


def test_the_posterior_mean_is_that_of_a_gaussian_process(problem):
    X, y, new, _ = problem
    reference = GaussianProcessRegressor(Matern(0.9, nu=0.5), alpha=0.01, optimizer=None).fit(X, y).predict(new)
    torch.testing.assert_close(
        posterior_mean(laplace(0.9), X, y, new, ridge=0.01), torch.from_numpy(reference), rtol=1e-8, atol=1e-10
    )


def test_matching_a_posterior_to_its_own_family_returns_the_length_scale(problem):
    X, y, new, y_new = problem
    report = match_posterior(laplace(1.3), laplace, X, y, new, ridge=1e-3, y_test=y_new)
    assert report.lengthscale == pytest.approx(1.3, rel=1e-5)
    assert report.rmse < 1e-6
    assert report.correlation == pytest.approx(1, abs=1e-9)
    assert report.residual_correlation == pytest.approx(1, abs=1e-6)
    assert report.matched_r2 == pytest.approx(report.reference_r2, abs=1e-6)
    assert not report.at_bound


def test_the_match_is_a_minimum_over_the_length_scale(problem):
    X, y, new, _ = problem
    reference = NormalizedReLUNTK(2, 0.5).double()
    report = match_posterior(reference, laplace, X, y, new, ridge=1e-3)
    target = posterior_mean(reference, X, y, new, ridge=1e-3)
    for factor in (0.01, 0.9, 0.99, 1.01, 1.1, 100.0):
        other = posterior_mean(laplace(report.lengthscale * factor), X, y, new, ridge=1e-3)
        assert float((other - target).square().mean().sqrt()) > report.rmse


def test_a_match_outside_the_bounds_is_flagged(problem):
    X, y, new, _ = problem
    assert match_posterior(laplace(5.0), laplace, X, y, new, ridge=1e-3, bounds=(1e-2, 1.0)).at_bound


def test_on_the_sphere_laplace_comes_closer_to_the_tangent_kernel_than_a_gaussian(problem):
    X, y, new, _ = problem
    reference = NormalizedReLUNTK(2, 0.5).double()
    rmse = {
        gamma: match_posterior(
            reference, lambda ell, g=gamma: GammaExponential(g, ell).double(), X, y, new, ridge=1e-5, bounds=(1e-2, 1e3)
        ).rmse
        for gamma in (1.0, 2.0)
    }
    assert rmse[1.0] < 0.5 * rmse[2.0]


def test_bad_arguments_are_refused(problem):
    X, y, new, _ = problem
    with pytest.raises(ValueError, match=r"\[−1, 1\)"):
        match_pointwise(zonal(laplace(1.0)), torch.tensor([1.0]))
    with pytest.raises(ValueError, match=r"\(0, 1\)"):
        match_pointwise(lambda c: c * 2, torch.tensor([0.9]))
    with pytest.raises(ValueError, match="ridge > 0"):
        match_posterior(laplace(1.0), laplace, X, y, new, ridge=0.0)
    with pytest.raises(ValueError, match="bounds"):
        match_posterior(laplace(1.0), laplace, X, y, new, ridge=1e-3, bounds=(1.0, 0.1))
    with pytest.raises(ValueError, match="target for every sample"):
        match_posterior(laplace(1.0), laplace, X, y[1:], new, ridge=1e-3)
    assert math.isnan(match_posterior(laplace(1.0), laplace, X, y * 0, new, ridge=1e-3).correlation)
