"""Layers that look unlike those of a healthy network: norms and tails against a fresh layer, silent units.

"Unusual" is not "broken": networks with such layers often predict as well as others.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tangrams.features.inputs import Inputs, as_inputs
from tangrams.features.model_ref import ModelRef
from tangrams.features.outputs import logits_of
from tangrams.lens.spectra import as_matrix, fresh_spectrum, weight_spectrum
from tangrams.operators.spectra import hill_alpha

# Where healthy layers lie, as multiples of a fresh layer's value, and the share of silent units above which a layer is
# called unusual. From small convolutional networks trained until they had memorised their labels (three seeds):
# norms 1.9 to 8.0 (a layer that started ten times too large: 11.4 to 13.2; a learning rate eight times too large: 15 to
# 32; untrained or frozen: 0.9 to 1.1), exponents 0.35 to 0.52 (too large at the start: 0.77 to 0.97; untrained or
# frozen: 0.99 to 1.08), silent units up to 0.52. Other architectures and recipes may lie elsewhere.
NORM_BAND = (1.15, 9.5)
EXPONENT_BAND = (0.25, 0.72)
SILENT_LIMIT = 0.65
FEWEST_EIGENVALUES = 30

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_TRANSPOSED = _CONVOLUTIONS[3:]


@dataclass(frozen=True)
class AgainstFresh:
    """A number of a layer beside that of a fresh layer of the same kind and shape.

    Attributes:
        value: the layer's.
        fresh: the mean over fresh layers.
        ratio: value over fresh.
        band: ratios of healthy layers, lowest and highest.
    """

    value: float
    fresh: float
    ratio: float
    band: tuple[float, float]


@dataclass(frozen=True)
class SilentUnits:
    """Units that change no output on any of the samples.

    Attributes:
        share: of the layer's units.
        units: how many units the layer has.
        limit: the share above which the layer is called unusual.
    """

    share: float
    units: int
    limit: float


@dataclass(frozen=True)
class Flag:
    """Why a layer is called unusual.

    Attributes:
        measure: ``"norm"``, ``"exponent"`` or ``"dead"``.
        direction: ``"high"`` or ``"low"``: on which side of the band.
    """

    measure: str
    direction: str


@dataclass(frozen=True)
class LayerHealth:
    """One weight of a network and the module that holds it.

    Attributes:
        name: path of the module, and of the weight where the module has several.
        kind: class of the module.
        shape: of the weight.
        parameters: of the module itself, without its children (shared among its weights' rows).
        dead: silent units; None where the module's output has no units to speak of.
        norm: spectral norm; None where nothing says what a fresh layer is.
        exponent: Hill exponent of the squared singular values [043]; None under 30 of them.
        eigenvalues: how many the weight has.
        tangent_share: share of ‖∇f‖² over the network: where a step moves the output.
        flags: what is outside the band.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    parameters: int
    dead: SilentUnits | None
    norm: AgainstFresh | None
    exponent: AgainstFresh | None
    eigenvalues: int
    tangent_share: float | None
    flags: tuple[Flag, ...]

    def to_json(self) -> dict[str, Any]:
        """A row of ``layers`` in study.json."""
        row = asdict(self)
        eigenvalues = row.pop("eigenvalues")
        for measure in ("norm", "exponent"):
            if row[measure]:
                row[measure]["band"] = list(row[measure]["band"])
        if row["exponent"]:
            row["exponent"]["eigenvalues"] = eigenvalues
        return row | {"shape": list(self.shape), "flags": [asdict(flag) for flag in self.flags]}


class _Place(NamedTuple):
    """Where a weight is: path of its module, the module, its name, whether the module has no other."""

    path: str
    module: nn.Module
    parameter: str
    alone: bool


def layer_health(
    model: nn.Module, x: Any, *, seed: int = 0, batch_size: int = 256, tangent_samples: int = 128
) -> list[LayerHealth]:
    r"""Read every weight matrix of a network beside fresh ones, and find the units that are silent.

    Three measures, none of which needs labels: the spectral norm and the Hill exponent of the squared singular values
    [043] as multiples of a fresh layer's, and the share of units whose output moves no output of the network on any
    sample: the gradient of a random combination of the outputs with respect to them is exactly zero.

    Args:
        model: the network in whatever mode; it is read in eval mode and left as it was.
        x: samples that the network is used on: a tensor, a tuple or dict of tensors, ``Labelled`` or a DataLoader
            without shuffling.
        seed: fixes the fresh layers and the random combinations.
        batch_size: samples per pass.
        tangent_samples: how many samples ``tangent_share`` is read on, with a random sign per output. It is a share
            among the parameters that require grad; among all, where none does.

    Returns:
        A row per weight of two or more axes, in the order of ``model.named_modules()``.

    Raises:
        ValueError: if there are no samples, the network has no weight of two axes, or a weight is not finite.
    """
    inputs = as_inputs(x, "layer_health").detached()
    if inputs.n == 0:
        raise ValueError("layer_health got no samples: silent units can only be judged on some")
    ref = ModelRef(model)
    with ref.session():  # reading a parametrized weight may move buffers, so all of it happens here
        places = _weights(ref.model)
        if not places:
            raise ValueError(f"{type(ref.model).__name__} has no weight of two or more axes to look at")
        floating = [p for p in ref.model.parameters() if p.is_floating_point()]
        trained = [p for p in floating if p.requires_grad] or floating
        for parameter in floating:
            parameter.requires_grad_()
        silent = _silent_units(ref.model, inputs, seed, batch_size)
        shares = _tangent_shares(ref.model, trained, inputs, seed, tangent_samples)
        return [_row(place, silent, shares, seed) for place in places]


def _row(place: _Place, silent: dict[str, SilentUnits], shares: dict[int, float], seed: int) -> LayerHealth:
    path, module, parameter, alone = place
    name = path if alone and path else f"{path}.{parameter}" if path else parameter
    eigenvalues, norm, exponent = _against_fresh(name, module, parameter, seed)
    dead = silent.get(path) if alone else None
    return LayerHealth(
        name=name,
        kind=_kind(module),
        shape=tuple(getattr(module, parameter).shape),
        parameters=sum(p.numel() for p in module.parameters(recurse=_is_parametrized(module))),
        dead=dead,
        norm=norm,
        exponent=exponent,
        eigenvalues=eigenvalues,
        tangent_share=shares.get(id(module)),
        flags=_flags(dead, norm, exponent),
    )


def _is_parametrized(module: nn.Module) -> bool:
    return hasattr(module, "parametrizations")


def _kind(module: nn.Module) -> str:
    return type(module).__name__.removeprefix("Parametrized") if _is_parametrized(module) else type(module).__name__


def _weights(model: nn.Module) -> list[_Place]:
    """Every weight matrix, shared ones once."""
    found: list[_Place] = []
    seen: set[int] = set()
    for path, module in model.named_modules():
        if "parametrizations" in path.split("."):
            continue
        held = [name for name in _names(module) if id(getattr(module, name)) not in seen]
        seen.update(id(getattr(module, name)) for name in held)
        found += [_Place(path, module, name, len(held) == 1) for name in held]
    return found


def _names(module: nn.Module) -> list[str]:
    """Names under which a module uses its own weight matrices; the parts of a parametrized one are not weights."""
    parametrizations = getattr(module, "parametrizations", None)
    names = list(parametrizations) if isinstance(parametrizations, nn.ModuleDict) else []
    for name in module._parameters:
        whole, _, part = name.rpartition("_")
        names.append(whole if part in ("orig", "g", "v") and isinstance(getattr(module, whole, None), Tensor) else name)
    weights = ((name, getattr(module, name, None)) for name in dict.fromkeys(names))
    return [n for n, w in weights if isinstance(w, Tensor) and w.ndim >= 2 and w.numel() and w.is_floating_point()]


def _against_fresh(
    name: str, module: nn.Module, parameter: str, seed: int
) -> tuple[int, AgainstFresh | None, AgainstFresh | None]:
    try:
        matrix = as_matrix(getattr(module, parameter), transposed=isinstance(module, _TRANSPOSED))
    except ValueError as error:
        raise ValueError(f"layer {name!r} ({_kind(module)}): {error}") from error
    spectrum = weight_spectrum(matrix)
    fresh = fresh_spectrum(module, parameter, seed=seed)
    if fresh is None:
        return len(spectrum), None, None
    norm = _beside(float(spectrum[0].sqrt()), fresh[:, 0].sqrt(), NORM_BAND)
    exponent = None
    if len(spectrum) >= FEWEST_EIGENVALUES and float(spectrum[0]) > 0:
        try:
            exponent = _beside(hill_alpha(spectrum), torch.tensor([hill_alpha(s) for s in fresh]), EXPONENT_BAND)
        except ValueError:  # a flat or nearly rank-one spectrum has no tail to fit
            exponent = None
    return len(spectrum), norm, exponent


def _beside(value: float, fresh: Tensor, band: tuple[float, float]) -> AgainstFresh | None:
    mean = float(fresh.mean())
    return AgainstFresh(value, mean, value / mean, band) if mean > 0 else None


def _flags(dead: SilentUnits | None, norm: AgainstFresh | None, exponent: AgainstFresh | None) -> tuple[Flag, ...]:
    flags = []
    for measure, found in (("norm", norm), ("exponent", exponent)):
        if found is not None and found.ratio > found.band[1]:
            flags.append(Flag(measure, "high"))
        if found is not None and found.ratio < found.band[0]:
            flags.append(Flag(measure, "low"))
    if dead is not None and dead.share > dead.limit:
        flags.append(Flag("dead", "high"))
    return tuple(flags)


@contextmanager
def _captured(model: nn.Module) -> Iterator[dict[str, list[tuple[Tensor, int]]]]:
    """Outputs of every linear layer and convolution, with the axis of their units, as they leave the layer.

    A copy goes on in their place, so that an activation that works in place does not reach what was kept.

    Yields:
        Path of the layer → its outputs, one per call.
    """
    kept: dict[str, list[tuple[Tensor, int]]] = {}
    handles = []

    def keeper(path: str, axis: int) -> Any:
        def hook(module: nn.Module, arguments: Any, output: Any) -> Any:
            if not isinstance(output, Tensor) or not output.requires_grad:
                return None
            kept.setdefault(path, []).append((output, axis))
            return output.clone()

        return hook

    try:
        for path, module in model.named_modules():
            if isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
                handles.append(module.register_forward_hook(keeper(path, _unit_axis(module))))
        yield kept
    finally:
        for handle in handles:
            handle.remove()


def _unit_axis(module: nn.Module) -> int:
    """Where a layer's units are in its output, from the end: ``(…, units)``, or ``(…, channels, *positions)``."""
    return -1 if isinstance(module, nn.Linear) else -1 - len(getattr(module, "kernel_size", ()))


def _silent_units(model: nn.Module, inputs: Inputs, seed: int, batch_size: int) -> dict[str, SilentUnits]:
    """Path → silent units of every linear layer and convolution that the forward calls."""
    generator = torch.Generator().manual_seed(seed)
    moved: dict[str, Tensor] = {}
    with _captured(model) as kept:
        for start in range(0, inputs.n, batch_size):
            kept.clear()
            outputs = logits_of(inputs.slice(start, start + batch_size).call(model))
            if not outputs.requires_grad:
                return {}
            mix = torch.randn(outputs.shape, generator=generator, dtype=torch.float32).to(outputs)
            places = [(path, output, axis) for path, calls in kept.items() for output, axis in calls]
            gradients = torch.autograd.grad((outputs * mix).sum(), [p[1] for p in places], allow_unused=True)
            for (path, output, axis), gradient in zip(places, gradients, strict=True):
                units = torch.zeros(output.shape[axis], dtype=torch.bool)
                if gradient is not None:
                    units = (gradient != 0).movedim(axis, -1).flatten(0, -2).any(0).cpu()
                moved[path] = moved[path] | units if path in moved else units
    return {
        path: SilentUnits(float((~units).double().mean()), len(units), SILENT_LIMIT) for path, units in moved.items()
    }


def _tangent_shares(
    model: nn.Module, parameters: list[nn.Parameter], inputs: Inputs, seed: int, most: int
) -> dict[int, float]:
    """Id of a module → its own parameters' share of Σ ‖∇ Σ_c ± f_c(x)‖² over some samples."""
    generator = torch.Generator().manual_seed(seed)
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=_is_parametrized(module)):
            owners.setdefault(id(parameter), id(module))
    totals = dict.fromkeys(owners.values(), 0.0)
    chosen = torch.linspace(0, inputs.n - 1, min(most, inputs.n)).round().long().tolist()
    for i in chosen:
        outputs = logits_of(inputs.slice(i, i + 1).call(model))
        signs = (torch.randint(0, 2, outputs.shape, generator=generator) * 2 - 1).to(outputs)
        gradients = torch.autograd.grad((outputs * signs).sum(), parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                totals[owners[id(parameter)]] += float(gradient.double().square().sum())
    whole = sum(totals.values())
    return {module: total / whole for module, total in totals.items()} if whole > 0 else {}
