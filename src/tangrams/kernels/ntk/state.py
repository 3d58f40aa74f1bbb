"""What flows through the algebra: the covariances of one layer's units, over samples and over positions."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KernelState:
    """The kernels of a layer of infinitely many units (channels), between two sets of samples.

    Position axes S (height and width of an image) follow the sample axes. Where a later pooling needs them, all pairs
    of positions are kept; otherwise the covariance at equal positions alone. The covariances of each set with itself,
    sample by sample, ride along: activations need the variances. All tensors are float64.

    Attributes:
        nngp: E[h(x) h(x′)], ``(n, m, *S)``, or ``(n, m, *S, *S)`` with ``pairs``.
        ntk: ⟨∂h(x), ∂h(x′)⟩, same shape; ``None`` where only the NNGP is wanted.
        self1: E[h(x) h(x)] of the first set: ``(n, 1, …)``.
        self2: of the second set: ``(1, m, …)``.
        spatial: S.
        pairs: whether all pairs of positions are kept.
        gaussian: whether the units are Gaussian (they come out of a weight layer).
        centred: whether the units have mean zero over the weights.
        weighted: whether weights of its own lie between the last split and here (branches must not share units).
    """

    nngp: Tensor
    ntk: Tensor | None
    self1: Tensor
    self2: Tensor
    spatial: tuple[int, ...] = ()
    pairs: bool = False
    gaussian: bool = False
    centred: bool = False
    weighted: bool = False

    def covariances(self, transform: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """``transform`` of the three covariances, once each where they are one tensor."""
        done: dict[int, Tensor] = {}
        for cov in (self.nngp, self.self1, self.self2):
            if id(cov) not in done:
                done[id(cov)] = transform(cov)
        return {
            "nngp": done[id(self.nngp)],
            "self1": done[id(self.self1)],
            "self2": done[id(self.self2)],
        }

    def at_equal_positions(self, cov: Tensor) -> Tensor:
        """The covariance at p = p′: ``(n, m, *S, *S)`` → ``(n, m, *S)``."""
        return positions_diagonal(cov, len(self.spatial)) if self.pairs else cov

    def left(self, variance: Tensor) -> Tensor:
        """A variance ``(…, *S)`` as that of the first of two positions."""
        return variance.reshape(*variance.shape, *[1] * len(self.spatial)) if self.pairs else variance

    def right(self, variance: Tensor) -> Tensor:
        """A variance ``(…, *S)`` as that of the second of two positions."""
        if not self.pairs:
            return variance
        lead = variance.shape[: variance.ndim - len(self.spatial)]
        return variance.reshape(*lead, *[1] * len(self.spatial), *self.spatial)


def positions_diagonal(cov: Tensor, axes: int) -> Tensor:
    """``(…, *S, *S)`` → ``(…, *S)``: both positions equal."""
    lead = cov.ndim - 2 * axes
    for remaining in range(axes, 0, -1):  # torch.diagonal moves the joint axis to the end
        cov = cov.diagonal(dim1=lead, dim2=lead + remaining)
    return cov


def initial_state(x: Tensor, y: Tensor, *, pairs: bool, tangent: bool) -> KernelState:
    """The state of two sets of inputs: inner products over channels, divided by their number.

    Args:
        x: ``(n, C, *S)`` float64; axis 1 holds the channels (the features, where there are no positions).
        y: ``(m, C, *S)``.
        pairs: keep all pairs of positions.
        tangent: carry the NTK.
    """
    spatial = tuple(x.shape[2:])
    pairs = pairs and bool(spatial)
    equation = "icp,jcq->ijpq" if pairs else "icp,jcp->ijp"
    flat = torch.einsum(equation, _flat(x), _flat(y)) / x.shape[1]
    nngp = flat.reshape(len(x), len(y), *spatial, *(spatial if pairs else ()))
    ntk = torch.zeros_like(nngp) if tangent else None
    return KernelState(
        nngp, ntk, _own(x, pairs).unsqueeze(1), _own(y, pairs).unsqueeze(0), spatial=spatial, pairs=pairs
    )


def diagonal_state(x: Tensor, *, pairs: bool, tangent: bool) -> KernelState:
    """The state of each input with itself: n samples, and a second sample axis of one."""
    spatial = tuple(x.shape[2:])
    pairs = pairs and bool(spatial)
    own = _own(x, pairs).unsqueeze(1)
    return KernelState(own, torch.zeros_like(own) if tangent else None, own, own, spatial=spatial, pairs=pairs)


def _flat(x: Tensor) -> Tensor:
    """``(n, C, *S)`` → ``(n, C, P)``; without positions P is one."""
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def _own(x: Tensor, pairs: bool) -> Tensor:
    """Each sample's covariance with itself: ``(n, *S[, *S])``."""
    flat = _flat(x)
    own = flat.mT @ flat if pairs else flat.square().sum(1)
    return (own / x.shape[1]).reshape(len(x), *x.shape[2:], *(x.shape[2:] if pairs else ()))
