"""Facts of sheet 022 about farthest-point clustering, pruning and the filter."""

import numpy as np
import pytest
import torch

from tangrams.data import Labelled
from tangrams.kernels import CosineKernel, LabelledPseudoNTK
from tangrams.learners import (
    FarthestPointClustering,
    PoisonFilter,
    keep_heads,
    keep_random_members,
    self_maximal,
    thin_largest,
)
from tangrams.learners.farthest_point import farthest_point_heads


def similarities(n=40, seed=0):
    F = np.random.default_rng(seed).normal(size=(n, 6))
    return F @ F.T


def by_the_book(K, M):
    """The sheet's steps with explicit cluster lists."""
    n = len(K)
    pairs = [(K[i, j], -i, -j) for i in range(n) for j in range(n) if i != j]
    first = -max(pairs)[1]
    clusters = {first: [i for i in range(n) if i != first]}
    while len(clusters) < M:
        worst = min((K[i, head], i) for head, members in clusters.items() for i in members)[1]
        moved = []
        for head, members in clusters.items():
            stay = [i for i in members if i != worst and not K[i, worst] > K[i, head]]
            moved += [i for i in members if i != worst and K[i, worst] > K[i, head]]
            clusters[head] = stay
        clusters[worst] = moved
    heads = list(clusters)
    labels = np.empty(n, dtype=int)
    for c, (head, members) in enumerate(clusters.items()):
        labels[[head, *members]] = c
    return heads, labels


@pytest.mark.parametrize("seed", range(4))
def test_heads_and_members_follow_the_book(seed):
    K = similarities(seed=seed)
    heads, labels = farthest_point_heads(K, 9)
    expected_heads, expected_labels = by_the_book(K, 9)
    assert heads.tolist() == expected_heads
    assert labels.tolist() == expected_labels.tolist()


def test_heads_are_distinct_and_everyone_prefers_their_own_to_every_head():
    K = similarities()
    fitted = FarthestPointClustering(8, kernel="precomputed").fit(K)
    assert len(set(fitted.heads_)) == 8
    others = np.setdiff1d(np.arange(40), fitted.heads_)
    best = K[others][:, fitted.heads_].max(1)
    np.testing.assert_allclose(fitted.similarity_[others], best)


def test_one_cluster_holds_all_and_as_many_as_samples_hold_one_each():
    K = similarities()
    assert (FarthestPointClustering(1, kernel="precomputed").fit(K).labels_ == 0).all()
    for M in (40, 100):
        assert FarthestPointClustering(M, kernel="precomputed").fit(K).labels_.tolist() == list(range(40))


def test_positive_scaling_changes_nothing():
    K = similarities()
    once, scaled = (FarthestPointClustering(8, kernel="precomputed").fit(s * K) for s in (1.0, 7.0))
    assert (once.labels_ == scaled.labels_).all()


def test_ties_go_to_the_first_index():
    fitted = FarthestPointClustering(2, kernel="precomputed").fit(np.ones((5, 5)))
    assert fitted.heads_.tolist() == [0, 1]


def test_classes_are_clustered_apart_and_alike():
    K, y = similarities(), np.arange(40) % 3
    fitted = FarthestPointClustering(0.2, kernel="precomputed").fit_classes(K, y)
    for c in np.unique(fitted.labels_):
        assert len(set(y[fitted.labels_ == c])) == 1
    for label in range(3):
        index = np.flatnonzero(y == label)
        alone = FarthestPointClustering(0.2, kernel="precomputed").fit(K[index][:, index])
        assert set(index[alone.heads_]) == set(fitted.heads_[y[fitted.heads_] == label])
    assert (fitted.labels_[fitted.heads_] == np.arange(len(fitted.heads_))).all()


def test_a_kernel_of_labelled_samples_gives_the_clusters_of_its_gram():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    data = Labelled(torch.randn(20, 3), torch.arange(20) % 2)
    kernel = CosineKernel(LabelledPseudoNTK(net))
    direct = FarthestPointClustering(3, kernel=kernel).fit_classes(data, data.targets)
    gram = FarthestPointClustering(3, kernel="precomputed").fit_classes(kernel.gram(data), data.targets)
    assert (direct.labels_ == gram.labels_).all()
    assert (direct.predict(data) == kernel.gram(data)[:, gram.heads_].argmax(1).numpy()).all()


def test_members_come_sorted_and_cluster_similarity_is_their_mean():
    K = similarities()
    fitted = FarthestPointClustering(5, kernel="precomputed").fit(K)
    for c in range(5):
        members = fitted.members(c)
        head = fitted.heads_[c]
        rest = members[members != head]
        assert (np.diff(K[members, head]) <= 0).all()
        if len(rest):
            assert fitted.cluster_similarity_[c] == pytest.approx(K[rest, head].mean())
        else:
            assert np.isnan(fitted.cluster_similarity_[c])


@pytest.mark.parametrize("M", [0, -1, 0.0, 1.5, -0.2])
def test_impossible_numbers_of_clusters_are_refused(M):
    with pytest.raises(ValueError, match="n_clusters"):
        FarthestPointClustering(M, kernel="precomputed").fit(similarities())


def test_pruning_keeps_heads_or_one_member_of_each():
    fitted = FarthestPointClustering(8, kernel="precomputed").fit(similarities())
    assert keep_heads(fitted).tolist() == sorted(fitted.heads_)
    kept = keep_random_members(fitted, random_state=3)
    assert sorted(fitted.labels_[kept]) == list(range(8))
    assert (kept == keep_random_members(fitted, random_state=3)).all()
    draws = {tuple(keep_random_members(fitted, random_state=s)) for s in range(20)}
    assert len(draws) > 1


def test_thinning_drops_from_the_largest_the_most_alike_and_never_a_head():
    fitted = FarthestPointClustering(5, kernel="precomputed").fit(similarities())
    sizes = np.bincount(fitted.labels_)
    largest = int(sizes.argmax())
    kept = thin_largest(fitted, 2 / 40)
    dropped = np.setdiff1d(np.arange(40), kept)
    assert len(dropped) == 2
    members = fitted.members(largest)
    assert set(dropped) == set(members[members != fitted.heads_[largest]][:2])
    half = thin_largest(fitted, 0.5)
    assert len(half) == 20
    assert set(fitted.heads_) <= set(half)
    assert np.bincount(fitted.labels_[half], minlength=5).max() <= sizes.max() // 2 + 1
    assert thin_largest(fitted, 0.0).tolist() == list(range(40))


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 0.9])
def test_dropping_more_than_there_is_is_refused(fraction):
    fitted = FarthestPointClustering(8, kernel="precomputed").fit(similarities())
    with pytest.raises(ValueError, match="thin_largest"):
        thin_largest(fitted, fraction)


def test_self_maximal_samples_are_most_like_themselves():
    K = similarities()
    expected = [all(K[i, i] >= K[i, j] for j in range(40)) for i in range(40)]
    assert self_maximal(K).tolist() == expected
    assert not all(expected)


def blobs(n=120, wrong=12, seed=0):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    X = rng.normal(size=(n, 8)) * 0.3
    X[np.arange(n), y] += 2
    given = y.copy()
    bad = rng.choice(n, wrong, replace=False)
    given[bad] = (given[bad] + 1) % 3
    return X, given, np.isin(np.arange(n), bad)


@pytest.mark.parametrize("seed", range(5))
def test_the_filter_finds_samples_that_contradict_their_class(seed):
    X, y, wrong = blobs(seed=seed)
    fitted = PoisonFilter(0.1, n_clusters=0.15).fit(X, y)
    assert fitted.flagged_.sum() == 12
    assert wrong[fitted.flagged_].mean() > 3 * 0.1  # three times chance, as the sheet asks


def test_the_filter_works_on_a_precomputed_kernel_and_ranks_singletons_first():
    X, y, _ = blobs()
    direct, gram = PoisonFilter(0.1).fit(X, y), PoisonFilter(0.1, kernel="precomputed").fit(X @ X.T, y)
    np.testing.assert_allclose(direct.suspicion_, gram.suspicion_, rtol=0, atol=1e-10)
    assert (np.ceil(direct.suspicion_ - 1e-9) <= 0).all()


def test_the_filter_refuses_a_share_that_is_none():
    X, y, _ = blobs()
    for share in (0.0, 1.0, -0.5):
        with pytest.raises(ValueError, match="contamination"):
            PoisonFilter(share).fit(X, y)
