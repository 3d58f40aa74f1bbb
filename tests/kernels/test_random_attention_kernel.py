"""The kernel of attention with infinitely many random heads."""

import math

import pytest
import torch

from tangrams.features import RandomAttentionFeatures
from tangrams.kernels import RandomAttentionKernel, random_attention
from tangrams.kernels.ntk import Erf
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.kernel import KernelSuite

D, N = 3, 4


def by_loops(x, y):
    """From the definition, with acos."""
    s = 0.7
    out = torch.zeros(len(x), len(y), dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    for n, a in enumerate(x):
        for m, b in enumerate(y):
            a0, b0 = torch.cat([a[0], one]), torch.cat([b[0], one])
            for u in a[1:]:
                for v in b[1:]:
                    ai, bj = torch.cat([u, one]), torch.cat([v, one])
                    norms = a0.norm() * b0.norm() * ai.norm() * bj.norm()
                    theta = ((a0 @ b0) * (ai @ bj) / norms).clamp(-1, 1).acos()
                    arc = s**2 * norms * (theta.sin() + (math.pi - theta) * theta.cos()) / (2 * math.pi)
                    out[n, m] += arc * (ai @ bj) / ((len(a) - 1) * (len(b) - 1))
    return out


TestRandomAttentionKernel = conformance(
    KernelSuite,
    Case(
        lambda: RandomAttentionKernel(D, weight_std=0.7, event_shape=(1 + N, D)),
        inputs=normal(1 + N, D),
        reference=by_loops,
    ),
)


def sample(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, keys = (torch.randn(n, *shape, D, generator=generator, dtype=torch.float64) for shape in ((), (N,)))
    mask = torch.rand(n, N, generator=generator) < 0.6
    mask[:, 0] = True
    return query, keys, mask


@pytest.mark.parametrize("dual", [None, Erf()], ids=["relu", "erf"])
def test_grams_of_many_heads_have_it_as_their_mean(dual):
    x = sample(4)
    activation = torch.relu if dual is None else dual.function
    exact = RandomAttentionKernel(D, dual).gram(x)
    grams = torch.stack([RandomAttentionFeatures(D, 100, activation=activation, seed=s).gram(x) for s in range(200)])
    z = (grams.mean(0) - exact) / (grams.std(0) / math.sqrt(200))
    assert float(z.abs().max()) < 4.5
    assert float(z.square().mean()) < 2.5


def test_blocks_of_samples_are_the_whole(monkeypatch):
    x, y = sample(5), sample(3, 1)
    kernel = RandomAttentionKernel(D)
    whole = kernel.gram(x, y)
    monkeypatch.setattr(random_attention, "_ELEMENTS", 1)
    torch.testing.assert_close(kernel.gram(x, y), whole, rtol=1e-12, atol=1e-14)


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="RandomAttentionKernel needs"):
        RandomAttentionKernel(0)
    with pytest.raises(ValueError, match="RandomAttentionKernel needs"):
        RandomAttentionKernel(2, weight_std=0.0)
