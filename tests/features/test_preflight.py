"""preflight: what it says about every nasty model, and that it leaves no trace."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tangrams.features import TangentFeatures, preflight
from tangrams.testing.models import NASTY_MODELS
from tangrams.testing.restoration import Snapshot

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
BY_NAME = {nasty.name: nasty for nasty in NASTY_MODELS}


def report_on(name, **options):
    nasty = BY_NAME[name]
    if not nasty.available:
        pytest.skip(f"needs {', '.join(nasty.needs)}")
    return preflight(nasty.make(), nasty.inputs(), output=nasty.output, **options)


@pytest.mark.parametrize("name", BY_NAME)
def test_preflight_is_ready_exactly_for_the_models_that_have_an_answer_and_changes_nothing(name):
    nasty = BY_NAME[name]
    if not nasty.available:
        pytest.skip(f"needs {', '.join(nasty.needs)}")
    model, x = nasty.make(), nasty.inputs()
    before = Snapshot(model, x)
    report = preflight(model, x, output=nasty.output)
    assert before.differences() == []
    assert report.ok == (nasty.expect == "exact"), report.problems
    assert (report.plan is not None) == report.ok
    assert type(model).__name__ in str(report)


def test_the_report_counts_columns_and_names_tied_frozen_and_unused_parameters():
    assert report_on("tied-embedding").tied == (("tokens.weight", "out.weight"),)
    assert report_on("two-names").tied == (("first.weight", "second.weight"),)
    assert report_on("frozen-middle").frozen == ("2.weight", "2.bias")
    assert report_on("unused").unused == ("spare", "empty", "idle.weight", "idle.bias")
    for name in ("tied-embedding", "two-names", "overlapping", "lora", "unused", "bert"):
        nasty = BY_NAME[name]
        assert report_on(name).parameters == nasty.reference().shape[1]


def test_selected_parameters_alone_are_counted():
    report = report_on("mlp", params=["0.weight"])
    assert (report.parameters, report.all_parameters) == (35, 111)
    assert set(report.plan.routes) == {"0.weight"}


def test_changed_buffers_are_named_and_modes_are_told_apart():
    assert report_on("counting").changed_buffers == ("calls", "seen")
    assert report_on("mlp").mode == "train"
    assert report_on("mixed-modes").mode == "mixed"
    assert preflight(nn.Linear(2, 2).eval(), torch.ones(3, 2)).mode == "eval"


def test_random_and_coupled_networks_are_told_apart():
    noise = report_on("random-noise")
    assert noise.deterministic is False
    assert noise.independent is None
    branch = report_on("batch-branch")
    assert branch.deterministic is True
    assert branch.independent is False
    drifting = report_on("drifting")
    assert "calls" in " ".join(drifting.problems)


def test_samples_that_are_not_finite_are_named():
    problems = " ".join(report_on("nan-input").problems)
    assert "not finite at samples 2" in problems


def test_the_printed_report_has_a_line_for_everything():
    text = str(report_on("bert"))
    for word in (
        "BertForSequenceClassification",
        "mode",
        "tied",
        "frozen",
        "unused",
        "output",
        "SequenceClassifierOutput",
    ):
        assert word in text
    for word in ("deterministic", "independent", "buffers", "plan", "MiB", "ready", "classifier.weight"):
        assert word in text
    assert "3 rows a sample" in text


def test_explain_prints_the_preflight_of_the_map(capsys):
    net = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    x = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    phi = TangentFeatures(net, "sum", params=["0.weight"], memory_budget="64MiB")
    phi.explain(x)
    text = capsys.readouterr().out.rstrip("\n")
    assert text == str(preflight(net, x, output="sum", params=["0.weight"], memory_budget="64MiB"))
    assert "1 rows a sample" in text
    assert "20 of 39" in text


def test_preflight_runs_on_no_samples():
    report = preflight(nn.Linear(3, 2), torch.zeros(0, 3))
    assert report.ok
    assert report.deterministic is None


@pytest.mark.parametrize(
    ("model", "x", "options", "message"),
    [
        ("net", torch.ones(2, 3), {}, "Module"),
        (nn.Linear(3, 2), "text", {}, "str"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"output": "each"}, "each"),
        (nn.Linear(3, 2), (torch.ones(2, 3), torch.ones(3, 3)), {}, "2, 3"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"memory_budget": "lots"}, "lots"),
        (nn.Linear(3, 2), torch.ones(2, 3), {"params": ["wieght"]}, "weight"),
    ],
    ids=["not-a-module", "text", "unknown-output", "lengths", "budget", "parameter"],
)
def test_bad_arguments_of_preflight_raise_and_say_what_is_wrong(model, x, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        preflight(model, x, **options)


def test_a_network_that_raises_is_reported_not_raised():
    class Raises(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

        def forward(self, x):
            raise KeyError("embedding table")

    report = preflight(Raises(), torch.ones(2, 2))
    assert not report.ok
    assert "Raises" in report.problems[0]
    assert "embedding table" in report.problems[0]
