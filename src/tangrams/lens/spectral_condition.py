"""Whether a training step moved each layer by as much as the spectral condition asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from tangrams.features import ModelRef
from tangrams.features.inputs import as_inputs
from tangrams.nn.parametrizations import Fans
from tangrams.nn.parametrizations.fans import read_layer_fans
from tangrams.operators import spectral_norm

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def rms_norm(weight: Float[Tensor, "..."]) -> Tensor:
    r"""The operator norm from root mean square to root mean square, ``\sqrt{fan_in / fan_out} ‖W‖_2`` [115].

    Of order one in layers that keep features at their size, for any shape.

    Args:
        weight: a matrix, or a kernel read as one of ``out`` rows.

    Raises:
        ValueError: if the weight has fewer than two axes or no entries.

    Example:
        >>> rms_norm(2 * torch.eye(3))
        tensor(2.)
    """
    if weight.ndim < 2 or weight.numel() == 0:
        raise ValueError(f"rms_norm needs a weight of two or more axes, got shape {tuple(weight.shape)}")
    matrix = weight.flatten(1)
    return spectral_norm(matrix[None]).values[0] * math.sqrt(matrix.shape[1] / matrix.shape[0])


@dataclass(frozen=True)
class LayerMotion:
    r"""What happened to one layer between two states of a network.

    Attributes:
        name: path of the layer.
        target: ``\sqrt{fan_out / fan_in}``.
        weight: spectral norm of the weight before.
        update: spectral norm of its change.
        frobenius: Frobenius norms of both, (weight, change).
        feature: root mean square of the layer's output before.
        feature_change: root mean square of its change.
        stable_rank: of the change, ``‖ΔW‖_F² / ‖ΔW‖²``; zero where nothing moved.
        alignment: ``‖ΔW x‖ / (‖ΔW‖ ‖x‖)`` over the samples, with the layer's inputs x before; one where the change
            acts on them as strongly as it can.
    """

    name: str
    target: float
    weight: float
    update: float
    frobenius: tuple[float, float]
    feature: float
    feature_change: float
    stable_rank: float
    alignment: float

    @property
    def update_ratio(self) -> float:
        r"""``‖ΔW‖ / \sqrt{fan_out / fan_in}``: of order one at every width under the spectral condition."""
        return self.update / self.target

    @property
    def relative_update(self) -> float:
        """``‖ΔW‖ / ‖W‖``."""
        return self.update / self.weight if self.weight else math.inf

    @property
    def relative_feature_change(self) -> float:
        """``‖Δh‖ / ‖h‖``."""
        return self.feature_change / self.feature if self.feature else math.inf


def spectral_report(model: nn.Module, before: Mapping[str, Tensor], x: Any) -> list[LayerMotion]:
    r"""Compare the weights and features of a network with those of an earlier state [115].

    Args:
        model: the network as it is now; read in eval mode and left as it was.
        before: an earlier ``state_dict()``, its tensors cloned.
        x: samples, as the model is called with.

    Returns:
        A row per linear layer and convolution that the forward pass calls once, with the weight that it multiplies by
        (under any parametrization), in the order of the call.

    Raises:
        ValueError: if the earlier state lacks a parameter of the model, has another shape, or the forward pass calls
            no such layer.
    """
    ref = ModelRef(model)
    for name, parameter in ref.model.named_parameters():
        if name not in before or before[name].shape != parameter.shape:
            raise ValueError(
                f"spectral_report: the earlier state has no {name!r} of shape {tuple(parameter.shape)}: "
                "pass a clone of this model's state_dict()"
            )
    inputs = as_inputs(x, "spectral_report").detached()
    with ref.session(), torch.no_grad(), _watched(ref.model) as calls:
        inputs.call(ref.model)
        now = dict(calls)
        calls.clear()
        state = {name: value for name, value in before.items() if name in ref.model.state_dict()}
        inputs.call(lambda *args, **kwargs: functional_call(ref.model, state, args, kwargs))
        earlier = dict(calls)
    rows = [
        _motion(name, earlier[name][0], now[name][0])
        for name in earlier
        if len(earlier[name]) == 1 and len(now.get(name, ())) == 1
    ]
    if not rows:
        raise ValueError(f"spectral_report: {type(ref.model).__name__} calls no linear layer or convolution once")
    return rows


@dataclass(frozen=True)
class _Call:
    module: nn.Module
    weight: Tensor
    input: Tensor
    output: Tensor


@contextmanager
def _watched(model: nn.Module) -> Iterator[dict[str, list[_Call]]]:
    """Calls of every linear layer and convolution.

    Yields:
        Path of the layer → its calls.
    """
    calls: dict[str, list[_Call]] = {}

    def watcher(path: str) -> Any:
        def hook(module: Any, arguments: Any, output: Any) -> None:
            call = _Call(module, module.weight.detach().clone(), arguments[0].detach(), output.detach().clone())
            calls.setdefault(path, []).append(call)

        return hook

    handles = [
        module.register_forward_hook(watcher(path))
        for path, module in model.named_modules()
        if isinstance(module, _LAYERS)
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _motion(name: str, before: _Call, now: _Call) -> LayerMotion:
    fans = read_layer_fans(before.module, before.weight.shape)
    change = now.weight - before.weight
    weight, update = (float(spectral_norm(w.reshape(fans.view)).values.max()) for w in (before.weight, change))
    frobenius = float(before.weight.norm()), float(change.norm())
    feature, feature_change = _rms(before.output), _rms(now.output - before.output)
    per_block = spectral_norm(change.reshape(fans.view)).values.square().sum()
    rank = frobenius[1] ** 2 / float(per_block) if update else 0.0
    moved, energy = _act(before, change, fans)
    alignment = moved / (update * energy) if update and energy else 0.0
    return LayerMotion(name, fans.target_norm, weight, update, frobenius, feature, feature_change, rank, alignment)


def _act(call: _Call, change: Tensor, fans: Fans) -> tuple[float, float]:
    """``‖ΔW x‖`` over all samples and positions, and the norm of what ΔW sees of x there."""
    module, x = call.module, call.input
    if isinstance(module, nn.Linear):
        return float((x @ change.mT).norm()), float(x.norm())
    ones = torch.ones_like(change[: fans.view[0]])  # one output per group sums the squares under its window
    convolve: Any = module._conv_forward
    seen = convolve(x.square(), ones, None).sum().clamp_min(0).sqrt()
    return float(convolve(x, change, None).norm()), float(seen)


def _rms(h: Tensor) -> float:
    return float(h.square().mean().sqrt())
