"""Regression over a join: exact where all rows are sampled, near where some are."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from tangrams.learners import JoinRegression
from tangrams.operators import PrioritySampler, ThresholdSampler, estimate_product
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance


def join(n=4000, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(n, 3, generator=g, dtype=torch.float64)
    B = torch.randn(n, 2, generator=g, dtype=torch.float64) + A[:, :1]
    beta = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
    y = torch.cat([A, B], 1) @ beta + 0.5 * torch.randn(n, generator=g, dtype=torch.float64)
    return A, B, y, beta


def test_samples_of_all_rows_give_ridge_regression_of_the_join():
    A, B, y, _ = join(200)
    keys = np.array([f"id{i}" for i in range(200)])
    order = np.random.default_rng(0).permutation(200)
    sampler = PrioritySampler(500)
    tables = [sampler.sample(A, keys), sampler.sample(B[order], keys[order])]
    model = JoinRegression(alpha=2.0).fit_samples(tables, sampler.sample(y, keys))
    X = torch.cat([A, B], 1)
    peer = Ridge(alpha=2.0, fit_intercept=False).fit(X.numpy(), y.numpy())
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-9)
    np.testing.assert_allclose(model.predict(X), peer.predict(X.numpy()), rtol=1e-9)
    np.testing.assert_allclose(model.moments_, (X.mT @ X).numpy(), rtol=1e-9)
    assert not model.projected_


def test_keys_that_a_table_lacks_are_rows_of_zeros():
    A, B, y, _ = join(100)
    sampler = PrioritySampler(500)
    half = torch.cat([B[:50], torch.zeros(50, 2, dtype=torch.float64)])
    model = JoinRegression().fit_samples([sampler.sample(A), sampler.sample(B[:50], np.arange(50))], sampler.sample(y))
    exact = np.linalg.lstsq(torch.cat([A, half], 1).numpy(), y.numpy(), rcond=None)[0]
    np.testing.assert_allclose(model.coef_, exact, rtol=1e-8)


@pytest.mark.parametrize("make", [PrioritySampler, ThresholdSampler])
def test_a_tenth_of_the_rows_finds_the_coefficients(make):
    A, B, y, beta = join()
    errors = []
    for seed in range(30):
        samples = [make(800, seed=seed).sample(table) for table in (A, B, y)]
        errors.append(JoinRegression().fit_samples(samples[:2], samples[2]).coef_ - beta.numpy())
    errors = np.array(errors)
    assert np.abs(errors.mean(0)).max() < 0.15
    assert np.sqrt((errors**2).mean()) < 0.35


def test_an_indefinite_matrix_of_moments_is_projected():
    A, B, y, _ = join(2000)
    projected = []
    for seed in range(40):
        samples = [PrioritySampler(30, seed=seed).sample(table) for table in (A, B, y)]
        model = JoinRegression(alpha=20.0).fit_samples(samples[:2], samples[2])
        assert np.linalg.eigvalsh(model.moments_)[0] > -1e-9 * model.moments_.max()
        assert np.isfinite(model.coef_).all()
        projected.append(model.projected_)
    assert 0 < sum(projected) < 40


def test_errors_of_moments_from_the_same_rows_cancel():
    """Why a party's exact moments are not asked for: with them the coefficients are worse."""
    A, B, y, beta = join(2000)
    errors = []
    for seed in range(40):
        samples = [PrioritySampler(200, seed=seed).sample(table) for table in (A, B, y)]
        model = JoinRegression().fit_samples(samples[:2], samples[2])
        m = torch.cat([estimate_product(sample, samples[2]) for sample in samples[:2]])[:, 0]
        M = torch.from_numpy(model.moments_).clone()
        M[:3, :3], M[3:, 3:] = A.mT @ A, B.mT @ B
        exact = torch.linalg.lstsq(M, m[:, None]).solution[:, 0]
        errors.append([np.linalg.norm(model.coef_ - beta.numpy()), float((exact - beta).norm())])
    errors = np.median(errors, axis=0)
    assert errors[0] < 0.8 * errors[1]


def test_bad_input_is_named():
    A, B, y, _ = join(50)
    sample = PrioritySampler(20).sample
    for call, match in (
        (lambda: JoinRegression().fit_samples([], sample(y)), "needs tables"),
        (lambda: JoinRegression().fit_samples([sample(A)], sample(B)), "2 columns"),
        (lambda: JoinRegression(alpha=-1.0).fit(A, y), "alpha ≥ 0"),
        (lambda: JoinRegression("priority").fit(A, y), "RowSampler"),
    ):
        with pytest.raises(ValueError, match=match):
            call()


TestJoinRegression = estimator_conformance(
    Case(
        JoinRegression,
        excuses={"check_stored_rows_are_never_held_whole": "the moments of the columns, (d, d), are what it solves"},
    ),
    Case(
        lambda: JoinRegression(ThresholdSampler(150), alpha=0.1),
        name="JoinRegression-sampled",
        excuses={"check_stored_rows_are_never_held_whole": "the moments of the columns, (d, d), are what it solves"},
    ),
)
