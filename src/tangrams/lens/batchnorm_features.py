"""Which channels a network's BatchNorm layers have switched off [052]."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tangrams.features import ModelRef
from tangrams.nn import batchnorm_affine, batchnorm_layers


@dataclass(frozen=True)
class GammaStatistics:
    """The scales of one BatchNorm layer.

    Attributes:
        near_zero: the share of channels with ``|γ|`` below the threshold.
        counts: channels per bin of ``|γ|``.
        edges: the bins' edges.
    """

    near_zero: float
    counts: Int[Tensor, "bins"]
    edges: Float[Tensor, "bins_and_one"]


def gamma_statistics(model: nn.Module, threshold: float = 0.01, *, bins: int = 50) -> dict[str, GammaStatistics]:
    """How many scales of each BatchNorm layer are near zero, and how all are spread.

    The sign of a scale flips a feature and switches nothing off, so that ``|γ|`` is counted, in bins that are the same
    for all layers. A negative threshold and a network without such layers are a ``ValueError``.

    Args:
        model: the network.
        threshold: below it a channel counts as switched off.
        bins: of the histogram.

    Example:
        >>> norm = nn.BatchNorm1d(4)
        >>> norm.weight.data = torch.tensor([0.0, -0.005, 0.5, -1.0])
        >>> gamma_statistics(norm)[""].near_zero
        0.5

    [052] Training BatchNorm and Only BatchNorm.
    """
    _check_threshold("gamma_statistics", threshold)
    sizes = {name: affine.gamma.abs().double() for name, affine in batchnorm_affine(model).items()}
    largest = max(float(size.max()) for size in sizes.values() if len(size))
    edges = torch.linspace(0, largest or 1.0, bins + 1, dtype=torch.float64)
    return {
        name: GammaStatistics(
            float((size < threshold).double().mean()),
            torch.histc(size.cpu(), bins, 0, float(edges[-1])).long(),
            edges,
        )
        for name, size in sizes.items()
    }


def zero_fractions(model: nn.Module, batches: Iterable[Tensor]) -> dict[str, Float[Tensor, "channels"]]:
    """How often each channel behind each ``nn.ReLU`` is zero, over samples and positions, in eval mode.

    A module that is called several times in a forward pass has an entry for each call, ``"relu"``, ``"relu#2"``, ….
    Functional ReLUs are not seen.

    Args:
        model: the network; left as it was.
        batches: what it is called with.

    Raises:
        ValueError: if no ``nn.ReLU`` was called, or there are no samples.
    """
    zeros: dict[str, Tensor] = {}
    totals: dict[str, int] = {}
    calls: dict[str, int] = {}

    def count(name: str, module: nn.Module, inputs: Any, out: Tensor) -> None:
        calls[name] = calls.get(name, 0) + 1
        key = name if calls[name] == 1 else f"{name}#{calls[name]}"
        flat = out.detach().transpose(0, 1).flatten(1) if out.ndim > 1 else out.detach()[None]
        zeros[key] = zeros.get(key, 0) + (flat == 0).sum(1)
        totals[key] = totals.get(key, 0) + flat.shape[1]

    with ModelRef(model).session() as network, torch.no_grad():
        handles = [
            module.register_forward_hook(partial(count, name))
            for name, module in network.named_modules()
            if isinstance(module, nn.ReLU)
        ]
        try:
            for batch in batches:
                calls.clear()
                network(batch)
        finally:
            for handle in handles:
                handle.remove()
    if not any(totals.values()):
        raise ValueError(
            f"zero_fractions saw no output of an nn.ReLU in {type(model).__name__}: functional ReLUs cannot be seen, "
            "and there must be samples"
        )
    return {key: zeros[key].double() / totals[key] for key in zeros}


def dead_channels(
    model: nn.Module, batches: Iterable[Tensor], threshold: float = 0.99
) -> dict[str, Bool[Tensor, "channels"]]:
    """The channels behind each ``nn.ReLU`` that are zero in more than a share ``threshold`` of the cases.

    Counted by :func:`zero_fractions`, whose refusals hold here; a negative threshold is a ``ValueError``, too.

    Args:
        model: the network; left as it was.
        batches: what it is called with.
        threshold: the share.
    """
    _check_threshold("dead_channels", threshold)
    return {name: share > threshold for name, share in zero_fractions(model, batches).items()}


@contextmanager
def small_gammas_zeroed(model: nn.Module, threshold: float = 0.01) -> Iterator[int]:
    """Sets every BatchNorm scale with ``|γ| < threshold`` to zero, for as long as the block lasts.

    An accuracy that stays where it was shows that these channels said nothing; their shifts remain. Refuses what
    :func:`gamma_statistics` refuses.

    Args:
        model: the network.
        threshold: below it a scale is set to zero.

    Yields:
        How many were.
    """
    _check_threshold("small_gammas_zeroed", threshold)
    weights = [layer.weight for layer in batchnorm_layers(model).values()]
    before = [weight.detach().clone() for weight in weights]
    small = [old.abs() < threshold for old in before]
    with torch.no_grad():
        for weight, mask in zip(weights, small, strict=True):
            weight.masked_fill_(mask, 0)
    try:
        yield sum(int(mask.sum()) for mask in small)
    finally:
        with torch.no_grad():
            for weight, mask, old in zip(weights, small, before, strict=True):
                weight.copy_(torch.where(mask, old, weight))


def _check_threshold(who: str, threshold: float) -> None:
    if not threshold >= 0:
        raise ValueError(f"{who} expects a threshold ≥ 0, got {threshold}")
