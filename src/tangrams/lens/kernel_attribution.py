"""Attribute a kernel classifier's logits to its training samples by the dual coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from tangrams.learners.base import as_array
from tangrams.learners.kernel_classifier import KernelClassifier


def kernel_attribution(surrogate: KernelClassifier, X: Any, target: Any | None = None) -> Float[np.ndarray, "m n"]:
    r"""What each training sample adds to a logit of a kernel classifier [072].

    .. math:: A(x, x_i; c) = \alpha_{ic} \, K(x, x_i) + b_c / n, \qquad \sum_i A(x, x_i; c) = \text{logit}_c(x)

    Exact, and to be read with care: the coefficients of a model that fits wrong labels are largest on these, and they
    cancel; :func:`~tangrams.lens.smoother_explanations` explains better. For poisoned samples, whose coefficients
    *are* what is wanted, it is the right tool.

    Args:
        surrogate: a fitted :class:`~tangrams.learners.KernelGLM` or
            :class:`~tangrams.learners.KernelLogisticRegression`.
        X: m samples, as its ``predict`` takes them.
        target: the class explained, one index into ``classes_`` for all or one for each; the predicted one if absent.

    Raises:
        ValueError: if a target is out of range, or their number is not m.
    """
    logits = surrogate.logits(X)
    (m, C), n = logits.shape, len(surrogate.dual_coef_)
    column = logits.argmax(1) if target is None else np.broadcast_to(as_array(target).astype(np.int64), (m,))
    if column.size and (column.min() < 0 or column.max() >= C):
        raise ValueError(f"kernel_attribution expects targets in 0 … {C - 1}, got {column.min()} … {column.max()}")
    return surrogate.cross_gram(X).numpy() * surrogate.dual_coef_[:, column].T + surrogate.intercept_[column, None] / n


def top_similar(K: Any, k: int) -> Int[np.ndarray, "m k"]:
    """The k training samples most similar to each row's sample, the most similar first; ties to the first index.

    Args:
        K: similarities ``(m, n)``, cosine-normalised as a rule.
        k: how many, at most n.
    """
    return np.argsort(-as_array(K), axis=1, kind="stable")[:, :k]


@dataclass(frozen=True)
class Retrieval:
    """How well a ranking finds a set of samples.

    Attributes:
        precision: after each rank, 1 … n.
        recall: after each rank.
        average_precision: the mean precision at the ranks of the samples that are sought.
        precision_at_count: the precision after as many ranks as there are sought samples; recall is equal there.
        base_rate: the share of sought samples, what chance gives.
    """

    precision: Float[np.ndarray, "n"]
    recall: Float[np.ndarray, "n"]
    average_precision: float
    precision_at_count: float
    base_rate: float


def attribution_precision_recall(attribution: Any, poisoned: Any) -> Retrieval:
    """Precision and recall of finding poisoned training samples by their attribution [072].

    Args:
        attribution: ``(m, n)``, summed over the m explained samples, or one score per training sample ``(n,)``.
        poisoned: which training samples are poisoned, ``(n,)`` booleans.

    Raises:
        ValueError: if the shapes do not fit, or none is poisoned.
    """
    scores = as_array(attribution).astype(np.float64)
    scores = scores.sum(0) if scores.ndim == 2 else scores
    mask = as_array(poisoned).astype(bool)
    if scores.shape != mask.shape or mask.ndim != 1:
        raise ValueError(f"attribution of {scores.shape} samples and a mask of {mask.shape} do not fit")
    count = int(mask.sum())
    if count == 0:
        raise ValueError("attribution_precision_recall needs at least one poisoned sample")
    hits = mask[np.argsort(-scores, kind="stable")]
    found = hits.cumsum()
    precision = found / np.arange(1, len(hits) + 1)
    return Retrieval(
        precision=precision,
        recall=found / count,
        average_precision=float(precision[hits].mean()),
        precision_at_count=float(precision[count - 1]),
        base_rate=count / len(mask),
    )
