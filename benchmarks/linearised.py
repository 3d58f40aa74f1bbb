"""A pass of a linearised network against a plain one and ``torch.func.jvp``, and composed predictions.

A layer that is linear in its input and in its weights needs three products where a plain pass needs one, W x, Ẇ x and
W t, and two in the first layer; no way of multiplying dual numbers has fewer. What is measured is therefore between two
and three plain passes, plus what the rest of the pass costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import models
from benchmarks.harness import Conditions, Row, alternate
from tangrams.learners import TangentComposition
from tangrams.nn.tangent import LinearizedModule, linearize

TARGET = 2.3
"""Plain passes that a linearised one was to cost at most."""

CASES: list[tuple[str, Callable[[], nn.Module], Callable[[], Tensor]]] = [
    ("MLP, 100", models.mlp, lambda: torch.randn(100, 1, 28, 28)),
    ("ResNet-8 (BatchNorm), 32", models.resnet, lambda: torch.randn(32, 3, 32, 32)),
    ("transformer, 16", models.Transformer, lambda: torch.randint(0, 256, (16, 64))),
    ("ViT, 32", models.VisionTransformer, lambda: torch.randn(32, 3, 32, 32)),
]


def at_random(model: nn.Module, parts: list[str] | None = None) -> LinearizedModule:
    """Linearised in all its parameters, or in those of some parts, at a random direction."""
    linearized = linearize(model, trainable=None if parts is None else [model.get_submodule(part) for part in parts])
    with torch.no_grad():
        for tangent in linearized.parameters():
            tangent.normal_()
    return linearized


def by_func(linearized: LinearizedModule, x: Tensor) -> Any:
    """The same by ``torch.func.jvp``."""
    weights = {name: p.detach() for name, p in linearized.base.named_parameters()}
    tangents = {name: t.detach() for name, t in linearized.tangents().items()}
    with sdpa_kernel(SDPBackend.MATH):
        return jvp(lambda w: functional_call(linearized.base, w, (x,)), (weights,), (tangents,))


def step(run: Callable[[], Tensor], parameters: list[Tensor]) -> Any:
    """Forward and backward."""
    return torch.autograd.grad(run().square().sum(), parameters)


def passes(conditions: Conditions) -> list[Row]:
    """Inference, and a training step against one of the plain network."""
    found = []
    for name, make, draw in CASES:
        torch.manual_seed(0)
        model, x = make().eval(), draw()
        linearized = at_random(model)
        plain: list[Tensor] = list(model.parameters())
        moving: list[Tensor] = list(linearized.parameters())
        turns = {"tangrams": 9, "plain": 9, "torch.func.jvp": 5}
        extra: dict[str, float] = {}
        with torch.no_grad():
            seconds = alternate(
                {
                    "tangrams": lambda m=linearized, x=x: m(x),
                    "plain": lambda m=model, x=x: m(x),
                    "torch.func.jvp": lambda m=linearized, x=x: by_func(m, x),
                },
                turns,
                conditions.timer,
            )
            value, tangent = by_func(linearized, x)
            error = ((linearized(x) - value - tangent).abs().max() / (value + tangent).abs().max()).item()
        trained = alternate(
            {
                "tangrams": lambda m=linearized, x=x, p=moving: step(lambda: m(x), p),
                "plain": lambda m=model, x=x, p=plain: step(lambda: m(x), p),
            },
            {"tangrams": 5, "plain": 5},
            conditions.timer,
        )
        if isinstance(model, models.VisionTransformer):
            last = at_random(model, ["blocks.3", "norm", "head"])
            with torch.no_grad():
                again = alternate(
                    {"last block": lambda m=last, x=x: m(x), "plain": lambda m=model, x=x: m(x)},
                    {"last block": 9, "plain": 9},
                    conditions.timer,
                )
            extra["plain passes, last block trained"] = round(again["last block"] / again["plain"], 2)
        row = Row("linearised", name, seconds, seconds["torch.func.jvp"] / seconds["tangrams"], 1.0)
        row.notes["plain passes"] = round(seconds["tangrams"] / seconds["plain"], 2)
        row.notes["aimed at"] = TARGET
        row.notes["plain training steps"] = round(trained["tangrams"] / trained["plain"], 2)
        row.notes["error"] = error
        row.notes |= extra
        found.append(row)
    return found


def composition(conditions: Conditions) -> Row:
    """Predictions of 20 components in one pass, against one component and an ensemble."""
    torch.manual_seed(0)
    model, x = models.resnet().eval(), torch.randn(32, 3, 32, 32)
    parts = [at_random(model).vector() for _ in range(20)]
    modules = {}
    for count in (1, 20):
        total = TangentComposition(model)
        for i, part in enumerate(parts[:count]):
            total.add(str(i), part)
        modules[count] = total.as_module()
    with torch.no_grad():
        seconds = alternate(
            {
                "20 components": lambda: modules[20](x),
                "1 component": lambda: modules[1](x),
                "20 networks": lambda: [model(x) for _ in range(20)],
            },
            {"20 components": 9, "1 component": 9, "20 networks": 3},
            conditions.timer,
        )
    row = Row("linearised", "ResNet-8, composed", seconds, seconds["20 networks"] / seconds["20 components"], 5.0)
    row.notes["20 components over 1"] = round(seconds["20 components"] / seconds["1 component"], 2)
    return row


def rows(conditions: Conditions) -> list[Row]:
    """The table."""
    return [*passes(conditions), composition(conditions)]
