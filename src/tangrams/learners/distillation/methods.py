"""How the two quadratics of implicit differentiation are solved: the inner problem, and its Hessian's inverse."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from tangrams.learners.distillation.inner import Frozen, Tensors, inner_product
from tangrams.learners.distillation.step_size import StepSize

Product = Callable[[Tensors], Tensors]

_RETRIES = 8


class InnerDivergenceError(RuntimeError):
    """The inner optimisation ran away at every learning rate that was tried."""


class InnerMethod(ABC):
    """Minimises a frozen inner loss, and solves with its Hessian."""

    @abstractmethod
    def minimise(self, frozen: Frozen, omega: Tensors, steps: int) -> tuple[Tensors, list[float]]:
        """ω after so many steps, and the losses on the way."""

    @abstractmethod
    def invert(self, hvp: Product, g: Tensors, steps: int) -> tuple[Tensors, list[float]]:
        """V with H v ≈ g; zero after no steps."""

    @abstractmethod
    def prepare(self, frozen: Frozen, omega: Tensors, g: Tensors, inner_steps: int, hessian_steps: int) -> None:
        """Find settings on a first problem.

        Args:
            frozen: its inner loss.
            omega: where it starts.
            g: the outer gradient there.
            inner_steps: of a run.
            hessian_steps: of a solve.
        """


class AdamMethod(InnerMethod):
    """Adam for both, at rates that are searched for first and watched after: the paper's [092].

    Args:
        inner_lr: of the inner runs, or where its search starts.
        hessian_lr: of the solves, or where its search starts.
        tune: whether they are searched for.
    """

    def __init__(self, *, inner_lr: float = 1e-5, hessian_lr: float = 5e-5, tune: bool = True) -> None:
        self.inner, self.hessian = StepSize(inner_lr), StepSize(hessian_lr, adapts=False)
        self._tune = tune

    def prepare(self, frozen: Frozen, omega: Tensors, g: Tensors, inner_steps: int, hessian_steps: int) -> None:
        """Raise both rates until their runs stop falling.

        Args:
            frozen: an inner loss.
            omega: where it starts.
            g: the outer gradient there.
            inner_steps: of a run.
            hessian_steps: of a solve.
        """
        if not self._tune:
            return
        if inner_steps > 1:
            self.inner.tune(lambda lr: descend(frozen, omega, inner_steps, lr)[1])
        if hessian_steps > 1:
            hvp = lambda v: frozen.hessian_product(omega, v)  # noqa: E731
            self.hessian.tune(lambda lr: adam_quadratic_solve(hvp, g, hessian_steps, lr)[1])

    def minimise(self, frozen: Frozen, omega: Tensors, steps: int) -> tuple[Tensors, list[float]]:
        """Adam from ω; the rate is halved while the loss runs away.

        Args:
            frozen: the loss.
            omega: the start.
            steps: how many.

        Raises:
            InnerDivergenceError: if it does at every rate tried.
        """
        losses: list[float] = []
        for _ in range(_RETRIES):
            found, losses = descend(frozen, omega, steps, self.inner.value)
            if all(loss <= 2 * losses[0] for loss in losses):  # false where not a number
                self.inner.record(losses)
                return found, losses
            self.inner.value /= 2
        raise InnerDivergenceError(
            f"the inner loss rose from {losses[0]:.3g} to {losses[-1]:.3g} at rates down to {self.inner.value:.2g}: "
            "raise ridge_rate, or give another network"
        )

    def invert(self, hvp: Product, g: Tensors, steps: int) -> tuple[Tensors, list[float]]:
        """:func:`adam_quadratic_solve` at the present rate."""
        v, trace = adam_quadratic_solve(hvp, g, steps, self.hessian.value)
        self.hessian.record(trace)
        return v, trace


class ConjugateGradients(InnerMethod):
    """Conjugate gradients for both: no rates, and as exact as the steps allow, where the problem is convex."""

    def prepare(self, frozen: Frozen, omega: Tensors, g: Tensors, inner_steps: int, hessian_steps: int) -> None:
        """There is nothing to find."""

    def minimise(self, frozen: Frozen, omega: Tensors, steps: int) -> tuple[Tensors, list[float]]:
        """The Newton step from ω, which is the minimum of a quadratic.

        Args:
            frozen: the loss.
            omega: the start.
            steps: products with the Hessian.
        """
        first, gradient = frozen.value_and_gradient(omega)
        v, _ = self.invert(lambda u: frozen.hessian_product(omega, u), gradient, steps)
        omega = {name: value - v[name] for name, value in omega.items()}
        return omega, [float(first), float(frozen.value_and_gradient(omega)[0])]

    def invert(self, hvp: Product, g: Tensors, steps: int) -> tuple[Tensors, list[float]]:
        """Stops early where it has converged, or where the curvature is not positive.

        Args:
            hvp: v → H v.
            g: the right-hand side.
            steps: the most products.

        Returns:
            v, and ``vᵀ (H v − 2 g)`` before each step.
        """
        v = {name: torch.zeros_like(value) for name, value in g.items()}
        r = {name: value.clone() for name, value in g.items()}
        p, size = dict(r), inner_product(r, r)
        start, trace = float(size), []
        for _ in range(steps):
            product = hvp(p)
            curvature = float(inner_product(p, product))
            trace.append(-float(inner_product(v, g) + inner_product(v, r)))
            if not curvature > 0 or not float(size) > 1e-12 * start:
                break
            rate = size / curvature
            v = {name: value + rate * p[name] for name, value in v.items()}
            r = {name: value - rate * product[name] for name, value in r.items()}
            size, before = inner_product(r, r), size
            p = {name: value + size / before * p[name] for name, value in r.items()}
        return v, trace


def descend(frozen: Frozen, omega: Tensors, steps: int, lr: float) -> tuple[Tensors, list[float]]:
    """Adam on a frozen inner loss.

    Args:
        frozen: the loss.
        omega: the start, which is left as it is.
        steps: how many.
        lr: the rate.

    Returns:
        ω and the loss before each step.
    """
    omega = {name: value.clone() for name, value in omega.items()}
    optimizer = torch.optim.Adam(list(omega.values()), lr=lr)
    losses = []
    for _ in range(steps):
        value, gradient = frozen.value_and_gradient(omega)
        losses.append(float(value))
        for name, tensor in omega.items():
            tensor.grad = gradient[name]
        optimizer.step()
    return {name: value.detach() for name, value in omega.items()}, losses


def adam_quadratic_solve(hvp: Product, g: Tensors, steps: int = 20, lr: float = 5e-5) -> tuple[Tensors, list[float]]:
    """Minimise ``½ vᵀ H v − vᵀ g`` from v = 0 by Adam [092].

    Args:
        hvp: v → H v.
        g: the right-hand side.
        steps: of Adam; none leave v = 0.
        lr: its rate.

    Returns:
        v, and ``vᵀ (H v − 2 g)`` before each step.
    """
    v = {name: torch.zeros_like(value) for name, value in g.items()}
    optimizer = torch.optim.Adam(list(v.values()), lr=lr)
    trace = []
    for _ in range(steps):
        product = hvp(v)
        trace.append(float(sum((v[n] * (product[n] - 2 * g[n])).sum() for n in g)))
        for name, value in v.items():
            value.grad = product[name] - g[name]
        optimizer.step()
    return {name: value.detach() for name, value in v.items()}, trace
