"""Gradients through the minimiser of an inner problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tangrams.learners.distillation.inner import Frozen, InnerProblem, Tensors

Solver = Callable[[Callable[[Tensors], Tensors], Tensors], tuple[Tensors, list[float]]]
"""``(hvp, g) → (v, trace)``: v with H v ≈ g, and the quadratic ``vᵀ (H v − 2 g)`` before each step."""


OuterLoss = Callable[[Tensors, Tensors], Tensor]
"""``(ω, ψ) → L_t``, differentiable in both."""


@dataclass(frozen=True)
class ImplicitGradient:
    """The two parts of a hyper-gradient.

    Attributes:
        value: the outer loss.
        direct: its gradient with the inner parameters held.
        implicit: what their movement adds.
        trace: of the solver.
    """

    value: float
    direct: Tensors
    implicit: Tensors
    trace: list[float]

    def clipped(self) -> Tensors:
        """Direct plus implicit, the latter scaled per leaf to a norm of at most the direct one's.

        An implicit part of zero norm, or one that is not finite, adds nothing.
        """
        found = {}
        for name, direct in self.direct.items():
            implicit = self.implicit[name]
            ratio = (direct.norm() / implicit.norm()).nan_to_num(0.0, posinf=0.0).clamp(max=1.0)
            found[name] = direct + (ratio * implicit).nan_to_num(0.0, posinf=0.0, neginf=0.0)
        return found


def implicit_gradient(
    problem: InnerProblem,
    outer_loss: OuterLoss,
    omega: Tensors,
    hyper: Tensors,
    solver: Solver,
    *,
    frozen: Frozen | None = None,
) -> ImplicitGradient:
    r"""The gradient of an outer loss in ψ through ω*(ψ), the minimiser of the inner one [092].

    .. math::
        \frac{dL_t}{dψ} = \frac{∂L_t}{∂ψ} - \frac{∂}{∂ψ} \Bigl\langle v, \frac{∂L_s}{∂ω} \Bigr\rangle, \qquad
        H v = \frac{∂L_t}{∂ω}, \quad H = \frac{∂^2 L_s}{∂ω^2}

    Args:
        problem: L_s.
        outer_loss: L_t.
        omega: ω*, or what is near it.
        hyper: ψ; members that the inner loss does not read get the direct part alone.
        solver: finds v.
        frozen: the inner loss at ψ, where it was made before.
    """
    omega = {name: value.detach().requires_grad_() for name, value in omega.items()}
    hyper = {name: value.detach().requires_grad_() for name, value in hyper.items()}
    with torch.enable_grad():
        value = outer_loss(omega, hyper)
        found = torch.autograd.grad(value, [*omega.values(), *hyper.values()], materialize_grads=True)
    gradient = dict(zip(omega, found, strict=False))
    direct = dict(zip(hyper, found[len(omega) :], strict=True))
    frozen = frozen or problem.freeze(hyper)
    at = {name: w.detach() for name, w in omega.items()}
    v, trace = solver(lambda vector: frozen.hessian_product(at, vector), gradient)
    with torch.enable_grad():
        slope = problem.slope(at, v, hyper)
        implicit = torch.autograd.grad(slope, list(hyper.values()), materialize_grads=True)
    return ImplicitGradient(
        float(value.detach()), direct, {name: -g for name, g in zip(hyper, implicit, strict=True)}, trace
    )
