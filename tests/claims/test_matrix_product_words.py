"""Samples and sketches of [068] are compared at equal words."""

import numpy as np
import pytest
import scipy.sparse

from tangrams.claims.c068_matrix_product_sketching import CLAIM, _errors

METHODS = ("priority", "threshold", "end-biased", "uncoordinated", "Gaussian", "count sketch", "sparse signs")


def skewed(seed):
    """Rows of which the heavy ones are long, as those of frequent words are."""
    rng = np.random.default_rng(seed)
    lengths = np.minimum(60, 1 + rng.pareto(1.0, 800).astype(int))
    return scipy.sparse.csr_array((np.arange(60) < lengths[:, None]) * rng.standard_normal((800, 60)))


def test_no_method_spends_more_words_than_it_is_given_on_average():
    keys = np.arange(800)
    _, spent = _errors(skewed(0), skewed(1), keys, keys, (600, 1200, 10**6), 12)
    for words in (600, 1200):
        assert set(spent[words]) == set(METHODS)
        for name, used in spent[words].items():
            assert 0.85 * words < used < 1.05 * words, name
    assert spent[10**6]["priority"] < 10**6


def test_a_join_is_sketched_at_equal_rows_and_at_equal_words():
    found = CLAIM.measure(rows=400, overlaps=(1.0,), budgets=(500, 800), seeds=2, text=None).numbers["join_regression"]
    assert found["rows at equal words"] == found["words"] // 7 > found["rows"]
    assert found["words"] == pytest.approx(13 * found["rows"] + 9)
