"""How a Gram matrix will be computed, decided before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from tangrams.features.tangent.groups import Group
from tangrams.features.tangent.recipe import Recipe
from tangrams.features.tangent.spec import TangentSpec

_GRAPH_BYTES = 704 << 20
"""Largest graph of a single batch that is read layer by layer instead of being stored."""

_CHUNK_BYTES = 64 << 20
"""Aimed size of a batch's intermediate results when samples are run in batches: what caches hold."""

_TILE_BYTES = 20 << 20
"""Aimed size of a tile of the result."""


@dataclass(frozen=True)
class Plan:
    """Routes and memory of a Gram matrix, known before it is computed.

    Attributes:
        samples: n, how many samples it is for.
        outputs: r, functions per sample.
        batch_size: samples per forward pass.
        passes: how often every sample is run through the network; more than one when what the layers hold exceeds
            the budget.
        panel: rows of the result, in samples, computed at a time.
        bytes: planned peak beyond the result.
        budget: what the user allowed.
        routes: parameter name → how its inner products are computed.
        bytes_of: parameter name → bytes held for it over all samples.
        reasons: parameter name → why it is not on a faster route, where it is not.
        streamed: whether layers are contracted one by one out of a single batch's graph, and nothing is stored.
        groups: the groups of each pass.
    """

    samples: int
    outputs: int
    batch_size: int
    passes: int
    panel: int
    bytes: int
    budget: int
    routes: Mapping[str, str]
    bytes_of: Mapping[str, int]
    reasons: Mapping[str, str]
    streamed: bool
    groups: tuple[tuple[Group, ...], ...]

    def __str__(self) -> str:
        head = (
            f"{self.samples} samples × {self.outputs} functions, {self.batch_size} samples per forward pass, "
            f"{self.passes} pass{'es' if self.passes > 1 else ''}, panels of {self.panel} samples, "
            f"{self.bytes / 2**20:.1f} MiB beyond the result (budget {self.budget / 2**20:.0f} MiB)"
        )
        width = max((len(name) for name in self.routes), default=0)
        lines = [
            f"  {name:<{width}}  {route:<12} {self.bytes_of.get(name, 0) / 2**20:9.2f} MiB"
            + (f"  ({self.reasons[name]})" if name in self.reasons else "")
            for name, route in self.routes.items()
        ]
        return "\n".join([head, *lines])


def make_plan(spec: TangentSpec, recipe: Recipe, rows: int, columns: int | None = None) -> Plan:
    """Plan the Gram matrix of ``rows`` samples with ``columns`` others, or with themselves.

    What a pass holds: the factors of its layers for all samples, one batch's graph, and three tiles. Layers that do
    not fit together are spread over passes, each of which runs all samples again; a layer that does not fit alone is
    cut by output channels.
    """
    r, item = recipe.r, spec.dtype.itemsize
    samples = rows + (columns or 0)
    wide = columns or rows
    functions = 1 if spec.output.folds else r
    graph = max(1, recipe.floats * spec.ref.dtype.itemsize * 2)
    longest = max(rows, wide)
    streamed = (
        r == 1
        and columns is None
        and spec.batch_size is None
        and graph * rows <= min(_GRAPH_BYTES, spec.memory_budget * 2 // 3)
    )
    batch = spec.batch_size or (rows if streamed else max(8, _CHUNK_BYTES // graph))
    generic = sum(group.floats(r) for group in recipe.groups if group.route in {"vmap", "loop"})
    if generic and spec.batch_size is None:
        batch = min(batch, max(1, spec.memory_budget // (16 * generic * item)))
    batch = max(1, min(batch, longest))
    line = functions * functions * max(wide, 1) * item
    panel = max(1, min(rows, _TILE_BYTES // max(line, 1)))
    if functions * rows <= 2048 and 3 * line * rows <= spec.memory_budget // 4:
        panel = max(rows, 1)
    tiles = (2 if functions == 1 else 3) * panel * line
    checked = 2 * spec.parameters.numel * item
    patches = 2 * recipe.floats if spec.dtype == torch.float64 else 0  # see Convolution
    overhead = tiles + graph * batch + (patches + 2 * generic) * batch * item + checked
    room = max(spec.memory_budget - overhead, spec.memory_budget // 4)
    held = {id(group): group.floats(r) * item * samples for group in recipe.groups}
    if streamed:
        passes: tuple[tuple[Group, ...], ...] = (recipe.groups,)
        most = max(held.values(), default=0)
        if most > room:
            passes = (tuple(p for g in recipe.groups for p in g.pieces(math.ceil(held[id(g)] / room))),)
            most = min(most, room)
    else:
        passes = _passes(recipe.groups, held, room)
        most = max((sum(g.floats(r) * item * samples for g in members) for members in passes), default=0)
    return Plan(
        samples=rows,
        outputs=r,
        batch_size=batch,
        passes=len(passes),
        panel=panel,
        bytes=most + overhead,
        budget=spec.memory_budget,
        routes={b.name: _route(recipe, b.name) for b in spec.parameters.blocks},
        bytes_of=_bytes_of(recipe, samples, item),
        reasons=recipe.reasons,
        streamed=streamed,
        groups=passes,
    )


def _passes(groups: tuple[Group, ...], held: Mapping[int, int], room: int) -> tuple[tuple[Group, ...], ...]:
    """First fit, in decreasing order of size."""
    pieces: list[tuple[int, Group]] = []
    for group in groups:
        size = held[id(group)]
        parts = group.pieces(math.ceil(size / room)) if size > room else (group,)
        pieces.extend((size // len(parts), part) for part in parts)
    pieces.sort(key=lambda item: -item[0])
    bins: list[tuple[int, list[Group]]] = []
    for size, group in pieces:
        for number, (used, members) in enumerate(bins):
            if used + size <= room:
                members.append(group)
                bins[number] = (used + size, members)
                break
        else:
            bins.append((size, [group]))
    return tuple(tuple(members) for _, members in bins) or ((),)


def _route(recipe: Recipe, name: str) -> str:
    for group in recipe.groups:
        if any(block.name == name for block in group.blocks):
            return group.route
    return "zero"


def _bytes_of(recipe: Recipe, samples: int, item: int) -> dict[str, int]:
    found = {}
    for group in recipe.groups:
        total = sum(block.numel for block in group.blocks) or 1
        for block in group.blocks:
            found[block.name] = group.floats(recipe.r) * item * samples * block.numel // total
    return found
