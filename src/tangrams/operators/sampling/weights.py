"""What a row is worth keeping for, and the few things that are asked of rows of any kind."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators.feature_matrix import FeatureMatrix

Matrix: TypeAlias = Tensor | FeatureMatrix | scipy.sparse.sparray | scipy.sparse.spmatrix
"""Rows of any kind: dense, computed or stored, sparse."""


def squared_norms(rows: Matrix) -> Float[np.ndarray, "n"]:
    """``‖A_i‖²``: the weights of the paper, for products in Frobenius norm [068].

    Args:
        rows: A.
    """
    if isinstance(rows, FeatureMatrix):
        return _array(rows.diag_gram())
    if isinstance(rows, Tensor):
        wide = rows.double()
        return _array(torch.linalg.vecdot(wide, wide))
    return np.asarray(scipy.sparse.csr_array(rows).power(2).sum(axis=1), dtype=np.float64).ravel()


def norms(rows: Matrix) -> Float[np.ndarray, "n"]:
    """``‖A_i‖``: with counts, end-biased sampling (Estan and Naughton, 2006), for the size of joins.

    Args:
        rows: A.
    """
    return np.sqrt(squared_norms(rows))


def uniform(rows: Matrix) -> Float[np.ndarray, "n"]:
    """One for every row that is not zero: a sample of the keys.

    Args:
        rows: A.
    """
    return (squared_norms(rows) > 0).astype(np.float64)


def leverage_scores(rows: Matrix) -> Float[np.ndarray, "n"]:
    """``‖U_i‖²`` for ``A = U Σ Vᵀ``: what keeps every direction of A alike, however small.

    By the eigenvectors of AᵀA, in float64: directions below 10⁻⁷ of the largest are lost.

    Args:
        rows: A, of few columns.
    """
    if isinstance(rows, FeatureMatrix):
        rows = rows.to_dense()
    dense = rows.double() if isinstance(rows, Tensor) else _dense(rows)
    values, V = torch.linalg.eigh(dense.mT @ dense)
    kept = values > values[-1].clamp_min(0) * 1e-14
    return _array((dense @ (V[:, kept] * values[kept].rsqrt())).square().sum(1))


def _dense(rows: Any) -> Tensor:
    return torch.from_numpy(np.asarray(scipy.sparse.csr_array(rows).toarray(), np.float64))


def take_rows(rows: Matrix, index: np.ndarray) -> Tensor | scipy.sparse.csr_array:
    """The rows at ``index``, dense or sparse as they were."""
    if isinstance(rows, FeatureMatrix):
        return rows[torch.from_numpy(index).to(rows.device)].to_dense()
    if isinstance(rows, Tensor):
        return rows[torch.from_numpy(index).to(rows.device)]
    return scipy.sparse.csr_array(scipy.sparse.csr_array(rows)[index])


def _array(values: Tensor) -> np.ndarray:
    return values.detach().cpu().double().numpy()
