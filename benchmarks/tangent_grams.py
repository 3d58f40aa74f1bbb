"""Tangent Gram matrices of 100 samples, against the ``torch.func`` tutorial and other packages.

The floors were found in CPU seconds of one thread and are held to these; on idle cores the wall time on all of them
is measured as well and noted.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap

from benchmarks import models, peers
from benchmarks.harness import Conditions, Row, alternate, matmul_rate
from tangrams.features import TangentFeatures

N = 100


def tutorial_all(model: nn.Module, x: Tensor) -> Tensor:
    """The PyTorch NTK tutorial's Jacobian contraction: ``(n, n, C, C)``."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def single(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        return functional_call(model, (weights, buffers), (sample.unsqueeze(0),)).squeeze(0)

    rows = [j.flatten(2) for j in vmap(jacrev(single), (None, 0))(weights, x).values()]
    return torch.stack([torch.einsum("Naf,Mbf->NMab", j, j) for j in rows]).sum(0)


def tutorial_sum(model: nn.Module, x: Tensor) -> Tensor:
    """``vmap(grad)`` of the normalised sum of outputs, contracted: ``(n, n)``."""
    weights = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def single(weights: dict[str, Tensor], sample: Tensor) -> Tensor:
        outputs = functional_call(model, (weights, buffers), (sample.unsqueeze(0),))
        return outputs.sum() / outputs.shape[1] ** 0.5

    rows = [j.flatten(1) for j in vmap(grad(single), (None, 0))(weights, x).values()]
    return torch.stack([j @ j.mT for j in rows]).sum(0)


def images(size: int, channels: int) -> Callable[[], Tensor]:
    """Random images."""
    return lambda: torch.randn(N, channels, size, size)


CASES = [
    ("MLP, all outputs", models.mlp, images(28, 1), "all", 300.0),
    ("CNN, all outputs", models.cnn, images(28, 1), "all", 14.0),
    ("MLP, sum", models.mlp, images(28, 1), "sum", 60.0),
    ("CNN, sum", models.cnn, images(28, 1), "sum", 3.0),
    ("transformer, sum", models.Transformer, lambda: torch.randint(0, 256, (N, 64)), "sum", 1.15),
    ("ViT, sum", models.VisionTransformer, images(32, 3), "sum", 1.0),
    ("ResNet-8 (BatchNorm), sum", models.resnet, images(32, 3), "sum", 1.0),
]


def flops(name: str, n: int) -> float | None:
    """Floating operations that the chosen routes cannot do without, for the two networks with many outputs."""
    r, rows = 10, 10 * n
    if name.startswith("MLP, all"):
        layers = [(784, 512), (512, 512), (512, 10)]
        forward = 2 * n * sum(i * o for i, o in layers)
        backward = 2 * n * r * 512 * 512
        inner = n * n * sum(i for i, _ in layers) + rows * rows * 2 * 512
        return forward + backward + inner
    if name.startswith("CNN, all"):
        conv1, conv2, fc1 = 784 * 9 * 32, 196 * 288 * 64, 3136 * 128
        forward = 2 * n * (conv1 + conv2 + fc1 + 1280)
        backward = 2 * n * r * (conv2 + fc1)
        rows_of = 2 * n * r * (conv1 + conv2)
        inner = rows * rows * (288 + 18432 + 128) + n * n * 3136
        return forward + backward + rows_of + inner
    return None


def rows(conditions: Conditions) -> list[Row]:
    """The table."""
    found = []
    for name, make, draw, output, floor in CASES:
        torch.manual_seed(0)
        model, x = make().eval(), draw()
        phi = TangentFeatures(model, output)
        tutorial = tutorial_all if output == "all" else tutorial_sum
        slow = output == "all"
        rivals: dict[str, Callable[[], object]] = {
            "tangrams": lambda phi=phi, x=x: phi.gram(x),
            "torch.func": lambda tutorial=tutorial, model=model, x=x: tutorial(model, x),
        }
        turns = {"tangrams": 9, "torch.func": 1 if slow else 5}
        if output == "all":
            extra = peers.gram_rivals(model, x)
            rivals |= extra
            turns |= dict.fromkeys(extra, 3)
        phi.gram(x)  # the probe of a kind of input is made once
        with conditions.one_thread() as alone:
            seconds = alternate(rivals, turns, alone.timer)
            rate = matmul_rate(1000, 4096, alone.timer)
        row = Row("tangent Gram matrices", name, seconds, seconds["torch.func"] / seconds["tangrams"], floor)
        row.notes["clock"] = alone.clock
        row.notes["error"] = error(phi.gram(x), tutorial(model, x)) if not slow else None
        work = flops(name, N)
        if work is not None:
            row.notes["fraction of matrix-multiply rate"] = round(work / seconds["tangrams"] / rate, 3)
        if conditions.threads > 1:
            wall = alternate(rivals, turns, conditions.timer)
            row.notes[f"wall seconds, {conditions.threads} threads"] = {k: round(v, 5) for k, v in wall.items()}
            row.notes[f"wall ratio, {conditions.threads} threads"] = round(wall["torch.func"] / wall["tangrams"], 2)
        found.append(row)
    for peer, seconds in peers.neural_tangents(N).items():
        found.append(Row("tangent Gram matrices", f"neural-tangents, {peer}", seconds))
    return found


def error(mine: Tensor, theirs: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    return ((mine - theirs).abs().max() / theirs.abs().max()).item()


def contraction(conditions: Conditions) -> Row:
    """The large product alone: how much of the matrix-multiply rate the triangle of J Jᵀ reaches."""
    from tangrams.features.tangent.tile import Tile

    size, inner = 1000, 18432
    factor = torch.randn(1, size, inner)
    out = torch.zeros(size, size)
    seconds = alternate(
        {"tangrams": lambda: Tile(out, 1, False, True).add(factor, factor)}, {"tangrams": 5}, conditions.timer
    )
    rate = matmul_rate(size, inner, conditions.timer)
    fraction = size * size * inner / seconds["tangrams"] / rate
    return Row(
        "tangent Gram matrices",
        "J Jᵀ, 1000 × 18432",
        seconds,
        notes={"fraction of matrix-multiply rate (useful half)": round(fraction, 3)},
    )
