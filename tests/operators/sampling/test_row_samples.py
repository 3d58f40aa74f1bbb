"""Coordinated samples: coordination, unbiasedness, exact variances, bounds, and what is refused."""

import math
import pickle
from functools import partial

import numpy as np
import pytest
import scipy.sparse
import torch

from tangrams.operators import (
    FeatureMatrix,
    PrioritySampler,
    RowSample,
    SampleMismatchError,
    ThresholdSampler,
    aggregate_rows,
    estimate_gram,
    estimate_product,
    leverage_scores,
    median_estimate,
    norms,
    product_error_bound,
    squared_norms,
    uniform,
    uniform_hash,
)

SAMPLERS = [PrioritySampler, ThresholdSampler]


def tables(n=120, d=4, m=3, seed=0):
    """Rows of very different norms; some only in one of the two."""
    g = torch.Generator().manual_seed(seed)
    scale = torch.rand(n, 1, generator=g, dtype=torch.float64).pow(-0.7)
    A = torch.randn(n, d, generator=g, dtype=torch.float64) * scale
    B = torch.randn(n, m, generator=g, dtype=torch.float64) * scale.flip(0).sqrt() + A[:, :m]
    A[: n // 4] = 0
    B[-n // 5 :] = 0
    return A, B


def estimates(make, k, A, B, draws):
    return torch.stack([estimate_product(make(k, seed=s).sample(A), make(k, seed=s).sample(B)) for s in range(draws)])


@pytest.mark.parametrize("weights", [squared_norms, norms, uniform, leverage_scores], ids=lambda f: f.__name__)
@pytest.mark.parametrize("make", SAMPLERS)
def test_products_are_unbiased_for_any_weights(make, weights):
    """Every entry's mean over seeds, and the whole matrix's: z-scores."""
    A, B = tables()
    W = estimates(lambda k, seed: make(k, weights=weights, seed=seed), 25, A, B, 600)
    z = (W.mean(0) - A.mT @ B) / (W.std(0) / math.sqrt(len(W)))
    assert float(z.abs().max()) < 5
    G = torch.stack([estimate_gram(make(25, weights=weights, seed=s).sample(A)) for s in range(300)])
    z = (G.mean(0) - A.mT @ A) / (G.std(0) / math.sqrt(len(G)))
    assert float(z.abs().max()) < 5
    assert float(torch.linalg.eigvalsh(G[0])[0]) > -1e-9


@pytest.mark.parametrize("weights", [squared_norms, norms], ids=lambda f: f.__name__)
def test_the_error_of_threshold_samples_is_the_stated_one_and_below_the_papers_bound(weights):
    A, B = tables()
    sampler = ThresholdSampler(25, weights=weights)
    stated = sampler.product_variance(A, B)
    W = estimates(lambda k, seed: ThresholdSampler(k, weights=weights, seed=seed), 25, A, B, 1500)
    squares = (W - A.mT @ B).square().sum((1, 2))
    assert abs(float(squares.mean()) - stated) < 5 * float(squares.std()) / math.sqrt(len(W))
    if weights is squared_norms:
        assert stated <= 2 / 25 * float(A.square().sum() * B.square().sum())


def test_the_error_of_priority_samples_is_within_the_papers_bound():
    A, B = tables()
    k, delta = 25, 0.2
    W = estimates(PrioritySampler, k, A, B, 800)
    squares = (W - A.mT @ B).square().sum((1, 2))
    bound = 2 / (k - 1) * float(A.square().sum() * B.square().sum())
    assert float(squares.mean()) < bound
    samples = PrioritySampler(k).sample(A), PrioritySampler(k).sample(B)
    stated = product_error_bound(*samples, delta=delta)
    assert stated == pytest.approx(math.sqrt(bound / delta))
    assert float((squares.sqrt() > stated).double().mean()) < delta
    assert product_error_bound(*(PrioritySampler(200).sample(M) for M in (A, B))) == 0
    with pytest.raises(ValueError, match="at least two rows"):
        product_error_bound(PrioritySampler(1).sample(A), samples[1])


@pytest.mark.parametrize("make", SAMPLERS)
def test_with_room_for_all_rows_the_product_is_exact(make):
    A, B = tables()
    sample = make(95).sample(A)
    assert len(sample) == 90
    assert math.isinf(sample.tau)
    torch.testing.assert_close(estimate_product(sample, make(120).sample(B)), A.mT @ B)


def test_sizes_are_fixed_for_priority_and_right_on_average_for_threshold_samples():
    A, _ = tables()
    assert {len(PrioritySampler(25, seed=s).sample(A)) for s in range(50)} == {25}
    sizes = np.array([len(ThresholdSampler(25, seed=s).sample(A)) for s in range(400)])
    assert abs(sizes.mean() - 25) < 5 * sizes.std() / 20
    weights = squared_norms(A)
    tau = ThresholdSampler(25).threshold(weights)
    assert np.minimum(1, tau * weights).sum() == pytest.approx(25)
    assert len(PrioritySampler(5).sample(A).keys) == 5
    dense, empty = PrioritySampler(5).sample(A), PrioritySampler(5).sample(torch.zeros(3, 4))
    assert dense.words == 5 * 4 + 2 * 5 + 3
    assert empty.words == 3
    sparse = PrioritySampler(5).sample(scipy.sparse.random_array((40, 30), density=0.1, rng=np.random.default_rng(0)))
    assert sparse.words == 2 * sparse.rows.nnz + 2 * 5 + 3


@pytest.mark.parametrize("make", SAMPLERS)
def test_a_sample_depends_on_keys_and_not_on_their_order(make):
    A, B = tables()
    names = np.array([f"row {i}" for i in range(len(A))])
    order = np.random.default_rng(0).permutation(len(A))
    for keys in (np.arange(len(A)) * 7 - 5, names):
        first, second = make(20).sample(A, keys), make(20).sample(A[order], keys[order])
        assert first.keys.tolist() == second.keys.tolist()
        assert first.tau == second.tau
        torch.testing.assert_close(first.rows, second.rows)
        whole = make(20).sample(B, keys)
        torch.testing.assert_close(estimate_product(first, whole), estimate_product(whole, second).mT)


@pytest.mark.parametrize("make", SAMPLERS)
def test_scaling_a_matrix_keeps_its_sample_and_scales_the_estimate(make):
    A, B = tables()
    sample, scaled, other = make(20).sample(A), make(20).sample(4 * A), make(20).sample(B)
    assert sample.keys.tolist() == scaled.keys.tolist()
    torch.testing.assert_close(estimate_product(scaled, other), 4 * estimate_product(sample, other))


def test_tables_without_a_key_in_common_have_an_estimate_of_exactly_zero():
    A, B = tables()
    left = PrioritySampler(10).sample(A, np.arange(120))
    right = PrioritySampler(10).sample(B, np.arange(120) + 1000)
    assert torch.equal(estimate_product(left, right), torch.zeros(4, 3, dtype=torch.float64))
    empty = PrioritySampler(10).sample(torch.zeros(5, 2))
    assert math.isinf(empty.tau)
    assert torch.equal(estimate_product(empty, left), torch.zeros(2, 4, dtype=torch.float64))


@pytest.mark.parametrize("make", SAMPLERS)
def test_a_table_without_rows_joins_keys_of_either_kind_to_zero(make):
    A, _ = tables()
    for keys in (np.arange(120), np.array([f"row {i}" for i in range(120)])):
        empty, some = make(5).sample(torch.zeros(0, 2), []), make(5).sample(A, keys)
        assert torch.equal(estimate_product(empty, some), torch.zeros(2, 4, dtype=torch.float64))
        assert torch.equal(estimate_product(some, empty), torch.zeros(4, 2, dtype=torch.float64))


@pytest.mark.parametrize("weights", [squared_norms, norms, uniform, leverage_scores], ids=lambda f: f.__name__)
def test_dense_sparse_and_stored_rows_give_one_sample(weights):
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((60, 8)) * (rng.random((60, 8)) < 0.3)
    kinds = [torch.from_numpy(dense), scipy.sparse.csr_array(dense), scipy.sparse.coo_matrix(dense)]
    kinds.append(FeatureMatrix(rows=torch.from_numpy(dense)))
    samples = [PrioritySampler(15, weights=weights).sample(rows) for rows in kinds]
    expected = estimate_gram(samples[0])
    for sample in samples[1:]:
        assert sample.keys.tolist() == samples[0].keys.tolist()
        torch.testing.assert_close(estimate_gram(sample), expected)
        torch.testing.assert_close(estimate_product(sample, samples[0]), expected)


def test_leverage_scores_are_those_of_the_singular_vectors():
    A = tables()[0] * torch.tensor([1.0, 1e3, 1e-2, 1.0])
    U = torch.linalg.svd(A, full_matrices=False).U
    np.testing.assert_allclose(leverage_scores(A), U.square().sum(1).numpy(), atol=1e-6)
    low = torch.cat([A, A[:, :1] + A[:, 1:2]], 1)
    assert leverage_scores(low).sum() == pytest.approx(4, abs=1e-3)


def test_leverage_weights_keep_a_rare_direction_that_norms_miss():
    """One row holds a whole direction, and is short: in the Gram's smallest eigenvalue it is all or nothing."""
    A = torch.zeros(1000, 2, dtype=torch.float64)
    A[:, 0] = 1
    A[7] = torch.tensor([0.0, 0.1])
    kept = {}
    for weights in (leverage_scores, squared_norms):
        samples = [PrioritySampler(30, weights=weights, seed=s).sample(A) for s in range(40)]
        kept[weights] = sum(7 in sample.keys for sample in samples)
    assert kept[leverage_scores] == 40
    assert kept[squared_norms] < 10


def test_end_biased_samples_estimate_the_size_of_a_join():
    """Counts of the values of a column in two tables; pairs that join are the inner product of the counts."""
    rng = np.random.default_rng(0)
    left, right = rng.zipf(1.5, 20_000) % 5000, rng.zipf(1.4, 30_000) % 5000
    counts = [np.unique(values, return_counts=True) for values in (left, right)]
    truth = sum(dict(zip(*counts[0], strict=True)).get(k, 0) * c for k, c in zip(*counts[1], strict=True))
    found = []
    for seed in range(200):
        sampler = ThresholdSampler(100, weights=norms, seed=seed)
        samples = [sampler.sample(torch.from_numpy(c.astype(np.float64)), keys) for keys, c in counts]
        found.append(float(estimate_product(*samples)))
    found = np.array(found)
    assert abs(found.mean() - truth) < 5 * found.std() / math.sqrt(200)
    assert found.std() < 0.1 * truth


def test_rows_of_a_key_are_added_up_before_a_join_of_many_to_many():
    keys_a, keys_b = ["x", "y", "x", "z"], ["x", "x", "y"]
    A, B = torch.arange(8.0).reshape(4, 2), torch.arange(6.0).reshape(3, 2)
    joined = [(i, j) for i, a in enumerate(keys_a) for j, b in enumerate(keys_b) if a == b]
    pairs = torch.stack([torch.outer(A[i], B[j]) for i, j in joined]).sum(0)
    samples = []
    for keys, rows in ((keys_a, A), (keys_b, B)):
        unique, sums = aggregate_rows(keys, rows)
        samples.append(PrioritySampler(10).sample(sums, unique))
    torch.testing.assert_close(estimate_product(*samples).float(), pairs)
    with pytest.raises(ValueError, match="2 keys for 4 rows"):
        aggregate_rows(["x", "y"], A)


def test_the_median_of_estimates_ignores_a_few_wild_ones():
    truth = torch.ones(2, 3, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    good = truth + 0.01 * torch.randn(7, 2, 3, generator=g, dtype=torch.float64)
    wild = truth + 100 * torch.randn(3, 2, 3, generator=g, dtype=torch.float64)
    assert float((median_estimate(torch.cat([wild, good])) - truth).abs().max()) < 0.05
    with pytest.raises(ValueError, match="at least one"):
        median_estimate(good[:0])


def test_the_hash_is_uniform_and_frozen():
    """Frozen, since samples of different versions must agree."""
    u = uniform_hash(np.arange(200_000), 5)
    assert u.min() > 0
    assert u.max() <= 1
    assert abs(u.mean() - 0.5) < 5 * math.sqrt(1 / 12 / 200_000)
    pairs = np.histogram2d(u[:-1], u[1:], bins=8, range=[[0, 1], [0, 1]])[0]
    chi = ((pairs - pairs.mean()) ** 2 / pairs.mean()).sum()
    assert abs(chi - 63) < 5 * math.sqrt(126)
    other = uniform_hash(np.arange(200_000), 6)
    assert abs(np.corrcoef(u, other)[0, 1]) < 5 / math.sqrt(200_000)
    assert abs(np.corrcoef(u, uniform_hash([str(i) for i in range(200_000)], 5))[0, 1]) < 5 / math.sqrt(200_000)
    frozen = [0.61720849, 0.24154538, 0.27010097, 0.41050827]
    np.testing.assert_allclose([*uniform_hash([1, 2], 0), *uniform_hash(["a", "b"], 0)], frozen, atol=1e-8)
    assert uniform_hash(torch.tensor([1, 2], dtype=torch.int32), 0).tolist() == uniform_hash([1, 2], 0).tolist()


def test_a_sample_travels_by_pickle():
    A = tables()[0]
    sample = PrioritySampler(12).sample(A, [f"k{i}" for i in range(120)])
    other = pickle.loads(pickle.dumps(sample))
    assert isinstance(other, RowSample)
    torch.testing.assert_close(estimate_gram(other), estimate_gram(sample))
    assert repr(PrioritySampler(12, seed=3)) == "PrioritySampler(12, weights=squared_norms, seed=3)"
    assert "norms" in repr(PrioritySampler(12, weights=partial(norms)))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda A: PrioritySampler(0), ValueError, "at least one row"),
        (lambda A: PrioritySampler(3).sample(A, [0] * 120), ValueError, "twice"),
        (lambda A: PrioritySampler(3).sample(A, [0, 1]), ValueError, "2 keys for 120 rows"),
        (lambda A: PrioritySampler(3).sample(A * math.nan), ValueError, "not finite"),
        (lambda A: PrioritySampler(3, weights=lambda rows: -np.ones(120)).sample(A), ValueError, "negative weight"),
        (lambda A: PrioritySampler(3).sample(A, np.linspace(0, 1, 120)), ValueError, "integers or strings"),
        (
            lambda A: estimate_product(PrioritySampler(3).sample(A), PrioritySampler(3, seed=1).sample(A)),
            SampleMismatchError,
            "different seeds",
        ),
        (
            lambda A: estimate_product(
                PrioritySampler(3).sample(A), PrioritySampler(3).sample(A, [str(i) for i in range(120)])
            ),
            SampleMismatchError,
            "different kinds",
        ),
    ],
)
def test_bad_input_is_named(call, error, match):
    with pytest.raises(error, match=match):
        call(tables()[0])
