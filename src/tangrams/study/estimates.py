"""Numbers with their uncertainty, as study.json writes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tangrams.lens.label_errors import wilson_interval

ONE_RUN = "one run: no interval"


def estimate(value: float, interval: Sequence[float] | None = None, how: str = ONE_RUN) -> dict[str, Any]:
    """A number with an interval, or with the reason why it has none."""
    return {"value": float(value), "interval": None if interval is None else [float(v) for v in interval], "how": how}


def share(hits: Tensor) -> dict[str, Any]:
    """The share of true entries with its Wilson interval."""
    total, found = hits.numel(), int(hits.sum())
    return estimate(found / max(total, 1), wilson_interval(found, total), f"95 % Wilson, n = {total}")


def spread(values: Tensor, what: str) -> dict[str, Any]:
    """The mean of repeated measurements, from the smallest to the largest."""
    if len(values) < 2:
        return estimate(float(values.mean()))
    interval = [float(values.min()), float(values.max())]
    return estimate(float(values.mean()), interval, f"spread over {len(values)} {what}")


def bootstrap(
    statistic: Callable[[Tensor], float], n: int, *, repeats: int = 200, seed: int = 0, resampled: str = "samples"
) -> dict[str, Any]:
    """A statistic of n samples with a bootstrap interval.

    Args:
        statistic: of the samples at an index ``(n,)``; draws on which it is NaN are left out.
        n: how many samples.
        repeats: bootstrap draws.
        seed: fixes them.
        resampled: what one sample is, for the words.
    """
    generator = torch.Generator().manual_seed(seed)
    value = statistic(torch.arange(n))
    draws = torch.tensor(
        [statistic(torch.randint(n, (n,), generator=generator)) for _ in range(repeats)], dtype=torch.float64
    )
    draws = draws[draws.isfinite()]
    if len(draws) < 20:
        return estimate(value, None, "too few samples for an interval")
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return estimate(value, [min(low, value), max(high, value)], f"95 % bootstrap over {resampled}")


def score(value: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any] | float]) -> dict[str, Any]:
    """A score with the simple baselines beside it."""
    rows = [
        {"name": name, "value": dict(found) if isinstance(found, Mapping) else estimate(found)}
        for name, found in baselines.items()
    ]
    return {"value": dict(value), "baselines": rows}


def absent(reason: str) -> dict[str, Any]:
    """A section that was not measured, and why."""
    return {"state": "absent", "reason": reason}
