"""Exact learning of permutations: closed forms against solves, and ensembles against their limit."""

import math

import pytest
import torch

from tangrams.kernels.ntk import FullyConnectedNNGP, FullyConnectedNTK, ReLU
from tangrams.lens import ensemble_size, midpoint_threshold, permutation_moments, sign_threshold
from tangrams.models import FinitePermutationEnsemble, InfinitePermutationEnsemble
from tangrams.operators import ConvergenceError


def all_inputs(k):
    return torch.cartesian_prod(*[torch.tensor([0, 1])] * k)[1:]


def prefix(k, ones):
    x = torch.zeros(1, k, dtype=torch.float64)
    x[0, :ones] = 1
    return x


@pytest.mark.parametrize("k", [2, 6, 13])
def test_moments_are_those_of_the_solved_process(k):
    basis = torch.eye(k, dtype=torch.float64)
    ntk, nngp = FullyConnectedNTK(2, ReLU(), W_std=1.0), FullyConnectedNNGP(2, ReLU(), W_std=1.0)
    inverse = torch.linalg.inv(ntk.gram(basis))
    moments = permutation_moments(k, torch.arange(1, k + 1))
    for index, ones in enumerate(range(1, k + 1)):
        x = prefix(k, ones)
        A = ntk.gram(x, basis) @ inverse
        variance = nngp.gram(x) + A @ nngp.gram(basis) @ A.mT - 2 * A @ nngp.gram(basis, x)
        assert float(moments.inside[index]) == pytest.approx(float(A[0, 0]), abs=1e-12)
        if ones < k:
            assert float(moments.outside[index]) == pytest.approx(float(A[0, -1]), abs=1e-12)
        assert float(moments.variance[index]) == pytest.approx(float(variance), abs=1e-12)


def test_figures_of_an_independent_computation():
    six, twenty = permutation_moments(6, torch.tensor([3])), permutation_moments(20, torch.tensor([2, 20]))
    assert [float(six.inside), float(six.outside)] == pytest.approx([0.716924, -0.050551], abs=1e-6)
    assert [float(twenty.inside[0]), float(twenty.outside[0])] == pytest.approx([0.805137, -0.008421], abs=1e-6)
    assert float(twenty.inside[1]) == pytest.approx(0.314498, abs=1e-6)


def test_training_points_are_certain():
    moments = permutation_moments(9, torch.tensor([1]))
    assert float(moments.inside) == pytest.approx(1, abs=1e-12)
    assert float(moments.outside) == pytest.approx(0, abs=1e-12)
    assert float(moments.variance) == 0


@pytest.mark.parametrize("threshold", [sign_threshold, midpoint_threshold])
def test_the_limit_decodes_every_input(threshold):
    k = 10
    ensemble = InfinitePermutationEnsemble(torch.randperm(k, generator=torch.Generator().manual_seed(0)))
    x = all_inputs(k)
    assert torch.equal(ensemble.predict(x, threshold=threshold), ensemble.permuted(x))


def test_permuting_the_inputs_permutes_the_outputs():
    order = torch.tensor([3, 0, 4, 1, 2])
    ensemble = InfinitePermutationEnsemble([2, 4, 1, 0, 3])
    reordered = InfinitePermutationEnsemble(torch.tensor([2, 4, 1, 0, 3])[order])
    x = all_inputs(5)
    torch.testing.assert_close(reordered.decision(x[:, order]), ensemble.decision(x), rtol=0, atol=1e-12)


def test_draws_of_an_average_have_its_moments():
    x = prefix(6, 3)
    draws = torch.cat([InfinitePermutationEnsemble(range(6), 5, seed=s).decision(x) for s in range(400)])
    moments = permutation_moments(6, torch.tensor([3]))
    means = torch.cat([moments.inside.expand(3), moments.outside.expand(3)])
    variance = float(moments.variance) / 5
    assert ((draws.mean(0) - means) / math.sqrt(variance / 400)).abs().max() < 4
    assert abs(float((draws - means).square().mean()) / variance - 1) / math.sqrt(2 / (400 * 6)) < 4


@pytest.mark.parametrize("threshold", [sign_threshold, midpoint_threshold])
def test_an_ensemble_of_the_stated_size_fails_as_rarely_as_stated(threshold):
    k, delta, trials = 6, 0.2, 60
    size = ensemble_size(k, delta, threshold=threshold)
    x = all_inputs(k)
    failures = 0
    for seed in range(trials):
        ensemble = InfinitePermutationEnsemble(range(k), size, seed=seed)
        failures += int(not torch.equal(ensemble.predict(x, threshold=threshold), ensemble.permuted(x)))
    assert failures <= delta * trials + 4 * math.sqrt(trials * delta * (1 - delta))
    few = InfinitePermutationEnsemble(range(k), 3, seed=0)
    assert not torch.equal(few.predict(x, threshold=threshold), few.permuted(x))


def test_sizes_grow_as_stated():
    one = [ensemble_size(k, 0.01, num_inputs=1) for k in (10, 20, 40, 80, 160, 320)]
    every = [ensemble_size(k, 0.01) for k in (10, 20, 40, 80, 160, 320)]
    assert one == sorted(one)
    assert every == sorted(every)
    assert 1.7 < one[-1] / one[-2] < 2.4
    assert 3.4 < every[-1] / every[-2] < 4.2
    assert ensemble_size(10, 0.001, num_inputs=1) > one[0]


def test_wide_networks_average_to_the_limit():
    x = all_inputs(4)
    limit = InfinitePermutationEnsemble([1, 3, 0, 2]).decision(x)
    networks = 300
    found = FinitePermutationEnsemble([1, 3, 0, 2], networks, 512).decision(x)
    moments = permutation_moments(4, x.sum(1))
    error = (moments.variance / networks).sqrt()[:, None]
    assert ((found - limit).abs() < 4.5 * error + 0.03).all()
    assert ((found - limit).abs()[x.sum(1) == 1] < 1e-3).all()


def test_the_networks_do_not_depend_on_the_default_dtype():
    x, found = torch.tensor([[1, 1, 0], [0, 1, 1]]), []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(FinitePermutationEnsemble([2, 0, 1], 2, 64).decision(x))
        finally:
            torch.set_default_dtype(torch.float32)
    assert torch.equal(*found)


def test_a_networks_draw_does_not_depend_on_how_many_there_are():
    x = all_inputs(3)
    one, two, three = (FinitePermutationEnsemble([2, 0, 1], n, 64).decision(x) for n in (1, 2, 3))
    other = FinitePermutationEnsemble([2, 0, 1], 3, 64)
    torch.testing.assert_close(other.decision(x), three)
    assert not torch.allclose(one, two)
    with pytest.raises(ConvergenceError, match="wider"):
        FinitePermutationEnsemble([1, 0], 1, 4, max_steps=1)


@pytest.mark.parametrize("permutation", [[0, 0, 1], [1, 2, 3], [0], []])
def test_what_is_no_permutation_is_refused(permutation):
    with pytest.raises(ValueError, match="permutation"):
        InfinitePermutationEnsemble(permutation)


@pytest.mark.parametrize(
    ("x", "words"),
    [([[0, 0, 0]], "is zero"), ([[0, 2, 1]], "binary"), ([[0, 1]], "needs inputs"), ([[0, -1, 1]], "binary")],
)
def test_inputs_outside_the_guarantee_are_refused(x, words):
    with pytest.raises(ValueError, match=words):
        InfinitePermutationEnsemble([1, 2, 0]).predict(torch.tensor(x))


@pytest.mark.parametrize("call", [(1, 0.1), (5, 0.0), (5, 1.0)])
def test_impossible_sizes_are_refused(call):
    with pytest.raises(ValueError, match="needs"):
        ensemble_size(*call)
