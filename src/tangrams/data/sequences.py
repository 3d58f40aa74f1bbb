"""Functions of a query and a set of keys: what random-feature attention can learn and how well [039]."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.labelled import Labelled
from tangrams.data.split import Split

SequenceFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Values ``(n,)`` of queries ``(n, d)``, keys ``(n, N, d)`` and a direction ``(d,)``."""


def key_power(
    query: Float[Tensor, "n d"], keys: Float[Tensor, "n N d"], beta: Float[Tensor, "d"], *, power: int = 2
) -> Float[Tensor, "n"]:
    """Mean over keys of ⟨β, x_i⟩^p: the query does not matter [039].

    Args:
        query: not read.
        keys: x_i.
        beta: β.
        power: p.
    """
    return (keys @ beta).pow(power).mean(1)


def correlation_power(
    query: Float[Tensor, "n d"], keys: Float[Tensor, "n N d"], beta: Float[Tensor, "d"], *, power: int = 3
) -> Float[Tensor, "n"]:
    """Mean over keys of ⟨x₀, x_i⟩^p ⟨β, x_i⟩ [039].

    Args:
        query: x₀.
        keys: x_i.
        beta: β.
        power: p.
    """
    return ((keys @ query[:, :, None])[:, :, 0].pow(power) * (keys @ beta)).mean(1)


def correlation_cosine(
    query: Float[Tensor, "n d"], keys: Float[Tensor, "n N d"], beta: Float[Tensor, "d"], *, frequency: float = 4.0
) -> Float[Tensor, "n"]:
    """Mean over keys of cos(k ⟨x₀, x_i⟩) [039].

    Args:
        query: x₀.
        keys: x_i.
        beta: not read.
        frequency: k.
    """
    return torch.cos(frequency * (keys @ query[:, :, None])[:, :, 0]).mean(1)


def spherical_sequences(
    function: SequenceFunction,
    num_train: int,
    num_test: int,
    *,
    dim: int = 16,
    num_keys: int = 16,
    noise: float = 0.0,
    seed: int = 0,
) -> Split:
    """A function of queries and keys that are uniform on the unit sphere [039].

    Args:
        function: such as :func:`key_power`, its parameters set by ``functools.partial``; β is a random direction.
        num_train: training samples.
        num_test: test samples.
        dim: d.
        num_keys: N.
        noise: standard deviation of the noise on training targets.
        seed: fixes samples, direction and noise.

    Shape:
        inputs ``((n, d), (n, N, d))``, targets ``(n,)``, float64.

    Raises:
        ValueError: if a size is below one, or the noise negative.
    """
    if min(num_train, num_test, dim, num_keys) < 1 or not noise >= 0:
        raise ValueError(
            f"spherical_sequences needs sizes ≥ 1 and noise ≥ 0, got num_train={num_train}, num_test={num_test}, "
            f"dim={dim}, num_keys={num_keys}, noise={noise}"
        )
    generator = torch.Generator().manual_seed(seed)

    def sphere(*shape: int) -> Tensor:
        points = torch.randn(*shape, dim, generator=generator, dtype=torch.float64)
        return points / points.norm(dim=-1, keepdim=True)

    beta = sphere(1)[0]
    parts = []
    for n in (num_train, num_test):
        query, keys = sphere(n), sphere(n, num_keys)
        parts.append(Labelled((query, keys), function(query, keys, beta)))
    train, test = parts
    if noise > 0:
        drawn = torch.randn(num_train, generator=generator, dtype=torch.float64)
        train = Labelled(train.inputs, train.targets + noise * drawn)
    return Split(train, test)
