"""Would more data help: the measured risk on subsets, and how far it can be carried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.lens.redundancy import subset_predictions

_EXPONENTS = torch.logspace(-1.3, 0.3, 49, dtype=torch.float64)
"""The exponents c tried: 0.05 to 2."""


@dataclass(frozen=True)
class RiskLaw:
    """Risk a + b n^−c with a, b ≥ 0.

    Attributes:
        a: the risk that no amount of data takes away.
        b: the rest at n = 1.
        c: how fast it falls.
    """

    a: float
    b: float
    c: float

    def __call__(self, n: float) -> float:
        """The risk at n samples."""
        return self.a + self.b * n**-self.c


@dataclass(frozen=True)
class LearningCurve:
    """Risk on random subsets of the training data, measured on held-out samples.

    Attributes:
        sizes: numbers of training samples, ascending.
        losses: loss per size, random subset and held-out sample: ``(s, r, m)``.
    """

    sizes: tuple[int, ...]
    losses: Float[Tensor, "s r m"]

    @property
    def risk(self) -> Float[Tensor, "s"]:
        """Mean loss per size."""
        return self.losses.mean((1, 2))

    def fit(self) -> RiskLaw:
        """Least squares of the relative error of a + b n^−c, a, b ≥ 0, c between 0.05 and 2."""
        return fit_risk_law(self.sizes, self.risk)

    def bootstrap(self, sizes: Sequence[int], *, repeats: int = 200, seed: int = 0) -> Float[Tensor, "repeats k"]:
        """Risks at ``sizes`` by the law fitted to resampled subsets and held-out samples."""
        laws = _fit_power_laws(self.sizes, self._resampled(repeats, seed))
        return laws[:, :1] + laws[:, 1:2] * torch.tensor(sizes, dtype=torch.float64) ** -laws[:, 2:]

    def intervals(self, *, level: float = 0.95, repeats: int = 200, seed: int = 0) -> Float[Tensor, "s 2"]:
        """Bootstrap intervals of the measured risks."""
        tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
        return self._resampled(repeats, seed).quantile(tail, dim=0).mT

    def _resampled(self, repeats: int, seed: int) -> Float[Tensor, "repeats s"]:
        generator = torch.Generator().manual_seed(seed)
        num_sizes, subsets, held_out = self.losses.shape
        rows = []
        for _ in range(repeats):
            samples = torch.bincount(torch.randint(held_out, (held_out,), generator=generator), minlength=held_out)
            draw = torch.randint(subsets, (num_sizes, subsets), generator=generator)
            means = self.losses @ (samples / held_out).to(self.losses.dtype)  # (s, r)
            rows.append(means.gather(1, draw).mean(1))
        return torch.stack(rows)


def measure_learning_curve(
    K: Float[Tensor, "n n"],
    cross: Float[Tensor, "m n"],
    targets: Float[Tensor, "n C"],
    held_out: Float[Tensor, "m C"],
    delta: float,
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 4,
    seed: int = 0,
) -> LearningCurve:
    """Squared risk of kernel ridge on random subsets against held-out targets.

    The features are those of the network trained on everything, so this is what more labels would do *given these
    features*.

    Args:
        K: Gram of the n training samples.
        cross: inner products of m held-out samples with them.
        targets: of the training samples.
        held_out: targets of the held-out samples.
        delta: the ridge in units of the mean diagonal.
        sizes: subset sizes; None: seven from n/10 to n, evenly spaced in the logarithm.
        repeats: random subsets per size.
        seed: fixes them.

    Raises:
        ValueError: with fewer than 20 training samples.
    """
    n = len(K)
    if n < 20:
        raise ValueError(f"a learning curve needs at least 20 training samples, got {n}")
    if sizes is None:
        sizes = [round(n * 10 ** (-1 + i / 6)) for i in range(7)]
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for size in sizes:
        at_size = []
        for repeat in range(repeats):
            if size == n and repeat:
                at_size.append(at_size[0])
                continue
            index = torch.randperm(n, generator=generator)[:size]
            predicted = subset_predictions(K, cross, targets, index, delta)
            at_size.append((predicted - held_out).square().sum(1))
        losses.append(torch.stack(at_size))
    return LearningCurve(tuple(sizes), torch.stack(losses))


def fit_risk_law(sizes: Sequence[float], risks: Float[Tensor, "s"]) -> RiskLaw:
    """Least squares of the relative error of a + b n^−c, a, b ≥ 0, c between 0.05 and 2.

    Args:
        sizes: n.
        risks: measured there, positive.
    """
    a, b, c = _fit_power_laws(sizes, risks.to(torch.float64)[None])[0].tolist()
    return RiskLaw(a, b, c)


def _fit_power_laws(sizes: Sequence[float], risks: Float[Tensor, "b s"]) -> Float[Tensor, "b 3"]:
    """(a, b, c) per row of risks: for each c on a grid a and b in closed form, clipped to a, b ≥ 0."""
    n = torch.tensor(sizes, dtype=torch.float64)
    basis = n ** -_EXPONENTS[:, None]  # (c, s)
    weight = 1 / risks.clamp_min(1e-12).square()  # relative errors
    total = weight.sum(1, keepdim=True)  # (b, 1)
    s1, s2 = weight @ basis.mT, weight @ basis.square().mT  # (b, c)
    r0, r1 = (weight * risks).sum(1, keepdim=True), (weight * risks) @ basis.mT
    slope = (total * r1 - s1 * r0) / (total * s2 - s1.square()).clamp_min(1e-300)
    floor = (r0 - slope * s1) / total
    slope = torch.where(floor < 0, r1 / s2, slope)
    floor = torch.where(floor < 0, torch.zeros_like(floor), floor)
    flat = slope < 0
    floor = torch.where(flat, (r0 / total).expand_as(floor), floor)
    slope = torch.where(flat, torch.zeros_like(slope), slope)
    fitted = floor[..., None] + slope[..., None] * basis  # (b, c, s)
    error = (weight[:, None] * (fitted - risks[:, None]).square()).sum(-1)
    best = error.argmin(1)
    row = torch.arange(len(risks))
    return torch.stack([floor[row, best], slope[row, best], _EXPONENTS[best]], 1)
