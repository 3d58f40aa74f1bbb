"""The minimiser of a tangent classifier's square loss in closed form, with and without a sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from tangrams.features import TangentFeatures
from tangrams.features.model_ref import ModelRef
from tangrams.features.parameters import Selection
from tangrams.learners.tangent_classifier import TangentClassifier, logits_of_samples
from tangrams.operators import FeatureMatrix, solve


class TangentRidgeClassifier(TangentClassifier):
    r"""A tangent classifier solved, not trained, which can forget single samples exactly [004].

    .. math::
        \dot w = J^\top (J J^\top + n C μ I)^{-1} (α Y - f(X; w_0))

    the minimiser of :math:`\frac{1}{nC} \|f + J \dot w - α Y\|^2 + μ \|\dot w\|^2`. :meth:`forget` takes samples out of
    the same system, of which the Gram matrix is kept: the answer is that of a fit without them, and neither their rows
    nor their labels are kept.

    Args:
        backbone: as for :class:`TangentClassifier`.
        trainable: as there.
        classes: as there.
        alpha: α.
        weight_decay: μ.
        random_state: fixes the head.

    Attributes:
        classes_: the labels, sorted.
        linearized_: the network with its head, linearised, at the solution.
        tangent_: the solution.

    Shape:
        ``X (n, …)`` → labels ``(n,)``. Memory grows with (nC)².
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        backbone: nn.Module | ModelRef | None = None,
        *,
        trainable: Selection = None,
        classes: Any = None,
        alpha: float = 15.0,
        weight_decay: float = 1e-5,
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.trainable = trainable
        self.classes = classes
        self.alpha = alpha
        self.weight_decay = weight_decay
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> TangentRidgeClassifier:
        """Solve for the direction."""
        if not self.weight_decay > 0 or not self.alpha > 0:
            raise ValueError(
                f"{type(self).__name__} needs alpha and weight_decay > 0, got {self.alpha} and {self.weight_decay}"
            )
        x = self._samples(X, reset=True)
        index = self._class_index(x, y)
        generator = torch.Generator().manual_seed(int(self.random_state))
        self.linearized_ = self._linearize(x, generator)
        self._x = x.to_dense() if isinstance(x, FeatureMatrix) else x
        like = next(self.linearized_.parameters())
        self._x = self._x.to(like) if self._x.is_floating_point() else self._x.to(like.device)
        self._phi = TangentFeatures(self.linearized_.base, params=list(self.linearized_.names))
        self._gram = self._phi.gram(self._x)
        one_hot = nn.functional.one_hot(torch.from_numpy(index), len(self.classes_)).to(like)
        self._residual = self.alpha * one_hot - logits_of_samples(self.linearized_, self._x)
        self._solve()
        return self

    def forget(self, index: Sequence[int] | np.ndarray | Tensor) -> TangentRidgeClassifier:
        """Take training samples out, as if they had never been there; the others close ranks.

        Args:
            index: which of the samples that are left.

        Raises:
            ValueError: if one is not there, none would be left, or they are no positions.
        """
        check_is_fitted(self, "tangent_")
        n, C = self._residual.shape
        gone = torch.from_numpy(positions_of(self, index))
        if gone.numel() and not 0 <= int(gone.min()) <= int(gone.max()) < n:
            raise ValueError(f"{type(self).__name__} has {n} samples left, got the index {gone.tolist()[:5]}")
        keep = torch.ones(n, dtype=torch.bool)
        keep[gone] = False
        if not bool(keep.any()):
            raise ValueError(f"{type(self).__name__} would have no sample left")
        rows = keep.repeat_interleave(C).to(self._gram.device)
        self._x, self._residual = self._x[keep.to(self._x.device)], self._residual[keep.to(self._residual.device)]
        self._gram = self._gram[rows][:, rows]
        self._solve()
        return self

    def _solve(self) -> None:
        system = self._gram.double().clone()
        system.diagonal().add_(self._residual.numel() * self.weight_decay)
        dual = solve(system, self._residual.double().reshape(-1))
        features = self._phi.matrix(self._x)
        flat = (features.mT @ dual[:, None].to(features.dtype)).squeeze(1)
        self.tangent_ = self.linearized_.vector().with_flat(flat)
        self.linearized_.set_vector(self.tangent_)


def positions_of(who: Any, index: Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
    """Positions of samples as integers, each once, sorted; a mask would be read as the samples 0 and 1.

    Args:
        who: names the estimator.
        index: what it was given.

    Raises:
        ValueError: if they are no integers.
    """
    found = np.asarray(index.cpu() if isinstance(index, Tensor) else index).reshape(-1)
    if found.size and found.dtype.kind not in "iu":
        raise ValueError(
            f"{type(who).__name__} forgets samples by their positions, got {found.dtype}: pass np.flatnonzero of a mask"
        )
    return np.unique(found).astype(np.int64)
