"""Least squares on a sketch of the rows, accurate in every coordinate [032]."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import as_array, as_features, as_targets
from tangrams.operators import FeatureMatrix, PooledHadamardSketch, Sketch, as_feature_matrix, row_panels
from tangrams.operators.krylov import conjugate_gradients


class RankDeficientSketchError(ValueError):
    """A sketched design has dependent columns: the coefficients are not determined."""


class SketchedLeastSquares(MultiOutputMixin, RegressorMixin, BaseEstimator):
    r"""Least squares from k sketched rows in place of n, with a standard error for every coefficient.

    .. math:: x' = \arg\min_x \|S A x - S b\|_2, \qquad
        \|x' - x^*\|_\infty \le \frac{\epsilon}{\sqrt d} \|A x^* - b\|_2 \|A^+\|_2

    The bound for each coordinate is √d below what the residual's alone gives. It needs a dense sketch: a sparse one can
    drop the whole residual on one coefficient. Of the paper's two, the guarantee for the plain Hadamard sketch at
    k = d polylog is open (its proof applies a bound for fixed vectors to one that depends on S, as a follow-up by two
    of its authors says), so the default is the pooled one, for which it is proven at k = O(ε⁻² d log d).

    Rows are read once, in panels, A and b by the same draws; SA is factorised by QR, never through normal equations.
    With k ≥ n the answer is the exact one, of least norm. On ``n > k`` rows the sketched problem is a regression with k
    samples, and so are its standard errors, exactly so for a Gaussian sketch: ``coordinate_error_``.

    Args:
        sketch: S, unbound, k features; None: ``PooledHadamardSketch(⌈4 d/ε²⌉)``, our choice of the constant.
        epsilon: ε for the default sketch and for :meth:`coordinate_error_bound`.
        fit_intercept: whether a column of ones is added.
        refinements: steps of conjugate gradients on all rows from x', preconditioned with the sketch's factor; each
            reads the rows twice and shrinks the error about by √(d/k). 0: sketch and solve.
        random_state: other draws than the sketch's own seed.

    Attributes:
        coef_: x', ``(d,)`` or ``(C, d)``.
        intercept_: the coefficient of the ones, 0 without.
        sketch_: the sketch, bound to the rows; None where the answer is exact.
        coordinate_error_: standard errors of ``coef_`` against x*, estimated from the sketch alone; 0 where exact.

    Shape:
        ``X (n, d)``, ``y (n,)`` or ``(n, C)``.

    Example:
        >>> X = torch.arange(6000.0).reshape(2000, 3) % 7
        >>> SketchedLeastSquares(epsilon=0.25).fit(X, X @ torch.tensor([1.0, 2.0, 3.0])).coef_.round(6)
        array([1., 2., 3.])
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        sketch: Sketch | None = None,
        *,
        epsilon: float = 0.5,
        fit_intercept: bool = False,
        refinements: int = 0,
        random_state: int | None = None,
    ) -> None:
        self.sketch = sketch
        self.epsilon = epsilon
        self.fit_intercept = fit_intercept
        self.refinements = refinements
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> SketchedLeastSquares:
        """Fit to targets ``(n,)`` or ``(n, C)``.

        Args:
            X: feature rows.
            y: targets.

        Raises:
            ValueError: if the sketch has fewer features than there are coefficients.
        """
        if not 0 < self.epsilon < 1:
            raise ValueError(f"SketchedLeastSquares expects 0 < epsilon < 1, got {self.epsilon}")
        X = as_features(self, X)
        targets = as_targets(self, X, y, multi_output=True)
        self._flat = targets.ndim == 1
        rows = as_feature_matrix(X)
        Y = torch.from_numpy(targets.reshape(len(targets), -1).astype(np.float64)).to(rows.device)
        d = rows.shape[1] + bool(self.fit_intercept)
        sketch = self._sketch(d)
        if sketch.num_features >= len(Y):
            self.sketch_, self._factor, self._residual = None, None, torch.zeros(Y.shape[1])
            coef, error = self._exact(rows, Y)
        else:
            if sketch.num_features < d:
                raise ValueError(
                    f"SketchedLeastSquares has {d} coefficients and {sketch!r} only {sketch.num_features} features: "
                    "take a larger sketch"
                )
            self.sketch_ = sketch.bind(len(Y))
            solution = sketched_lstsq(*sketch_rows(self.sketch_, rows, Y, ones=self.fit_intercept))
            self._factor, self._residual = solution.factor, solution.residual
            coef, error = self._refined(rows, Y, solution), solution.standard_error()
        self._keep(coef, error)
        return self

    def _sketch(self, d: int) -> Sketch:
        sketch = self.sketch
        if sketch is None:
            sketch = PooledHadamardSketch(math.ceil(4 * d / self.epsilon**2))
        if not isinstance(sketch, Sketch):
            raise ValueError(f"SketchedLeastSquares expects a Sketch, such as HadamardSketch(256), got {sketch!r}")
        return sketch if self.random_state is None else sketch.with_seed(self.random_state)

    def _keep(self, coef: Float[Tensor, "d C"], error: Float[Tensor, "d C"]) -> None:
        if self.fit_intercept:
            intercept, coef, error = as_array(coef[-1]), coef[:-1], error[:-1]
            self.intercept_: Any = float(intercept[0]) if self._flat else intercept
        else:
            self.intercept_ = 0.0
        self.coef_, self.coordinate_error_ = (
            as_array(values[:, 0] if self._flat else values.mT) for values in (coef, error)
        )

    def _exact(self, rows: FeatureMatrix, Y: Float[Tensor, "n C"]) -> tuple[Tensor, Tensor]:
        """The least-squares solution of least norm, through the Gram matrix where there are more features than rows."""
        n, d = rows.shape
        ones = Y.new_ones(n, int(bool(self.fit_intercept)))
        if d <= n:
            A = torch.cat([rows.to_dense().double(), ones], 1)
            coef = torch.from_numpy(np.linalg.lstsq(as_array(A), as_array(Y), rcond=None)[0]).to(Y.device)
        else:
            K = (rows @ rows.mT).to_dense().double() + ones @ ones.mT
            alpha = torch.linalg.pinv(K, rtol=n * torch.finfo(K.dtype).eps, hermitian=True) @ Y
            coef = torch.cat([(rows.mT @ alpha.to(rows.dtype)).double(), ones.mT @ alpha])
        return coef, torch.zeros_like(coef)

    def _refined(self, rows: FeatureMatrix, Y: Float[Tensor, "n C"], solution: SketchedSolution) -> Tensor:
        if self.refinements < 1:
            return solution.coef
        rows, R = rows.to(torch.float64), solution.factor
        ones = Y.new_ones(len(Y), int(bool(self.fit_intercept)))
        d = rows.shape[1]

        def forward(x: Tensor) -> Tensor:
            return rows @ x[:d] + ones @ x[d:]

        def whiten(u: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(R.mT, torch.cat([rows.mT @ u, ones.mT @ u]), upper=False)

        def unwhiten(z: Tensor) -> Tensor:
            return torch.linalg.solve_triangular(R, z, upper=True)

        # In z = R x the design A R⁻¹ is nearly orthonormal: its normal equations are well-conditioned.
        right = whiten(Y - forward(solution.coef))
        z, _ = conjugate_gradients(lambda z: whiten(forward(unwhiten(z))), right, lambda v: v, 1e-14, self.refinements)
        return solution.coef + unwhiten(z)

    def predict(self, X: Any) -> np.ndarray:
        """``X x'``, of the shape of ``y``."""
        check_is_fitted(self, "coef_")
        rows = as_features(self, X, reset=False)
        coef = torch.from_numpy(np.atleast_2d(self.coef_)).mT
        product = rows @ coef.to(dtype=rows.dtype, device=rows.device)
        answer = as_array(product).astype(np.float64) + self.intercept_
        return answer[:, 0] if self._flat else answer

    def coordinate_error_bound(self, epsilon: float | None = None) -> np.ndarray:
        r"""``(ε/√d) ‖Ax* − b‖ ‖A⁺‖``, the paper's bound, with both norms estimated from the sketch: one per target.

        Args:
            epsilon: ε; by default the estimator's own.
        """
        check_is_fitted(self, "coef_")
        if self._factor is None:
            return np.zeros(len(self._residual))
        smallest = float(torch.linalg.svdvals(self._factor)[-1])
        epsilon = self.epsilon if epsilon is None else epsilon
        return as_array(self._residual) * (epsilon / math.sqrt(len(self._factor)) / smallest)

    def distortion(self, X: Any) -> tuple[float, float]:
        """The extreme singular values of ``S U``, U an orthonormal basis of the design: 1 and 1 without distortion.

        Args:
            X: the rows of the fit, read once more.
        """
        check_is_fitted(self, "coef_")
        rows = as_feature_matrix(as_features(self, X, reset=False))
        if self._factor is None:
            return 1.0, 1.0
        R, gram = self._factor, torch.zeros_like(self._factor)
        for _, _, panel in row_panels(rows.rows):
            panel = panel.double()
            if self.fit_intercept:
                panel = torch.cat([panel, panel.new_ones(len(panel), 1)], 1)
            white = torch.linalg.solve_triangular(R.mT, panel.mT, upper=False)
            gram.addmm_(white, white.mT)
        squares = torch.linalg.eigvalsh(gram)
        return float(squares[-1]) ** -0.5, float(squares[0]) ** -0.5


def sketch_rows(
    sketch: Sketch, rows: FeatureMatrix, Y: Float[Tensor, "n C"], *, ones: bool = False
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k C"]]:
    """``S A`` and ``S B`` in one pass over the rows, in float64.

    Args:
        sketch: bound to n columns, the rows of A.
        rows: A.
        Y: B.
        ones: whether A gets a last column of ones.
    """
    n, d = rows.shape
    SA = torch.zeros(d + bool(ones), sketch.num_features, dtype=torch.float64, device=rows.device)
    SB = torch.zeros(Y.shape[1], sketch.num_features, dtype=torch.float64, device=rows.device)
    for start, _, panel in row_panels(rows.rows):
        sketch.accumulate(panel.mT, start, SA[:d])
    sketch.accumulate(Y.mT, 0, SB)
    if ones:
        sketch.accumulate(Y.new_ones(1, n), 0, SA[d:])
    return SA.mT, SB.mT


@dataclass(frozen=True)
class SketchedSolution:
    """A least-squares solution on sketched rows.

    Attributes:
        coef: x', ``(d, C)``.
        factor: R of ``SA = QR``.
        residual: ``‖S A x' − S b‖ √(k / (k − d))``, an estimate of ``‖A x* − b‖``, one per target.
        rows: k.
    """

    coef: Float[Tensor, "d C"]
    factor: Float[Tensor, "d d"]
    residual: Float[Tensor, "C"]
    rows: int

    def standard_error(self) -> Float[Tensor, "d C"]:
        r"""``‖r‖ √((AᵀA)⁻¹_jj / k)`` from the sketch alone: those of a regression with k samples.

        Given SA, a Gaussian sketch of the residual is independent noise of variance ``‖r‖²/k``, and the estimate then
        has Student's law with k − d degrees of freedom; other sketches come near.
        """
        eye = torch.eye(len(self.factor), dtype=self.factor.dtype, device=self.factor.device)
        inverse = torch.linalg.solve_triangular(self.factor, eye, upper=True)
        return inverse.norm(dim=1)[:, None] * (self.residual / math.sqrt(self.rows))


def sketched_lstsq(SA: Float[Tensor, "k d"], SB: Float[Tensor, "k C"]) -> SketchedSolution:
    """Least squares on rows that are sketched already, by QR.

    Args:
        SA: the sketched design, such as :meth:`~tangrams.operators.TensorHadamardSketch.project_kronecker` gives.
        SB: the sketched targets.

    Raises:
        RankDeficientSketchError: if columns of ``SA`` depend on one another.
        ValueError: if there are fewer rows than columns.
    """
    k, d = SA.shape
    if k < d:
        raise ValueError(f"sketched_lstsq needs at least as many rows as columns, got {tuple(SA.shape)}")
    Q, R = torch.linalg.qr(SA.double())
    values = torch.linalg.svdvals(R)
    rank = int((values > values[0] * max(k, d) * torch.finfo(R.dtype).eps).sum())
    if rank < d:
        raise RankDeficientSketchError(
            f"the sketched design has rank {rank} of {d}: its columns depend on one another, or {k} sketched rows are "
            "too few; drop columns or take a larger sketch"
        )
    QB = Q.mT @ SB.double()
    coef = torch.linalg.solve_triangular(R, QB, upper=True)
    left = (SB.double() - Q @ QB).norm(dim=0)
    return SketchedSolution(coef, R, left * math.sqrt(k / (k - d)) if k > d else left * math.inf, k)


def linf_error_ratio(x_sketch: Any, x_star: Any, A: Any, b: Any) -> float:
    r"""``√d ‖x' − x*‖_∞ / (‖A x* − b‖₂ ‖A⁺‖₂)``: ε in the bound that a sketched solution attains [032].

    Args:
        x_sketch: the sketched solution, ``(d,)``.
        x_star: the exact one.
        A: the design, ``(n, d)``.
        b: the targets, ``(n,)``.

    Raises:
        ValueError: if the residual is zero and the solutions are not the same.
    """
    x, x_star, A, b = (as_array(value).astype(np.float64) for value in (x_sketch, x_star, A, b))
    error = float(np.abs(x - x_star).max())
    scale = float(np.linalg.norm(A @ x_star - b)) / float(np.linalg.svd(A, compute_uv=False)[-1])
    if scale == 0:
        if error:
            raise ValueError("linf_error_ratio: b is in the range of A, the bound is zero and the solutions differ")
        return 0.0
    return math.sqrt(x.size) * error / scale
