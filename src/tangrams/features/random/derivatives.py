"""Derivatives of an elementwise function by autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Activation = Callable[[Tensor], Tensor]


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


def describe_activation(function: Activation) -> dict[str, object]:
    """The name of an elementwise function and its values at a few points, as JSON data: what tells two apart.

    Args:
        function: elementwise.
    """
    with torch.no_grad():
        values = function(torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], dtype=torch.float64)).tolist()
    name = getattr(function, "__name__", type(function).__name__)
    return {"name": name, "values": [round(value, 6) for value in values]}
