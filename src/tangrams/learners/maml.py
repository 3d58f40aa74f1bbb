"""Model-agnostic meta-learning: a start from which a few steps solve a new task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from tangrams.learners.functional_sgd import FunctionalSGD

Loss = Callable[[Tensor, Tensor], Tensor]


class MAML:
    r"""Meta-learning through the inner steps [017].

    .. math:: θ_τ = θ - η \nabla L_τ(θ; \text{support}), \qquad \min_θ \sum_τ L_τ(θ_τ; \text{query})

    All tasks of a batch are adapted at once.

    Args:
        model: the network; its parameters are the start that is learned.
        loss: of outputs and targets of one task, a mean.
        inner_lr: η.
        inner_steps: steps on the support.

    Raises:
        ValueError: if the rate or the number of steps is not positive.
    """

    def __init__(
        self, model: nn.Module, loss: Loss = nn.functional.cross_entropy, *, inner_lr: float = 0.4, inner_steps: int = 1
    ) -> None:
        if not inner_lr > 0 or inner_steps < 1:
            raise ValueError(
                f"{type(self).__name__} needs inner_lr > 0 and inner_steps ≥ 1, got {inner_lr}, {inner_steps}"
            )
        self.model, self.loss, self.inner_lr, self.inner_steps = model, loss, inner_lr, inner_steps

    def backward(self, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor]) -> float:
        """Put the gradient of the query loss, meaned over tasks, into ``.grad`` of the model's parameters.

        Args:
            support: inputs ``(tasks, shots, …)`` and targets.
            query: likewise.

        Returns:
            The mean query loss.
        """
        parameters = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        losses, gradients = vmap(self._task, in_dims=(None, 0, 0, 0, 0))(
            {name: p.detach() for name, p in parameters.items()}, *support, *query
        )
        for name, p in parameters.items():
            p.grad = gradients[name].mean(0)
        return float(losses.mean())

    def predict(self, support: tuple[Tensor, Tensor], x: Tensor, *, inner_steps: int | None = None) -> Tensor:
        """Outputs on the queries of new tasks, each after its own steps on its support.

        Args:
            support: inputs ``(tasks, shots, …)`` and targets.
            x: queries ``(tasks, m, …)``.
            inner_steps: as at training by default.
        """
        parameters = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        steps = self.inner_steps if inner_steps is None else inner_steps

        def one(xs: Tensor, ys: Tensor, queries: Tensor) -> Tensor:
            return functional_call(self.model, self._adapted(parameters, xs, ys, steps), (queries,))

        return vmap(one)(*support, x).detach()

    def _task(self, parameters: dict[str, Tensor], xs: Tensor, ys: Tensor, xq: Tensor, yq: Tensor) -> Any:
        def query(start: dict[str, Tensor]) -> Tensor:
            return self._loss_of(self._adapted(start, xs, ys, self.inner_steps), xq, yq)

        gradients, loss = torch.func.grad_and_value(query)(parameters)
        return loss, gradients

    def _adapted(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor, steps: int) -> dict[str, Tensor]:
        for _ in range(steps):
            gradients = grad(self._loss_of)(parameters, x, y)
            parameters = {name: p - self.inner_lr * gradients[name] for name, p in parameters.items()}
        return parameters

    def _loss_of(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return self.loss(functional_call(self.model, parameters, (x,)), y)


class FirstOrderMAML(MAML):
    r"""Meta-learning that takes the query's gradient at the adapted parameters for that at the start [017].

    .. math:: \nabla_θ L_τ(θ_τ) ≈ \nabla L_τ \big|_{θ_τ}

    Args:
        model: as in :class:`MAML`.
        loss: as in :class:`MAML`.
        inner_lr: as in :class:`MAML`.
        inner_steps: as in :class:`MAML`.
    """

    def _task(self, parameters: dict[str, Tensor], xs: Tensor, ys: Tensor, xq: Tensor, yq: Tensor) -> Any:
        adapted = self._adapted(parameters, xs, ys, self.inner_steps)
        gradients, loss = torch.func.grad_and_value(self._loss_of)(adapted, xq, yq)
        return loss, gradients


class KernelMAML:
    """First-order meta-learning of a :class:`FunctionalSGD`: the limit of networks that learn no features [017].

    Args:
        function: the start that is learned.
        loss: of outputs and targets of one task, a mean.
        inner_lr: as in :class:`MAML`.
        inner_steps: as in :class:`MAML`.

    Raises:
        ValueError: if the rate or the number of steps is not positive.
    """

    def __init__(
        self,
        function: FunctionalSGD,
        loss: Loss = nn.functional.cross_entropy,
        *,
        inner_lr: float = 0.4,
        inner_steps: int = 1,
    ) -> None:
        if not inner_lr > 0 or inner_steps < 1:
            raise ValueError(f"KernelMAML needs inner_lr > 0 and inner_steps ≥ 1, got {inner_lr}, {inner_steps}")
        self.function, self.loss, self.inner_lr, self.inner_steps = function, loss, inner_lr, inner_steps

    def step(
        self,
        support: tuple[Tensor, Tensor],
        query: tuple[Tensor, Tensor],
        lr: float,
        *,
        max_norm: float = float("inf"),
    ) -> float:
        """One step of the start on a batch of tasks.

        Args:
            support: inputs ``(tasks, shots, d)`` and targets.
            query: likewise.
            lr: the outer rate.
            max_norm: as in :meth:`FunctionalSGD.step`.

        Returns:
            The mean query loss.
        """
        outputs = self.predict(support, query[0]).requires_grad_()
        losses = torch.stack([self.loss(f, y) for f, y in zip(outputs, query[1], strict=True)])
        (gradient,) = torch.autograd.grad(losses.mean(), outputs)
        self.function.step(query[0].flatten(0, 1), gradient.flatten(0, 1), lr, max_norm=max_norm)
        return float(losses.detach().mean())

    def predict(self, support: tuple[Tensor, Tensor], x: Tensor, *, inner_steps: int | None = None) -> Tensor:
        """Outputs on the queries of new tasks, as :meth:`MAML.predict`.

        Args:
            support: inputs ``(tasks, shots, d)`` and targets.
            x: queries ``(tasks, m, d)``.
            inner_steps: as at training by default.
        """
        tasks, shots = support[0].shape[:2]
        everything = torch.cat([support[0], x], 1)
        f = self.function(everything.flatten(0, 1)).reshape(tasks, shots + x.shape[1], -1)
        # K of each task's support with all of its samples; inner steps add to f along its columns.
        K = torch.stack(
            [self.function.kernel.gram(both, own) for both, own in zip(everything, support[0], strict=True)]
        ).to(f.dtype)
        for _ in range(self.inner_steps if inner_steps is None else inner_steps):
            own = f[:, :shots].detach().requires_grad_()
            losses = torch.stack([self.loss(g, y) for g, y in zip(own, support[1], strict=True)])
            (gradient,) = torch.autograd.grad(losses.sum(), own)
            f = f - self.inner_lr * K @ gradient
        return f[:, shots:].detach()
