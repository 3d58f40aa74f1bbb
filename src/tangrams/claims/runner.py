"""Measure a claim and keep what it gave."""

from __future__ import annotations

import importlib
import json
import pkgutil
import platform
import time
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tangrams
from tangrams.claims.base import Claim, Evidence
from tangrams.data import DataNotFoundError
from tangrams.store import replacing


@dataclass(frozen=True)
class Record:
    """Evidence with what is needed to get it again.

    Attributes:
        number: the paper's number.
        slug: the paper's slug.
        preset: the preset that was measured.
        statement: what the paper claims.
        baselines: what it was compared with.
        verdict: as in :class:`Evidence`.
        sentence: as in :class:`Evidence`.
        numbers: as in :class:`Evidence`.
        settings: the keyword arguments of the preset.
        seconds: wall-clock seconds it took.
        versions: of Python, torch, numpy and tangrams, and the device.
    """

    number: int
    slug: str
    preset: str
    statement: str
    baselines: tuple[str, ...]
    verdict: str
    sentence: str
    numbers: dict[str, Any]
    settings: dict[str, Any]
    seconds: float
    versions: dict[str, str]


@cache
def claims() -> dict[str, Claim]:
    """All claims, by slug, in the order of their numbers."""
    package = importlib.import_module("tangrams.claims")
    names = sorted(
        m.name for m in pkgutil.iter_modules(package.__path__) if m.name[:1] == "c" and m.name[1:4].isdigit()
    )
    found = [importlib.import_module(f"tangrams.claims.{name}").CLAIM for name in names]
    return {claim.slug: claim for claim in found}


def measure(slug: str, preset: str = "quick") -> tuple[Record, Evidence]:
    """Measure the claim of ``slug`` with a preset.

    A preset whose data sets are not there gives the verdict ``skipped: data``, never a pass. The global random state
    and the default dtype are left as they were.

    Raises:
        KeyError: for an unknown slug or preset; the message lists what there is.
    """
    if slug not in claims():
        raise KeyError(f"no claim {slug!r}: there are {', '.join(claims())}")
    claim = claims()[slug]
    if preset not in claim.presets:
        raise KeyError(f"the claim {slug!r} has no preset {preset!r}: there are {', '.join(claim.presets)}")
    settings = dict(claim.presets[preset])
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        state = np.random.get_state()  # noqa: NPY002 - only kept and put back
        dtype = torch.get_default_dtype()
        try:
            evidence = claim.measure(**settings)
        except DataNotFoundError as missing:
            evidence = Evidence("skipped: data", str(missing), {})
        finally:
            np.random.set_state(state)  # noqa: NPY002
            torch.set_default_dtype(dtype)
    record = Record(
        number=claim.number,
        slug=claim.slug,
        preset=preset,
        statement=claim.statement,
        baselines=claim.baselines,
        verdict=evidence.verdict,
        sentence=evidence.sentence,
        numbers=dict(evidence.numbers),
        settings=settings,
        seconds=round(time.perf_counter() - start, 2),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "tangrams": tangrams.__version__,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        },
    )
    return record, evidence


def keep(record: Record, evidence: Evidence, folder: Path) -> Path:
    """Write ``NNN-slug.json`` and, where there is a figure, ``NNN-slug.png`` into ``folder``; the path of the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"{record.number:03d}-{record.slug}"
    path = stem.with_suffix(".json")
    if evidence.figure is not None:
        with replacing(stem.with_suffix(".png")) as partial:
            evidence.figure.savefig(partial, dpi=110, bbox_inches="tight")
    with replacing(path) as partial:
        partial.write_text(json.dumps(asdict(record), indent=1, default=_plain) + "\n")
    return path


def kept(folder: Path) -> dict[str, Record]:
    """The records in a folder, by slug."""
    found = {}
    for path in sorted(folder.glob("[0-9][0-9][0-9]-*.json")):
        data = json.loads(path.read_text())
        found[data["slug"]] = Record(**{**data, "baselines": tuple(data["baselines"])})
    return found


def _plain(value: Any) -> Any:
    """Numbers and arrays of torch and numpy as JSON data."""
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a claim's numbers must be JSON data, got {type(value).__name__}")
