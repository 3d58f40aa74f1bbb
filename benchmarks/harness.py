"""Alternated timing in one process.

Rivals take turns, so that a busy machine slows all of them; within a turn a short call is repeated, and the median over
all calls is kept, so that what the rival left in the caches weighs on the first call of a turn only. When the load
exceeds the cores, wall time says nothing and the CPU time of one thread is taken instead: then one thread runs.
"""

from __future__ import annotations

import ctypes
import gc
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

_CPU_OF_ONE = "CPU seconds of one thread"

TURN = 0.1
"""Seconds that a turn of short calls lasts, about."""


@dataclass
class Row:
    """One line of a table.

    Attributes:
        table: the table it belongs to.
        name: what was measured.
        seconds: rival → median seconds.
        ratio: the rival's time over ours.
        floor: what the ratio must reach, or None.
        notes: further figures.
    """

    table: str
    name: str
    seconds: dict[str, float]
    ratio: float | None = None
    floor: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def passes(self) -> bool | None:
        """Whether the floor is met; None without one."""
        return None if self.floor is None or self.ratio is None else self.ratio >= self.floor

    def as_json(self) -> dict[str, Any]:
        """For results.json."""
        return {**asdict(self), "passes": self.passes}


@dataclass(frozen=True)
class Conditions:
    """What the numbers were measured under."""

    load: float
    cores: int
    threads: int
    clock: str

    @classmethod
    def now(cls) -> Conditions:
        """Read the load, and choose threads and clock by it."""
        load, cores = os.getloadavg()[0], os.cpu_count() or 1
        busy = load > cores * 0.75
        threads = 1 if busy else cores
        torch.set_num_threads(threads)
        return cls(round(load, 2), cores, threads, _CPU_OF_ONE if busy else "wall seconds")

    @contextmanager
    def one_thread(self) -> Iterator[Conditions]:
        """CPU seconds of one thread inside, whatever the load: what floors that were found so are held to.

        Yields:
            The conditions to measure under.
        """
        torch.set_num_threads(1)
        try:
            yield replace(self, threads=1, clock=_CPU_OF_ONE)
        finally:
            torch.set_num_threads(self.threads)

    @property
    def timer(self) -> Callable[[], float]:
        """The clock."""
        return time.thread_time if self.threads == 1 else time.perf_counter


def alternate(
    rivals: Mapping[str, Callable[[], Any]], turns: Mapping[str, int], timer: Callable[[], float]
) -> dict[str, float]:
    """Median time of a call of each rival; in every turn each that has turns left runs, after one run to warm up."""
    for name, run in rivals.items():
        if turns[name] > 1:
            run()
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(max(turns.values())):
        for name, run in rivals.items():
            spent = 0.0
            while turn < turns[name] and spent < TURN:
                start = timer()
                run()
                taken[name].append(timer() - start)
                spent += taken[name][-1]
    return {name: statistics.median(times) for name, times in taken.items()}


def matmul_rate(size: int, inner: int, timer: Callable[[], float]) -> float:
    """Measured multiply rate, floating operations per second, of a (size, inner) by (inner, size) product."""
    a, b = torch.randn(size, inner), torch.randn(inner, size)
    seconds = alternate({"mm": lambda: a @ b}, {"mm": 5}, timer)["mm"]
    return 2 * size * size * inner / seconds


class PeakMemory:
    """MiB that this process grows by at most inside the block (Linux).

    What others freed is given back first: else the block reuses it and seems to need nothing.
    """

    def __enter__(self) -> PeakMemory:
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        self._base = self._most = _resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            self._most = max(self._most, _resident())

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        self.mib = max(self._most, _resident()) / 2**20 - self._base / 2**20


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
