"""What the operators over an opaque source share: products are theirs, the ``LinearOperator`` bookkeeping is here."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NoReturn, TypeVar, cast

import numpy as np
import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

Op = TypeVar("Op", bound="OpaqueOperator")


class OpaqueOperator(LinearOperator):
    """A two-dimensional ``LinearOperator`` without tensor arguments, over sources that only answer products.

    ``LinearOperator`` derives batch reshapes, copies and gradients from the tensors an operator was made of. Where
    there are none, the derived answers are silently wrong, so this base answers or refuses each of them itself.
    A member writes :meth:`_size`, :meth:`_matmul`, :meth:`_transpose_nonbatch`, :meth:`_submatrix`, :meth:`_pairs`,
    :meth:`_cast`, and the properties ``dtype`` and ``device``.
    """

    @abstractmethod
    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        """The operator on the given rows × columns (int64, ``None`` is all of them)."""

    @abstractmethod
    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        """The entries ``(row[i], col[i])``."""

    @abstractmethod
    def _cast(self: Op, dtype: torch.dtype | None, device: torch.device | None) -> Op:
        """The same matrix in another dtype or on another device."""

    # -- indexing -----------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> Any:
        """Rows and columns by ints, slices, masks and integer arrays (torch, numpy or lists), as torch reads them."""
        who = type(self).__name__
        axes = _split(index, who)
        row = _as_index(axes[0], self.shape[0], f"{who} rows")
        col = _as_index(axes[1], self.shape[1], f"{who} columns")
        if isinstance(row, Tensor) and isinstance(col, Tensor) and not any(isinstance(i, slice) for i in axes):
            row, col = torch.broadcast_tensors(row, col)
            return self._pairs(row.to(self.device), col.to(self.device))
        result = self._getitem(_keep_axis(row), _keep_axis(col))
        if not (isinstance(row, int) or isinstance(col, int)):
            return result
        dense = result.to_dense()
        dense = dense[:, 0] if isinstance(col, int) else dense
        return dense[0] if isinstance(row, int) else dense

    def _getitem(self, row_index: Any, col_index: Any, *batch_indices: Any) -> LinearOperator:
        if batch_indices:
            self._refuse_batch()
        row = _as_index(row_index, self.shape[0], f"{type(self).__name__} rows")
        col = _as_index(col_index, self.shape[1], f"{type(self).__name__} columns")
        if row is None and col is None:
            return self
        return self._submatrix(
            row if row is None else torch.as_tensor(row, device=self.device),
            col if col is None else torch.as_tensor(col, device=self.device),
        )

    def _get_indices(self, row_index: Tensor, col_index: Tensor, *batch_indices: Tensor) -> Tensor:
        if batch_indices:
            self._refuse_batch()
        row, col = torch.broadcast_tensors(row_index, col_index)
        return self._pairs(row.reshape(-1), col.reshape(-1)).reshape(row.shape)

    def _diagonal(self) -> Tensor:
        index = torch.arange(min(self.shape), device=self.device)
        return self._pairs(index, index)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self)))

    # -- what has no tensors to work on -------------------------------------------------------------------------

    def _refuse_batch(self) -> NoReturn:
        raise ValueError(
            f"a feature matrix is 2-D, and so is every {type(self).__name__}: "
            "no unsqueeze, expand, repeat or batch permute; batch the right-hand side instead"
        )

    def _unsqueeze_batch(self, dim: int) -> NoReturn:
        self._refuse_batch()

    def _expand_batch(self, batch_shape: Any) -> LinearOperator:
        if not len(batch_shape):
            return self
        self._refuse_batch()

    def _permute_batch(self, *dims: int) -> LinearOperator:
        if not dims:
            return self
        self._refuse_batch()

    def repeat(self, *sizes: Any) -> NoReturn:
        """Refused with a ValueError: there is no batch of feature matrices."""
        self._refuse_batch()

    def _sum_batch(self, dim: int) -> NoReturn:
        self._refuse_batch()

    def _bilinear_derivative(self, left_vecs: Tensor, right_vecs: Tensor) -> tuple[()]:
        return ()

    @property
    def requires_grad(self) -> bool:
        """Always False: differentiate the feature map itself, ``phi(x)``."""
        return False

    @requires_grad.setter
    def requires_grad(self, val: bool) -> None:
        self._set_requires_grad(val)

    def _set_requires_grad(self, val: bool) -> None:
        if val:
            raise ValueError(
                f"{type(self).__name__} is not differentiable in what its rows are made of: use phi(x), which is"
            )

    # -- casts and copies ---------------------------------------------------------------------------------------

    def to(self: Op, *args: Any, **kwargs: Any) -> Op:
        """The same matrix in another dtype or on another device; takes what ``Tensor.to`` takes."""
        device, dtype, _, _ = torch._C._nn._parse_to(*args, **kwargs)  # type: ignore[attr-defined]
        return self if device is None and dtype is None else self._cast(dtype, device)

    def type(self: Op, dtype: torch.dtype) -> Op:
        """The same matrix in another dtype."""
        return self.to(dtype=dtype)

    def double(self: Op, device_id: str | None = None) -> Op:
        """The same matrix in float64."""
        return self.to(dtype=torch.float64)

    def float(self: Op, device_id: str | None = None) -> Op:
        """The same matrix in float32."""
        return self.to(dtype=torch.float32)

    def half(self: Op, device_id: str | None = None) -> Op:
        """The same matrix in float16."""
        return self.to(dtype=torch.float16)

    def cpu(self: Op) -> Op:
        """The same matrix on the CPU."""
        return self.to(device="cpu")

    def cuda(self: Op, device_id: int | None = None) -> Op:
        """The same matrix on a CUDA device."""
        return self.to(device="cuda" if device_id is None else f"cuda:{device_id}")

    def clone(self: Op) -> Op:
        """Itself: an opaque operator is immutable."""
        return self

    def detach(self: Op) -> Op:
        """Itself: nothing here carries a gradient."""
        return self

    def detach_(self: Op) -> Op:
        """Itself: nothing here carries a gradient."""
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        dense = self.to_dense().cpu()
        if dense.dtype == torch.bfloat16:  # numpy has no bfloat16
            dense = dense.float()
        return np.asarray(dense.numpy(), dtype=dtype)

    def mean(self, dim: int | None = None) -> Tensor:
        """Mean over rows (``dim=0``), over columns (``dim=1``), or of all entries."""
        return self.sum(dim) / (self.shape.numel() if dim is None else self.shape[dim])

    def sum(self, dim: int | None = None) -> Tensor:
        """Sum over rows (``dim=0``), over columns (``dim=1``), or of all entries."""
        if dim is None:  # the inherited one takes the wrong side of a rectangular matrix
            return self.sum(1).sum()
        if dim not in (-2, -1, 0, 1):
            raise IndexError(f"{type(self).__name__} is 2-D, got dim={dim}")
        ones = torch.ones(self.shape[dim], dtype=self.dtype, device=self.device)
        return cast(Tensor, self @ ones if dim % 2 else self.mT @ ones)

    def _check_rhs(self, rhs: Tensor, inner: int) -> None:
        if rhs.shape[-2] != inner:
            raise ValueError(
                f"{type(self).__name__} of shape {tuple(self.shape)} cannot multiply a right-hand side of shape "
                f"{tuple(rhs.shape)}"
            )
        if rhs.dtype != self.dtype:
            raise ValueError(
                f"{type(self).__name__} is {self.dtype}, the right-hand side {rhs.dtype}: cast one of them with .to()"
            )


def fold(rhs: Tensor) -> Tensor:
    """A batch of right-hand sides side by side: ``(*b, m, c)`` → ``(m, b·c)``."""
    return rhs.movedim(-2, 0).reshape(rhs.shape[-2], rhs.shape[:-2].numel() * rhs.shape[-1])


def unfold(product: Tensor, rhs: Tensor) -> Tensor:
    """Undo :func:`fold` on the product: ``(n, b·c)`` → ``(*b, n, c)``, the batch being that of ``rhs``."""
    return product.reshape(product.shape[0], *rhs.shape[:-2], rhs.shape[-1]).movedim(0, -2)


def _keep_axis(index: int | Tensor | None) -> Tensor | slice:
    if index is None:
        return slice(None)
    return torch.tensor([index]) if isinstance(index, int) else index


def _split(index: Any, who: str) -> tuple[Any, Any]:
    """The row and the column part of an index."""
    index = index if isinstance(index, tuple) else (index,)
    if any(i is None for i in index):
        raise IndexError(f"{who} is 2-D: no new axes in an index")
    dots = [k for k, i in enumerate(index) if i is Ellipsis]
    if len(dots) > 1:
        raise IndexError(f"{who}: an index has at most one ellipsis")
    if dots:
        index = index[: dots[0]] + (slice(None),) * (3 - len(index)) + index[dots[0] + 1 :]
    if len(index) > 2:
        raise IndexError(f"{who} is 2-D, got an index of {len(index)} axes")
    row, col = index + (slice(None),) * (2 - len(index))
    return row, col


def _as_index(index: Any, size: int, what: str) -> int | Tensor | None:
    """What torch would read one axis of an index as: an int, a vector of non-negative int64, or None for all."""
    if isinstance(index, slice):
        if index == slice(None):
            return None
        chosen = range(size)[index]
        return torch.arange(chosen.start, chosen.stop, chosen.step) if len(chosen) else torch.arange(0)
    if isinstance(index, Tensor | np.ndarray | np.generic | list | tuple | range):
        return _as_vector(index if isinstance(index, Tensor) else torch.as_tensor(np.asarray(index)), size, what)
    if not hasattr(index, "__index__"):
        raise IndexError(f"{what}: cannot index with {type(index).__name__}")
    i = index.__index__()
    if not -size <= i < size:
        raise IndexError(f"{what}: index {i} is out of range for {size}")
    return i % size


def _as_vector(index: Tensor, size: int, what: str) -> int | Tensor:
    if index.dtype == torch.bool:
        if tuple(index.shape) != (size,):
            raise IndexError(f"{what}: a mask of shape {tuple(index.shape)} does not fit {size}")
        return index.nonzero()[:, 0]
    if not index.numel():
        return index.reshape(-1).long()  # an empty list arrives as floats
    if index.is_floating_point() or index.is_complex() or index.dim() > 1:
        raise IndexError(f"{what}: an index is a vector of integers, got {index.dtype} of shape {tuple(index.shape)}")
    index = index.long()
    low, high = int(index.min()), int(index.max())
    if low < -size or high >= size:
        raise IndexError(f"{what}: index {high if high >= size else low} is out of range for {size}")
    index = torch.where(index < 0, index + size, index)
    return int(index) if index.dim() == 0 else index
