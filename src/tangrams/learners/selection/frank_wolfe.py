"""Sparse approximation of the pool's mean by a few of its samples."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tangrams.learners.selection.base import BatchSelector, Greedy
from tangrams.learners.selection.points import Points

_AT_ONCE = 256


class FrankWolfe(BatchSelector):
    r"""Takes the samples by which Frank–Wolfe steps approximate the sum of all features: ACS-FW [007].

    .. math:: u = \sum_x \phi(x), \quad i = \arg\max_x \Bigl\langle \frac{\phi(x)}{c_x}, u - w \Bigr\rangle, \quad
              w \leftarrow (1 - γ) w + γ \frac{r}{c_i} \phi(i)

    with :math:`c_x = \lVert\phi(x)\rVert, r = \sum_x c_x` and γ by exact line search; unlike the plain algorithm it
    takes no sample twice. Labelled samples, where given, belong to the sum and are stepped to first. Made for
    :class:`~tangrams.learners.selection.ACSRandomFeatures`. All of it from inner products, with O(n) memory.

    Args:
        batch_size: how many samples to choose.
        kernel: as :class:`~tangrams.learners.selection.BatchSelector` says; the sum takes all n² inner products.
        random_state: fixes the draws of a batch that cannot be filled.

    Attributes:
        indices_: the chosen samples in the order of their choice: ``(b,)``.
        scores_: the inner product that chose each, ``(b,)``.
        residuals_: ‖u − w‖ after each step: ``(b,)``, shorter if the batch could not be filled.
        status_: None, or what went wrong.

    Shape:
        ``X (n, d)``, ``labelled (m, d)`` → indices ``(b,)``.

    Raises:
        ValueError: from ``fit``, if the pool is smaller than the batch.

    Example:
        >>> FrankWolfe(2).fit([[1.0, 0.0], [1.1, 0.0], [0.0, 1.0]]).indices_
        array([0, 2])
    """

    def _begin(self, points: Points) -> Greedy:
        steps = _Steps(points)
        self.residuals_ = steps.residuals
        return steps

    def _settle(self, chosen: list[int], scores: list[float], n: int) -> None:
        super()._settle(chosen, scores, n)
        self.residuals_ = self.residuals_[len(self.residuals_) - len(chosen) :]


class _Steps(Greedy):
    def __init__(self, points: Points) -> None:
        self._points = points
        N = points.starts[2]
        self._c = points.diag[:N].clamp_min(0).sqrt()
        self._r = float(self._c.sum())
        self._u = points.sums(2)  # ⟨φ(x), u⟩
        self._v = torch.zeros_like(self._u)  # ⟨φ(x), w⟩
        self._ww = self._wu = 0.0  # ⟨w, w⟩ and ⟨w, u⟩
        self._uu = float(self._u.sum())
        self.residuals: list[float] = []
        for some in points.labelled.split(_AT_ONCE):
            columns = points.products(some, 2).unbind(1) if len(some) else ()
            for j, column in zip(some.tolist(), columns, strict=True):
                if float(self._c[j]) > 0:
                    self._step(j, column)

    def scores(self, free: Bool[Tensor, "n"]) -> Float[Tensor, "n"]:
        n = self._points.num_pool
        return torch.where(self._c[:n] > 0, (self._u[:n] - self._v[:n]) / self._c[:n], -torch.inf)

    def add(self, i: int) -> None:
        self._step(i, self._points.products(torch.tensor([i], device=self._c.device), 2)[:, 0])

    def _step(self, i: int, column: Float[Tensor, "N"]) -> None:
        r, scale = self._r, self._r / float(self._c[i])
        au, aw = scale * float(self._u[i]), scale * float(self._v[i])
        length = r * r - 2 * aw + self._ww  # ‖a − w‖²
        gamma = (au - aw - self._wu + self._ww) / length if length > 0 else 0.0
        self._ww = (1 - gamma) ** 2 * self._ww + 2 * gamma * (1 - gamma) * aw + gamma**2 * r * r
        self._wu = (1 - gamma) * self._wu + gamma * au
        self._v = (1 - gamma) * self._v + (gamma * scale) * column
        self.residuals.append(max(self._uu - 2 * self._wu + self._ww, 0.0) ** 0.5)
