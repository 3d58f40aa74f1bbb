"""Exact Gram matrices of tangent features without Jacobians: extract factors, contract them tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.tangent import check, generic
from tangrams.features.tangent.capture import Capture
from tangrams.features.tangent.consumers import Consumer
from tangrams.features.tangent.groups import Factors, Generic, Group, Identity
from tangrams.features.tangent.plan import Plan, make_plan
from tangrams.features.tangent.recipe import Recipe, Restructured, recipe_for, without_structure
from tangrams.features.tangent.spec import TangentSpec
from tangrams.features.tangent.tile import Tile, mirror
from tangrams.features.tangent.workspace import Workspace

ATTEMPTS = 8
"""How often routes may be changed after a failed check before giving up."""

_CHANGES = "the graph changes from batch to batch"


@dataclass
class _Side:
    """One side of a Gram matrix: its samples and how to read their graph."""

    inputs: Inputs
    recipe: Recipe


def gram(spec: TangentSpec, left: Inputs, right: Inputs | None = None) -> Tensor:
    """``Φ(left) Φ(right)ᵀ``, sample-major, in the network's dtype; with itself when ``right`` is absent."""
    functions = 1 if spec.output.folds else None
    if left.n == 0 or (right is not None and right.n == 0):
        r = functions or spec.num_outputs or 1
        shape = (left.n * r, (left if right is None else right).n * r)
        return torch.zeros(shape, dtype=spec.ref.dtype, device=spec.ref.device)
    for _ in range(ATTEMPTS):
        with spec.ref.session() as model, spec.workspace.frame() as workspace:
            recipe = recipe_for(spec, model, left)
            sides = [_Side(left, recipe)]
            if right is not None:
                sides.append(_Side(right, recipe_for(spec, model, right)))
                _agree(spec, sides)
            try:
                plan = make_plan(spec, sides[0].recipe, left.n, None if right is None else right.n)
                result = _Computation(spec, model, plan, sides, workspace).run()
                break
            except Restructured:
                blocks = [b.name for b in spec.parameters.blocks]
                for side in sides:
                    without_structure(spec, side.inputs, blocks, _CHANGES)
            except check.CheckFailed as failure:
                check.reroute(spec, [side.inputs for side in sides], failure)
    else:
        raise TangentError(f"no route through {type(spec.ref.model).__name__} passed the check against plain autograd")
    return _narrow(spec, result, left, right)


def diag(spec: TangentSpec, inputs: Inputs) -> Tensor:
    """Squared norms of the rows, ``(n, r)``, without the rows where a layer's structure allows."""
    for _ in range(ATTEMPTS):
        with spec.ref.session() as model, spec.workspace.frame() as workspace:
            recipe = recipe_for(spec, model, inputs)
            try:
                norms = _norms(spec, model, recipe, inputs, workspace)
                break
            except Restructured:
                names = [block.name for block in spec.parameters.blocks]
                without_structure(spec, inputs, names, _CHANGES)
            except check.CheckFailed as failure:
                check.reroute(spec, [inputs], failure)
    else:
        raise TangentError(f"no route through {type(spec.ref.model).__name__} passed the check against plain autograd")
    if not bool(torch.isfinite(norms).all()):
        check.refuse_not_finite(spec, inputs, (~torch.isfinite(norms)).any(1).nonzero().flatten())
    return norms


def _norms(spec: TangentSpec, model: nn.Module, recipe: Recipe, inputs: Inputs, workspace: Workspace) -> Tensor:
    plan = make_plan(spec, recipe, inputs.n)
    size = min(
        plan.batch_size, max(1, spec.memory_budget // (4 * max(1, sum(g.floats(recipe.r) for g in recipe.groups)) * 8))
    )
    found = []
    for start in range(0, inputs.n, size):
        batch = inputs.slice(start, min(start + size, inputs.n))
        computation = _Computation(spec, model, replace(plan, batch_size=size), [_Side(batch, recipe)], workspace)
        with workspace.scope():
            stores = computation.extract(recipe.groups)
            if start == 0 or spec.check == "full":
                computation.verifier.groups(0, recipe.groups, stores)
                computation.verifier.settle()
            norms = workspace.empty(recipe.r, batch.n, dtype=spec.dtype, device=spec.ref.device).zero_()
            for store in stores:
                norms += store.norms(slice(0, batch.n))
            found.append(norms.mT.clone())
    return torch.cat(found)


def _agree(spec: TangentSpec, sides: Sequence[_Side]) -> None:
    """Both sides must hold the same kinds of factors; where they cannot, every parameter is materialised plainly."""
    shapes = [[(type(g), tuple(b.name for b in g.blocks), g.floats(1)) for g in s.recipe.groups] for s in sides]
    if shapes[0] == shapes[1]:
        return
    kinds = [[(type(g), tuple(b.name for b in g.blocks)) for g in s.recipe.groups] for s in sides]
    positional = {"pairs", "tokens"}
    if kinds[0] == kinds[1] and not any(g.route in positional for g in sides[0].recipe.groups):
        return
    names = [block.name for block in spec.parameters.blocks]
    for side in sides:
        side.recipe = without_structure(spec, side.inputs, names, "the two sides have different structure")


def _narrow(spec: TangentSpec, result: Tensor, left: Inputs, right: Inputs | None) -> Tensor:
    """In the network's dtype; refuse what is not finite."""
    narrow = result.to(spec.ref.dtype)
    if bool(torch.isfinite(narrow.sum())) or bool(torch.isfinite(narrow).all()):
        return narrow
    functions = 1 if spec.output.folds else spec.num_outputs or 1
    bad = ~torch.isfinite(result)
    check.refuse_not_finite(spec, left, torch.unique(bad.all(1).nonzero().flatten() // functions))
    if right is not None:
        check.refuse_not_finite(spec, right, torch.unique(bad.all(0).nonzero().flatten() // functions))
    else:
        check.refuse_not_finite(spec, left, torch.unique(bad.diagonal().nonzero().flatten() // functions))
    raise TangentError(
        f"the Gram matrix of {type(spec.ref.model).__name__} has entries beyond the range of "
        f"{str(spec.ref.dtype).removeprefix('torch.')}: scale the outputs down or use a wider dtype"
    )


class _Computation:
    """One attempt at a Gram matrix along a plan."""

    def __init__(
        self, spec: TangentSpec, model: nn.Module, plan: Plan, sides: Sequence[_Side], workspace: Workspace
    ) -> None:
        self.spec, self.model, self.plan, self.sides, self.workspace = spec, model, plan, sides, workspace
        self.symmetric = len(sides) == 1
        self.r = plan.outputs
        self.folds = spec.output.folds
        self.functions = 1 if self.folds else self.r
        self.device = spec.ref.device
        self.rows, self.columns = sides[0].inputs.n, sides[-1].inputs.n
        self.verifier = check.Verifier(spec, model, [side.inputs for side in sides], sides[0].recipe)

    def allocate(self, *shape: int) -> Tensor:
        """Room in the workspace."""
        return self.workspace.empty(*shape, dtype=self.spec.dtype, device=self.device)

    def run(self) -> Tensor:
        """The matrix, sample-major."""
        f = self.functions
        result = torch.empty(self.rows * f, self.columns * f, dtype=self.spec.dtype, device=self.device)
        for turn, groups in enumerate(self.plan.groups):
            if self.plan.streamed:
                self._stream(groups, result)
                continue
            with self.workspace.scope():
                stores = [self._extract(number, groups) for number in range(len(self.sides))]
                for side, store in enumerate(stores):
                    self.verifier.groups(side, groups, store)
                self._contract(stores[0], stores[-1], result, first=turn == 0)
        whole = self.functions > 1 and self.plan.panel >= self.rows
        if self.symmetric and not whole:  # a single tile of several functions was mirrored before it was placed
            mirror(result)
        self.verifier.total(result)
        return result

    def _stream(self, groups: Sequence[Group], result: Tensor) -> None:
        """One batch, one function: layer by layer out of the graph, nothing stored."""
        (side,) = self.sides
        n = side.inputs.n
        result.zero_()
        tile = Tile(result, 1, self.folds, True)
        wanted = _wanted(groups)
        consumers: Sequence[Consumer] = ()
        gradients: Mapping[int, Tensor] = {}
        if wanted:
            capture = Capture(self.spec, self.model, side.recipe, side.inputs, wanted)
            consumers, gradients = capture.consumers, capture.gradients(0)
            self.verifier.values(0, capture.values)
        for group in groups:
            with self.workspace.scope():
                factors = group.factors(n, 1, self.allocate)
                if isinstance(group, Generic):
                    self._generic(group, factors, side.inputs, slice(0, n))
                else:
                    with torch.no_grad():
                        factors.fill(0, slice(0, n), consumers, gradients)
                factors.add(factors, slice(0, n), slice(0, n), tile)
                self.verifier.groups(0, [group], [factors])
            for k in group.consumers:
                consumers[k].release()

    def extract(self, groups: Sequence[Group]) -> list[Factors]:
        """The factors of the rows' samples."""
        return self._extract(0, groups)

    def _extract(self, number: int, groups: Sequence[Group]) -> list[Factors]:
        """Factors of all samples, batch by batch and function by function."""
        side = self.sides[number]
        n = side.inputs.n
        stores = [group.factors(n, self.r, self.allocate) for group in groups]
        wanted = _wanted(groups)
        known = [k for k in wanted if all(isinstance(g, Identity) for g in groups if k in g.consumers)]
        for start in range(0, n, self.plan.batch_size):
            where = slice(start, min(start + self.plan.batch_size, n))
            batch = side.inputs.slice(where.start, where.stop)
            with self.workspace.scope():
                capture = None
                if wanted:
                    capture = Capture(self.spec, self.model, side.recipe, batch, wanted, known)
                    if start == 0:
                        self.verifier.values(number, capture.values)
                for c in range(self.r):
                    gradients = {} if capture is None else capture.gradients(c)
                    with torch.no_grad():
                        for group, store in zip(groups, stores, strict=True):
                            if not isinstance(group, Generic):
                                store.fill(c, where, () if capture is None else capture.consumers, gradients)
                for group, store in zip(groups, stores, strict=True):
                    if isinstance(group, Generic):
                        self._generic(group, store, batch, where)
        return stores

    def _generic(self, group: Generic, store: Factors, batch: Inputs, where: slice) -> None:
        try:
            rows = generic.rows(self.model, self.spec, group.blocks, batch, by_loop=group.by_loop)
        except generic.CannotTransform as error:
            names = self.sides[0].recipe.generic
            raise check.CheckFailed(names, f"torch.func cannot run it: {error}") from error
        store.rows[:, where] = rows.transpose(0, 1)  # type: ignore[attr-defined]

    def _contract(self, left: Sequence[Factors], right: Sequence[Factors], result: Tensor, *, first: bool) -> None:
        """Row panels of the result; of a symmetric one the lower triangle."""
        for rows, columns in self._panels():
            height, width = rows.stop - rows.start, columns.stop
            symmetric = self.symmetric and height == width
            with self.workspace.scope():
                direct = self.functions == 1
                if direct:
                    out = result[rows, columns]
                else:
                    out = self.allocate(self.functions * height, self.functions * width)
                if first or not direct:
                    out.zero_()
                tile = Tile(out, self.r, self.folds, symmetric)
                for mine, theirs in zip(left, right, strict=True):
                    mine.add(theirs, rows, columns, tile)
                if symmetric and not direct:
                    mirror(out)
                if not direct:
                    self._place(out, rows, columns, result, first=first)

    def _panels(self) -> Iterator[tuple[slice, slice]]:
        for start in range(0, self.rows, self.plan.panel):
            stop = min(start + self.plan.panel, self.rows)
            yield slice(start, stop), slice(0, stop if self.symmetric else self.columns)

    def _place(self, tile: Tensor, rows: slice, columns: slice, result: Tensor, *, first: bool) -> None:
        """From function-major to sample-major."""
        f = self.functions
        source = tile.view(f, rows.stop - rows.start, f, columns.stop).permute(1, 0, 3, 2)
        target = result.view(self.rows, f, self.columns, f)[rows, :, columns]
        if first:
            target.copy_(source)
        else:
            target += source


def _wanted(groups: Sequence[Group]) -> list[int]:
    return sorted({k for group in groups for k in group.consumers})
