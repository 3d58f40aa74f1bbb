"""Sketching 128 gradients of a network with 421,642 parameters to 2,048 numbers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks import models, peers
from benchmarks.harness import Conditions, Row, alternate
from tangrams.features import TangentFeatures
from tangrams.features.inputs import as_inputs
from tangrams.features.tangent.dense import visit_rows
from tangrams.operators.sketches import CountSketch, HadamardSketch, KroneckerSketch, TensorSketch
from tangrams.operators.sketches.base import Sketch

N, K = 128, 2048
TABLE = "sketches, 128 gradients of p = 421,642 to 2,048"


def off_diagonal_error(sketched: Tensor, rows: Tensor) -> tuple[float, float]:
    """Root mean square of ``(⟨Sx, Sy⟩ − ⟨x, y⟩) / (‖x‖ ‖y‖)`` off the diagonal, and the mean cosine ρ."""
    norms = rows.norm(dim=1)
    scale = norms[:, None] * norms
    cosine = rows.double() @ rows.double().mT / scale.double()
    off = ~torch.eye(len(rows), dtype=torch.bool)
    difference = sketched.double() @ sketched.double().mT / scale.double() - cosine
    return difference[off].square().mean().sqrt().item(), cosine[off].mean().item()


def rows(conditions: Conditions) -> list[Row]:
    """The table."""
    torch.manual_seed(0)
    model = models.cnn().eval()
    x = torch.randn(N, 1, 28, 28)
    phi = TangentFeatures(model, "sum")
    gradients = phi.matrix(x).to_dense()
    found = []
    members: list[type[Sketch]] = [CountSketch, HadamardSketch, TensorSketch, KroneckerSketch]
    for member in members:
        sketch = member(K, seed=0).bind(phi.columns)
        rivals: dict[str, Callable[[], object]] = {"tangrams": lambda sketch=sketch: sketch.project(gradients)}
        turns = {"tangrams": 5}
        if member is CountSketch:
            extra = peers.projector_rivals(gradients, K)
            rivals |= extra
            turns |= dict.fromkeys(extra, 1)
        seconds = alternate(rivals, turns, conditions.timer)
        errors = [
            off_diagonal_error(member(K, seed=s).bind(phi.columns).project(gradients), gradients) for s in range(5)
        ]
        rms, rho = sum(e for e, _ in errors) / len(errors), errors[0][1]
        notes = {"rms error, 5 seeds": round(rms, 4), "√((1+ρ²)/k)": round(((1 + rho**2) / K) ** 0.5, 4)}
        if member is KroneckerSketch:
            notes["note"] = "larger variance by construction: for storage and speed, not for accuracy"
        found.append(Row(TABLE, member.__name__, seconds, notes=notes))
    inputs = as_inputs(x)
    chain = phi >> CountSketch(K, seed=0)
    plain = alternate(
        {
            "gradients": lambda: visit_rows(phi.spec, inputs, lambda where, function, rows: None),
            "gradients and sketch": lambda: chain.matrix(x).to_dense(),
        },
        {"gradients": 5, "gradients and sketch": 5},
        conditions.timer,
    )
    beyond = plain["gradients and sketch"] - plain["gradients"]
    row = Row(TABLE, "phi >> CountSketch, a few rows at a time", plain)
    row.notes = {"seconds beyond the gradients (≤ 0.1)": round(beyond, 4)}
    found.append(row)
    found.append(sparse(conditions))
    return found


def sparse(conditions: Conditions) -> Row:
    """Inputs that are sparse with as many features as k: what breaks folding without a shift."""
    torch.manual_seed(0)
    width = K
    a = torch.zeros(N, width)
    a[:, torch.randperm(width)[:4]] = torch.randn(N, 4)
    g = torch.randn(N, 200)
    gradients = torch.einsum("no,ni->noi", g, a).flatten(1)
    errors = [
        off_diagonal_error(CountSketch(K, seed=s).bind(gradients.shape[1]).project(gradients), gradients)
        for s in range(5)
    ]
    rms, rho = sum(e for e, _ in errors) / len(errors), errors[0][1]
    sketch = CountSketch(K, seed=0).bind(gradients.shape[1])
    seconds = alternate({"tangrams": lambda: sketch.project(gradients)}, {"tangrams": 3}, conditions.timer)
    notes = {"rms error, 5 seeds": round(rms, 4), "√((1+ρ²)/k)": round(((1 + rho**2) / K) ** 0.5, 4)}
    return Row(TABLE, "CountSketch, sparse inputs with in_features = k", seconds, notes=notes)
