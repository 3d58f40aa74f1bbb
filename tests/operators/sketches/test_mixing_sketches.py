"""Facts of the sketches that mix all columns: their matrices, exact variances, and the seams between blocks."""

import math

import pytest
import scipy.fft
import scipy.linalg
import torch

from tangrams.operators import (
    CirculantSketch,
    Column,
    CosineSketch,
    GaussianSketch,
    HadamardSketch,
    OrthogonalSketch,
    PooledHadamardSketch,
    TensorHadamardSketch,
    cosine_transform,
    hadamard_transform,
    inverse_cosine_transform,
)
from tangrams.operators.sketches.base import BLOCK


def matrix(sketch):
    return sketch.matrix(dtype=torch.float64).to_dense()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def z_of_variance(make, x, y, variance, draws=1500):
    """How many standard errors the mean squared error of ⟨Sx, Sy⟩ over seeds is from it; checks the bias."""
    pair = torch.stack([x, y])
    errors = torch.stack([(s := make(seed).bind(len(x)).project(pair))[0] @ s[1] for seed in range(draws)]) - x @ y
    assert abs(float(errors.mean())) < 5 * float(errors.std()) / math.sqrt(draws)
    squares = errors.square()
    return (float(squares.mean()) - variance) / (float(squares.std()) / math.sqrt(draws))


@pytest.mark.parametrize("n", [1, 2, 3, 8, 31, 100])
def test_the_cosine_transform_is_scipys_and_its_inverse_its_transpose(n):
    x = normal(3, 2, n)
    expected = torch.from_numpy(scipy.fft.dct(x.numpy(), norm="ortho"))
    torch.testing.assert_close(cosine_transform(x), expected)
    torch.testing.assert_close(inverse_cosine_transform(expected), x)
    C = cosine_transform(torch.eye(n, dtype=torch.float64))
    torch.testing.assert_close(inverse_cosine_transform(torch.eye(n, dtype=torch.float64)), C.mT)
    with pytest.raises(ValueError, match="at least one entry"):
        cosine_transform(x[..., :0])
    with pytest.raises(ValueError, match="at least one entry"):
        inverse_cosine_transform(x[..., :0])


@pytest.mark.parametrize(("k", "p"), [(8, 30), (30, 30), (64, 40)])
def test_cosine_sketch_is_a_sampled_transform_of_signed_columns(k, p):
    S = matrix(CosineSketch(k, seed=5).bind(p))
    m = max(k, p)
    C = torch.from_numpy(scipy.fft.dct(torch.eye(m).double().numpy(), axis=0, norm="ortho"))
    rows = CosineSketch(k, seed=5).bind(p)._rows(0, S)[0]
    assert len(set(rows.tolist())) == k
    sampled = math.sqrt(m / k) * C[rows][:, :p]
    torch.testing.assert_close(S.abs(), sampled.abs())
    signs = torch.sign((S * sampled).sum(0))
    torch.testing.assert_close(S, sampled * signs)
    if k >= p:
        torch.testing.assert_close(S.mT @ S, torch.eye(p, dtype=torch.float64))
        assert CosineSketch(k).bind(p).variance(1.0) == 0


def exact_cosine_variance(x, y, k):
    """From every ``E_D z_r²``, z_r the product of two transformed coordinates, and the sampling of k of m rows."""
    m = len(x)
    C = torch.from_numpy(scipy.fft.dct(torch.eye(m).double().numpy(), axis=0, norm="ortho"))
    a, b = C * x, C * y
    squares = a.square().sum(1) * b.square().sum(1) + 2 * (a * b).sum(1).square() - 2 * (a * b).square().sum(1)
    return float(m * (m - k) / (k * (m - 1)) * (squares.sum() - (x @ y).square() / m))


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_variance_of_the_cosine_sketch_and_its_mirror_images(mirrored):
    """A column and its mirror image share the squares of their cosines: that pair alone attains the constant 3/2."""
    k, m = 12, 40
    if mirrored:
        x, y = torch.eye(m, dtype=torch.float64)[[3, m - 4]]
    else:
        x, y = (v / v.norm() for v in normal(2, m))
    exact = exact_cosine_variance(x, y, k)
    assert abs(z_of_variance(lambda s: CosineSketch(k, seed=s), x, y, exact)) < 5
    bound = CosineSketch(k).bind(m).variance(float(x @ y))
    assert exact <= bound * 1.001
    if mirrored:
        assert exact > 0.95 * bound


@pytest.mark.parametrize("rho", [0.0, 0.6, 1.0])
def test_the_variance_of_the_orthogonal_sketch_is_exact_for_every_pair(rho):
    k, p = 9, 20
    x, y = torch.linalg.qr(normal(p, 2)).Q.mT
    y = rho * x + math.sqrt(1 - rho**2) * y
    variance = OrthogonalSketch(k).bind(p).variance(rho)
    assert abs(z_of_variance(lambda s: OrthogonalSketch(k, seed=s), x, y, variance)) < 5
    assert variance < GaussianSketch(k).variance(rho)


def test_orthogonal_sketch_has_orthonormal_rows_of_the_gaussian_row_space_and_is_the_identity_at_full_size():
    S = matrix(OrthogonalSketch(9, seed=2).bind(700)) * math.sqrt(9 / 700)
    torch.testing.assert_close(S @ S.mT, torch.eye(9, dtype=torch.float64))
    G = matrix(GaussianSketch(9, seed=2).bind(700))
    torch.testing.assert_close(S.mT @ S, torch.linalg.pinv(G) @ G)
    assert torch.equal(matrix(OrthogonalSketch(5).bind(4)), torch.eye(5, 4, dtype=torch.float64))
    assert OrthogonalSketch(5).bind(4).variance(1.0) == 0


def test_circulant_sketch_is_a_circulant_of_signs_and_has_the_variance_of_independent_ones():
    k, p = 10, 25
    S = matrix(CirculantSketch(k, seed=1).bind(p)) * math.sqrt(k)
    torch.testing.assert_close(S.abs(), torch.ones_like(S))
    ratio = S[1:, 1:] * S[:-1, :-1]  # s_c s_{c+1}: one sign for each column
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))
    x, y = (v / v.norm() for v in normal(2, p))
    y = (x + y) / (x + y).norm()
    exact = float(1 + (x @ y).square() - 2 * (x * y).square().sum()) / k
    assert abs(z_of_variance(lambda s: CirculantSketch(k, seed=s), x, y, exact)) < 5


def test_a_circulant_without_signs_keeps_the_correlations_of_smooth_features():
    """Why D is there: the same sequence on constant features, with and without it."""
    k, p = 16, 64
    x = torch.full((p,), p**-0.5, dtype=torch.float64)
    plain = []
    for seed in range(500):
        g = torch.sign(normal(p + k - 1, seed=seed))
        rows = torch.stack([g[k - 1 - r : k - 1 - r + p] for r in range(k)]) / math.sqrt(k)
        plain.append((rows @ x).square().sum() - 1)
    assert float(torch.stack(plain).square().mean()) > 4 * CirculantSketch(k).variance(1.0)


@pytest.mark.parametrize("k", [8, 7])
def test_pooled_features_are_independent_gaussians_with_the_energy_of_their_groups(k):
    """Given the signs and the transform, features have the block Gram as covariance; over seeds the stated variance."""
    p, m = 30, 32
    sketch = PooledHadamardSketch(k, seed=3).bind(p)
    ((rows, group, weights),) = list(sketch._groups(torch.zeros(1, dtype=torch.float64)))
    counts = torch.bincount(group, minlength=k)
    assert int(counts.max() - counts.min()) <= 1
    S = matrix(sketch)
    H = torch.as_tensor(scipy.linalg.hadamard(m), dtype=torch.float64)[:, :p]
    signs = torch.sign((S * torch.zeros(k, m, dtype=torch.float64).index_put_((group, rows), weights).matmul(H)).sum(0))
    pooled = torch.zeros(k, m, dtype=torch.float64).index_put_((group, rows), weights)
    torch.testing.assert_close(S, pooled @ H * signs)
    x, y = (v / v.norm() for v in normal(2, p))
    t2 = 2 * (1 + 2 * (x @ y).square() - 2 * (x * y).square().sum()) / m
    same = float((counts * (counts - 1)).sum()) / (m * (m - 1))
    exact = same * (1 + (x @ y).square()) + (1 - same) * t2
    assert abs(z_of_variance(lambda s: PooledHadamardSketch(k, seed=s), x, y, float(exact))) < 5
    assert float(exact) <= PooledHadamardSketch(k).bind(p).variance(float(x @ y))


@pytest.mark.parametrize("make", [HadamardSketch, CosineSketch, PooledHadamardSketch])
def test_blocks_of_the_stream_are_parts_of_one_orthonormal_transform(make):
    """Columns of different blocks are as uncorrelated as those of one: S Sᵀ and SᵀS where they can be looked at."""
    k, p = 40, 3 * BLOCK + 11
    sketch = make(k, seed=0).bind(p)
    columns = torch.zeros(4, p, dtype=torch.float64)
    columns[range(4), [5, BLOCK + 5, 2 * BLOCK + 77, 3 * BLOCK + 10]] = 1
    gram = sketch.project(columns) @ sketch.project(columns).mT
    assert float(gram.fill_diagonal_(0).abs().max()) < 6 * sketch.standard_error()
    if make is not PooledHadamardSketch:
        S = sketch.lift(torch.eye(k, dtype=torch.float64))
        total = 4 * BLOCK
        outside = total / k * torch.eye(k, dtype=torch.float64) - S @ S.mT  # what falls on the padding
        assert float(torch.linalg.eigvalsh(outside)[0]) > -1e-6
        assert float(outside.diagonal().mean()) == pytest.approx((total - p) / k, rel=0.02)


def test_cosine_sketch_over_several_blocks_is_within_its_larger_constant():
    """The worst pair that we know of: the same column of two blocks, whose transforms agree up to signs of blocks."""
    k, p = 16, 2 * BLOCK
    sketch = CosineSketch(k).bind(p)
    assert sketch.variance(0.0) == pytest.approx(2.5 / k, rel=1e-3)
    assert sketch.embedding_size(2) == math.ceil((2.5 * 2**2 + 2) / (0.5**2 * 0.1))
    x = torch.zeros(2, p, dtype=torch.float64)
    x[0, 9], x[1, BLOCK + 9] = 1, 1
    errors = torch.stack([(s := sketch.with_seed(seed).project(x))[0] @ s[1] for seed in range(40)])
    squares = errors.square()
    assert float(squares.mean()) < sketch.variance(0.0) + 5 * float(squares.std()) / math.sqrt(40)


def test_tensor_hadamard_sketch_is_a_kronecker_product_of_transforms_with_drawn_pairs_of_rows():
    k, o, i = 24, 5, 7
    sketch = TensorHadamardSketch(k, seed=2).bind((Column("w", (o, i), 0, o * i),))
    pairs = sketch._draw(0, sketch.columns[0], torch.zeros(1, dtype=torch.float64))
    assert len(set(zip(pairs.outer.tolist(), pairs.inner.tolist(), strict=True))) == k
    left = hadamard_transform(torch.eye(8, dtype=torch.float64))[:, :o] * pairs.left
    right = hadamard_transform(torch.eye(pairs.width, dtype=torch.float64))[:, :i] * pairs.right
    dense = torch.kron(left, right).reshape(8, pairs.width, o * i)[pairs.outer, pairs.inner]
    torch.testing.assert_close(matrix(sketch), dense * pairs.scale[:, None])


def test_a_kronecker_design_is_sketched_through_its_factors():
    o, i = 12, 9
    A1, A2 = normal(o, 3), normal(i, 2, seed=1)
    sketch = TensorHadamardSketch(40, seed=1).bind((Column("rows", (o, i), 0, o * i),))
    dense = torch.kron(A1, A2)
    torch.testing.assert_close(sketch.project_kronecker(A1, A2), sketch.project(dense.mT.contiguous()).mT)
    with pytest.raises(ValueError, match="one run of shape"):
        sketch.project_kronecker(A2, A1)


def test_tensor_hadamard_sketch_attains_its_constant_on_parallel_outer_products_only():
    k, columns = 32, (Column("w", (32, 32), 0, 1024),)
    outer = torch.outer(normal(32), normal(32, seed=1)).flatten()
    spread = normal(1024, seed=2)

    def mean_square(x):
        x = torch.stack([x / x.norm()])
        sketches = (TensorHadamardSketch(k, seed=seed).bind(columns) for seed in range(1000))
        return float(torch.stack([s.project(x).square().sum() - 1 for s in sketches]).square().mean())

    bound = TensorHadamardSketch(k).bind(columns).variance(1.0)
    assert 0.6 * bound < mean_square(outer) < 1.15 * bound
    assert mean_square(spread) < 1.3 * (2 / k)


def test_runs_of_a_tensor_hadamard_sketch_have_signs_of_their_own():
    """The first column of every transform is all ones: without signs two runs would meet on all k features."""
    columns = (Column("a", (1, 8), 0, 8), Column("b", (1, 8), 8, 16))
    sketch = TensorHadamardSketch(20).bind(columns)
    x = torch.zeros(2, 16, dtype=torch.float64)
    x[0, 0], x[1, 8] = 1, 1
    errors = torch.stack([(s := sketch.with_seed(seed).project(x))[0] @ s[1] for seed in range(600)])
    assert float(errors.square().mean()) < 1.4 / 20
    assert sketch.variance(0.0) == 1 / 20
