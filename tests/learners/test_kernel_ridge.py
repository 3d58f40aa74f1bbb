"""Kernel ridge against refits, the plain formula and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.kernel_ridge import KernelRidge as PeerRidge

from tangrams.learners.kernel_ridge import KernelRidge, KernelRidgeClassifier, one_hot
from tangrams.operators.ridge import DELTAS, GramSpectrum
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(23, 40, generator=generator, dtype=torch.float64)
    test = torch.randn(7, 40, generator=generator, dtype=torch.float64)
    y = torch.randn(23, 3, generator=generator, dtype=torch.float64) + 2
    return x @ x.T / 40, test @ x.T / 40, y


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
    ],
)
def test_bad_input_is_named(problem, make, match):
    with pytest.raises(ValueError, match=match):
        make(problem[0])


TestKernelRidge = estimator_conformance(
    Case(KernelRidge),
    Case(lambda: KernelRidge(delta=0.1), name="KernelRidge-fixed"),
    Case(KernelRidgeClassifier),
    Case(lambda: KernelRidgeClassifier(delta=0.1), name="KernelRidgeClassifier-fixed"),
)
