"""What a network is called with: n samples along the first axis of one or several tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tangrams.data.labelled import Labelled

_RANDOM_SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@dataclass(frozen=True, eq=False)
class Inputs:
    """n samples of what a network is called with, and their targets.

    Attributes:
        args: positional arguments of the network.
        kwargs: keyword arguments of the network.
        targets: ``(n, …)``, or None.
        n: the number of samples.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    targets: Tensor | None
    n: int

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        """The same call with every tensor that has a sample axis changed; ``n`` is read off again."""
        args = tuple(_map(value, change) for value in self.args)
        kwargs = {key: _map(value, change) for key, value in self.kwargs.items()}
        targets = None if self.targets is None else change(self.targets)
        n = next((t.shape[0] for t in _tensors((args, kwargs))), self.n)
        return Inputs(args, kwargs, targets, n)

    def slice(self, start: int, stop: int) -> Inputs:
        """Samples ``start … stop − 1``."""
        if start == 0 and stop >= self.n:
            return self
        return self.map(lambda t: t[start:stop])

    def take(self, index: Tensor) -> Inputs:
        """The samples at ``index``, in that order."""
        return self.map(lambda t: t[index.to(t.device)])

    def detached(self) -> Inputs:
        """The same samples, free of any autograd graph and of inference mode."""
        return self.map(lambda t: t.detach().clone() if t.is_inference() else t.detach())

    def tensors(self) -> list[Tensor]:
        """Every tensor with a sample axis, targets last."""
        found = _tensors((self.args, self.kwargs))
        return found if self.targets is None else [*found, self.targets]

    def signature(self) -> tuple[Any, ...]:
        """Shapes beyond the sample axis, dtypes and devices: what a plan depends on."""
        return tuple((tuple(t.shape[1:]), t.dtype, str(t.device)) for t in self.tensors())

    def call(self, model: Callable[..., Any]) -> Any:
        """The network's output."""
        return model(*self.args, **self.kwargs)


def as_inputs(x: Any, who: str = "TangentFeatures") -> Inputs:
    """Read a tensor, tuple, dict, ``Labelled`` or DataLoader as :class:`Inputs`.

    A DataLoader is read whole, once: a product then always sees the same samples in the same order.

    Args:
        x: what the network is called with; a tuple is its positional arguments, a dict its keyword arguments.
        who: named in errors.

    Raises:
        TypeError: if ``x`` is none of these.
        ValueError: if tensors disagree on the number of samples, if a loader shuffles or transforms at random, or if
            its batches have different shapes.
    """
    if isinstance(x, Inputs):
        return x
    if isinstance(x, DataLoader):
        return _from_loader(x, who)
    if isinstance(x, Labelled):
        inner = as_inputs(x.inputs, who)
        if not isinstance(x.targets, Tensor):
            raise TypeError(f"{who} expects the targets of Labelled as a tensor, got {type(x.targets).__name__}")
        if x.targets.ndim == 0 or x.targets.shape[0] != inner.n:
            raise ValueError(f"{who} got {inner.n} samples but targets of shape {tuple(x.targets.shape)}")
        return replace(inner, targets=x.targets)
    if isinstance(x, Tensor):
        args, kwargs = (x,), {}
    elif isinstance(x, tuple | list):
        args, kwargs = tuple(x), {}
    elif isinstance(x, Mapping):
        args, kwargs = (), dict(x)
    else:
        raise TypeError(
            f"{who} expects what the network is called with (a tensor, a tuple or dict of tensors), Labelled or a "
            f"DataLoader, got {type(x).__name__}"
            + (": use torch.from_numpy" if type(x).__module__.startswith("numpy") else "")
        )
    sizes = {t.shape[0] for t in _tensors((args, kwargs))}
    if not sizes:
        raise ValueError(f"{who} found no tensor with a sample axis in its input")
    if len(sizes) > 1:
        raise ValueError(f"{who} got tensors with different numbers of samples along the first axis: {sorted(sizes)}")
    return Inputs(args, kwargs, None, sizes.pop())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.ndim else []
    if isinstance(value, tuple | list):
        return [t for item in value for t in _tensors(item)]
    if isinstance(value, Mapping):
        return [t for item in value.values() for t in _tensors(item)]
    return []


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value) if value.ndim else value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_map(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(_map(item, change) for item in value)
    if isinstance(value, Mapping):
        return {key: _map(item, change) for key, item in value.items()}
    return value


def _from_loader(loader: DataLoader, who: str) -> Inputs:
    samplers = [loader.sampler, getattr(loader.batch_sampler, "sampler", None)]
    for sampler in samplers:
        if isinstance(sampler, _RANDOM_SAMPLERS) or getattr(sampler, "shuffle", False) is True:
            raise ValueError(
                f"{who} needs the same rows at every product and refuses a DataLoader that shuffles "
                f"({type(sampler).__name__}): pass shuffle=False"
            )
    rng = torch.get_rng_state()
    try:
        batches = [as_inputs(batch, who) for batch in loader]
        again = next(iter(loader), None)
    finally:
        torch.set_rng_state(rng)
    if not batches:
        raise ValueError(f"{who} got an empty DataLoader: pass a tensor with zero samples instead")
    for first, second in zip(batches[0].tensors(), as_inputs(again, who).tensors(), strict=True):
        if first.shape != second.shape or not torch.equal(first.nan_to_num(), second.nan_to_num()):
            raise ValueError(
                f"{who} read the first batch twice and got different samples: turn off random transforms and shuffling"
            )
    return _concatenate(batches, who)


def _concatenate(batches: list[Inputs], who: str) -> Inputs:
    columns = list(zip(*(batch.tensors() for batch in batches), strict=True))
    for column in columns:
        shapes = {tuple(t.shape[1:]) for t in column}
        if len(shapes) > 1:
            raise ValueError(f"{who} got batches of different shapes {sorted(shapes)}: pad them to one")
    merged = iter([torch.cat(column) for column in columns])
    return batches[0].map(lambda _: next(merged))


def module_of(model: nn.Module, parameter: str) -> str:
    """``"layer (Linear)"`` for the parameter ``"layer.weight"``: how errors name a place in a network."""
    path, _, _ = parameter.rpartition(".")
    module = model
    for part in filter(None, path.split(".")):
        module = getattr(module, part, module)
    return f"{path or 'the model'} ({type(module).__name__})"
