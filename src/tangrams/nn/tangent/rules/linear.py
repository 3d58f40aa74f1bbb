r"""Tangents of maps that are linear in the input and in the weights: (W + ε Ẇ)(x + ε t) = W x + ε (Ẇ x + W t)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tangrams.nn.tangent.dual import Dual, filled, plus

_ABSENT = Dual(None, None)


def linear(x: Dual, weight: Dual, bias: Dual = _ABSENT) -> Dual:
    r"""A linear layer.

    .. math:: y = W x + b, \qquad \dot y = \dot W x + \dot b + W \dot x

    Args:
        x: input.
        weight: W.
        bias: b.

    Shape:
        ``x (…, d)``, ``weight (m, d)``, ``bias (m,)`` → ``(…, m)``.
    """
    y = F.linear(x.value, weight.value, bias.value)
    if weight.tangent is None:
        moved = None if x.tangent is None else F.linear(x.tangent, weight.value)
        return Dual(y, plus(moved, bias.tangent if bias.tangent is None else filled(bias.tangent, y)))
    if x.tangent is None:
        return Dual(y, F.linear(x.value, weight.tangent, bias.tangent))
    rows = F.linear(x.value.reshape(-1, x.value.shape[-1]), weight.tangent, bias.tangent)
    # The second product is added where the first one lies: one pass over the output fewer.
    rows = rows.addmm_(x.tangent.reshape(-1, x.value.shape[-1]), weight.value.mT)
    return Dual(y, rows.view(y.shape))


def convolution(
    apply: Callable[[Tensor, Tensor, Tensor | None], Tensor], x: Dual, weight: Dual, bias: Dual = _ABSENT
) -> Dual:
    r"""A convolution, transposed or not.

    .. math:: y = W * x + b, \qquad \dot y = \dot W * x + \dot b + W * \dot x

    Args:
        apply: ``(x, weight, bias) -> y``, bilinear in the first two.
        x: input.
        weight: W.
        bias: b.
    """
    y = apply(x.value, weight.value, bias.value)
    # One convolution over twice the channels would spare the sum; measured, joining the operands costs as much.
    tangent = None if weight.tangent is None else apply(x.value, weight.tangent, bias.tangent)
    if x.tangent is not None:
        moved = apply(x.tangent, weight.value, None)
        tangent = moved if tangent is None else tangent.add_(moved)
    if weight.tangent is None and bias.tangent is not None:
        channels = [-1] + [1] * (weight.value.ndim - 2)
        tangent = plus(tangent, filled(bias.tangent.reshape(channels), y))
    return Dual(y, tangent)


def product(a: Dual, b: Dual) -> Dual:
    r"""A matrix product, ``torch.matmul``: :math:`\dot a b + a \dot b`."""
    y = torch.matmul(a.value, b.value)
    left = None if a.tangent is None else torch.matmul(a.tangent, b.value)
    if b.tangent is None:
        return Dual(y, left)
    right = torch.matmul(a.value, b.tangent)
    return Dual(y, right if left is None else left.add_(right))
