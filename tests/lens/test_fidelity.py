"""Fidelity of a surrogate: every number against its definition."""

import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binomtest, kendalltau

from tangrams.lens import surrogate_fidelity


def probabilities(n=200, C=4, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(C, size=n)
    z = rng.normal(size=(n, C))
    z[np.arange(n), y] += 1
    return softmax(z, axis=1), softmax(z + rng.normal(size=z.shape), axis=1), y


def test_every_number_is_its_definition():
    p, q, y = probabilities()
    found = surrogate_fidelity(torch.from_numpy(p), q, torch.from_numpy(y))
    mine, theirs = p[np.arange(200), y], q[np.arange(200), y]
    wrong_p, wrong_q = p.argmax(1) != y, q.argmax(1) != y
    assert found.kendall_tau == pytest.approx(kendalltau(mine, theirs).statistic)
    assert found.agreement == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    assert found.accuracy_difference == pytest.approx((q.argmax(1) == y).mean() - (p.argmax(1) == y).mean())
    both = int((wrong_p & wrong_q).sum())
    assert found.misclassified_overlap == pytest.approx(both / (wrong_p | wrong_q).sum())
    null = binomtest(both, int(wrong_q.sum()), wrong_p.mean(), alternative="greater").pvalue
    assert found.overlap_p_value == pytest.approx(null)
    assert found.r2 == pytest.approx(1 - ((mine - theirs) ** 2).sum() / ((mine - mine.mean()) ** 2).sum())


def test_the_network_itself_is_perfectly_faithful():
    p, _, y = probabilities()
    found = surrogate_fidelity(p, p, y)
    assert (found.kendall_tau, found.agreement, found.accuracy_difference) == (pytest.approx(1), 1, 0)
    assert found.misclassified_overlap == 1
    assert found.r2 == found.r2_logit == 1
    assert found.overlap_p_value < 1e-10


def test_a_better_surrogate_has_a_positive_difference():
    p, _, y = probabilities()
    perfect = np.eye(4)[y] * 0.9 + 0.025
    assert surrogate_fidelity(p, perfect, y).accuracy_difference > 0


def test_independent_errors_have_uniform_looking_p_values():
    """Under the null the p-value is at most 0.05 in about 5 % of draws (binomial bound over 200 draws)."""
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(200):
        y = rng.integers(3, size=100)
        p = softmax(3 * np.eye(3)[np.where(rng.random(100) < 0.3, (y + 1) % 3, y)], axis=1)
        q = softmax(3 * np.eye(3)[np.where(rng.random(100) < 0.3, (y + 2) % 3, y)], axis=1)
        small += surrogate_fidelity(p, q, y).overlap_p_value <= 0.05
    assert small <= 22  # 10 expected, s.d. 3


def test_saturated_probabilities_have_finite_logits():
    p, _, y = probabilities()
    hard = np.eye(4)[p.argmax(1)]
    assert np.isfinite(surrogate_fidelity(hard, p, y).r2_logit)


def test_a_sigmoid_is_two_columns():
    rng = np.random.default_rng(0)
    p, q, y = rng.random(50), rng.random(50), rng.integers(2, size=50)
    columns = [np.stack([1 - v, v], axis=1) for v in (p, q)]
    assert surrogate_fidelity(p, q, y) == surrogate_fidelity(*columns, y)


@pytest.mark.parametrize(
    ("p", "q", "y", "message"),
    [
        (np.full((3, 2), 0.5), np.full((3, 3), 1 / 3), [0, 0, 0], "shapes"),
        (np.array([[2.0, -1.0]]), np.array([[0.5, 0.5]]), [0], "row 0 of the network"),
        (np.full((2, 2), 0.5), np.array([[0.5, 0.5], [3.0, 1.0]]), [0, 0], "not logits"),
        (np.full((2, 2), 0.5), np.full((2, 2), 0.5), [0, 2], "labels in 0 … 1"),
        (np.full((2, 2), 0.5), np.full((2, 2), 0.5), [0], "2 labels"),
        (np.zeros((0, 2)), np.zeros((0, 2)), [], "shape"),
    ],
)
def test_what_does_not_fit_is_refused(p, q, y, message):
    with pytest.raises(ValueError, match=message):
        surrogate_fidelity(p, q, np.array(y))
