"""R-MAT graphs."""

import math

import pytest
import torch

from tangrams.data import rmat


def test_edges_are_distinct_and_sorted_within_the_nodes():
    edges = rmat(8, 4, seed=0)
    codes = edges[0] * 256 + edges[1]
    assert bool((codes.diff() > 0).all())
    assert edges.min() >= 0
    assert edges.max() < 256
    assert torch.equal(edges, rmat(8, 4, seed=0))
    assert not torch.equal(edges, rmat(8, 4, seed=1))


def test_quadrants_are_chosen_with_the_probabilities_given():
    edges = rmat(16, 1, a=0.4, b=0.3, c=0.2, seed=0)  # so sparse that hardly an edge repeats
    n, half = edges.shape[1], 1 << 15
    source, target = edges[0] >= half, edges[1] >= half
    for found, p in ((~source & ~target, 0.4), (~source & target, 0.3), (source & ~target, 0.2)):
        # Repeats are fewest in sparse quadrants; they shift the shares by less than a thousandth here.
        assert abs(float(found.double().mean()) - p) < 4 * math.sqrt(p * (1 - p) / n) + 2e-3


def test_degrees_are_heavy_tailed_by_default_and_even_for_equal_quadrants():
    skewed = torch.bincount(rmat(10, 8)[0], minlength=1024)
    even = torch.bincount(rmat(10, 8, a=0.25, b=0.25, c=0.25)[0], minlength=1024)
    assert skewed.max() > 10 * skewed.double().mean()
    assert even.max() < 4 * even.double().mean()


def test_bad_input_is_refused():
    for options in ({"scale": 0}, {"scale": 3, "edge_factor": 0}, {"scale": 3, "a": 0.9}, {"scale": 3, "b": -0.1}):
        with pytest.raises(ValueError, match="rmat"):
            rmat(**options)
