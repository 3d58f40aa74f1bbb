"""``tangrams select``: a batch from features on disk."""

import csv

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tangrams.cli import app, main
from tangrams.features import TangentFeatures
from tangrams.learners import LargestClusterMaxDistance, MaxDeterminant, UnitDiagonal
from tangrams.operators import CountSketch

run = CliRunner().invoke


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    generator = torch.Generator().manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    x = torch.randn(50, 3, generator=generator)
    phi = TangentFeatures(network, "sum")
    phi.extract(x[:40], folder / "pool.zarr", ids=[f"sample {i}" for i in range(40)])
    phi.extract(x[40:], folder / "train.zarr")
    other = TangentFeatures(torch.nn.Linear(3, 2), "sum")
    other.extract(x[40:], folder / "other.zarr")
    TangentFeatures(network, "all").extract(x[:10], folder / "all.zarr")
    return folder, phi.matrix(x[:40]).to_dense(), phi.matrix(x[40:]).to_dense()


def test_ids_are_printed_in_the_order_of_choice(stores):
    folder, pool, train = stores
    given = ["select", "--store", str(folder / "pool.zarr"), "--batch", "7"]
    result = run(app, [*given, "--labelled", str(folder / "train.zarr")])
    assert result.exit_code == 0, result.output
    expected = LargestClusterMaxDistance(7).fit(pool, labelled=train).indices_
    assert result.output.split("\n")[:-1] == [f"sample {i}" for i in expected]
    alone = run(app, given)
    assert alone.output.split("\n")[:-1] == [f"sample {i}" for i in LargestClusterMaxDistance(7).fit(pool).indices_]


def test_a_table_is_written_and_wide_features_are_sketched(stores, tmp_path):
    folder, pool, train = stores
    out = tmp_path / "batch.csv"
    options = ["--batch", "5", "--method", "maxdet", "--sketch", "16", "--seed", "3", "--out", str(out)]
    result = run(
        app, ["select", "--store", str(folder / "pool.zarr"), "--labelled", str(folder / "train.zarr"), *options]
    )
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert [row["rank"] for row in rows] == list("12345")
    assert all(row["id"] == f"sample {row['index']}" for row in rows)
    columns = TangentFeatures(torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)), "sum")
    sketch = CountSketch(16, seed=3).bind(columns.columns)
    narrow = [sketch.project(part) for part in (pool, train)]
    scale = UnitDiagonal().fit(narrow[1])
    selector = MaxDeterminant(5, random_state=3).fit(scale.transform(narrow[0]), labelled=scale.transform(narrow[1]))
    assert [int(row["index"]) for row in rows] == selector.indices_.tolist()
    np.testing.assert_allclose([float(row["score"]) for row in rows], selector.scores_, rtol=1e-4)


def test_the_largest_variance_is_what_the_labelled_samples_leave(stores):
    folder, pool, train = stores
    given = ["select", "--store", str(folder / "pool.zarr"), "--batch", "6", "--method", "maxdiag"]
    result = run(app, [*given, "--labelled", str(folder / "train.zarr")])
    assert result.exit_code == 0, result.output
    scale = train.double().square().sum(1).mean()
    Phi, Psi = pool.double() / scale.sqrt(), train.double() / scale.sqrt()
    K, cross = Psi @ Psi.mT + 0.1**2 * torch.eye(len(Psi)), Phi @ Psi.mT
    variance = Phi.square().sum(1) - (cross * torch.linalg.solve(K, cross.mT).mT).sum(1)
    expected = variance.argsort(descending=True)[:6].tolist()
    assert result.output.split("\n")[:-1] == [f"sample {i}" for i in expected]
    assert run(app, given).output != result.output


@pytest.mark.parametrize(
    ("store", "options", "says"),
    [
        ("pool.zarr", ["--method", "best"], "no selection 'best': choose from lcmd"),
        ("pool.zarr", ["--batch", "41"], "batch_size=41"),
        ("pool.zarr", ["--labelled", "other.zarr"], "different maps"),
        ("all.zarr", [], "2 rows per sample"),
        ("missing.zarr", [], "missing.zarr"),
        ("pool.zarr", ["--sketch", "0"], "at least one feature"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(stores, store, options, says, monkeypatch, capsys):
    monkeypatch.chdir(stores[0])
    monkeypatch.setattr("sys.argv", ["tangrams", "select", "--store", store, *options])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert says in error
    assert len(error.splitlines()) == 1


def test_a_batch_that_had_to_be_drawn_says_so(tmp_path):
    TangentFeatures(torch.nn.Linear(2, 1)).extract(torch.zeros(9, 2), tmp_path / "pool.zarr")
    result = run(app, ["select", "--store", str(tmp_path / "pool.zarr"), "--batch", "4", "--method", "kmeans++"])
    assert result.exit_code == 0
    assert "drawn at random" in result.stderr
    assert len(set(result.stdout.split())) == 4
