"""Derivatives of an elementwise function by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


class ActivationError(ValueError):
    """An activation was refused: its second derivative is not a function."""


def derivative(function: Activation, u: Tensor) -> Tensor:
    """``f′(u)`` of an elementwise function, itself differentiable in u.

    Args:
        function: elementwise.
        u: where.
    """
    with torch.enable_grad():
        point = u if u.requires_grad else u.detach().requires_grad_()
        value = function(point)
        if not value.requires_grad:
            return torch.zeros_like(u)
        (slope,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    return slope if u.requires_grad else slope.detach()


def second_derivative(function: Activation, u: Tensor) -> Tensor:
    """``f″(u)`` of an elementwise function, by autograd twice.

    Args:
        function: elementwise.
        u: where.
    """
    return derivative(lambda point: derivative(function, point), u)


def check_second_derivative(function: Activation, who: str) -> None:
    """Refuse an activation whose slope jumps, as a ReLU's does: its second derivative is not what autograd says.

    Args:
        function: elementwise.
        who: named in the refusal.

    Raises:
        ActivationError: if the second derivative, summed up over an interval, is not how much the slope has changed.
    """
    u = torch.linspace(-4, 4, 4002, dtype=torch.float64)  # no node at zero
    slope = derivative(function, u)
    summed = torch.cumulative_trapezoid(second_derivative(function, u), u)
    if float((summed - (slope[1:] - slope[0])).abs().max()) > 1e-3 * max(1.0, float(slope.abs().max())):
        name = getattr(function, "__name__", type(function).__name__)
        raise ActivationError(
            f"{who} needs a second derivative for gradients in the input, but the slope of {name} jumps: take a smooth "
            "activation, or autograd through the model"
        )


def describe_activation(function: Activation) -> dict[str, object]:
    """The name of an elementwise function and its values at a few points, as JSON data: what tells two apart.

    Args:
        function: elementwise.
    """
    with torch.no_grad():
        values = function(torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], dtype=torch.float64)).tolist()
    name = getattr(function, "__name__", type(function).__name__)
    return {"name": name, "values": [round(value, 6) for value in values]}
