"""Tangents of activations and softmax.

A function whose Jacobian is symmetric (every elementwise one, and softmax: diag A − A Aᵀ) has the same product with a
tangent as with a cotangent, so torch's fused backward kernels serve forward mode in one pass.
"""

from __future__ import annotations

import torch

from tangrams.nn.tangent.dual import Dual

aten = torch.ops.aten


def quotient(x: Dual, divisor: float) -> Dual:
    """``x / c``, for a number c."""
    return Dual(x.value / divisor, x.tangent / divisor)


def relu(x: Dual) -> Dual:
    """``max(x, 0)``; its slope at zero is zero."""
    y = torch.relu(x.value)
    return Dual(y, aten.threshold_backward(x.tangent, y, 0))


def gelu(x: Dual, approximate: str = "none") -> Dual:
    r"""``x Φ(x)``, with slope :math:`\Phi(x) + x \varphi(x)`, also at zero; or the form with tanh."""
    y = torch.nn.functional.gelu(x.value, approximate=approximate)
    return Dual(y, aten.gelu_backward(x.tangent, x.value, approximate=approximate))


def silu(x: Dual) -> Dual:
    """``x σ(x)``, with slope σ + y (1 − σ); torch's kernel for it cannot be differentiated."""
    gate = torch.sigmoid(x.value)
    y = x.value * gate
    return Dual(y, x.tangent * torch.addcmul(gate, y, 1 - gate))


def glu(x: Dual, dim: int = -1) -> Dual:
    """A gated linear unit ``a σ(b)`` of the halves a, b along ``dim``."""
    a, b = x.value.chunk(2, dim)
    da, db = x.tangent.chunk(2, dim)
    gate = torch.sigmoid(b)
    y = a * gate
    return Dual(y, torch.addcmul(da * gate, db, y * (1 - gate)))


def tanh(x: Dual) -> Dual:
    """The hyperbolic tangent, with slope 1 − y²."""
    y = torch.tanh(x.value)
    return Dual(y, aten.tanh_backward(x.tangent, y))


def sigmoid(x: Dual) -> Dual:
    """The logistic function, with slope y (1 − y)."""
    y = torch.sigmoid(x.value)
    return Dual(y, aten.sigmoid_backward(x.tangent, y))


def softmax(x: Dual, dim: int) -> Dual:
    r"""Softmax A: :math:`\dot A = A \circ \dot s - A\, \mathrm{sum}(A \circ \dot s)`; sums to zero along ``dim``."""
    A = torch.softmax(x.value, dim)
    return Dual(A, aten._softmax_backward_data(x.tangent, A, dim, A.dtype))
