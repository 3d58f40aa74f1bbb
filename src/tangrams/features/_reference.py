"""The slow, obvious tangent features: one sample and one output at a time, by plain autograd.

Everything fast in the library is judged by this file, so it shares nothing with the fast routes: no batching,
no hooks, no ``torch.func``. A sample is alone in its batch, so that a NaN in one stays in its own rows.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from tangrams.data import Labelled


def reference_rows(
    model: nn.Module,
    x: Any,
    output: str | Callable[..., Tensor] = "all",
    params: Iterable[str] | None = None,
) -> Shaped[Tensor, "rows p"]:
    r"""Tangent features of ``x``, the slow way.

    Row ``(i, c)`` is :math:`\nabla_\theta f_c(x_i)`, with the model in eval mode, θ the parameters that
    require a gradient in the order of ``model.parameters()``, and each element of memory counted once, under its
    first name.

    Args:
        model: the network; its mode, gradients and buffers are left as they were.
        x: what it is called with (tensor, tuple or mapping of tensors), or :class:`Labelled`.
        output: ``"all"``, ``"sum"`` (:math:`\sum_c f_c / \sqrt C`), ``"trace"`` (the C gradients side by
            side, divided by :math:`\sqrt C`), or a callable of the model's return value (and of the targets,
            if it requires two arguments).
        params: names of the parameters that count; all that require a gradient by default.

    Returns:
        ``(n * C, p)`` for ``"all"``, ``(n, p)`` for ``"sum"``, ``(n, C * p)`` for ``"trace"``; ``(n * m, p)``
        for a callable that returns m values per sample. ``(0, p)`` when there are no samples.

    Raises:
        ValueError: if ``output`` is none of these.
    """
    if not callable(output) and output not in ("all", "sum", "trace"):
        raise ValueError(f'reference_rows takes output="all", "sum", "trace" or a callable, got {output!r}')
    memory = parameter_memory(model, params)
    inputs, targets = x if isinstance(x, Labelled) else (x, None)
    rows: list[Tensor] = []
    for i in range(num_samples(inputs)):
        with as_evaluated(model), torch.enable_grad():
            target = None if targets is None else targets[i : i + 1]
            values = _values(call(model, sample(inputs, i)), output, target)
            jacobian = [_gradient(value, memory) for value in values]
        rows += [torch.cat(jacobian) / len(jacobian) ** 0.5] if output == "trace" else jacobian
    if not rows:
        first = next(model.parameters(), torch.zeros(()))
        return first.detach().new_zeros(0, sum(group.numel for group in memory))
    return torch.stack(rows)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Parameters that share memory, and the columns of its elements.

    Attributes:
        leaves: the parameters; more than one only where one is a view of another's numbers.
        places: for each, the column of each of its elements, counted from the first column of the group.
        numel: how many columns: the different elements of memory.
    """

    leaves: tuple[nn.Parameter, ...]
    places: tuple[Tensor, ...]
    numel: int


def parameter_memory(model: nn.Module, params: Iterable[str] | None = None) -> list[Memory]:
    """The memory of the parameters that count, in the order of ``model.parameters()``.

    A parameter alone has a column per element, in its own order. Parameters that overlap, or one that is an expanded
    view, have a column per element of memory, in the order of memory.

    Args:
        model: the network.
        params: names; all that require a gradient by default.

    Returns:
        One entry per run of columns.
    """
    chosen = None if params is None else set(params)
    groups: list[list[tuple[nn.Parameter, list[int]]]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad if chosen is None else name in chosen:
            addresses = _addresses(parameter)
            sharing = [group for group in groups if any(set(addresses) & set(theirs) for _, theirs in group)]
            merged = [member for group in sharing for member in group]
            at = groups.index(sharing[0]) if sharing else len(groups)
            groups = [group for group in groups if group not in sharing]
            groups.insert(at, [*merged, (parameter, addresses)])
    return [_memory(group) for group in groups]


def _memory(group: list[tuple[nn.Parameter, list[int]]]) -> Memory:
    first = group[0][1]
    plain = all(addresses == first for _, addresses in group) and len(set(first)) == len(first)
    order = first if plain else sorted({address for _, addresses in group for address in addresses})
    column = {address: i for i, address in enumerate(order)}
    places = tuple(torch.tensor([column[a] for a in addresses], dtype=torch.int64) for _, addresses in group)
    return Memory(tuple(parameter for parameter, _ in group), places, len(order))


def _addresses(parameter: Tensor) -> list[int]:
    """Where each element lies, in logical order."""
    offsets = torch.zeros((), dtype=torch.int64)
    for size, stride in zip(parameter.shape, parameter.stride(), strict=True):
        offsets = offsets[..., None] + torch.arange(size) * stride
    return (parameter.data_ptr() + offsets.reshape(-1) * parameter.element_size()).tolist()


def _gradient(value: Tensor, memory: list[Memory]) -> Tensor:
    """One row: a scalar's gradient, zeros where it does not depend on a parameter."""
    blocks = [value.detach().new_zeros(0)]
    for group in memory:
        block = torch.zeros(group.numel, dtype=group.leaves[0].dtype, device=group.leaves[0].device)
        for leaf, places in zip(group.leaves, group.places, strict=True):
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True, allow_unused=True)
                if gradient is not None:
                    block.index_add_(0, places.to(block.device), gradient.to_dense().reshape(-1))
        blocks.append(block)
    return torch.cat(blocks)


def _values(result: Any, output: str | Callable[..., Tensor], target: Tensor | None) -> Tensor:
    """The scalars to differentiate, for a model called with one sample."""
    if callable(output):
        return output(*(result, target)[: 1 + _takes_targets(output)]).reshape(-1)
    values = main_output(result).reshape(-1)
    return values.sum().reshape(1) / values.numel() ** 0.5 if output == "sum" else values


def _takes_targets(output: Callable[..., Tensor]) -> bool:
    required = [p for p in inspect.signature(output).parameters.values() if p.default is p.empty]
    return len(required) >= 2


def main_output(result: Any) -> Tensor:
    """The tensor that a model means by its return value.

    A tensor is itself; of an object or mapping the ``logits``; of a tuple or list the first tensor; of any
    other mapping or dataclass its only floating-point tensor.

    Args:
        result: what the model returned.

    Returns:
        The tensor, ``(n, …)``.

    Raises:
        TypeError: if no single tensor is meant.
    """
    if isinstance(result, Tensor):
        return result
    logits = result.get("logits") if isinstance(result, Mapping) else getattr(result, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(result, tuple | list):
        tensors = [item for item in result if isinstance(item, Tensor)][:1]
    else:
        if dataclasses.is_dataclass(result) and not isinstance(result, Mapping):
            result = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
        items = result.values() if isinstance(result, Mapping) else ()
        tensors = [item for item in items if isinstance(item, Tensor) and item.is_floating_point()]
    if len(tensors) != 1:
        raise TypeError(
            f"reference_rows cannot tell which output to differentiate in a {type(result).__name__}: "
            "pass output= a callable that picks it"
        )
    return tensors[0]


def num_samples(inputs: Any) -> int:
    """The length of the first axis of the first tensor among ``inputs``."""
    return len(next(_tensors(inputs)))


def sample(inputs: Any, i: int) -> Any:
    """Sample i, alone in its batch.

    Args:
        inputs: a tensor, or tuples and mappings of tensors.
        i: which.

    Returns:
        The same structure, with first axes of length one; what is no tensor stays.
    """
    if isinstance(inputs, Tensor):
        return inputs[i : i + 1]
    if isinstance(inputs, Mapping):
        return {key: sample(value, i) for key, value in inputs.items()}
    if isinstance(inputs, tuple | list):
        return tuple(sample(value, i) for value in inputs)
    return inputs


def call(model: nn.Module, inputs: Any) -> Any:
    """The model called with a tensor, with a tuple as positional or a mapping as keyword arguments."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def _tensors(inputs: Any) -> Iterator[Tensor]:
    if isinstance(inputs, Tensor):
        yield inputs
    elif isinstance(inputs, Mapping | tuple | list):
        for value in inputs.values() if isinstance(inputs, Mapping) else inputs:
            yield from _tensors(value)


@contextmanager
def as_evaluated(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; modes, buffers and the CPU random state come back as they were.

    Args:
        model: the network.

    Yields:
        Nothing.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [
        (module._buffers, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    try:
        with torch.random.fork_rng(devices=[]):
            model.eval()
            yield
    finally:
        for module, mode in modes:
            module.training = mode
        for owner, name, buffer, value in buffers:
            owner[name] = buffer
            if not torch.equal(buffer, value):
                buffer.data.copy_(value)
