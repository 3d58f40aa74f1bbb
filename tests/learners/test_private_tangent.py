"""Private training of tangents: clipping, noise, accounting; and the last blocks of a transformer."""

import importlib.util
import math
import sys

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm
from sklearn.datasets import make_blobs
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.learners import (
    FullBatchAccountant,
    PrivacyBudgetError,
    PrivateTangentClassifier,
    ShardedTangentClassifier,
    SubsampledAccountant,
    TAFTClassifier,
)
from tangrams.learners.private_tangent import _Draws, clipped_gradient, clipping, gradient_norms, gradients_along
from tangrams.nn.losses import rescaled_square_loss
from tangrams.nn.tangent import linearize
from tangrams.nn.transformer import CosineAttention, VisionTransformer
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance

TRAINED = {"check_stored_rows_are_never_held_whole": "columns that are repeated meet other random weights"}
QUIET = {"noise_multiplier": 0.01, "steps": 12, "max_grad_norm": 10.0, "learning_rate": 0.3, "random_state": 0}

TestPrivateTangent = estimator_conformance(
    Case(lambda: PrivateTangentClassifier(**QUIET), excuses=TRAINED),
    Case(lambda: TAFTClassifier(epochs=8, learning_rate=0.3, milestones=(6,)), excuses=TRAINED),
)


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def blobs(n: int = 40):
    X, y = make_blobs(n, 4, centers=3, random_state=0)
    return torch.from_numpy(X / 5), y


def per_sample(lin, X, y) -> torch.Tensor:
    residual = 2 / 3 * (lin(X).detach() - nn.functional.one_hot(torch.from_numpy(y), 3))
    J = TangentFeatures(lin.base, params=list(lin.names)).matrix(X).to_dense().reshape(len(X), 3, -1)
    return torch.einsum("ncp,nc->np", J, residual)


def test_the_norms_are_those_of_the_gradients_of_single_samples():
    X, _ = blobs()
    lin = linearize(net())
    residual = torch.randn(40, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    J = TangentFeatures(lin.base).matrix(X).to_dense().reshape(40, 3, -1)
    expected = torch.einsum("ncp,nc->np", J, residual).norm(dim=1)
    torch.testing.assert_close(gradient_norms(gradients_along(lin), X, residual), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("bound", [0.05, 1.0, math.inf])
def test_the_clipped_gradient_is_the_sum_of_clipped_gradients(bound):
    X, y = blobs()
    lin = linearize(net())
    g = per_sample(lin, X, y)
    clipped = g * (bound / g.norm(dim=1, keepdim=True)).clamp(max=1)
    assert float(clipped.norm(dim=1).max()) <= bound * (1 + 1e-12)
    found = torch.cat(
        [t.reshape(-1) for t in clipped_gradient(lin, gradients_along(lin), X, torch.from_numpy(y), 1.0, bound)]
    )
    torch.testing.assert_close(found, clipped.sum(0), rtol=1e-9, atol=1e-10)


def test_clipping_leaves_short_and_zero_gradients():
    torch.testing.assert_close(clipping(torch.tensor([0.0, 0.5, 4.0]), 1.0), torch.tensor([1.0, 1.0, 0.25]))


def test_without_clipping_and_noise_it_is_plain_gradient_descent():
    X, y = blobs()
    options = {"noise_multiplier": 0.0, "max_grad_norm": math.inf, "learning_rate": 0.05, "steps": 7, "random_state": 0}
    model = PrivateTangentClassifier(net(), weight_decay=0.01, **options).fit(X, y)
    assert model.epsilon_ == math.inf
    lin = PrivateTangentClassifier(net(), **{**options, "steps": 1}).fit(X, y).linearized_
    with torch.no_grad():
        for t in lin.parameters():
            t.zero_()
    for _ in range(7):
        loss = rescaled_square_loss(lin(X), torch.from_numpy(y), 1.0)
        loss = loss + 0.01 * sum(t.square().sum() for t in lin.parameters())
        for t, g in zip(lin.parameters(), torch.autograd.grad(loss, list(lin.parameters())), strict=True):
            t.data -= 0.05 * g
    assert (model.tangent_ - lin.vector()).norm() < 1e-10 * lin.vector().norm()


def test_the_answer_is_the_mean_over_the_last_steps():
    X, y = blobs()
    options = {"noise_multiplier": 0.5, "learning_rate": 0.1, "random_state": 0}
    one, two, both = (
        PrivateTangentClassifier(net(), steps=steps, averaged=averaged, **options).fit(X, y).tangent_
        for steps, averaged in ((4, 1), (5, 1), (5, 2))
    )
    assert (both - (one + two) / 2).norm() < 1e-12


def test_the_noise_has_its_standard_deviation():
    X, y = blobs()
    options = {"max_grad_norm": 0.3, "learning_rate": 1.0, "steps": 1}
    still = PrivateTangentClassifier(net(), noise_multiplier=0.0, random_state=0, **options).fit(X, y).tangent_.flat()
    draws = []
    for seed in range(8):
        model = PrivateTangentClassifier(net(), noise_multiplier=2.0, random_state=seed, **options).fit(X, y)
        if seed == 0:
            draws.append(model.tangent_.flat() - still)  # the same head
        else:
            head = PrivateTangentClassifier(net(), noise_multiplier=0.0, random_state=seed, **options).fit(X, y)
            draws.append(model.tangent_.flat() - head.tangent_.flat())
    noise = torch.stack(draws)
    expected = (2.0 * 0.3 / 40) ** 2
    z = (noise.square().mean() - expected) / (expected * math.sqrt(2 / noise.numel()))
    assert abs(float(z)) < 4
    assert abs(float(noise.mean() / math.sqrt(expected / noise.numel()))) < 4


def test_noise_is_fresh_unless_a_number_fixes_it():
    X, y = blobs()
    fits = [PrivateTangentClassifier(net(), noise_multiplier=1.0, steps=2).fit(X, y).tangent_.flat() for _ in range(2)]
    assert not torch.allclose(*fits)


def test_private_shards_share_their_base_point_and_not_their_noise():
    X, y = blobs()
    X, y = torch.cat([X, X]), np.concatenate([y, y])
    estimator = PrivateTangentClassifier(net(), noise_multiplier=1.0, steps=1)
    model = ShardedTangentClassifier(estimator)
    for half in (slice(0, 40), slice(40, 80)):  # the same samples: the noise alone can differ
        model.partial_fit(X[half], y[half], classes=range(3))
    one, two = model.composition_.components.values()
    apart = (one - two).flat()
    expected = 2 * (0.1 / 40) ** 2
    assert apart.numel() > 60
    assert 0.2 < float(apart.square().mean()) / expected < 3  # of a χ² that wide: less than one in 10¹⁰


def test_fresh_coins_fall_with_their_probability():
    counts = torch.tensor([len(_Draws(None).coins(1000, 0.2)) for _ in range(50)], dtype=torch.float64)
    assert abs(float(counts.sum()) - 10_000) < 5 * math.sqrt(50_000 * 0.2 * 0.8)
    assert len(counts.unique()) > 1


def test_projection_keeps_the_direction_in_its_ball():
    X, y = blobs()
    model = PrivateTangentClassifier(net(), noise_multiplier=1.0, radius=0.2, steps=5, learning_rate=5.0).fit(X, y)
    assert model.tangent_.norm() <= 0.2 * (1 + 1e-9)


def test_full_batch_accounting_is_the_divergence_of_two_gaussians():
    accountant = FullBatchAccountant()
    sigma, steps, epsilon = 4.0, 9, 0.8
    m = math.sqrt(steps) / sigma

    def density(x: float) -> float:  # (N(m, 1) − e^ε N(0, 1))₊
        return max(norm.pdf(x, m) - math.exp(epsilon) * norm.pdf(x), 0.0)

    delta = quad(density, -10, 12, limit=400, points=[epsilon / m + m / 2])[0]
    assert accountant.epsilon(sigma, steps, delta) == pytest.approx(epsilon, rel=1e-6)
    assert accountant.noise_multiplier(epsilon, steps, delta) == pytest.approx(sigma, rel=1e-6)
    assert accountant.epsilon(0.0, 1, 1e-5) == math.inf
    assert accountant.epsilon(1e9, 1, 1e-5) == 0.0


@pytest.mark.parametrize(
    ("epsilon", "steps", "delta"), [(0.0, 1, 1e-5), (1.0, 1, 0.0), (1.0, 0, 1e-5), (1e-9, 10**6, 1e-12)]
)
def test_a_budget_out_of_reach_is_refused(epsilon, steps, delta):
    with pytest.raises(PrivacyBudgetError):
        FullBatchAccountant().noise_multiplier(epsilon, steps, delta)


def test_a_budget_that_next_to_no_noise_keeps_is_kept():
    sigma = FullBatchAccountant().noise_multiplier(1e7, 1, 1e-5)
    assert 0 < sigma <= 1e-3
    assert FullBatchAccountant().epsilon(sigma, 1, 1e-5) <= 1e7


def test_a_budget_is_kept_and_smaller_budgets_are_noisier():
    X, y = blobs()
    models = [PrivateTangentClassifier(net(), epsilon=e, steps=10).fit(X, y) for e in (0.5, 4.0)]
    assert [m.epsilon_ for m in models] == pytest.approx([0.5, 4.0], rel=1e-6)
    assert models[0].noise_multiplier_ > models[1].noise_multiplier_


def test_without_opacus_batches_say_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    X, y = blobs()
    with pytest.raises(ImportError, match=r"tangrams\[privacy\]"):
        PrivateTangentClassifier(net(), noise_multiplier=1.0, batch_size=5).fit(X, y)


@pytest.mark.parametrize(
    ("sigma", "rate", "steps", "delta", "expected"),
    [(1.0, 0.01, 1000, 1e-5, 2.101366525), (2.0, 0.1, 200, 1e-6, 4.117567643), (0.8, 0.05, 100, 1e-5, 6.658257172)],
)
@pytest.mark.skipif(importlib.util.find_spec("opacus") is None, reason="needs opacus")
def test_accounting_of_batches_is_that_of_dp_accounting(sigma, rate, steps, delta, expected):
    found = SubsampledAccountant(rate).epsilon(sigma, steps, delta)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "either epsilon or noise_multiplier"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "either epsilon or noise_multiplier"),
        ({"noise_multiplier": -1.0}, "noise_multiplier"),
        ({"noise_multiplier": 1.0, "steps": 0}, "steps"),
        ({"noise_multiplier": 1.0, "max_grad_norm": 0.0}, "max_grad_norm"),
        ({"noise_multiplier": 1.0, "delta": 1.5}, "delta"),
        ({"noise_multiplier": 1.0, "delta": 0.0}, "delta"),
        ({"epsilon": -1.0}, "ε > 0"),
    ],
)
def test_impossible_settings_are_refused(options, says):
    X, y = blobs()
    with pytest.raises(ValueError, match=says):
        PrivateTangentClassifier(net(), **options).fit(X, y)


def vit(**options) -> VisionTransformer:
    return VisionTransformer(6, 3, 1, 8, 3, 2, generator=torch.Generator().manual_seed(0), **options)


def pictures(n: int = 24):
    X = torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    y = np.arange(n) % 2
    X[:, 0, :3] += 2 * torch.from_numpy(y).float()[:, None, None]
    return X, y


@pytest.mark.parametrize("first", [-1, 1, 0])
def test_taft_trains_from_a_block_on_and_nothing_below(first):
    X, y = pictures()
    model = TAFTClassifier(vit(), unfreeze_from=first, epochs=1).fit(X, y)
    kept = {"0.token", "0.places", "0.patches.weight", "0.patches.bias"}
    blocks = {f"0.blocks.{i}." for i in range(3)[first:]}
    for name in model.tangent_:
        assert name not in kept
        assert name.startswith(("0.norm", "2.")) or any(name.startswith(b) for b in blocks)
    assert {name[: len("0.blocks.0.")] for name in model.tangent_ if name.startswith("0.blocks")} == blocks


def test_taft_learns_and_its_shards_are_forgotten():
    X, y = pictures(48)
    estimator = TAFTClassifier(vit(attention=CosineAttention), unfreeze_from=0, epochs=12, learning_rate=0.05)
    assert estimator.fit(X, y).score(X, y) > 0.9
    model = ShardedTangentClassifier(estimator, n_shards=3).fit(X, y)
    two = model.composition_.components
    model.forget_shard(1)
    assert model.composition_.vector() == two["0"] * 0.5 + two["2"] * 0.5


@pytest.mark.parametrize("options", [{"blocks": "layers"}, {"unfreeze_from": 7}])
def test_taft_says_where_there_are_no_such_blocks(options):
    X, y = pictures()
    with pytest.raises(ValueError, match="no such block in VisionTransformer"):
        TAFTClassifier(vit(), **options).fit(X, y)
