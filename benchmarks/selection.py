"""Choosing 64 of 20,000 samples with 512 features, beside bmdal-reg where it can be imported."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Conditions, Row, alternate
from benchmarks.peers import installed
from tangrams.learners import (
    BAIT,
    BatchSelector,
    FrankWolfe,
    KMeansPlusPlus,
    LargestClusterMaxDistance,
    MaxDeterminant,
    MaxDiagonal,
    MaxDistance,
)

N, LABELLED, D, BATCH = 20_000, 256, 512, 64
TABLE = "selection, 64 of 20,000 samples with 512 features"
CASES: tuple[tuple[str, BatchSelector, str, dict[str, float], torch.dtype, bool, float | None], ...] = (
    ("LCMD, 256 labelled", LargestClusterMaxDistance(BATCH), "LargestClusterMaxDist", {}, torch.float32, True, 2.0),
    ("maximum distance, 256 labelled", MaxDistance(BATCH), "MaxDist", {}, torch.float32, True, 3.0),
    ("k-means++, 256 labelled", KMeansPlusPlus(BATCH), "Kmeanspp", {}, torch.float32, True, 2.0),
    ("determinant, 256 labelled", MaxDeterminant(BATCH), "MaxDet", {"noise_sigma": 0.1}, torch.float64, True, 2.0),
    ("LCMD, the pool alone", LargestClusterMaxDistance(BATCH), "LargestClusterMaxDist", {}, torch.float32, False, None),
    ("maximum distance, the pool alone", MaxDistance(BATCH), "MaxDist", {}, torch.float32, False, None),
    ("determinant, the pool alone", MaxDeterminant(BATCH), "MaxDet", {"noise_sigma": 0.1}, torch.float64, False, None),
    ("BAIT, the pool alone", BAIT(BATCH), "BaitFeatureSpace", {"noise_sigma": 0.1}, torch.float64, False, None),
    ("Frank–Wolfe, the pool alone", FrankWolfe(BATCH), "FrankWolfe", {}, torch.float32, False, None),
    ("diagonal", MaxDiagonal(BATCH), "MaxDiag", {}, torch.float32, False, None),
)


def peer() -> dict[str, Any]:
    """bmdal-reg's modules; ``TANGRAMS_BENCH_BMDAL`` names a folder that holds it, if it is not installed."""
    folder = os.environ.get("TANGRAMS_BENCH_BMDAL")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    if not installed("bmdal_reg"):
        return {}
    setattr(np, "Inf", np.inf)  # noqa: B010  # it was written for NumPy 1
    names = ("selection", "features", "feature_maps", "feature_data")
    return {name: importlib.import_module(f"bmdal_reg.bmdal.{name}") for name in names}


def theirs(
    modules: dict[str, Any], method: str, options: dict[str, float], pool: Tensor, train: Tensor, with_train: bool
) -> Callable[[], Tensor]:
    """One selection by bmdal-reg."""

    def features(rows: Tensor) -> Any:
        identity = modules["feature_maps"].IdentityFeatureMap(D)
        return modules["features"].Features(identity, modules["feature_data"].TensorFeatureData(rows))

    def run() -> Tensor:
        selector = getattr(modules["selection"], f"{method}SelectionMethod")
        with contextlib.redirect_stdout(io.StringIO()):
            made = selector(
                pool_features=features(pool),
                train_features=features(train),
                sel_with_train=with_train,
                verbosity=0,
                **options,
            )
            return made.select(BATCH)

    return run


def rows(conditions: Conditions) -> list[Row]:
    """The table."""
    modules = peer()
    generator = torch.Generator().manual_seed(0)
    decay = torch.arange(1.0, D + 1) ** -0.75  # spectra of gradients fall
    pool, train = (torch.randn(n, D, generator=generator) * decay for n in (N, LABELLED))
    found = []
    for name, selector, method, options, dtype, with_train, floor in CASES:
        x, labelled = pool.to(dtype), train.to(dtype)
        given = {"labelled": labelled} if with_train else {"reference": labelled} if method.startswith("Bait") else {}
        rivals: dict[str, Callable[[], object]] = {"tangrams": lambda s=selector, x=x, g=given: s.fit(x, **g)}
        turns = {"tangrams": 3}
        if modules:
            rivals["bmdal-reg"] = theirs(modules, method, options, x, labelled, with_train)
            turns["bmdal-reg"] = 3
        seconds = alternate(rivals, turns, conditions.timer)
        row = Row(TABLE, name, seconds, notes={"bmdal-reg": None if modules else "not measured: not installed"})
        if modules:
            row.ratio, row.floor = seconds["bmdal-reg"] / seconds["tangrams"], floor
            chosen = rivals["bmdal-reg"]()
            assert isinstance(chosen, Tensor)
            if method != "Kmeanspp":  # which draws
                row.notes["same choice"] = set(chosen.tolist()) == set(selector.indices_.tolist())
        found.append(row)
    return found
