"""Products with the Jacobian, without its rows: one VJP or JVP per batch and column."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.tangent import generic
from tangrams.features.tangent.dense import visit_rows
from tangrams.features.tangent.recipe import recipe_for
from tangrams.features.tangent.spec import TangentSpec

_BATCH_BYTES = 64 << 20


def transposed_product(spec: TangentSpec, inputs: Inputs, u: Tensor) -> Tensor:
    """``Jᵀ u``: ``(n, r, k)`` → ``(p, k)``, or ``(r p, k)`` where functions share a row; plain reverse mode.

    Raises ``TangentError`` if the product is not finite although ``u`` is.
    """
    p, k = spec.parameters.numel, u.shape[-1]
    functions = u.shape[1]
    with spec.ref.session() as model:
        recipe = recipe_for(spec, model, inputs)
        out = torch.zeros(functions if spec.output.folds else 1, p, k, dtype=spec.dtype, device=spec.ref.device)
        parameters = list(spec.weights().values())
        for where, batch in _batches(spec, inputs, recipe.floats):
            values = generic.outputs(model, spec.output, batch)
            for j in range(k):
                for c in range(len(out)):
                    if recipe.reentrant and (j or c):  # its graph can be run backward only once
                        values = generic.outputs(model, spec.output, batch)
                    cotangent = u[where, :, j].to(values)
                    if spec.output.folds:
                        cotangent = torch.zeros_like(values)
                        cotangent[:, c] = u[where, c, j].to(values)
                    found = generic.gradients((values * cotangent).sum(), parameters, model)
                    out[c, :, j] += _flat(spec, found)
    if not bool(torch.isfinite(out).all()) and bool(torch.isfinite(u).all()):
        _refuse_not_finite(spec, inputs)
    return out.reshape(-1, k) / (math.sqrt(functions) if spec.output.folds else 1)


def forward_product(spec: TangentSpec, inputs: Inputs, v: Tensor) -> Tensor | None:
    """``J v``: ``(p, k)`` → ``(n, r, k)`` by forward mode; None where the network has no forward mode.

    It is believed only if ``⟨u, J v⟩ = ⟨Jᵀ u, v⟩`` for a random u on the first samples.
    """
    key = inputs.signature()
    if key in spec.no_forward_mode:
        return None
    with spec.ref.session() as model:
        recipe = recipe_for(spec, model, inputs)
        out = torch.empty(inputs.n, recipe.r, v.shape[1], dtype=spec.dtype, device=spec.ref.device)
        parameters = spec.weights()
        try:
            for where, batch in _batches(spec, inputs, recipe.floats):
                for j in range(v.shape[1]):
                    out[where, :, j] = _push(spec, model, parameters, batch, v[:, j])
        except Exception:  # forward mode has no common base for "no derivative is implemented"
            spec.no_forward_mode.add(key)
            return None
    if not bool(torch.isfinite(out).all()) and bool(torch.isfinite(v).all()):
        _refuse_not_finite(spec, inputs)
    few = inputs.slice(0, min(16, inputs.n))
    generator = torch.Generator().manual_seed(0)
    u = torch.randn(few.n, recipe.r, 1, generator=generator).to(out)
    pulled = transposed_product(spec, few, u) if not spec.output.folds else None
    if pulled is None:
        return out
    left, right = (u * out[: few.n]).sum((0, 1)), (pulled.mT @ v).squeeze(0)
    size = torch.linalg.vector_norm(pulled) * torch.linalg.vector_norm(v, dim=0)
    if bool(((left - right).abs() > 1e3 * torch.finfo(spec.ref.dtype).eps * size).any()):
        spec.no_forward_mode.add(key)
        return None
    return out


def _refuse_not_finite(spec: TangentSpec, inputs: Inputs) -> None:
    """Look at the rows, which name the samples."""
    visit_rows(spec, inputs, lambda where, function, rows: None)
    raise TangentError(f"a product with the gradients of {type(spec.ref.model).__name__} is not finite")


def _batches(spec: TangentSpec, inputs: Inputs, floats: int):  # type: ignore[no-untyped-def]
    size = spec.batch_size or max(1, min(spec.memory_budget // 4, _BATCH_BYTES) // max(1, 8 * floats))
    for start in range(0, inputs.n, size):
        where = slice(start, min(start + size, inputs.n))
        yield where, inputs.slice(where.start, where.stop)


def _flat(spec: TangentSpec, gradients: list[Tensor]) -> Tensor:
    by_name = dict(zip(spec.parameters.names, gradients, strict=True))
    return torch.cat([b.assemble([by_name[name].reshape(-1) for name in b.members]) for b in spec.parameters.blocks])


def _push(spec: TangentSpec, model: nn.Module, parameters: dict[str, nn.Parameter], batch: Inputs, v: Tensor) -> Tensor:
    tangents = {}
    for block in spec.parameters.blocks:
        piece = v[block.start : block.stop]
        for name, position in zip(block.members, block.positions, strict=True):
            own = piece if position is None else piece[position.to(piece.device)]
            tangents[name] = own.reshape(parameters[name].shape).to(parameters[name].dtype)

    def function(weights: dict[str, Tensor]) -> Tensor:
        returned = functional_call(model, weights, batch.args, batch.kwargs)
        return spec.output.select(returned, batch.targets, batch.n, type(model).__name__)

    detached = {name: parameter.detach() for name, parameter in parameters.items()}
    return jvp(function, (detached,), (tangents,))[1].detach()
