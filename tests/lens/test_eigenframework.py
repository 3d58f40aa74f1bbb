"""The eigenframework of sheet 006: fixed points, limits, scalings, simulations, and the authors' own numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import brentq

from tangrams.lens import EigenTask, optimal_fitting_ratio, optimal_ridge, ridge_risk, solve_gamma

TASK = EigenTask.power_law(1.5, 1.5, 400, noise_variance=0.5)


def by_the_book(task, n, k, delta):
    """The sheet's nested search: γ of the first equation for each κ, κ of the second."""
    lam, power = task.eigenvalues.numpy(), task.coefficients.numpy() ** 2

    def gamma_of(kappa):
        return math.exp(brentq(lambda s: (lam / (lam + math.exp(s))).sum() + delta / kappa - n, -60, 60, xtol=1e-14))

    def second(s):
        kappa = math.exp(s)
        gamma = gamma_of(kappa)
        return (lam / (lam + gamma)).sum() + k * kappa / gamma - k

    kappa = math.exp(brentq(second, math.log(delta / n) + 1e-9, 20, xtol=1e-14))
    gamma = gamma_of(kappa)
    L = lam / (lam + gamma)
    z, q = L.sum(), (L**2).sum()
    E = 1 / (1 - (q * (k - 2 * z) + z**2) / (n * (k - q)))
    left = gamma / (lam + gamma) - kappa * lam / (lam + gamma) ** 2 * k / (k - q)
    test = E * ((left * power).sum() + task.noise_variance)
    return kappa, gamma, test, (delta / (n * kappa)) ** 2 * test


@pytest.mark.parametrize("k", [20, 100, 1000])
@pytest.mark.parametrize("delta", [1e-3, 0.3, 10.0])
def test_one_equation_for_the_threshold_gives_what_the_nested_search_gives(k, delta):
    found = ridge_risk(TASK, 100, delta, k=k)
    expected = by_the_book(TASK, 100, k, delta)
    assert [found.kappa, found.gamma, found.test, found.train] == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("n", [5, 60, 399])
@pytest.mark.parametrize("k", [7, 60.0, math.inf])
@pytest.mark.parametrize("delta", [0.0, 1e-6, 0.1, 1e4])
def test_fixed_points_are_satisfied_to_ten_digits(n, k, delta):
    kappa, gamma = solve_gamma(TASK, n, delta, k=k)
    z = TASK.degrees(gamma)[0]
    if delta > 0:
        assert z + delta / kappa == pytest.approx(n, rel=1e-10)
        assert z + (0 if math.isinf(k) else k * kappa / gamma) == pytest.approx(z if math.isinf(k) else k, rel=1e-10)
    else:
        assert z == pytest.approx(min(n, k), rel=1e-10)
    assert gamma >= kappa >= 0
    if math.isinf(k):
        assert gamma == kappa


def test_the_resolution_sharpens_with_samples_and_dulls_with_the_ridge():
    by_n = [solve_gamma(TASK, n, 0.1)[0] for n in (5, 10, 50, 200, 390)]
    assert by_n == sorted(by_n, reverse=True)
    by_delta = [solve_gamma(TASK, 50, d)[0] for d in (0.0, 1e-4, 0.1, 1.0, 100.0)]
    assert by_delta == sorted(by_delta)


@pytest.mark.parametrize("delta", [0.0, 0.01, 1.0])
def test_a_billion_features_are_the_kernel(delta):
    kernel, wide = ridge_risk(TASK, 60, delta), ridge_risk(TASK, 60, delta, k=1e9)
    assert wide.test == pytest.approx(kernel.test, rel=1e-6)
    assert wide.train == pytest.approx(kernel.train, rel=1e-6)
    L = TASK.learnabilities(kernel.kappa)
    E = 60 / (60 - float(L.square().sum()))
    power = TASK.coefficients.square()
    assert kernel.test == pytest.approx(E * (float(((1 - L) ** 2 * power).sum()) + 0.5), rel=1e-10)


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_with_the_best_ridge_more_samples_and_more_features_never_hurt(noise):
    task = EigenTask.power_law(1.3, 1.8, 300, noise_variance=noise)
    sizes, widths = (8, 20, 50, 120, 250), (8, 20, 50, 120, 250, 1000, math.inf)
    risk = np.array([[optimal_ridge(task, n, k=k)[1].test for k in widths] for n in sizes])
    assert (np.diff(risk, axis=0) <= 1e-9).all()
    assert (np.diff(risk, axis=1) <= 1e-9).all()


def test_without_a_ridge_a_number_of_features_near_the_samples_is_the_worst():
    risk = [ridge_risk(TASK, 60, 0.0, k=k).test for k in (20, 55, 60, 66, 1000)]
    assert risk[2] == math.inf
    assert risk[1] > risk[0]
    assert risk[3] > risk[4]


def test_learnabilities_sum_to_the_smaller_of_samples_and_features_without_a_ridge():
    for n, k in ((30, math.inf), (30, 12), (12, 30)):
        gamma = solve_gamma(TASK, n, 0.0, k=k)[1]
        assert float(TASK.learnabilities(gamma).sum()) == pytest.approx(min(n, k), rel=1e-10)


@pytest.mark.parametrize("k", [40, math.inf])
def test_a_scaled_kernel_with_a_scaled_ridge_has_the_same_risk(k):
    scaled = EigenTask(7 * TASK.eigenvalues, TASK.coefficients, TASK.noise_variance)
    a, b = ridge_risk(TASK, 50, 0.2, k=k), ridge_risk(scaled, 50, 1.4, k=k)
    assert (b.test, b.train) == pytest.approx((a.test, a.train), rel=1e-10)
    assert (b.kappa, b.gamma) == pytest.approx((7 * a.kappa, 7 * a.gamma), rel=1e-10)


def test_risks_add_over_parts_of_the_target_and_noise():
    lam = TASK.eigenvalues
    first, second = torch.randn(2, len(lam), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = [EigenTask(lam, first), EigenTask(lam, second), EigenTask(lam, 0 * first, 0.3)]
    whole = EigenTask(lam, torch.stack([first, second], 1), 0.3)
    for k in (30, math.inf):
        total = sum(ridge_risk(part, 50, 0.1, k=k).test for part in parts)
        assert ridge_risk(whole, 50, 0.1, k=k).test == pytest.approx(total, rel=1e-10)


@pytest.mark.parametrize("k", [20, 200, math.inf])
def test_training_error_never_exceeds_test_error_and_vanishes_at_interpolation(k):
    for delta in (0.0, 1e-5, 0.1, 10.0, 1e8):
        risk = ridge_risk(TASK, 60, delta, k=k)
        assert risk.train <= risk.test * (1 + 1e-12)
    interpolates = ridge_risk(TASK, 60, 0.0, k=k)
    assert (interpolates.train == 0) == (k > 60)
    assert ridge_risk(TASK, 60, 1e8, k=k).fitting_ratio == pytest.approx(1, abs=1e-5)


def test_more_samples_than_eigenvalues_leave_the_noise_alone():
    small = EigenTask(torch.tensor([2.0, 1.0, 0.5]), torch.ones(3), noise_variance=0.2)
    risk = ridge_risk(small, 10, 0.0)
    assert (risk.kappa, risk.test) == (0.0, pytest.approx(0.2 * 10 / 7))
    assert risk.train == pytest.approx(0.2 * 7 / 10)  # as of least squares in three dimensions
    assert ridge_risk(small, 3, 0.0).test == math.inf
    assert ridge_risk(EigenTask(torch.ones(3), torch.ones(3)), 3, 0.0).test == 0


def test_the_best_ridge_of_a_gaussian_process_is_its_noise():
    """With v_i² = λ_i the target is drawn from the prior, and kernel ridge with δ = σ² is the posterior mean."""
    for noise in (0.01, 0.5, 4.0):
        task = EigenTask.power_law(1.5, 1.5, 400, noise_variance=noise)
        for n in (10, 100):
            assert optimal_ridge(task, n)[0] == pytest.approx(noise, rel=1e-3)


def test_the_authors_code_gives_the_same_numbers():
    frozen = np.load(Path(__file__).with_name("more_is_better.npz"))
    for alpha, beta, noise, n, ridge, kappa, train, test in frozen["kernel"].tolist():
        task = EigenTask.power_law(alpha, beta, int(frozen["size"]), noise_variance=noise)
        risk = ridge_risk(task, int(n), ridge)
        assert (risk.kappa, risk.train, risk.test) == pytest.approx((kappa, train, test), rel=1e-5)
    for alpha, beta, noise, n, k, ridge, test, kappa, gamma in frozen["features"].tolist():
        task = EigenTask.power_law(alpha, beta, int(frozen["size"]), noise_variance=noise)
        risk = ridge_risk(task, int(n), ridge, k=int(k))
        assert (risk.test, risk.kappa, risk.gamma) == pytest.approx((test, kappa, gamma), rel=1e-5)


@pytest.mark.parametrize(("k", "delta"), [(32, 0.1), (128, 0.1), (128, 1.0)])
def test_simulated_random_features_have_the_predicted_errors(k, delta):
    """Gaussian features √λ ∘ x through a Gaussian projection, n = 64 samples, over 40 draws."""
    generator = torch.Generator().manual_seed(1)
    n, M, m = 64, 400, 1500

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    scale, v = TASK.eigenvalues.sqrt(), TASK.coefficients
    tests, trains = [], []
    for _ in range(40):
        x, new, W = draw(n, M), draw(m, M), draw(M, k)
        y = x @ v + draw(n) * TASK.noise_variance**0.5
        wanted = new @ v  # the noise of new samples is added in its mean
        A, B = (x * scale) @ W / k**0.5, (new * scale) @ W / k**0.5
        alpha = torch.linalg.inv(A @ A.mT + delta * torch.eye(n).double()) @ y
        tests.append(float((B @ (A.mT @ alpha) - wanted).square().mean()) + TASK.noise_variance)
        trains.append(float((delta * alpha).square().mean()))
    risk = ridge_risk(TASK, n, delta, k=k)
    for found, predicted in ((tests, risk.test), (trains, risk.train)):
        error = np.std(found, ddof=1) / len(found) ** 0.5
        # Corrections of order 1/n come on top of the spread over draws.
        assert abs(np.mean(found) - predicted) < 4 * error + 0.03 * predicted


def test_the_limit_of_the_fitting_ratio_is_reached_by_large_samples():
    n, M = 3000, 400_000
    for alpha, beta, relative in ((1.5, 1.5, 0.3), (1.5, 2.0, 3.0), (2.0, 1.9, 1.0)):
        task = EigenTask.power_law(alpha, beta, M)
        risk = optimal_ridge(task.with_relative_noise(relative, n), n)[1]
        assert risk.fitting_ratio == pytest.approx(optimal_fitting_ratio(alpha, beta, relative), abs=0.02)


def test_interpolation_is_best_exactly_up_to_a_noise_level():
    alpha, beta = 1.4, 1.9
    threshold = (beta - alpha) / (alpha * (alpha - 1))
    assert optimal_fitting_ratio(alpha, beta, 0.99 * threshold) == 0
    assert 0 < optimal_fitting_ratio(alpha, beta, 1.2 * threshold) < 1
    ratios = [optimal_fitting_ratio(alpha, beta, s) for s in (1.0, 2.0, 5.0, 50.0)]
    assert ratios == sorted(ratios)
    assert ratios[-1] < 1


def test_the_eigensystem_of_a_gram_matrix_rebuilds_it():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 50, generator=generator, dtype=torch.float64)
    y = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    task = EigenTask.from_gram(x @ x.mT, y)
    assert float(task.eigenvalues.sum()) == pytest.approx(float((x @ x.mT).trace()) / 30)
    assert float(task.coefficients.square().sum()) == pytest.approx(float(y.square().sum()) / 30)
    # Coefficients belong to their eigenvalues: yᵀ K y / N² = Σ λ v².
    quadratic = float((task.eigenvalues[:, None] * task.coefficients.square()).sum())
    assert quadratic == pytest.approx(float((y * (x @ x.mT @ y)).sum()) / 30**2)
    low = EigenTask.from_gram(x[:, :5] @ x[:, :5].mT, y, noise_variance=0.1)
    assert len(low.eigenvalues) == 5
    assert low.noise_variance + float(low.coefficients.square().sum()) == pytest.approx(
        0.1 + float(y.square().sum()) / 30
    )


def test_slightly_negative_eigenvalues_are_clipped_with_a_warning():
    K = torch.diag(torch.tensor([1.0, 0.5, -1e-5], dtype=torch.float64))
    with pytest.warns(UserWarning, match="clipped"):
        assert len(EigenTask.from_gram(K, torch.ones(3)).eigenvalues) == 2
    with pytest.raises(ValueError, match="no Gram matrix"):
        EigenTask.from_gram(torch.diag(torch.tensor([1.0, -0.5])), torch.ones(2))


@pytest.mark.parametrize(
    ("eigenvalues", "coefficients", "noise", "match"),
    [
        ([1.0, 0.0], [1.0, 1.0], 0.0, "positive eigenvalues, got 0.0 at 1"),
        ([1.0, math.nan], [1.0, 1.0], 0.0, "positive eigenvalues"),
        ([1.0, 2.0], [1.0, 1.0], 0.0, "descending"),
        ([1.0, 0.5], [1.0], 0.0, "2 eigenvalues and 1 coefficients"),
        ([1.0, 0.5], [1.0, math.inf], 0.0, "not finite"),
        ([1.0, 0.5], [1.0, 1.0], -1.0, "noise variance"),
        ([], [], 0.0, "vector of eigenvalues"),
    ],
)
def test_tasks_that_are_none_are_refused(eigenvalues, coefficients, noise, match):
    with pytest.raises(ValueError, match=match):
        EigenTask(torch.tensor(eigenvalues), torch.tensor(coefficients), noise)


@pytest.mark.parametrize(("n", "k", "delta"), [(0, 5, 0.1), (5, 0, 0.1), (5, 5, -0.1), (5, 5, math.inf)])
def test_numbers_that_are_none_are_refused(n, k, delta):
    with pytest.raises(ValueError, match="the eigenframework needs"):
        ridge_risk(TASK, n, delta, k=k)


@pytest.mark.parametrize(("alpha", "beta", "noise"), [(0.9, 1.5, 0.1), (1.5, 1.0, 0.1), (1.5, 4.5, 0.1), (1.5, 2, -1)])
def test_exponents_without_a_limit_are_refused(alpha, beta, noise):
    with pytest.raises(ValueError, match="optimal_fitting_ratio needs"):
        optimal_fitting_ratio(alpha, beta, noise)
