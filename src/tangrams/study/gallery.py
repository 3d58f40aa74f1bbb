"""How samples are shown in study.json: only those that a section names, as small images, values or text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from tangrams.study.problem import Problem, Split
from tangrams.study.report import png

_ID = re.compile(r"^(train|test|pool)/([0-9]+)$")
MOST_VALUES = 16
"""Values of a tabular sample that are shown."""
MOST_TOKENS = 24
"""Integers of a sequence that are shown."""


def gallery(problem: Problem, *sections: Any) -> dict[str, Any]:
    """The samples that some section names, keyed by id.

    Args:
        problem: the data.
        *sections: JSON data in which ids are looked for.
    """
    named: set[str] = set()
    for section in sections:
        _collect(section, named)
    splits = {split.name: split for split in problem.splits}
    rows = {split.name: {int(p): i for i, p in enumerate(split.positions)} for split in problem.splits}
    low, high = value_range(problem.train)
    shown = {}
    for name in sorted(named, key=_order):
        part, position = name.split("/")
        split = splits[part]
        shown[name] = _sample(problem, split, rows[part][int(position)], low, high)
    return shown


def is_image(sample: Tensor) -> bool:
    """Whether one input looks like a picture: (h, w), (1, h, w) or (3, h, w), both sides at least 4."""
    if sample.ndim == 3:
        return sample.shape[0] in (1, 3) and min(sample.shape[1:]) >= 4
    return sample.ndim == 2 and min(sample.shape) >= 4 and sample.is_floating_point()


def value_range(split: Split) -> tuple[float, float]:
    """The smallest and largest value of the first input: black and white of its pictures."""
    first = split.inputs.tensors()[0]
    return float(first.min()), float(first.max())


def _sample(problem: Problem, split: Split, i: int, low: float, high: float) -> dict[str, Any]:
    row: dict[str, Any] = {"label": None}
    if split.targets is not None:
        row["label"] = int(split.targets[i]) if split.targets.ndim == 1 else float(split.targets[i, 0])
    if problem.task == "classification":
        probabilities = split.outputs[i].softmax(0)
        row |= {"predicted": int(probabilities.argmax()), "confidence": float(probabilities.max())}
    else:
        row["predicted"] = float(split.outputs[i, 0])
    first = split.inputs.tensors()[0][i]
    if is_image(first):
        row["image"] = png(first, low=low, high=high)
    elif not first.is_floating_point():
        tokens = first.flatten()[:MOST_TOKENS].tolist()
        row["text"] = " ".join(str(token) for token in tokens) + (" …" if first.numel() > MOST_TOKENS else "")
    else:
        values = first.flatten()[:MOST_VALUES].to(torch.float64).tolist()
        row["values"] = [{"name": f"x{k}", "value": value} for k, value in enumerate(values)]
    return row


def _collect(value: Any, named: set[str]) -> None:
    if isinstance(value, str):
        if _ID.match(value):
            named.add(value)
    elif isinstance(value, Mapping):
        for member in value.values():
            _collect(member, named)
    elif isinstance(value, Sequence):
        for member in value:
            _collect(member, named)


def _order(name: str) -> tuple[str, int]:
    part, position = name.split("/")
    return part, int(position)
