"""What is redundant in a training set: exact and near duplicates, and subsets that serve as well as the whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tangrams.operators.ridge import GramSpectrum


def exact_duplicates(*columns: Tensor) -> list[list[int]]:
    """Groups of samples whose inputs are equal bit by bit, found by hash.

    Args:
        *columns: every tensor that the model is called with; the first axis is the sample.

    Returns:
        Groups of two or more positions, ascending; ordered by their first member.

    Raises:
        ValueError: without tensors, or if their lengths differ.
    """
    if not columns or len({len(column) for column in columns}) != 1:
        raise ValueError("exact_duplicates expects tensors with the same number of samples")
    groups: dict[bytes, list[int]] = {}
    rows = [column.detach().cpu().contiguous() for column in columns]
    for i in range(len(rows[0])):
        digest = hashlib.blake2b(digest_size=16)
        for column in rows:
            digest.update(column[i].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        groups.setdefault(digest.digest(), []).append(i)
    return [group for group in groups.values() if len(group) > 1]


@dataclass(frozen=True)
class NearDuplicates:
    """Pairs that stand out from the similarity of all pairs.

    Attributes:
        pairs: ``(k, 2)``, most similar first.
        similarity: of those pairs: ``(k,)``.
        threshold: a pair counts above it: halfway from the pair quantile to 1, the similarity of a copy.
        quantile: which quantile of all pairs.
        quantile_value: its value.
    """

    pairs: Int[Tensor, "k 2"]
    similarity: Float[Tensor, "k"]
    threshold: float
    quantile: float
    quantile_value: float


def near_duplicates(
    spectrum: GramSpectrum,
    delta: float,
    *,
    quantile: float = 0.9999,
    exclude: Sequence[Sequence[int]] = (),
) -> NearDuplicates:
    """Near duplicates by the cosine of rows of the ridge hat matrix H = K (K + δ̂ I)⁻¹.

    Two samples are alike when the model would spread over the others in the same way to predict them. This separates
    copies from mere neighbours better than the cosine of the features, whose natural values crowd at 1.

    Args:
        spectrum: of the samples' Gram.
        delta: the ridge in units of the mean diagonal.
        quantile: of all pairs; the threshold lies halfway from its value to 1.
        exclude: groups of exact duplicates, whose pairs are left out.

    Raises:
        ValueError: if there are fewer than three samples or the quantile is outside (0, 1).
    """
    n = len(spectrum)
    if n < 3 or not 0 < quantile < 1:
        raise ValueError(f"near_duplicates needs three samples and a quantile in (0, 1), got {n} and {quantile}")
    U, shrinkage = spectrum.eigenvectors, spectrum.shrinkage(delta)
    products = (U * shrinkage.square()) @ U.mT  # H Hᵀ
    norms = products.diagonal().clamp_min(torch.finfo(products.dtype).tiny).sqrt()
    cosine = products.div_(norms).div_(norms[:, None])
    group = torch.arange(n)
    for members in exclude:
        group[torch.as_tensor(members)] = int(members[0])
    rows, columns = torch.triu_indices(n, n, 1)
    values = cosine[rows, columns]
    values[group[rows] == group[columns]] = -1.0
    rank = max(1, round((1 - quantile) * len(values)))
    level = float(values.topk(rank).values[-1])
    threshold = (1 + level) / 2
    (above,) = torch.nonzero(values > threshold, as_tuple=True)
    above = above[values[above].argsort(descending=True)]
    pairs = torch.stack([rows[above], columns[above]], 1)
    return NearDuplicates(pairs, values[above], threshold, quantile, level)


def k_centre_order(K: Tensor, *, last: Bool[Tensor, "n"] | None = None) -> Int[Tensor, "n"]:
    """Order samples so that every prefix covers the rest well: greedy k-centre in the kernel's distance.

    Starts at the sample nearest the mean; the next is always the one farthest from those chosen.

    Args:
        K: the samples' Gram, ``(n, n)``.
        last: samples to choose only after all others, such as those whose labels are suspect.

    Raises:
        ValueError: if ``K`` is not square.
    """
    if K.ndim != 2 or K.shape[0] != K.shape[1]:
        raise ValueError(f"k_centre_order expects a square Gram matrix, got {tuple(K.shape)}")
    n = len(K)
    last = torch.zeros(n, dtype=torch.bool) if last is None else last
    squares = K.diagonal()
    order = []
    nearest = torch.full((n,), torch.inf, dtype=K.dtype)
    for candidates in (~last, last):
        remaining = candidates.clone()
        for _ in range(int(candidates.sum())):
            # −½‖φ_i − mean‖² up to a constant, then the distance to the nearest chosen
            wish = nearest if order else K.mean(1) - squares / 2
            chosen = int(torch.where(remaining, wish, -torch.inf).argmax())
            remaining[chosen] = False
            order.append(chosen)
            nearest = torch.minimum(nearest, squares + squares[chosen] - 2 * K[chosen])
    return torch.tensor(order, dtype=torch.int64)


def subset_predictions(
    K: Float[Tensor, "n n"],
    cross: Float[Tensor, "m n"],
    targets: Float[Tensor, "n C"],
    index: Int[Tensor, "k"],
    delta: float,
) -> Float[Tensor, "m C"]:
    """Kernel ridge fitted on the samples at ``index`` alone, evaluated on m others."""
    sub = K[index][:, index].to(torch.float64)
    mean = targets[index].mean(0)
    sub.diagonal().add_(delta * float(sub.diagonal().mean()))
    dual = torch.cholesky_solve(targets[index] - mean, torch.linalg.cholesky(sub))
    return mean + cross[:, index].to(torch.float64) @ dual


@dataclass(frozen=True)
class SubsetCurve:
    """A model's score on growing subsets.

    Attributes:
        fractions: shares of the samples kept, ascending.
        chosen: scores on prefixes of the given order: ``(f,)``.
        random: scores on random subsets: ``(f, repeats)``.
        full: the score on all samples.
    """

    fractions: tuple[float, ...]
    chosen: Float[Tensor, "f"]
    random: Float[Tensor, "f repeats"]
    full: float


def subset_curve(
    K: Float[Tensor, "n n"],
    cross: Float[Tensor, "m n"],
    targets: Float[Tensor, "n C"],
    score: Callable[[Tensor], float],
    order: Int[Tensor, "n"],
    delta: float,
    *,
    fractions: Sequence[float] = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0),
    repeats: int = 5,
    seed: int = 0,
) -> SubsetCurve:
    """Score kernel ridge on prefixes of an order and on random subsets of the same sizes.

    Args:
        K: Gram of the n training samples.
        cross: inner products of m held-out samples with them.
        targets: of the training samples.
        score: what predictions ``(m, C)`` are worth.
        order: the training samples, to be kept first to last.
        delta: the ridge in units of the subset's mean diagonal.
        fractions: shares kept.
        repeats: random subsets per share.
        seed: fixes them.
    """
    n = len(K)
    generator = torch.Generator().manual_seed(seed)
    full = score(subset_predictions(K, cross, targets, torch.arange(n), delta))
    sizes = [max(2, round(f * n)) for f in fractions]

    def at(index: Tensor) -> float:
        return full if len(index) == n else score(subset_predictions(K, cross, targets, index, delta))

    chosen = [at(order[:size]) for size in sizes]
    random = [[at(torch.randperm(n, generator=generator)[:size]) for _ in range(repeats)] for size in sizes]
    return SubsetCurve(tuple(fractions), torch.tensor(chosen), torch.tensor(random), full)
