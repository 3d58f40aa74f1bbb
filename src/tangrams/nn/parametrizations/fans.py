"""How many numbers each parameter of a layer sums over, and how many it feeds: one rule per kind of layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum

import torch
from torch import nn

from tangrams.nn.parametrizations.errors import FanError


class Role(Enum):
    """What a parameter does to the features."""

    MATRIX = "matrix"
    LOOKUP = "lookup"
    BIAS = "bias"
    GAIN = "gain"


@dataclass(frozen=True)
class Fans:
    """A parameter as the matrix, or the block-diagonal matrices, that it is to the features.

    Attributes:
        role: what it does.
        fan_in: inputs that one output sums over; one for lookups, biases and gains.
        fan_out: outputs of one block.
        out_features: outputs of all blocks together.
        reset_fan: torch draws such a parameter with a standard deviation proportional to ``reset_fan ** -0.5``.
        view: ``(blocks, rows, columns)``; the parameter reshaped to it is the blocks, up to a transpose.
    """

    role: Role
    fan_in: int
    fan_out: int
    out_features: int
    reset_fan: int
    view: tuple[int, int, int]

    @property
    def target_norm(self) -> float:
        r"""``\sqrt{fan\_out / fan\_in}``, the spectral norm that moves features by their own size [115]."""
        return math.sqrt(self.fan_out / self.fan_in)


FanRule = Callable[[torch.Size], Fans]
"""The shape of a parameter → its fans."""


def matrix_fans(shape: torch.Size) -> Fans:
    """Of a weight that multiplies from the left: ``(out, in, *window)``, as in ``nn.Linear``.

    Raises:
        FanError: if the weight has fewer than two axes.
    """
    if len(shape) < 2:
        raise FanError(f"matrix_fans needs a weight of two or more axes, got shape {tuple(shape)}")
    return _grouped(shape, 1)


def lookup_fans(shape: torch.Size) -> Fans:
    """Of a table whose rows are picked: ``(entries, width)``, as in ``nn.Embedding`` or for learned positions.

    Raises:
        FanError: if the table does not have two axes, but for leading ones of length one.
    """
    if len(shape) < 2 or any(size != 1 for size in shape[:-2]):
        raise FanError(f"lookup_fans needs a table (entries, width), got shape {tuple(shape)}")
    entries, width = shape[-2:]
    return Fans(Role.LOOKUP, 1, width, width, 1, (entries, width, 1))


def bias_fans(shape: torch.Size) -> Fans:
    """Of what is added to features and does not depend on a layer's fan-in at the start, such as a class token."""
    n = shape.numel()
    return Fans(Role.BIAS, 1, n, n, 1, (1, n, 1))


def gain_fans(shape: torch.Size) -> Fans:
    """Of what multiplies features entry by entry, as in ``nn.LayerNorm``."""
    n = shape.numel()
    return Fans(Role.GAIN, 1, 1, n, 1, (n, 1, 1))


def _grouped(shape: torch.Size, groups: int) -> Fans:
    out, fan_in = shape[0], math.prod(shape[1:])
    return Fans(Role.MATRIX, fan_in, out // groups, out, fan_in, (groups, out // groups, fan_in))


def _bias_of(weight: Fans) -> FanRule:
    """A bias that torch draws as widely as the weight beside it."""

    def rule(shape: torch.Size) -> Fans:
        n = shape.numel()
        return Fans(Role.BIAS, 1, n, n, weight.reset_fan, (1, n, 1))

    return rule


def _stacked(hidden: int, reset_fan: int) -> FanRule:
    """Several (hidden, in) matrices one upon another, as the gates of a recurrent layer."""

    def rule(shape: torch.Size) -> Fans:
        return Fans(Role.MATRIX, shape[1], hidden, hidden, reset_fan, (shape[0] // hidden, hidden, shape[1]))

    return rule


def _linear(module: nn.Linear) -> Mapping[str, FanRule]:
    return {"weight": matrix_fans, "bias": _bias_of(matrix_fans(module.weight.shape))}


def _convolution(module: nn.modules.conv._ConvNd) -> Mapping[str, FanRule]:
    weight = _grouped(module.weight.shape, module.groups)
    return {"weight": lambda shape: _grouped(shape, module.groups), "bias": _bias_of(weight)}


def _transposed(module: nn.modules.conv._ConvNd) -> Mapping[str, FanRule]:
    groups, inputs = module.groups, module.in_channels
    window = math.prod(module.kernel_size)
    rows = inputs // groups
    columns = module.out_channels // groups * window
    weight = Fans(Role.MATRIX, rows * window, columns // window, module.out_channels, columns, (groups, rows, columns))
    return {"weight": lambda shape: weight, "bias": _bias_of(weight)}


def _embedding(module: nn.Module) -> Mapping[str, FanRule]:
    return {"weight": lookup_fans}


def _normalisation(module: nn.Module) -> Mapping[str, FanRule]:
    return {"weight": gain_fans, "bias": bias_fans}


def _attention(module: nn.MultiheadAttention) -> Mapping[str, FanRule]:
    width = module.embed_dim
    rules: dict[str, FanRule] = {"in_proj_weight": _stacked(width, width), "in_proj_bias": bias_fans}
    rules |= dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight"), _glorot_fans)
    # Torch draws the extra key and value with deviation width^-1/2, as a weight (width, width).
    extra = _bias_of(matrix_fans(torch.Size((width, width))))
    return rules | dict.fromkeys(("bias_k", "bias_v"), extra)


def _glorot_fans(shape: torch.Size) -> Fans:
    """Torch draws the separate maps of attention by Glorot's rule, over inputs and outputs."""
    return replace(matrix_fans(shape), reset_fan=sum(shape))


def _recurrent(module: nn.RNNBase) -> Mapping[str, FanRule]:
    hidden = module.hidden_size
    rules: dict[str, FanRule] = {}
    for name, _ in module.named_parameters(recurse=False):
        if name.startswith("weight_hr"):  # the projection of an LSTM: (proj, hidden)
            rules[name] = matrix_fans
        elif name.startswith("weight"):
            rules[name] = _stacked(hidden, hidden)
        else:
            rules[name] = lambda shape: Fans(Role.BIAS, 1, hidden, hidden, hidden, (shape.numel() // hidden, hidden, 1))
    return rules


_RULES: tuple[tuple[tuple[type[nn.Module], ...], Callable[..., Mapping[str, FanRule]]], ...] = (
    ((nn.Linear,), _linear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), _transposed),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    ((nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase), _normalisation),
    ((nn.PReLU,), lambda module: {"weight": gain_fans}),
    ((nn.MultiheadAttention,), _attention),
    ((nn.RNNBase,), _recurrent),
)
"""Which layers have rules; a subclass too, unless it has a forward of its own."""


@dataclass(frozen=True)
class Place:
    """One use of a parameter in a model.

    Attributes:
        name: its full name.
        module: the layer that holds it.
        attribute: its name there.
        parameter: the parameter.
        fans: what it is to the features.
    """

    name: str
    module: nn.Module
    attribute: str
    parameter: nn.Parameter
    fans: Fans


def read_places(model: nn.Module, rules: Mapping[str, FanRule]) -> Iterator[Place]:
    """Every use of every parameter, in the order of ``model.named_modules()``.

    Args:
        model: the model.
        rules: full name of a parameter → its rule; before those of the layers.

    Yields:
        Each use, shared parameters once per use.

    Raises:
        FanError: for a parameter without a rule, or a rule without a parameter.
    """
    unknown = set(rules)
    for path, module in model.named_modules():
        known = _rules_of(module)
        for attribute, parameter in module._parameters.items():
            if parameter is None:
                continue
            name = f"{path}.{attribute}" if path else attribute
            unknown.discard(name)
            rule = rules.get(name) or known.get(attribute)
            if rule is None:
                raise FanError(
                    f"{name!r} of {type(module).__name__}, shape {tuple(parameter.shape)}, has no fan rule: pass "
                    f"fans={{{name!r}: matrix_fans}}, or lookup_fans, bias_fans, gain_fans"
                )
            yield Place(name, module, attribute, parameter, rule(parameter.shape))
    if unknown:
        raise FanError(f"fans names {sorted(unknown)}, which {type(model).__name__} does not have")


def read_layer_fans(module: nn.Module, shape: torch.Size) -> Fans:
    """The fans of a layer's ``weight``, as one of that shape.

    Raises:
        FanError: if the layer has no rule.
    """
    rule = _rules_of(module).get("weight")
    if rule is None:
        raise FanError(f"{type(module).__name__} has no fan rule for its weight")
    return rule(shape)


def _rules_of(module: nn.Module) -> Mapping[str, FanRule]:
    nearest = next(cls for cls in type(module).__mro__ if cls.__module__.startswith("torch."))
    if type(module).forward is nearest.forward:
        for classes, rules in _RULES:
            if isinstance(module, classes):
                return rules(module)
    return {}
