import subprocess
import sys

import pytest
from typer.testing import CliRunner

from tangrams.claims import catalogue
from tangrams.cli import app

run = CliRunner().invoke


def tangrams(*args: str, cwd: str | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "tangrams.cli", *args], capture_output=True, text=True, cwd=cwd, timeout=120
    )


def test_papers_lists_all_119():
    out = run(app, ["papers"]).output
    assert "119 papers" in out


def test_papers_filters_by_room_and_status():
    out = run(app, ["papers", "--room", "kernels", "--status", "works"]).output
    expected = [row for row in catalogue() if row.room == "kernels" and row.status == "works"]
    assert f"{len(expected)} papers" in out


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["papers", "--room", "attic"], "no papers with room 'attic'"),
        (["claim", "no-such-paper"], "no claim 'no-such-paper'"),
        (["claim", "pseudo-ntk", "--preset", "huge"], "no preset 'huge'"),
        (["study", "--train", "x.npz"], "without a network"),
        (["study", "--initial-weights", "x.pt"], "--initial-weights without a network"),
        (["report", "."], "study.json: No such file"),
        (["study", "nowhere.to_be:found"], "--train"),
        (["report", "missing.json"], "missing.json"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(args, says, tmp_path):
    result = tangrams(*args, cwd=str(tmp_path))
    assert result.returncode == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(tmp_path):
    result = tangrams("claim", "no-such-paper", "--debug", cwd=str(tmp_path))
    assert result.returncode != 0
    assert "Traceback" in result.stderr


def test_the_page_of_papers_is_generated(tmp_path):
    page = tmp_path / "papers.md"
    assert run(app, ["papers", "--markdown", str(page)]).exit_code == 0
    assert page.read_text().count("\n| ") == 119 + 1


def test_claims_can_be_read_at_eighty_columns():
    lines = run(app, ["claims"]).output.splitlines()
    assert max(len(line) for line in lines) <= 80
    heads = [f"{row.number:03d} {row.slug} ·" for row in catalogue() if row.status == "works"]
    assert all(any(line.startswith(head) for line in lines) for head in heads)
    assert len(lines) < 20 * len(heads)


def test_numbers_of_a_claim_are_printed_to_four_figures():
    from tangrams.cli import _rounded

    assert _rounded({"a": [1 / 3, 7], "b": "x"}) == {"a": [0.3333, 7], "b": "x"}
