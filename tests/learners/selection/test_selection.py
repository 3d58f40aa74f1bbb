"""Facts of sheet 007 about the selections."""

import numpy as np
import pytest
import scipy.linalg
import torch

from tangrams.features import TangentFeatures
from tangrams.learners import (
    BAIT,
    BatchSelector,
    FrankWolfe,
    KMeansPlusPlus,
    LargestClusterMaxDistance,
    MaxDeterminant,
    MaxDiagonal,
    MaxDistance,
    PosteriorFeatures,
    RandomSelection,
)
from tangrams.learners.selection.base import FixedScores
from tangrams.operators import FeatureMatrix, KhatriRaoSketch
from tangrams.store import FeatureStore
from tangrams.testing.suites.estimator import WideRows

ALL = [RandomSelection, MaxDiagonal, MaxDeterminant, MaxDistance, KMeansPlusPlus, LargestClusterMaxDistance]
ALL += [FrankWolfe, BAIT]
DISTANCES = [MaxDistance, LargestClusterMaxDistance]


def rows(n=200, d=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.2, d, dtype=torch.float64)


class Inner:
    def gram(self, x, y=None):
        return x @ (x if y is None else y).mT

    def diag(self, x):
        return x.square().sum(1)


def by_the_book_lcmd(pool, labelled, b):
    """Clusters as lists, every distance anew."""
    centres, chosen = list(labelled), []
    for _ in range(b):
        free = [i for i in range(len(pool)) if i not in chosen]
        if not centres:
            best = max(free, key=lambda i: float(pool[i].norm()))
        else:
            owner = [min(range(len(centres)), key=lambda c: float((x - centres[c]).norm())) for x in pool]
            squared = [float((x - centres[c]).square().sum()) for x, c in zip(pool, owner, strict=True)]
            sizes = [sum(q for q, o in zip(squared, owner, strict=True) if o == c) for c in range(len(centres))]
            largest = int(np.argmax(sizes))
            best = max((i for i in free if owner[i] == largest), key=lambda i: squared[i])
        chosen.append(best)
        centres.append(pool[best])
    return chosen


@pytest.mark.parametrize("labelled", [0, 6])
def test_lcmd_follows_the_book(labelled):
    pool, train = rows(60, 4), rows(labelled, 4, seed=1)
    chosen = LargestClusterMaxDistance(12).fit(pool, labelled=train if labelled else None).indices_
    assert chosen.tolist() == by_the_book_lcmd(pool, train, 12)


@pytest.mark.parametrize("labelled", [0, 6])
def test_maximum_distance_follows_the_book_on_a_pool_too_large_to_be_all_in_the_lead(labelled):
    pool, train = rows(3000, 6), rows(labelled, 6, seed=1)
    chosen = MaxDistance(80).fit(pool, labelled=train if labelled else None).indices_
    centres = list(range(0)) if labelled else [int(pool.norm(dim=1).argmax())]
    distance = torch.cdist(pool, train).amin(1) if labelled else torch.full((3000,), torch.inf, dtype=torch.float64)
    expected = []
    for _ in range(80):
        i = centres.pop() if centres else int(distance.argmax())
        expected.append(i)
        distance = torch.minimum(distance, (pool - pool[i]).norm(dim=1))
    assert chosen.tolist() == expected


def test_the_maximal_determinant_takes_the_pivots_of_lapack():
    pool = rows(90, 40)
    K = (pool @ pool.mT).numpy() + 0.01 * np.eye(90)
    _, pivots, _, _ = scipy.linalg.lapack.dpstrf(K)
    selector = MaxDeterminant(30, noise=0.1).fit(pool)
    np.testing.assert_array_equal(selector.indices_, pivots[:30] - 1)
    sub = K[np.ix_(selector.indices_, selector.indices_)]
    np.testing.assert_allclose(np.log(selector.scores_).sum(), np.linalg.slogdet(sub)[1], rtol=1e-10)


def test_every_choice_raises_the_determinant_most():
    pool = rows(40, 10)
    K = pool @ pool.mT + 0.01 * torch.eye(40, dtype=torch.float64)
    chosen = MaxDeterminant(6).fit(pool).indices_.tolist()
    for k in range(6):
        before = chosen[:k]
        gains = [torch.logdet(K[[*before, i]][:, [*before, i]]) if i not in before else -torch.inf for i in range(40)]
        assert int(torch.tensor(gains).argmax()) == chosen[k]


def test_many_directions_on_a_large_pool_are_the_pivots_of_its_gram():
    pool, train = rows(2500, 30), rows(20, 30, seed=1)
    for labelled in (None, train):
        fast = MaxDeterminant(90).fit(pool, labelled=labelled)
        slow = MaxDeterminant(90, kernel=Inner()).fit(pool, labelled=labelled)
        np.testing.assert_array_equal(fast.indices_, slow.indices_)
        np.testing.assert_allclose(fast.scores_, slow.scores_, rtol=1e-9)


def test_labelled_pivots_are_a_posterior():
    pool, train = rows(), rows(15, seed=1)
    posterior = PosteriorFeatures(0.1).fit(train)
    given, alone = (
        selector.indices_
        for selector in (
            MaxDeterminant(20).fit(pool, labelled=train),
            MaxDeterminant(20).fit(posterior.transform(pool)),
        )
    )
    np.testing.assert_array_equal(given, alone)


def test_bait_with_labelled_samples_is_bait_on_their_posterior():
    pool, train = rows(), rows(15, seed=1)
    posterior = PosteriorFeatures(0.1).fit(train)
    given = BAIT(20).fit(pool, labelled=train).indices_
    # The posterior's coordinates are turned, which changes C with them: gains and variances stay.
    turned = BAIT(20).fit(posterior.transform(pool), reference=posterior.transform(train)).indices_
    assert len(set(given) & set(turned)) >= 18


def variance_left(pool, chosen, noise):
    d = pool.shape[1]
    precision = torch.eye(d, dtype=torch.float64) + pool[chosen].mT @ pool[chosen] / noise**2
    return float((pool @ torch.linalg.inv(precision) * pool).sum())


def test_every_forward_choice_of_bait_lowers_the_summed_variance_most():
    pool = rows(50, 6)
    chosen = BAIT(6, noise=0.5).fit(pool).indices_.tolist()
    for k in range(6):
        left = [variance_left(pool, [*chosen[:k], i], 0.5) if i not in chosen[:k] else np.inf for i in range(50)]
        assert int(np.argmin(left)) == chosen[k]


def test_every_backward_step_of_bait_gives_up_the_one_that_is_missed_least():
    pool = rows(50, 6)
    kept = BAIT(10, noise=0.5).fit(pool).indices_.tolist()
    while len(kept) > 5:
        left = [variance_left(pool, [j for j in kept if j != i], 0.5) for i in kept]
        del kept[int(np.argmin(left))]
    assert BAIT(5, noise=0.5, overselection=2.0).fit(pool).indices_.tolist() == kept


def test_bait_forwards_and_backwards_without_overselection_is_bait_forwards():
    pool = rows()
    forward, neither = BAIT(9).fit(pool), BAIT(9, overselection=1.0).fit(pool)
    np.testing.assert_array_equal(forward.indices_, neither.indices_)


@pytest.mark.parametrize("mode", ["P", "TP"])
def test_the_residual_of_frank_wolfe_never_grows(mode):
    pool = rows()
    fitted = FrankWolfe(50).fit(pool, labelled=rows(10, seed=1) if mode == "TP" else None)
    assert len(fitted.residuals_) == 50
    assert (np.diff(fitted.residuals_) <= 1e-9).all()
    w, c = torch.zeros(8, dtype=torch.float64), pool.norm(dim=1)
    if mode == "P":
        for i, residual in zip(fitted.indices_, fitted.residuals_, strict=True):
            a, u = c.sum() * pool[i] / c[i], pool.sum(0)
            w = w + (a - w) @ (u - w) / ((a - w) @ (a - w)) * (a - w)
            assert float((u - w).norm()) == pytest.approx(residual, rel=1e-6)


@pytest.mark.parametrize("selector", DISTANCES, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("mode", ["P", "TP"])
def test_distance_methods_do_not_see_rotations_and_scales(selector, mode):
    pool, train = rows(), rows(10, seed=1)
    turn = torch.linalg.qr(rows(8, 8, seed=2)).Q
    train = train if mode == "TP" else None
    plain = selector(30).fit(pool, labelled=train).indices_
    turned = selector(30).fit(3 * pool @ turn, labelled=None if train is None else 3 * train @ turn).indices_
    np.testing.assert_array_equal(plain, turned)


@pytest.mark.parametrize("selector", ALL, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("mode", ["P", "TP"])
def test_no_sample_is_chosen_twice_even_among_duplicates_and_zeros(selector, mode):
    pool = torch.cat([rows(12, 5), rows(12, 5), torch.zeros(6, 5, dtype=torch.float64)])
    labelled = rows(3, 5, seed=1) if mode == "TP" else None
    chosen = selector(30).fit(pool, labelled=labelled).indices_
    assert sorted(chosen) == list(range(30))


def test_a_batch_that_cannot_be_chosen_is_filled_at_random_and_says_so():
    pool = rows(40, 3)
    fitted = MaxDeterminant(10, noise=0.0).fit(pool)
    assert fitted.status_ == "nothing left to gain after 3 samples: 7 drawn at random"
    assert len(set(fitted.indices_)) == 10
    assert np.isnan(fitted.scores_[3:]).all()
    assert np.isfinite(fitted.scores_[:3]).all()
    other = MaxDeterminant(10, noise=0.0, random_state=1).fit(pool)
    assert set(other.indices_[3:]) != set(fitted.indices_[3:])


def test_without_noise_what_labelled_samples_span_is_worth_nothing():
    pool, train = rows(60, 6), rows(2, 6, seed=1)
    pool[:30] = rows(30, 2, seed=3) @ train
    fitted = MaxDeterminant(4, noise=0.0).fit(pool, labelled=train)
    assert fitted.status_ is None
    assert min(fitted.indices_) >= 30


def test_features_that_are_not_finite_are_filled_up_and_not_chosen():
    class Broken(Inner):
        def diag(self, x):
            return torch.full((len(x),), torch.nan, dtype=torch.float64)

    fitted = MaxDiagonal(5, kernel=Broken()).fit(rows(9))
    assert fitted.status_ == "nothing left to gain after 0 samples: 5 drawn at random"


def test_kmeans_plus_plus_draws_by_squared_distance():
    pool, train = torch.tensor([[1.0], [2.0], [3.0], [0.0]]), torch.zeros(1, 1)
    seeds = 1500
    counts = np.bincount(
        [KMeansPlusPlus(1, random_state=s).fit(pool, labelled=train).indices_[0] for s in range(seeds)], minlength=4
    )
    p = np.array([1, 4, 9, 0]) / 14
    assert counts[3] == 0
    z = (counts[:3] - seeds * p[:3]) / np.sqrt(seeds * p[:3] * (1 - p[:3]))
    assert np.abs(z).max() < 4


def test_random_batches_are_uniform_and_fixed_by_their_seed():
    counts = np.bincount(
        np.concatenate([RandomSelection(3, random_state=s).fit(rows(10)).indices_ for s in range(2000)])
    )
    z = (counts - 600) / np.sqrt(2000 * 0.3 * 0.7)
    assert np.abs(z).max() < 4
    once, again = (RandomSelection(3, random_state=7).fit(rows(10)).indices_ for _ in range(2))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("selector", ALL, ids=lambda cls: cls.__name__)
def test_wide_rows_choose_what_dense_rows_choose(selector):
    pool, train = rows(40, 6), rows(5, 6, seed=1)
    wide = [FeatureMatrix(rows=WideRows(part, times=3_000_000)) for part in (pool, train)]
    options = {} if selector is not BAIT else {"noise": 1.0}
    dense = selector(8, **options).fit(pool, labelled=train).indices_
    np.testing.assert_array_equal(selector(8, **options).fit(wide[0], labelled=wide[1]).indices_, dense)


def test_a_store_chooses_what_its_rows_choose(tmp_path):
    network = torch.nn.Sequential(torch.nn.Linear(4, 7), torch.nn.Tanh(), torch.nn.Linear(7, 1))
    phi = TangentFeatures(network) >> KhatriRaoSketch(20, seed=0)
    x = rows(50, 4).float()
    phi.extract(x, tmp_path / "pool.zarr")
    store = FeatureStore.open(tmp_path / "pool.zarr")
    chosen = LargestClusterMaxDistance(9).fit(store).indices_
    np.testing.assert_array_equal(chosen, LargestClusterMaxDistance(9).fit(phi.matrix(x)).indices_)


@pytest.mark.parametrize("selector", ALL, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("b", [0, 11])
def test_a_batch_that_the_pool_cannot_give_is_refused(selector, b):
    with pytest.raises(ValueError, match=f"{selector.__name__}.*batch_size={b}.*n_samples=10"):
        selector(b).fit(rows(10))


def test_a_selector_of_ones_own_writes_one_method():
    class Smallest(BatchSelector):
        def _begin(self, points):
            return FixedScores(-points.diag[: points.num_pool])

    pool = rows(20)
    np.testing.assert_array_equal(Smallest(20).fit(pool).indices_, MaxDiagonal(20).fit(pool).indices_[::-1])


def test_bad_options_are_refused():
    for bad, word in (
        (MaxDeterminant(2, noise=-1.0), "noise"),
        (BAIT(2, noise=0.0), "noise"),
        (BAIT(2, overselection=0.5), "overselection"),
        (MaxDistance(2, kernel="precomputed"), "gram and diag"),
    ):
        with pytest.raises(ValueError, match=word):
            bad.fit(rows(10))
    with pytest.raises(ValueError, match="features"):
        MaxDistance(2).fit(rows(10), labelled=rows(3, 7))
