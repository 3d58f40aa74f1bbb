"""Attention in linear time by random features."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tangrams.features.random import HadamardRotation, IIDCoupling, OrthogonalCoupling, SimplexCoupling
from tangrams.features.random.stream import WeightStream
from tangrams.nn import RandomFeatureAttention, linear_attention
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def seeded(*args, **options):
    return RandomFeatureAttention(*args, generator=torch.Generator().manual_seed(0), **options)


def by_hand(module, x, mask=None):
    """One pair of positions, one head and one sample at a time."""
    out = torch.empty_like(x)
    h, d = module.num_heads, module.head_dim
    for i, sample in enumerate(x):
        q, k, v = (part.reshape(len(sample), h, d) for part in module.in_proj(sample).chunk(3, 1))
        q, k = q / d**0.25, k / d**0.25
        heads = []
        for head in range(h):
            logs = [a[:, head] @ module.directions.mT - a[:, head].square().sum(1, keepdim=True) / 2 for a in (q, k)]
            kept = torch.ones(len(sample), dtype=torch.bool) if mask is None else mask[i]
            query = torch.exp(logs[0] - logs[0].amax(1, keepdim=True)) + module.eps
            key = torch.exp(logs[1] - logs[1][kept].amax()) + module.eps
            weights = (query @ key.mT) * kept
            heads.append(weights @ v[:, head] / weights.sum(1, keepdim=True))
        out[i] = module.out_proj(torch.cat(heads, 1))
    return out


def masked(n, generator):
    mask = torch.rand(n, 6, generator=generator) < 0.6
    mask[:, 0] = True
    return torch.randn(n, 6, 8, generator=generator, dtype=torch.float64), mask


TestRandomFeatureAttention = conformance(
    ModuleSuite,
    Case(lambda: seeded(8, 2), normal(5, 8), by_hand),
    Case(lambda: seeded(8, 1, 20, bias=False, eps=0.0, coupling=OrthogonalCoupling()), masked, by_hand, name="masked"),
)


def test_with_many_features_it_is_softmax_attention():
    module = seeded(8, 2, 20_000, eps=0.0, coupling=IIDCoupling()).double()
    x = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64) / 2
    q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in module.in_proj(x).chunk(3, 2))
    exact = module.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    difference = ((module(x) - exact).norm() / exact.norm()).detach()
    few = seeded(8, 2, 200, eps=0.0, coupling=IIDCoupling()).double()
    assert float(difference) < 0.02
    assert float((few(x) - exact).norm() / exact.norm()) > 2 * float(difference)


def test_a_lone_key_is_copied_whatever_the_features():
    module = seeded(8, 2).double()
    x = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.tensor([[False, True, False, False]])
    expected = module.out_proj(module.in_proj(x)[:, 1:2, 16:]).expand(1, 4, 8)
    torch.testing.assert_close(module(x, mask), expected, rtol=1e-10, atol=1e-12)


def test_masked_positions_do_not_matter_and_no_key_gives_zeros():
    module = seeded(8, 2).double()
    x = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False, False], [False] * 5])
    other = x.clone()
    other[0, 3:] *= -30
    torch.testing.assert_close(module(other, mask)[0, :3], module(x, mask)[0, :3], rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(module(x, mask)[1], module.out_proj.bias.expand(5, 8))


def test_positions_may_be_permuted():
    module, order = seeded(8, 2).double(), torch.tensor([3, 0, 2, 1])
    x = torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order], rtol=1e-12, atol=1e-14)


def test_long_queries_and_keys_do_not_overflow():
    x = 30 * torch.randn(1, 6, 8, generator=torch.Generator().manual_seed(1))
    module = seeded(8, 2)
    out = module(x)
    out.sum().backward()
    assert bool(out.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in module.parameters())


def test_directions_are_drawn_anew_from_another_seed_and_travel_with_the_state():
    module = seeded(8, 2, seed=1)
    before = module.directions.clone()
    module.redraw(2)
    assert not torch.equal(before, module.directions)
    other = seeded(8, 2, seed=1)
    other.load_state_dict(module.state_dict())
    assert torch.equal(other.directions, module.directions)
    assert "directions" not in dict(module.named_parameters())


def test_simplex_features_estimate_attention_with_a_smaller_error_than_independent_ones():
    generator = torch.Generator().manual_seed(0)
    q, k = (0.6 * torch.randn(24, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    v = torch.randn(24, 3, generator=generator, dtype=torch.float64)
    exact = torch.softmax(q @ k.mT, 1) @ v
    errors = {}
    for coupling in (IIDCoupling(), SimplexCoupling()):
        W = WeightStream(8, 8 * 2048, coupling, 0).rows(0, 8 * 2048, q).W.unflatten(0, (-1, 8))
        logs = [a @ W.mT - a.square().sum(1, keepdim=True) / 2 for a in (q, k)]
        found = linear_attention(*logs, v.expand(len(W), -1, -1))
        errors[type(coupling)] = (found - exact).square().mean((1, 2))
    difference = errors[IIDCoupling] - errors[SimplexCoupling]
    assert float(difference.mean() / (difference.std() / math.sqrt(len(difference)))) > 4


def test_attention_is_that_of_performer_with_the_same_directions():
    with np.load(Path(__file__).with_name("performer_attention.npz")) as arrays:
        frozen = {name: torch.from_numpy(array) for name, array in arrays.items()}
    scaled = [frozen[name] * 8**-0.25 for name in ("query", "key")]
    logs = [x @ frozen["directions"].mT - x.square().sum(1, keepdim=True) / 2 for x in scaled]
    found = linear_attention(*logs, frozen["value"])
    torch.testing.assert_close(found, frozen["attention"], rtol=1e-10, atol=1e-12)


def test_many_dimensions_take_fast_rotations():
    module = seeded(64, 1, 100, coupling=SimplexCoupling(HadamardRotation()))
    assert module.directions.shape == (100, 64)


@pytest.mark.parametrize(
    "options", [{"embed_dim": 0}, {"num_heads": 3}, {"num_features": -1}, {"eps": -1.0}], ids=lambda o: next(iter(o))
)
def test_impossible_arguments_are_refused(options):
    with pytest.raises(ValueError, match="RandomFeatureAttention needs"):
        RandomFeatureAttention(**{"embed_dim": 8, "num_heads": 2, **options})
