"""The spectral norm of matrices by products alone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_SMALL = 64
"""Up to this many rows or columns the norm comes from the small Gram matrix."""

_STEPS = 200
"""The most products with a matrix and its transpose."""


class SpectralNorm(NamedTuple):
    """Largest singular values.

    Attributes:
        values: ``(b,)``.
        vectors: right singular vectors ``(b, n)`` where they were iterated; a start for matrices nearby.
    """

    values: Tensor
    vectors: Tensor | None


def spectral_norm(
    blocks: Float[Tensor, "b m n"], start: Float[Tensor, "b n"] | None = None, *, rtol: float = 1e-6
) -> SpectralNorm:
    r"""The largest singular value of each of b matrices.

    Small ones from their Gram matrix; else Lanczos on ``Gᵀ G`` until its residual is below ``rtol σ²``, which bounds
    the error of σ by ``rtol σ / 2`` and is pessimistic where the top is separated; after 200 products whatever is
    reached.

    Args:
        blocks: the matrices.
        start: where to begin, such as the vectors of a matrix nearby.
        rtol: residual asked for; at least the rounding of the dtype, float32 for half precision.

    Raises:
        FloatingPointError: if an entry of matrices of more than one row and column is not finite.

    Example:
        >>> spectral_norm(torch.diag(torch.tensor([3.0, -4.0]))[None]).values
        tensor([4.])
    """
    small = min(blocks.shape[1:])
    if small <= 1:
        return SpectralNorm(torch.linalg.vector_norm(blocks, dim=(1, 2)), None)
    scale = blocks.abs().amax((1, 2), keepdim=True)
    if not bool(torch.isfinite(scale).all()):
        bad = (~torch.isfinite(scale.flatten())).nonzero().flatten().tolist()
        raise FloatingPointError(f"spectral_norm got NaN or infinity, in matrices {bad[:4]}")
    scaled = blocks / torch.where(scale > 0, scale, torch.ones_like(scale))  # squares neither vanish nor overflow
    scaled = scaled.to(torch.promote_types(blocks.dtype, torch.float32))
    if small <= _SMALL:
        wide = scaled.double()
        gram = wide @ wide.mT if wide.shape[1] == small else wide.mT @ wide
        values, vectors = torch.linalg.eigvalsh(gram)[:, -1], None
    else:
        values, vectors = _lanczos(scaled, start, rtol)
    norms = values.clamp_min(0).sqrt() * scale[:, 0, 0]
    return SpectralNorm(norms.to(blocks.dtype), vectors)


def _lanczos(G: Tensor, start: Tensor | None, rtol: float) -> tuple[Tensor, Tensor]:
    """Top eigenvalues and vectors of ``Gᵀ G``, fully reorthogonalised."""
    b, _, n = G.shape
    rtol = max(rtol, 8 * torch.finfo(G.dtype).eps)
    noise = torch.randn(b, n, generator=torch.Generator().manual_seed(0), dtype=G.dtype).to(G.device)
    # A tenth of noise: a start orthogonal to the top vector would stay there.
    q = noise if start is None else start.to(G.dtype) + 0.1 * noise / noise.norm(dim=1, keepdim=True)
    q = q / q.norm(dim=1, keepdim=True)
    basis, alphas, betas = [q], [], []
    for step in range(1, min(_STEPS, n) + 1):
        w = (G.mT @ (G @ q[:, :, None]))[:, :, 0]
        alphas.append((w * q).sum(1))
        stacked = torch.stack(basis, 1)
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            w = w - ((stacked @ w[:, :, None]).mT @ stacked)[:, 0]
        beta = w.norm(dim=1)
        if step % 4 == 0 or step == min(_STEPS, n):
            T = torch.diag_embed(torch.stack(alphas, 1).double())
            if betas:
                off = torch.stack(betas, 1).double()
                T = T + torch.diag_embed(off, offset=1) + torch.diag_embed(off, offset=-1)
            values, vectors = torch.linalg.eigh(T)
            residual = beta.double() * vectors[:, -1, -1].abs()
            if bool((residual <= rtol * values[:, -1]).all()):
                break
        # Where the Krylov space is exhausted only rounding is left: go on with zeros, which add nothing.
        exhausted = beta <= 16 * torch.finfo(w.dtype).eps * torch.stack(alphas).amax(0)
        beta = torch.where(exhausted, 0.0, beta)
        betas.append(beta)
        q = torch.where(exhausted, 0.0, 1 / beta.clamp_min(torch.finfo(w.dtype).tiny))[:, None] * w
        basis.append(q)
    coefficients = vectors[:, :, -1:].to(G.dtype)
    top = (torch.stack(basis, 1)[:, : vectors.shape[-1]].mT @ coefficients)[:, :, 0]
    return values[:, -1], top
