"""Stated errors against measured ones."""

import math

import pytest
import torch

from tangrams.operators import (
    CosineSketch,
    CountSketch,
    FeatureMatrix,
    GaussianSketch,
    HadamardSketch,
    KhatriRaoSketch,
    KroneckerSketch,
    OrthogonalSketch,
    PooledHadamardSketch,
    embedding_statistics,
    sketch_error,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("make", [GaussianSketch, OrthogonalSketch])
def test_the_stated_gram_error_is_that_over_seeds(make):
    """Exact laws: the mean over seeds of ‖ΦSᵀSΦᵀ − ΦΦᵀ‖² is within five standard errors of the statement."""
    phi = normal(6, 60) + normal(1, 60, seed=3)
    K = phi @ phi.mT
    sketch = make(20, seed=0)
    stated = sketch_error(sketch, phi)
    found = []
    for seed in range(600):
        rows = sketch.with_seed(seed).bind(60).project(phi)
        found.append((rows @ rows.mT - K).square().sum() / K.square().sum())
    found = torch.stack(found)
    assert abs(float(found.mean()) - stated.gram**2) < 5 * float(found.std()) / math.sqrt(600)
    assert stated.rank == 6


def test_the_stated_error_bounds_every_pair_and_the_distortion_of_the_span():
    phi = normal(5, 200)
    U = torch.linalg.qr(phi.mT).Q
    for make in (CountSketch, HadamardSketch, CosineSketch, PooledHadamardSketch):
        stated = sketch_error(make(40), FeatureMatrix(rows=phi))
        distortions = []
        for seed in range(200):
            SU = make(40, seed=seed).bind(200).project(U.mT)
            distortions.append((SU @ SU.mT - torch.eye(5)).square().sum())
        distortions = torch.stack(distortions)
        spread = float(distortions.std()) / math.sqrt(200)
        assert float(distortions.mean()) <= stated.distortion**2 + 5 * spread
        K = phi @ phi.mT
        cosines = (K / K.diagonal().sqrt() / K.diagonal().sqrt()[:, None]).fill_diagonal_(0)
        assert stated.inner_product == pytest.approx(make(40).bind(200).standard_error(float(cosines.abs().max())))


@pytest.mark.parametrize("make", [GaussianSketch, HadamardSketch, CosineSketch, CountSketch])
def test_the_stated_embedding_size_suffices(make):
    d, p = 4, 4096
    size = make(8).bind(p).embedding_size(d)
    U = torch.linalg.qr(normal(p, d)).Q.mT.contiguous()
    failures = 0
    for seed in range(30):
        SU = make(size, seed=seed).bind(p).project(U)
        failures += int(float(torch.linalg.matrix_norm(SU @ SU.mT - torch.eye(d), 2)) > 0.5)
    assert failures <= 3
    assert make(8).bind(p).embedding_size(d, epsilon=0.25) > size
    assert make(8).bind(p).embedding_size(d, delta=1e-3) > size


def test_what_is_not_known_is_none_and_what_does_not_fit_is_named():
    phi = normal(3, 20)
    assert sketch_error(KroneckerSketch(16), phi).embedding_size is None
    assert sketch_error(CountSketch(16), phi[:1]).inner_product == pytest.approx(math.sqrt(2 / 16))
    with pytest.raises(ValueError, match="bound to 9 columns"):
        sketch_error(CountSketch(16).bind(9), phi)
    with pytest.raises(ValueError, match="all zero"):
        sketch_error(CountSketch(16), torch.zeros(2, 5))
    with pytest.raises(NotImplementedError, match="states no embedding size"):
        KroneckerSketch(16).embedding_size(3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rank_is_not_that_of_rounding(dtype):
    phi = normal(60, 10).to(dtype)
    stated, exact = sketch_error(CountSketch(16), phi), sketch_error(CountSketch(16), phi.double())
    assert stated.rank == exact.rank == 10
    assert stated.embedding_size == exact.embedding_size


def test_the_worst_pair_of_a_khatri_rao_sketch_is_not_the_most_parallel_one():
    sketch = KhatriRaoSketch(16).bind(20)
    assert sketch_error(sketch, normal(3, 20)).inner_product == sketch.standard_error(0.0)


def test_all_sketches_share_the_variance_and_not_the_tail():
    """[032]: on spikes a count sketch is right or wrong by one, a dense sketch off by its standard error each time."""
    g, h = torch.eye(500, dtype=torch.float64)[:2]
    dense, count = (embedding_statistics(make(25), g, h, 1500) for make in (GaussianSketch, CountSketch))
    far = torch.eye(500, dtype=torch.float64)[400]
    count = embedding_statistics(CountSketch(25), g, far, 1500)
    assert count.variance == pytest.approx(1 / 25, rel=0.35)
    assert dense.variance == pytest.approx(1 / 25, rel=0.15)
    assert abs(dense.bias) < 5 * math.sqrt(dense.variance / 1500)
    assert count.tail[0] == 0
    assert count.tail[2] == pytest.approx(5)  # √k: one collision
    assert dense.tail[2] < 3.2
    with pytest.raises(ValueError, match="draws ≥ 2"):
        embedding_statistics(CountSketch(5), g, h, 1)
    with pytest.raises(ValueError, match="not zero"):
        embedding_statistics(CountSketch(5), g, 0 * h)
