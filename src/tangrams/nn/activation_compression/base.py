"""The role of an activation compression: what a linear layer keeps of its input, and the weight gradient from it."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators import block_generator


@dataclass(frozen=True)
class Compressed:
    """What is kept of a layer's input X, (b, n).

    Attributes:
        tensors: what the backward pass needs; nothing else of X is held.
        product: ``(dZ, *tensors) -> (m, n)``, an estimate of ``dZᵀ X`` for dZ of shape ``(b, m)``.
    """

    tensors: tuple[Tensor, ...]
    product: Callable[..., Tensor]


class ActivationCompression(ABC):
    """How the input of linear layers is kept until their weight gradient.

    Layers that are given the same instance and called with the same tensor, as are the projections to queries, keys
    and values, share what is kept. Every new input is a new draw, from a generator of the instance's own that is
    seeded by (seed, rank in the process group, number of the draw); the global random state is not touched. A member
    writes :meth:`_compress`.

    Args:
        seed: fixes every draw.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = int(seed)
        self.draws = 0
        self._last: tuple[weakref.ref[Tensor], int, Compressed] | None = None

    def __call__(self, x: Float[Tensor, "... n"]) -> Compressed:
        """The compression of ``x``, all leading dimensions taken as samples; the last one again for the same tensor.

        Args:
            x: the input.
        """
        if self._last is not None:
            reference, version, compressed = self._last
            if reference() is x and version == x._version:
                return compressed
        rank, processes = _place()
        generator = block_generator(self.seed, self.draws * processes + rank)
        self.draws += 1
        compressed = self._compress(x.detach().reshape(-1, x.shape[-1]), generator)
        self._last = weakref.ref(x, self._forget), x._version, compressed
        return compressed

    @abstractmethod
    def _compress(self, x: Float[Tensor, "b n"], generator: torch.Generator) -> Compressed:
        """What is kept of ``x``, at least one row."""

    def _forget(self, reference: weakref.ref[Tensor]) -> None:
        if self._last is not None and self._last[0] is reference:
            self._last = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_last": None}

    def __repr__(self) -> str:
        options = {key: value for key, value in self.__dict__.items() if key not in {"draws", "_last"}}
        return f"{type(self).__name__}({', '.join(f'{key}={value}' for key, value in options.items())})"


def check_ratio(who: str, ratio: float) -> float:
    """The ratio, if it is in (0, 1].

    Raises:
        ValueError: if it is not.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"{who} expects a ratio of rows in (0, 1], got {ratio}")
    return float(ratio)


def kept_rows(ratio: float, b: int) -> int:
    """``max(1, round(ratio · b))``."""
    return max(1, round(ratio * b))


def _place() -> tuple[int, int]:
    """Rank and size of the process group, or of this process alone."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1
