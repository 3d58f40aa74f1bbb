"""Decides, from a handful of samples, how each parameter's share of a product is computed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from tangrams.features.inputs import Inputs
from tangrams.features.outputs import require_graph
from tangrams.features.parameters import Block
from tangrams.features.tangent import generic, guards
from tangrams.features.tangent.axis import Axis, find_axis
from tangrams.features.tangent.consumers import Consumer
from tangrams.features.tangent.consumers.linear import Linear
from tangrams.features.tangent.consumers.lookup import Lookup
from tangrams.features.tangent.graph import Uses, find_uses
from tangrams.features.tangent.groups import Generic, Group, Identity, Materialised, Part, Structured
from tangrams.features.tangent.positions import Pairs, Tokens
from tangrams.features.tangent.spec import TangentSpec

PROBE = 5
"""Samples of the probe."""

_PACK = 4096
"""Parameters smaller than this are materialised side by side."""


@dataclass(frozen=True)
class Recipe:
    """How products are computed for inputs of one kind.

    Attributes:
        r: functions per sample.
        signature: of the graph that it was made for; another graph needs another recipe.
        axes: where the samples lie, by consumer.
        uses: parameter block → its (consumer, slot) uses; None for the generic route.
        reasons: parameter block → why it is on the generic route.
        groups: the routes of a Gram matrix.
        floats: numbers in the intermediate results of one sample.
        loops: parameters whose generic route is the loop.
        reentrant: whether a graph can be run backward only once.
        precision: the narrowest dtype that the network computes in.
        scale: largest output at the probe.
        inside: largest output of any layer there.
    """

    r: int
    signature: Any
    axes: Mapping[int, Axis]
    uses: Mapping[str, tuple[tuple[int, int], ...] | None]
    reasons: Mapping[str, str]
    groups: tuple[Group, ...]
    floats: int
    loops: frozenset[str] = field(default_factory=frozenset)
    reentrant: bool = False
    precision: torch.dtype = torch.float64
    scale: float = 0.0
    inside: float = 0.0

    @property
    def generic(self) -> tuple[str, ...]:
        """Names of the blocks on the generic route."""
        return tuple(name for name, uses in self.uses.items() if uses is None)


class Restructured(Exception):
    """A batch's graph is not the one that its recipe was made for."""


def recipe_for(spec: TangentSpec, model: nn.Module, inputs: Inputs) -> Recipe:
    """The recipe for inputs of this kind, made at the first meeting."""
    key = inputs.signature()
    found = spec.recipes.get(key)
    for parameter in spec.weights().values():
        parameter.requires_grad_(True)  # the session puts back what was frozen since
    if found is None:
        found = spec.recipes[key] = _make(spec, model, inputs)
    spec.meet(found.r)
    return found


def without_structure(spec: TangentSpec, inputs: Inputs, names: Sequence[str], reason: str) -> Recipe:
    """Send some blocks to the generic route, or from ``vmap`` there to the loop, and remember it."""
    key = inputs.signature()
    recipe: Recipe = spec.recipes[key]
    uses = dict(recipe.uses)
    reasons = dict(recipe.reasons)
    loops = set(recipe.loops)
    for name in names:
        if uses[name] is None:
            loops.add(name)
        uses[name] = None
        reasons[name] = reason
    _join_unused(uses, reasons)
    kept = tuple(_kept(group, uses) for group in recipe.groups)
    groups = tuple(group for group in kept if group is not None)
    changed = replace(recipe, uses=uses, reasons=reasons, loops=frozenset(loops))
    groups = (*groups, *_generic_groups(spec, changed))
    changed = replace(changed, groups=groups)
    spec.recipes[key] = changed
    return changed


def _kept(group: Group, uses: Mapping[str, Any]) -> Group | None:
    if isinstance(group, Generic):
        return None
    if all(uses[block.name] is not None for block in group.blocks):
        return group
    if not isinstance(group, Materialised):
        return None
    kept = [(b, p) for b, p in zip(group.blocks, group.parts, strict=True) if uses[b.name] is not None]
    return _materialised([(block, part.uses) for block, part in kept]) if kept else None


def _join_unused(uses: dict[str, tuple[tuple[int, int], ...] | None], reasons: dict[str, str]) -> None:
    """Beside generic parameters an unused one is watched, not left out: a branch may use it for other samples."""
    if all(found is not None for found in uses.values()):
        return
    for name, found in uses.items():
        if found == ():
            uses[name] = None
            reasons[name] = "not used by the first samples"


def _generic_groups(spec: TangentSpec, recipe: Recipe) -> list[Group]:
    blocks = [block for block in spec.parameters.blocks if recipe.uses[block.name] is None]
    fast = tuple(block for block in blocks if block.name not in recipe.loops)
    slow = tuple(block for block in blocks if block.name in recipe.loops)
    groups: list[Group] = []
    if fast:
        groups.append(Generic(fast, ()))
    if slow:
        groups.append(Generic(slow, (), by_loop=True))
    return groups


def _make(spec: TangentSpec, model: nn.Module, inputs: Inputs) -> Recipe:
    probe = inputs.take(torch.arange(PROBE) % inputs.n)
    parameters = spec.weights()
    guards.refuse_rewriting(model)
    values = generic.outputs(model, spec.output, probe)
    require_graph(values, type(model).__name__)
    found = find_uses(values, parameters, measure=True)
    scale, inside = guards.independent_and_deterministic(spec, model, probe, values.detach(), found.precision)
    axes = {} if found.reentrant else _axes(found, values)
    uses: dict[str, tuple[tuple[int, int], ...] | None] = {}
    reasons: dict[str, str] = {}
    for block in spec.parameters.blocks:
        uses[block.name], reason = _uses_of(block, found, axes)
        if reason:
            reasons[block.name] = reason
    _join_unused(uses, reasons)
    loops = frozenset(spec.parameters.names) if found.reentrant or found.vmap_lies else frozenset()
    recipe = Recipe(
        r=values.shape[1],
        signature=found.signature(),
        axes=axes,
        uses=uses,
        reasons=reasons,
        groups=(),
        floats=-(-found.floats // PROBE),
        loops=loops,
        reentrant=found.reentrant,
        precision=found.precision,
        scale=scale,
        inside=inside,
    )
    groups = (*_groups(spec, recipe, found, values), *_generic_groups(spec, recipe))
    return replace(recipe, groups=groups)


def _axes(found: Uses, values: Tensor) -> dict[int, Axis]:
    """Two backward passes, samples weighted by one and by powers of two, tell where the samples are."""
    if not found.consumers:
        return {}
    n, r = values.shape
    generator = torch.Generator().manual_seed(0)
    mixture = torch.randn(r, generator=generator).to(values)
    weights = torch.tensor([1.0, 4.0, 0.5, 2.0, 8.0, 0.25, 16.0, 0.125])[:n].to(values)
    edges = [GradientEdge(consumer.node, 0) for consumer in found.consumers]

    def backward(scale: Tensor) -> Sequence[Tensor | None]:
        cotangent = scale[:, None] * mixture
        return torch.autograd.grad(values, edges, cotangent, retain_graph=True, allow_unused=True)

    axes = {}
    both = zip(backward(torch.ones_like(weights)), backward(weights), strict=True)
    for k, (plain, weighted) in enumerate(both):
        if plain is None or weighted is None:
            continue
        axis = find_axis(plain, weighted, weights, found.consumers[k].dims)
        if axis is not None:
            axes[k] = axis
    return axes


def _uses_of(block: Block, found: Uses, axes: Mapping[int, Axis]) -> tuple[tuple[tuple[int, int], ...] | None, str]:
    if not block.is_plain:
        return None, "parameters overlap in memory"
    if found.reentrant:
        return None, "a reentrant checkpoint hides it"
    if block.name in found.unexplained:
        return None, f"used by {found.unexplained[block.name]}"
    uses = tuple(
        (k, slot)
        for k, consumer in enumerate(found.consumers)
        for slot, source in consumer.sources.items()
        if source.parameter == block.name
    )
    lost = [k for k, _ in uses if k not in axes]
    if lost:
        return None, f"no sample axis in {found.consumers[lost[0]].node.name()}"
    return uses, ""


def _groups(spec: TangentSpec, recipe: Recipe, found: Uses, values: Tensor) -> list[Group]:
    by_name = {block.name: block for block in spec.parameters.blocks}
    joined: set[str] = set()
    groups: list[Group] = []
    packed: list[tuple[Block, tuple[tuple[int, int], ...]]] = []
    for block in spec.parameters.blocks:
        uses = recipe.uses[block.name]
        if not uses or block.name in joined:
            continue  # on the generic route, unused, or in the group of its weight
        if len(uses) == 1:
            special = _special(block, uses[0], recipe, found, values, by_name, spec.output.is_identity)
            if special is not None:
                groups.append(special)
                joined.update(b.name for b in special.blocks)
                continue
        packed.append((block, uses))
    small = [(block, uses) for block, uses in packed if block.numel < _PACK and block.name not in joined]
    for block, uses in packed:
        if block.name in joined or block.numel < _PACK:
            continue
        groups.append(_materialised([(block, uses)], _splits(uses, found)))
    if small:
        groups.append(_materialised(small))
    return groups


def _splits(uses: tuple[tuple[int, int], ...], found: Uses) -> int:
    if len(uses) != 1:
        return 0
    k, slot = uses[0]
    return found.consumers[k].channels(slot)


def _materialised(members: Sequence[tuple[Block, tuple[tuple[int, int], ...]]], splits: int = 0) -> Materialised:
    parts, start = [], 0
    for block, uses in members:
        parts.append(Part(start, start + block.numel, uses))
        start += block.numel
    consumers = tuple(sorted({k for _, uses in members for k, _ in uses}))
    return Materialised(tuple(block for block, _ in members), consumers, tuple(parts), splits)


def _special(
    block: Block,
    use: tuple[int, int],
    recipe: Recipe,
    found: Uses,
    values: Tensor,
    by_name: Mapping[str, Block],
    identity: bool,
) -> Group | None:
    """The route of a parameter with a single use where it is not to be materialised."""
    k, slot = use
    consumer = found.consumers[k]
    axis = recipe.axes[k]
    if isinstance(consumer, Lookup):
        vocabulary, width = consumer.sources[slot].seen
        positions = math.prod(consumer.shape[:-1]) // PROBE
        return Tokens((block,), (k,), positions, width, vocabulary) if vocabulary > 2 * positions else None
    if not isinstance(consumer, Linear) or slot != consumer.weight_slot:
        return None
    blocks = [block]
    bias = consumer.sources.get(0) if slot != 0 and consumer.node.name() == "AddmmBackward0" else None
    if bias is not None and recipe.uses.get(bias.parameter) == ((k, 0),):
        blocks.append(by_name[bias.parameter])
    has_bias = len(blocks) == 2
    o = consumer.out_features
    i = block.numel // o
    t = math.prod(consumer.shape[:-1]) // PROBE
    if t == 1 and consumer.node is values.grad_fn and axis.dim == 0 and recipe.r == o > 1 and identity:
        return Identity(tuple(blocks), (k,), has_bias, i)
    if t == 1:
        return Structured(tuple(blocks), (k,), has_bias, i, o)
    if t * t * (i / recipe.r**2 + o) < i * o:
        return Pairs(tuple(blocks), (k,), has_bias, t, i, o)
    return None


def bind(found: Uses, recipe: Recipe, n: int, dtype: torch.dtype, wanted: Sequence[int]) -> list[Consumer]:
    """Ready the consumers of a batch's graph to be read.

    Raises:
        Restructured: if the graph is not the one that the recipe was made for.
    """
    if found.signature() != recipe.signature:
        raise Restructured
    for k in wanted:
        axis = recipe.axes[k]
        if found.consumers[k].shape[axis.dim] != n * axis.positions:
            raise Restructured
    return found.consumers
