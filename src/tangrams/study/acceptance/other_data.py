"""The same questions on subsets of other data, where they are there: what is found is told, nothing is required."""

from __future__ import annotations

import copy

from tangrams.data import DataNotFoundError, load, plant
from tangrams.features.inputs import as_inputs
from tangrams.study.acceptance.base import Bench, Criterion, listed, told
from tangrams.study.acceptance.labels import average_precisions, top_tenth
from tangrams.study.default import SmallCNN
from tangrams.study.material import Material, TangentKernel, Truth
from tangrams.study.problem import read_problem
from tangrams.study.sections import glance, labels
from tangrams.study.training import train_classifier

TRAIN, TEST = 4000, 1000


def measure_mnist(bench: Bench) -> list[Criterion]:
    """The first images of MNIST."""
    return _measure(bench, "mnist", epochs=20)


def measure_cifar10(bench: Bench) -> list[Criterion]:
    """The first images of CIFAR-10."""
    return _measure(bench, "cifar10", epochs=30)


def _measure(bench: Bench, name: str, *, epochs: int) -> list[Criterion]:
    try:
        data = load(name, num_train=TRAIN, num_test=TEST)
    except DataNotFoundError as error:
        return [Criterion(name, "not measured", (), "", None, f"skipped: data ({error})")]
    seed = bench.seeds[0]
    x = data.train.inputs
    planted = plant(x, data.train.targets, label_noise=0.05, duplicates=30, seed=seed)
    model = SmallCNN(channels=x.shape[1], side=x.shape[-1], seed=seed)
    untrained = copy.deepcopy(model)
    with bench.steps(f"Training on {name}") as advance:
        train_classifier(
            model,
            as_inputs(planted.inputs),
            planted.labels,
            epochs=epochs,
            learning_rate=2e-3,
            seed=seed,
            advance=advance,
        )
    with bench.steps(f"Tangent kernel on {name}"):
        problem = read_problem(model, planted.dataset(), data.test, seed=seed)
        kernel = TangentKernel.of(model, problem, memory_budget="1GiB")
        initial = TangentKernel.of(untrained, problem, memory_budget="1GiB")
    truth = Truth(planted.wrong, planted.original_labels, planted.duplicate_pairs)
    material = Material(model, problem, kernel, initial, truth, None, seed, bench.steps)
    with bench.steps(f"Labels and surrogates of {name}"):
        return _told(name, material)


def _told(name: str, material: Material) -> list[Criterion]:
    figures = average_precisions(material)
    ours = figures.pop("closed-form leave-one-out")
    section, surrogates = labels.measure(material), glance.surrogates(material)
    network = glance.network(material)
    row = next((row for row in section["precision"] if row["count"] == section["count"]), None)
    true = section["planted"]["found_in_count"] / max(section["count"], 1)
    precision, beside = [], f"not estimated: too many right labels look wrong without training; true {true:.3f}"
    if row is not None:
        low, high = row["precision"]["interval"]
        precision, beside = [row["precision"]["value"]], f"{low:.2f} to {high:.2f}, true {true:.3f}"
    return [
        told(name, "network: test accuracy", [network["accuracy"]["value"]]),
        told(name, "network: given labels fitted", [network["train_accuracy"]["value"]]),
        told(name, "average precision", [ours], listed({key: [value] for key, value in figures.items()})),
        told(name, "planted among the top 10 %", [top_tenth(material)]),
        told(name, "labels called suspect", [section["count"]]),
        told(name, "estimated precision of the suspects", precision, beside),
        told(name, "mimic: agreement", [surrogates["mimic"]["agreement"]["value"]]),
        told(name, "clean-up: agreement", [surrogates["cleanup"]["agreement"]["value"]]),
        told(name, "clean-up by leave-one-out: accuracy", [surrogates["tuned_cleanup"]["accuracy"]["value"]]),
    ]
