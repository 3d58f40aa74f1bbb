"""Eigenpairs of symmetric matrices to a stated accuracy."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from tangrams.operators.errors import ConvergenceError
from tangrams.operators.gram_matrix import GramMatrix
from tangrams.operators.krylov import Product, fixed_generator
from tangrams.operators.normal_matrix import normal_matrix
from tangrams.operators.structure import MEMORY_BUDGET, Structure, read_structure


class Eigenpairs(NamedTuple):
    """The top of a symmetric matrix's spectrum.

    Attributes:
        values: ``(k,)``, descending.
        vectors: ``(n, k)``, orthonormal columns, the largest entry of each positive.
    """

    values: Tensor
    vectors: Tensor


def eigsh(
    A: Tensor | LinearOperator,
    k: int | None = None,
    *,
    rtol: float = 1e-8,
    memory_budget: int = MEMORY_BUDGET,
    max_iterations: int = 200,
    generator: torch.Generator | None = None,
) -> Eigenpairs:
    r"""The k algebraically largest eigenpairs of a symmetric matrix, ``‖A v − λ v‖ ≤ rtol max|λ|`` each.

    Reached in float64, or a :class:`ConvergenceError`: through ``Φᵀ Φ`` where ``A = s Φ Φᵀ + δ I`` has fewer than n/2
    features and k of them are well above rounding, by a dense decomposition where it fits the budget, else by
    restarted block Krylov iterations with one block product each.

    Args:
        A: a tensor, ``Φ @ Φ.mT``, or any symmetric ``LinearOperator``, ``(n, n)``.
        k: how many; all n by default, which needs the dense route.
        rtol: residual asked for, relative to the largest eigenvalue.
        memory_budget: bytes that may be held beyond the inputs.
        max_iterations: the most block products.
        generator: draws the first block; a fixed seed by default.

    Returns:
        ``(values, vectors)``, in the dtype of A.

    Raises:
        ValueError: if A is not square, not symmetric or not finite, or k not in 1 … n.

    Example:
        >>> eigsh(torch.diag(torch.tensor([1.0, 3.0, 2.0])), 2).values
        tensor([3., 2.])
    """
    n = A.shape[-1]
    k = n if k is None else k
    if not 1 <= k <= n:
        raise ValueError(f"eigsh needs 1 ≤ k ≤ {n}, got {k}")
    with torch.no_grad():
        structure = read_structure(A if isinstance(A, Tensor) else A.evaluate_kernel())
        pairs = _through_features(structure, k, rtol, memory_budget)
        if pairs is None and 3 * 8 * n * n <= memory_budget:
            pairs = _dense(structure, k)
        if pairs is None:
            pairs = _block_krylov(
                structure.product, n, k, rtol, max_iterations, memory_budget, generator, structure.diagonal.device
            )
    values, vectors = pairs
    return Eigenpairs(values.to(A.dtype), fix_signs(vectors).to(A.dtype))


def fix_signs(vectors: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """Turn each column so that its entry of largest magnitude is positive."""
    top = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * torch.where(top < 0, -1.0, 1.0).to(vectors.dtype)


def _dense(structure: Structure, k: int) -> tuple[Tensor, Tensor]:
    matrix = structure.dense()
    if not bool(matrix.isfinite().all()):
        raise ValueError("eigsh: the matrix has an entry that is not finite")
    if not structure.is_symmetric(matrix):
        raise ValueError("eigsh needs a symmetric matrix")
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:k], vectors.flip(1)[:, :k]


def _through_features(structure: Structure, k: int, rtol: float, memory_budget: int) -> tuple[Tensor, Tensor] | None:
    core, n = structure.core, len(structure.diagonal)
    if not (isinstance(core, GramMatrix) and core.is_symmetric and structure.scale > 0):
        return None
    d = core.left.shape[1]
    flat = bool((structure.diagonal == structure.diagonal[0]).all())
    if not flat or k > d or 2 * d > n or 3 * 8 * d * d > memory_budget:
        return None
    values, right = torch.linalg.eigh(normal_matrix(core.left, torch.float64))
    values, right = values.flip(0)[:k], right.flip(1)[:, :k]
    if float(values[-1]) <= 1e-6 * float(values[0]):  # squaring has halved the digits of what is below
        return None
    vectors = core.left.matmul(right) / values.sqrt()
    residual = core.left.matmul(core.left.t_matmul(vectors)) - vectors * values
    if not bool((residual.norm(dim=0) <= rtol * values[0]).all()):
        return None
    return structure.scale * values + structure.diagonal[0], vectors


def _block_krylov(
    product: Product,
    n: int,
    k: int,
    rtol: float,
    max_iterations: int,
    memory_budget: int,
    generator: torch.Generator | None,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Rayleigh–Ritz on a growing block Krylov space, collapsed to its best vectors when it is full."""
    width = min(n, k + 8)
    most = min(n, max(3 * width, memory_budget // (2 * 8 * n)))
    block = torch.randn(n, width, generator=fixed_generator(generator), dtype=torch.float64).to(device)
    basis = torch.linalg.qr(block).Q
    image = product(basis)
    reached = torch.inf
    for _ in range(max_iterations):
        core = basis.mT @ image
        values, rotation = torch.linalg.eigh((core + core.mT) / 2)
        values, rotation = values.flip(0)[:width], rotation.flip(1)[:, :width]
        ritz, ritz_image = basis @ rotation, image @ rotation
        residual = ritz_image - ritz * values
        reached = float(residual[:, :k].norm(dim=0).max() / values.abs().max().clamp_min(1e-300))
        if reached <= rtol or basis.shape[1] == n:
            return values[:k], ritz[:, :k]
        if basis.shape[1] + width > most:
            basis, image = ritz, ritz_image
        fresh = residual
        for _ in range(2):
            fresh = torch.linalg.qr(fresh - basis @ (basis.mT @ fresh)).Q
        fresh = fresh[:, : n - basis.shape[1]]
        basis, image = torch.cat([basis, fresh], 1), torch.cat([image, product(fresh)], 1)
    raise ConvergenceError("eigsh", reached, rtol, max_iterations, "raise max_iterations or memory_budget, or lower k")
