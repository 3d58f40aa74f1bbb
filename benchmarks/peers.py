"""Other packages in the same tables, where they are installed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn


def installed(name: str) -> bool:
    """Whether a package can be imported here."""
    return importlib.util.find_spec(name) is not None


def gram_rivals(model: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    """Gram matrices of all outputs by other packages."""
    if not installed("nngeometry"):
        return {}
    from nngeometry.generator.jacobian import Jacobian  # type: ignore[import-not-found]
    from nngeometry.layercollection import LayerCollection  # type: ignore[import-not-found]
    from nngeometry.object.fspace import FMatDense  # type: ignore[import-not-found]
    from torch.utils.data import DataLoader, TensorDataset

    loader = DataLoader(TensorDataset(x, torch.zeros(len(x), dtype=torch.int64)), batch_size=len(x))
    layers = LayerCollection.from_model(model)

    def run() -> object:
        generator = Jacobian(model=model, function=lambda *batch: model(batch[0]), n_output=10)
        return FMatDense(layer_collection=layers, generator=generator, examples=loader).get_dense_tensor()

    return {"nngeometry": run}


def neural_tangents(n: int) -> dict[str, dict[str, float]]:
    """neural-tangents, timed by an interpreter of its own: ``TANGRAMS_BENCH_NT_PYTHON`` names it.

    It needs jax 0.4.20 and does not live beside a current NumPy.
    """
    python = os.environ.get("TANGRAMS_BENCH_NT_PYTHON")
    if not python:
        return {}
    script = Path(__file__).with_name("neural_tangents_process.py")
    done = subprocess.run([python, str(script), str(n)], capture_output=True, text=True, check=False, timeout=900)
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:]
        raise RuntimeError(f"TANGRAMS_BENCH_NT_PYTHON={python} cannot time neural-tangents: {' '.join(reason)}")
    return json.loads(done.stdout.splitlines()[-1])


def projector_rivals(gradients: Tensor, k: int) -> dict[str, Callable[[], object]]:
    """Random projections of gradients by other packages."""
    if not installed("trak"):
        return {}
    from trak.projectors import BasicProjector, ProjectionType  # type: ignore[import-not-found]

    projector = BasicProjector(
        grad_dim=gradients.shape[1],
        proj_dim=k,
        seed=0,
        proj_type=ProjectionType.rademacher,
        device=torch.device("cpu"),
        block_size=256,
    )
    return {"traker": lambda: projector.project(gradients, model_id=0)}


def missing() -> list[str]:
    """What would be in the tables if it were installed."""
    absent = [name for name, module in {"nngeometry": "nngeometry", "traker": "trak"}.items() if not installed(module)]
    if not os.environ.get("TANGRAMS_BENCH_NT_PYTHON"):
        absent.append("neural-tangents (TANGRAMS_BENCH_NT_PYTHON is not set)")
    return absent
