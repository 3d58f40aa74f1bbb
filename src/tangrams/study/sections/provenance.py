"""Section 9: how to get these numbers again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from typing import Any

import torch

import tangrams
from tangrams.features.model_ref import ModelRef
from tangrams.study.material import Material
from tangrams.study.problem import Split

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "linear_operator", "gpytorch")


def measure(material: Material, command: str) -> dict[str, Any]:
    """Command, versions, seeds, fingerprints and the time per step."""
    versions = {"tangrams": tangrams.__version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "command": command,
        "versions": versions,
        "seeds": {"study": material.seed},
        "fingerprints": {"model": ModelRef(material.model).fingerprint()}
        | {split.name: split_fingerprint(split) for split in material.problem.splits},
        "steps": [{"name": name, "seconds": round(s, 3)} for name, s in material.steps.seconds.items()],
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "study": "study.json",
        "store": None,
    }


def split_fingerprint(split: Split) -> str:
    """SHA-256 over inputs and targets of the samples studied."""
    digest = hashlib.sha256()
    for tensor in [*split.inputs.tensors(), *([] if split.targets is None else [split.given])]:
        digest.update(f"{tuple(tensor.shape)}|{tensor.dtype}|".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
