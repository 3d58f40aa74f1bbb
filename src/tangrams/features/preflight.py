"""What a network is, before anything is computed with it: mode, samples, parameters, routes, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedTensorMixin  # pyright: ignore[reportAttributeAccessIssue]

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs, as_inputs
from tangrams.features.model_ref import ModelRef
from tangrams.features.outputs import Output, as_output, logits_of
from tangrams.features.parameters import Selection, select_parameters
from tangrams.features.tangent.features import TangentFeatures
from tangrams.features.tangent.plan import Plan

SAMPLES = 8
"""At most this many samples are run to look at the network."""

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Relative difference of outputs that rounding explains, by dtype; 5e-2 for the others."""


@dataclass(frozen=True)
class Preflight:
    """What :func:`preflight` found out.

    Attributes:
        network: its class.
        samples: n.
        inputs: shape, dtype and device of each input tensor.
        mode: ``"eval"``, ``"train"`` or ``"mixed"``.
        dtypes: of the parameters.
        devices: of the parameters.
        parameters: p, the number of feature columns: elements that require a gradient and were selected, once each.
        all_parameters: the number of elements of all parameters.
        tied: names that share memory, one tuple per piece of memory.
        frozen: parameters that do not require a gradient.
        unused: parameters among the selected that the outputs do not depend on.
        changed_buffers: buffers that forward writes to or replaces; every call of ours puts them back.
        output: what the network returns, in words.
        outputs: r, functions differentiated per sample; None if that could not be found out.
        deterministic: whether two passes over the same samples were equal; None if that could not be found out.
        independent: whether samples alone gave what they gave together; None if that could not be found out.
        plan: routes and memory of the Gram matrix; None if the network was refused.
        problems: why the network will be refused, or what its features would be wrong about; empty when it is ready.
    """

    network: str
    samples: int
    inputs: tuple[str, ...]
    mode: str
    dtypes: tuple[str, ...]
    devices: tuple[str, ...]
    parameters: int
    all_parameters: int
    tied: tuple[tuple[str, ...], ...]
    frozen: tuple[str, ...]
    unused: tuple[str, ...] = ()
    changed_buffers: tuple[str, ...] = ()
    output: str = "unknown"
    outputs: int | None = None
    deterministic: bool | None = None
    independent: bool | None = None
    plan: Plan | None = None
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing speaks against taking features."""
        return not self.problems

    def __str__(self) -> str:
        mode = self.mode if self.mode == "eval" else f"{self.mode} (features are taken in eval mode)"
        lines = [
            f"Preflight of {self.network} on {self.samples} samples",
            f"  inputs         {', '.join(self.inputs) or 'none'}",
            f"  mode           {mode}",
            f"  weights        {_some(self.dtypes)} on {_some(self.devices)}",
            f"  parameters     {self.parameters:,} of {self.all_parameters:,} are differentiated",
            f"  tied           {_some([' = '.join(names) for names in self.tied])}",
            f"  frozen         {_some(self.frozen)}",
            f"  unused         {_some(self.unused)}",
            f"  output         {self.output}" + ("" if self.outputs is None else f"; {self.outputs} rows a sample"),
            f"  deterministic  {_answer(self.deterministic)}",
            f"  independent    {_answer(self.independent)}",
            f"  buffers        {_some(self.changed_buffers)} changed by forward (and put back)",
        ]
        if self.plan is not None:
            lines += ["  plan           " + "\n  ".join(str(self.plan).splitlines())]
        lines += ["  ready" if self.ok else "  not ready:", *(f"    - {problem}" for problem in self.problems)]
        return "\n".join(lines)


def preflight(
    model: nn.Module,
    x: Any,
    *,
    output: str | Callable[..., Tensor] | Output = "all",
    params: Selection = None,
    memory_budget: int | str = "1GiB",
) -> Preflight:
    """Look at a network before taking its features; it never raises for what the network is or does.

    Runs at most 8 samples a few times, in eval mode, and leaves everything as it was.

    Args:
        model: the network.
        x: what it is called with, as for :class:`TangentFeatures`.
        output: what is differentiated.
        params: with respect to what.
        memory_budget: what the plan may use beyond its result.

    Returns:
        What was found; print it.

    Raises:
        TypeError: if ``model`` is no module; other bad arguments raise as in :class:`TangentFeatures`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"preflight expects an nn.Module, got {type(model).__name__}")
    inputs = as_inputs(x, "preflight").detached()
    chosen = as_output(output)
    report = _described(model, inputs, params)
    try:
        ref = ModelRef(model)
        _refuse_rewriting(ref.model)
        select_parameters(ref.model)  # whether there are any; those asked for are the caller's to get right
    except (TypeError, ValueError, TangentError) as error:
        return replace(report, problems=(*report.problems, str(error)))
    phi = TangentFeatures(ref, chosen, params, memory_budget=memory_budget)
    selected = phi.spec.parameters
    report = replace(report, parameters=selected.numel)
    if inputs.n:
        with ref.session() as network:
            found = dict(network.named_parameters(remove_duplicate=False))
            parameters = {name: found[name] for name in selected.names}
            report = _run(report, network, inputs.slice(0, SAMPLES), chosen, parameters)
    if not report.ok:
        return report
    try:
        return replace(report, plan=phi.plan(x))
    except Exception as error:  # a network may raise anything
        return replace(report, problems=(_first_line(error),))


def _described(model: nn.Module, inputs: Inputs, params: Selection) -> Preflight:
    """What can be said without calling the network."""
    modes = {module.training for module in model.modules()}
    parameters = dict(model.named_parameters())
    readable = {name: p for name, p in parameters.items() if not isinstance(p, UninitializedTensorMixin)}
    bad = [i for i, t in enumerate(inputs.tensors()) if t.is_floating_point() and not bool(torch.isfinite(t).all())]
    problems = [f"input tensor {i} is not finite at samples {_bad_samples(inputs.tensors()[i])}" for i in bad]
    return Preflight(
        network=type(model).__name__,
        samples=inputs.n,
        inputs=tuple(f"{tuple(t.shape)} {_short(t.dtype)} on {t.device}" for t in inputs.tensors()),
        mode="mixed" if len(modes) > 1 else "train" if modes.pop() else "eval",
        dtypes=tuple(sorted({_short(p.dtype) for p in readable.values()})),
        devices=tuple(sorted({str(p.device) for p in readable.values()})),
        parameters=sum(p.numel() for p in readable.values() if p.requires_grad),
        all_parameters=sum(p.numel() for p in readable.values()),
        tied=_tied(model),
        frozen=tuple(name for name, p in parameters.items() if not p.requires_grad),
        problems=tuple(problems),
    )


def _tied(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    """Names of one parameter, and of parameters over one storage."""
    groups: dict[Any, list[str]] = {}
    for name, p in model.named_parameters(remove_duplicate=False):
        opaque = isinstance(p, UninitializedTensorMixin) or p.is_meta or not p.numel()
        groups.setdefault(id(p) if opaque else p.untyped_storage().data_ptr(), []).append(name)
    return tuple(tuple(names) for names in groups.values() if len(names) > 1)


def _refuse_rewriting(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if getattr(module, "max_norm", None) is not None:
            raise TangentError(
                f"{name or 'the network'} ({type(module).__name__}) has max_norm: forward rewrites its weight"
            )


def _run(
    report: Preflight, network: nn.Module, inputs: Inputs, output: Output, parameters: dict[str, nn.Parameter]
) -> Preflight:
    """What running it tells: output, determinism, independence, use of parameters and buffers."""
    before = _buffers(network)
    problems = list(report.problems)
    try:
        returned = inputs.call(network)
        values = output.select(returned, inputs.targets, inputs.n)
        unused, trouble = _unused(values, parameters)
        report = replace(report, output=_kind(returned), outputs=values.shape[1], unused=unused)
        again = output.select(inputs.call(network), inputs.targets, inputs.n)
    except Exception as error:  # a network may raise anything
        return replace(report, problems=(*problems, f"{report.network}: {_first_line(error)}"))
    changed = tuple(
        name for name, (buffer, value) in _buffers(network).items() if _differs(before.get(name), buffer, value)
    )
    dtypes = {p.dtype for p in network.parameters()}
    deterministic = _close(values, again, dtypes)
    if not deterministic:
        cause = f"; forward changes the buffers {_some(changed)}" if changed else ""
        problems.append(f"{report.network} gives different outputs when called twice, in eval mode{cause}")
    finite = bool(torch.isfinite(values).all())
    if not finite:
        problems.append(f"{report.network} has outputs that are not finite at samples {_bad_samples(values)}")
    independent = None
    if deterministic:
        coupled = _coupled(network, inputs, output, values, dtypes)
        independent = not coupled
        if coupled:
            problems.append(f"{report.network} couples its samples, {coupled}: rows of a sample are not its own")
    problems += [f"{report.network}: {text}" for text in trouble]
    return replace(
        report,
        changed_buffers=changed,
        deterministic=deterministic,
        independent=independent,
        problems=tuple(problems),
    )


def _coupled(network: nn.Module, inputs: Inputs, output: Output, values: Tensor, dtypes: Iterable[torch.dtype]) -> str:
    """How samples alone differ from the same samples together; empty if they do not."""
    if inputs.n < 2:
        return ""
    for i in sorted({0, inputs.n // 2, inputs.n - 1}):
        alone = inputs.slice(i, i + 1)
        try:
            single = output.select(alone.call(network), alone.targets, 1)
        except Exception as error:  # such as batch statistics of one sample
            return f"sample {i} cannot be run alone ({_first_line(error)})"
        if not _close(values[i : i + 1], single, dtypes):
            return f"the outputs of sample {i} change with the others in its batch"
    return ""


def _unused(values: Tensor, parameters: dict[str, nn.Parameter]) -> tuple[tuple[str, ...], list[str]]:
    """Parameters that the outputs do not depend on, and what is wrong with the gradients."""
    if not values.requires_grad:
        return tuple(parameters), ["the outputs carry no gradient"]
    weights = torch.linspace(1.0, 2.0, values.numel(), dtype=values.dtype, device=values.device).view_as(values)
    try:
        gradients = torch.autograd.grad((weights * values).sum(), list(parameters.values()), allow_unused=True)
    except RuntimeError as error:
        reentrant = "use_reentrant" in str(error)  # refuses this question alone; features come by another way
        return (), [] if reentrant else [_first_line(error)]
    unused = tuple(name for name, g in zip(parameters, gradients, strict=True) if g is None)
    infinite = [
        name
        for name, g in zip(parameters, gradients, strict=True)
        if g is not None and not bool(torch.isfinite(g.to_dense()).all())
    ]
    return unused, [f"the gradients of {_some(infinite)} are not finite"] if infinite else []


def _buffers(network: nn.Module) -> dict[str, tuple[Tensor, Tensor]]:
    return {name: (buffer, buffer.detach().clone()) for name, buffer in network.named_buffers()}


def _differs(before: tuple[Tensor, Tensor] | None, buffer: Tensor, value: Tensor) -> bool:
    return before is None or before[0] is not buffer or not torch.equal(before[1], value)


def _close(a: Tensor, b: Tensor, dtypes: Iterable[torch.dtype]) -> bool:
    tolerance = max(TOLERANCE.get(dtype, 5e-2) for dtype in (a.dtype, *dtypes))
    scale = float(a.detach().abs().nan_to_num(0.0, 0.0, 0.0).max()) if a.numel() else 0.0
    return a.shape == b.shape and torch.allclose(a, b, rtol=0.0, atol=tolerance * max(scale, 1e-30), equal_nan=True)


def _kind(returned: Any) -> str:
    try:
        tensor = logits_of(returned)
    except TypeError:  # the output is a callable that knows better
        return type(returned).__name__
    what = f"{tuple(tensor.shape[1:])} {_short(tensor.dtype)} per sample"
    return what if isinstance(returned, Tensor) else f"{what} in a {type(returned).__name__}"


def _bad_samples(values: Tensor) -> str:
    bad = (~torch.isfinite(values)).flatten(1).any(1) if values.ndim > 1 else ~torch.isfinite(values)
    return _some([str(i) for i in bad.nonzero().flatten().tolist()])


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _some(items: Sequence[str] | Iterable[str], most: int = 6) -> str:
    items = list(items)
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return (", ".join(items[:most]) + rest) or "none"


def _answer(value: bool | None) -> str:
    return "unknown" if value is None else "yes" if value else "NO"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
