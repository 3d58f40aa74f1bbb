"""The same suite on rows that are computed on demand and on rows that lie on disk."""

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import torch
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.store import FeatureStore
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.feature_matrix import FeatureMatrixSuite


def inputs(dtype):
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


@functools.cache
def network(dtype):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).to(dtype)


def tangent(dtype, output="all"):
    return TangentFeatures(network(dtype), output=output)


def jacobian(dtype):
    """Row by row with plain autograd."""
    model = network(dtype)
    rows = []
    for x in inputs(dtype):
        for value in model(x[None])[0]:
            grads = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in grads]))
    return torch.stack(rows)


@functools.cache
def stored(dtype):
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "features.zarr"
    tangent(dtype).extract(inputs(dtype), path, block_size=2, dtype=str(dtype).removeprefix("torch."))
    return path


TestLazy = conformance(
    FeatureMatrixSuite,
    Case(
        lambda: tangent(torch.float64).matrix(inputs(torch.float64)),
        reference=lambda: jacobian(torch.float64),
        name="tangent-float64",
    ),
    Case(
        lambda: tangent(torch.float32).matrix(inputs(torch.float32)),
        reference=lambda: jacobian(torch.float32),
        name="tangent-float32",
    ),
)

TestStored = conformance(
    FeatureMatrixSuite,
    Case(
        lambda: FeatureStore.open(stored(torch.float32)).matrix(),
        reference=lambda: jacobian(torch.float32),
        name="stored-float32",
    ),
)
