"""The Gaussian kernel matrix as an operator with sub-quadratic products."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from tangrams.kernels.gaussian_products.dense import gaussian_block, gaussian_product
from tangrams.kernels.gaussian_products.e2lsh import LSHSearch
from tangrams.kernels.gaussian_products.samplings import KeySampling, SquaredNormSampling
from tangrams.kernels.gaussian_products.searches import ExactSearch, NearPairs, NeighbourSearch
from tangrams.kernels.gaussian_products.sparse import (
    AssumptionViolatedWarning,
    SparsePlan,
    balanced_tau,
    closest_to_the_others,
    plan_product,
    sparse_gaussian_product,
)
from tangrams.operators import FeatureMatrix, block_generator
from tangrams.operators.opaque import OpaqueOperator, fold, unfold

_EXACT_SEARCH = 20_000 * 20_000
"""Up to so many pairs the exact search is the default."""


class SparseGaussianKernelOperator(OpaqueOperator):
    r"""``K_ij = exp(−‖q_i − k_j‖² / 2σ²)`` with products of known error in sub-quadratic time [047].

    .. math:: P\bigl(\lVert y - K x \rVert_2 > ε \lVert x \rVert_2\bigr) \le δ \quad \text{for any signed } x,

    where the kernel matrix is sparse in the sense that its mass ``Σ K`` is O(n). Pairs with K ≥ τ are found by a search
    and added exactly, the rest is estimated from keys that are sampled for every x anew, as many as the sum of squares
    outside the found pairs asks for. So products are functions of x that are *not* linear where anything is sampled;
    of one x they are always the same. Entries, slices and the dense form are exact. Where sampling would take half the
    keys or more, the assumption does not hold: :meth:`build` warns, and products are exact.

    Made by :meth:`build`. Not differentiable in queries and keys: use
    :func:`~tangrams.kernels.gaussian_products.sparse_gaussian_product`, which is.

    Args:
        queries: ``(n, d)``.
        keys: ``(m, d)``.
        sigma: σ.
        plan: which pairs are exact, and how much is left.
        sampling: which keys are drawn for an x.
        repetitions: independent estimates, of which the one closest to the others is taken.
        seed: fixes every draw.

    Shape:
        ``(n, m)``
    """

    def __init__(
        self,
        *,
        queries: Tensor,
        keys: Tensor,
        sigma: float,
        plan: SparsePlan,
        sampling: KeySampling,
        repetitions: int,
        seed: int,
    ) -> None:
        super().__init__(
            queries=queries, keys=keys, sigma=sigma, plan=plan, sampling=sampling, repetitions=repetitions, seed=seed
        )
        self.queries, self.keys, self.sigma, self.plan = queries, keys, sigma, plan
        self.sampling, self.repetitions, self.seed = sampling, repetitions, seed

    @classmethod
    def build(
        cls,
        queries: Tensor,
        keys: Tensor,
        sigma: float,
        *,
        eps: float = 0.1,
        delta: float = 0.1,
        tau: float | None = None,
        search: NeighbourSearch | None = None,
        sampling: KeySampling | None = None,
        max_pairs: int = 1 << 25,
        exact_keys: Tensor | None = None,
        repetitions: int = 1,
        seed: int = 0,
    ) -> SparseGaussianKernelOperator:
        """Search and size once; then multiply with as many x as you like.

        Args:
            queries: ``(n, d)``; detached.
            keys: ``(m, d)``; detached.
            sigma: σ.
            eps: ε, the error in units of ``‖x‖``.
            delta: δ, the chance of a larger one.
            tau: pairs with K ≥ τ are searched for. By default the largest τ at which some 8 √m samples do the rest, so
                that products take time n^1.5; zero: all pairs, so that products are exact.
            search: by default exact up to 20,000 × 20,000 pairs, then :class:`LSHSearch`.
            sampling: :class:`SquaredNormSampling` by default.
            max_pairs: pairs that may be held; more raise τ.
            exact_keys: keys whose columns are always exact, such as :func:`heavy_keys`.
            repetitions: estimates of which the one closest to the others is taken.
            seed: fixes every draw.

        Raises:
            ValueError: for shapes that do not fit, no points, half precision, NaN, and σ, ε or δ out of range.
        """
        who = cls.__name__
        if queries.ndim != 2 or keys.ndim != 2 or queries.shape[1] != keys.shape[1] or not len(queries) * len(keys):
            raise ValueError(
                f"{who} needs queries (n, d) and keys (m, d), at least one of each; got {tuple(queries.shape)} and "
                f"{tuple(keys.shape)}"
            )
        if queries.dtype != keys.dtype or queries.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{who} needs float32 or float64 throughout, got {queries.dtype} and {keys.dtype}: cast")
        for name, points in (("queries", queries), ("keys", keys)):
            if not bool(torch.isfinite(points).all()):
                bad = int((~torch.isfinite(points)).any(1).nonzero()[0])
                raise ValueError(f"{who} got a NaN or an infinity in {name} at row {bad}: clean the data")
        if not (sigma > 0 and eps > 0 and 0 < delta <= 1 and (tau is None or tau >= 0)):
            raise ValueError(f"{who} needs σ > 0, ε > 0, 0 < δ ≤ 1 and τ ≥ 0, got {sigma}, {eps}, {delta} and {tau}")
        if repetitions < 1 or max_pairs < 1:
            raise ValueError(f"{who} needs repetitions and max_pairs ≥ 1, got {repetitions} and {max_pairs}")
        queries, keys = queries.detach(), keys.detach()
        if search is None:
            search = ExactSearch() if len(queries) * len(keys) <= _EXACT_SEARCH else LSHSearch(seed=seed)
        sampling = SquaredNormSampling() if sampling is None else sampling
        if tau is None:
            per_tail = sampling.num_samples(1e6, len(keys)) / 1e6
            target = 8 * math.sqrt(len(keys)) * eps**2 * delta / per_tail
            tau = balanced_tau(queries, keys, sigma, target, seed=seed)
        none = torch.zeros(0, dtype=torch.int64, device=keys.device)
        plan = plan_product(
            queries,
            keys,
            sigma,
            eps=eps,
            delta=delta,
            tau=min(max(tau, 1e-300), 1.0),
            search=search,
            max_pairs=max_pairs,
            exact_keys=none if exact_keys is None else exact_keys.to(keys.device),
            seed=seed,
        )
        made = cls(
            queries=queries,
            keys=keys,
            sigma=sigma,
            plan=plan,
            sampling=sampling,
            repetitions=repetitions,
            seed=seed,
        )
        if made.is_exact:
            n, m = made.shape
            warnings.warn(
                f"the Gaussian kernel matrix of {n} queries and {m} keys at σ = {sigma:.4g} has a mass of "
                f"{plan.mass / max(n, m):.3g} per point: an error of {eps:g} needs {made.num_samples} samples, so "
                "products are exact; lower σ, allow a larger eps, or use a method for smooth kernels",
                AssumptionViolatedWarning,
                stacklevel=2,
            )
        return made

    @property
    def near_pairs(self) -> NearPairs:
        """The pairs that are added exactly."""
        return self.plan.pairs

    @property
    def num_samples(self) -> int:
        """Keys drawn for a product."""
        return self.sampling.num_samples(self.plan.tail / self.plan.budget, len(self.keys))

    @property
    def is_exact(self) -> bool:
        """Whether products are formed whole, since sampling would take half the keys or more."""
        return self.num_samples > 0 and 2 * self.num_samples >= len(self.keys)

    @property
    def dtype(self) -> torch.dtype:
        """That of the points."""
        return self.queries.dtype

    @property
    def device(self) -> torch.device:
        """That of the points."""
        return self.queries.device

    def product(self, x: Float[Tensor, "m c"], draw: int = 0) -> Float[Tensor, "n c"]:
        """One estimate of ``K x``.

        Args:
            x: columns; one set of keys is drawn for all.
            draw: which of the independent estimates.
        """
        if self.is_exact:
            return gaussian_product(self.queries, self.keys, x, self.sigma)
        plan, pairs = self.plan, self.plan.pairs
        rest = x.index_fill(0, plan.exact_keys, 0.0)
        index, weights = plan.exact_keys, x[plan.exact_keys]
        if self.num_samples and bool(rest.detach().any()):
            drawn = self.sampling.weights(rest, self.num_samples, block_generator(self.seed, draw))
            index, weights = torch.cat([index, drawn[0]]), torch.cat([weights, drawn[1]])
        y = sparse_gaussian_product(self.queries, self.keys, x, self.sigma, pairs.row, pairs.col, index, weights)
        if len(plan.exact_queries):
            exact = gaussian_product(self.queries[plan.exact_queries], self.keys, x, self.sigma)
            y = y.index_copy(0, plan.exact_queries, exact)
        return y

    def row_error_estimate(self, x: Float[Tensor, "m c"], draws: int = 8) -> Float[Tensor, "n c"]:
        """The standard error of every entry of one estimate, measured over independent draws.

        Args:
            x: columns.
            draws: at least two.

        Raises:
            ValueError: if ``draws < 2``.
        """
        if draws < 2:
            raise ValueError(f"row_error_estimate needs draws ≥ 2, got {draws}")
        return torch.stack([self.product(x, 1 + draw) for draw in range(draws)]).std(0)

    def _size(self) -> torch.Size:
        return torch.Size((len(self.queries), len(self.keys)))

    def _matmul(self, rhs: Tensor) -> Tensor:
        if rhs.dim() == 1:
            return self._matmul(rhs.unsqueeze(-1)).squeeze(-1)
        self._check_rhs(rhs, self.shape[1])
        x = fold(rhs)
        if self.repetitions == 1 or self.is_exact:
            return unfold(self.product(x), rhs)
        return unfold(closest_to_the_others(torch.stack([self.product(x, r) for r in range(self.repetitions)])), rhs)

    def _t_matmul(self, rhs: Tensor) -> Tensor:
        return self._transpose_nonbatch()._matmul(rhs)

    def _with(self, queries: Tensor, keys: Tensor, plan: SparsePlan) -> SparseGaussianKernelOperator:
        options: dict[str, Any] = self._nondifferentiable_kwargs
        return type(self)(**{**options, "queries": queries, "keys": keys, "plan": plan})

    def _transpose_nonbatch(self) -> SparseGaussianKernelOperator:
        return self._with(self.keys, self.queries, self.plan.swapped())

    def to_dense(self) -> Tensor:
        """All entries, exactly."""
        return gaussian_block(self.queries, self.keys, self.sigma)

    def _submatrix(self, row: Tensor | None, col: Tensor | None) -> LinearOperator:
        queries = self.queries if row is None else self.queries[row]
        keys = self.keys if col is None else self.keys[col]
        return FeatureMatrix(rows=gaussian_block(queries, keys, self.sigma))

    def _pairs(self, row: Tensor, col: Tensor) -> Tensor:
        return torch.exp((self.queries[row] - self.keys[col]).square().sum(1) * (-0.5 / self.sigma**2))

    def _cast(self, dtype: torch.dtype | None, device: torch.device | None) -> SparseGaussianKernelOperator:
        queries, keys = (points.to(dtype=dtype, device=device) for points in (self.queries, self.keys))
        return self._with(queries, keys, self.plan.to(queries.device))

    def __repr__(self) -> str:
        return (
            f"SparseGaussianKernelOperator({tuple(self.shape)}, sigma={self.sigma:g}, {len(self.near_pairs)} pairs, "
            f"{self.num_samples} samples)"
        )
