"""Steps of a study: timed, and shown with a progress bar where there is a terminal."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

Advance = Callable[[float], None]
"""Told how far a step has come, from 0 to 1."""


class Steps:
    """The steps taken so far and what each cost.

    On a terminal every step is a bar that moves; elsewhere nothing is printed.

    Args:
        console: where bars go; None: standard error.
        quiet: no bars at all.

    Attributes:
        seconds: step name → wall seconds, in order.
    """

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet or not self.console.is_terminal
        self.seconds: dict[str, float] = {}
        self._start = time.perf_counter()
        self._progress: Progress | None = None

    @contextmanager
    def live(self) -> Iterator[Steps]:
        """Show bars while inside; a nested call joins the outer one.

        Yields:
            These steps.
        """
        if self.quiet or self._progress is not None:
            yield self
            return
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=None), TimeElapsedColumn())
        with Progress(*columns, console=self.console, expand=True) as progress:
            self._progress = progress
            try:
                yield self
            finally:
                self._progress = None

    @contextmanager
    def __call__(self, name: str) -> Iterator[Advance]:
        """Take one step.

        Yields:
            A function to tell how far it has come, from 0 to 1.
        """
        progress = self._progress
        task = None if progress is None else progress.add_task(name, total=1.0)

        def advance(done: float) -> None:
            if progress is not None and task is not None:
                progress.update(task, completed=done)

        start = time.perf_counter()
        try:
            yield advance
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
        advance(1.0)

    @property
    def total(self) -> float:
        """Wall seconds since the first step could begin."""
        return time.perf_counter() - self._start


def peak_memory_mb() -> float:
    """The largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
