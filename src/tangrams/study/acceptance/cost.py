"""What one study of the default costs, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tangrams.study.acceptance.base import Bench, Criterion, at_most, told

_PROGRAM = """
import json, resource, sys, time
start = time.perf_counter()
from tangrams.study import run_default
run_default(sys.argv[1], seed=0)
used = resource.getrusage(resource.RUSAGE_SELF)
peak = used.ru_maxrss / (1 if sys.platform == "darwin" else 1 / 1024)
print(json.dumps([time.perf_counter() - start, used.ru_utime + used.ru_stime, peak / 2**20]))
"""


def measure_cost(bench: Bench) -> list[Criterion]:
    """Seconds, memory and the size of the report; wall time depends on what else the machine does."""
    group = "cost"
    load = os.getloadavg()[0]
    with bench.steps("One study in a fresh process"), tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, folder], capture_output=True, text=True, check=False, timeout=1800
        )
        if done.returncode:
            raise RuntimeError(f"the default study failed: {done.stderr.strip().splitlines()[-1:]}")
        seconds, cpu, peak = json.loads(done.stdout.strip().splitlines()[-1])
        size = (Path(folder) / "report.html").stat().st_size / 1e6
    return [
        at_most(group, "wall seconds", [seconds], 90, f"load before {load:.1f}"),
        told(group, "CPU seconds, all threads", [cpu]),
        at_most(group, "peak memory, MiB", [peak], 1500),
        at_most(group, "report, MB", [size], 5),
    ]
