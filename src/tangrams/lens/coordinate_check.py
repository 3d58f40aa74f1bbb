"""Whether activations keep their size as the width grows: the test of a parametrization."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tangrams.features import ModelRef

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Embedding)


@dataclass(frozen=True)
class CoordinateCheck:
    """Sizes of activations over widths and steps.

    Attributes:
        widths: W of them.
        layers: L paths, in the order of the forward pass, and "output".
        size: mean absolute activation, ``(seeds, W, steps + 1, L)``; step 0 is before training.
        change: root mean square of what training added since step 0, likewise.
    """

    widths: tuple[int, ...]
    layers: tuple[str, ...]
    size: np.ndarray
    change: np.ndarray

    def slope(self, layer: str, step: int = -1) -> float:
        """Of log mean |h| over log width: 0 keeps its size, 1/2 and 1 blow up, negative ones vanish."""
        return self._fit(self.size, layer, step)

    def change_slope(self, layer: str, step: int = -1) -> float:
        """The same of the change: −1/2 is lazy training."""
        return self._fit(self.change, layer, step)

    def _fit(self, values: np.ndarray, layer: str, step: int) -> float:
        means = values[:, :, step, self.layers.index(layer)].mean(0)
        if not (np.isfinite(means).all() and (means > 0).all()):
            return math.nan
        return float(np.polyfit(np.log(self.widths), np.log(means), 1)[0])


def coordinate_check(
    train: Callable[[int, int], tuple[nn.Module, Callable[[], None]]],
    widths: Sequence[int],
    x: Any,
    *,
    steps: int = 3,
    seeds: int = 3,
) -> CoordinateCheck:
    """Train networks of several widths for a few steps and measure every layer's activations.

    Args:
        train: (width, seed) → a fresh network, and a function that takes one training step on it.
        widths: two or more.
        x: what the network is called with to read activations.
        steps: how many training steps.
        seeds: networks per width.

    Raises:
        ValueError: if there are fewer than two widths, or networks differ in layers.
    """
    if len(set(widths)) < 2:
        raise ValueError(f"coordinate_check needs two or more widths, got {list(widths)}")
    layers: tuple[str, ...] | None = None
    size, change = [], []
    for seed in range(seeds):
        for width in widths:
            model, step = train(width, seed)
            start = _activations(model, x)
            names = tuple(start)
            if layers not in (None, names):
                raise ValueError(f"coordinate_check: at width {width} the layers are {names}, before {layers}")
            layers = names
            for t in range(steps + 1):
                if t:
                    step()
                now = _activations(model, x)
                size.append([float(now[name].abs().mean()) for name in names])
                change.append([float((now[name] - start[name]).square().mean().sqrt()) for name in names])
    assert layers is not None  # there are widths
    shape = (seeds, len(widths), steps + 1, len(layers))
    return CoordinateCheck(tuple(widths), layers, np.array(size).reshape(shape), np.array(change).reshape(shape))


def _activations(model: nn.Module, x: Any) -> dict[str, Tensor]:
    with ModelRef(model).session() as network, torch.no_grad(), _outputs(network) as found:
        output = network(*x) if isinstance(x, tuple) else network(x)
    return {**found, "output": output}


@contextmanager
def _outputs(model: nn.Module) -> Iterator[dict[str, Tensor]]:
    """First output of every weighted layer.

    Yields:
        Path → output.
    """
    found: dict[str, Tensor] = {}

    def keeper(path: str) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Tensor) -> None:
            found.setdefault(path, output.clone())

        return hook

    handles = [
        module.register_forward_hook(keeper(path))
        for path, module in model.named_modules()
        if isinstance(module, _LAYERS)
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
