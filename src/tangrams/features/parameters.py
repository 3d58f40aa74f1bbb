"""Which parameters of a network are differentiated, and which feature columns each takes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tangrams.operators.sketches.base import Column

Selection = None | str | Sequence[str] | nn.Module | Sequence[nn.Module] | Callable[[str, nn.Parameter], bool]


@dataclass(frozen=True)
class Block:
    """One run of feature columns: a piece of parameter memory, counted once however many names it has.

    Attributes:
        name: the first of its names.
        shape: shape of the run: the parameter's, or flat where parameters overlap in memory.
        start: first column.
        stop: one past the last.
        members: the distinct parameters that read this memory; more than one when weights are tied through their
            storage.
        positions: for each member, where its elements lie in the run; None when it is the run itself.
    """

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int
    members: tuple[str, ...]
    positions: tuple[Tensor | None, ...]

    @property
    def numel(self) -> int:
        """Columns of the run."""
        return self.stop - self.start

    @property
    def is_plain(self) -> bool:
        """Whether the run is exactly one parameter."""
        return len(self.members) == 1 and self.positions[0] is None

    def assemble(self, gradients: Sequence[Tensor]) -> Tensor:
        """Gradients of the members, ``(…, *member shape)`` flattened to ``(…, numel_member)`` → ``(…, numel)``."""
        total: Tensor | None = None
        for gradient, position in zip(gradients, self.positions, strict=True):
            if position is not None:
                run = gradient.new_zeros(*gradient.shape[:-1], self.numel)
                gradient = run.index_add(-1, position.to(gradient.device), gradient)
            total = gradient if total is None else total + gradient
        assert total is not None  # a block has at least one member
        return total


@dataclass(frozen=True)
class Parameters:
    """The selected parameters in the order of ``model.parameters()``.

    Attributes:
        blocks: one per piece of memory.
    """

    blocks: tuple[Block, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The blocks as feature columns."""
        return tuple(Column(b.name, b.shape, b.start, b.stop) for b in self.blocks)

    @property
    def numel(self) -> int:
        """p, the number of columns."""
        return self.blocks[-1].stop if self.blocks else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The distinct parameters, in column order."""
        return tuple(name for block in self.blocks for name in block.members)

    def among(self, found: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
        """The selected ones among a network's parameters, by name."""
        missing = [name for name in self.names if name not in found]
        if missing:
            raise ValueError(f"the network no longer has the parameters {missing}: make the feature map again")
        return {name: found[name] for name in self.names}


def select_parameters(model: nn.Module, params: Selection = None, *, who: str = "TangentFeatures") -> Parameters:
    """Choose parameters and lay out their columns.

    Args:
        model: the network.
        params: None for all that require grad; names; a module or modules; or a predicate ``(name, parameter)``.
        who: is named where nothing is selected.

    Raises:
        ValueError: for unknown or frozen names, foreign modules, or an empty selection.
    """
    aliases = dict(model.named_parameters(remove_duplicate=False))
    chosen = _chosen(model, params, aliases)
    kept = {id(aliases[name]) for name in chosen if aliases[name].requires_grad}
    ordered = [(name, p) for name, p in model.named_parameters() if id(p) in kept]
    if not ordered:
        what = "no parameter requires grad" if params is None else f"params={params!r} selects none that requires grad"
        raise ValueError(f"{who} has nothing to differentiate: {what} in {type(model).__name__}")
    return Parameters(_blocks(ordered))


def _chosen(model: nn.Module, params: Selection, aliases: dict[str, nn.Parameter]) -> list[str]:
    if params is None:
        return list(aliases)
    if isinstance(params, nn.Module) or (callable(params) and not isinstance(params, str | Sequence)):
        if isinstance(params, nn.Module):
            return _of_modules(model, [params], aliases)
        return [name for name, p in aliases.items() if params(name, p)]
    if isinstance(params, str):
        params = [params]
    if not isinstance(params, Sequence):
        raise TypeError(f"params must be None, names, modules or a predicate, got {type(params).__name__}")
    if all(isinstance(item, nn.Module) for item in params):
        return _of_modules(model, list(params), aliases)  # type: ignore[arg-type]
    names = [str(name) for name in params]
    for name in names:
        if name not in aliases:
            close = difflib.get_close_matches(name, aliases, n=3)
            hint = f"did you mean {', '.join(close)}?" if close else f"it has {', '.join(list(aliases)[:8])}, …"
            raise ValueError(f"{type(model).__name__} has no parameter {name!r}: {hint}")
        if not aliases[name].requires_grad:
            raise ValueError(f"parameter {name!r} is frozen: call requires_grad_() on it to differentiate it")
    return names


def _of_modules(model: nn.Module, modules: list[nn.Module], aliases: dict[str, nn.Parameter]) -> list[str]:
    inside = {id(module) for module in model.modules()}
    for module in modules:
        if id(module) not in inside:
            raise ValueError(f"params names a {type(module).__name__} that is not part of {type(model).__name__}")
    wanted = {id(p) for module in modules for p in module.parameters()}
    return [name for name, p in aliases.items() if id(p) in wanted]


def _blocks(ordered: list[tuple[str, nn.Parameter]]) -> tuple[Block, ...]:
    groups: list[list[tuple[str, nn.Parameter]]] = []
    by_storage: dict[tuple[str, int], list[list[tuple[str, nn.Parameter]]]] = {}
    for name, p in ordered:
        key = (str(p.device), p.untyped_storage().data_ptr())
        shared = by_storage.setdefault(key, []) if p.numel() else []
        group = next((g for g in shared if any(_overlap(p, q) for _, q in g)), None)
        if group is None:
            group = []
            groups.append(group)
            shared.append(group)
        group.append((name, p))
    blocks, start = [], 0
    for group in groups:
        name, first = group[0]
        same = all(_geometry(p) == _geometry(first) for _, p in group)
        if same and not _folds_on_itself(first):
            shape, positions = tuple(first.shape), (None,) * len(group)
        else:
            shape, positions = _union([p for _, p in group])
        stop = start + math.prod(shape)
        blocks.append(Block(name, shape, start, stop, tuple(n for n, _ in group), positions))
        start = stop
    return tuple(blocks)


def _geometry(p: Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]:
    return int(p.storage_offset()), tuple(p.shape), p.stride(), p.dtype


def _span(p: Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(p.shape, p.stride(), strict=True))
    size = p.element_size()
    start = int(p.storage_offset())
    return start * size, (start + last + 1) * size


def _overlap(p: Tensor, q: Tensor) -> bool:
    (a, b), (c, d) = _span(p), _span(q)
    return a < d and c < b


def _folds_on_itself(p: Tensor) -> bool:
    return any(stride == 0 and size > 1 for size, stride in zip(p.shape, p.stride(), strict=True))


def _union(parameters: list[nn.Parameter]) -> tuple[tuple[int, ...], tuple[Tensor, ...]]:
    """Elements of memory that any of the parameters reads, and where each parameter's elements lie among them."""
    if len({p.dtype for p in parameters}) > 1:
        raise ValueError("parameters of different dtypes share memory: tangent features count each element once")
    places = []
    for p in parameters:
        place = torch.tensor(int(p.storage_offset()), dtype=torch.int64)
        for size, stride in zip(p.shape, p.stride(), strict=True):
            place = place[..., None] + torch.arange(size) * stride
        places.append(place.reshape(-1))
    elements, inverse = torch.unique(torch.cat(places), return_inverse=True)
    return (elements.numel(),), tuple(inverse.split([place.numel() for place in places]))
