"""The mass of Gaussian kernel matrices."""

import math
from dataclasses import replace

import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from tangrams.kernels.gaussian_products import ExactSearch
from tangrams.lens import gaussian_kernel_mass


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def clusters(n, seed=0):
    centres = 8 * normal(n // 10, 8, seed=seed)
    return (centres[:, None] + 0.5 * normal(n // 10, 10, 8, seed=seed + 1)).flatten(0, 1)


def test_head_and_tail_are_sums_of_the_sorted_entries():
    q, k = normal(30, 3), normal(20, 3, seed=1)
    entries = torch.from_numpy(rbf_kernel(q.numpy(), k.numpy(), 0.5)).flatten().sort(descending=True).values
    mass = gaussian_kernel_mass(q, k, 1.0)
    assert mass.num_head == 30
    assert mass.total == pytest.approx(float(entries.sum()))
    assert mass.head == pytest.approx(float(entries[:30].sum()))
    assert mass.ratio == pytest.approx(float(entries[30:].sum() / entries[:30].sum()))
    assert gaussian_kernel_mass(q, k, 1.0, 10**6).tail == pytest.approx(0.0, abs=1e-9)


def test_the_estimate_agrees_with_the_sum():
    q = clusters(1000)
    exact = gaussian_kernel_mass(q, q, 1.0)
    sampled = gaussian_kernel_mass(q, q, 1.0, search=ExactSearch(), max_entries=0)
    assert sampled.head == pytest.approx(exact.head)
    assert abs(sampled.total - exact.total) <= 4 * sampled.standard_error
    hashed = gaussian_kernel_mass(q, q, 1.0, max_entries=0)
    assert hashed.head == pytest.approx(exact.head, rel=0.02)


class HalfSearch:
    """Misses half of the pairs, and does not say so."""

    def pairs(self, queries, keys, radius, max_pairs):
        pairs = ExactSearch().pairs(queries, keys, radius, max_pairs)
        found = torch.rand(len(pairs), generator=torch.Generator().manual_seed(5)) < 0.5
        row, col, squared, inclusion = (t[found] for t in (pairs.row, pairs.col, pairs.squared, pairs.inclusion))
        return replace(pairs, row=row, col=col, squared=squared, inclusion=inclusion)


@pytest.mark.parametrize("num_head", [400, 1200])
def test_what_a_search_misses_is_estimated_and_the_errors_are_told(monkeypatch, num_head):
    """Of 400 rows 64 are sampled; the total is unbiased, the head no lower than by its standard error."""
    q, seeds = clusters(400), 40
    exact = gaussian_kernel_mass(q, q, 1.0, num_head)
    monkeypatch.setattr("tangrams.lens.kernel_mass.BLOCK_ENTRIES", 64 * 400)
    options = {"search": HalfSearch(), "max_entries": 0}
    found = [gaussian_kernel_mass(q, q, 1.0, num_head, seed=seed, **options) for seed in range(seeds)]
    for value, error in (("total", "standard_error"), ("head", "head_error")):
        values = torch.tensor([getattr(mass, value) for mass in found], dtype=torch.float64)
        told = sum(getattr(mass, error) for mass in found) / seeds
        off = float(values.mean()) - getattr(exact, value)
        deviation = float(values.std())
        assert 0.6 < told / deviation < 1.6
        assert -told * (value == "head") - 4 * deviation / seeds**0.5 < off < 4 * deviation / seeds**0.5
    assert all(mass.head + mass.tail == pytest.approx(mass.total) for mass in found)
    assert exact.standard_error == exact.head_error == 0


def test_clusters_are_sparse_at_every_size_and_a_ball_is_not():
    ratios = [gaussian_kernel_mass(clusters(n), clusters(n), 1.0, 4 * n).ratio for n in (200, 400, 800)]
    assert max(ratios) < 2
    balls = [gaussian_kernel_mass(normal(n, 3), normal(n, 3), 3.0).ratio for n in (200, 400, 800)]
    assert balls[2] > 3 * balls[0]


def test_a_matrix_of_zeros_has_no_ratio():
    assert gaussian_kernel_mass(normal(3, 2), normal(3, 2) + 1e6, 1.0).ratio == math.inf


def test_bad_input_is_refused():
    for arguments in ((normal(0, 2), normal(3, 2), 1.0), (normal(3, 2), normal(3, 2), 0.0)):
        with pytest.raises(ValueError, match="gaussian_kernel_mass"):
            gaussian_kernel_mass(*arguments)
    with pytest.raises(ValueError, match="num_head"):
        gaussian_kernel_mass(normal(3, 2), normal(3, 2), 1.0, 0)
