"""Are sick layers flagged, each in its place, and healthy ones left alone?"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from tangrams.features.inputs import as_inputs
from tangrams.lens.layers import layer_health
from tangrams.study.acceptance.base import Bench, Criterion, at_least, at_most
from tangrams.study.default import TrainedDefault
from tangrams.study.training import train_classifier

CONV2, FC1, FC2 = "2", "6", "8"
"""Names of the default network's second convolution and its dense layers."""


def _untrained(default: TrainedDefault) -> nn.Sequential:
    model = copy.deepcopy(default.model)
    model.load_state_dict(default.initial_weights)
    return model  # type: ignore[return-value]


def _scaled(name: str, factor: float) -> Callable[[TrainedDefault], nn.Module]:
    def make(default: TrainedDefault) -> nn.Module:
        model = copy.deepcopy(default.model)
        with torch.no_grad():
            model.get_submodule(name).weight.mul_(factor)  # type: ignore[union-attr, operator]
        return model

    return make


def _dead(default: TrainedDefault) -> nn.Module:
    """Three quarters of the second convolution's units never fire."""
    model = copy.deepcopy(default.model)
    with torch.no_grad():
        model.get_submodule(CONV2).bias[:24] = -1e3  # type: ignore[union-attr, index]
    return model


def _frozen(default: TrainedDefault) -> nn.Module:
    """The second convolution kept its first weights while the rest was trained."""
    model = _untrained(default)
    model[2].requires_grad_(False)
    train = default.data.train
    train_classifier(model, as_inputs(train.inputs), train.labels, seed=default.seed)
    return model.requires_grad_(True)


def _fast(default: TrainedDefault) -> nn.Module:
    """Eight times the learning rate."""
    model, train = _untrained(default), default.data.train
    return train_classifier(model, as_inputs(train.inputs), train.labels, learning_rate=0.04, seed=default.seed)


SICK: dict[str, tuple[Callable[[TrainedDefault], nn.Module], str | None, tuple[str, ...]]] = {
    "untrained": (_untrained, None, ("norm", "exponent")),
    "first dense layer × 10": (_scaled(FC1, 10), FC1, ("norm",)),
    "last layer × 30": (_scaled(FC2, 30), FC2, ("norm",)),
    "dead units": (_dead, CONV2, ("dead",)),
    "frozen layer": (_frozen, CONV2, ("norm", "exponent")),
    "8 × learning rate": (_fast, None, ("norm",)),
}
"""Sickness → how to make it, the layer it sits in (None: any), and the measures that should show it."""


def measure_layers(bench: Bench) -> list[Criterion]:
    """Flags of healthy and of sick networks."""
    group = "layers"
    healthy = []
    for seed in bench.seeds:
        default = bench.default(seed)
        rows = layer_health(default.model, default.data.train.inputs, seed=0)
        healthy.append(sum(flag.measure in ("norm", "exponent") for row in rows for flag in row.flags))
    criteria = [at_most(group, "healthy: norm or exponent flags", healthy, 0)]
    for sickness, (make, place, measures) in SICK.items():
        found, notes = [], set()
        for seed in bench.seeds:
            default = bench.default(seed)
            with bench.steps(f"Sick network: {sickness}, seed {seed}"):
                rows = layer_health(make(default), default.data.train.inputs, seed=0)
            flagged = {(row.name, flag.measure) for row in rows for flag in row.flags}
            hits = {(name, measure) for name, measure in flagged if measure in measures and place in (None, name)}
            found.append(float(bool(hits)))
            notes |= {f"{name} {measure}" for name, measure in hits}
        criteria.append(at_least(group, f"flagged: {sickness}", found, 1, ", ".join(sorted(notes))))
    return criteria
