"""What optimisers share: a step that moves all weights or none, and gradients whose size does not count."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from tangrams.nn.parametrizations.errors import FanError


class DenseOptimizer(Optimizer):
    """An optimiser of real weights with dense gradients, one weight at a time; a member writes :meth:`_move`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step.

        Args:
            closure: computes the loss anew; its value is returned.

        Raises:
            ValueError: for a sparse or complex gradient; nothing has moved then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        moving = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for _, p in moving:
            if p.grad.is_sparse or p.grad.is_complex():
                raise ValueError(
                    f"{type(self).__name__} needs real dense gradients, got a {p.grad.layout} {p.grad.dtype} one for a "
                    f"parameter of shape {tuple(p.shape)}: build the embedding with sparse=False"
                )
        for group, p in moving:
            self._move(group, p, p.grad)
        return loss

    @abstractmethod
    def _move(self, group: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        """Hook: change one weight by its gradient; its state is ``self.state[p]``."""


class NormalizedSGD(DenseOptimizer):
    r"""Steps along the momentum, of a norm that the shape of the weight gives.

    .. math:: M ← μ M + ∇, \qquad W ← W - η\,t\,M / ‖M‖

    A group may say how its weights are matrices, as the groups of :meth:`WidthPlan.spectral` do: ``view`` is
    ``(blocks, rows, columns)`` and the norm is the largest of the blocks', ``target`` is t. By default a weight
    ``(out, in, *window)`` is one matrix of ``out`` rows, a vector is one column, and ``t = \sqrt{rows / columns}``.
    A weight whose momentum is zero does not move. A member writes :meth:`_norms`.

    Args:
        params: parameters or groups.
        lr: η.
        momentum: μ.
        maximize: climb instead.

    Raises:
        ValueError: if lr is negative or the momentum not in [0, 1).
    """

    def __init__(self, params: Any, lr: float, *, momentum: float = 0.0, maximize: bool = False) -> None:
        if not lr >= 0:
            raise ValueError(f"{type(self).__name__} needs lr ≥ 0, got {lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"{type(self).__name__} needs 0 ≤ momentum < 1, got {momentum}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "maximize": maximize, "view": None, "target": None})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As every optimiser's; a view that does not fit its weights is a ``FanError``.

        Args:
            param_group: ``params`` and options.

        Raises:
            FanError: if the view has another number of entries than a weight.
        """
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        for parameter in group["params"]:
            if group["view"] is not None and math.prod(group["view"]) != parameter.numel():
                self.param_groups.pop()
                raise FanError(
                    f"{type(self).__name__}: a weight of shape {tuple(parameter.shape)} is not the blocks "
                    f"{group['view']}: give its group a view (blocks, rows, columns) of as many entries"
                )

    @abstractmethod
    def _norms(self, blocks: Tensor, state: dict[str, Any]) -> Tensor:
        """Hook: the norm of each block of ``(blocks, rows, columns)``; may keep something in the state."""

    def _move(self, group: dict[str, Any], p: Tensor, gradient: Tensor) -> None:
        if not p.numel():
            return  # a weight without entries has no norm
        state = cast(dict[str, Any], self.state[p])
        gradient = -gradient if group["maximize"] else gradient
        if group["momentum"]:
            if "momentum_buffer" in state:
                gradient = state["momentum_buffer"].mul_(group["momentum"]).add_(gradient)
            else:
                gradient = state["momentum_buffer"] = gradient.clone()
        view = group["view"] or _matrix_view(p)
        wide = gradient.to(torch.promote_types(gradient.dtype, torch.float32))  # half precision over- and underflows
        norm = self._norms(wide.reshape(view), state).max()
        target = math.sqrt(view[1] / view[2]) if group["target"] is None else group["target"]
        # Zero over zero is no step; a where, so that nothing waits for the device.
        factor = torch.where(norm > 0, -group["lr"] * target / norm, torch.zeros_like(norm))
        p.add_((wide * factor).to(p.dtype))


def _matrix_view(p: Tensor) -> tuple[int, int, int]:
    rows = p.shape[0] if p.ndim else 1
    return (1, rows, p.numel() // rows)
