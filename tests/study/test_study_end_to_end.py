"""A whole study: fits the schema, adds up, finds what was planted, leaves the network alone, and is repeatable."""

import copy
import inspect
import json
from importlib.resources import files

import jsonschema
import pytest
import torch

import tangrams as tg
from tangrams.study.material import TangentKernel
from tangrams.study.problem import read_problem
from tangrams.study.progress import Steps


def test_study_json_fits_the_schema_that_is_shipped(studied):
    schema = json.loads(files("tangrams.study").joinpath("schema.json").read_text(encoding="utf-8"))
    written = json.loads((studied.folder / "study.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(written)
    assert written == json.loads(json.dumps(studied.data))


def test_the_report_is_written_beside_it(studied):
    page = (studied.folder / "report.html").read_text(encoding="utf-8")
    assert "some digits" in page
    assert (studied.folder / "report.html").stat().st_size < 5e6


def test_every_explanation_adds_up_to_the_model(studied):
    rows = studied["explanations"]["samples"]
    assert len(rows) == 60
    for row in rows:
        parts = row["base"] + row["others_for"] + row["others_against"]
        parts += sum(w["weight"] for w in row["supporters"] + row["opposers"])
        assert parts == pytest.approx(row["output"], abs=1e-6)
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-4)


def test_planted_mistakes_and_copies_are_found(studied, trained):
    planted = studied["labels"]["planted"]
    assert planted["count"] == 12
    assert planted["average_precision"]["value"]["value"] > 0.8
    assert planted["top_tenth"]["value"]["value"] > 0.9
    assert studied["redundancy"]["planted"] == {"exact": 6, "exact_found": 6, "near": 0, "near_found": 0}
    copies = {frozenset(f"train/{i}" for i in pair) for pair in trained.planted.duplicate_pairs.tolist()}
    assert {frozenset(group) for group in studied["redundancy"]["exact"]} == copies
    assert studied["redundancy"]["conflicting"] == 0


def test_planted_flags_are_those_of_the_truth(studied, trained):
    for row in studied["labels"]["suspects"]:
        i = int(row["id"].split("/")[1])
        assert row["planted"] == bool(trained.planted.wrong[i])
        assert row["given"] == int(trained.planted.labels[i])
        assert row["true"] == int(trained.planted.original_labels[i])
    scores = [row["score"] for row in studied["labels"]["suspects"]]
    assert scores == sorted(scores)


def test_every_sample_that_a_section_names_is_there_and_no_other(studied):
    named = set()

    def collect(value):
        if isinstance(value, str) and value.split("/")[0] in ("train", "test", "pool") and "/" in value:
            named.add(value)
        elif isinstance(value, dict):
            for member in value.values():
                collect(member)
        elif isinstance(value, list):
            for member in value:
                collect(member)

    collect({key: value for key, value in studied.data.items() if key not in ("samples", "again")})
    assert named == set(studied["samples"])
    assert all(row["image"].startswith("data:image/png;base64,") for row in studied["samples"].values())


def test_the_surrogates_are_told_apart_and_measured(studied):
    surrogates = studied["surrogates"]
    assert surrogates["mimic"]["agreement"]["value"] >= 0.9
    assert surrogates["cleanup"]["delta"] == 1.0
    assert surrogates["mimic"]["kendall"]["value"] > surrogates["cleanup"]["kendall"]["value"]


def test_the_batch_to_label_next_is_from_the_pool_and_spread_out(studied):
    batch = studied["next"]["batch"]
    assert len({row["id"] for row in batch}) == 10
    assert all(row["id"].startswith("pool/") for row in batch)
    spread = studied["next"]["spread"]
    assert spread["value"]["value"] >= spread["baselines"][0]["value"]["value"]


def test_retraining_is_shown_beside_the_surrogate(studied):
    assert [row["fraction"] for row in studied["redundancy"]["retrained"]] == [0.1, 0.2, 0.3]
    assert studied["redundancy"]["retrained_all"]["value"] == studied["network"]["accuracy"]["value"]


def test_predictions_meet_the_measurement_and_are_checked_on_a_part(studied):
    risk = studied["richness"]["risk"]
    n = studied["data"]["train"]
    last = next(row["risk"]["value"] for row in risk["eigenframework"] if row["n"] == n)
    assert last == pytest.approx(risk["measured"][-1]["risk"]["value"])
    assert [row["n"] for row in risk["eigenframework"][-2:]] == [2 * n, 4 * n]
    values = [row["risk"]["value"] for row in risk["eigenframework"]]
    assert values == sorted(values, reverse=True)
    check = risk["check"]
    assert (check["from"], check["to"]) == (risk["measured"][2]["n"], n)
    assert check["predicted"]["value"] == pytest.approx(check["measured"], rel=0.5)


def test_mixtures_of_features_are_tried_out_and_do_worse_than_all(studied):
    features = studied["richness"]["features"]
    assert [row["k"] for row in features["rows"]] == [16, 32, 64]  # up to half of 246 samples
    measured = [row["measured"]["value"] for row in features["rows"]]
    assert measured == sorted(measured, reverse=True)
    assert measured[-1] > features["all"]["value"]
    for row in features["rows"]:
        assert row["predicted"] == pytest.approx(row["measured"]["value"], rel=0.3)
    assert features["enough"] is None or features["foreseen"] is None


def test_the_three_findings_are_sentences(studied):
    assert len(studied.findings) == 3
    assert all(finding.text for finding in studied.findings)


def test_the_room_is_the_function(trained):
    assert inspect.signature(tg.study) == inspect.signature(tg.study.study)
    found = tg.study(trained.model, trained.planted.dataset(), trained.test, steps=Steps(quiet=True))
    assert found.folder is None
    assert found["task"] == "classification"
    assert found["next"] == {"state": "absent", "reason": "no pool of unlabelled samples was given"}
    assert found["richness"]["feature_learning"] is None
    assert found["redundancy"]["retrained"] == []
    assert found["labels"]["planted"] is None


def test_the_network_and_the_random_state_are_left_as_they_were(trained):
    model = copy.deepcopy(trained.model).train()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    tg.study(model, trained.planted.dataset(), trained.test, steps=Steps(quiet=True))
    assert model.training
    assert all(bool((parameter.grad == 7).all()) for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_seed_gives_the_same_numbers(studied, trained, tmp_path):
    again = tg.study(
        trained.model,
        trained.planted.dataset(),
        trained.test,
        pool=trained.pool,
        initial_weights=trained.initial,
        truth=trained.truth,
        retrain=trained.retrain,
        name="some digits",
        steps=Steps(quiet=True),
    )
    for key in set(studied.data) - {"created", "cost", "again"}:
        assert again[key] == studied[key], key
    assert again["again"]["fingerprints"] == studied["again"]["fingerprints"]


def test_the_kernel_is_the_cosine_of_the_gradients_of_all_outputs(mlp):
    x, y = torch.randn(8, 6), torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
    problem = read_problem(mlp, tg.data.Labelled(x[:5], y[:5]), tg.data.Labelled(x[5:], y[5:]))
    kernel = TangentKernel.of(mlp, problem, memory_budget="64MiB")
    rows = []
    for i in range(8):
        outputs = mlp(x[i : i + 1])[0]
        gradients = [torch.autograd.grad(o, list(mlp.parameters()), retain_graph=True) for o in outputs]
        rows.append(torch.cat([g.flatten() for gradient in gradients for g in gradient]))
    rows = torch.nn.functional.normalize(torch.stack(rows).double())
    torch.testing.assert_close(kernel.gram, rows[:5] @ rows[:5].T, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(kernel.cross, rows[5:] @ rows[:5].T, atol=1e-5, rtol=1e-4)


def test_large_sets_are_sampled_down_and_keep_their_positions(trained):
    found = tg.study(
        trained.model,
        trained.planted.dataset(),
        trained.test,
        max_train=120,
        max_test=30,
        steps=Steps(quiet=True),
    )
    assert found["data"]["train"] == 120
    assert found["data"]["test"] == 30
    assert found["data"]["totals"] == {"train": len(trained.planted), "test": 60}
    for name, row in found["samples"].items():
        split, position = name.split("/")
        labels = trained.planted.labels if split == "train" else trained.test.targets
        assert row["label"] == int(labels[int(position)])
