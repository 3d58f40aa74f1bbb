"""The parts of a study by themselves: estimates, steps, training, sections' arithmetic, acceptance."""

import math

import pytest
import torch
from rich.console import Console
from scipy.stats import spearmanr

from tangrams.features.inputs import as_inputs
from tangrams.study.acceptance.base import Criterion, at_least, at_most, told
from tangrams.study.acceptance.retraining import datamodeling_scores, margin
from tangrams.study.check import GROUPS, check
from tangrams.study.default import SmallCNN
from tangrams.study.estimates import bootstrap, estimate, score, share, spread
from tangrams.study.progress import Steps, peak_memory_mb
from tangrams.study.sections.labels import share_found
from tangrams.study.sections.next_labels import cover_batch
from tangrams.study.training import train_classifier


def test_shares_carry_their_wilson_interval():
    found = share(torch.tensor([True] * 9 + [False]))
    assert found["value"] == 0.9
    assert found["interval"] == pytest.approx([0.5958, 0.9821], abs=1e-3)


def test_bootstrap_intervals_have_the_width_of_a_mean():
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bootstrap(lambda index: float(values[index].mean()), 400, repeats=2000)
    width = found["interval"][1] - found["interval"][0]
    assert width == pytest.approx(2 * 1.96 * float(values.std()) / 20, rel=0.1)
    assert found["interval"][0] <= found["value"] <= found["interval"][1]


def test_a_statistic_that_is_mostly_undefined_has_no_interval():
    assert bootstrap(lambda index: math.nan, 5)["interval"] is None


def test_spread_and_score_are_the_schemas_shapes():
    assert spread(torch.tensor([1.0, 3.0]), "subsets") == {
        "value": 2.0,
        "interval": [1.0, 3.0],
        "how": "spread over 2 subsets",
    }
    assert spread(torch.tensor([1.0]), "subsets")["interval"] is None
    assert score(estimate(1), {"random": 0.5})["baselines"] == [{"name": "random", "value": estimate(0.5)}]


def test_steps_are_timed_and_silent_without_a_terminal(capsys):
    steps = Steps()
    with steps.live(), steps("one") as advance:
        advance(0.5)
    with pytest.raises(RuntimeError), steps("two"):
        raise RuntimeError
    assert list(steps.seconds) == ["one", "two"]
    assert capsys.readouterr() == ("", "")


def test_steps_show_bars_on_a_terminal():
    console = Console(force_terminal=True, record=True, width=80)
    steps = Steps(console)
    with steps.live(), steps.live(), steps("Tangent kernel"):
        pass
    assert "Tangent kernel" in console.export_text()


def test_memory_is_measured_in_mebibytes():
    assert 50 < peak_memory_mb() < 100_000


def test_training_memorises_and_is_repeatable():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(60, 1, 8, 8, generator=generator), torch.randint(10, (60,), generator=generator)
    done = []
    models = [
        train_classifier(SmallCNN(seed=1), as_inputs(x), y, epochs=60, batch_size=20, seed=2, advance=done.append)
        for _ in range(2)
    ]
    assert all(not model.training for model in models)
    assert bool((models[0](x).argmax(1) == y).all())
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert done[-1] == 1.0


def test_the_default_network_has_the_size_that_is_promised():
    assert sum(p.numel() for p in SmallCNN().parameters()) == 38_282


def test_the_share_found_counts_planted_among_the_most_suspect():
    scores = torch.arange(20).double()
    wrong = torch.zeros(20, dtype=torch.bool)
    wrong[[19, 18, 3]] = True
    assert share_found(scores, wrong).tolist() == [False, True, True]


def test_a_batch_covers_what_the_labels_leave_out():
    pool = torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=torch.float64)
    cross = torch.tensor([[0.2], [0.1], [0.8]], dtype=torch.float64)
    chosen, distances = cover_batch(torch.ones(1, 1, dtype=torch.float64), pool, cross, 2)
    assert chosen.tolist() == [1, 2]
    assert distances.tolist() == pytest.approx([math.sqrt(2 - 0.2), math.sqrt(2 - 1.6)])
    # Two clusters: the farthest sample of all is alone in its own, the other cluster holds more.
    labelled = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    crowd = torch.tensor([[0.0, 0.3], [0.4, 0.0], [0.4, 0.0], [0.4, 0.0]], dtype=torch.float64)
    alone = torch.eye(4, dtype=torch.float64)
    alone[1:, 1:] = 0.9 + 0.1 * torch.eye(3, dtype=torch.float64)
    assert cover_batch(labelled, alone, crowd, 1)[0].tolist() == [1]


def test_the_datamodeling_score_is_a_mean_of_rank_correlations():
    generator = torch.Generator().manual_seed(0)
    attributions = torch.randn(4, 30, generator=generator, dtype=torch.float64)
    masks = torch.randint(2, (12, 30), generator=generator).double()
    outcomes = torch.randn(12, 4, generator=generator, dtype=torch.float64)
    found = datamodeling_scores(attributions, masks, outcomes)
    for i in range(4):
        want = spearmanr([float(attributions[i][mask.bool()].sum()) for mask in masks], outcomes[:, i]).statistic
        assert float(found[i]) == pytest.approx(want)
    perfect = datamodeling_scores(attributions, masks, masks @ attributions.T)
    torch.testing.assert_close(perfect, torch.ones(4, dtype=torch.float64))


def test_the_margin_is_the_log_odds_of_a_class():
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    column = torch.tensor([0, 1, 2, 3, 0])
    p = outputs.softmax(1).gather(1, column[:, None])[:, 0]
    torch.testing.assert_close(margin(outputs, column), (p / (1 - p)).log())


def test_a_criterion_is_met_only_by_every_seed():
    assert at_least("g", "n", [0.9, 1.0], 0.9).passed
    assert not at_least("g", "n", [0.8, 1.0], 0.9).passed
    assert at_most("g", "n", [1.0, 2.0], 2).passed
    assert not at_most("g", "n", [1.0, 3.0], 2).passed
    assert told("g", "n", [1.0]).passed is None


def test_check_prints_a_table_and_keeps_the_numbers(monkeypatch, tmp_path):
    found = [at_least("labels", "average precision", [0.99], 0.95, "loss 0.7"), at_least("labels", "other", [0.1], 0.5)]
    monkeypatch.setitem(GROUPS, "labels", lambda bench: found)
    monkeypatch.setitem(GROUPS, "layers", lambda bench: [Criterion("layers", "healthy", (0.0,), "≤ 0", True)])
    console = Console(record=True, width=120)
    assert not check(["labels"], seeds=[0], evidence=tmp_path / "e.json", console=console)
    assert check(["layers"], seeds=[0], evidence=tmp_path / "e.json", console=console)
    text = console.export_text()
    assert "average precision" in text
    assert "FAIL" in text
    assert "1 of 2 requirements met" in text
    kept = __import__("json").loads((tmp_path / "e.json").read_text())
    assert list(kept) == ["labels", "layers"]
    assert kept["labels"]["criteria"][0]["values"] == [0.99]


def test_check_refuses_unknown_subjects():
    with pytest.raises(ValueError, match="no criteria named nothing"):
        check(["nothing"], evidence=None)
