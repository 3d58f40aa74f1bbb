"""A pass of a linearised network against a plain one and ``torch.func.jvp``, and composed predictions.

Both in eval mode under ``no_grad``, so that nothing is recorded. A layer that is linear in its input and in its weights
needs three products where a plain pass needs one, W x, Ẇ x and W t, and two in the first layer; no way of multiplying
dual numbers has fewer. ``multiply-adds`` is what that comes to: those of a linearised pass over those of a plain one.
The tangents of large layers are multiplied by oneDNN, which on some processors takes half as long as the MKL that torch
uses: ``both without oneDNN`` compares the passes where all products take equally long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import models
from benchmarks.harness import Conditions, Row, alternate
from tangrams.learners import TangentComposition
from tangrams.nn.tangent import LinearizedModule, linearize

TARGET = 2.3
"""Plain passes that a linearised one was to cost at most."""

CASES: list[tuple[str, Callable[[], nn.Module], Callable[[], Tensor], list[str]]] = [
    ("MLP, 100", models.mlp, lambda: torch.randn(100, 1, 28, 28), []),
    ("ResNet-8 (BatchNorm), 32", models.resnet, lambda: torch.randn(32, 3, 32, 32), ["5", "8"]),
    ("transformer, 16", models.Transformer, lambda: torch.randint(0, 256, (16, 64)), ["blocks.1", "norm", "head"]),
    ("ViT, 32", models.VisionTransformer, lambda: torch.randn(32, 3, 32, 32), ["blocks.3", "norm", "head"]),
]
"""Name, network, inputs, and the parts that papers 004 and 009 train: the last block, the norm behind it, the head."""


def at_random(model: nn.Module, parts: list[str] | None = None) -> LinearizedModule:
    """Linearised in all its parameters, or in those of some parts, at a random direction."""
    linearized = linearize(model, trainable=None if parts is None else [model.get_submodule(part) for part in parts])
    with torch.no_grad():
        for tangent in linearized.parameters():
            tangent.normal_()
    return linearized


def by_func(linearized: LinearizedModule, x: Tensor) -> Any:
    """The same by ``torch.func.jvp``."""
    tangents = {name: t.detach() for name, t in linearized.tangents().items()}
    weights = {name: p.detach() for name, p in linearized.base.named_parameters() if name in tangents}
    with sdpa_kernel(SDPBackend.MATH):
        return jvp(lambda w: functional_call(linearized.base, w, (x,)), (weights,), (tangents,))


def step(run: Callable[[], Tensor], parameters: list[Tensor]) -> Any:
    """Forward and backward."""
    return torch.autograd.grad(run().square().sum(), parameters)


def multiply_adds(run: Callable[[], Any]) -> int:
    """In products and convolutions; recording, because then oneDNN, which is not counted, is not used."""

    def onto(_: torch.Size, a: torch.Size, b: torch.Size, *, out_shape: torch.Size, **options: Any) -> int:
        return 2 * out_shape.numel() * a[-1]

    in_place = {torch.ops.aten.addmm_: onto, torch.ops.aten.baddbmm_: onto}
    with torch.enable_grad(), FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        run()
    return counter.get_total_flops() // 2


def compared(
    linearized: LinearizedModule, x: Tensor, conditions: Conditions
) -> tuple[dict[str, float], dict[str, Any]]:
    """Seconds of a linearised pass, of a plain one and of ``torch.func.jvp``, and what there is to note about them."""
    model = linearized.base
    plain = {"tangrams": lambda: linearized(x), "plain": lambda: model(x)}
    with torch.no_grad():
        turns = {"tangrams": 9, "plain": 9, "torch.func.jvp": 5}
        seconds = alternate(plain | {"torch.func.jvp": lambda: by_func(linearized, x)}, turns, conditions.timer)
        value, tangent = by_func(linearized, x)
        error = ((linearized(x) - value - tangent).abs().max() / (value + tangent).abs().max()).item()
        torch._C._set_mkldnn_enabled(False)
        try:
            without = alternate(plain, {"tangrams": 5, "plain": 5}, conditions.timer)
        finally:
            torch._C._set_mkldnn_enabled(True)
    notes = {
        "plain passes": round(seconds["tangrams"] / seconds["plain"], 2),
        "aimed at": TARGET,
        "multiply-adds": round(multiply_adds(plain["tangrams"]) / multiply_adds(plain["plain"]), 2),
        "both without oneDNN": round(without["tangrams"] / without["plain"], 2),
        "error": error,
    }
    return seconds, notes


def passes(conditions: Conditions) -> list[Row]:
    """Inference, and a training step against one of the plain network."""
    keep_memory()
    found = []
    for name, make, draw, parts in CASES:
        torch.manual_seed(0)
        model, x = make().eval(), draw()
        linearized = at_random(model)
        seconds, notes = compared(linearized, x, conditions)
        weights: list[Tensor] = list(model.parameters())
        tangents: list[Tensor] = list(linearized.parameters())
        trained = alternate(
            {
                "tangrams": lambda m=linearized, x=x, p=tangents: step(lambda: m(x), p),
                "plain": lambda m=model, x=x, p=weights: step(lambda: m(x), p),
            },
            {"tangrams": 5, "plain": 5},
            conditions.timer,
        )
        notes["plain training steps"] = round(trained["tangrams"] / trained["plain"], 2)
        found.append(Row("linearised", name, seconds, seconds["torch.func.jvp"] / seconds["tangrams"], 1.0, notes))
        if parts:
            seconds, notes = compared(at_random(model, parts), x, conditions)
            ratio = seconds["plain"] / seconds["tangrams"]
            found.append(Row("linearised", f"{name}, last block trained", seconds, ratio, 1 / TARGET, notes))
    return found


def keep_memory() -> None:
    """Make the allocator keep what is freed.

    glibc gives back to the system what exceeds twice the largest block that was freed before, and pages that come anew
    cost as much as the work on them: a process that has read its data does not pay that, and neither rival does here.
    """
    torch.empty(31 * 2**20, dtype=torch.uint8)


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
