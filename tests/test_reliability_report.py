"""The published reliability figures: measured, complete, and the promise they stand for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tangrams.features import TangentError
from tangrams.testing.models import NASTY_MODELS
from tangrams.testing.module_db import parametrised
from tangrams.testing.reliability import Outcome, ours, outcome, tutorial

REPORT = Path(__file__).parents[1] / "docs" / "reliability.json"
BY_NAME = {nasty.name: nasty for nasty in NASTY_MODELS}


@pytest.fixture(scope="module")
def report():
    return json.loads(REPORT.read_text())


def test_the_report_has_every_model_and_every_module_of_torch(report):
    needed = {nasty.name for nasty in NASTY_MODELS}
    assert set(report["models"]) == needed
    if report["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]:
        assert set(report["modules"]) == set(parametrised())


def test_no_model_is_wrong_or_crashes_and_each_does_what_the_table_expects(report):
    for name, entry in report["models"].items():
        expected = {"exact": "right", "refused": "refused"}[BY_NAME[name].expect]
        assert entry["tangrams"]["verdict"] == expected, (name, entry["tangrams"])
    assert {entry["tangrams"]["verdict"] for entry in report["modules"].values()} == {"right"}


def test_the_totals_are_those_of_the_entries(report):
    for kind in ("models", "modules"):
        assert report["totals"][kind]["entries"] == len(report[kind])
        for method in ("tangrams", "vmap(jacrev)"):
            verdicts = [entry[method]["verdict"] for entry in report[kind].values()]
            assert report["totals"][kind][method] == {
                verdict: verdicts.count(verdict) for verdict in ("right", "refused", "crashed", "wrong")
            }


def test_the_judge_tells_right_wrong_refused_and_crashed_apart():
    mlp, hostile = BY_NAME["mlp"], BY_NAME["batch-mean"]

    def broken(model, x, output):
        raise RuntimeError("something inside")

    def refusing(model, x, output):
        raise TangentError("the samples of Then depend on one another")

    def vague(model, x, output):
        raise TangentError("no")

    assert outcome(ours, mlp).verdict == outcome(tutorial, mlp).verdict == "right"
    assert outcome(lambda *args: ours(*args) * (1 + 1e-9), mlp).verdict == "wrong"
    assert outcome(lambda *args: ours(*args)[:3], mlp) == Outcome("wrong")
    assert outcome(broken, mlp).verdict == "crashed"
    assert outcome(refusing, hostile).verdict == "refused"
    assert outcome(vague, hostile).verdict == "crashed"
