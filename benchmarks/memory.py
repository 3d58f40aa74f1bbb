"""The Gram matrix of many samples: seconds, and memory beyond the result."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import torch

from benchmarks import models
from benchmarks.harness import Conditions, Row
from tangrams.features import TangentFeatures

_PAGE = 4096


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


def rows(conditions: Conditions, n: int = 10_000) -> list[Row]:
    """10,000 × 10,000 of the small CNN, sum of outputs."""
    torch.manual_seed(0)
    phi = TangentFeatures(models.cnn(), "sum")
    x = torch.randn(n, 1, 28, 28)
    phi.gram(x[:64])
    plan = phi.plan(x)
    base, peak, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            peak[0] = max(peak[0], resident())
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    start = conditions.timer()
    gram = phi.gram(x)
    seconds = conditions.timer() - start
    done.set()
    thread.join()
    notes = {
        "MiB beyond the result": round((peak[0] - base - gram.numel() * gram.element_size()) / 2**20),
        "MiB planned": round(plan.bytes / 2**20),
        "passes": plan.passes,
    }
    return [Row("memory", f"CNN, sum, {n} × {n}", {"tangrams": seconds}, notes=notes)]
