"""``tangrams compose`` and ``tangrams forget`` on saved tangent vectors."""

import pytest
import torch
from typer.testing import CliRunner

from tangrams.cli import app
from tangrams.nn.tangent import TangentSum, TangentVector

run = CliRunner().invoke


@pytest.fixture
def saved(tmp_path):
    for i, name in enumerate("abc"):
        g = torch.Generator().manual_seed(i)
        TangentVector({"w": torch.randn(3, generator=g)}, "base").save(tmp_path / f"{name}.safetensors")
    return tmp_path


def test_composed_and_forgotten_is_never_composed(saved):
    a, b, c, out, vector, never = (str(saved / f"{n}.safetensors") for n in ("a", "b", "c", "out", "sum", "never"))
    result = run(app, ["compose", a, b, c, "--weights", "1,2,3", "--out", out])
    assert result.exit_code == 0, result.output
    assert "b 0.333" in result.output
    assert run(app, ["forget", out, "b", "--vector", vector]).exit_code == 0
    assert run(app, ["compose", a, c, "--weights", "1,3", "--out", never]).exit_code == 0
    assert TangentVector.load(vector) == TangentSum.load(never).vector()
    assert list(TangentSum.load(out).components) == ["a", "c"]


def test_forgetting_into_another_file_leaves_the_first(saved):
    a, b, out, less = (str(saved / f"{n}.safetensors") for n in ("a", "b", "out", "less"))
    run(app, ["compose", a, b, "--out", out])
    run(app, ["forget", out, "a", "--out", less])
    assert list(TangentSum.load(out).components) == ["a", "b"]
    assert TangentSum.load(less).vector() == TangentVector.load(b)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["compose", "a.safetensors", "nowhere.safetensors", "--out", "x"], "no tangent vector at nowhere"),
        (["compose", "a.safetensors", "--weights", "1,2", "--out", "x"], "1 tangent vectors but 2 weights"),
        (["compose", "a.safetensors", "other.safetensors", "--out", "x"], "different base points"),
        (["forget", "a.safetensors", "a"], "no composition"),
        (["forget", "out.safetensors", "z"], "no component 'z'"),
        (["forget", "out.safetensors", "a", "b"], "no components left"),
    ],
)
def test_a_mistake_is_named_and_changes_no_file(saved, args, says, monkeypatch):
    monkeypatch.chdir(saved)
    TangentVector({"w": torch.ones(3)}, "elsewhere").save("other.safetensors")
    run(app, ["compose", "a.safetensors", "b.safetensors", "--out", "out.safetensors"])
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    result = run(app, args)
    assert result.exit_code != 0
    assert says in str(result.exception)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
