"""A run that is killed and started again ends with the bytes of an unbroken one."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

SIGKILLED = 9


@pytest.fixture(scope="module")
def victims():
    """A process that forks a writer per request: importing torch once is what makes many kills cheap."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("tiny.py")
    process = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )

    def run_and_die(path, first, second):
        process.stdin.write(f"{path} {first} {second}\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield run_and_die
    process.stdin.close()
    assert process.wait(timeout=60) == 0


@pytest.fixture
def calls_of_a_run(tiny, tmp_path):
    with tiny.interfering(tiny.plain) as calls:
        tiny.run(tmp_path / "counted.zarr")
    return calls.count


@pytest.mark.parametrize("torn", ["whole", "torn"])
def test_a_kill_at_any_system_call_of_a_run_resumes_to_the_same_bytes(
    tiny, unbroken, victims, calls_of_a_run, tmp_path, torn
):
    assert calls_of_a_run > 100
    stride = 1 if torn == "whole" else 3
    for number in range(1, calls_of_a_run + 1, stride):
        path = tmp_path / f"{number}.zarr"
        assert victims(path, number, torn) == SIGKILLED, f"call {number} was not reached"
        tiny.run(path)
        assert tiny.contents(path) == unbroken, f"killed at call {number}"


def test_a_kill_at_a_random_moment_twice_resumes_to_the_same_bytes(tiny, unbroken, victims, tmp_path):
    rng = random.Random(0)
    killed = 0
    for number in range(25):
        path = tmp_path / f"{number}.zarr"
        for _ in range(2):
            killed += victims(path, "after", rng.uniform(0.0, 0.25)) == SIGKILLED
        tiny.run(path)
        assert tiny.contents(path) == unbroken
    assert killed >= 25, f"only {killed} of 50 kills met a living writer"


def test_a_resumed_run_computes_no_finished_block_again(tiny, victims, calls_of_a_run, tmp_path):
    path = tmp_path / "features.zarr"
    victims(path, calls_of_a_run * 3 // 4, "whole")
    lines = (path / "features/manifest.jsonl").read_bytes().count(b"\n")
    assert 0 < lines < 4
    computed = []
    tiny.run(path, progress=lambda done, total: computed.append((done, total)))
    assert computed == [(done, 4) for done in range(lines, 5)]


def test_a_lock_of_a_dead_writer_does_not_block(tiny, victims, calls_of_a_run, tmp_path):
    path = tmp_path / "features.zarr"
    victims(path, calls_of_a_run // 2, "whole")
    assert b"process" in (path / "features/lock").read_bytes()
    assert tiny.run(path).complete
    assert (path / "features/lock").read_bytes() == b""
