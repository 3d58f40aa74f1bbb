"""Searches for near pairs."""

import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from tangrams.kernels.gaussian_products import E2LSH, ExactSearch, KDTreeSearch, LSHSearch, collision_probability


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def codes(pairs, m):
    return (pairs.row * m + pairs.col).tolist()


@pytest.mark.parametrize("search", [ExactSearch(), KDTreeSearch()], ids=["exact", "k-d tree"])
def test_complete_searches_find_the_pairs_of_sklearn(search):
    q, k = normal(60, 3), normal(50, 3, seed=1)
    found = search.pairs(q, k, 1.2, 10**6)
    distances, names = NearestNeighbors(radius=1.2).fit(k.numpy()).radius_neighbors(q.numpy())
    expected = sorted(i * 50 + j for i, row in enumerate(names) for j in row)
    assert codes(found, 50) == expected
    assert torch.allclose(found.squared.sqrt().sum(), torch.tensor(np.concatenate(distances).sum()))
    assert torch.equal(found.inclusion, torch.ones(len(found), dtype=q.dtype))


def test_collisions_have_the_probability_of_the_formula():
    trials = 40_000
    for ratio in (0.5, 1.0, 4.0):
        r, width = 1.3, 1.3 * ratio
        g = torch.Generator().manual_seed(0)
        lines = torch.randn(trials, generator=g, dtype=torch.float64) * r
        offsets = torch.rand(trials, generator=g, dtype=torch.float64)
        same = (torch.floor(lines / width + offsets) == torch.floor(offsets)).double().mean()
        p = float(collision_probability(torch.tensor(r, dtype=torch.float64), width))
        assert abs(float(same) - p) < 4 * math.sqrt(p * (1 - p) / trials)
    edges = collision_probability(torch.tensor([0.0, 1e9], dtype=torch.float64), 1.0)
    assert edges[0] == pytest.approx(1)
    assert edges[1] < 1e-8


def test_planted_neighbours_are_found_as_often_as_planned():
    k = 8 * normal(3000, 12)
    direction = torch.nn.functional.normalize(normal(3000, 12, seed=1))
    q, radius, miss = k + direction, 1.0 + 1e-9, 0.15
    rates = []
    for seed in range(6):
        found = LSHSearch(miss, seed=seed).pairs(q, k, radius, 10**6)
        rates.append(float((found.row == found.col).double().mean()) * len(found) / 3000)
    expected = float(LSHSearch(miss).plan(q, k, radius).inclusion(torch.tensor([1.0], dtype=torch.float64)))
    assert expected >= 1 - miss
    # Points share the tables of a seed, so seeds are the independent draws.
    assert abs(np.mean(rates) - expected) < 4 * max(np.std(rates, ddof=1) / math.sqrt(6), 2e-3)


def test_hashing_finds_only_true_pairs_once_each():
    q, k = normal(300, 4), normal(200, 4, seed=1)
    found = E2LSH(4, 2.0, 3, 12, seed=0).pairs(q, k, 0.8, 10**6)
    every = set(codes(ExactSearch().pairs(q, k, 0.8, 10**6), 200))
    ours = codes(found, 200)
    assert len(ours) == len(set(ours))
    assert set(ours) <= every
    assert len(ours) > 0.8 * len(every)
    assert ours == sorted(ours)
    assert found.inclusion.min() > 0
    assert found.inclusion.max() <= 1


def test_the_same_seed_gives_the_same_tables():
    q = normal(100, 4)
    one, two, other = (E2LSH(4, 2.0, 3, 2, seed=seed).codes(q, 1) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


@pytest.mark.parametrize(
    "search", [ExactSearch(), KDTreeSearch(), E2LSH(3, 50.0, 1, 2)], ids=["exact", "k-d tree", "E2LSH"]
)
def test_too_many_pairs_shrink_the_radius(search):
    q, k = normal(80, 3), normal(70, 3, seed=1)
    found = search.pairs(q, k, 3.0, 100)
    assert 90 <= len(found) <= 100
    assert found.radius < 3.0
    complete = search.pairs(q, k, found.radius, 10**6)
    assert codes(found, 70) == codes(complete, 70)


def test_full_buckets_are_cut_and_counted():
    q = torch.zeros(50, 2, dtype=torch.float64)
    hashing = E2LSH(2, 1.0, 1, 1, max_bucket=20)
    found = hashing.pairs(q, q, 0.1, 10**6)
    assert len(found) == 50 * 20
    assert hashing.dropped == 50 * 30


def test_nothing_near_is_no_pair():
    q, k = normal(5, 3), normal(4, 3) + 1e3
    for search in (ExactSearch(), KDTreeSearch(), LSHSearch()):
        assert len(search.pairs(q, k, 0.5, 10)) == 0


@pytest.mark.parametrize("search", [ExactSearch(), KDTreeSearch(), LSHSearch()], ids=["exact", "k-d tree", "lsh"])
def test_no_points_and_no_radius_are_fine(search):
    q, k = normal(30, 3), normal(40, 3, seed=1)
    for some in (search.pairs(q[:0], k, 1.0, 10), search.pairs(q, k[:0], 1.0, 10), search.pairs(q[:0], k[:0], 0.0, 10)):
        assert (len(some), some.inclusion.shape, some.dropped) == (0, (0,), 0)
    grid = torch.arange(12.0, dtype=torch.float64).reshape(4, 3)
    assert codes(search.pairs(grid, grid.repeat(2, 1), 0.0, 99), 8) == [0, 4, 9, 13, 18, 22, 27, 31]
    assert len(search.pairs(grid[:1], grid[:1], 0.0, 99)) == 1


def test_swapped_pairs_are_those_of_the_transpose():
    q, k = normal(60, 3), normal(50, 3, seed=1)
    swapped = ExactSearch().pairs(q, k, 1.0, 10**6).swapped()
    assert codes(swapped, 60) == codes(ExactSearch().pairs(k, q, 1.0, 10**6), 60)


def test_impossible_tables_are_refused():
    for arguments in ((0, 1.0, 1, 1), (2, 0.0, 1, 1), (2, 1.0, 0, 1), (2, 1.0, 1, 0)):
        with pytest.raises(ValueError, match="E2LSH"):
            E2LSH(*arguments)
    for miss in (0.0, 1.0):
        with pytest.raises(ValueError, match="miss"):
            LSHSearch(miss)
