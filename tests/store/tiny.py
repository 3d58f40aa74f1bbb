"""A tiny feature map, its data, and helpers; loaded by path, in tests and in the processes that tests kill."""

import contextlib
import io
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import torch

from tangrams.features.base import FeatureMap
from tangrams.features.extract import extract
from tangrams.operators import DenseRows
from tangrams.operators.sketches.base import Column
from tangrams.store import folder as folder_module
from tangrams.store import lock as lock_module

N, IN, OUT, ROWS = 11, 4, 6, 2
BLOCK = 3


class LinearMap(FeatureMap):
    """``rows_per_sample`` rows x Wᵣ per sample; outputs are their sums."""

    def __init__(self, seed=0, out=OUT, rows=ROWS, scale=1.0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.randn(rows, IN, out, generator=generator) * scale
        self.rows_per_sample = rows
        self.seed = seed

    @property
    def columns(self):
        return (Column("w", (self.weight.shape[2],), 0, self.weight.shape[2]),)

    def forward(self, x):
        return torch.einsum("ni,rio->nro", x, self.weight).flatten(0, 1)

    def outputs(self, x):
        return self(x).reshape(len(x), self.rows_per_sample, -1).sum(-1)

    def rows(self, x):
        return DenseRows(self(x))

    def describe(self):
        return {"class": "LinearMap", "seed": self.seed, "checksum": float(self.weight.double().sum())}


def data(n=N, seed=1):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, IN, generator=generator)
    return torch.utils.data.TensorDataset(x, torch.arange(n) % 4)


def run(path, phi=None, dataset=None, **options):
    dataset = data() if dataset is None else dataset
    return extract(phi or LinearMap(), dataset, path, **{"block_size": BLOCK, **options})


def contents(path):
    """Every file of a store and its bytes."""
    path = Path(path)
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def restore(path, files):
    """Make a folder hold exactly these files."""
    shutil.rmtree(path, ignore_errors=True)
    for name, value in files.items():
        (Path(path) / name).parent.mkdir(parents=True, exist_ok=True)
        (Path(path) / name).write_bytes(value)
    return Path(path)


CHANGING = ("open", "write", "ftruncate", "fsync", "close", "replace", "makedirs", "remove", "pwrite", "lseek")


class Calls:
    """``os`` for the store's modules: counts every call that changes something and lets ``act`` interfere.

    What is flushed stays in the system's cache, which outlives a killed process: tests need not wait for a disk.
    """

    def __init__(self, act):
        self.count = 0
        self.act = act

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in CHANGING:
            return real
        if name == "fsync":
            real = os.fstat

        def call(*args, **kwargs):
            self.count += 1
            return self.act(self.count, name, real, args, kwargs)

        return call


@contextlib.contextmanager
def interfering(act):
    before = folder_module.os
    calls = Calls(act)
    folder_module.os = lock_module.os = calls
    try:
        yield calls
    finally:
        folder_module.os = lock_module.os = before


def plain(count, name, real, args, kwargs):
    return real(*args, **kwargs)


def die_at(number, torn):
    """Kill this process at its ``number``-th call: before it, or in the middle of a write."""

    def act(count, name, real, args, kwargs):
        if count == number:
            if torn and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)

    return act


def slowly(seconds):
    """Each call takes a while, so that a kill from outside can fall anywhere."""

    def act(count, name, real, args, kwargs):
        time.sleep(seconds)
        return real(*args, **kwargs)

    return act


def serve():
    """Run each line of standard input in a forked child, and print how the child ended.

    ``path number torn|whole`` kills it at its ``number``-th call, ``path after seconds`` from outside.
    """
    torch.set_num_threads(1)
    for line in sys.stdin:
        path, first, second = line.split()
        child = os.fork()
        if child == 0:
            sys.stderr = io.StringIO()
            with interfering(slowly(0.001) if first == "after" else die_at(int(first), second == "torn")):
                run(path)
            os._exit(0)
        if first == "after":
            time.sleep(float(second))
            os.kill(child, signal.SIGKILL)  # not waited for yet, so the id is still this child's
        print(os.waitpid(child, 0)[1], flush=True)


if __name__ == "__main__":
    serve()
