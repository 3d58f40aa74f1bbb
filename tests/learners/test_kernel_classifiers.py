"""Facts of sheet 072 and of the study about the two kernel classifiers."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from tangrams.kernels import LaplaceKernel
from tangrams.learners import KernelGLM, KernelLogisticRegression


def problem(n=60, C=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % C
    X = rng.normal(size=(n, 5))
    X[np.arange(n), y] += 2
    return X, y


def cosine(X, Z=None):
    Z = X if Z is None else Z
    return (X @ Z.T) / np.linalg.norm(X, axis=1)[:, None] / np.linalg.norm(Z, axis=1)


def test_the_glm_reaches_the_optimum_of_its_own_objective():
    """Against scikit-learn's multinomial regression on the rows of K, whose C is 1 / (a n)."""
    X, y = problem()
    K, a = cosine(X) + 0.2, 1e-2
    K /= K.diagonal().mean()
    ours = KernelGLM("precomputed", alpha=a, class_weight=None, tol=1e-8).fit(K, y)
    theirs = LogisticRegression(C=1 / (a * len(y)), tol=1e-10, max_iter=10000).fit(K, y)
    np.testing.assert_allclose(ours.predict_proba(K), theirs.predict_proba(K), rtol=0, atol=1e-5)
    shift = theirs.intercept_ - ours.intercept_  # intercepts are fixed up to a constant
    np.testing.assert_allclose(shift, shift.mean(), rtol=0, atol=1e-4)


def test_balanced_weights_equal_repeated_samples():
    X, y = problem(40, 2)
    keep = np.r_[np.flatnonzero(y == 0)[:6], np.flatnonzero(y == 1)[:18]]
    X, y = X[keep], y[keep]
    K = cosine(X)
    by_name = KernelGLM("precomputed", alpha=1e-2, tol=1e-9).fit(K, y)
    by_hand = KernelGLM("precomputed", alpha=1e-2, class_weight={0: 2.0, 1: 2 / 3}, tol=1e-9).fit(K, y)
    np.testing.assert_allclose(by_name.dual_coef_, by_hand.dual_coef_, rtol=0, atol=1e-8)


def test_the_glm_memorises_on_the_identity():
    _, y = problem()
    assert (KernelGLM("precomputed").fit(np.eye(60), y).predict(np.eye(60)) == y).all()


@pytest.mark.parametrize("learner", [KernelGLM, KernelLogisticRegression])
def test_scaling_the_kernel_changes_nothing(learner):
    X, y = problem()
    K = cosine(X)
    once, scaled = learner("precomputed").fit(K, y), learner("precomputed").fit(1000 * K, y)
    np.testing.assert_allclose(once.predict_proba(K), scaled.predict_proba(1000 * K), rtol=0, atol=1e-3)


@pytest.mark.parametrize("learner", [KernelGLM, KernelLogisticRegression])
def test_logits_are_the_kernel_times_the_coefficients(learner):
    X, y = problem()
    model = learner("precomputed").fit(cosine(X), y)
    cross = cosine(X[:7])
    expected = cosine(X[:7], X) @ model.dual_coef_ + model.intercept_
    np.testing.assert_allclose(model.logits(cosine(X[:7], X)), expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(model.predict_proba(cosine(X[:7], X)), softmax(expected, axis=1), atol=1e-12)
    assert cross.shape == (7, 7)


@pytest.mark.parametrize("learner", [KernelGLM, KernelLogisticRegression])
def test_two_classes_have_two_logits_and_one_decision_value(learner):
    X, y = problem(C=2)
    model = learner("precomputed").fit(cosine(X), y)
    logits = model.logits(cosine(X))
    assert logits.shape == (60, 2)
    np.testing.assert_allclose(model.decision_function(cosine(X)), logits[:, 1] - logits[:, 0], atol=1e-12)


def rkhs_objective(model, K, P, C):
    unit = K.diagonal().mean()
    f = K @ model.dual_coef_
    penalty = np.einsum("ic,ic->", model.dual_coef_, K @ model.dual_coef_) * unit / (2 * C)
    return -(P * log_softmax(f + model.intercept_, axis=1)).sum() + penalty


def test_the_rkhs_model_sits_at_the_minimum_of_its_objective():
    X, y = problem()
    K = cosine(X) + 0.1
    model = KernelLogisticRegression("precomputed", C=2.0, tol=1e-8).fit(K, y)
    P = np.eye(3)[y]
    best = rkhs_objective(model, K, P, 2.0)
    rng = np.random.default_rng(0)
    for _ in range(20):
        nearby = KernelLogisticRegression("precomputed", C=2.0)
        nearby.dual_coef_ = model.dual_coef_ + 1e-3 * rng.normal(size=model.dual_coef_.shape)
        nearby.intercept_ = model.intercept_ + 1e-3 * rng.normal(size=3)
        assert rkhs_objective(nearby, K, P, 2.0) > best
    # Stationarity, in closed form: K (softmax − P + α / C) = 0 for a kernel of unit diagonal mean.
    unit = K.diagonal().mean()
    gradient = K @ (softmax(K @ model.dual_coef_ + model.intercept_, axis=1) - P + model.dual_coef_ * unit / 2.0)
    assert abs(gradient).max() < 1e-4


def test_a_linear_kernel_gives_plain_logistic_regression():
    X, y = problem()
    unit = (X**2).sum(1).mean()
    model = KernelLogisticRegression(C=1.0, tol=1e-9).fit(X, y)
    plain = LogisticRegression(C=1.0, tol=1e-10, max_iter=10000).fit(X / unit**0.5, y)
    np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X / unit**0.5), rtol=0, atol=1e-6)


def test_soft_targets_that_are_hard_give_the_labels_model():
    X, y = problem()
    K = cosine(X)
    hard = KernelLogisticRegression("precomputed").fit(K, y)
    soft = KernelLogisticRegression("precomputed").fit_probabilities(K, np.eye(3)[y])
    np.testing.assert_allclose(soft.dual_coef_, hard.dual_coef_, rtol=0, atol=1e-12)
    assert soft.classes_.tolist() == [0, 1, 2]


def test_a_mimic_reproduces_probabilities_that_the_kernel_can_express():
    X, y = problem()
    K = cosine(X)
    teacher = KernelLogisticRegression("precomputed", C=1.0).fit(K, y).predict_proba(K)
    mimic = KernelLogisticRegression("precomputed", C=1e4, max_iter=5000).fit_probabilities(
        K, torch.from_numpy(teacher)
    )
    np.testing.assert_allclose(mimic.predict_proba(K), teacher, rtol=0, atol=5e-3)


def test_named_classes_label_the_columns_of_probabilities():
    X, y = problem()
    model = KernelLogisticRegression("precomputed").fit_probabilities(cosine(X), np.eye(3)[y], ["a", "b", "c"])
    assert set(model.predict(cosine(X))) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("P", "message"),
    [
        (np.full((60, 3), 0.5), "row 0 is not"),
        (np.c_[np.full((60, 1), 1.5), np.full((60, 1), -0.5)], "simplex"),
        (np.ones((60, 1)), "at least two classes"),
        (np.full((40, 2), 0.5), "inconsistent"),
    ],
)
def test_what_is_no_distribution_is_refused(P, message):
    with pytest.raises(ValueError, match=message):
        KernelLogisticRegression("precomputed").fit_probabilities(np.eye(60), P)


def test_a_small_rank_uses_the_leading_directions_alone():
    X, y = problem()
    K = cosine(X)
    model = KernelLogisticRegression("precomputed", rank=2).fit(K, y)
    eigenvectors = np.linalg.eigh(K)[1]
    assert abs(eigenvectors[:, :-2].T @ model.dual_coef_).max() < 1e-10


def test_running_out_of_iterations_is_said():
    X, y = problem()
    with pytest.warns(ConvergenceWarning, match="stopped after 2 iterations"):
        KernelLogisticRegression("precomputed", max_iter=2).fit(cosine(X), y)


@pytest.mark.parametrize("learner", [KernelGLM, KernelLogisticRegression])
def test_any_object_with_gram_and_diag_is_a_kernel(learner):
    X, y = problem()
    kernel = LaplaceKernel()
    model = learner(kernel).fit(torch.from_numpy(X).reshape(60, 5, 1), y)
    gram = kernel.gram(torch.from_numpy(X).reshape(60, 5, 1)).detach().numpy()
    reference = learner("precomputed").fit(gram, y)
    np.testing.assert_allclose(model.dual_coef_, reference.dual_coef_, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (KernelLogisticRegression("precomputed", C=0.0), "C > 0"),
        (KernelLogisticRegression("precomputed", rank=0), "rank ≥ 1"),
        (KernelGLM("precomputed", alpha=-1.0), "alpha ≥ 0"),
        (KernelGLM("linear"), "kernel=None"),
    ],
)
def test_parameters_out_of_range_are_refused(model, message):
    with pytest.raises(ValueError, match=message):
        model.fit(np.eye(4), [0, 1, 0, 1])


def test_a_kernel_that_is_not_square_or_not_finite_is_refused():
    with pytest.raises(ValueError, match="square"):
        KernelGLM("precomputed").fit(np.ones((4, 3)), [0, 1, 0, 1])

    class Broken:
        def gram(self, x, y=None):
            return torch.full((4, 4), torch.nan)

        def diag(self, x):
            return torch.ones(4)

    with pytest.raises(ValueError, match="Gram matrix, first in row 0"):
        KernelGLM(Broken()).fit(torch.ones(4, 2), [0, 1, 0, 1])
