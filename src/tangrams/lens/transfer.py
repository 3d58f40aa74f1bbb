"""Whether the best learning rate, and the curvature behind it, stay the same as a network grows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TransferCurve:
    """Losses over sizes and learning rates.

    Attributes:
        sizes: widths or depths.
        lrs: learning rates.
        loss: ``(sizes, lrs, seeds)``; infinite where training diverged.
    """

    sizes: tuple[int, ...]
    lrs: tuple[float, ...]
    loss: np.ndarray

    @property
    def best(self) -> tuple[float, ...]:
        """The rate of the lowest loss at each size: the mean over seeds, infinite if any diverged."""
        return tuple(self.lrs[int(np.argmin(row))] for row in self.loss.mean(2))

    @property
    def drift(self) -> float:
        """Slope of the log of the best rate over the log of the size; zero where rates transfer."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.best), 1)[0])

    @property
    def steps(self) -> float:
        """How far apart the smallest and the largest best rate are, in factors of two."""
        return math.log2(max(self.best) / min(self.best))


def transfer_curve(
    train: Callable[[int, float, int], float], sizes: Sequence[int], lrs: Sequence[float], *, seeds: int = 1
) -> TransferCurve:
    """Train at every size, rate and seed [062].

    Args:
        train: (size, rate, seed) → the final loss; anything not finite counts as divergence.
        sizes: two or more.
        lrs: two or more, ascending.
        seeds: runs each.

    Raises:
        ValueError: if there are too few sizes or rates, rates do not ascend, or all of a size diverge.
    """
    if len(sizes) < 2 or len(lrs) < 2 or list(lrs) != sorted(lrs):
        raise ValueError(f"transfer_curve needs two sizes and two ascending rates, got {list(sizes)} and {list(lrs)}")
    loss = np.array([[[train(size, lr, seed) for seed in range(seeds)] for lr in lrs] for size in sizes], float)
    loss[~np.isfinite(loss)] = np.inf
    for size, row in zip(sizes, loss, strict=True):
        if not np.isfinite(row.mean(1)).any():
            raise ValueError(f"transfer_curve: every rate diverged at size {size}: lower them")
    return TransferCurve(tuple(sizes), tuple(lrs), loss)


@dataclass(frozen=True)
class SuperConsistency:
    """How much a quantity's trajectory depends on the size of the network.

    Attributes:
        sizes: ascending.
        deviation: ``(sizes − 1, times)``; relative distance from the largest size's trajectory.
        slope: ``(times,)``; of the log of the quantity over the log of the size.
        spread: ``(times,)``; standard deviation of its log over sizes.
    """

    sizes: tuple[int, ...]
    deviation: np.ndarray
    slope: np.ndarray
    spread: np.ndarray


def super_consistency(trajectories: Mapping[int, Sequence[float] | np.ndarray]) -> SuperConsistency:
    """Compare trajectories of a positive quantity, such as sharpness, over sizes [062].

    Args:
        trajectories: size → values at the same times.

    Raises:
        ValueError: if there are fewer than two sizes, times differ in number, or a value is not positive.
    """
    sizes = tuple(sorted(trajectories))
    lengths = {len(trajectories[size]) for size in sizes}
    if len(sizes) < 2 or len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"super_consistency needs two sizes measured at the same times, got {len(sizes)} of {lengths}")
    values = np.array([trajectories[size] for size in sizes], float)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise ValueError("super_consistency needs positive values: leave out times where a run diverged or bends down")
    logs = np.log(values)
    slope = np.polyfit(np.log(sizes), logs, 1)[0]
    return SuperConsistency(sizes, np.abs(values[:-1] - values[-1]) / values[-1], slope, logs.std(0))
