"""Features of attention with random query–key products."""

import math

import pytest
import torch
from sklearn.linear_model import Ridge

from tangrams.data import key_power, spherical_sequences
from tangrams.features import BiasedRandomAttentionFeatures, RandomAttentionFeatures, RandomSequenceFeatures
from tangrams.features.random import attention
from tangrams.learners import KernelRidge
from tangrams.operators import GramSpectrum
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.feature_map import FeatureMapSuite

D, N = 3, 6
MAPS = [RandomAttentionFeatures, BiasedRandomAttentionFeatures]


def sequences(n, generator):
    draw = lambda *shape: torch.randn(*shape, D, generator=generator, dtype=torch.float64)  # noqa: E731
    return draw(n), draw(n, N)


def masked(n, generator):
    mask = torch.rand(n, N, generator=generator) < 0.5
    mask[:, 1] = True
    return *sequences(n, generator), mask


def packed(n, generator):
    query, keys = sequences(n, generator)
    return torch.cat([query[:, None], keys], 1)


def sample(n=5, seed=0, make=sequences):
    return make(n, torch.Generator().manual_seed(seed))


def by_hand(phi, x):
    """One sample, head and key at a time."""
    query, keys = (x[:, 0], x[:, 1:]) if isinstance(x, torch.Tensor) else x[:2]
    mask = x[2] if isinstance(x, tuple) and len(x) == 3 else torch.ones(keys.shape[:2], dtype=torch.bool)
    W = phi.weights(0, phi.num_heads, query)
    one = torch.ones(1, dtype=query.dtype)
    rows = []
    for q, ks, kept in zip(query, keys, mask, strict=True):
        q, ks = torch.cat([q, one]), [torch.cat([k, one]) for k in ks[kept]]
        heads = [sum(phi.activation(q @ w @ k) * k for k in ks) / len(ks) for w in W]
        rows.append(torch.cat(heads) / math.sqrt(phi.num_heads))
    return torch.stack(rows) if rows else query.new_empty(0, phi.num_features)


def mlp_by_hand(phi, x):
    flat = torch.cat([x[0], x[1].flatten(1)], 1)
    W, b = phi.weights(0, phi.num_features, flat)
    return torch.relu(flat @ W.mT + b) / math.sqrt(phi.num_features)


TestRandomAttention = conformance(
    FeatureMapSuite,
    Case(lambda: RandomAttentionFeatures(D, 5, seed=1), sequences, by_hand),
    Case(lambda: RandomAttentionFeatures(D, 4, activation=torch.tanh), masked, by_hand, name="masked"),
    Case(lambda: BiasedRandomAttentionFeatures(D, 5, 2.0, weight_std=1.5), sequences, by_hand),
    Case(lambda: BiasedRandomAttentionFeatures(D, 300), packed, by_hand, name="packed"),
    Case(lambda: RandomSequenceFeatures(D, N, 40), sequences, mlp_by_hand),
)


@pytest.mark.parametrize("member", MAPS)
def test_keys_may_be_permuted_and_doubled(member):
    phi, (query, keys) = member(D, 20), sample()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(phi((query, keys[:, order])), phi((query, keys)), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(phi((query, torch.cat([keys, keys], 1))), phi((query, keys)), rtol=1e-12, atol=1e-14)


def test_the_order_matters_to_features_of_the_whole_sequence():
    phi, (query, keys) = RandomSequenceFeatures(D, N, 20), sample()
    assert float((phi((query, keys.flip(1))) - phi((query, keys))).abs().max()) > 1e-3


@pytest.mark.parametrize("member", MAPS)
def test_heads_are_added_one_after_another(member):
    x = sample()
    few, many = member(D, 7, seed=2), member(D, 19, seed=2)
    torch.testing.assert_close(few(x) * math.sqrt(7), many(x)[:, : few.num_features] * math.sqrt(19))


def test_without_a_mean_the_biased_features_are_the_plain_ones():
    x = sample()
    assert torch.equal(BiasedRandomAttentionFeatures(D, 8, 0.0, seed=3)(x), RandomAttentionFeatures(D, 8, seed=3)(x))


@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_relu_features_scale_with_the_weights(scale):
    x = sample()
    scaled = RandomAttentionFeatures(D, 8, weight_std=0.5 * scale)(x)
    torch.testing.assert_close(scaled, scale * RandomAttentionFeatures(D, 8)(x), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("member", MAPS)
def test_masked_keys_have_no_effect(member):
    phi, (query, keys) = member(D, 9), sample()
    mask = torch.zeros(5, N, dtype=torch.bool)
    mask[:, :4] = True
    other = keys.clone()
    other[:, 4:] = 99.0
    torch.testing.assert_close(phi((query, other, mask)), phi((query, keys[:, :4])), rtol=1e-12, atol=1e-14)


def test_the_layer_is_linear_in_its_values_with_the_features_as_jacobian():
    phi, x = RandomAttentionFeatures(D, 4), sample()
    query, keys = (torch.cat([part, part.new_ones(*part.shape[:-1], 1)], -1) for part in x)
    W = phi.weights(0, 4, query)

    def layer(values):
        scores = torch.einsum("na,mab,nib->nmi", query, W, keys).relu()
        return (scores * torch.einsum("md,nid->nmi", values, keys)).mean(2).sum(1)

    J = torch.autograd.functional.jacobian(layer, torch.randn(4, D + 1, dtype=torch.float64)).flatten(1)
    torch.testing.assert_close(J, phi(x) * math.sqrt(4), rtol=1e-10, atol=1e-12)


def test_heads_in_pieces_are_the_heads_at_once(monkeypatch):
    phi, x = BiasedRandomAttentionFeatures(D, 30), sample()
    whole = phi(x)
    monkeypatch.setattr(attention, "_SCORES", 1)
    torch.testing.assert_close(phi(x), whole, rtol=1e-12, atol=1e-14)


def test_the_mean_is_on_the_diagonal_of_the_entries_proper():
    biased, plain = BiasedRandomAttentionFeatures(D, 6, 3.0), RandomAttentionFeatures(D, 6)
    like = torch.empty(0, dtype=torch.float64)
    difference = biased.weights(0, 6, like) - plain.weights(0, 6, like)
    expected = torch.diag(torch.tensor([3.0] * D + [0.0], dtype=torch.float64))
    torch.testing.assert_close(difference, expected.expand(6, -1, -1))


def test_ridge_on_the_map_is_scikit_learns_on_its_features():
    split = spherical_sequences(key_power, 60, 20, dim=D, num_keys=4, noise=0.1)
    phi = RandomAttentionFeatures(D, 40)
    model = KernelRidge(phi, criterion=GramSpectrum.gcv_error).fit(*split.train)
    F, G = phi(split.train.inputs).numpy(), phi(split.test.inputs).numpy()
    alpha = model.delta_ * float((F**2).sum(1).mean())
    # KernelRidge takes the mean off the targets alone.
    mean = split.train.targets.numpy().mean()
    expected = mean + Ridge(alpha, fit_intercept=False).fit(F, split.train.targets.numpy() - mean).predict(G)
    torch.testing.assert_close(torch.from_numpy(model.predict(split.test.inputs)), torch.from_numpy(expected))


def test_features_are_differentiable_in_query_and_keys():
    query, keys = sample(2)
    phi = RandomAttentionFeatures(D, 3, activation=torch.tanh)
    leaves = query.requires_grad_(), keys.requires_grad_()
    assert torch.autograd.gradcheck(lambda q, k: phi((q, k)), leaves)


BAD = {
    "tensor": (torch.zeros(4, D), TypeError, "expects .query, keys."),
    "flat keys": ((torch.zeros(4, D), torch.zeros(4, D)), ValueError, "keys .n, N, d."),
    "dimension": ((torch.zeros(4, D), torch.zeros(4, 2, D + 1)), ValueError, "keys .n, N, d."),
    "other dimension": ((torch.zeros(4, 2), torch.zeros(4, 5, 2)), ValueError, "3 entries"),
    "mask": ((torch.zeros(4, D), torch.zeros(4, 2, D), torch.ones(4, 2)), ValueError, "boolean mask"),
    "no key": (
        (torch.zeros(2, D), torch.zeros(2, 2, D), torch.tensor([[True, True], [False, False]])),
        ValueError,
        "no key in sample 1",
    ),
    "nan": ((torch.zeros(2, D), torch.full((2, 2, D), math.nan)), ValueError, "NaN or infinity in the keys"),
}


@pytest.mark.parametrize("kind", sorted(BAD))
def test_bad_sequences_are_refused_by_name(kind):
    x, error, message = BAD[kind]
    with pytest.raises(error, match=f"RandomAttentionFeatures.*{message}"):
        RandomAttentionFeatures(D, 2)(x)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="sizes ≥ 1"):
        RandomAttentionFeatures(D, 0)
    with pytest.raises(ValueError, match="weight_std > 0"):
        RandomAttentionFeatures(D, 2, weight_std=0.0)
    with pytest.raises(ValueError, match="finite bias_scale"):
        BiasedRandomAttentionFeatures(D, 2, math.inf)
    with pytest.raises(ValueError, match="num_keys ≥ 1"):
        RandomSequenceFeatures(D, 0, 2)
    with pytest.raises(TypeError, match="takes no mask"):
        RandomSequenceFeatures(D, N, 2)(sample(make=masked))
