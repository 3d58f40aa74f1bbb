"""Refuses networks whose samples are not independent or whose outputs are random."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.outputs import logits_of
from tangrams.features.tangent import generic
from tangrams.features.tangent.spec import TangentSpec


def independent_and_deterministic(
    spec: TangentSpec, model: nn.Module, probe: Inputs, whole: Tensor, precision: torch.dtype
) -> tuple[float, float]:
    """Compare the outputs of a few samples with those of the same samples again, alone, and in another order.

    Args:
        spec: the network, outputs and parameters.
        model: the network, in a session.
        probe: the samples.
        whole: the functions' values there.
        precision: the narrowest dtype that the network computes in.

    Returns:
        The size of what may have cancelled in the outputs, and in their gradients, for later comparisons.

    Raises:
        TangentError: if they differ, or if the network rewrites its own weights; the message names the module.
    """
    name = type(model).__name__
    scale, inside = _scales(model, probe, whole, precision)

    def values(inputs: Inputs) -> Tensor:
        return generic.outputs(model, spec.output, inputs).detach()

    if not agree(whole, values(probe), precision, scale):
        where = _first_difference(model, probe, probe, lambda t: t)
        raise TangentError(
            f"the outputs of {name} are random in eval mode{where}: make them deterministic, e.g. pass training="
            "self.training to functional dropout"
        )
    alone = [torch.tensor([i]) for i in range(probe.n)]
    for order in (*alone, torch.arange(probe.n).roll(2).flip(0)):
        chosen = probe.take(order)
        try:
            again = values(chosen)
        except Exception as error:
            raise TangentError(
                f"{name} answers {probe.n} samples but not one alone ({error}): its samples are coupled and per-sample "
                "gradients are not defined"
            ) from error
        if not agree(whole[order.to(whole.device)], again, precision, scale):
            where = _first_difference(model, probe, chosen, lambda t, order=order: t[order.to(t.device)])
            raise TangentError(
                f"the samples of {name} are coupled: a sample's output changes with the rest of the batch{where}, so "
                "per-sample gradients are not defined. Samples are not independent under normalisation by batch "
                "statistics or reductions over the batch"
            )
    return scale, inside


def _scales(model: nn.Module, probe: Inputs, whole: Tensor, precision: torch.dtype) -> tuple[float, float]:
    """The size of what may have cancelled in the functions: the network's largest output; and inside it, a layer's.

    Where the outputs are nothing but the rounding of the layers', both are the layers'.
    """
    try:
        outputs = logits_of(probe.call(model)).detach()
    except TypeError:
        outputs = whole
    scale = max(_largest(outputs), _largest(whole))
    inside = max([scale, *(_largest(value) for _, _, value in _trace(model, probe))])
    return inside if scale <= _tolerance(precision) * inside else scale, inside


def _largest(values: Tensor) -> float:
    """The largest finite absolute value."""
    sizes = values[torch.isfinite(values)].abs()
    return sizes.max().item() if sizes.numel() else 0.0


def _tolerance(precision: torch.dtype) -> float:
    return min(500 * torch.finfo(precision).eps, 0.05)


def refuse_rewriting(model: nn.Module) -> None:
    """Refuse layers whose forward changes their weights.

    Raises:
        TangentError: if there is one.
    """
    for path, module in model.named_modules():
        if isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None:
            raise TangentError(
                f"{path or 'the model'} ({type(module).__name__}) of {type(model).__name__} has max_norm: its forward "
                "rewrites the weight. Renormalise once and set max_norm=None"
            )


def agree(a: Tensor, b: Tensor, precision: torch.dtype | None = None, scale: float = 0.0) -> bool:
    """Whether two evaluations of the network agree up to the rounding of another batch size.

    Args:
        a: one.
        b: the other.
        precision: the narrowest dtype that went into them; their own by default.
        scale: the size of what may have cancelled in them.
    """
    if a.shape != b.shape:
        return False
    if a.numel() == 0:
        return True
    tolerance = _tolerance(precision or a.dtype)
    error = (a - b).abs().amax().item()
    if math.isfinite(error):
        return error <= tolerance * max(scale, a.abs().amax().item())
    a, b = a.double(), b.double()
    finite = torch.isfinite(a)
    if not torch.equal(finite, torch.isfinite(b)):
        return False
    if not bool(finite.any()):
        return True
    largest = torch.where(finite, a, 0).abs().max().item()
    return torch.where(finite, a - b, 0).abs().max().item() <= tolerance * max(scale, largest)


def _first_difference(model: nn.Module, one: Inputs, two: Inputs, change: Callable[[Tensor], Tensor]) -> str:
    """``" (first in 'layers.1' (BatchNorm2d))"`` from the leaf modules' outputs in two runs, or nothing."""
    first, second = _trace(model, one), _trace(model, two)
    for (path, kind, a), (other, _, b) in zip(first, second, strict=False):
        if path != other:
            break
        if a.ndim and b.ndim and len(a) and not (_comparable(a, b, change) and agree(change(a), b)):
            return f" (first in {path!r}, a {kind})"
    return ""


def _comparable(a: Tensor, b: Tensor, change: Callable[[Tensor], Tensor]) -> bool:
    try:
        return change(a).shape == b.shape
    except (IndexError, RuntimeError):
        return False


def _trace(model: nn.Module, inputs: Inputs) -> list[tuple[str, str, Tensor]]:
    records: list[tuple[str, str, Tensor]] = []

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def record(module: nn.Module, _: Any, returned: Any) -> None:
            try:
                value = logits_of(returned)
            except TypeError:
                return
            if value.is_floating_point():
                records.append((path, type(module).__name__, value.detach().clone()))

        return record

    leaves = [(path, m) for path, m in model.named_modules() if path and not any(True for _ in m.children())]
    handles = [module.register_forward_hook(hook(path)) for path, module in leaves]
    try:
        inputs.call(model)
    finally:
        for handle in handles:
            handle.remove()
    return records
