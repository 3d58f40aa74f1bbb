"""A criterion, and the bench that trains and measures the default once per seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from tangrams.data.digits import CONFUSABLE_DIGITS
from tangrams.study.default import TrainedDefault, trained_default
from tangrams.study.material import Material, TangentKernel, with_weights
from tangrams.study.problem import read_problem
from tangrams.study.progress import Steps


@dataclass(frozen=True)
class Criterion:
    """One measured requirement.

    Attributes:
        group: the subject, what ``--only`` chooses by.
        name: what is measured.
        values: one per seed, or a single one.
        wanted: the requirement in words; empty for a figure that is only told.
        passed: whether every value meets it; None where nothing is required.
        note: baselines and errors.
    """

    group: str
    name: str
    values: tuple[float, ...]
    wanted: str
    passed: bool | None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self) | {"values": list(self.values)}


def at_least(group: str, name: str, values: Sequence[float], bound: float, note: str = "") -> Criterion:
    """A criterion that every value reaches a lower bound."""
    return Criterion(group, name, tuple(map(float, values)), f"≥ {bound:g}", all(v >= bound for v in values), note)


def at_most(group: str, name: str, values: Sequence[float], bound: float, note: str = "") -> Criterion:
    """A criterion that no value exceeds an upper bound."""
    return Criterion(group, name, tuple(map(float, values)), f"≤ {bound:g}", all(v <= bound for v in values), note)


def told(group: str, name: str, values: Sequence[float], note: str = "") -> Criterion:
    """A figure of which nothing is required."""
    return Criterion(group, name, tuple(map(float, values)), "", None, note)


class Bench:
    """The default, trained and read once per seed, shared by all criteria.

    Args:
        seeds: of the default: split, mistakes, weights, order.
        steps: shows what is being done.
    """

    def __init__(self, seeds: Sequence[int], steps: Steps) -> None:
        self.seeds = tuple(seeds)
        self.steps = steps
        self.default = cache(self._default)
        self.confusable = cache(self._confusable)
        self.material = cache(self._material)

    def _default(self, seed: int) -> TrainedDefault:
        with self.steps(f"Training the default, seed {seed}") as advance:
            return trained_default(seed, advance=advance)

    def _confusable(self, seed: int) -> TrainedDefault:
        with self.steps(f"Training on confusable labels, seed {seed}") as advance:
            return trained_default(seed, confusable=CONFUSABLE_DIGITS, advance=advance)

    def _material(self, default: TrainedDefault) -> Material:
        with self.steps(f"Tangent kernels, seed {default.seed}, {default.kind}"):
            return read_material(default, self.steps)

    def materials(self) -> list[Material]:
        """The default's material for every seed."""
        return [self.material(self.default(seed)) for seed in self.seeds]


def read_material(default: TrainedDefault, steps: Steps) -> Material:
    """What the sections of a study measure on, for a trained default.

    Args:
        default: the network and its data.
        steps: where time goes.
    """
    train, test = default.data.train.dataset(), default.data.test_dataset()
    problem = read_problem(default.model, train, test, seed=default.seed)
    kernel = TangentKernel.of(default.model, problem, memory_budget="512MiB")
    initial = TangentKernel.of(with_weights(default.model, default.initial_weights), problem, memory_budget="512MiB")
    return Material(default.model, problem, kernel, initial, default.truth, default.retrain, default.seed, steps)


def listed(figures: Mapping[str, Sequence[float]]) -> str:
    """Baselines in words: the mean over seeds of each."""
    return ", ".join(f"{name} {sum(values) / len(values):.3f}" for name, values in figures.items() if len(values))
