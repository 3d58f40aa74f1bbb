"""The scales and shifts of a network's BatchNorm layers [052]."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import is_lazy


class BatchNormAffine(NamedTuple):
    """The affine part of one BatchNorm layer.

    Attributes:
        gamma: scales, one per channel.
        beta: shifts.
    """

    gamma: Float[Tensor, "channels"]
    beta: Float[Tensor, "channels"]


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a network, by name, each layer once.

    Args:
        model: the network.

    Raises:
        ValueError: if there is none, or one has no scales and shifts to train.

    Example:
        >>> list(batchnorm_layers(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))))
        ['1']
    """
    found = {}
    for name, module in model.named_modules():
        if type(module).__name__.startswith("FrozenBatchNorm"):
            raise ValueError(
                f"{name!r} is a {type(module).__name__}, whose scales and shifts are buffers: convert it to BatchNorm2d"
            )
        if not isinstance(module, _BatchNorm):
            continue
        if module.weight is None or module.bias is None:
            raise ValueError(f"{name!r} ({type(module).__name__}) has no scales and shifts: make it with affine=True")
        if is_lazy(module.weight):
            raise ValueError(f"{name!r} ({type(module).__name__}) is not initialised: call the network once on a batch")
        found[name] = module
    if not found:
        raise ValueError(f"{type(model).__name__} has no BatchNorm layer")
    return found


def batchnorm_affine(model: nn.Module) -> dict[str, BatchNormAffine]:
    """Copies of the scales and shifts of every BatchNorm layer, by name.

    A network without such layers is refused as by :func:`batchnorm_layers`.

    Args:
        model: the network.
    """
    return {
        name: BatchNormAffine(layer.weight.detach().clone(), layer.bias.detach().clone())
        for name, layer in batchnorm_layers(model).items()
    }


@torch.no_grad()
def init_batchnorm_(
    model: nn.Module,
    low: float = 0.0,
    high: float = 1.0,
    beta: float = 0.0,
    *,
    generator: torch.Generator | None = None,
) -> None:
    r"""Set every scale to a draw of :math:`γ \sim U[low, high)` and every shift to ``beta``, in place.

    The paper's own are ``(0, 1)``; its ablations ``(1, 1)``, ``(-1, 1)``, and ``(1, 1, beta=1)``, where every feature
    starts active.

    Args:
        model: the network.
        low: least scale.
        high: the scales are below, or equal where ``low == high``.
        beta: the shift.
        generator: draws, on the CPU; the global stream by default.

    Raises:
        ValueError: if ``low > high``, or as :func:`batchnorm_layers`.
    """
    if not low <= high:
        raise ValueError(f"init_batchnorm_ expects low ≤ high, got {low} and {high}")
    for layer in batchnorm_layers(model).values():
        draw = torch.rand(layer.weight.shape, generator=generator, dtype=torch.float32)
        layer.weight.copy_(low + (high - low) * draw)
        layer.bias.fill_(beta)
