"""How samples teach one another: what a step changes, what is hard to learn, and what is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tangrams.data.labelled import Labelled
from tangrams.features import TangentFeatures
from tangrams.kernels.labelled_pseudo_ntk import check_labels, refuse_probabilities
from tangrams.learners.base import as_array


def prediction_change(
    model: nn.Module, x: Any, step: Labelled, *, lr: float, params: Any = None
) -> Float[Tensor, "n K"]:
    r"""What one gradient step on some samples does to the class probabilities of others, to first order [022].

    .. math::
        \delta p(x_o) = \eta \, A(x_o) \, \frac1m \sum_u \Theta(x_o, x_u) \, (e_{y_u} - p(x_u)),
        \qquad A = \mathrm{diag}(p) - p p^T

    The step is plain gradient descent on the mean cross-entropy over the m samples; the error is O(η²). Θ is the exact
    tangent kernel of the logits in eval mode, and is never formed: two products with feature matrices give the answer.

    Args:
        model: a classifier that returns logits.
        x: the n observed samples.
        step: the samples of the step, with their classes.
        lr: η.
        params: what the step trains, as :class:`~tangrams.features.TangentFeatures` takes it.

    A class out of range, and a model with a single output, are refused with a ``ValueError``.
    """
    return _change(model, x, step, lr, params)[1]


def predict_forgetting(
    model: nn.Module, observed: Labelled, step: Labelled, *, lr: float, params: Any = None
) -> Bool[Tensor, "n"]:
    """Which samples that are right now will be wrong after one gradient step, to first order [022].

    Args:
        model: a classifier that returns logits.
        observed: the n samples in question, with their classes.
        step: the samples of the step, with their classes.
        lr: the step's learning rate.
        params: what the step trains.

    What :func:`prediction_change` refuses is refused here.
    """
    p, change = _change(model, observed.inputs, step, lr, params)
    y = check_labels(observed.targets, p.shape[1], "predict_forgetting").to(p.device)
    return (p.argmax(1) == y) & ((p + change).argmax(1) != y)


class Relation(IntEnum):
    """What two labelled samples are to each other."""

    CONTRADICTORY = -1
    UNRELATED = 0
    INTERCHANGEABLE = 1
    RELATED = 2
    """Learning one helps with the other, but is no substitute."""


def relation(rho: Float[Tensor, "*shape"], *, unrelated: float = 0.1, interchangeable: float = 0.9) -> Tensor:
    """The relation of pairs by their normalised labelled pseudo-NTK: codes of :class:`Relation`, int8 [022].

    Args:
        rho: ``CosineKernel(LabelledPseudoNTK(model)).gram(…)``.
        unrelated: half the width of the band around zero.
        interchangeable: from where on learning one is learning the other.

    Raises:
        ValueError: if the thresholds are not 0 ≤ unrelated < interchangeable ≤ 1, or an entry is no cosine.
    """
    if not 0 <= unrelated < interchangeable <= 1:
        raise ValueError(f"relation expects 0 ≤ unrelated < interchangeable ≤ 1, got {unrelated}, {interchangeable}")
    if not bool((rho.abs() <= 1 + 1e-4).all()):
        raise ValueError("relation expects cosines: normalise the kernel by CosineKernel")
    codes = torch.full(rho.shape, Relation.RELATED, dtype=torch.int8, device=rho.device)
    codes[rho.abs() <= unrelated] = Relation.UNRELATED
    codes[rho < -unrelated] = Relation.CONTRADICTORY
    codes[rho >= interchangeable] = Relation.INTERCHANGEABLE
    return codes


def learning_difficulty(probabilities: Float[Tensor, "T n K"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    r"""The area under each sample's error curve, :math:`\sum_t \|e_{y_i} - p_t(x_i)\|_2` [022].

    Args:
        probabilities: after each of T epochs.
        y: classes; one out of range is refused with a ``ValueError``.
    """
    K = probabilities.shape[2]
    targets = torch.nn.functional.one_hot(check_labels(y, K, "learning_difficulty"), K).to(probabilities)
    return (targets - probabilities).norm(dim=2).sum(0)


def error_l2_norm(probabilities: Float[Tensor, "n K"], y: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """EL2N, the distance of the probabilities from the label: a baseline for choosing what to keep [022].

    Args:
        probabilities: early in training, as a rule averaged over runs.
        y: classes.
    """
    return learning_difficulty(probabilities[None], y)


class ForgettingTracker:
    """Counts the times a sample was right when last looked at and is wrong now [022].

    Args:
        n: the number of samples.

    Attributes:
        events: forgetting events of each sample, ``(n,)``.
        seen: looks at each sample.
        learned_at: the look, from 1, at which each sample was right first; 0 where it never was.

    Raises:
        ValueError: if ``n < 1``.

    Example:
        >>> tracker = ForgettingTracker(3)
        >>> for right in ([True, False, True], [False, False, True], [True, True, True]):
        ...     _ = tracker.update(torch.tensor(right))
        >>> tracker.events.tolist(), tracker.learned_at.tolist()
        ([1, 0, 0], [1, 3, 1])
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"ForgettingTracker needs n ≥ 1 samples, got {n}")
        self.events = torch.zeros(n, dtype=torch.int64)
        self.seen = torch.zeros(n, dtype=torch.int64)
        self.learned_at = torch.zeros(n, dtype=torch.int64)
        self._right = torch.zeros(n, dtype=torch.bool)

    def update(self, right: Bool[Tensor, "m"], index: Int[Tensor, "m"] | None = None) -> Int[Tensor, "f"]:
        """Take a look at some samples; which of them were forgotten since their last.

        Args:
            right: whether each is classified rightly now.
            index: which samples, each once; all when absent.

        Raises:
            ValueError: if an index repeats or is out of range, or the numbers differ.
        """
        n = len(self.events)
        index = torch.arange(n) if index is None else index.detach().cpu()
        right = right.detach().cpu()
        if index.shape != right.shape:
            raise ValueError(f"ForgettingTracker got {len(right)} answers for {len(index)} samples")
        if index.numel() and (int(index.min()) < 0 or int(index.max()) >= n or len(index.unique()) != len(index)):
            raise ValueError(f"ForgettingTracker expects each sample once, in 0 … {n - 1}")
        forgotten = index[self._right[index] & ~right]
        self.events[forgotten] += 1
        self.seen[index] += 1
        first = index[right & (self.learned_at[index] == 0)]
        self.learned_at[first] = self.seen[first]
        self._right[index] = right
        return forgotten

    @property
    def never_learned(self) -> Bool[Tensor, "n"]:
        """Samples that were never right; their events say nothing."""
        return self.learned_at == 0


@dataclass(frozen=True)
class EventScore:
    """A prediction of events beside what happened.

    Attributes:
        precision: of the predicted events, how many happened; NaN where none was predicted.
        recall: of what happened, how much was predicted; NaN where nothing happened.
        f1: their harmonic mean.
        predicted: how many events were predicted.
        happened: how many happened.
    """

    precision: float
    recall: float
    f1: float
    predicted: int
    happened: int


def score_events(predicted: Any, happened: Any) -> EventScore:
    """Precision, recall and F1 of predicted events.

    Args:
        predicted: booleans.
        happened: booleans of the same shape.

    Raises:
        ValueError: if the shapes differ.
    """
    p, h = as_array(predicted).astype(bool), as_array(happened).astype(bool)
    if p.shape != h.shape:
        raise ValueError(f"score_events got shapes {p.shape} and {h.shape}")
    hits, P, H = int((p & h).sum()), int(p.sum()), int(h.sum())
    precision = hits / P if P else float("nan")
    recall = hits / H if H else float("nan")
    return EventScore(precision, recall, 2 * hits / (P + H) if P + H else float("nan"), P, H)


def _change(model: nn.Module, x: Any, step: Labelled, lr: float, params: Any) -> tuple[Tensor, Tensor]:
    """The probabilities of x, and their first-order change."""
    phi = TangentFeatures(model, output="all", params=params)
    p, p_step = _probabilities(phi, x), _probabilities(phi, step.inputs)
    m, K = p_step.shape
    y = check_labels(step.targets, K, "prediction_change").to(p.device)
    if len(y) != m:
        raise ValueError(f"prediction_change got {m} samples and {len(y)} classes")
    error = torch.nn.functional.one_hot(y, K).to(p) - p_step
    direction = phi.matrix(step.inputs).mT @ (error / m).reshape(-1, 1)  # minus the loss's gradient
    moved: Any = phi.matrix(x) @ direction  # δz / η
    moved = lr * moved.reshape(-1, K)
    return p, p * (moved - (p * moved).sum(1, keepdim=True))


def _probabilities(phi: TangentFeatures, x: Any) -> Tensor:
    logits = phi.outputs(x)
    if logits.shape[1] < 2:
        raise ValueError(
            f"prediction_change expects a classifier of at least two classes, got {logits.shape[1]} output"
        )
    refuse_probabilities(logits, "prediction_change")
    return logits.softmax(1)
