r"""Tangents of maps that are linear in the input and in the weights: (W + ε Ẇ)(x + ε t) = W x + ε (Ẇ x + W t)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tangrams.nn.tangent.dual import Dual, filled, plus
from tangrams.operators import times_transposed

_ABSENT = Dual(None, None)


def linear(x: Dual, weight: Dual, bias: Dual = _ABSENT) -> Dual:
    r"""A linear layer.

    .. math:: y = W x + b, \qquad \dot y = \dot W x + \dot b + W \dot x

    Values are left to torch, so that they stay the network's to the last bit.

    Args:
        x: input.
        weight: W.
        bias: b.

    Shape:
        ``x (…, d)``, ``weight (m, d)``, ``bias (m,)`` → ``(…, m)``.
    """
    y = F.linear(x.value, weight.value, bias.value)
    if weight.tangent is None:
        moved = None if x.tangent is None else times_transposed(_rows(x.tangent), weight.value).view(y.shape)
        return Dual(y, plus(moved, bias.tangent if bias.tangent is None else filled(bias.tangent, y)))
    moved = times_transposed(_rows(x.value), weight.tangent, bias.tangent)
    if x.tangent is not None:
        moved = times_transposed(_rows(x.tangent), weight.value, onto=moved)
    return Dual(y, moved.view(y.shape))


def _rows(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1])


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
    if a.value.ndim > 3 and a.value.shape[:-2] == b.value.shape[:-2]:
        # torch.matmul copies an operand that is strided into one batch for each product that it is in; here once.
        y, moved = product(_in_one_batch(a), _in_one_batch(b))
        batch = a.value.shape[:-2]
        return Dual(y.unflatten(0, batch), None if moved is None else moved.unflatten(0, batch))
    y = torch.matmul(a.value, b.value)
    left = None if a.tangent is None else torch.matmul(a.tangent, b.value)
    if b.tangent is None:
        return Dual(y, left)
    if left is not None and y.ndim == a.value.ndim == b.value.ndim == 3 and len(a.value) == len(b.value):
        return Dual(y, left.baddbmm_(a.value, b.tangent))
    right = torch.matmul(a.value, b.tangent)
    return Dual(y, right if left is None else right.add_(left))


def _in_one_batch(x: Dual) -> Dual:
    return Dual(x.value.flatten(0, -3), None if x.tangent is None else x.tangent.flatten(0, -3))
