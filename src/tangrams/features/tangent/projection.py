"""Sketches of tangent rows by a sketch that takes outer products: a linear layer's rows are never formed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.tangent import check
from tangrams.features.tangent.dense import Panel, panels, refuse_not_finite, verified
from tangrams.features.tangent.spec import TangentSpec
from tangrams.operators.sketches.base import Sketch


def visit_projected(
    spec: TangentSpec, inputs: Inputs, sketch: Sketch, visit: Callable[[slice, int, Tensor], None]
) -> None:
    """Hand the sketch of every sample's rows to ``visit``: ``(samples, function, (b, k))``.

    The random sum of the first samples' sketches must be the sketch of the gradient of that sum by plain autograd.

    Args:
        spec: the network, outputs and parameters; outputs that do not fold.
        inputs: the samples.
        sketch: bound to the parameters' columns.
        visit: is given the sketches.

    Raises:
        TangentError: if a gradient is not finite, or the sketches fail the check.
    """
    with spec.ref.session() as model, spec.workspace.frame() as workspace:
        recipe = verified(spec, model, inputs, workspace)
        probe = check.Probe(spec, model, inputs, recipe.r, 1)
        found = torch.zeros(sketch.num_features, dtype=spec.dtype, device=spec.ref.device)
        size = 0.0
        for panel in panels(spec, model, recipe, inputs, workspace, factored=True):
            with torch.no_grad():
                piece = _sketched(spec, sketch, panel)
                refuse_not_finite(spec, inputs, panel.where, piece)
                weights = probe.weights[panel.function, panel.where]
                checked = piece[: len(weights)]
                found.addmv_(checked.mT, weights)
                size += float((weights.abs() * torch.linalg.vector_norm(checked, dim=1)).sum())
                visit(panel.where, panel.function, piece)
        gradient = probe.gradient
        with torch.no_grad():
            exact = found.new_zeros(1, sketch.num_features)
            for block in spec.parameters.blocks:
                sketch.accumulate(gradient[block.name][None], block.start, exact)
        tolerance, noise = check.tolerances(spec, recipe)
        error = float(torch.linalg.vector_norm(found - exact[0]))
        if error > (tolerance + noise) * size:
            raise TangentError(
                f"the sketched rows of {type(model).__name__} do not add up to the sketch of the batch's gradient (off "
                f"by {error / max(size, 1e-300):.1e} of their size): its samples' gradients depend on the batch"
            )


def _sketched(spec: TangentSpec, sketch: Sketch, panel: Panel) -> Tensor:
    piece = panel.rows.new_zeros(len(panel.rows), sketch.num_features)
    for start, stop in _written(spec, panel):
        sketch.accumulate(panel.rows[:, start:stop], start, piece)
    starts = {block.name: block.start for block in spec.parameters.blocks}
    for name, (left, right) in panel.outer.items():
        sketch.accumulate_outer(left, right, starts[name], piece)
    return piece


def _written(spec: TangentSpec, panel: Panel) -> Iterator[tuple[int, int]]:
    """Runs of columns that the panel holds itself.

    Yields:
        ``(start, stop)``
    """
    start = stop = 0
    for block in spec.parameters.blocks:
        if block.name in panel.outer or block.start != stop:
            if stop > start:
                yield start, stop
            start = block.start
        if block.name in panel.outer:
            start = block.stop
        stop = block.stop
    if stop > start:
        yield start, stop
