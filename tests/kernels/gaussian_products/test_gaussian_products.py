"""Sub-quadratic products with Gaussian kernel matrices."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from tangrams.kernels.gaussian_products import (
    E2LSH,
    AssumptionViolatedWarning,
    ExactSearch,
    KDTreeSearch,
    LSHSearch,
    SparseGaussianKernelOperator,
    SquaredNormSampling,
    UniformSampling,
    closest_to_the_others,
    gaussian_block,
    gaussian_product,
    heavy_keys,
    sample_rows,
    sparse_gaussian_product,
)
from tangrams.operators import block_generator
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.operator import OperatorSuite

build = SparseGaussianKernelOperator.build


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def clusters(n, d=6, size=8, seed=0):
    """Points in well separated groups: a kernel matrix of mass O(n)."""
    centres = 6 * normal(n // size, d, seed=seed)
    return (centres[:, None] + 0.5 * normal(n // size, size, d, seed=seed + 1)).flatten(0, 1)


def by_sklearn(operator):
    gamma = 0.5 / operator.sigma**2
    return torch.from_numpy(rbf_kernel(operator.queries.numpy(), operator.keys.numpy(), gamma))


TestSparseGaussianKernelOperator = conformance(
    OperatorSuite,
    Case(lambda: build(normal(6, 3), normal(5, 3, seed=1), 0.7, tau=0.0), reference=by_sklearn),
    Case(lambda: build(x := normal(5, 2), x, 1.5, tau=0.0), reference=by_sklearn, name="symmetric"),
    Case(
        lambda: build(normal(6, 3), normal(5, 3, seed=1), 0.7, tau=0.0, exact_keys=torch.tensor([1, 3])),
        reference=by_sklearn,
        name="exact-keys",
    ),
)


def test_the_blocked_product_is_the_dense_one():
    q, k, x = normal(40, 5), normal(30, 5, seed=1), normal(30, 3, seed=2)
    K = torch.from_numpy(rbf_kernel(q.numpy(), k.numpy(), 0.5 / 1.3**2))
    assert (gaussian_product(q, k, x, 1.3) - K @ x).abs().max() < 1e-12
    far = gaussian_block(q.float() + 1000, k.float() + 1000, 1.3)
    assert (far.double() - K).abs().max() < 1e-3  # float32 itself rounds a thousand to 6e-5


@pytest.mark.parametrize("spread", [1.0, 100.0, 3000.0])
def test_kernels_of_clusters_far_apart_keep_their_digits_in_float32(spread):
    k = (spread * normal(300, 16)).float()
    q = (k + 0.3 * normal(300, 16, seed=1).float()).requires_grad_(True)
    apart = k.double() - q.detach().double()[:, None]
    exact = torch.exp(-apart.square().sum(2) / 2)
    block = gaussian_block(q, k, 1.0)
    assert block.dtype == torch.float32
    assert float((block.detach() - exact).abs().max()) < 1e-4
    x = normal(300, 2, seed=2).float()
    assert float((gaussian_product(q, k, x, 1.0).detach() - exact @ x.double()).norm()) < 1e-3 * float(x.norm())
    (slope,) = torch.autograd.grad(block.sum(), q)
    expected = (exact[:, :, None] * apart).sum(1)
    assert float((slope - expected).norm()) < 2e-3 * float(expected.norm())
    found = ExactSearch().pairs(q.detach(), k, 2.0, 10**6)
    assert len(found) == int((exact >= math.exp(-2)).sum())


def test_a_complete_search_makes_products_exact():
    q, k = normal(50, 4), normal(70, 4, seed=1)
    operator = build(q, k, 0.8, tau=0.0)
    x = normal(70, 3, seed=2)
    assert (operator @ x - gaussian_block(q, k, 0.8) @ x).abs().max() < 1e-10
    assert operator.num_samples == 0


def a_problem():
    q, k = normal(12, 2), normal(10, 2, seed=1)
    near = torch.rand(12, 10, generator=torch.Generator().manual_seed(3)) < 0.4
    return q, k, near, gaussian_block(q, k, 1.0), normal(10, 2, seed=4)


@pytest.mark.parametrize("sampling", [SquaredNormSampling(), UniformSampling(2)], ids=["squared", "uniform"])
def test_estimates_are_unbiased_for_any_set_of_near_pairs(sampling):
    q, k, near, K, x = a_problem()
    row, col = near.nonzero(as_tuple=True)
    draws = torch.stack(
        [
            sparse_gaussian_product(q, k, x, 1.0, row, col, *sampling.weights(x, 4, block_generator(0, seed)))
            for seed in range(3000)
        ]
    )
    z = (draws.mean(0) - K @ x) / (draws.std(0) / math.sqrt(len(draws)))
    assert z.abs().max() < 4.5


def test_squared_norm_sampling_has_the_variance_of_its_formula():
    q, k, near, K, x = a_problem()
    row, col = near.nonzero(as_tuple=True)
    x, t = x[:, :1], 4
    errors = []
    for seed in range(4000):
        drawn = SquaredNormSampling().weights(x, t, block_generator(1, seed))
        y = sparse_gaussian_product(q, k, x, 1.0, row, col, *drawn)
        errors.append(float((y - K @ x).square().sum()))
    rest = K * ~near
    expected = float(x.square().sum() / t * rest.square().sum() - (rest @ x).square().sum() / t)
    z = (np.mean(errors) - expected) / (np.std(errors) / math.sqrt(len(errors)))
    assert abs(z) < 4


def test_uniform_sampling_stays_below_its_bound_and_keeps_the_largest():
    q, k, near, K, x = a_problem()
    row, col = near.nonzero(as_tuple=True)
    x, t, s = x[:, :1], 3, 4
    index, weights = UniformSampling(s).weights(x, t, block_generator(0, 0))
    largest = x[:, 0].abs().argsort(descending=True)[:s]
    assert torch.equal(index[:s], largest)
    assert torch.equal(weights[:s], x[largest])
    errors = []
    for seed in range(2000):
        drawn = UniformSampling(s).weights(x, t, block_generator(1, seed))
        errors.append(float((sparse_gaussian_product(q, k, x, 1.0, row, col, *drawn) - K @ x).square().sum()))
    outside = torch.ones(10, dtype=torch.bool).index_fill(0, largest, False)
    rest = (K * ~near)[:, outside]
    bound = (10 - s) / t * float((rest.square() @ x[outside].square()).sum())
    assert np.mean(errors) < bound + 4 * np.std(errors) / math.sqrt(len(errors))
    assert bound < 10 / t * float(x.square().sum()) / s * float(rest.square().sum())


def test_products_are_linear_in_x_and_the_weights_together():
    q, k, near, _, x = a_problem()
    row, col = near.nonzero(as_tuple=True)
    index = torch.tensor([1, 5])
    one, two, other = normal(2, 2, seed=5), normal(2, 2, seed=6), normal(10, 2, seed=7)
    product = lambda x, w: sparse_gaussian_product(q, k, x, 1.0, row, col, index, w)  # noqa: E731
    combined = product(2 * x - other, 2 * one - two)
    assert (combined - 2 * product(x, one) + product(other, two)).abs().max() < 1e-12


def test_gradients_are_those_of_the_formula():
    q, k, near, _, x = a_problem()
    row, col = near.nonzero(as_tuple=True)
    index, weights = torch.tensor([1, 5]), normal(2, 2, seed=5)
    leaves = [t.clone().requires_grad_() for t in (q, k, x, torch.tensor(1.1, dtype=torch.float64), weights)]
    assert torch.autograd.gradcheck(
        lambda q, k, x, sigma, w: sparse_gaussian_product(q, k, x, sigma, row, col, index, w), leaves
    )
    same = q.clone().requires_grad_()
    gaussian_block(same, same, 1.0).square().sum().backward()
    assert torch.isfinite(same.grad).all()


def test_the_error_that_is_asked_for_is_kept():
    q = clusters(1600)
    k = q + 0.2 * normal(*q.shape, seed=9)
    x = normal(len(k), 1, seed=2)
    exact = gaussian_product(q, k, x, 1.0)
    for sampling in (SquaredNormSampling(), UniformSampling(256)):
        operator = build(q, k, 1.0, eps=0.05, delta=0.2, tau=0.02, sampling=sampling)
        assert 0 < operator.num_samples < 800
        failures = sum(float((operator.product(x, draw) - exact).norm()) > 0.05 * float(x.norm()) for draw in range(40))
        assert failures <= 16  # 8 at most are expected, with a standard deviation of 2.5
        spread = operator.row_error_estimate(x, 30)
        assert float(spread.square().sum().sqrt()) < 0.05 * float(x.norm())


def test_repetitions_pick_an_estimate_among_the_most():
    truth = normal(5, 2)
    estimates = torch.stack([truth + 0.01, truth - 0.01, truth + 0.02, truth + 50, truth - 90])
    assert (closest_to_the_others(estimates) - truth).abs().max() < 0.03
    q = clusters(800)
    operator = build(q, q, 1.0, tau=0.02, repetitions=3)
    x = normal(800, 2, seed=1)
    assert float((operator @ x - gaussian_product(q, q, x, 1.0)).norm()) < 0.1 * float(x.norm())


def test_the_transpose_has_the_same_pairs_and_its_own_samples():
    q, k = clusters(800), clusters(400)
    operator = build(q, k, 1.0, tau=0.01, eps=0.05)
    back = operator.mT
    assert back.shape == (400, 800)
    assert back.num_samples == operator.num_samples
    u = normal(800, 1, seed=3)
    assert float((back @ u - gaussian_product(k, q, u, 1.0)).norm()) < 0.05 * float(u.norm())
    assert torch.equal(back.mT.near_pairs.row, operator.near_pairs.row)


def test_one_x_has_one_answer_and_other_seeds_others():
    q = clusters(800)
    x = normal(800, 1, seed=1)
    operators = [build(q, q, 1.0, tau=0.02, seed=seed) for seed in (0, 0, 1)]
    assert operators[0].num_samples > 0
    first, second, third = (operator @ x for operator in operators)
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_rows_of_zeros_and_no_signal_give_zero():
    q = clusters(800)
    operator = build(q, q, 1.0, tau=0.02)
    assert torch.equal(operator @ torch.zeros(800, 2, dtype=q.dtype), torch.zeros(800, 2, dtype=q.dtype))
    x = torch.zeros(800, 1, dtype=q.dtype)
    x[[3, 799]] = 1.0
    index, _ = SquaredNormSampling().weights(x, 50, block_generator(0, 0))
    assert set(index.tolist()) <= {3, 799}


def test_a_kernel_without_the_assumption_warns_and_is_exact():
    q = normal(400, 3)
    with pytest.warns(AssumptionViolatedWarning, match="mass of"):
        operator = build(q, q, 10.0, tau=0.999)
    x = normal(400, 1, seed=1)
    assert operator.is_exact
    assert (operator @ x - gaussian_product(q, q, x, 10.0)).abs().max() < 1e-10


def test_duplicated_points_are_fine():
    q = normal(20, 3).repeat(3, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        operator = build(q, q, 0.5, tau=0.0)
    x = normal(60, 1, seed=1)
    assert (operator @ x - gaussian_block(q, q, 0.5) @ x).abs().max() < 1e-10


def test_hubs_are_found_and_made_exact():
    k = clusters(800)
    q = torch.cat([k, k[:1] + 0.1 * normal(600, 6, seed=5)])
    hubs = heavy_keys(q, k, 1.0, 100.0, num_rows=len(q))
    sums = gaussian_block(q, k, 1.0).sum(0)
    assert torch.equal(hubs, (sums > 100).nonzero()[:, 0])
    assert 0 < len(hubs) <= 8
    plain, relieved = build(q, k, 1.0, tau=0.01), build(q, k, 1.0, tau=0.01, exact_keys=hubs)
    assert len(relieved.near_pairs) < 0.7 * len(plain.near_pairs)
    assert not set(relieved.near_pairs.col.tolist()) & set(hubs.tolist())
    x, u = normal(800, 1, seed=6), normal(len(q), 1, seed=7)
    assert float((relieved @ x - gaussian_product(q, k, x, 1.0)).norm()) < 0.1 * float(x.norm())
    assert float((relieved.mT @ u - gaussian_product(k, q, u, 1.0)).norm()) < 0.1 * float(u.norm())


@pytest.mark.parametrize("search", [ExactSearch(), LSHSearch(1e-9)], ids=["exact", "lsh"])
@pytest.mark.parametrize("keys", [torch.tensor([3, 5, 3]), torch.arange(40)], ids=["some", "all"])
def test_exact_keys_may_repeat_and_may_be_all(keys, search):
    q, k, x = normal(30, 3), normal(40, 3, seed=1), normal(40, 2, seed=2)
    operator = build(q, k, 1.0, tau=0.0, exact_keys=keys, search=search)
    assert (operator @ x - gaussian_product(q, k, x, 1.0)).abs().max() < 1e-10


@pytest.mark.filterwarnings("ignore::tangrams.kernels.gaussian_products.AssumptionViolatedWarning")
def test_the_largest_threshold_leaves_all_but_equal_points_to_sampling():
    q = 60 * normal(300, 3)
    k, x = torch.cat([60 * normal(400, 3, seed=1), q[:5]]), normal(405, 2, seed=2)
    for search in (ExactSearch(), LSHSearch()):
        operator = build(q, k, 1.0, tau=1.0, search=search)
        assert float((operator @ x - gaussian_product(q, k, x, 1.0)).norm()) < 0.1 * float(x.norm())


@pytest.mark.filterwarnings("ignore::tangrams.kernels.gaussian_products.AssumptionViolatedWarning")
@pytest.mark.parametrize("search", [ExactSearch(), KDTreeSearch(), LSHSearch()], ids=["exact", "k-d tree", "lsh"])
def test_pairs_at_one_distance_that_do_not_fit_are_left_to_sampling(search):
    """A lattice: 100 pairs at distance 0 fit, 360 at distance 1 do not."""
    q = torch.cartesian_prod(torch.arange(10.0, dtype=torch.float64), torch.arange(10.0, dtype=torch.float64))
    operator = build(q, q, 0.5, tau=0.1, search=search, max_pairs=150)
    pairs = operator.near_pairs
    assert torch.equal(pairs.row, pairs.col)
    lost = gaussian_block(q, q, 0.5).index_put((pairs.row, pairs.col), torch.zeros((), dtype=torch.float64))
    assert operator.plan.tail == pytest.approx(float(lost.square().sum()))


@pytest.mark.filterwarnings("ignore::tangrams.kernels.gaussian_products.AssumptionViolatedWarning")
def test_a_tail_in_a_single_row_or_column_is_seen():
    """One query that just misses sixty keys: four rows of five are not looked at."""
    k = 40 * normal(4500, 6).float()
    k[:60] = 0.0
    q = k + 0.1 * normal(4500, 6, seed=1).float()
    q[:61] = 90.0  # no other query is near the sixty
    q[60, :] = 0.0
    q[60, 0] = 1.5
    truth = 60 * math.exp(-(1.5**2))
    for left, right in ((q, k), (k, q)):
        tails = [build(left, right, 1.0, tau=0.4, search=ExactSearch(), seed=seed).plan.tail for seed in range(8)]
        assert min(tails) > 0.8 * truth
        assert np.mean(tails) < 3 * truth


class Capped:
    """A search that finds all pairs but those that a bucket of 64 cuts off."""

    def pairs(self, queries, keys, radius, max_pairs):
        return E2LSH(queries.shape[1], 4 * radius, 4, 20, max_bucket=64).pairs(queries, keys, radius, max_pairs)


def test_pairs_that_full_buckets_lose_are_left_to_sampling():
    q = torch.cat([torch.zeros(400, 4, dtype=torch.float64), 60 * normal(1600, 4)])
    with pytest.warns(AssumptionViolatedWarning):
        operator = build(q, q, 1.0, tau=0.01, search=Capped())
    assert operator.near_pairs.dropped > 0
    lost = gaussian_block(q, q, 1.0).index_put(
        (operator.near_pairs.row, operator.near_pairs.col), torch.zeros((), dtype=torch.float64)
    )
    assert operator.plan.tail == pytest.approx(float(lost.square().sum()))
    x = normal(2000, 1, seed=1)
    assert float((operator @ x - gaussian_product(q, q, x, 1.0)).norm()) < 0.1 * float(x.norm())


def test_a_sample_of_rows_estimates_mass_and_tail():
    q, k = clusters(1600), clusters(1600, seed=0)
    K = gaussian_block(q, k, 1.0)
    far = (q[:, None, :] - k[None]).norm(dim=2) > 2.0
    masses, tails = zip(
        *((s.mass, s.tail) for s in (sample_rows(q, k, 1.0, 2.0, num_rows=100, seed=i) for i in range(60))), strict=True
    )
    for values, truth in ((masses, K.sum()), (tails, (K * far).square().sum())):
        z = (np.mean(values) - float(truth)) / (np.std(values, ddof=1) / math.sqrt(60))
        assert abs(z) < 4
    sample = sample_rows(q, k, 1.0, 2.0, num_rows=100, seed=0)
    assert 0.5 < sample.mass_error / np.std(masses) < 2
    assert sample_rows(q, k, 1.0, 2.0, num_rows=1600).mass == pytest.approx(float(K.sum()))


def test_what_lsh_misses_is_allowed_for():
    q = clusters(2400)
    x = normal(2400, 1, seed=1)
    exact = gaussian_product(q, q, x, 1.0)
    complete = build(q, q, 1.0, tau=0.01, search=ExactSearch(), eps=0.5, delta=0.2)
    partial = build(q, q, 1.0, tau=0.01, search=LSHSearch(0.3), eps=0.5, delta=0.2)
    assert not partial.is_exact
    assert len(partial.near_pairs) < len(complete.near_pairs)
    assert partial.num_samples > complete.num_samples
    errors = [float((partial.product(x, draw) - exact).norm()) for draw in range(20)]
    assert np.mean(np.square(errors)) < 0.5**2 * 0.2 * float(x.square().sum()) * 1.5


@pytest.mark.parametrize(
    ("arguments", "options", "word"),
    [
        ((normal(3, 2), normal(3, 3), 1.0), {}, "queries"),
        ((normal(3, 2), normal(0, 2), 1.0), {}, "at least one"),
        ((normal(3, 2) * math.nan, normal(3, 2), 1.0), {}, "NaN"),
        ((normal(3, 2).half(), normal(3, 2).half(), 1.0), {}, "float32"),
        ((normal(3, 2), normal(3, 2), 0.0), {}, "σ"),
        ((normal(3, 2), normal(3, 2), 1.0), {"eps": 0.0}, "ε"),
        ((normal(3, 2), normal(3, 2), 1.0), {"delta": 2.0}, "δ"),
        ((normal(3, 2), normal(3, 2), 1.0), {"repetitions": 0}, "repetitions"),
    ],
    ids=["shapes", "empty", "nan", "half", "sigma", "eps", "delta", "repetitions"],
)
def test_bad_input_is_refused(arguments, options, word):
    with pytest.raises(ValueError, match=word):
        build(*arguments, **options)
    with pytest.raises(ValueError, match="num_largest"):
        UniformSampling(0)
