"""Tangent vectors composed into one classifier."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tangrams.learners.tangent_classifier import TangentClassifier, logits_of_samples
from tangrams.nn.tangent import LinearizedModule, TangentSum, TangentVector, linearize
from tangrams.operators import FeatureMatrix


class TangentComposition(TangentSum):
    r"""One network at a weighted sum of tangent vectors: any number of components in one forward pass [004].

    .. math:: f_λ(x) = f(x; w_0) + J(x) \sum_i λ_i \dot w_i

    The uniform mean by default. Components may be trained anywhere and in any order, on tasks (class- and
    task-incremental), shards of data or clients; removing one leaves nothing of it.

    Args:
        base: the network at w₀, linearised or plain; or a fitted :class:`~tangrams.learners.TangentClassifier`, whose
            base point and classes are taken.
        classes: the label of each output; its index by default.
        total: what the weights sum to; None takes them as they are.

    Example:
        >>> import torch
        >>> from tangrams.nn.tangent import linearize
        >>> net = torch.nn.Linear(2, 2)
        >>> both = TangentComposition(net)
        >>> both.add("one", linearize(net).vector())
        >>> both.weights
        {'one': 1.0}
    """

    def __init__(
        self,
        base: LinearizedModule | nn.Module | TangentClassifier,
        *,
        classes: Any = None,
        total: float | None = 1.0,
    ) -> None:
        super().__init__(total)
        if isinstance(base, TangentClassifier):
            classes = base.classes_ if classes is None else classes
            base = base.linearized_
        self.classes_ = None if classes is None else np.asarray(classes)
        # A deep copy has a direction of its own at the same base point.
        self._module = copy.deepcopy(base) if isinstance(base, LinearizedModule) else linearize(base)
        self._clear()

    def add(self, name: str, vector: TangentVector, weight: float = 1.0) -> None:
        """Put a component in; one of another base point or other parameters is a ``BasePointMismatchError``."""
        self._module.vector_like().require_same_base(vector)
        super().add(name, vector, weight)

    def remove(self, name: str) -> TangentVector:
        """Take a component out; nothing of it remains, also in what predicts."""
        vector = super().remove(name)
        self._clear()
        return vector

    def replace(self, name: str, vector: TangentVector) -> None:
        """Put another vector in the place of a component, with its weight."""
        super().replace(name, vector)
        self._clear()

    def _clear(self) -> None:
        """The direction of the module that predicts is set before each use; between, it may hold what was removed."""
        with torch.no_grad():
            for tangent in self._module.parameters():
                tangent.zero_()

    def as_module(self) -> LinearizedModule:
        """The linearised network at the sum."""
        module = copy.deepcopy(self._module)
        module.set_vector(self.vector())
        return module

    def logits(self, X: Any) -> np.ndarray:
        """Outputs ``(n, C)``, in one forward pass whatever the number of components."""
        if not isinstance(X, FeatureMatrix):
            X = X.detach() if isinstance(X, Tensor) else torch.as_tensor(np.asarray(X))
        self._module.set_vector(self.vector())
        return logits_of_samples(self._module, X).cpu().numpy()

    def predict(self, X: Any, classes: Any = None) -> np.ndarray:
        """The class with the largest output.

        Args:
            X: samples.
            classes: only these, as where the task is known; all by default.

        Raises:
            ValueError: if a class is unknown.
        """
        logits = self.logits(X)
        labels = np.arange(logits.shape[1]) if self.classes_ is None else self.classes_
        if classes is None:
            return labels[logits.argmax(1)]
        chosen = np.flatnonzero(np.isin(labels, np.asarray(classes)))
        if len(chosen) != len(np.unique(np.asarray(classes))):
            raise ValueError(f"TangentComposition knows the classes {labels.tolist()}, got {list(classes)}")
        return labels[chosen[logits[:, chosen].argmax(1)]]
