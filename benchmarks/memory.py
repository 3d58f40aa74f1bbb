"""The Gram matrix of many samples: seconds, and memory beyond the result."""

from __future__ import annotations

import torch

from benchmarks import models
from benchmarks.harness import Conditions, PeakMemory, Row
from tangrams.features import TangentFeatures


def rows(conditions: Conditions, n: int = 10_000) -> list[Row]:
    """10,000 × 10,000 of the small CNN, sum of outputs."""
    torch.manual_seed(0)
    phi = TangentFeatures(models.cnn(), "sum")
    x = torch.randn(n, 1, 28, 28)
    phi.gram(x[:64])
    plan = phi.plan(x)
    with PeakMemory() as memory:
        start = conditions.timer()
        gram = phi.gram(x)
        seconds = conditions.timer() - start
    notes = {
        "MiB beyond the result": round(memory.mib - gram.numel() * gram.element_size() / 2**20),
        "MiB planned": round(plan.bytes / 2**20),
        "passes": plan.passes,
    }
    return [Row("memory", f"CNN, sum, {n} × {n}", {"tangrams": seconds}, notes=notes)]
