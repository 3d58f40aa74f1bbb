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
class ErrorCount:
    r"""How many of the labels are wrong, by a kernel that was not made with them.

    With R, Q and N the shares of flipped, of held-out and of the given labels that such a kernel's margins call
    suspect, :math:`N = e R + (1 - e) Q` gives the share e of wrong ones. The kernel of the network itself will not do:
    it has learned its features with these labels, so that they get better margins, right and wrong ones alike, than
    held-out or flipped labels. That of the untrained network has not.

    Held-out labels are taken as right: errors among them make the estimate too low.

    Attributes:
        margins: of the labels as given: ``(n,)``.
        flipped: of labels flipped on purpose: ``(f,)``.
        held_out: of held-out samples with their own labels: ``(m,)``.
    """

    margins: Float[Tensor, "n"]
    flipped: Float[Tensor, "f"]
    held_out: Float[Tensor, "m"]

    @property
    def false_alarms(self) -> float:
        """Q: the larger it is, the less the count says."""
        return float((self.held_out < 0).double().mean())

    def num_errors(self) -> float:
        """The estimated number of wrong labels."""
        given, recall = (float((m < 0).double().mean()) for m in (self.margins, self.flipped))
        alarm = self.false_alarms
        if recall <= alarm:
            return 0.0
        return len(self.margins) * min(max((given - alarm) / (recall - alarm), 0.0), 1.0)

    def bootstrap(self, *, repeats: int = 200, seed: int = 0) -> Float[Tensor, "repeats"]:
        """The same for resampled labels, flips and held-out samples."""
        generator = torch.Generator().manual_seed(seed)

        def drawn(values: Tensor) -> Tensor:
            return values[torch.randint(len(values), (len(values),), generator=generator)]

        counts = [
            ErrorCount(drawn(self.margins), drawn(self.flipped), drawn(self.held_out)).num_errors()
            for _ in range(repeats)
        ]
        return torch.tensor(counts, dtype=torch.float64)


@dataclass(frozen=True)
class LabelCalibration:
    """How many of the first k suspects are real.

    The recall is that of labels flipped after training. A network that has memorised hard data hides its wrong labels
    better than that, and the precision is then an upper bound.

    Attributes:
        margins: of the labels as given, by the model that ranks them, sorted: ``(n,)``.
        flipped: of labels flipped on purpose, by the same model, sorted: ``(f,)``.
        errors: how many there are in all.
    """

    margins: Float[Tensor, "n"]
    flipped: Float[Tensor, "f"]
    errors: ErrorCount

    def recall(self, counts: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
        """The share of flipped labels that are as suspect as the ``counts``-th."""
        found = torch.searchsorted(self.flipped, self.margins[counts - 1], right=True)
        return found.to(self.margins.dtype) / len(self.flipped)

    def precision(self, counts: Int[Tensor, "k"]) -> Float[Tensor, "k"]:
        """The estimated share of wrong labels among the first ``counts`` suspects: errors times recall over k."""
        return (self.errors.num_errors() * self.recall(counts) / counts).clamp(0, 1)

    def intervals(
        self, counts: Int[Tensor, "k"], *, level: float = 0.95, repeats: int = 200, seed: int = 0
    ) -> Float[Tensor, "k 2"]:
        """Bootstrap intervals of :meth:`precision`, by those of the number of errors."""
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        bounds = self.errors.bootstrap(repeats=repeats, seed=seed).quantile(tail)
        return (bounds * (self.recall(counts) / counts)[:, None]).clamp(0, 1)


def wilson_interval(successes: float, total: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share; (0, 1) without observations."""
    if total == 0:
        return 0.0, 1.0
    z, share = 1.959964, successes / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * (share * (1 - share) / total + z * z / (4 * total * total)) ** 0.5
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def flipped_margins(
    spectrum: GramSpectrum,
    labels: Int[Tensor, "n"],
    num_classes: int,
    errors: LabelErrors,
    *,
    fraction: float = 0.01,
    repeats: int = 20,
    seed: int = 0,
) -> Float[Tensor, "f"]:
    """Flip the labels of a known share of trusted samples and read what margins they get, in closed form.

    Trusted are the samples that are not suspect. Each flip goes to a class drawn evenly from the others; the features
    are those of the network as it is, they are not learned again with the flipped labels.

    Args:
        spectrum: of the samples' Gram.
        labels: class indices as given.
        num_classes: C.
        errors: the judgement on this Gram, by :func:`find_label_errors`.
        fraction: share of all samples flipped at a time.
        repeats: how often.
        seed: fixes which and to what.

    Returns:
        Margins of all flips, sorted.

    Raises:
        ValueError: if fewer than two samples are trusted.
    """
    _check(spectrum, labels, num_classes)
    (trusted,) = torch.nonzero(~errors.flagged, as_tuple=True)
    if len(trusted) < 2:
        raise ValueError(f"flipped_margins has {len(trusted)} trusted labels to flip: every one is suspect")
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
    return torch.cat(flipped).sort().values


def count_errors(
    spectrum: GramSpectrum,
    cross: Float[Tensor, "m n"],
    labels: Int[Tensor, "n"],
    held_out: Int[Tensor, "m"],
    num_classes: int,
    *,
    seed: int = 0,
) -> ErrorCount:
    """Estimate how many labels are wrong by a kernel that was not made with them.

    Args:
        spectrum: of the samples' Gram by such a kernel: that of the untrained network, or one on the inputs.
        cross: inner products of held-out samples with them.
        labels: class indices as given.
        held_out: class indices of the held-out samples, taken as right.
        num_classes: C.
        seed: fixes the flips.
    """
    errors = find_label_errors(spectrum, labels, num_classes)
    Y = one_hot(labels, num_classes)
    scores = Y.mean(0) + cross @ spectrum.dual(Y, errors.delta)
    flipped = flipped_margins(spectrum, labels, num_classes, errors, seed=seed)
    return ErrorCount(errors.score, flipped, label_margins(scores, held_out))


def calibrate_label_errors(
    spectrum: GramSpectrum,
    labels: Int[Tensor, "n"],
    num_classes: int,
    errors: LabelErrors,
    count: ErrorCount,
    *,
    seed: int = 0,
) -> LabelCalibration:
    """Say how many of the first k suspects are real.

    Args:
        spectrum: of the samples' Gram by the kernel that ranks the labels.
        labels: class indices as given.
        num_classes: C.
        errors: the judgement on it, by :func:`find_label_errors`.
        count: how many errors there are, by :func:`count_errors`.
        seed: fixes the flips.
    """
    flipped = flipped_margins(spectrum, labels, num_classes, errors, seed=seed)
    return LabelCalibration(errors.score.sort().values, flipped, count)


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


def _check(spectrum: GramSpectrum, labels: Tensor, num_classes: int) -> None:
    if labels.shape != (len(spectrum),):
        raise ValueError(f"label errors need one label per sample, ({len(spectrum)},), got {tuple(labels.shape)}")
    if num_classes < 2:
        raise ValueError(f"label errors need at least two classes, got {num_classes}")
    if int(labels.min()) < 0 or int(labels.max()) >= num_classes:
        raise ValueError(
            f"labels must be in [0, {num_classes}), got {int(labels.min())} … {int(labels.max())}: pass class indices"
        )
