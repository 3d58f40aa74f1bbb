"""Computes tangent rows batch by batch."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.tangent import generic
from tangrams.features.tangent.plan import Plan
from tangrams.features.tangent.spec import TangentSpec


def outputs_per_sample(spec: TangentSpec, inputs: Inputs) -> int:
    """r, the number of functions of a sample, from the network's answer at the first one."""
    if inputs.n == 0:
        return spec.num_outputs or 1
    with spec.ref.session() as model, torch.no_grad():
        r = generic.outputs(model, spec.output, inputs.slice(0, 1)).shape[1]
    spec.meet(r)
    return r


def dense_batches(spec: TangentSpec, inputs: Inputs) -> Iterator[Tensor]:
    """Rows ``(b, r, p)`` of successive batches of samples."""
    size = spec.batch_size or 16
    for start in range(0, inputs.n, size):
        batch = inputs.slice(start, min(start + size, inputs.n))
        with spec.ref.session() as model:
            rows = _rows(spec, model, batch)
        if not bool(torch.isfinite(rows).all()):
            _name_not_finite(spec, rows, start)
        yield rows


def _rows(spec: TangentSpec, model: torch.nn.Module, batch: Inputs) -> Tensor:
    parameters = spec.parameters.tensors(model)
    blocks = spec.parameters.blocks
    try:
        rows = generic.rows_by_vmap(model, spec.output, parameters, blocks, batch).detach()
    except Exception:
        return generic.rows_by_loop(model, spec.output, parameters, blocks, batch).detach()
    exact = generic.rows_by_loop(model, spec.output, parameters, blocks, batch.slice(0, 1)).detach()
    if torch.allclose(rows[:1], exact, rtol=1e-4, atol=1e-6, equal_nan=True):
        return rows
    return generic.rows_by_loop(model, spec.output, parameters, blocks, batch).detach()


def _name_not_finite(spec: TangentSpec, rows: Tensor, start: int) -> None:
    bad = ~torch.isfinite(rows).all(1)
    for block in spec.parameters.blocks:
        samples = bad[:, block.start : block.stop].any(1).nonzero().flatten() + start
        if len(samples):
            raise TangentError(f"the gradient of {block.name!r} is not finite at samples {samples.tolist()[:8]}")


def plan(spec: TangentSpec, inputs: Inputs) -> Plan:
    """The plan of a Gram matrix of these samples."""
    names = [block.name for block in spec.parameters.blocks]
    r = outputs_per_sample(spec, inputs)
    size = spec.batch_size or 16
    each = inputs.n * r * spec.ref.dtype.itemsize
    return Plan(
        samples=inputs.n,
        outputs=r,
        batch_size=size,
        passes=1,
        panel=inputs.n,
        bytes=each * spec.parameters.numel,
        budget=spec.memory_budget,
        routes=dict.fromkeys(names, "vmap"),
        bytes_of={block.name: each * block.numel for block in spec.parameters.blocks},
        reasons={},
    )
