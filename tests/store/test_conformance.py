"""A store's feature matrix keeps every promise of the role."""

import tempfile
from pathlib import Path

import torch

from tangrams.store import FeatureStore, StoreSpec, StoreWriter
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.feature_matrix import FeatureMatrixSuite

FOLDER = tempfile.TemporaryDirectory()


def dense(dtype="float64", n=23, d=7):
    return torch.randn(n, d, dtype=getattr(torch, dtype), generator=torch.Generator().manual_seed(n + d))


def stored(dtype="float64", n=23, d=7, strip=3):
    path = Path(FOLDER.name) / f"{dtype}-{n}-{d}-{strip}.zarr"
    if not path.exists():
        spec = StoreSpec(n, 1, d, dtype, 5, strip=strip)
        with StoreWriter(path, spec, {}) as writer:
            for block in writer.missing_blocks():
                rows = spec.samples_of(block)
                writer.write_block(block, dense(dtype, n, d)[rows.start : rows.stop])
            writer.finish()
    return FeatureStore.open(path).matrix()


TestStored = conformance(
    FeatureMatrixSuite,
    Case(stored, reference=dense, name="tall-float64"),
    Case(lambda: stored(strip=7), reference=dense, name="unstripped"),
    Case(lambda: stored(n=6, d=19), reference=lambda: dense(n=6, d=19), name="wide"),
    Case(lambda: stored("float32"), reference=lambda: dense("float32"), name="float32"),
)
