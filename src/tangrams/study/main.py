"""Study a trained network: measure every section, write study.json, draw the report."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tangrams.features.model_ref import ModelRef
from tangrams.store import replacing
from tangrams.study.gallery import gallery
from tangrams.study.material import Material, TangentKernel, Truth, with_weights
from tangrams.study.problem import Problem, Task, read_problem
from tangrams.study.progress import Steps, peak_memory_mb, usable_cores
from tangrams.study.report import Finding, findings, render, validate
from tangrams.study.sections import (
    fragility,
    glance,
    labels,
    layers,
    next_labels,
    predictions,
    provenance,
    redundancy,
    richness,
)

VERSION = "1.0"


@dataclass(frozen=True)
class Study:
    """What a study measured.

    Attributes:
        data: the content of study.json: numbers only, as ``study/schema.json`` says.
        folder: where study.json and report.html were written, or None.
    """

    data: dict[str, Any]
    folder: Path | None = None

    def __getitem__(self, section: str) -> Any:
        """A section's numbers, such as ``study["labels"]``."""
        return self.data[section]

    @property
    def findings(self) -> list[Finding]:
        """The three findings that stand out."""
        return findings(self.data)

    def save(self, out: str | PathLike[str]) -> Study:
        """Write study.json and report.html into a folder, which is made; older ones are replaced."""
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "study.json") as partial:
            partial.write_text(json.dumps(self.data, allow_nan=False, separators=(",", ":")), encoding="utf-8")
        render(self.data, folder / "report.html")
        return Study(self.data, folder)


def study(
    model: nn.Module,
    train: Any,
    test: Any,
    *,
    pool: Any | None = None,
    initial_weights: Mapping[str, Tensor] | None = None,
    out: str | PathLike[str] | None = None,
    seed: int = 0,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    source: str | None = None,
    target: str | None = None,
    input_unit: str = "input units",
    truth: Truth | None = None,
    retrain: Callable[[Tensor], nn.Module] | None = None,
    max_train: int = 5000,
    max_test: int = 1000,
    max_pool: int = 2000,
    memory_budget: int | str = "512MiB",
    command: str | None = None,
    steps: Steps | None = None,
) -> Study:
    """Study a trained network on the data it was trained and tested on.

    Reads its exact tangent kernel once and answers from it: which samples stand behind a prediction, which labels look
    wrong, what is redundant, whether more data would help; beside it how close the decision boundary is and which
    layers look unhealthy. The network, its gradients and the global random state are left as they were.

    Args:
        model: any module whose outputs are logits (classification) or values (regression): a tensor, a tuple that
            starts with one, or an object or dict with ``logits``.
        train: what it was trained on: a map-style dataset of ``(x, y)``, ``(a, b, …, y)`` or dicts with a key such as
            ``labels``; or ``Labelled(x, y)``.
        test: held-out samples in the same form.
        pool: unlabelled samples to choose the next labels from.
        initial_weights: the state dict before training, where it was kept.
        out: a folder for report.html and study.json; None: nothing is written.
        seed: fixes every draw.
        task: what the targets are; None: integers are classes, floats values.
        classes: names of the classes; None: their indices.
        name: of the data, in the report.
        source: where the weights come from, in the report.
        target: name and unit of the target of a regression, in the report.
        input_unit: what a distance between inputs is measured in, in the report.
        truth: what was planted in the training data on purpose.
        retrain: trains a fresh network on the training samples at an index; without it nothing is checked by
            retraining.
        max_train: a larger training set is sampled down to this, as the kernel grows with its square.
        max_test: the same for the test set.
        max_pool: the same for the pool.
        memory_budget: what the tangent kernel may hold beyond its result, in bytes or such as ``"1GiB"``.
        command: what to run to get these numbers again, in the report.
        steps: times the steps and shows progress; None: a new one, with bars on a terminal.

    Returns:
        The study; ``study.data`` is the content of study.json.

    Data, targets or weights that do not fit the network are refused with a ``ValueError`` that names the sample, a
    model that is no module and data that cannot be read by index with a ``TypeError``.
    """
    steps = Steps() if steps is None else steps
    ref = ModelRef(model)
    with steps.live():
        with steps("Reading the data"):
            problem = read_problem(
                ref.model,
                train,
                test,
                pool,
                task=task,
                classes=classes,
                max_train=max_train,
                max_test=max_test,
                max_pool=max_pool,
                seed=seed,
            )
            _check_truth(truth, problem)
        with steps("Tangent kernel"):
            kernel = TangentKernel.of(ref.model, problem, memory_budget=memory_budget)
        initial = None
        if initial_weights is not None:
            with steps("Tangent kernel before training"):
                untrained = with_weights(ref.model, initial_weights)
                initial = TangentKernel.of(untrained, problem, memory_budget=memory_budget)
        material = Material(ref.model, problem, kernel, initial, truth, retrain, seed, steps)
        sections = _measure(material, input_unit)
        data = {
            "version": VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "task": problem.task,
            "model": _describe_model(ref.model, source),
            "data": _describe_data(problem, truth, name, target),
            **sections,
            "samples": gallery(problem, *sections.values()),
            "again": provenance.measure(material, command or "tangrams.study(model, train, test)"),
        }
        data["cost"] = {"seconds": steps.total, "memory_mb": peak_memory_mb(), "cores": usable_cores()}
        data = _finite(data)
        validate(data)
        found = Study(data)
        if out is not None:
            with steps("Report"):
                found = found.save(out)
    return found


def _measure(material: Material, input_unit: str) -> dict[str, Any]:
    steps = material.steps
    with steps("Surrogates"):
        network, surrogates = glance.network(material), glance.surrogates(material)
    with steps("Explanations"):
        explanations = predictions.measure(material)
    with steps("Labels"):
        suspects = labels.measure(material)
    with steps("Redundancy, with short retrainings" if material.retrain else "Redundancy") as advance:
        redundant = redundancy.measure(material, advance)
    with steps("Spectrum and learning curve"):
        rich = richness.measure(material)
    with steps("Decision boundary"):
        fragile = fragility.measure(material, input_unit)
    with steps("Layers"):
        health = layers.measure(material)
    with steps("Next labels"):
        upcoming = next_labels.measure(material)
    return {
        "network": network,
        "surrogates": surrogates,
        "explanations": explanations,
        "labels": suspects,
        "redundancy": redundant,
        "richness": rich,
        "fragility": fragile,
        "layers": health,
        "next": upcoming,
    }


def _describe_model(model: nn.Module, source: str | None) -> dict[str, Any]:
    sizes = {parameter: parameter.numel() for parameter in model.parameters()}
    return {
        "name": type(model).__name__,
        "parameters": sum(sizes.values()),
        "trainable": sum(size for parameter, size in sizes.items() if parameter.requires_grad),
        "source": source,
    }


def _describe_data(problem: Problem, truth: Truth | None, name: str | None, target: str | None) -> dict[str, Any]:
    planted = None
    if truth is not None:
        planted = {
            "label_errors": int(truth.wrong.sum()),
            "kind": truth.kind,
            "exact_duplicates": len(truth.copies),
            "near_duplicates": 0,
        }
    return {
        "name": name or "your data",
        "train": len(problem.train),
        "test": len(problem.test),
        "pool": 0 if problem.pool is None else len(problem.pool),
        "totals": {split.name: split.total for split in problem.splits},
        "classes": list(problem.classes),
        "input_shape": list(problem.train.inputs.tensors()[0].shape[1:]),
        "target": (target or "target") if problem.task == "regression" else None,
        "planted": planted,
    }


def _check_truth(truth: Truth | None, problem: Problem) -> None:
    if truth is not None and len(truth.wrong) != len(problem.train):
        raise ValueError(
            f"truth speaks of {len(truth.wrong)} training samples, {len(problem.train)} are studied: raise max_train"
        )


def _finite(value: Any) -> Any:
    """The same data with null for every NaN and infinity: JSON has none."""
    if isinstance(value, dict):
        return {key: _finite(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(member) for member in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
