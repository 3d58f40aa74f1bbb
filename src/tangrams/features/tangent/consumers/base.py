"""What it takes to read per-sample gradients off an autograd node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tangrams.features.tangent.axis import Axis


@dataclass(frozen=True)
class Source:
    """How a parameter reaches a node's input: directly, or through views.

    Attributes:
        parameter: its name.
        shape: its own shape.
        seen: the shape that the node sees.
        transposed: whether the node sees its matrix transpose.
        expanded: whether it was broadcast along new leading dimensions.
        through: the nodes of the views.
    """

    parameter: str
    shape: tuple[int, ...]
    seen: tuple[int, ...]
    transposed: bool = False
    expanded: bool = False
    through: tuple[Any, ...] = ()

    @property
    def is_view(self) -> bool:
        """Whether the node sees the parameter's elements in their own order, each once."""
        return not (self.transposed or self.expanded)


class Consumer(ABC):
    """One node of the autograd graph that uses parameters in a known way.

    A member says which parameters it understands (:meth:`accept`), which dimensions of its output may hold the samples
    (:attr:`dims`), and turns what autograd saved and the gradient of its output into per-sample rows. Life of one:
    made at the walk, :meth:`load` after the forward pass, then :meth:`arrange` and :meth:`rows` per function.

    Args:
        node: the autograd node.
        sources: input slot → the parameter that reaches it.
    """

    def __init__(self, node: Any, sources: Mapping[int, Source]) -> None:
        self.node = node
        self.sources = dict(sources)
        self.shape: tuple[int, ...] = tuple(node._input_metadata[0].shape)

    @classmethod
    @abstractmethod
    def accept(cls, node: Any, sources: Mapping[int, Source]) -> Consumer | None:
        """The reader of this node for those of ``sources`` that it understands; None if for none."""

    @property
    @abstractmethod
    def dims(self) -> tuple[int, ...]:
        """Dimensions of the output that may hold the samples."""

    @abstractmethod
    def load(self, axis: Axis, n: int, dtype: torch.dtype) -> None:
        """Read what autograd saved and put the samples first."""

    @abstractmethod
    def arrange(self, gradient: Tensor) -> Tensor:
        """The gradient of the node's output, samples first, as :meth:`rows` takes it."""

    @abstractmethod
    def rows(self, slot: int, gradient: Tensor, out: Tensor) -> None:
        """Write per-sample gradients of the parameter at ``slot`` into ``out (n, numel)``, in its own order."""

    def fresh_rows(self, slot: int, gradient: Tensor) -> Tensor | None:
        """As :meth:`rows`, as a tensor of its own; None where rows are better written into place."""
        return None

    def outer(self, slot: int, gradient: Tensor) -> tuple[Tensor, Tensor] | None:
        """``(left, right)``, ``(n, T, o)`` and ``(n, T, i)``, whose outer products sum to the rows; None if none do."""
        return None

    def channels(self, slot: int) -> int:
        """How many output channels the rows of ``slot`` can be split into; 0 if they cannot."""
        return 0

    def split(self, gradient: Tensor, start: int, stop: int) -> Tensor:
        """An arranged gradient at some output channels."""
        raise NotImplementedError

    def release(self) -> None:  # noqa: B027 - most have nothing to drop
        """Drop what was cut out for the weight gradient alone."""

    def signature(self) -> tuple[Any, ...]:
        """What must not change between batches for a recipe to hold."""
        sources = tuple(
            (slot, s.parameter, s.seen[1:] if s.expanded else s.seen, s.transposed)
            for slot, s in sorted(self.sources.items())
        )
        return type(self).__name__, sources, len(self.shape)
