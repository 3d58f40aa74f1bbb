"""Attribution by dual coefficients adds up; retrieval is scored by its definition."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from tangrams.learners import KernelGLM, KernelLogisticRegression
from tangrams.lens import attribution_precision_recall, kernel_attribution, top_similar


def problem(C, n=50, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % C
    X = rng.normal(size=(n, 4))
    X[np.arange(n), y] += 2
    return X, y, rng.normal(size=(7, 4))


@pytest.mark.parametrize("C", [2, 3])
@pytest.mark.parametrize("learner", [KernelGLM, KernelLogisticRegression])
def test_rows_sum_to_the_logits(learner, C):
    X, y, Z = problem(C)
    model = learner().fit(X, y)
    logits = model.logits(Z)
    for c in range(C):
        found = kernel_attribution(model, Z, target=c)
        assert found.shape == (7, 50)
        np.testing.assert_allclose(found.sum(1), logits[:, c], rtol=0, atol=1e-9)
        expected = (Z @ X.T) * model.dual_coef_[:, c] + model.intercept_[c] / 50
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_the_predicted_class_is_explained_unless_told_otherwise():
    X, y, Z = problem(3)
    model = KernelLogisticRegression().fit(X, y)
    found = kernel_attribution(model, Z)
    np.testing.assert_allclose(found.sum(1), model.logits(Z).max(1), rtol=0, atol=1e-9)
    each = kernel_attribution(model, Z, target=[0, 1, 2, 0, 1, 2, 0])
    np.testing.assert_allclose(each.sum(1), model.logits(Z)[np.arange(7), [0, 1, 2, 0, 1, 2, 0]], rtol=0, atol=1e-9)


def test_targets_out_of_range_are_refused():
    X, y, Z = problem(3)
    model = KernelLogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="0 … 2"):
        kernel_attribution(model, Z, target=3)
    with pytest.raises(ValueError, match="broadcast"):
        kernel_attribution(model, Z, target=[0, 1])


def test_the_most_similar_come_first_and_ties_by_index():
    K = np.array([[0.1, 0.9, 0.9, 0.5]])
    assert top_similar(K, 3).tolist() == [[1, 2, 3]]


def test_retrieval_is_scored_by_definition():
    rng = np.random.default_rng(0)
    scores, mask = rng.normal(size=100), rng.random(100) < 0.2
    found = attribution_precision_recall(scores, mask)
    order = np.argsort(-scores)
    count = mask.sum()
    assert found.average_precision == pytest.approx(average_precision_score(mask, scores))
    assert found.precision_at_count == pytest.approx(mask[order[:count]].mean())
    assert found.recall[-1] == 1
    assert found.base_rate == pytest.approx(mask.mean())
    np.testing.assert_allclose(found.precision, [mask[order[:k]].mean() for k in range(1, 101)])


def test_attributions_of_several_samples_are_summed():
    A, mask = np.array([[3.0, 0.0, 1.0], [-3.0, 1.0, 1.0]]), np.array([False, False, True])
    assert attribution_precision_recall(A, mask).precision_at_count == 1


def test_nothing_to_find_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        attribution_precision_recall(np.ones(3), np.zeros(3, dtype=bool))
    with pytest.raises(ValueError, match="do not fit"):
        attribution_precision_recall(np.ones(3), np.ones(4, dtype=bool))
