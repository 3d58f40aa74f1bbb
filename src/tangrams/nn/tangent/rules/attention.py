r"""Tangents of attention, in the pass that computes it: no second softmax."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tangrams.nn.tangent.dual import Dual
from tangrams.nn.tangent.rules.elementwise import softmax
from tangrams.nn.tangent.rules.linear import product


def dot_attention(q: Dual, k: Dual, v: Dual, mask: Tensor | None = None, scale: float | None = None) -> Dual:
    r"""Attention by scaled inner products.

    .. math::
        s = q k^\top c, \quad A = \mathrm{softmax}(s), \quad \dot s = (\dot q k^\top + q \dot k^\top) c, \quad
        \dot A = A \circ \dot s - A \, \mathrm{sum}(A \circ \dot s), \qquad \dot o = \dot A v + A \dot v

    The weights are formed: memory grows with the square of the number of tokens.

    Args:
        q: queries.
        k: keys.
        v: values.
        mask: boolean, true where a key may be seen; or a term that is added to s. A query that sees no key gets zero,
            as from torch's own.
        scale: c; 1/√d by default.

    Shape:
        ``q (…, L, d)``, ``k (…, S, d)``, ``v (…, S, e)`` → ``(…, L, e)``.
    """
    c = 1 / math.sqrt(q.value.shape[-1]) if scale is None else scale
    scaled = Dual(q.value * c, None if q.tangent is None else q.tangent * c)
    transposed = Dual(k.value.mT, None if k.tangent is None else k.tangent.mT)
    scores = product(scaled, transposed)
    s = scores.value
    if mask is None:
        return product(_weights(s, scores.tangent), v)
    s = s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + mask
    blind = (~mask if mask.dtype == torch.bool else mask == -math.inf).all(-1, keepdim=True)
    # Finite scores first: the softmax of a row of -inf is not a number, and neither would its gradient be.
    A, moved = _weights(s.masked_fill(blind, 0.0), scores.tangent)
    return product(Dual(A.masked_fill(blind, 0.0), None if moved is None else moved.masked_fill(blind, 0.0)), v)


def _weights(s: Tensor, tangent: Tensor | None) -> Dual:
    return Dual(torch.softmax(s, -1), None) if tangent is None else softmax(Dual(s, tangent), -1)
