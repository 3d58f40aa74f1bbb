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


def find_label_errors(
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


def find_target_errors(
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
class LabelCalibration:
    r"""How many suspects are real: what known wrong and known right labels get from the same model.

    With R the share of flipped labels whose margin is at most t, Q the share of right ones, and N the number of given
    labels whose margin is, :math:`N(t) = E R(t) + (n - E) Q(t)` at t = 0 gives the number E of wrong labels, and the
    precision among the first k suspects is :math:`1 - (n - E) Q(t_k) / k`.

    Flips alone cannot say it: the network has learned its features with the wrong labels, so that those get milder
    margins than labels flipped afterwards; and what a model without the label prefers does not depend on the label. So
    the right labels are held-out ones, taken as right: errors among them make the estimate too low.

    Attributes:
        margins: of the labels as given, sorted: ``(n,)``.
        flipped: of labels flipped on purpose, sorted: ``(f,)``.
        held_out: of held-out samples with their own labels, sorted: ``(m,)``.
    """

    margins: Float[Tensor, "n"]
    flipped: Float[Tensor, "f"]
    held_out: Float[Tensor, "m"]

    def recall(self, counts: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
        """R at the margin of the ``counts``-th suspect: the share of wrong labels found among the first so many."""
        return _share_below(self.flipped, self.margins[counts - 1])

    def false_alarms(self, counts: Int[Tensor, "k"]) -> Int[Tensor, "k"]:
        """How many held-out labels are as suspect as the ``counts``-th."""
        return torch.searchsorted(self.held_out, self.margins[counts - 1], right=True)

    def num_errors(self) -> float:
        """E, the estimated number of wrong labels."""
        n = len(self.margins)
        zero = torch.zeros(1, dtype=self.margins.dtype)
        flagged, recall, alarm = (
            float(_share_below(values, zero)) for values in (self.margins, self.flipped, self.held_out)
        )
        return n * min(max((flagged - alarm) / (recall - alarm), 0.0), 1.0) if recall > alarm else 0.0

    def precision(self, counts: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
        """The estimated share of wrong labels among the first ``counts`` suspects."""
        right = len(self.margins) - self.num_errors()
        rate = self.false_alarms(counts).to(self.margins.dtype) / len(self.held_out)
        return (1 - right * rate / counts).clamp(0, 1)

    def intervals(self, counts: Int[Tensor, "k"]) -> Float[Tensor, "k 2"]:
        """95 % Wilson intervals of the false alarms, carried to :meth:`precision`."""
        right = len(self.margins) - self.num_errors()
        rates = torch.tensor([wilson_interval(int(k), len(self.held_out)) for k in self.false_alarms(counts)])
        return (1 - right * rates.flip(1).to(self.margins.dtype) / counts[:, None]).clamp(0, 1)


def wilson_interval(successes: float, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share; (0, 1) without observations."""
    if total == 0:
        return 0.0, 1.0
    z, share = 1.959964, successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def calibrate_label_errors(
    spectrum: GramSpectrum,
    labels: Int[Tensor, "n"],
    num_classes: int,
    errors: LabelErrors,
    held_out_margins: Float[Tensor, "m"],
    *,
    fraction: float = 0.01,
    repeats: int = 20,
    seed: int = 0,
) -> LabelCalibration:
    """Read what margins known wrong labels get by flipping a known share of trusted ones, in closed form.

    Trusted are the samples that are not suspect. Each flip goes to a class drawn evenly from the others; the features
    are those of the network as it is, they are not learned again with the flipped labels.

    Args:
        spectrum: of the samples' Gram.
        labels: class indices as given.
        num_classes: C.
        errors: the judgement to calibrate, by :func:`find_label_errors`.
        held_out_margins: margins that the same model gives held-out samples' own labels.
        fraction: share of all samples flipped at a time.
        repeats: how often.
        seed: fixes which and to what.

    Raises:
        ValueError: if fewer than two samples are trusted.
    """
    _check(spectrum, labels, num_classes)
    (trusted,) = torch.nonzero(~errors.flagged, as_tuple=True)
    if len(trusted) < 2:
        raise ValueError(f"calibrate_label_errors has {len(trusted)} trusted labels to flip: every one is suspect")
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
    return LabelCalibration(
        errors.score.sort().values, torch.cat(flipped).sort().values, held_out_margins.to(torch.float64).sort().values
    )


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


def _share_below(values: Tensor, threshold: Tensor) -> Tensor:
    """The share of sorted values that are at most each threshold."""
    return torch.searchsorted(values, threshold, right=True).to(values.dtype) / max(len(values), 1)


def _check(spectrum: GramSpectrum, labels: Tensor, num_classes: int) -> None:
    if labels.shape != (len(spectrum),):
        raise ValueError(f"label errors need one label per sample, ({len(spectrum)},), got {tuple(labels.shape)}")
    if num_classes < 2:
        raise ValueError(f"label errors need at least two classes, got {num_classes}")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(
            f"labels must be in [0, {num_classes}), got {int(labels.min())} … {int(labels.max())}: pass class indices"
        )
