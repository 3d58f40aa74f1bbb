"""What a nasty model is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tangrams.features._reference import reference_rows

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 5e-2}
"""Largest relative error that counts as right, by dtype of the weights."""


@dataclass(frozen=True)
class NastyModel:
    """A network that something breaks on, and what a library should do with it.

    Attributes:
        name: a word for tables and test ids.
        factory: builds the network; called by :meth:`make` with a fixed seed and the default dtype set.
        events: ``(n, generator) -> x``: n samples of what it is called with.
        why: what is nasty about it.
        expect: ``"exact"``: features equal the dense reference. ``"refused"``: there is no right answer, and a
            typed error has to say so.
        dtype: of weights and inputs.
        output: what is differentiated: ``"all"`` (the tests then take sum and trace too), or a callable.
        n: number of samples in a test.
        plain: builds a network with the same weights and values that plain autograd can differentiate, where it
            cannot differentiate this one.
        precision: the dtype that it computes in, where that is not the one of its weights.
        names: for a refusal, regular expressions its message must match: who, where.
        needs: packages that it imports.
    """

    name: str
    factory: Callable[[], nn.Module]
    events: Callable[[int, torch.Generator], Any]
    why: str
    expect: Literal["exact", "refused"] = "exact"
    dtype: torch.dtype = torch.float64
    output: str | Callable[..., Tensor] = "all"
    n: int = 6
    plain: Callable[[], nn.Module] | None = None
    precision: torch.dtype | None = None
    names: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()

    @property
    def available(self) -> bool:
        """Whether the packages that it needs are installed."""
        return all(importlib.util.find_spec(package) for package in self.needs)

    @property
    def tolerance(self) -> float:
        """Largest relative error that counts as right."""
        return TOLERANCE[self.precision or self.dtype]

    def make(self) -> nn.Module:
        """A fresh network, the same each time, with no parameter or running statistic at its neutral value.

        Fresh networks hide faults: a norm's weight of one and bias of zero make wrong gradients look right.
        """
        return self._make(self.factory)

    def _make(self, factory: Callable[[], nn.Module]) -> nn.Module:
        with seeded(self.dtype):
            model = factory()
            with torch.no_grad():
                for parameter in model.parameters():
                    if _has_numbers(parameter):
                        parameter += 0.1 * torch.randn_like(parameter)
                for name, buffer in model.named_buffers():
                    if name.endswith("running_mean"):
                        buffer.normal_()
                    elif name.endswith("running_var"):
                        buffer.uniform_(0.5, 1.5)
        return model

    def inputs(self, n: int | None = None, *, seed: int = 0) -> Any:
        """Samples to call the network with.

        Args:
            n: how many; :attr:`n` by default.
            seed: fixes them.

        Returns:
            A tensor, tuple or mapping of tensors, floats in :attr:`dtype`.
        """
        with seeded(self.dtype):
            return self.events(self.n if n is None else n, torch.Generator().manual_seed(seed))

    def reference(self, x: Any = None, output: str | Callable[..., Tensor] | None = None) -> Tensor:
        """The dense reference rows; those of half-precision weights are computed in float64.

        Args:
            x: samples; :meth:`inputs` by default.
            output: what is differentiated; :attr:`output` by default.

        Returns:
            What :func:`~tangrams.testing.reference.reference_rows` gives.
        """
        model, x = self._make(self.plain or self.factory), self.inputs() if x is None else x
        if self.dtype.itemsize < 4:
            model, x = model.double(), _double(x)
        return reference_rows(model, x, self.output if output is None else output)


@contextmanager
def seeded(dtype: torch.dtype) -> Iterator[None]:
    """A fixed seed and the given default dtype, with both as they were afterwards.

    Args:
        dtype: the default dtype inside.

    Yields:
        Nothing.
    """
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.set_default_dtype(dtype)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


def floats(*shape: int) -> Callable[[int, torch.Generator], Tensor]:
    """Standard normal samples of the given event shape, in the default dtype."""

    def events(n: int, generator: torch.Generator) -> Tensor:
        return torch.randn(n, *shape, generator=generator)

    return events


def ints(high: int, *shape: int) -> Callable[[int, torch.Generator], Tensor]:
    """Samples of whole numbers in ``[0, high)`` of the given event shape."""

    def events(n: int, generator: torch.Generator) -> Tensor:
        return torch.randint(high, (n, *shape), generator=generator)

    return events


def several(
    *parts: Callable[[int, torch.Generator], Any],
) -> Callable[[int, torch.Generator], tuple[Any, ...]]:
    """Samples that are tuples: positional arguments of the network."""

    def events(n: int, generator: torch.Generator) -> tuple[Any, ...]:
        return tuple(part(n, generator) for part in parts)

    return events


def named(
    **parts: Callable[[int, torch.Generator], Any],
) -> Callable[[int, torch.Generator], Mapping[str, Any]]:
    """Samples that are mappings: keyword arguments of the network."""

    def events(n: int, generator: torch.Generator) -> dict[str, Any]:
        return {name: part(n, generator) for name, part in parts.items()}

    return events


def _has_numbers(parameter: nn.Parameter) -> bool:
    """Whether it holds real numbers, each in memory of its own, so that an in-place sum is defined."""
    if isinstance(parameter, nn.UninitializedParameter) or parameter.is_meta or not parameter.is_floating_point():
        return False
    return all(stride > 0 for stride, size in zip(parameter.stride(), parameter.shape, strict=True) if size > 1)


def _double(x: Any) -> Any:
    """The samples with floats in float64."""
    if isinstance(x, Tensor):
        return x.double() if x.is_floating_point() else x
    if isinstance(x, Mapping):
        return {key: _double(value) for key, value in x.items()}
    return tuple(_double(value) for value in x)
