"""Per-sample gradients of any network: ``vmap`` of its gradient where that runs, a loop of autograd elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap

from tangrams.features.inputs import Inputs
from tangrams.features.outputs import Output, require_graph
from tangrams.features.parameters import Block
from tangrams.features.tangent.spec import TangentSpec


def outputs(model: nn.Module, output: Output, inputs: Inputs) -> Tensor:
    """The differentiated functions' values: ``(n, r)``."""
    return output.select(inputs.call(model), inputs.targets, inputs.n, type(model).__name__)


class CannotTransform(Exception):
    """``torch.func`` cannot run this network."""


class NoSecondDerivative(Exception):
    """Reentrant checkpointing: the gradient cannot be differentiated."""


def rows(model: nn.Module, spec: TangentSpec, blocks: Sequence[Block], inputs: Inputs, *, by_loop: bool) -> Tensor:
    """Rows ``(n, r, Σ numel)`` of some parameters, without a graph, in the dtype of inner products.

    Raises:
        CannotTransform: if ``torch.func`` fails and ``by_loop`` is not set.
    """
    parameters = spec.weights()
    if by_loop:
        recipe = spec.recipes.get(inputs.signature())
        once = recipe is not None and recipe.reentrant
        return rows_by_loop(model, spec.output, parameters, blocks, inputs, reentrant=once).detach().to(spec.dtype)
    try:
        return rows_by_vmap(model, spec.output, parameters, blocks, inputs).detach().to(spec.dtype)
    except Exception as error:  # torch.func has no common base for "this network cannot be transformed"
        raise CannotTransform(str(error)) from error


def rows_by_vmap(
    model: nn.Module, output: Output, parameters: dict[str, nn.Parameter], blocks: Sequence[Block], inputs: Inputs
) -> Tensor:
    """Rows ``(n, r, Σ numel)`` by ``vmap`` over samples of the reverse-mode Jacobian; differentiable.

    Raises whatever ``torch.func`` raises where the network cannot be transformed.
    """
    names = [name for block in blocks for name in block.members]
    chosen = {name: parameters[name] for name in names}
    tensors = inputs.tensors()

    def one(*sample: Tensor) -> tuple[Tensor, ...]:
        pieces = iter(sample)
        single = inputs.map(lambda _: next(pieces).unsqueeze(0))

        def function(weights: dict[str, Tensor]) -> Tensor:
            returned = functional_call(model, weights, single.args, single.kwargs)
            return output.select(returned, single.targets, 1, type(model).__name__).squeeze(0)

        values, pullback = vjp(function, chosen)[:2]
        basis = torch.eye(values.shape[0], dtype=values.dtype, device=values.device)
        gradients = vmap(pullback)(basis)[0]
        return tuple(gradients[name].reshape(values.shape[0], -1) for name in names)

    by_name = dict(zip(names, vmap(one)(*tensors), strict=True))
    return torch.cat([block.assemble([by_name[name] for name in block.members]) for block in blocks], dim=-1)


def rows_by_loop(
    model: nn.Module,
    output: Output,
    parameters: dict[str, nn.Parameter],
    blocks: Sequence[Block],
    inputs: Inputs,
    *,
    create_graph: bool = False,
    reentrant: bool = False,
) -> Tensor:
    """Rows ``(n, r, Σ numel)`` by plain autograd, one sample and one output at a time.

    Args:
        model: the network.
        output: which functions of it are differentiated.
        parameters: by name.
        blocks: with respect to what.
        inputs: the samples.
        create_graph: whether the rows can be differentiated.
        reentrant: whether a graph can be run backward only once.
    """
    names = [name for block in blocks for name in block.members]
    weights = [parameters[name] for name in names]
    samples = []
    for i in range(inputs.n):
        values = outputs(model, output, inputs.slice(i, i + 1))[0]
        require_graph(values, type(model).__name__)
        rows = []
        for c, value in enumerate(values):
            if c and reentrant:  # its graph can be run backward only once
                value = outputs(model, output, inputs.slice(i, i + 1))[0, c]
            found = gradients(value, weights, model, create_graph=create_graph)
            by_name = dict(zip(names, (g.reshape(-1) for g in found), strict=True))
            rows.append(torch.cat([b.assemble([by_name[name] for name in b.members]) for b in blocks]))
        samples.append(torch.stack(rows) if rows else values.new_zeros(0, sum(b.numel for b in blocks)))
    return torch.stack(samples)


def differentiable_rows(
    model: nn.Module, output: Output, parameters: dict[str, nn.Parameter], blocks: Sequence[Block], inputs: Inputs
) -> Tensor:
    """Rows by the loop with a graph; without one where the network has no second derivative."""
    try:
        return rows_by_loop(model, output, parameters, blocks, inputs, create_graph=True)
    except NoSecondDerivative:
        return rows_by_loop(model, output, parameters, blocks, inputs, reentrant=True).detach()


def gradients(
    value: Tensor,
    weights: list[nn.Parameter],
    model: nn.Module,
    *,
    create_graph: bool = False,
) -> list[Tensor]:
    """The gradient of a number by plain autograd; zeros where it does not depend on a weight."""
    try:
        found = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True, create_graph=create_graph)
    except RuntimeError as error:
        if ".grad()" not in str(error):
            raise
        if create_graph:
            raise NoSecondDerivative from error
        found = _gradients_by_backward(value, weights, model)
    return [
        torch.zeros_like(w) if g is None else g.to_dense() if g.is_sparse else g
        for g, w in zip(found, weights, strict=True)
    ]


def visit_gradients(
    values: Tensor, cotangent: Tensor, weights: dict[str, nn.Parameter], visit: Callable[[str, Tensor], None]
) -> bool:
    """Gradients by plain autograd, each handed to ``visit`` with its name and dropped; none that are not used.

    Args:
        values: what is differentiated,
        cotangent: summed with these weights.
        weights: by name.
        visit: is called as soon as a gradient is complete.

    Returns:
        Whether it went well: a backward pass started inside of this one hands out gradients in parts.
    """
    seen: list[str] = []

    def hook(name: str) -> Callable[[Tensor], Tensor]:
        def take(gradient: Tensor) -> Tensor:
            seen.append(name)
            visit(name, gradient.to_dense() if gradient.is_sparse else gradient)
            return gradient if gradient.is_sparse else gradient.new_zeros(()).expand_as(gradient)

        return take

    kept = [(p, p._backward_hooks) for p in weights.values()]
    try:
        for name, p in weights.items():
            p._backward_hooks = None
            p.register_hook(hook(name))
        torch.autograd.grad(values, list(weights.values()), cotangent, retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        if ".grad()" not in str(error):
            raise
        return False
    finally:
        for p, hooks in kept:
            p._backward_hooks = hooks
    return len(seen) == len(set(seen))


def _gradients_by_backward(value: Tensor, weights: list[nn.Parameter], model: nn.Module) -> list[Tensor | None]:
    """For reentrant checkpointing, which forbids ``autograd.grad``: ``backward`` into set-aside ``.grad`` fields."""
    everything = list(model.parameters())
    kept = [p.grad for p in everything]
    try:
        for p in everything:
            p.grad = None
        value.backward(retain_graph=True)
        return [w.grad for w in weights]
    finally:
        for p, grad in zip(everything, kept, strict=True):
            p.grad = grad
