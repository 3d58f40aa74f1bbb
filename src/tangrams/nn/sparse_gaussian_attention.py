"""Softmax attention by sub-quadratic Gaussian kernel products."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from tangrams.kernels.gaussian_products import (
    KeySampling,
    NeighbourSearch,
    SparseGaussianKernelOperator,
    sparse_gaussian_product,
)
from tangrams.operators import block_generator


def attention_as_gaussian(
    q: Float[Tensor, "*batch n d"], k: Float[Tensor, "*batch m d"], scale: float
) -> tuple[float, Float[Tensor, "*batch n"], Float[Tensor, "*batch m"]]:
    r"""Attention scores as a Gaussian kernel between two scalings [047].

    .. math:: e^{s \langle q_i, k_j \rangle} = e^{a_i}\, e^{-\lVert q_i - k_j \rVert^2 / 2σ^2}\, e^{b_j},
              \qquad σ^2 = 1/s, \; a_i = s \lVert q_i \rVert^2 / 2, \; b_j = s \lVert k_j \rVert^2 / 2

    Args:
        q: queries.
        k: keys.
        scale: s > 0, usually 1/√d.

    Returns:
        σ, a and b; the scalings as logarithms, which do not overflow.

    Raises:
        ValueError: if ``scale <= 0``.
    """
    if not scale > 0:
        raise ValueError(f"attention_as_gaussian needs scale > 0, got {scale}")
    return scale**-0.5, 0.5 * scale * q.square().sum(-1), 0.5 * scale * k.square().sum(-1)


def sparse_gaussian_attention(
    q: Float[Tensor, "*batch n d"],
    k: Float[Tensor, "*batch m d"],
    v: Float[Tensor, "*batch m c"],
    *,
    scale: float | None = None,
    eps: float = 0.1,
    delta: float = 0.1,
    tau: float | None = None,
    search: NeighbourSearch | None = None,
    sampling: KeySampling | None = None,
    seed: int = 0,
) -> Float[Tensor, "*batch n c"]:
    r"""``softmax(s q kᵀ) v`` without all scores, where the Gaussian kernel of queries and keys is sparse [047].

    The kernel is applied to :math:`e^{b - \max b} [v, 1]`, whose entries may have any sign, and the columns are divided
    by the last. For keys of similar norms, as normalised heads have them: where the norms differ by much, so do the
    rows of x by orders, and the additive error ``ε ‖x‖`` drowns the rows that live on small ones. Rows without a near
    key of any weight are computed whole, and no denominator falls below what the near keys alone give. Differentiable:
    pairs and samples are constants to autograd. Not causal; no masks.

    Args:
        q: queries.
        k: keys.
        v: values.
        scale: s, 1/√d by default.
        eps: ε of the kernel products.
        delta: δ of the kernel products.
        tau: as in :meth:`SparseGaussianKernelOperator.build`; zero: exact.
        search: as there.
        sampling: as there.
        seed: fixes every draw.
    """
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    heads = zip(*(t.reshape(-1, *t.shape[-2:]) for t in (q, k, v)), strict=True)
    answers = []
    for queries, keys, values in heads:
        sigma, _, log_right = attention_as_gaussian(queries, keys, scale)
        operator = SparseGaussianKernelOperator.build(
            queries, keys, sigma, eps=eps, delta=delta, tau=tau, search=search, sampling=sampling, seed=seed
        )
        if operator.is_exact:
            answers.append(_whole(queries, keys, values, scale))
            continue
        weights = torch.exp(log_right - log_right.amax())
        x = torch.cat([values, torch.ones_like(values[:, :1])], 1) * weights[:, None]
        y, alone = _sampled(operator, queries, keys, x)
        answers.append(y.index_copy(0, alone, _whole(queries[alone], keys, values, scale)))
    return torch.stack(answers).reshape(*q.shape[:-2], *answers[0].shape)


def _whole(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """All scores of one head."""
    return F.scaled_dot_product_attention(q[None], k[None], v[None], scale=scale)[0]


def _sampled(operator: SparseGaussianKernelOperator, q: Tensor, k: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """The product of one head, differentiable in q and k, divided by its last column; and the rows where it is void."""
    pairs = operator.near_pairs
    index, weights = pairs.col[:0], x[:0]
    if operator.num_samples:
        index, weights = operator.sampling.weights(x, operator.num_samples, block_generator(operator.seed, 0))
    # The last column again, sampled with weight zero: what the near keys alone give.
    x, weights = torch.cat([x, x[:, -1:]], 1), F.pad(weights, (0, 1))
    y = sparse_gaussian_product(q, k, x, operator.sigma, pairs.row, pairs.col, index, weights)
    y, found = y[:, :-1], y[:, -1:]
    # Rows without pairs, or whose keys all underflow, have no lower bound; they are computed whole by the caller.
    bounded = found >= torch.finfo(found.dtype).tiny
    return y[:, :-1] / torch.where(bounded, torch.maximum(y[:, -1:], found), 1.0), (~bounded[:, 0]).nonzero()[:, 0]
