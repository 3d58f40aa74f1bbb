"""What is differentiated: rows of outputs picked from what a network returns."""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tangrams.features.errors import TangentError


def logits_of(returned: Any, who: str = "the network") -> Tensor:
    """The output tensor in what a network returned.

    The tensor itself; the key or attribute ``logits``; the first of a tuple; or the only floating tensor of a dict or
    dataclass.

    Args:
        returned: whatever the network returned.
        who: names the network in errors.

    Raises:
        TypeError: if there is no such tensor.
    """
    if isinstance(returned, Tensor):
        return returned
    if isinstance(returned, tuple | list) and not hasattr(returned, "logits"):
        if returned and isinstance(returned[0], Tensor):
            return returned[0]
        entries: dict[str, Any] = {}
    elif isinstance(returned, Mapping):
        entries = dict(returned)
    else:
        entries = {key: getattr(returned, key) for key in ("logits",) if hasattr(returned, key)}
        entries |= dict(getattr(returned, "__dict__", {}))
    if isinstance(entries.get("logits"), Tensor):
        return entries["logits"]
    floating = [value for value in entries.values() if isinstance(value, Tensor) and value.is_floating_point()]
    if len(floating) == 1:
        return floating[0]
    has = f" with {sorted(map(str, entries))}" if entries else ""
    raise TypeError(
        f"{who} returned {type(returned).__name__}{has}: expected a tensor, a tuple that starts with one, or "
        "`logits`; else pick one with output=lambda returned: returned[...]"
    )


def _as_columns(values: Tensor, n: int, what: str) -> Tensor:
    """``(n,)`` → ``(n, 1)`` and ``(n, …)`` → ``(n, C)``."""
    if values.ndim == 0 or values.shape[0] != n:
        raise ValueError(f"{what} have shape {tuple(values.shape)} for {n} samples: the first axis must be the sample")
    if values.is_complex() or not values.is_floating_point():
        raise ValueError(f"{what} have dtype {values.dtype}: only real floating outputs can be differentiated")
    return values if values.ndim == 2 else values.reshape(n, math.prod(values.shape[1:]))


class Output(ABC):
    """Which functions of the network are differentiated: ``(n, r)``, one feature row per entry or per sample."""

    folds = False
    """Whether the r functions of a sample share one row, side by side (with weight 1/√r)."""

    name: str

    takes_targets = False
    """Whether :meth:`select` needs the targets."""

    def describe(self) -> dict[str, str]:
        """What is differentiated, as JSON data."""
        return {"output": self.name}

    @abstractmethod
    def select(self, returned: Any, targets: Tensor | None, n: int, who: str = "the network") -> Tensor:
        """The functions' values ``(n, r)`` from what the network ``who`` returned for n samples."""

    @property
    def is_identity(self) -> bool:
        """Whether :meth:`select` only reshapes the network's outputs."""
        return False


class AllOutputs(Output):
    """Every output of every sample."""

    name = "all"

    def select(self, returned: Any, targets: Tensor | None, n: int, who: str = "the network") -> Tensor:
        """The outputs, flattened to ``(n, C)``."""
        return _as_columns(logits_of(returned, who), n, f"what {who} returned: outputs")

    @property
    def is_identity(self) -> bool:
        """True."""
        return True


class SumOfOutputs(AllOutputs):
    """The sum of a sample's outputs over √C, the function of the pseudo-NTK [033]."""

    name = "sum"

    def select(self, returned: Any, targets: Tensor | None, n: int, who: str = "the network") -> Tensor:
        """``Σ_c f_c / √C``: ``(n, 1)``."""
        values = super().select(returned, targets, n, who)
        return values.sum(1, keepdim=True) / math.sqrt(max(values.shape[1], 1))

    @property
    def is_identity(self) -> bool:
        """False."""
        return False


class TraceOfOutputs(AllOutputs):
    """Every output, a sample's rows side by side: the Gram matrix is the mean over outputs [072]."""

    name = "trace"
    folds = True


class CallableOutput(Output):
    """A function of what the network returned, or of that and the targets, per sample.

    It is given exactly what the network returned; :func:`logits_of` picks the output tensor out of any of them.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.name = (
            f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', type(function).__name__)}"
        )
        self.takes_targets = _takes_two(function)

    def describe(self) -> dict[str, str]:
        """The function's qualified name, and a hash of its code, defaults and captured values."""
        digest = hashlib.sha256()
        _feed(digest, self.function, set())
        return {"output": self.name, "code": digest.hexdigest()[:16]}

    def select(self, returned: Any, targets: Tensor | None, n: int, who: str = "the network") -> Tensor:
        """The function's values, ``(n, m)``."""
        arguments: list[Any] = [returned]
        if self.takes_targets:
            if targets is None:
                raise ValueError(f"output={self.name} takes targets: pass x as Labelled(inputs, targets)")
            arguments.append(targets)
        values = self.function(*arguments)
        if not isinstance(values, Tensor):
            raise TypeError(
                f"output={self.name} of {who} returned {type(values).__name__}, expected a tensor (n,) or (n, m)"
            )
        return _as_columns(values, n, f"{who}: the values of output={self.name}")


def _feed(digest: Any, value: Any, seen: set[int]) -> None:
    """Hash what a callable does, the same in every process: code, constants, defaults and captured values."""
    if id(value) in seen:
        return
    if isinstance(value, types.CodeType):
        digest.update(value.co_code + "|".join((*value.co_names, *value.co_varnames)).encode())
        value = value.co_consts
    elif isinstance(value, types.FunctionType):
        seen.add(id(value))
        cells = tuple(cell.cell_contents for cell in value.__closure__ or ())
        value = (value.__qualname__, value.__code__, value.__defaults__, value.__kwdefaults__, cells)
    elif isinstance(value, types.MethodType):
        value = (value.__func__, value.__self__)
    elif isinstance(value, functools.partial):
        value = (value.func, value.args, value.keywords)
    if isinstance(value, tuple | list | frozenset):
        items = sorted(value, key=repr) if isinstance(value, frozenset) else value
        digest.update(f"{type(value).__name__}{len(value)}".encode())
        for item in items:
            _feed(digest, item, seen)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            digest.update(repr(key).encode())
            _feed(digest, item, seen)
    elif isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, nn.Module):
        seen.add(id(value))
        digest.update(type(value).__qualname__.encode())
        _feed(digest, dict(value.state_dict()), seen)
    elif isinstance(value, bool | int | float | complex | str | bytes | type(None)):
        digest.update(repr(value).encode())
    else:
        seen.add(id(value))
        digest.update(f"{type(value).__module__}.{type(value).__qualname__}".encode())
        state = getattr(value, "__dict__", None)
        if state:
            _feed(digest, state, seen)


def _takes_two(function: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    required = [p for p in signature.parameters.values() if p.kind in kinds and p.default is p.empty]
    return len(required) >= 2


_BY_NAME: dict[str, Callable[[], Output]] = {
    "all": AllOutputs,
    "sum": SumOfOutputs,
    "trace": TraceOfOutputs,
}


def as_output(output: str | Callable[..., Tensor] | Output) -> Output:
    """The :class:`Output` for ``"all"``, ``"sum"``, ``"trace"`` or a callable.

    Raises:
        ValueError: for an unknown name.
        TypeError: for anything else.
    """
    if isinstance(output, Output):
        return output
    if isinstance(output, str):
        if output not in _BY_NAME:
            raise ValueError(f"output={output!r} is unknown: use {', '.join(map(repr, _BY_NAME))} or a callable")
        return _BY_NAME[output]()
    if callable(output):
        return CallableOutput(output)
    raise TypeError(f"output must be a name or a callable, got {type(output).__name__}")


def require_graph(values: Tensor, who: str = "the network") -> None:
    """Raise when no gradient can flow into the network from ``values``.

    Args:
        values: outputs.
        who: names the network in the error.

    Raises:
        TangentError: if the values were computed without a graph.
    """
    if not (values.requires_grad and torch.is_grad_enabled()) and values.numel():
        raise TangentError(
            f"the outputs of {who} carry no gradient: does the forward detach them or run under no_grad, or are the "
            "selected parameters unused?"
        )
