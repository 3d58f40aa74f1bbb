"""Products of two matrices from coordinated samples of their rows."""

from __future__ import annotations

import math

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.sampling.rows import RowSample


class SampleMismatchError(ValueError):
    """Two samples of rows that were not taken by one hash, or whose keys are of different kinds."""


def estimate_product(left: RowSample, right: RowSample) -> Float[Tensor, "d m"]:
    r"""An unbiased estimate of ``AᵀB``, summed over the keys that both matrices have, from samples made apart [068].

    .. math:: W = \sum_{i \in S_A \cap S_B} \frac{A_i^T B_i}{\min(1, \tau_A w_i^A, \tau_B w_i^B)}

    As both samples are taken by the same hash, a row is in both with the smaller of its two probabilities. Keys that
    only one matrix has add exactly nothing.

    Args:
        left: of A, ``(·, d)``.
        right: of B, ``(·, m)``.

    Raises:
        SampleMismatchError: if seeds or kinds of keys differ.

    Example:
        >>> from tangrams.operators import PrioritySampler
        >>> A, B = torch.eye(3), torch.ones(3, 2)
        >>> estimate_product(PrioritySampler(9).sample(A), PrioritySampler(9).sample(B))[0]
        tensor([1., 1.], dtype=torch.float64)
    """
    if left.seed != right.seed:
        raise SampleMismatchError(f"samples were hashed with different seeds, {left.seed} and {right.seed}")
    if len(left) and len(right) and left.keys.dtype.kind != right.keys.dtype.kind:
        raise SampleMismatchError(f"samples have keys of different kinds, {left.keys.dtype} and {right.keys.dtype}")
    _, a, b = np.intersect1d(left.keys, right.keys, assume_unique=True, return_indices=True)
    scale = 1 / np.minimum(left.probabilities[a], right.probabilities[b])
    A, B = left.rows, right.rows
    if isinstance(A, Tensor) and isinstance(B, Tensor):
        scaled = B.double()[torch.from_numpy(b).to(B.device)] * torch.from_numpy(scale).to(B.device)[:, None]
        return A.double()[torch.from_numpy(a).to(A.device)].mT @ scaled.to(A.device)
    first, second = _sparse(A)[a], _sparse(B)[b]
    product = first.T @ second.multiply(scale[:, None])
    return torch.from_numpy(np.ascontiguousarray(product.toarray(), dtype=np.float64))


def estimate_gram(sample: RowSample) -> Float[Tensor, "d d"]:
    """An unbiased estimate of ``AᵀA``, positive semi-definite.

    Args:
        sample: of A.
    """
    return estimate_product(sample, sample)


def product_error_bound(left: RowSample, right: RowSample, delta: float = 0.1) -> float:
    r"""``ε ‖A‖_F ‖B‖_F`` with ``ε = √(2 / (δ (k − 1)))``, which the error exceeds with probability at most δ.

    k is the smaller number of rows; 0 where nothing was left out. For weights that are squared norms.

    Args:
        left: of A.
        right: of B.
        delta: δ.

    Raises:
        ValueError: if a sample left rows out and has no more than one.
    """
    sizes = [len(sample) for sample in (left, right) if not math.isinf(sample.tau)]
    if not sizes:
        return 0.0
    if min(sizes) < 2:
        raise ValueError("product_error_bound needs samples of at least two rows")
    return math.sqrt(2 / (delta * (min(sizes) - 1)) * left.squared_norm * right.squared_norm)


def median_estimate(estimates: Float[Tensor, "r d m"]) -> Float[Tensor, "d m"]:
    """The estimate with the smallest median distance to the others: right with probability 1 − δ for r = O(log 1/δ).

    Where each of r independent estimates is within ε of the truth with probability above ½, most are within 2ε of one
    another, and one that is within 2ε of most is within 3ε of the truth.

    Args:
        estimates: r of them, from samples with different seeds.

    Raises:
        ValueError: if there is none.
    """
    if len(estimates) < 1:
        raise ValueError("median_estimate needs at least one estimate")
    flat = estimates.flatten(1)
    return estimates[int(torch.cdist(flat, flat).median(dim=1).values.argmin())]


def _sparse(rows: Tensor | scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    return scipy.sparse.csr_array(rows.detach().cpu().double().numpy()) if isinstance(rows, Tensor) else rows
