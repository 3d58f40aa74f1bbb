"""Regression over a join of tables from coordinated samples of their rows [068]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from tangrams.learners.base import as_array, as_features, as_targets
from tangrams.operators.sampling import PrioritySampler, RowSample, RowSampler, estimate_product


class JoinRegression(RegressorMixin, BaseEstimator):
    r"""Least squares on columns that several parties hold, of which each sends a sample of its rows.

    .. math:: \beta = (M + \alpha I)^{-1} m, \qquad M_{ab} \approx X_a^T X_b, \quad m_a \approx X_a^T y

    Every block is an unbiased :func:`~tangrams.operators.sampling.estimate_product` of two samples; a key that a table
    lacks is a row of zeros in it. The blocks are estimated apart, so that M may be indefinite: its negative eigenvalues
    are then set to zero, and ``projected_`` says so. M is estimated from samples throughout, though a party could send
    its exact ``XᵀX``: the errors of M and m come from the same rows and largely cancel, and with exact blocks the
    coefficients were half as accurate. For the same reason samples by keys alone, ``weights=uniform``, do better than
    those by norms where rows are alike: all tables then keep the same keys. A column of ones in one of the tables is an
    intercept.

    Args:
        sampler: what :meth:`fit` samples a table with; None: ``PrioritySampler(1024)``.
        alpha: the ridge, of the sums.

    Attributes:
        coef_: β, the tables' columns one after another.
        moments_: M, after symmetrising and projecting.
        projected_: whether M had negative eigenvalues.

    Shape:
        ``X (n, d)``, ``y (n,)``.

    Example:
        >>> from tangrams.operators import PrioritySampler
        >>> sample = PrioritySampler(100).sample
        >>> a, b = torch.arange(20.0).reshape(10, 2).square(), torch.ones(10, 1)
        >>> y = a @ torch.tensor([[1.0], [2.0]]) + 3 * b
        >>> model = JoinRegression().fit_samples([sample(a), sample(b)], sample(y))
        >>> model.predict(torch.tensor([[1.0, 1.0, 1.0]])).round(3)
        array([6.], dtype=float32)
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(self, sampler: RowSampler | None = None, *, alpha: float = 0.0) -> None:
        self.sampler = sampler
        self.alpha = alpha

    def fit(self, X: Any, y: Any) -> JoinRegression:
        """Sample one table and its target, and fit to the samples."""
        X = as_features(self, X)
        y = torch.from_numpy(as_targets(self, X, y).astype(np.float64))
        sampler = PrioritySampler(1024) if self.sampler is None else self.sampler
        if not isinstance(sampler, RowSampler):
            raise ValueError(f"JoinRegression expects a RowSampler, such as PrioritySampler(1024), got {sampler!r}")
        return self.fit_samples([sampler.sample(X)], sampler.sample(y))

    def fit_samples(self, tables: Sequence[RowSample], target: RowSample) -> JoinRegression:
        """Fit to the samples that the parties sent.

        Args:
            tables: one of each table with columns of the design.
            target: of the table with the target, one column.

        Raises:
            ValueError: if there is no table, or the target has more than one column.
        """
        if not tables or target.num_features != 1:
            raise ValueError(
                f"JoinRegression needs tables and one target column, got {len(tables)} tables and "
                f"{target.num_features} columns"
            )
        if not self.alpha >= 0:
            raise ValueError(f"JoinRegression expects alpha ≥ 0, got {self.alpha}")
        self.n_features_in_ = sum(table.num_features for table in tables)
        blocks: list[list[Tensor]] = []
        for a, left in enumerate(tables):
            lower = [blocks[b][a].mT for b in range(a)]
            blocks.append([*lower, *(estimate_product(left, right).cpu() for right in tables[a:])])
        M = torch.cat([torch.cat(row, 1) for row in blocks])
        m = torch.cat([estimate_product(table, target).cpu() for table in tables])[:, 0]
        values, V = torch.linalg.eigh((M + M.mT) / 2)
        floor = float(values[-1].clamp_min(0)) * len(values) * torch.finfo(values.dtype).eps
        self.projected_ = bool(values[0] < -floor)
        values = torch.where(values > floor, values, 0.0)
        shifted = values + self.alpha
        inverse = torch.where(shifted > floor, 1 / shifted, 0.0)
        self.moments_ = as_array((V * values) @ V.mT)
        self.coef_ = as_array(V @ (inverse * (V.mT @ m)))
        return self

    def predict(self, X: Any) -> np.ndarray:
        """``X β``, X with the columns of all tables, one table after another."""
        check_is_fitted(self, "coef_")
        rows = as_features(self, X, reset=False)
        coef = torch.from_numpy(self.coef_).to(dtype=rows.dtype, device=rows.device)
        return as_array(rows @ coef)
