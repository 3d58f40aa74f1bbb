"""The regular simplex: d unit vectors in d dimensions that are as far apart as possible."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def simplex_matmul(y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    r"""``S y`` in O(d), S the corners of a regular simplex: unit vectors with inner products −1/(d − 1) [083].

    .. math:: s_i = \sqrt{\tfrac{d}{d-1}}\, e_i - \tfrac{\sqrt d + 1}{(d-1)^{3/2}} (1, …, 1, 0) \quad (i < d), \qquad
              s_d = \tfrac{1}{\sqrt{d-1}} (1, …, 1, 0)

    The d vectors span d − 1 dimensions: the last entry of y is not read.

    Args:
        y: vectors with d ≥ 2 entries.

    Raises:
        ValueError: if d < 2: a simplex needs two dimensions.

    Example:
        >>> S = simplex_matmul(torch.eye(3)).mT
        >>> (S @ S.mT)[0]
        tensor([ 1.0000, -0.5000, -0.5000])
    """
    d = y.shape[-1]
    if d < 2:
        raise ValueError(f"simplex_matmul needs vectors of at least 2 entries, got {d}: one has no simplex")
    head = y[..., :-1]
    total = head.sum(-1, keepdim=True)
    first = head * math.sqrt(d / (d - 1)) - total * ((math.sqrt(d) + 1) / (d - 1) ** 1.5)
    return torch.cat([first, total / math.sqrt(d - 1)], -1)


def oppose(W: Float[Tensor, "g m d"], sweeps: int, tol: float = 1e-9) -> Float[Tensor, "g m d"]:
    r"""Turn vectors against the sum of the others, their lengths kept, until nothing moves.

    .. math:: w_i \leftarrow - \lVert w_i \rVert \frac{t}{\lVert t \rVert}, \qquad t = \sum_{j \ne i} w_j

    one after another; each step makes the norm of the sum of all as small as this vector can. Where the others cancel,
    the vector keeps its direction. O(d²) a sweep.

    Args:
        W: groups of vectors, in rows.
        sweeps: the most turns of all vectors.
        tol: the largest change, relative to the longest vector, that counts as none.
    """
    W = W.clone()
    lengths = W.norm(dim=-1, keepdim=True)
    longest = lengths.amax()
    for _ in range(sweeps):
        before = W.clone()
        total = W.sum(1)  # summed afresh each sweep, so that rounding does not pile up
        for i in range(W.shape[1]):
            t = total - W[:, i]
            size = t.norm(dim=-1, keepdim=True)
            turned = torch.where(size > tol * longest, -lengths[:, i] * t / size.clamp_min(1e-300), W[:, i])
            total = t + turned
            W[:, i] = turned
        if bool((W - before).abs().amax() <= tol * longest):
            break
    return W
