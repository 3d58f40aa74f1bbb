"""Kernel ridge against refits, the plain formula and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge as PeerRidge
from sklearn.utils.estimator_checks import parametrize_with_checks

from tangrams.learners.kernel_ridge import DELTAS, GramSpectrum, KernelRidge, KernelRidgeClassifier, one_hot


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(23, 40, generator=generator, dtype=torch.float64)
    test = torch.randn(7, 40, generator=generator, dtype=torch.float64)
    y = torch.randn(23, 3, generator=generator, dtype=torch.float64) + 2
    return x @ x.T / 40, test @ x.T / 40, y


def plain_fit(K, cross, y, ridge):
    """The definition, by a dense inverse."""
    mean = y.mean(0)
    return mean + cross @ torch.linalg.inv(K + ridge * torch.eye(len(K), dtype=K.dtype)) @ (y - mean)


@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0, 30.0])
def test_leave_one_out_in_closed_form_equals_refitting(problem, delta):
    K, _, y = problem
    spectrum = GramSpectrum.of(K)
    ridge = delta * float(K.diagonal().mean())
    slow = torch.stack(
        [
            y[i] - plain_fit(K[keep][:, keep], K[i, keep][None], y[keep], ridge)[0]
            for i in range(len(K))
            for keep in [torch.arange(len(K)) != i]
        ]
    )
    torch.testing.assert_close(spectrum.loo_residuals(y, delta), slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("delta", [1e-3, 1.0])
def test_hat_weights_and_dual_give_the_plain_formula(problem, delta):
    K, cross, y = problem
    spectrum = GramSpectrum.of(K)
    ridge = delta * float(K.diagonal().mean())
    want = plain_fit(K, cross, y, ridge)
    by_weights = y.mean(0) + spectrum.weights(cross, delta) @ (y - y.mean(0))
    by_dual = y.mean(0) + cross @ spectrum.dual(y, delta)
    torch.testing.assert_close(by_weights, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(by_dual, want, rtol=1e-10, atol=1e-10)
    fitted = plain_fit(K, K, y, ridge)
    torch.testing.assert_close(y - spectrum.residuals(y, delta), fitted, rtol=1e-10, atol=1e-10)
    H = spectrum.hat(delta)
    torch.testing.assert_close(y.mean(0) + H @ (y - y.mean(0)), fitted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(H.diagonal(), spectrum.hat_diagonal(delta), rtol=1e-10, atol=1e-10)
    assert spectrum.effective_dimension(delta) == pytest.approx(float(H.trace()), rel=1e-10)


def test_generalised_cross_validation_uses_the_trace_of_the_whole_smoother(problem):
    K, _, y = problem
    n, delta = len(K), 0.3
    spectrum = GramSpectrum.of(K)
    centre = torch.full((n, n), 1 / n, dtype=K.dtype)
    H = spectrum.hat(delta)
    S = centre + H @ (torch.eye(n, dtype=K.dtype) - centre)
    want = float((y - S @ y).square().sum(1).mean()) / (1 - float(S.trace()) / n) ** 2
    assert spectrum.gcv_error(y, delta) == pytest.approx(want, rel=1e-10)
    assert GramSpectrum.of(K).gcv_error(y, 1e-14) == float("inf")


def test_delta_is_measured_in_the_mean_diagonal(problem):
    K, cross, y = problem
    a = KernelRidge("precomputed", delta=0.1).fit(K, y).predict(cross)
    b = KernelRidge("precomputed", delta=0.1).fit(100 * K, y).predict(100 * cross)
    np.testing.assert_allclose(a, b, rtol=1e-9)


def test_delta_is_chosen_where_the_leave_one_out_error_is_smallest(problem):
    K, _, y = problem
    model = KernelRidge("precomputed").fit(K, y)
    errors = {delta: model.spectrum_.loo_error(y, delta) for delta in DELTAS}
    assert model.delta_ == min(errors, key=errors.__getitem__)
    by_gcv = KernelRidge("precomputed", criterion=GramSpectrum.gcv_error).fit(K, y)
    errors = {delta: model.spectrum_.gcv_error(y, delta) for delta in DELTAS}
    assert by_gcv.delta_ == min(errors, key=errors.__getitem__)


def test_agrees_with_scikit_learn_on_centred_targets(problem):
    K, cross, y = problem
    ridge = 0.2 * float(K.diagonal().mean())
    peer = PeerRidge(alpha=ridge, kernel="precomputed").fit(K, y - y.mean(0))
    ours = KernelRidge("precomputed", delta=0.2).fit(K, y)
    np.testing.assert_allclose(ours.predict(cross), peer.predict(cross) + y.mean(0).numpy(), rtol=1e-9)


def test_numpy_and_torch_rows_give_the_same_model():
    x = np.random.default_rng(0).normal(size=(20, 5))
    y = (x[:, 0] > 0).astype(int)
    a = KernelRidgeClassifier(delta=0.1).fit(x, y)
    b = KernelRidgeClassifier(delta=0.1).fit(torch.from_numpy(x), torch.from_numpy(y))
    np.testing.assert_array_equal(a.decision_function(x), b.decision_function(torch.from_numpy(x)))
    np.testing.assert_array_equal(a.predict(x), b.predict(torch.from_numpy(x)))


def test_classifier_scores_are_the_weighted_labels(problem):
    K, cross, _ = problem
    labels = np.arange(23) % 3
    model = clone(KernelRidgeClassifier("precomputed", delta=1.0)).fit(K, labels)
    Y = one_hot(torch.from_numpy(labels), 3).numpy()
    w = model.smoother_weights(cross)
    np.testing.assert_allclose(model.decision_function(cross), Y.mean(0) + w @ (Y - Y.mean(0)), atol=1e-10)
    np.testing.assert_allclose(model.hat_matrix(), model.smoother_weights(K), atol=1e-9)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda K: KernelRidge("precomputed", delta=0.0).fit(K, np.zeros(23)), "δ > 0"),
        (lambda K: KernelRidge("precomputed").fit(K[:, :5], np.zeros(23)), "square"),
        (lambda K: KernelRidge("precomputed").fit(K, np.full(23, np.nan)), "NaN"),
        (lambda K: KernelRidge("precomputed").fit(K, np.zeros(5)), "inconsistent"),
        (lambda K: KernelRidgeClassifier("precomputed").fit(K, np.zeros(23, int)), "one class"),
        (lambda K: KernelRidge("linear").fit(K, np.zeros(23)), "kernel=None"),
        (lambda K: GramSpectrum.of(torch.zeros(3, 3)), "trace zero"),
    ],
)
def test_bad_input_is_named(problem, make, match):
    with pytest.raises(ValueError, match=match):
        make(problem[0])


@parametrize_with_checks(
    [KernelRidge(), KernelRidge(delta=0.1), KernelRidgeClassifier(), KernelRidgeClassifier(delta=0.1)]
)
def test_scikit_learn_conventions(estimator, check):
    check(estimator)
