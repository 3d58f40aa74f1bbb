"""Dense tangent rows, a few samples and one function at a time, in memory that is used again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.parameters import Block
from tangrams.features.tangent import check, generic
from tangrams.features.tangent.capture import Capture
from tangrams.features.tangent.consumers import Consumer
from tangrams.features.tangent.groups import add_uses
from tangrams.features.tangent.recipe import Recipe, Restructured, recipe_for, without_structure
from tangrams.features.tangent.spec import TangentSpec
from tangrams.features.tangent.workspace import Workspace

Visit = Callable[[slice, int, Tensor], None]
"""``(samples, function, rows (b, p))``; the rows are overwritten afterwards."""

_PANEL_BYTES = 32 << 20
_ROWS = 16


def visit_rows(spec: TangentSpec, inputs: Inputs, visit: Visit) -> None:
    """Hand every sample's rows to ``visit``, panel by panel.

    Args:
        spec: the network, outputs and parameters.
        inputs: the samples.
        visit: is given panels of rows in the dtype of inner products.

    Raises ``TangentError`` if no route passes the check, or a gradient is not finite.
    """
    if inputs.n == 0:
        return
    with spec.ref.session() as model, spec.workspace.frame() as workspace:
        recipe = verified(spec, model, inputs, workspace)
        probe = check.Probe(spec, model, inputs, recipe.r, 1) if spec.check == "full" else None
        sums = None if probe is None else _Sums(spec, probe, recipe)
        for panel in panels(spec, model, recipe, inputs, workspace):
            with torch.no_grad():
                refuse_not_finite(spec, inputs, panel.where, panel.rows)
                if sums is not None:
                    sums.add(panel.where, panel.function, panel.rows)
                visit(panel.where, panel.function, panel.rows)
        if sums is not None:
            _fail(spec, sums)


def panel_samples(spec: TangentSpec) -> int:
    """Samples whose rows are held at once: about sixteen, fewer for a large network, more for a small one."""
    if spec.batch_size is not None:
        return spec.batch_size
    line = spec.parameters.numel * spec.dtype.itemsize
    return max(1, min(max(_ROWS, _PANEL_BYTES // line), spec.memory_budget // (4 * line), 256))


@dataclass(frozen=True)
class Panel:
    """The rows of a few samples for one function.

    Attributes:
        where: the samples.
        function: c.
        rows: ``(b, p)``, overwritten by the next panel; columns of the parameters in ``outer`` hold anything.
        outer: parameter → the two factors of its rows, where they were asked for.
    """

    where: slice
    function: int
    rows: Tensor
    outer: Mapping[str, tuple[Tensor, Tensor]]


def panels(
    spec: TangentSpec,
    model: nn.Module,
    recipe: Recipe,
    inputs: Inputs,
    workspace: Workspace,
    *,
    factored: bool = False,
) -> Iterator[Panel]:
    """All samples' rows, panel by panel.

    Args:
        spec: the network, outputs and parameters.
        model: the network, in a session.
        recipe: where the samples lie.
        inputs: the samples.
        workspace: where panels are held.
        factored: whether parameters whose rows are sums of outer products come as their factors.

    Yields:
        The panels, functions innermost.

    Raises ``Restructured`` or ``CheckFailed`` if the first batch does not follow the recipe.
    """
    size = min(panel_samples(spec), inputs.n)
    wanted = sorted({k for uses in recipe.uses.values() if uses is not None for k, _ in uses})
    plain = [block for block in spec.parameters.blocks if recipe.uses[block.name] is None]
    fast = [block for block in plain if block.name not in recipe.loops]
    slow = [block for block in plain if block.name in recipe.loops]
    for start in range(0, inputs.n, size):
        where = slice(start, min(start + size, inputs.n))
        batch = inputs.slice(where.start, where.stop)
        with workspace.scope():
            panel = workspace.empty(batch.n, spec.parameters.numel, dtype=spec.dtype, device=spec.ref.device)
            others: list[tuple[list[Block], Tensor]] = []
            try:
                for blocks, by_loop in ((fast, False), (slow, True)):
                    if blocks:
                        others.append((blocks, _generic(model, spec, blocks, batch, by_loop=by_loop)))
                capture = Capture(spec, model, recipe, batch, wanted) if wanted else None
            except (Restructured, check.CheckFailed):
                if start == 0:
                    raise
                capture = None  # this batch takes another way through the network: plain autograd follows it
                blocks = list(spec.parameters.blocks)
                others = [(blocks, _generic(model, spec, blocks, batch, by_loop=True))]
            for c in range(recipe.r):
                gradients = {} if capture is None else capture.gradients(c)
                consumers = [] if capture is None else capture.consumers
                outer: dict[str, tuple[Tensor, Tensor]] = {}
                with torch.no_grad():
                    for block in spec.parameters.blocks:
                        uses = recipe.uses[block.name]
                        if uses is None or capture is None:
                            continue
                        if factored and len(uses) == 1:
                            ((k, slot),) = uses
                            factors = consumers[k].outer(slot, gradients[k])
                            if factors is not None:
                                outer[block.name] = factors
                                continue
                        _write(panel, block, uses, consumers, gradients, workspace)
                for blocks, rows in others:
                    offset = 0
                    for block in blocks:
                        panel[:, block.start : block.stop] = rows[:, c, offset : offset + block.numel]
                        offset += block.numel
                yield Panel(where, c, panel, outer)


def _write(
    panel: Tensor,
    block: Block,
    uses: Sequence[tuple[int, int]],
    consumers: Sequence[Consumer],
    gradients: Mapping[int, Tensor],
    workspace: Workspace,
) -> None:
    with workspace.scope():
        rows = workspace.empty(len(panel), block.numel, dtype=panel.dtype, device=panel.device)
        add_uses(uses, rows, consumers, gradients)
        panel[:, block.start : block.stop] = rows


def _generic(model: nn.Module, spec: TangentSpec, blocks: list[Block], batch: Inputs, *, by_loop: bool) -> Tensor:
    try:
        return generic.rows(model, spec, blocks, batch, by_loop=by_loop)
    except generic.CannotTransform as error:
        raise check.CheckFailed([b.name for b in blocks], f"torch.func cannot run it: {error}") from error


class _Sums:
    """``Σ w_ic J_ic`` and its size, by parameter, gathered from panels."""

    def __init__(self, spec: TangentSpec, probe: check.Probe, recipe: Recipe) -> None:
        self.spec, self.probe, self.recipe = spec, probe, recipe
        self.tolerance, self.noise = check.tolerances(spec, recipe)
        self.total = torch.zeros(spec.parameters.numel, dtype=spec.dtype, device=spec.ref.device)
        self.size = dict.fromkeys((block.name for block in spec.parameters.blocks), 0.0)

    def add(self, where: slice, c: int, rows: Tensor) -> None:
        weights = self.probe.weights[c, where]
        self.total.addmv_(rows.mT, weights)
        for block in self.spec.parameters.blocks:
            norms = torch.linalg.vector_norm(rows[:, block.start : block.stop], dim=1)
            self.size[block.name] += float((weights.abs() * norms).sum())

    def failed(self) -> dict[str, float]:
        """Parameter → its error relative to its size, where it is too large."""
        floor = self.noise * sum(self.size.values())
        bad = {}
        for block in self.spec.parameters.blocks:
            difference = self.total[block.start : block.stop] - self.probe.gradient[block.name]
            error = float(torch.linalg.vector_norm(difference))
            allowed = self.tolerance * self.size[block.name] + floor
            if error > allowed and block.name in self.recipe.loops:  # may be nothing but rounding
                allowed += check.vanishing(self.spec, self.recipe, self.probe.weights)
            if error > allowed:
                bad[block.name] = error / max(self.size[block.name], 1e-300)
        return bad


def _fail(spec: TangentSpec, sums: _Sums) -> None:
    bad = sums.failed()
    if bad:
        name, error = next(iter(bad.items()))
        raise TangentError(
            f"the rows of {type(spec.ref.model).__name__} do not add up to the gradient of the batch for {name!r} "
            f"(off by {error:.1e} of their size): its graph or its samples' gradients depend on the batch"
        )


def verified(spec: TangentSpec, model: nn.Module, inputs: Inputs, workspace: Workspace) -> Recipe:
    """The recipe, after its rows for the first samples added up to plain autograd's gradient once for these weights."""
    for _ in range(6):
        recipe = recipe_for(spec, model, inputs)
        key = (inputs.signature(), spec.ref.versions())
        if spec.verified.get(key) is recipe:
            return recipe
        few = inputs.slice(0, check.sample_size(inputs.n))
        probe = check.Probe(spec, model, few, recipe.r, 1, whole=True)
        sums = _Sums(spec, probe, recipe)
        try:
            for panel in panels(spec, model, recipe, few, workspace):
                with torch.no_grad():
                    refuse_not_finite(spec, few, panel.where, panel.rows)
                    sums.add(panel.where, panel.function, panel.rows)
            bad = sums.failed()
            if bad:
                raise check.CheckFailed(list(bad), f"off by {max(bad.values()):.1e} of its size")
        except Restructured:
            names = [block.name for block in spec.parameters.blocks]
            without_structure(spec, inputs, names, "the graph changes from batch to batch")
        except check.CheckFailed as failure:
            check.reroute(spec, [inputs], failure)
        else:
            spec.verified.clear()
            spec.verified[key] = recipe
            return recipe
    raise TangentError(f"no route through {type(model).__name__} passed the check against plain autograd")


def refuse_not_finite(spec: TangentSpec, inputs: Inputs, where: slice, rows: Tensor) -> None:
    """Name the parameters and samples of rows (or of their sketches) that are not finite.

    Args:
        spec: the network, outputs and parameters.
        inputs: all samples.
        where: those of the rows.
        rows: what is looked at.

    Raises:
        TangentError: if a gradient is not finite.
    """
    if bool(torch.isfinite(rows.sum())):
        return
    bad = (~torch.isfinite(rows)).any(1).nonzero().flatten() + where.start
    if len(bad):
        check.refuse_not_finite(spec, inputs, bad)
        raise TangentError(f"the gradients of {type(spec.ref.model).__name__} are not finite at samples {bad.tolist()}")
