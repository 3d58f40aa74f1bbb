"""What every learner promises: scikit-learn's checks, and one answer for every kind of ``X``."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone, is_regressor
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

from tangrams.operators import FeatureMatrix, Rows
from tangrams.operators.dense_rows import PANEL_BYTES, row_panels
from tangrams.operators.sketches.base import Sketch
from tangrams.testing.conformance import Case, Suite, conformance

_METHODS = ("predict_proba", "decision_function", "predict", "transform", "score_samples")


class EstimatorSuite(Suite):
    """Checks of a scikit-learn estimator that takes feature rows.

    A case's ``make()`` gives an estimator that takes ``(n, d)`` rows, with ``y`` where it wants one. ``inputs`` may be
    left out; else it returns ``(X, y)``, tensors. A method that wants what only a kernel gives is a case of its own
    test, not of this suite.
    """

    role = BaseEstimator

    @staticmethod
    def check_numpy_and_torch_agree(case: Case) -> None:
        """The same numbers in an array and in a tensor give the same answers."""
        X, y = data(case)
        same(answers(case, X.numpy(), y.numpy()), answers(case, X, y))

    @staticmethod
    def check_low_precision_tensors_are_read_as_float32(case: Case) -> None:
        """Bfloat16 rows are those float32 rows that they stand for."""
        X, y = data(case)
        same(answers(case, X.bfloat16(), y), answers(case, X.bfloat16().float(), y))

    @staticmethod
    def check_tensors_are_detached(case: Case) -> None:
        """Rows that carry a graph are read without it."""
        X, y = data(case)
        rows = X.clone().requires_grad_() * 1.0
        same(answers(case, rows, y), answers(case, X, y))

    @staticmethod
    def check_feature_matrix_agrees_with_its_rows(case: Case) -> None:
        """A feature matrix gives the answers of its dense rows."""
        X, y = data(case)
        same(answers(case, FeatureMatrix(rows=X), y), answers(case, X, y), rtol=1e-6)

    @staticmethod
    def check_stored_rows_are_never_held_whole(case: Case) -> None:
        """Rows on disk are read in panels: a source too wide to be held gives the answers of its inner products."""
        X, y = data(case)
        wide, narrow = (fitted(case, FeatureMatrix(rows=rows), y) for rows in (WideRows(X), X))
        left, right = read(wide, FeatureMatrix(rows=WideRows(X))), read(narrow, FeatureMatrix(rows=X))
        shared = {name for name in left if left[name].shape == right[name].shape}
        same({name: left[name] for name in shared}, {name: right[name] for name in shared}, rtol=1e-6)

    @staticmethod
    def check_another_number_of_features_is_refused(case: Case) -> None:
        """Whatever kind ``X`` is of, what was not fitted is named."""
        X, y = data(case)
        estimator = fitted(case, X, y)
        for method in _METHODS:
            if hasattr(estimator, method):
                for wrong in (X[:, 1:], FeatureMatrix(rows=X[:, 1:].contiguous())):
                    refused(lambda m=method, w=wrong: getattr(estimator, m)(w), "features")

    @staticmethod
    def check_nan_rows_are_refused(case: Case) -> None:
        """A NaN in a tensor is refused with a ``ValueError``, as in an array."""
        X, y = data(case)
        X[3, 1] = float("nan")
        refused(lambda: fitted(case, X, y), "NaN")

    @staticmethod
    def check_clones_and_pickles_answer_alike(case: Case) -> None:
        """A clone fits to the same answers; a fitted one survives pickling."""
        X, y = data(case)
        estimator = fitted(case, X, y)
        copy: Any = clone(estimator)
        same(read(copy.fit(X, y), X), read(estimator, X))
        same(read(pickle.loads(pickle.dumps(estimator)), X), read(estimator, X))

    @staticmethod
    def check_nothing_else_changes(case: Case) -> None:
        """Fitting leaves inputs, random states and the default dtype as they were."""
        X, y = data(case)
        state: Any = np.random.get_state
        before = X.clone(), torch.get_rng_state(), state()[1].copy(), torch.get_default_dtype()
        read(fitted(case, X, y), X)
        if not torch.equal(before[0], X):
            raise AssertionError("fitting changed its input")
        if not torch.equal(before[1], torch.get_rng_state()):
            raise AssertionError("fitting drew from torch's global generator")
        if not np.array_equal(before[2], state()[1]):
            raise AssertionError("fitting drew from NumPy's global generator")
        if before[3] is not torch.get_default_dtype():
            raise AssertionError("fitting changed the default dtype")


def estimator_conformance(*cases: Case) -> type:
    """A pytest class that runs :class:`EstimatorSuite` and all of scikit-learn's checks on every case.

    Bind the result to a name that starts with ``Test``. No check of scikit-learn's may be excused.

    Args:
        *cases: one per estimator, or per way of making it.
    """
    ours = conformance(EstimatorSuite, *cases)

    class TestEstimators(ours):  # type: ignore[valid-type,misc]
        @parametrize_with_checks([case.make() for case in cases])
        def test_scikit_learn(self, estimator: Any, check: Any) -> None:
            check(estimator)

    return TestEstimators


class WideRows:
    """The rows of a matrix repeated side by side until they exceed what may be held: a store in miniature.

    Inner products are those of the matrix. Dense rows are made when asked for, a panel at a time; all of them at once
    are refused.

    Args:
        tensor: the rows that are repeated, float32 or float64.
        times: how often; by default until they are twice a panel.
    """

    def __init__(self, tensor: Tensor, times: int | None = None) -> None:
        size = tensor.numel() * tensor.element_size()
        self.tensor = tensor
        self.times = 2 * PANEL_BYTES // size + 1 if times is None else times

    @property
    def shape(self) -> torch.Size:
        """``(N, d · times)``."""
        return torch.Size((self.tensor.shape[0], self.tensor.shape[1] * self.times))

    @property
    def dtype(self) -> torch.dtype:
        """The tensor's."""
        return self.tensor.dtype

    @property
    def device(self) -> torch.device:
        """The tensor's."""
        return self.tensor.device

    def matmul(self, v: Tensor) -> Tensor:
        """``Φ v``, from the sum of v's pieces."""
        pieces = v.reshape(self.times, self.tensor.shape[1], -1).sum(0)
        return self.tensor @ pieces / self.times**0.5

    def t_matmul(self, u: Tensor) -> Tensor:
        """``Φᵀ u``."""
        return (self.tensor.mT @ u).repeat(self.times, 1) / self.times**0.5

    def dense(self) -> Tensor:
        """A panel of rows.

        Raises:
            MemoryError: if they are more than a panel.
        """
        n, d = self.shape
        if n * d * self.dtype.itemsize > PANEL_BYTES:
            raise MemoryError(f"{n} rows of {d} features were asked for at once")
        return self.tensor.repeat(1, self.times) / self.times**0.5

    def diag(self) -> Tensor:
        """Squared norms."""
        return self.tensor.square().sum(1)

    def gram(self, other: Rows) -> Tensor:
        """``Φ Ψᵀ``."""
        if isinstance(other, WideRows):
            return self.tensor @ other.tensor.mT
        return torch.cat([self.matmul(panel.mT) for _, _, panel in row_panels(other)], dim=1)

    def take(self, index: Tensor) -> WideRows:
        """Some of the rows."""
        return WideRows(self.tensor[index], self.times)

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> WideRows:
        """The same rows in another dtype or place."""
        return WideRows(self.tensor.to(device=device, dtype=dtype), self.times)

    def project(self, sketch: Sketch) -> Tensor:
        """``Φ Sᵀ``, panel by panel."""
        return torch.cat([sketch.project(panel) for _, _, panel in row_panels(self)])


def data(case: Case, n: int = 24) -> tuple[Tensor, Tensor]:
    """Rows and targets that suit the estimator: three blobs, or a linear function of five features."""
    generator = torch.Generator().manual_seed(0)
    if case.inputs is not None:
        return case.inputs(n, generator)
    estimator = case.make()
    X = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(n) % 3
    if is_regressor(estimator):
        return X, X @ torch.arange(1.0, 6.0, dtype=torch.float64)
    X[torch.arange(n), labels] += 3
    return X, labels


def fitted(case: Case, X: Any, y: Any) -> Any:
    """A fresh estimator, fitted."""
    return case.make().fit(X, y)


def answers(case: Case, X: Any, y: Any) -> dict[str, np.ndarray]:
    """What a fresh estimator says once fitted."""
    return read(fitted(case, X, y), X)


def read(estimator: Any, X: Any) -> dict[str, np.ndarray]:
    """Everything that a fitted estimator says about ``X``, and its learned arrays where it says nothing."""
    found = {name: np.asarray(getattr(estimator, name)(X)) for name in _METHODS if hasattr(estimator, name)}
    for name, value in vars(estimator).items():
        if name.endswith("_") and not name.startswith("_") and isinstance(value, np.ndarray):
            found[name] = value
    if not found:
        raise AssertionError(f"{type(estimator).__name__} has no answer to compare: neither methods nor arrays")
    return found


def same(left: dict[str, np.ndarray], right: dict[str, np.ndarray], rtol: float = 1e-9) -> None:
    """Raise an ``AssertionError`` that names the first array where two sets of answers differ."""
    for name in left.keys() | right.keys():
        a, b = left[name], right[name]
        if a.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=name)
            continue
        scale = float(np.nanmax(abs(b), initial=1.0))
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol * scale, err_msg=name)


def refused(call: Any, word: str) -> None:
    """Raise unless ``call()`` raises a ``ValueError`` whose message has ``word``.

    Raises:
        AssertionError: if it does not.
    """
    try:
        call()
    except ValueError as error:
        if word not in str(error):
            raise AssertionError(f"the refusal does not say {word!r}: {error}") from error
        return
    raise AssertionError("nothing was refused")
