"""What the command ``tangrams study`` does: the embedded default, or a network and data from files."""

from __future__ import annotations

import importlib
import os
import pickle
import shlex
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from tangrams.data.labelled import Labelled
from tangrams.study.default import trained_default
from tangrams.study.main import Study, study
from tangrams.study.progress import Steps


def run_default(out: str | os.PathLike[str] = "study", seed: int = 0) -> Study:
    """Train the small network on digits with planted mistakes, study it, and say what was found.

    Args:
        out: folder for report.html and study.json.
        seed: fixes everything.
    """
    _writable(Path(out))
    steps = Steps()
    with steps.live():
        with steps("Training on the digits") as advance:
            default = trained_default(seed, advance=advance)
        found = study(
            default.model,
            default.data.train.dataset(),
            default.data.test_dataset(),
            initial_weights=default.initial_weights,
            out=out,
            seed=seed,
            classes=default.data.class_names,
            name="handwritten digits",
            input_unit="pixel values 0–1",
            source="trained here, 60 epochs of Adam",
            truth=default.truth,
            retrain=default.retrain,
            command=f"tangrams study --seed {seed}",
            steps=steps,
        )
    _tell(found)
    return found


def run_user(
    target: str,
    weights: str | os.PathLike[str] | None,
    train: str | os.PathLike[str],
    test: str | os.PathLike[str],
    out: str | os.PathLike[str] = "study",
    *,
    pool: str | os.PathLike[str] | None = None,
    initial_weights: str | os.PathLike[str] | None = None,
    seed: int = 0,
) -> Study:
    """Study a network of the user's from files.

    Args:
        target: ``package.module:function``, called without arguments to build the network; looked for in the working
            directory too.
        weights: its trained weights, ``.safetensors`` or a state dict saved by torch; None: as built.
        train: ``.npz`` with arrays ``x`` and ``y`` (or ``x_NAME`` for keyword arguments); read without pickle.
        test: the same.
        out: folder for report.html and study.json.
        pool: ``.npz`` with ``x``.
        initial_weights: the weights before training.
        seed: fixes every draw.

    Anything that cannot be read or does not fit is a ``ValueError`` of one line.
    """
    folder = Path(out)
    _writable(folder)
    model = build_model(target)
    if weights is not None:
        load_weights(model, weights)
    data = {"train": load_samples(train), "test": load_samples(test)}
    extra = None if pool is None else load_samples(pool, targets=False)
    before = None if initial_weights is None else read_weights(initial_weights)
    arguments = [target]
    for flag, value in (
        ("--weights", weights),
        ("--train", train),
        ("--test", test),
        ("--pool", pool),
        ("--initial-weights", initial_weights),
        ("--out", out),
        ("--seed", seed),
    ):
        if value is not None:
            arguments += [flag, str(value)]
    found = study(
        model,
        data["train"],
        data["test"],
        pool=extra,
        initial_weights=before,
        out=out,
        seed=seed,
        name=Path(train).name,
        source=None if weights is None else Path(weights).name,
        command=f"tangrams study {shlex.join(arguments)}",
    )
    _tell(found)
    return found


def build_model(target: str) -> nn.Module:
    """Import ``package.module:function`` and call it for a network.

    Args:
        target: also ``package.module:network`` where that is a module already.

    Raises:
        ValueError: if it cannot be imported or found, fails, or gives no ``nn.Module``.
    """
    path, _, attribute = target.partition(":")
    if not path or not attribute:
        raise ValueError(f"{target!r} does not name a function: write package.module:function")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(path)
    except Exception as error:  # whatever the user's module does when it is imported
        raise ValueError(f"cannot import {path}: {type(error).__name__}: {error}") from error
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{path} has no {attribute!r}")
        found = getattr(found, part)
    if isinstance(found, nn.Module):
        return found
    if not callable(found):
        raise ValueError(f"{target} is a {type(found).__name__}, neither a function nor an nn.Module")
    try:
        model = found()
    except Exception as error:  # the same for its function
        raise ValueError(f"{target}() failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{target}() returned a {type(model).__name__}, expected an nn.Module")
    return model


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors`` or from a file saved by torch, without running code from it.

    Args:
        path: the file.

    Raises:
        ValueError: if it cannot be read or holds no state dict.
    """
    file = _existing(path)
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            found: Any = load_file(file)
        else:
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own text advises to run what the file holds
        raise ValueError(
            f"cannot read weights from {file}: torch finds no plain tensors in it; save model.state_dict()"
        ) from error
    except Exception as error:  # each format raises its own kinds
        raise ValueError(f"cannot read weights from {file}: {' '.join(str(error).split())[:200]}") from error
    if isinstance(found, dict) and isinstance(found.get("state_dict"), dict):
        found = found["state_dict"]
    if not isinstance(found, dict) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{file} holds no state dict: save model.state_dict()")
    return found


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Load a file of weights into a network.

    Args:
        model: the network, changed in place.
        path: the file.

    Raises:
        ValueError: if the file cannot be read or does not fit.
    """
    weights = read_weights(path)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network: {' '.join(str(error).split())[:300]}") from error


def load_samples(path: str | os.PathLike[str], *, targets: bool = True) -> Any:
    """Read samples from a ``.npz``: ``x`` and ``y``, or ``x_NAME`` … for a network called with keywords.

    Args:
        path: the file; pickled arrays are refused.
        targets: whether ``y`` is needed.

    Raises:
        ValueError: if it cannot be read, lacks an array, or the arrays disagree on the number of samples.
    """
    file = _existing(path)
    if not zipfile.is_zipfile(file):
        raise ValueError(f"cannot read {file}: it is no .npz archive, as numpy.savez writes one")
    try:
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, numpy and the file system each have their own
        raise ValueError(f"cannot read {file} as .npz without pickle: {error}") from error
    named = {name[2:]: _tensor(array, name, file) for name, array in arrays.items() if name.startswith("x_")}
    if "x" not in arrays and not named:
        raise ValueError(f"{file} has no array 'x', only {sorted(arrays) or 'nothing'}")
    inputs = _tensor(arrays["x"], "x", file) if "x" in arrays else named
    if not targets:
        return inputs
    if "y" not in arrays:
        raise ValueError(f"{file} has no array 'y', only {sorted(arrays)}")
    y = _tensor(arrays["y"], "y", file)
    for name, tensor in {"x": inputs}.items() if isinstance(inputs, Tensor) else named.items():
        if len(tensor) != len(y):
            raise ValueError(f"{file} has {len(tensor)} samples in {name!r} and {len(y)} in 'y'")
    return Labelled(inputs, y)


def _tensor(array: np.ndarray, name: str, file: Path) -> Tensor:
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{file}: {name!r} has dtype {array.dtype}, expected numbers")
    if array.ndim == 0:
        raise ValueError(f"{file}: {name!r} is a single number, expected one row per sample")
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype(np.int64)
    return torch.from_numpy(np.ascontiguousarray(array))


def _existing(path: str | os.PathLike[str]) -> Path:
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"there is no file {file}")
    return file


def _writable(folder: Path) -> None:
    """Find out before the work, not after it, that the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write to {folder}: {error.strerror}") from error


def _tell(found: Study) -> None:
    """The last lines: what stands out, and where the report is."""
    console = Console()
    for finding in found.findings:
        console.print(f"• {finding.text}", markup=False, highlight=False, soft_wrap=True)
    folder = found.folder or Path()
    console.print(f"Report: {folder / 'report.html'}", markup=False, highlight=False, soft_wrap=True)
