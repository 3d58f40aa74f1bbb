"""Classifier and regressor of cascades of polyharmonic spline packages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import as_features, as_targets
from tangrams.learners.cascade_solver import CascadeSolver
from tangrams.nn.polyharmonic import PolyharmonicCascade
from tangrams.operators import FeatureMatrix, as_feature_matrix, row_panels
from tangrams.operators.constellation import OFFSET, SHIFT

_MAX_FEATURES = 1 << 16
"""A batch of 2000 samples has 2 GiB of spline features there."""


class _CascadeBase(BaseEstimator):
    """What both estimators share: normalised columns, batches in random order, one cascade per output."""

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        hidden: Sequence[int] = (32, 16),
        *,
        alpha: float = 0.1,
        batch_size: int = 2000,
        epochs: int = 10,
        b: float = SHIFT,
        c: float = OFFSET,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.alpha = alpha
        self.batch_size = batch_size
        self.epochs = epochs
        self.b = b
        self.c = c
        self.random_state = random_state

    def _fit_cascade(self, X: Tensor | FeatureMatrix, targets: np.ndarray) -> None:
        if self.batch_size < 1 or self.epochs < 1:
            raise ValueError(
                f"{type(self).__name__} needs batch_size and epochs ≥ 1, got {self.batch_size} and {self.epochs}"
            )
        if X.shape[1] > _MAX_FEATURES:
            raise ValueError(
                f"{type(self).__name__} has two nodes per feature and takes at most {_MAX_FEATURES} features, got "
                f"{X.shape[1]}: sketch them first, phi >> CountSketch(k)"
            )
        self.mean_, self.scale_ = _column_scales(X)
        y = torch.from_numpy(targets).to(X.device, torch.float64)
        generator = torch.Generator().manual_seed(int(self.random_state))
        widths = (X.shape[1], *self.hidden, 1)
        cascade = PolyharmonicCascade(widths, y.shape[1], self.b, self.c, generator=generator, dtype=torch.float64)
        self.cascade_ = cascade.to(X.device)
        solver = CascadeSolver(self.cascade_)
        size = min(self.batch_size, len(y))
        self.loss_curve_, self.radius_ = [], ()
        for _ in range(self.epochs):
            order = torch.randperm(len(y), generator=generator).to(X.device)
            batches = order[: len(y) // size * size].split(size)  # the last partial batch is dropped
            steps = [solver.step(self._rows(X, batch), y[batch], self.alpha * size) for batch in batches]
            self.loss_curve_.append(float(np.mean([step.loss for step in steps])))
            self.radius_ = steps[-1].radius

    def _rows(self, X: Tensor | FeatureMatrix, index: Tensor) -> Tensor:
        return self._normalised(X.rows.take(index).dense() if isinstance(X, FeatureMatrix) else X[index])

    def _normalised(self, rows: Tensor) -> Tensor:
        mean, scale = (torch.from_numpy(a).to(rows.device) for a in (self.mean_, self.scale_))
        return (rows.to(torch.float64) - mean) * scale

    @torch.no_grad()
    def _outputs(self, X: Any) -> np.ndarray:
        check_is_fitted(self, "cascade_")
        rows = as_feature_matrix(as_features(self, X, reset=False)).rows
        device = next(self.cascade_.parameters()).device
        found = [self.cascade_(self._normalised(panel.to(device))) for _, _, panel in row_panels(rows)]
        return torch.cat(found).cpu().numpy()


def _column_scales(X: Tensor | FeatureMatrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / (max − min) of every column, zero where it is constant; one pass."""
    total = torch.zeros(X.shape[1], dtype=torch.float64, device=X.device)
    low, high = torch.full_like(total, torch.inf), torch.full_like(total, -torch.inf)
    for _, _, panel in row_panels(as_feature_matrix(X).rows):
        panel = panel.to(torch.float64)
        total += panel.sum(0)
        low, high = torch.minimum(low, panel.amin(0)), torch.maximum(high, panel.amax(0))
    spread = high - low
    scale = torch.where(spread > 0, 1 / torch.where(spread > 0, spread, 1.0), 0.0)
    return (total / X.shape[0]).cpu().numpy(), scale.cpu().numpy()


class CascadeClassifier(ClassifierMixin, _CascadeBase):
    r"""A cascade of spline packages for every class against the rest, trained by damped dual Gauss–Newton [097].

    Columns are centred and divided by their range; targets are ±1. No learning rate, no skips: depth is in ``hidden``.

    Args:
        hidden: widths between the features and the output.
        alpha: damping per sample of a batch: the paper's α = 200 for batches of 2000 is 0.1.
        batch_size: samples per step; the last partial batch of an epoch is dropped.
        epochs: passes over the samples.
        b: shift of the kernel's logarithm.
        c: the kernel's value at zero.
        random_state: draws the values and the order of samples.

    Attributes:
        classes_: the class labels, sorted.
        cascade_: the trained :class:`~tangrams.nn.PolyharmonicCascade`, one model per class, one in all for two.
        mean_: of the columns.
        scale_: what columns are multiplied with, zero where constant.
        loss_curve_: mean squared error of each epoch, before its steps.
        radius_: the largest norm that each package saw last; far above one, splines extrapolate.

    Shape:
        ``X (n, d)``, ``y (n,)`` → classes ``(m,)``.
    """

    def fit(self, X: Any, y: Any) -> CascadeClassifier:
        """Fit to class labels ``(n,)``."""
        X = as_features(self, X)
        y = as_targets(self, X, y)
        check_classification_targets(y)
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError(f"CascadeClassifier needs at least two classes, got one class: {self.classes_[0]!r}")
        signs = 2.0 * np.eye(len(self.classes_))[index] - 1
        self._fit_cascade(X, signs if len(self.classes_) > 2 else signs[:, 1:])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Outputs, about ±1: ``(m, C)``, of the second class alone where there are two, ``(m,)``."""
        outputs = self._outputs(X)
        return outputs[:, 0] if len(self.classes_) == 2 else outputs

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest output."""
        scores = self.decision_function(X)
        return self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)]


class CascadeRegressor(MultiOutputMixin, RegressorMixin, _CascadeBase):
    r"""A cascade of spline packages for every target, trained by damped dual Gauss–Newton [097].

    Columns are centred and divided by their range; targets are centred and divided by their standard deviation.

    Args:
        hidden: widths between the features and the output.
        alpha: damping per sample of a batch: the paper's α = 1000 for batches of 2000 is 0.5.
        batch_size: samples per step; the last partial batch of an epoch is dropped.
        epochs: passes over the samples.
        b: shift of the kernel's logarithm.
        c: the kernel's value at zero.
        random_state: draws the values and the order of samples.

    Attributes:
        cascade_: the trained :class:`~tangrams.nn.PolyharmonicCascade`, one model per target.
        mean_: of the columns.
        scale_: what columns are multiplied with, zero where constant.
        loss_curve_: mean squared error of the standardised targets in each epoch, before its steps.
        radius_: the largest norm that each package saw last; far above one, splines extrapolate.

    Shape:
        ``X (n, d)``, ``y (n,)`` or ``(n, C)`` → predictions like ``y``.
    """

    def fit(self, X: Any, y: Any) -> CascadeRegressor:
        """Fit to targets ``(n,)`` or ``(n, C)``."""
        X = as_features(self, X)
        y = as_targets(self, X, y, multi_output=True)
        targets = y.reshape(len(y), -1).astype(np.float64)
        self._flat = y.ndim == 1
        self._target_mean, spread = targets.mean(0), targets.std(0)
        self._target_scale = np.where(spread > 0, spread, 1.0)
        self._fit_cascade(X, (targets - self._target_mean) / self._target_scale)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The cascades' outputs, in units of the targets."""
        outputs = self._outputs(X) * self._target_scale + self._target_mean
        return outputs[:, 0] if self._flat else outputs
