"""Ensembles of ridge regressions on sketched features, tuned by cross-validation without refits [024]."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted

from tangrams.learners.base import as_array, as_features, as_targets
from tangrams.learners.sketched_design import SketchedDesign, sketch_designs
from tangrams.operators import CosineSketch, FeatureMatrix, Sketch, as_feature_matrix

PENALTIES: tuple[float, ...] = tuple(float(10.0 ** (e / 3)) for e in range(-12, 10))
"""The penalties tried when none is given, 10⁻⁴ to 10³, in units of the mean eigenvalue of XᵀX/n that is not zero."""

_INTERPOLATES = 1e-6
"""From which share of free dimensions, 1 − d/n, on cross-validation says something."""

Risk = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""``(targets, predictions) → losses``, ``(n,)`` each."""


class DegenerateGCVWarning(UserWarning):
    """Generalised cross-validation of a model that interpolates is 0/0."""


def squared_error(targets: Float[np.ndarray, "n"], predictions: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """``(y − z)²``."""
    return (targets - predictions) ** 2


def sign_error(targets: Float[np.ndarray, "n"], predictions: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Whether the sign is wrong, for targets ±1."""
    return (np.sign(targets) != np.sign(predictions)).astype(np.float64)


class SketchedRidgeEnsemble(RegressorMixin, BaseEstimator):
    r"""The mean of K ridge regressions, each on an independent sketch of the features; it tunes itself in one pass.

    .. math:: b = \frac1K \sum_k S_k^T \left(\tfrac1n S_k X^T X S_k^T + \lambda I\right)^{-1} \tfrac1n S_k X^T y

    With d the mean of the K smoother traces (one more with an intercept) and ŷ the ensemble's fit, generalised
    cross-validation ``(1/n) ‖y − ŷ‖² / (1 − d/n)²`` is consistent for the squared risk, for any penalty, sketch size,
    number of members and sketch that is asymptotically free. Any other risk is estimated on the *corrected
    predictions* ``z = (ŷ − (d/n) y) / (1 − d/n)``, which stand for predictions on new samples, and the quantiles of
    ``y − z`` give prediction intervals.

    The data are read once, for all candidate sketches and members; each penalty then costs O(n rank). A smaller sketch
    is a larger ridge, :meth:`equivalent_ridge`, and what the sketches add to the risk falls as 1/K.

    Args:
        sketch: one to use or several to choose from, unbound or bound to the features; None: cosine sketches of a
            quarter, a half and all of ``min(n, p)``.
        penalty: λ, one or several to choose from; None: :data:`PENALTIES`. May be negative down to minus the smallest
            eigenvalue of a member that is not zero.
        n_estimators: K.
        fit_intercept: whether the means are taken off.
        risk: what is estimated and minimised: :func:`squared_error`, :func:`sign_error` or your own.
        random_state: other draws than those of the sketch's own seed.

    Attributes:
        sketch_: the sketch chosen.
        penalty_: the penalty chosen.
        coef_: b, ``(p,)``.
        intercept_: the intercept.
        effective_dof_: d.
        corrected_predictions_: z, ``(n,)``.
        penalties_: what was chosen from.
        risk_path_: the estimated risk of every sketch and penalty, NaN where it interpolates.

    Shape:
        ``X (n, p)``, ``y (n,)``.

    Example:
        >>> X = torch.randn(60, 100, generator=torch.Generator().manual_seed(0))
        >>> model = SketchedRidgeEnsemble(CosineSketch(40), penalty=0.1).fit(X, X[:, 0])
        >>> model.coef_.shape, bool(model.equivalent_ridge() > 0.1)
        ((100,), True)
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        sketch: Sketch | Sequence[Sketch] | None = None,
        *,
        penalty: float | Sequence[float] | None = None,
        n_estimators: int = 5,
        fit_intercept: bool = True,
        risk: Risk = squared_error,
        random_state: int | None = None,
    ) -> None:
        self.sketch = sketch
        self.penalty = penalty
        self.n_estimators = n_estimators
        self.fit_intercept = fit_intercept
        self.risk = risk
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SketchedRidgeEnsemble:
        """Sketch once, estimate the risk of every candidate, and keep the best.

        Args:
            X: feature rows.
            y: targets.

        Raises:
            ValueError: if there is no member, or a penalty is too negative.
        """
        if self.n_estimators < 1:
            raise ValueError(f"SketchedRidgeEnsemble expects n_estimators ≥ 1, got {self.n_estimators}")
        X = as_features(self, X)
        self._y = as_targets(self, X, y).astype(np.float64)
        rows = as_feature_matrix(X)
        sketches = self._candidates(rows)
        members = [self._members(sketch, rows.shape[1]) for sketch in sketches]
        designs = sketch_designs(rows, [sketch for group in members for sketch in group], self.fit_intercept)
        K = self.n_estimators
        groups = [designs[i * K : (i + 1) * K] for i in range(len(sketches))]
        self.penalties_ = self._penalties(rows)
        self.risk_path_ = np.array([self._path(group) for group in groups])
        which, best = self._best()
        self.sketch_ = sketches[which].bind(rows.shape[1]) if sketches[which].columns is None else sketches[which]
        self._designs = groups[which]
        return self.refit(self.penalties_[best])

    def _candidates(self, rows: FeatureMatrix) -> list[Sketch]:
        if self.sketch is None:
            most = min(rows.shape)
            sizes = sorted({max(1, most // 4), max(1, most // 2), most})
            return [CosineSketch(size) for size in sizes]
        found = [self.sketch] if isinstance(self.sketch, Sketch) else list(self.sketch)
        if not found or not all(isinstance(sketch, Sketch) for sketch in found):
            raise ValueError(
                f"SketchedRidgeEnsemble expects a Sketch or several, such as CosineSketch(100), got {self.sketch!r}"
            )
        return found

    def _members(self, sketch: Sketch, p: int) -> list[Sketch]:
        seed = sketch.seed if self.random_state is None else self.random_state
        bound = sketch if sketch.columns is not None else sketch.bind(p)
        return [bound.with_seed(seed * self.n_estimators + k) for k in range(self.n_estimators)]

    def _penalties(self, rows: FeatureMatrix) -> np.ndarray:
        if self.penalty is not None:
            return np.atleast_1d(np.asarray(self.penalty, dtype=np.float64))
        unit = float(rows.diag_gram().double().sum()) / (rows.shape[0] * min(rows.shape))
        return np.array(PENALTIES) * (unit or 1.0)

    def _path(self, designs: Sequence[SketchedDesign]) -> np.ndarray:
        """The estimated risk for every penalty."""
        return np.array([self._risk(designs, penalty, self.risk) for penalty in self.penalties_])

    def _risk(self, designs: Sequence[SketchedDesign], penalty: float, risk: Risk) -> float:
        corrected = self._corrected(designs, penalty)
        return float("nan") if corrected is None else float(np.mean(risk(self._y, corrected)))

    def _fitted(self, designs: Sequence[SketchedDesign], penalty: float) -> tuple[np.ndarray, float]:
        """The ensemble's fit of the training targets, and d."""
        for design in designs:
            design.check(penalty)
        mean = self._y.mean() if self.fit_intercept else 0.0
        target = torch.from_numpy(self._y - mean).to(designs[0].U.device)
        fitted = torch.stack([design.fitted(target, penalty) for design in designs]).mean(0)
        dof = sum(design.dof(penalty) for design in designs) / len(designs) + bool(self.fit_intercept)
        return as_array(fitted) + mean, dof

    def _corrected(self, designs: Sequence[SketchedDesign], penalty: float) -> np.ndarray | None:
        fitted, dof = self._fitted(designs, penalty)
        share = dof / len(self._y)
        return None if 1 - share < _INTERPOLATES else (fitted - share * self._y) / (1 - share)

    def _best(self) -> tuple[int, int]:
        """The sketch and penalty of least estimated risk; the largest penalty where nothing can be said."""
        if np.isnan(self.risk_path_).all():
            if self.risk_path_.size > 1:
                warnings.warn(
                    "every candidate interpolates: the largest penalty is taken", DegenerateGCVWarning, stacklevel=3
                )
            return 0, int(self.penalties_.argmax())
        which, best = divmod(int(np.nanargmin(self.risk_path_)), len(self.penalties_))
        return which, best

    def refit(self, penalty: float) -> SketchedRidgeEnsemble:
        """The same sketches with another penalty, from their decompositions: as a fresh fit.

        A penalty so negative that a member's matrix is not positive definite is a ``ValueError``.

        Args:
            penalty: λ.
        """
        check_is_fitted(self, "risk_path_")
        penalty = float(penalty)
        fitted, dof = self._fitted(self._designs, penalty)  # refuses a penalty that is too negative
        corrected = self._corrected(self._designs, penalty)
        self.penalty_, self.effective_dof_ = penalty, dof
        self.corrected_predictions_ = np.full_like(fitted, np.nan) if corrected is None else corrected
        mean = self._y.mean() if self.fit_intercept else 0.0
        target = torch.from_numpy(self._y - mean).to(self._designs[0].U.device)
        parts = [design.coefficients(target, penalty) for design in self._designs]
        self.coef_ = as_array(torch.stack([coef for coef, _ in parts]).mean(0))
        self.intercept_ = float(mean - sum(offset for _, offset in parts) / len(parts))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """``X b`` and the intercept."""
        check_is_fitted(self, "coef_")
        rows = as_features(self, X, reset=False)
        product = rows @ torch.from_numpy(self.coef_).to(dtype=rows.dtype, device=rows.device)
        return as_array(product).astype(np.float64) + self.intercept_

    def gcv_score(self, risk: Risk | None = None) -> float:
        """The estimated risk of the fitted ensemble; NaN, with a warning, where it interpolates.

        Args:
            risk: of which loss; the estimator's own by default.
        """
        check_is_fitted(self, "coef_")
        score = self._risk(self._designs, self.penalty_, self.risk if risk is None else risk)
        if np.isnan(score):
            warnings.warn(
                f"the ensemble has {self.effective_dof_:.1f} degrees of freedom for {len(self._y)} samples: "
                "cross-validation of an interpolating fit is 0/0",
                DegenerateGCVWarning,
                stacklevel=2,
            )
        return score

    def unsketched_gcv(self) -> float:
        """The cross-validation of ridge regression without a sketch at :meth:`equivalent_ridge`: the ensemble trick.

        With the squared risk falling as ``R_∞ + V/K``, ``R_∞ = (K GCV_K − mean GCV_1) / (K − 1)``.

        Raises:
            ValueError: if there is one member only.
        """
        check_is_fitted(self, "coef_")
        K = len(self._designs)
        if K < 2:
            raise ValueError("SketchedRidgeEnsemble.unsketched_gcv needs at least two members")
        alone = [self._risk([design], self.penalty_, squared_error) for design in self._designs]
        together = self._risk(self._designs, self.penalty_, squared_error)
        return (K * together - float(np.mean(alone))) / (K - 1)

    def equivalent_ridge(self, penalty: float | None = None) -> float:
        r"""μ, the penalty of ridge regression without a sketch that the ensemble tends to as K → ∞.

        With e the eigenvalues of a member's ``S XᵀX Sᵀ/n``, ``w = −(1/p) Σ e/(e + λ)`` and ω the sketch's
        ``orthogonality``, μ = (1 + ω w) / mean(1/(e + λ)), the mean over members of the paper's λ times the
        S-transform at w.

        Args:
            penalty: λ; that of the fit by default.
        """
        check_is_fitted(self, "coef_")
        penalty = self.penalty_ if penalty is None else float(penalty)
        return float(np.mean([design.equivalent_ridge(penalty) for design in self._designs]))

    def prediction_interval(self, X: Any, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of intervals that new targets fall into with probability ``level``.

        Args:
            X: feature rows.
            level: between 0 and 1.

        Raises:
            ValueError: if the level is not between 0 and 1, or the ensemble interpolates.
        """
        check_is_fitted(self, "coef_")
        if not 0 < level < 1:
            raise ValueError(f"SketchedRidgeEnsemble expects 0 < level < 1, got {level}")
        residuals = self._y - self.corrected_predictions_
        if np.isnan(residuals).any():
            raise ValueError("SketchedRidgeEnsemble interpolates and knows no residuals: raise the penalty")
        low, high = np.quantile(residuals, [(1 - level) / 2, (1 + level) / 2])
        prediction = self.predict(X)
        return prediction + low, prediction + high
