r"""Dual numbers: a value and its tangent, carried through a network together."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

_make_dual: Any = torch._VF._make_dual  # type: ignore[attr-defined]  # looking it up takes as long as calling it
_unpack_dual: Any = torch._VF._unpack_dual  # type: ignore[attr-defined]


class Dual(NamedTuple):
    r"""A value x and its tangent t: x + ε t with ε² = 0.

    Attributes:
        value: x; a tensor, or whatever structure of tensors a network returned.
        tangent: t, of the same shape; None inside a network where it is zero, so that no work is done for it.
    """

    value: Any
    tangent: Any


def make_dual(value: Tensor, tangent: Tensor) -> Tensor:
    """A tensor of torch's forward mode; ``forward_ad.make_dual`` without its lookups, in the one level there is."""
    return _make_dual(value, tangent, level=0)


def read_dual(x: Tensor) -> Dual:
    """Value and tangent of a tensor of torch's forward mode; None for a tangent that it does not have."""
    return Dual(*_unpack_dual(x, level=0))


def plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """The sum of two tangents, None being zero."""
    if a is None:
        return b
    return a if b is None else a + b


def filled(tangent: Tensor | None, value: Tensor) -> Tensor:
    """The tangent of ``value`` as a tensor of its shape."""
    return torch.zeros_like(value) if tangent is None else tangent.expand_as(value)
