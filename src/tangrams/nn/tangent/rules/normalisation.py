r"""Tangents of normalisations whose statistics are fixed, or those of a sample."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from tangrams.nn.tangent.dual import Dual, plus

aten = torch.ops.aten


def batch_norm(x: Dual, mean: Tensor, variance: Tensor, weight: Dual, bias: Dual, eps: float) -> Dual:
    r"""Batch normalisation in eval mode.

    .. math:: \hat x = (x - m) / \sqrt{v + ε}, \qquad \dot y = \dot γ \hat x + \dot β + γ \dot x / \sqrt{v + ε}

    The mean is not subtracted from the tangent: m and v are constants.

    Args:
        x: input.
        mean: m.
        variance: v.
        weight: γ, or absent.
        bias: β, or absent.
        eps: ε.

    Shape:
        ``(n, C, …)`` → the same.
    """
    y = F.batch_norm(x.value, mean, variance, weight.value, bias.value, False, 0.0, eps)
    tangent = None
    if weight.tangent is not None or bias.tangent is not None:
        scale = torch.zeros_like(mean) if weight.tangent is None else weight.tangent
        tangent = F.batch_norm(x.value, mean, variance, scale, bias.tangent, False, 0.0, eps)
    if x.tangent is not None:
        rate = (variance + eps).rsqrt()
        rate = rate if weight.value is None else rate * weight.value
        rate = rate.reshape([-1] + [1] * (x.value.ndim - 2)).to(x.tangent.dtype)
        tangent = x.tangent * rate if tangent is None else tangent.addcmul_(x.tangent, rate)
    return Dual(y, tangent)


def layer_norm(x: Dual, shape: Sequence[int], weight: Dual, bias: Dual, eps: float) -> Dual:
    r"""Layer normalisation over the last axes.

    .. math::
        \hat x = (x - \bar x) / σ, \quad t = \dot x - \bar{\dot x}, \qquad
        \dot y = \dot γ \hat x + \dot β + γ \circ (t - \hat x \, \overline{\hat x t}) / σ

    with σ² the variance plus ε. The Jacobian of x̂ is symmetric, so torch's backward kernel gives its product with ẋ.

    Args:
        x: input.
        shape: of the last axes.
        weight: γ, or absent.
        bias: β, or absent.
        eps: ε.

    Shape:
        ``(…, *shape)`` → the same.
    """
    y, mean, rstd = torch.native_layer_norm(x.value, shape, weight.value, bias.value, eps)
    tangent = None
    if weight.tangent is not None or bias.tangent is not None:
        scale = weight.tangent
        if scale is None:
            scale = torch.zeros(tuple(shape), dtype=x.value.dtype, device=x.value.device)
        tangent = F.layer_norm(x.value, shape, scale, bias.tangent, eps)
    if x.tangent is not None:
        moved = aten.native_layer_norm_backward(
            x.tangent.contiguous(), x.value, shape, mean, rstd, None, None, [True, False, False]
        )[0]
        if weight.value is None:
            tangent = plus(tangent, moved)
        else:
            tangent = moved * weight.value if tangent is None else tangent.addcmul_(moved, weight.value)
    return Dual(y, tangent)


def normalize(x: Dual, dim: int = -1, eps: float = 1e-12) -> Dual:
    r"""Unit vectors along an axis, of which cosine attention takes inner products.

    .. math:: u = x / \|x\|, \qquad \dot u = (\dot x - u \, (u \cdot \dot x)) / \|x\|

    Vectors shorter than ε are divided by ε.

    Args:
        x: input.
        dim: the axis.
        eps: ε.
    """
    norm = torch.linalg.vector_norm(x.value, dim=dim, keepdim=True)
    length = norm.clamp_min(eps)
    u = x.value / length
    inner = (u * x.tangent).sum(dim, keepdim=True)
    return Dual(u, (x.tangent - torch.where(norm > eps, inner, 0.0) * u) / length)
