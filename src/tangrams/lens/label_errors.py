"""Which labels look wrong: margins of a model that did not see them, and how many of the finds are real."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tangrams.learners.kernel_ridge import one_hot
from tangrams.operators.ridge import GramSpectrum


@dataclass(frozen=True)
class LabelErrors:
    """Labels judged by a model that did not see them.

    Attributes:
        score: small where the label looks wrong: the margin of the given class, or −|residual| in standard
            deviations for a regression: ``(n,)``.
        suggested: the class or value that the model would give: ``(n,)``.
        flagged: whether the label is called suspect: ``(n,)``.
        delta: the ridge used.
    """

    score: Float[Tensor, "n"]
    suggested: Tensor
    flagged: Bool[Tensor, "n"]
    delta: float

    @property
    def order(self) -> Int[Tensor, "n"]:
        """Samples, most suspect first."""
        return self.score.argsort(stable=True)

    @property
    def count(self) -> int:
        """How many are called suspect."""
        return int(self.flagged.sum())


def label_margins(scores: Float[Tensor, "n C"], labels: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    """The score of the given class minus the best other one: negative where another class is preferred."""
    given = scores.gather(1, labels[:, None])[:, 0]
    others = scores.scatter(1, labels[:, None], -torch.inf)
    return given - others.max(1).values


def label_errors(
    spectrum: GramSpectrum, labels: Int[Tensor, "n"], num_classes: int, *, delta: float | None = None
) -> LabelErrors:
    """Judge class labels by the closed-form leave-one-out margins of kernel ridge on their indicators.

    A label is suspect where the model without it prefers another class.

    Args:
        spectrum: of the samples' Gram.
        labels: class indices as given.
        num_classes: C.
        delta: the ridge in units of the mean diagonal; None: the one with the smallest leave-one-out error, which
            is right for finding labels.

    Labels that do not fit the Gram or the number of classes are refused.
    """
    _check(spectrum, labels, num_classes)
    Y = one_hot(labels, num_classes)
    delta = spectrum.choose(Y) if delta is None else delta
    scores = Y - spectrum.loo_residuals(Y, delta)
    margins = label_margins(scores, labels)
    return LabelErrors(margins, scores.argmax(1), margins < 0, delta)


def target_errors(
    spectrum: GramSpectrum, targets: Float[Tensor, "n k"], *, delta: float | None = None, threshold: float = 5.0
) -> LabelErrors:
    """Judge regression targets by closed-form leave-one-out residuals.

    The score is −max_k |residual| in robust standard deviations (1.4826 times the median absolute deviation); beyond
    ``threshold`` a target is suspect.

    Args:
        spectrum: of the samples' Gram.
        targets: as given.
        delta: the ridge in units of the mean diagonal; None: the one with the smallest leave-one-out error.
        threshold: standard deviations.

    Raises:
        ValueError: if there is not one row of targets per sample.
    """
    if targets.ndim != 2 or len(targets) != len(spectrum):
        raise ValueError(f"target_errors expects targets ({len(spectrum)}, k), got {tuple(targets.shape)}")
    targets = targets.to(torch.float64)
    delta = spectrum.choose(targets) if delta is None else delta
    residuals = spectrum.loo_residuals(targets, delta)
    spread = 1.4826 * (residuals - residuals.median(0).values).abs().median(0).values
    score = -(residuals.abs() / spread.clamp_min(torch.finfo(torch.float64).tiny)).max(1).values
    return LabelErrors(score, targets - residuals, score < -threshold, delta)


@dataclass(frozen=True)
class FlipCalibration:
    """What margins known wrong labels get, and so how many of the suspects are real.

    With R(t) the share of flipped labels whose margin is at most t and N(t) the number of given labels whose margin is,
    N(t) counts E R(t) real errors and some correct labels, whatever the unknown number E of errors is. So E is at most
    N(t) / R(t) for every t; the smallest of these bounds is the estimate of E, and the precision among the first N
    suspects is E R / N. It is the class-prior estimate of learning from positive and unlabelled samples, and an upper
    bound where correct but ambiguous samples get margins as bad as flips.

    Attributes:
        margins: of the labels as given, sorted: ``(n,)``.
        flipped: margins of labels flipped on purpose, sorted: ``(f,)``.
    """

    margins: Float[Tensor, "n"]
    flipped: Float[Tensor, "f"]

    MIN_RECALL = 0.1
    """Thresholds that find fewer flips than this say nothing about E."""

    def recall(self, threshold: Float[Tensor, "k"]) -> Float[Tensor, "k"]:
        """R(t)."""
        found = torch.searchsorted(self.flipped, threshold, right=True)
        return found / len(self.flipped)

    def num_errors(self) -> float:
        """E, the estimated number of wrong labels."""
        recall = self.recall(self.margins)
        counts = torch.arange(1, len(self.margins) + 1, dtype=recall.dtype)
        usable = recall >= self.MIN_RECALL
        return float((counts[usable] / recall[usable]).min()) if bool(usable.any()) else 0.0

    def precision(self, counts: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
        """The estimated share of wrong labels among the first ``counts`` suspects."""
        recall = self.recall(self.margins[counts - 1])
        return (self.num_errors() * recall / counts).clamp(0, 1)

    def intervals(
        self, counts: Int[Tensor, "k"], *, repeats: int = 200, level: float = 0.95, seed: int = 0
    ) -> Float[Tensor, "k 2"]:
        """Bootstrap intervals of :meth:`precision`, over the flips and over the samples."""
        generator = torch.Generator().manual_seed(seed)
        found = []
        for _ in range(repeats):
            draw = FlipCalibration(*(_resample(values, generator) for values in (self.margins, self.flipped)))
            recall = self.recall(self.margins[counts - 1])
            found.append((draw.num_errors() * recall / counts).clamp(0, 1))
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        return torch.stack(found).to(torch.float64).quantile(tail, dim=0).mT


def calibrate_by_flips(
    spectrum: GramSpectrum,
    labels: Int[Tensor, "n"],
    num_classes: int,
    errors: LabelErrors,
    *,
    fraction: float = 0.01,
    repeats: int = 20,
    seed: int = 0,
) -> FlipCalibration:
    """Flip the labels of a known share of trusted samples and read what margins they get, in closed form.

    Trusted are the samples that are not suspect. Each flip goes to a class drawn evenly from the others; the features
    are those of the network as it is, they are not learned again with the flipped labels.

    Args:
        spectrum: of the samples' Gram.
        labels: class indices as given.
        num_classes: C.
        errors: the judgement to calibrate, by :func:`label_errors`.
        fraction: share of all samples flipped at a time.
        repeats: how often.
        seed: fixes which and to what.

    Raises:
        ValueError: if fewer than two samples are trusted.
    """
    _check(spectrum, labels, num_classes)
    (trusted,) = torch.nonzero(~errors.flagged, as_tuple=True)
    if len(trusted) < 2:
        raise ValueError(f"calibrate_by_flips has {len(trusted)} trusted samples to flip: every label is suspect")
    generator = torch.Generator().manual_seed(seed)
    size = min(max(1, round(fraction * len(labels))), len(trusted))
    flipped = []
    for _ in range(repeats):
        index = trusted[torch.randperm(len(trusted), generator=generator)[:size]]
        shift = torch.randint(1, num_classes, (size,), generator=generator)
        changed = labels.clone()
        changed[index] = (labels[index] + shift) % num_classes
        Y = one_hot(changed, num_classes)
        scores = (Y - spectrum.loo_residuals(Y, errors.delta))[index]
        flipped.append(label_margins(scores, changed[index]))
    return FlipCalibration(errors.score.sort().values, torch.cat(flipped).sort().values)


def neighbour_votes(
    inputs: Float[Tensor, "n d"], labels: Int[Tensor, "n"], *, num_neighbours: int = 10
) -> Float[Tensor, "n"]:
    """The share of a sample's nearest inputs (Euclidean) that carry its label: a baseline that needs no network."""
    n = len(inputs)
    num_neighbours = min(num_neighbours, n - 1)
    squares = inputs.square().sum(1)
    votes = []
    for start in range(0, n, 1024):
        rows = slice(start, min(start + 1024, n))
        distance = squares[rows, None] + squares - 2 * inputs[rows] @ inputs.mT
        distance[torch.arange(rows.stop - start), torch.arange(start, rows.stop)] = torch.inf
        nearest = distance.topk(num_neighbours, largest=False).indices
        votes.append((labels[nearest] == labels[rows, None]).to(inputs.dtype).mean(1))
    return torch.cat(votes)


def _resample(values: Tensor, generator: torch.Generator) -> Tensor:
    return values[torch.randint(len(values), (len(values),), generator=generator)].sort().values


def _check(spectrum: GramSpectrum, labels: Tensor, num_classes: int) -> None:
    if labels.shape != (len(spectrum),):
        raise ValueError(f"label errors need one label per sample, ({len(spectrum)},), got {tuple(labels.shape)}")
    if num_classes < 2:
        raise ValueError(f"label errors need at least two classes, got {num_classes}")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(
            f"labels must be in [0, {num_classes}), got {int(labels.min())} … {int(labels.max())}: pass class indices"
        )
