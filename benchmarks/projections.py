"""Projecting 512 rows of 2²⁰ columns to 1,024 numbers: the fast transforms against dense Gaussians and scikit-learn.

The rows come in blocks of 2¹⁶ columns, one block standing for all sixteen, so that what is held beyond it is the
sketch's own. scikit-learn holds its matrix: it is timed on the first eighth of the columns, drawing included, and what
it takes, seconds and memory, is linear in them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from benchmarks.harness import Conditions, PeakMemory, Row
from tangrams.operators import (
    CirculantSketch,
    CosineSketch,
    CountSketch,
    GaussianSketch,
    HadamardSketch,
    Sketch,
    SparseSketch,
)
from tangrams.operators.sketches import BLOCK

N, P, K, SHARE = 512, 1 << 20, 1024, 8
TABLE = "projections, 512 rows of p = 2²⁰ to 1,024"
FLOOR = 2.0
"""How many times faster than the dense Gaussian sketch the Hadamard one has to be."""


def measured(run: Callable[[], object], timer: Callable[[], float]) -> tuple[float, float]:
    """Seconds, and the most MiB that were resident beyond the start."""
    with PeakMemory() as memory:
        start = timer()
        run()
        seconds = timer() - start
    return seconds, memory.mib


def streamed(sketch: Sketch, block: torch.Tensor) -> torch.Tensor:
    """All columns, a block at a time."""
    out = torch.zeros(N, K)
    for start in range(0, P, BLOCK):
        sketch.accumulate(block, start, out)
    return out


def error(make: Callable[..., Sketch], rows: torch.Tensor) -> float:
    """Root mean square of ``(⟨Sx, Sy⟩ − ⟨x, y⟩) / (‖x‖ ‖y‖)`` over pairs of rows and three seeds."""
    rows = rows / rows.norm(dim=1, keepdim=True)
    off = ~torch.eye(len(rows), dtype=torch.bool)
    squares = []
    for seed in range(3):
        sketched = make(K, seed=seed).bind(rows.shape[1]).project(rows)
        squares.append((sketched @ sketched.mT - rows @ rows.mT)[off].square().mean())
    return float(torch.stack(squares).mean().sqrt())


def rows(conditions: Conditions) -> list[Row]:
    """The table."""
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(N, BLOCK, generator=generator)
    few = torch.randn(16, BLOCK // 8, generator=generator)
    HadamardSketch(K).bind(BLOCK).project(block[:8])  # warm up
    dense, dense_mib = measured(lambda: streamed(GaussianSketch(K).bind(P), block), conditions.timer)
    found = []
    members: list[type[Sketch]] = [HadamardSketch, CosineSketch, CirculantSketch, CountSketch, SparseSketch]
    for member in members:
        sketch = member(K).bind(P)
        seconds, mib = measured(lambda sketch=sketch: streamed(sketch, block), conditions.timer)
        row = Row(TABLE, member.__name__, {"tangrams": seconds, "Gaussian, streamed": dense}, dense / seconds)
        row.floor = FLOOR if member is HadamardSketch else None
        row.notes = {"MiB": round(mib), "Gaussian's": round(dense_mib), "rms error": round(error(member, few), 4)}
        found.append(row)
    found.append(scikit_learn(conditions, block, found[0].seconds["tangrams"]))
    return found


def scikit_learn(conditions: Conditions, block: torch.Tensor, ours: float) -> Row:
    """Its two projections, fitted and applied to an eighth of the columns, times eight, against our Hadamard sketch."""
    part = block.repeat(1, P // SHARE // BLOCK).numpy()
    seconds, notes = {"tangrams, Hadamard": ours}, {}
    for name, make in (("Gaussian", GaussianRandomProjection), ("sparse", SparseRandomProjection)):
        projection = make(n_components=K, random_state=0)
        taken, mib = measured(lambda p=projection: p.fit_transform(part), conditions.timer)
        seconds[f"scikit-learn, {name}"] = taken * SHARE
        notes[f"MiB, {name}"] = round(mib * SHARE)
    found = Row(TABLE, "scikit-learn, from an eighth of the columns", seconds)
    found.ratio = seconds["scikit-learn, Gaussian"] / ours
    found.notes = notes
    return found
