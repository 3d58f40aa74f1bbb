r"""How a layer's inner products are computed: what is held per sample, and what it adds to a tile.

n samples, r functions, T positions, i inputs, o outputs. A group is a route for some parameters; its factors are what
one set of samples leaves behind.

=============  =======================================  ==========================  ===========
route          adds                                     multiply-adds               floats held
=============  =======================================  ==========================  ===========
structured     (A Aᵀ + 1) ⊙ G Gᵀ                        ½n²i + ½n²r²o               ni + nro
identity       δ_cd (A Aᵀ + 1)                          ½n²i                        ni
pairs          Σ_ts ⟨a_t, a_s⟩ ⟨g_t, g_s⟩               ½n²T²(i + r²o)              nT(i + ro)
materialised   J Jᵀ                                     nrTio + ½n²r²io             nrio
tokens         Σ_{t,s: same token} ⟨g_t, g_s⟩           ½n²r²Vd                     nT(1 + rd)
=============  =======================================  ==========================  ===========

Pairs and tokens, the routes over positions, are in :mod:`~tangrams.features.tangent.positions`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from tangrams.features.parameters import Block
from tangrams.features.tangent.consumers.base import Consumer
from tangrams.features.tangent.consumers.linear import Linear
from tangrams.features.tangent.tile import Tile, inner

Allocate = Callable[..., Tensor]
"""``(*shape) -> Tensor``, uninitialised, in the dtype that inner products are summed in."""


class Factors(ABC):
    """What some samples leave behind for one group of parameters."""

    @abstractmethod
    def fill(self, function: int, where: slice, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]) -> None:
        """Keep the batch of samples at ``where``: arranged gradients of function c by consumer."""

    @abstractmethod
    def add(self, other: Factors, rows: slice, columns: slice, tile: Tile) -> None:
        """Add the inner products of samples ``rows`` here with samples ``columns`` of ``other``."""

    @abstractmethod
    def norms(self, rows: slice) -> Tensor:
        """Squared norms of the samples ``rows``: ``(r, P)``."""

    def quadratic(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """``Σ w_ic w_jd ⟨J_ic, J_jd⟩`` over the first samples, contracted as for a tile, and its size ``(Σ |w| ‖J‖)²``.

        Args:
            weights: ``(r, k)``.
        """
        r, k = weights.shape
        out = weights.new_zeros(r * k, r * k)
        tile = Tile(out, r, False, False)
        self.add(self, slice(0, k), slice(0, k), tile)
        flat = weights.reshape(-1)
        norms = out.diagonal().clamp_min(0).sqrt()
        return torch.dot(flat, out.mv(flat)), torch.dot(flat.abs(), norms).square()


@dataclass(frozen=True)
class Group(ABC):
    """A route for some parameters.

    Attributes:
        blocks: the parameters.
        consumers: numbers of the graph nodes that it reads.
    """

    blocks: tuple[Block, ...]
    consumers: tuple[int, ...]
    route = ""

    @abstractmethod
    def floats(self, r: int) -> int:
        """Numbers held per sample."""

    @abstractmethod
    def factors(self, n: int, r: int, allocate: Allocate) -> Factors:
        """Room for n samples."""

    def pieces(self, count: int) -> Sequence[Group]:
        """The group cut into about ``count`` parts that can be computed one after another."""
        return (self,)


@dataclass(frozen=True)
class Structured(Group):
    """A linear layer at one position per sample, with or without its bias.

    Attributes:
        bias: whether the bias is in it.
        in_features: i.
        out_features: o.
    """

    bias: bool
    in_features: int
    out_features: int
    route = "structured"

    def floats(self, r: int) -> int:
        """``i + r o``."""
        return self.in_features + r * self.out_features

    def factors(self, n: int, r: int, allocate: Allocate) -> Factors:
        """A and G."""
        return _StructuredFactors(self, allocate(n, self.in_features), allocate(r, n, self.out_features))


class _StructuredFactors(Factors):
    def __init__(self, group: Structured, inputs: Tensor, gradients: Tensor) -> None:
        self.group, self.inputs, self.gradients = group, inputs, gradients

    def fill(self, function: int, where: slice, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]) -> None:
        (k,) = self.group.consumers
        if self.gradients.shape[:2] == (1, gradients[k].shape[0]):  # all there is: no copy
            self.inputs, self.gradients = as_linear(consumers[k]).inputs[:, 0], gradients[k].movedim(1, 0)
            return
        if function == 0:
            self.inputs[where] = as_linear(consumers[k]).inputs[:, 0]
        self.gradients[function, where] = gradients[k][:, 0]

    def add(self, other: Factors, rows: slice, columns: slice, tile: Tile) -> None:
        assert isinstance(other, _StructuredFactors)  # both sides come from one recipe
        gradients = self.gradients[:, rows], other.gradients[:, columns]
        tile.add_outer(self.inputs[rows], other.inputs[columns], self.group.bias, *gradients)

    def norms(self, rows: slice) -> Tensor:
        inputs, gradients = self.inputs[rows], self.gradients[:, rows]
        return (torch.linalg.vecdot(inputs, inputs) + float(self.group.bias)) * torch.linalg.vecdot(
            gradients, gradients
        )


@dataclass(frozen=True)
class Identity(Group):
    """The last linear layer when every output is a function: its output gradient is the identity.

    Attributes:
        bias: whether the bias is in it.
        in_features: i.
    """

    bias: bool
    in_features: int
    route = "identity"

    def floats(self, r: int) -> int:
        """``i``."""
        return self.in_features

    def factors(self, n: int, r: int, allocate: Allocate) -> Factors:
        """A."""
        return _IdentityFactors(self, allocate(n, self.in_features), r)


class _IdentityFactors(Factors):
    def __init__(self, group: Identity, inputs: Tensor, r: int) -> None:
        self.group, self.inputs, self.r = group, inputs, r

    def fill(self, function: int, where: slice, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]) -> None:
        if function == 0:
            self.inputs[where] = as_linear(consumers[self.group.consumers[0]]).inputs[:, 0]

    def add(self, other: Factors, rows: slice, columns: slice, tile: Tile) -> None:
        assert isinstance(other, _IdentityFactors)  # both sides come from one recipe
        tile.add_same_function(self.inputs[rows], other.inputs[columns], self.group.bias)

    def norms(self, rows: slice) -> Tensor:
        inputs = self.inputs[rows]
        return (torch.linalg.vecdot(inputs, inputs) + float(self.group.bias)).expand(self.r, -1)


@dataclass(frozen=True)
class Part:
    """One parameter of a materialised group.

    Attributes:
        start: its first column there.
        stop: one past its last.
        uses: (consumer, slot) pairs whose rows add up.
        channels: the output channels that are computed; None for all.
    """

    start: int
    stop: int
    uses: tuple[tuple[int, int], ...]
    channels: tuple[int, int] | None = None


@dataclass(frozen=True)
class Materialised(Group):
    """Per-sample gradients themselves, one function at a time straight into place.

    Attributes:
        parts: one per parameter.
        splits: output channels that the only part can be cut into; 0 if it cannot.
    """

    parts: tuple[Part, ...]
    splits: int = 0
    route = "materialised"

    @property
    def width(self) -> int:
        """Columns."""
        return self.parts[-1].stop

    def floats(self, r: int) -> int:
        """``r · width``."""
        return r * self.width

    def factors(self, n: int, r: int, allocate: Allocate) -> Factors:
        """J."""
        return _DenseFactors(self, allocate(r, n, self.width))

    def pieces(self, count: int) -> Sequence[Group]:
        """By output channels where the layer has them, by parameters otherwise."""
        if self.splits and count > 1:
            count = min(count, self.splits)
            (part,) = self.parts
            each = (part.stop - part.start) // self.splits
            edges = [self.splits * k // count for k in range(count + 1)]
            return [
                replace(self, parts=(replace(part, stop=(b - a) * each, channels=(a, b)),), splits=0)
                for a, b in pairwise(edges)
            ]
        if len(self.parts) > 1 and count > 1:
            return [
                replace(
                    self,
                    blocks=(block,),
                    parts=(replace(part, start=0, stop=part.stop - part.start),),
                    consumers=tuple(k for k, _ in part.uses),
                )
                for block, part in zip(self.blocks, self.parts, strict=True)
            ]
        return (self,)


class _DenseFactors(Factors):
    def __init__(self, group: Materialised | Generic, rows: Tensor) -> None:
        self.group, self.rows = group, rows

    def fill(self, function: int, where: slice, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]) -> None:
        assert isinstance(self.group, Materialised)  # the generic route fills all functions at once
        target = self.rows[function, where]
        if len(self.group.parts) == 1:
            (part,) = self.group.parts
            whole = self.rows.shape[0] == 1 and target.shape[0] == self.rows.shape[1]
            if whole and len(part.uses) == 1:
                k, slot = part.uses[0]
                fresh = consumers[k].fresh_rows(slot, _cut(part, consumers[k], gradients[k]))
                if fresh is not None:
                    self.rows = fresh[None]
                    return
            self._part(part, target, consumers, gradients)
            return
        for part in self.group.parts:
            rows = target.new_empty(target.shape[0], part.stop - part.start)
            self._part(part, rows, consumers, gradients)
            target[:, part.start : part.stop] = rows

    @staticmethod
    def _part(part: Part, out: Tensor, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]) -> None:
        if len(part.uses) == 1:
            ((k, slot),) = part.uses
            consumers[k].rows(slot, _cut(part, consumers[k], gradients[k]), out)
            return
        add_uses(part.uses, out, consumers, gradients)

    def add(self, other: Factors, rows: slice, columns: slice, tile: Tile) -> None:
        assert isinstance(other, _DenseFactors)  # both sides come from one recipe
        tile.add(self.rows[:, rows], other.rows[:, columns])

    def norms(self, rows: slice) -> Tensor:
        return torch.linalg.vecdot(self.rows[:, rows], self.rows[:, rows])

    def quadratic(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """``‖Jᵀ w‖²``, and its size."""
        r, k = weights.shape
        total = self.rows.new_zeros(self.rows.shape[2])
        for c in range(r):
            total.addmv_(self.rows[c, :k].mT, weights[c])
        norms = torch.linalg.vecdot(self.rows[:, :k], self.rows[:, :k]).sqrt()
        return inner(total, total), (weights.abs() * norms).sum().square()


def _cut(part: Part, consumer: Consumer, gradient: Tensor) -> Tensor:
    return gradient if part.channels is None else consumer.split(gradient, *part.channels)


def add_uses(
    uses: Sequence[tuple[int, int]], out: Tensor, consumers: Sequence[Consumer], gradients: Mapping[int, Tensor]
) -> None:
    """Write a parameter's rows, in its own order, summed over its uses."""
    if not uses:
        out.zero_()
        return
    for number, (k, slot) in enumerate(uses):
        target = out if number == 0 else torch.empty_like(out)
        consumers[k].rows(slot, gradients[k], target)
        if number:
            out += target


@dataclass(frozen=True)
class Generic(Group):
    """Parameters used in a way that no reader understands: per-sample gradients by ``torch.func`` or a loop.

    Attributes:
        by_loop: whether ``torch.func`` cannot run this network.
    """

    by_loop: bool = False

    @property
    def route(self) -> str:  # type: ignore[override]
        """Which of the two."""
        return "loop" if self.by_loop else "vmap"

    @property
    def width(self) -> int:
        """Columns."""
        return sum(block.numel for block in self.blocks)

    def floats(self, r: int) -> int:
        """``r · width``."""
        return r * self.width

    def factors(self, n: int, r: int, allocate: Allocate) -> Factors:
        """J."""
        return _DenseFactors(self, allocate(r, n, self.width))

    def pieces(self, count: int) -> Sequence[Group]:
        """By parameters."""
        return [replace(self, blocks=(block,)) for block in self.blocks] if count > 1 else (self,)


def as_linear(consumer: Consumer) -> Linear:
    """The consumer as the linear layer that its recipe says it is."""
    assert isinstance(consumer, Linear)  # the recipe put it here
    return consumer
