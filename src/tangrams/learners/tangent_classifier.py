"""A classifier that fine-tunes the linearisation of a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, no_type_check

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from tangrams.features.model_ref import ModelRef
from tangrams.features.parameters import Selection
from tangrams.learners.base import as_features, as_samples, as_targets, num_samples
from tangrams.learners.tangent_training import Penalty, TangentTraining, batch_of, norm_penalty
from tangrams.nn.losses import rescaled_square_loss
from tangrams.nn.tangent import LinearizedModule, linearize
from tangrams.operators import FeatureMatrix

_EVALUATION = 256
"""Samples per pass in prediction."""


class TangentClassifier(ClassifierMixin, BaseEstimator):
    r"""Fine-tunes a tangent vector around a network that stays as it is [004].

    .. math:: f(x; \dot w) = f(x; w_0) + J(x)\, \dot w, \qquad
        \min_{\dot w} \frac{1}{nC} \sum_{ic} (f_c(x_i; \dot w) - α\, 1[y_i = c])^2 + μ\, \|\dot w\|

    w₀ are the weights of the backbone and of a fresh linear head on it, drawn once by ``random_state``. The problem is
    convex. Classifiers with the same backbone, classes and ``random_state`` have one base point, so that their
    ``tangent_`` can be composed (:class:`~tangrams.learners.TangentComposition`).

    Args:
        backbone: samples → ``(n, d, …)`` features, flattened for the head; None: the samples are the features. In a
            :class:`~tangrams.features.ModelRef` it is shared by clones, else copied.
        trainable: which of ``0.…`` (backbone) and ``2.weight``, ``2.bias`` (head) carry tangents: names or a predicate
            ``(name, parameter)``; None for all that require grad.
        classes: all labels there will be, of this task and of others; those of ``y`` by default.
        alpha: α; 15 for class-incremental and joint training, 5 for random shards.
        loss: ``(logits, class indices) -> scalar`` instead of the rescaled square loss.
        learning_rate: of Adam.
        weight_decay: μ.
        penalty: of the direction: :func:`~tangrams.learners.norm_penalty` or
            :func:`~tangrams.learners.square_penalty`.
        epochs: passes over the samples.
        batch_size: samples per step.
        milestones: epochs after which the learning rate falls to a tenth.
        random_state: fixes the head and the order of the samples.

    Attributes:
        classes_: the labels, sorted.
        linearized_: the network with its head, linearised, at the trained direction.
        tangent_: the direction.
        loss_curve_: the mean objective of each epoch.

    Shape:
        ``X (n, …)`` → labels ``(n,)``.

    Raises:
        ValueError: from ``fit``, for labels outside ``classes``, a single class, or numbers out of range.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        backbone: nn.Module | ModelRef | None = None,
        *,
        trainable: Selection = None,
        classes: Any = None,
        alpha: float = 15.0,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        learning_rate: float = 1e-4,
        weight_decay: float = 1e-5,
        penalty: Penalty = norm_penalty,
        epochs: int = 50,
        batch_size: int = 32,
        milestones: Sequence[int] = (25, 40),
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.trainable = trainable
        self.classes = classes
        self.alpha = alpha
        self.loss = loss
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.penalty = penalty
        self.epochs = epochs
        self.batch_size = batch_size
        self.milestones = milestones
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> TangentClassifier:
        """Train the direction, from zero."""
        self._check_numbers()
        x = self._samples(X, reset=True)
        index = self._class_index(x, y)
        generator = torch.Generator().manual_seed(int(self.random_state))
        self.linearized_ = self._linearize(x, generator)
        self.loss_curve_ = self._train(x, torch.from_numpy(index), generator)
        self.tangent_ = self.linearized_.vector()
        return self

    def logits(self, X: Any) -> np.ndarray:
        """One per class, ``(n, C)``."""
        check_is_fitted(self, "tangent_")
        return logits_of_samples(self.linearized_, self._samples(X, reset=False)).cpu().numpy()

    def decision_function(self, X: Any) -> np.ndarray:
        """The logits ``(n, C)``; for two classes the second's minus the first's, ``(n,)``."""
        logits = self.logits(X)
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict(self, X: Any) -> np.ndarray:
        """The class with the largest logit."""
        best = self.logits(X).argmax(1)  # first: an estimator that is not fitted says so
        return self.classes_[best]

    def _samples(self, X: Any, *, reset: bool) -> Any:
        return as_features(self, X, reset=reset) if self.backbone is None else as_samples(self, X, reset=reset)

    def _class_index(self, x: Any, y: Any) -> np.ndarray:
        """The class of each sample; sets ``classes_``."""
        y = as_targets(self, x, y)
        check_classification_targets(y)
        self.classes_ = np.unique(y if self.classes is None else np.asarray(self.classes))
        if len(self.classes_) < 2:
            raise ValueError(f"{type(self).__name__} needs at least two classes, got one class: {self.classes_[0]!r}")
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(f"{type(self).__name__} got labels outside classes: {unknown[:5].tolist()}")
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _linearize(self, x: Any, generator: torch.Generator) -> LinearizedModule:
        return linearize(with_head(self._backbone(), x, len(self.classes_), generator), trainable=self.trainable)

    def _backbone(self) -> ModelRef | None:
        return (
            self.backbone if self.backbone is None or isinstance(self.backbone, ModelRef) else ModelRef(self.backbone)
        )

    def _train(self, x: Any, index: Tensor, generator: torch.Generator) -> list[float]:
        return self._training().run(self.linearized_, x, index, generator)

    def _training(self) -> TangentTraining:
        return TangentTraining(
            loss=self.loss or partial(rescaled_square_loss, alpha=self.alpha),
            penalty=self.penalty,
            weight_decay=self.weight_decay,
            learning_rate=self.learning_rate,
            milestones=self.milestones,
            epochs=self.epochs,
            batch_size=self.batch_size,
        )

    def _check_numbers(self) -> None:
        who = type(self).__name__
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"{who} needs epochs and batch_size ≥ 1, got {self.epochs} and {self.batch_size}")
        if not self.learning_rate > 0 or self.weight_decay < 0:
            raise ValueError(
                f"{who} needs learning_rate > 0 and weight_decay ≥ 0, got {self.learning_rate} and {self.weight_decay}"
            )


def with_head(ref: ModelRef | None, x: Any, num_classes: int, generator: torch.Generator) -> nn.Sequential:
    """``backbone, Flatten, Linear`` with a fresh head in the backbone's dtype and place.

    Args:
        ref: the backbone; None for samples that are features.
        x: samples, of which one is looked at.
        num_classes: C.
        generator: draws the head, uniformly within ±1/√d.
    """
    if ref is None:
        backbone: nn.Module = nn.Identity()
        width, dtype, device = x.shape[1], x.dtype, x.device
    else:
        backbone, dtype, device = ref.model, ref.dtype, ref.device
        with ref.session() as model, torch.no_grad():
            width = model(batch_of(x, torch.zeros(1, dtype=torch.int64), torch.empty(0, dtype=dtype, device=device)))
            width = width.flatten(1).shape[1]
    head = nn.Linear(width, num_classes, dtype=dtype, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for p in head.parameters():
            p.uniform_(-(width**-0.5), width**-0.5, generator=generator)
    return nn.Sequential(backbone, nn.Flatten(), head.to(device))


def logits_of_samples(module: LinearizedModule, x: Tensor | FeatureMatrix) -> Tensor:
    """Outputs ``(n, C)``, a batch at a time, without a graph."""
    like = next(module.parameters())
    with torch.no_grad():
        parts = [module(batch_of(x, index, like)) for index in torch.arange(num_samples(x)).split(_EVALUATION)]
    return torch.cat(parts)
