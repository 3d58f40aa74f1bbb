"""Queries, keys and values train as well from a fraction of their input, kept for the weight gradient [090].

A small character-level transformer is trained from the same weights on the same batches with the input of its three
projections kept exactly, kept by PAMM at several ratios, and, in the same bytes, as a uniform sample of its rows and as
a random projection of all of them. Beside them stands the strongest simple saving of all: projections that are never
trained and keep nothing. Compared are the held-out perplexities over seeds, paired with the exact run of the same seed;
the bytes that autograd holds, in all and for these inputs; and the relative error of the weight gradients on real
activations, before and after training.
"""

from __future__ import annotations

import ast
import math
import sysconfig
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from tangrams.claims.base import Claim, Evidence
from tangrams.data import load
from tangrams.lens import ActivationMemoryMeter
from tangrams.nn import PAMM, RandomProjection, UniformRows, compress_activations_
from tangrams.nn.activation_compression import ActivationCompression

_PROJECTIONS = ("query", "key", "value")
_MODULES = ("argparse", "ast", "calendar", "configparser", "datetime", "decimal", "difflib", "doctest", "enum")
_MODULES += ("fractions", "functools", "heapq", "inspect", "logging/__init__", "mailbox", "optparse", "pdb", "pickle")
_MODULES += ("random", "smtplib", "socket", "statistics", "subprocess", "tarfile", "textwrap", "threading", "typing")


def measure(
    data: str | None,
    width: int,
    layers: int,
    context: int,
    batch: int,
    steps: int,
    seeds: int,
    ratios: Sequence[float],
    lr: float,
    device: str = "cpu",
) -> Evidence:
    """Train every variant on every seed; the rivals in the bytes of the smallest PAMM but one."""
    text = _documentation() if data is None else load(data)
    train, valid, vocabulary = _encoded(text, device)
    b = batch * context
    middle = ratios[len(ratios) // 2]
    variants = _variants(ratios, middle, b, width)
    losses: dict[str, list[float]] = {name: [] for name in variants}
    curves: dict[str, list[list[float]]] = {name: [] for name in variants}
    memory: dict[str, dict[str, int]] = {}
    errors: dict[str, Any] = {}
    for seed in range(seeds):
        for name, compression in variants.items():
            model = _Transformer(vocabulary, width, layers, context, torch.Generator().manual_seed(seed)).to(device)
            if name == "exact" and seed == 0:
                errors["at the start"] = _gradient_errors(model, train, batch, b, width, ratios)
            _convert(model, compression)
            if seed == 0:
                memory[name] = _memory(model, train, batch)
            curves[name].append(_train(model, train, batch, steps, lr, seed))
            losses[name].append(_held_out(model, valid, batch))
            if name == "exact" and seed == 0:
                errors["after training"] = _gradient_errors(model, train, batch, b, width, ratios)
    return _conclude(losses, curves, memory, errors, ratios, middle, steps)


def _variants(
    ratios: Sequence[float], middle: float, b: int, width: int
) -> dict[str, Callable[[], ActivationCompression] | str]:
    """Name → what keeps the input, one for each attention block."""
    variants: dict[str, Any] = {"exact": "exact"}
    for ratio in ratios:
        variants[_pamm(ratio)] = lambda ratio=ratio: PAMM(ratio)
    variants |= {name: make for name, make in _equal_memory(middle, b, width).items() if name != "PAMM"}
    variants["never trained"] = "frozen"
    return variants


def _equal_memory(ratio: float, b: int, width: int) -> dict[str, Callable[[], ActivationCompression]]:
    """PAMM and its rivals in as many bytes: k rows, an index and a scale per row; more rows; or all in few features."""
    entries = max(1, round(ratio * b)) * width + b * 1.5  # an index has half the bytes of an entry
    rows, features = max(1, round(entries / (width + 1))), max(1, round(entries / b))
    return {
        "PAMM": lambda: PAMM(ratio),
        "uniform rows": lambda: UniformRows(rows / b),
        "random projection": lambda: RandomProjection(features),
    }


def _pamm(ratio: float) -> str:
    return f"PAMM 1/{round(1 / ratio)}"


def _convert(model: nn.Module, compression: Callable[[], ActivationCompression] | str) -> None:
    if not isinstance(compression, str):
        compress_activations_(model, _PROJECTIONS, compression)
    elif compression == "frozen":
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(not any(f".{p}." in name for p in _PROJECTIONS))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.between(x))))


class _Transformer(nn.Module):
    def __init__(self, vocabulary: int, width: int, layers: int, context: int, generator: torch.Generator) -> None:
        super().__init__()
        self.context = context
        self.embed, self.position = nn.Embedding(vocabulary, width), nn.Embedding(context, width)
        self.blocks = nn.ModuleList(_Block(width, max(1, width // 32)) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    residual = 1 / math.sqrt(2 * layers) if name.endswith(("out.weight", "down.weight")) else 1.0
                    parameter.normal_(0, 0.02 * residual, generator=generator)
                elif "norm" not in name and "before" not in name and "between" not in name:
                    parameter.zero_()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def _documentation() -> str:
    """Docstrings of modules of the standard library, as this Python ships them."""
    folder = Path(sysconfig.get_path("stdlib"))
    texts = []
    for name in _MODULES:
        tree = ast.parse((folder / f"{name}.py").read_text(encoding="utf-8"))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        texts += [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
    return "\n".join(text for text in texts if text.isascii())


def _encoded(text: str, device: str) -> tuple[Tensor, Tensor, int]:
    """Nine tenths to train on, the last tenth to hold out."""
    alphabet = {character: i for i, character in enumerate(sorted(set(text)))}
    codes = torch.tensor([alphabet[character] for character in text], device=device)
    cut = len(codes) * 9 // 10
    return codes[:cut], codes[cut:], len(alphabet)


def _batch(codes: Tensor, batch: int, context: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    start = torch.randint(len(codes) - context - 1, (batch, 1), generator=generator).to(codes.device)
    windows = codes[start + torch.arange(context + 1, device=codes.device)]
    return windows[:, :-1], windows[:, 1:]


def _loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


def _train(model: _Transformer, codes: Tensor, batch: int, steps: int, lr: float, seed: int) -> list[float]:
    generator = torch.Generator().manual_seed(1000 + seed)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
    curve = []
    model.train()
    for _ in range(steps):
        loss = _loss(model, *_batch(codes, batch, model.context, generator))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        curve.append(loss.detach())
    return torch.stack(curve).tolist()


@torch.no_grad()
def _held_out(model: _Transformer, codes: Tensor, batch: int) -> float:
    """Mean loss over consecutive windows of the held-out text, at most 32 batches of them."""
    model.eval()
    size = model.context
    windows = codes[: (len(codes) - 1) // size * size].reshape(-1, size)[: 32 * batch]
    targets = codes[1 : windows.numel() + 1].reshape(-1, size)
    parts = [(_loss(model, x, y), len(x)) for x, y in zip(windows.split(batch), targets.split(batch), strict=True)]
    return float(sum(loss * n for loss, n in parts) / len(windows))


def _memory(model: _Transformer, codes: Tensor, batch: int) -> dict[str, int]:
    """Peak bytes that autograd holds in one step, and the share of the projections' inputs by their own count."""
    x, y = _batch(codes, batch, model.context, torch.Generator().manual_seed(0))
    model.train()
    with ActivationMemoryMeter(exclude=[*model.parameters(), x, y]) as meter:
        _loss(model, x, y).backward()
    block = next(iter(model.blocks))
    z = torch.randn(*x.shape, model.embed.embedding_dim, device=x.device)
    projections = [getattr(block, name) for name in _PROJECTIONS]
    with ActivationMemoryMeter(exclude=block.parameters()) as part:
        kept = [layer(z) for layer in projections]
        held = part.held_bytes
        del kept
    model.zero_grad()
    return {"whole_step": meter.peak_bytes, "projection_inputs": held * len(model.blocks)}


def _gradient_errors(
    model: _Transformer, codes: Tensor, batch: int, b: int, width: int, ratios: Sequence[float]
) -> dict[str, list[float]]:
    """Relative errors of the projections' weight gradients by ratio, rivals in the bytes of PAMM, over 5 draws."""
    x, y = _batch(codes, batch, model.context, torch.Generator().manual_seed(7))
    model.train()
    captured: list[tuple[Tensor, list[Tensor]]] = []
    handles = []

    def keep(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        pair = (args[0].detach().flatten(0, 1), [])
        captured.append(pair)
        out.register_hook(lambda gradient: pair[1].append(gradient.flatten(0, 1)))

    for block in model.blocks:
        handles += [getattr(block, name).register_forward_hook(keep) for name in _PROJECTIONS]
    _loss(model, x, y).backward()
    for handle in handles:
        handle.remove()
    model.zero_grad()
    found: dict[str, list[float]] = {}
    for ratio in ratios:
        for name, make in _equal_memory(ratio, b, width).items():
            values = []
            for seed in range(5):
                compression = make()
                compression.seed = seed
                for X, (dZ,) in captured:
                    kept = compression(X)
                    exact = dZ.mT @ X
                    values.append(float((kept.product(dZ, *kept.tensors) - exact).norm() / exact.norm()))
            found.setdefault(name, []).append(float(np.mean(values)))
    return found


def _conclude(
    losses: dict[str, list[float]],
    curves: dict[str, list[list[float]]],
    memory: dict[str, dict[str, int]],
    errors: dict[str, dict[str, list[float]]],
    ratios: Sequence[float],
    middle: float,
    steps: int,
) -> Evidence:
    exact = np.array(losses["exact"])
    excess = {name: (np.array(values) - exact).tolist() for name, values in losses.items() if name != "exact"}
    mean = {name: float(np.mean(values)) for name, values in excess.items()}
    perplexity = {name: float(np.exp(np.mean(values))) for name, values in losses.items()}
    ours, rivals = _pamm(middle), ("uniform rows", "random projection")
    trained = max(mean[_pamm(ratio)] for ratio in ratios) < mean["never trained"]
    largest = _pamm(ratios[0])
    good = [
        all(np.expm1(mean[_pamm(ratio)]) <= 0.02 for ratio in ratios),
        trained and all(mean[ours] < mean[name] for name in rivals),
        all(np.less(values["PAMM"], values[name]).all() for values in errors.values() for name in rivals),
    ]
    verdict = "holds" if all(good) else "holds in part" if any(good) else "does not hold"
    spread = _standard_error(excess[ours])
    error = "" if spread is None else f" ± {spread:.3f}"
    share = memory["exact"]["projection_inputs"] / memory[ours]["projection_inputs"]
    whole = memory[ours]["whole_step"] / memory["exact"]["whole_step"]
    place = ratios.index(middle)
    after = {name: values[place] for name, values in errors["after training"].items()}
    sentence = (
        f"After {steps} steps, held-out perplexity {perplexity['exact']:.2f} exact, {perplexity[largest]:.2f} with "
        f"{largest}, {perplexity[ours]:.2f} with {ours} (loss {mean[ours]:+.3f}{error}, "
        f"{len(exact)} seeds); in the bytes of {ours} uniform rows {perplexity['uniform rows']:.2f}, random projection "
        f"{perplexity['random projection']:.2f}; never trained {perplexity['never trained']:.2f}. The inputs take "
        f"1/{share:.0f} of their bytes, the whole step {whole:.0%}. Weight gradients are off by {after['PAMM']:.0%} "
        f"(rows {after['uniform rows']:.0%}, projection {after['random projection']:.0%})."
    )
    numbers: dict[str, Any] = {
        "held_out_loss": losses,
        "held_out_perplexity": perplexity,
        "loss_above_exact": mean,
        "loss_above_exact_standard_error": {name: _standard_error(values) for name, values in excess.items()},
        "bytes_held": memory,
        "ratios": list(ratios),
        "rivals_in_the_bytes_of": ours,
        "relative_gradient_error": errors,
    }
    return Evidence(verdict, sentence, numbers, _figure(curves, perplexity, errors, ratios))


def _standard_error(values: Sequence[float]) -> float | None:
    return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _figure(curves: Any, perplexity: dict[str, float], errors: Any, ratios: Sequence[float]) -> Figure:
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    width = max(1, len(next(iter(curves.values()))[0]) // 30)
    for i, (name, runs) in enumerate(curves.items()):
        mean = np.mean(runs, axis=0)
        smooth = np.convolve(mean, np.ones(width) / width, mode="valid")
        left.plot(np.arange(len(smooth)) + width, smooth, color=f"C{i}", label=name, linewidth=1)
    left.set_title("training loss, mean over seeds", fontsize=10)
    left.set_xlabel("step")
    left.legend(fontsize=7)
    middle.barh(list(perplexity), list(perplexity.values()), color=[f"C{i}" for i in range(len(perplexity))])
    middle.set_xlim(0.95 * min(perplexity.values()))
    middle.invert_yaxis()
    middle.set_title("held-out perplexity", fontsize=10)
    for line, (moment, values) in zip(("--", "-o"), errors.items(), strict=True):
        for i, (name, error) in enumerate(values.items()):
            right.loglog(ratios, error, line, color=f"C{i}", markersize=4, label=f"{name}, {moment}")
    right.set_title("relative error of the weight gradients, equal bytes", fontsize=10)
    right.minorticks_off()
    right.set_xticks(ratios, [f"1/{round(1 / ratio)}" for ratio in ratios])
    right.set_xlabel("ratio of PAMM")
    right.legend(fontsize=7)
    return figure


CLAIM = Claim(
    number=90,
    slug="point-approximate-matmul",
    statement=(
        "The input of the query, key and value projections can be kept as a few of its rows, and an index and a scale "
        "for each of the others, at an equal perplexity of the language model that is trained."
    ),
    baselines=(
        "the exact gradient",
        "a uniform sample of rows in the same bytes",
        "a random projection of the hidden dimension in the same bytes",
        "projections that are never trained and keep nothing",
    ),
    measure=measure,
    presets={
        "quick": {
            "data": None,
            "width": 64,
            "layers": 2,
            "context": 32,
            "batch": 16,
            "steps": 250,
            "seeds": 1,
            "ratios": (1 / 16, 1 / 64),
            "lr": 5e-3,
        },
        "full": {
            "data": "tiny_shakespeare",
            "width": 64,
            "layers": 2,
            "context": 32,
            "batch": 32,
            "steps": 500,
            "seeds": 3,
            "ratios": (1 / 16, 1 / 64, 1 / 256),
            "lr": 5e-3,
        },
        "gpu": {
            "data": "tiny_shakespeare",
            "width": 256,
            "layers": 4,
            "context": 256,
            "batch": 64,
            "steps": 3000,
            "seeds": 3,
            "ratios": (1 / 16, 1 / 64, 1 / 128, 1 / 256, 1 / 512),
            "lr": 1e-3,
            "device": "cuda",
        },
    },
    data={"full": ("tiny_shakespeare",), "gpu": ("tiny_shakespeare",)},
)
