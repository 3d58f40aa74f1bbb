"""The role of a learner, and the one gate where its ``X`` is judged.

Everything in this room is a scikit-learn estimator. It takes feature rows (arrays, tensors, a feature matrix,
a store) through :func:`as_features`; one that needs inner products alone takes them from a kernel through
:class:`KernelMixin`. Answers are NumPy arrays, whatever was given.
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from linear_operator import LinearOperator
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d, validate_data
from torch import Tensor

from tangrams.data.labelled import Labelled
from tangrams.operators import FeatureMatrix, as_feature_matrix

_WHOLE_ON_ASARRAY = {"zarr", "dask"}
"""Packages whose arrays NumPy would load or compute whole, without a word."""


@runtime_checkable
class HasGram(Protocol):
    """What feature maps, kernels and stores share: inner products of samples."""

    def gram(self, x: Any, y: Any | None = None) -> Tensor:
        """``K(x, y)``, with ``y = x`` when absent."""
        ...  # a protocol: whoever fits it writes the body

    def diag(self, x: Any) -> Tensor:
        """``K(x_i, x_i)``."""
        ...  # a protocol: whoever fits it writes the body


def as_features(estimator: Any, X: Any, *, reset: bool = True) -> Tensor | FeatureMatrix:
    """Judge ``X`` and return rows of features: the only gate of every learner.

    A feature matrix stays lazy, a store is opened as one, and neither is read here; a tensor is detached, and
    brought to float32 if its precision is lower; all else passes scikit-learn's ``validate_data``.

    Args:
        estimator: whose ``X`` it is; ``n_features_in_`` is set or compared on it.
        X: a :class:`~tangrams.operators.FeatureMatrix`, an object with ``matrix()`` such as a
            ``FeatureStore``, a tensor, or anything that NumPy reads as a numeric table.
        reset: true in ``fit``, which learns the number of features; false afterwards, where it must match.

    Shape:
        ``(n, d)`` in and out; floating point.

    Raises:
        TypeError: for arrays on disk that would be loaded whole, other operators, maps, sparse matrices.
        ValueError: if ``X`` is not 2-D, is empty, is complex, has NaN or infinite entries (a feature matrix
            is not read to find out), or has another number of features than in ``fit``.
    """
    who = type(estimator).__name__
    if isinstance(X, torch.nn.Module):
        raise TypeError(f"{who} expects feature rows, got {type(X).__name__} itself: pass its matrix(x)")
    if not isinstance(X, FeatureMatrix) and callable(getattr(type(X), "matrix", None)):
        X = X.matrix()
    if isinstance(X, FeatureMatrix):
        _check_counts(estimator, X, reset)
        return X
    if isinstance(X, LinearOperator):
        raise TypeError(
            f"{who} expects feature rows, got a {type(X).__name__}: pass a FeatureMatrix, or its to_dense()"
        )
    package = type(X).__module__.partition(".")[0]
    if package in _WHOLE_ON_ASARRAY:
        raise TypeError(f"{who} would load the whole {package} array: pass FeatureStore.open(path), or its rows")
    if isinstance(X, Tensor):
        X = _plain(X, who)
        if X.ndim != 2:
            raise ValueError(f"{who} expects 2-D feature rows, got a tensor of shape {tuple(X.shape)}: flatten it")
        _check_counts(estimator, X, reset)
        # A sum passes NaN and infinity on, at a thirtieth of the cost of looking at every entry; it may overflow, too.
        if not bool(X.sum().isfinite()) and not bool(torch.isfinite(X).all()):
            row = int((~torch.isfinite(X)).any(1).nonzero()[0])
            raise ValueError(f"{who} got NaN or infinity in X, first in row {row}: remove or repair that sample")
        return X
    rows: Any = validate_data(estimator, X, reset=reset, dtype=[np.float64, np.float32])
    return torch.from_numpy(np.require(rows, requirements=["C", "W"]))


def as_samples(estimator: Any, X: Any, *, reset: bool = True) -> Any:
    """Judge ``X`` for a learner whose kernel reads samples of any shape (images, tuples, ids).

    Tensors are detached, and structures that only the kernel understands pass as they are; all else goes
    through scikit-learn's ``validate_data`` with any number of axes.

    Args:
        estimator: whose ``X`` it is.
        X: whatever the estimator's kernel takes.
        reset: true in ``fit``.

    Raises:
        TypeError: for arrays on disk that would be loaded whole.
    """
    if isinstance(X, Tensor):
        return X.detach()
    if isinstance(X, np.ndarray | list) or hasattr(X, "__array__"):
        package = type(X).__module__.partition(".")[0]
        if package in _WHOLE_ON_ASARRAY:
            raise TypeError(f"{type(estimator).__name__} would load the whole {package} array: pass its rows")
        samples: Any = X
        rows: Any = validate_data(estimator, samples, reset=reset, dtype="numeric", allow_nd=True)
        return torch.from_numpy(np.require(rows, requirements=["C", "W"]))
    return X


def as_targets(estimator: Any, X: Any, y: Any, *, multi_output: bool = False) -> np.ndarray:
    """Judge ``y``: one target per row of ``X``, NumPy, finite.

    Args:
        estimator: whose ``y`` it is.
        X: the rows it belongs to; only their number is read. None: not compared.
        y: labels or values, array or tensor.
        multi_output: whether ``(n, m)`` is welcome too.

    Raises:
        ValueError: if it is missing, has NaN, a shape that does not fit, or another length than ``X``.
    """
    if y is None:
        raise ValueError(
            f"This {type(estimator).__name__} estimator requires y to be passed, but the target y is None."
        )
    if isinstance(y, Tensor):
        y = _plain(y, type(estimator).__name__, floating=False).cpu().numpy()
    if not multi_output:
        y = column_or_1d(y, warn=True)
    out: Any = validate_data(estimator, y=y, multi_output=multi_output)
    if X is not None:
        check_consistent_length(_Length(X), out)
    return out


class KernelMixin:
    """A learner that sees its samples through inner products alone.

    Its parameter ``kernel`` says whose: None for those of feature rows (read through :func:`as_features`, a
    feature matrix or store by its exact Gram), ``"precomputed"`` where ``X`` is the Gram matrix itself
    (scikit-learn's convention), or an object with ``gram`` and ``diag``, which is given ``X`` as it is.

    Attributes:
        X_fit_: what cross products are taken with; None for a precomputed kernel.
    """

    kernel: HasGram | Literal["precomputed"] | None
    X_fit_: Any

    def _fit_gram(self, X: Any) -> Tensor:
        """``K(X, X)`` in float64, (n·r, n·r); remembers what :meth:`_cross_gram` needs."""
        if isinstance(self.kernel, str) and self.kernel == "precomputed":
            K = self._read_precomputed(X, reset=True)
            if K.shape[0] != K.shape[1]:
                raise ValueError(f"{type(self).__name__} expects a square precomputed kernel, got {tuple(K.shape)}")
            self.X_fit_ = None
        else:
            self.X_fit_ = self._read_samples(X, reset=True)
            K = self._gram(self.X_fit_, None)
        return self._checked(K)

    def cross_gram(self, X: Any) -> Tensor:
        """Inner products of new samples with those of the fit, ``K(X, X_fit)``: ``(m, n)``, float64."""
        return self._cross_gram(X)

    def _cross_gram(self, X: Any) -> Tensor:
        check_is_fitted(self, "X_fit_")
        if isinstance(self.kernel, str) and self.kernel == "precomputed":
            return self._checked(self._read_precomputed(X, reset=False))
        return self._checked(self._gram(self._read_samples(X, reset=False), self.X_fit_))

    def _read_precomputed(self, X: Any, *, reset: bool) -> Tensor:
        if isinstance(X, LinearOperator) and not isinstance(X, FeatureMatrix):
            X = X.to_dense()
        K = as_features(self, X, reset=reset)
        return K.to_dense() if isinstance(K, FeatureMatrix) else K

    def _read_samples(self, X: Any, *, reset: bool) -> Any:
        if self.kernel is None:
            return as_features(self, X, reset=reset)
        if not isinstance(self.kernel, HasGram):
            raise ValueError(
                f"{type(self).__name__} expects kernel=None, 'precomputed', or an object with gram and diag,"
                f" got {self.kernel!r}"
            )
        return as_samples(self, X, reset=reset)

    def _gram(self, x: Any, y: Any | None) -> Tensor:
        if self.kernel is not None:
            K = self.kernel.gram(x) if y is None else self.kernel.gram(x, y)  # type: ignore[union-attr]
        elif y is None:
            K = x @ x.mT
        else:
            # The rows of a fit and of a prediction may come in different precisions.
            dtype = torch.promote_types(x.dtype, y.dtype)
            if isinstance(x, Tensor) and isinstance(y, Tensor):
                K = x.to(dtype) @ y.to(dtype).mT
            else:
                K = as_feature_matrix(x).to(dtype) @ as_feature_matrix(y).to(dtype).mT
        return K.to_dense() if isinstance(K, LinearOperator) else K

    def _checked(self, K: Tensor) -> Tensor:
        K = K.detach().to("cpu", torch.float64)  # where the solvers and NumPy are
        if not bool(torch.isfinite(K).all()):
            row = int((~torch.isfinite(K)).any(1).nonzero()[0])
            raise ValueError(f"{type(self).__name__} got NaN or infinity in its Gram matrix, first in row {row}")
        return K

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.input_tags.pairwise = isinstance(self.kernel, str) and self.kernel == "precomputed"
        return tags


def num_samples(x: Any) -> int:
    """How many samples a tensor, array, feature matrix, ``Labelled``, tuple or dict of them holds."""
    if isinstance(x, Labelled):
        return num_samples(x.inputs)
    if isinstance(x, dict):
        return num_samples(next(iter(x.values())))
    if isinstance(x, tuple):
        return num_samples(x[0])
    shape = getattr(x, "shape", None)
    return len(x) if shape is None else int(shape[0])


def take_samples(x: Any, index: Any) -> Any:
    """The samples at integer ``index`` of a tensor, feature matrix, ``Labelled``, tuple or dict of them.

    Raises:
        TypeError: for anything else, such as a DataLoader.
    """
    index = torch.as_tensor(index)
    if isinstance(x, Labelled):
        return Labelled(take_samples(x.inputs, index), x.targets[index])
    if isinstance(x, tuple):
        return tuple(take_samples(part, index) for part in x)
    if isinstance(x, dict):
        return {name: take_samples(part, index) for name, part in x.items()}
    if isinstance(x, Tensor | FeatureMatrix):
        return x[index]
    raise TypeError(f"cannot choose samples of a {type(x).__name__}: pass tensors")


def as_array(values: Any) -> np.ndarray:
    """A tensor on any device, or anything else that NumPy reads, as an array.

    Args:
        values: numbers.
    """
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)


class _Length:
    """The number of rows of something, for scikit-learn's length check."""

    def __init__(self, X: Any) -> None:
        self.shape = (num_samples(X),)

    def __len__(self) -> int:
        return self.shape[0]


def _plain(X: Tensor, who: str, *, floating: bool = True) -> Tensor:
    X = X.detach()
    if X.is_complex():
        raise ValueError(f"Complex data not supported by {who}: pass real and imaginary parts as columns")
    if X.is_sparse or X.layout != torch.strided:
        raise TypeError(f"{who} expects dense rows, got a sparse tensor: pass X.to_dense()")
    if X.dtype in (torch.bfloat16, torch.float16):
        return X.to(torch.float32)
    return X if X.is_floating_point() or not floating else X.to(torch.get_default_dtype())


def _check_counts(estimator: Any, X: Tensor | FeatureMatrix, reset: bool) -> None:
    """What ``validate_data`` asks of shapes, for rows that NumPy shall not touch."""
    who = type(estimator).__name__
    n, d = X.shape
    if n == 0:
        raise ValueError(f"Found array with 0 sample(s) (shape=({n}, {d})) while a minimum of 1 is required by {who}.")
    if d == 0:
        raise ValueError(f"0 feature(s) (shape=({n}, 0)) while a minimum of 1 is required by {who}.")
    if reset:
        estimator.n_features_in_ = d
        if hasattr(estimator, "feature_names_in_"):
            del estimator.feature_names_in_
        return
    expected = getattr(estimator, "n_features_in_", d)
    if d != expected:
        raise ValueError(f"X has {d} features, but {who} is expecting {expected} features as input.")
