"""How sharply a network's loss bends, and how that changes in training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from linear_operator import LinearOperator
from torch import Tensor, nn
from torch.func import functional_call

from tangrams.features import ModelRef
from tangrams.features.inputs import Inputs, as_inputs
from tangrams.features.outputs import logits_of
from tangrams.nn.optim import AdaBelief
from tangrams.operators import eigsh
from tangrams.operators.curvature import GaussNewtonOperator, HessianOperator, PreconditionedCurvature

Loss = Callable[[Tensor, Tensor], Tensor]

_MOMENTS = ("max_exp_avg_sq", "exp_avg_sq", "variance")
"""Under which names optimisers keep what they divide by the root of: AMSGrad, Adam, AdaBelief."""


class StochasticLossError(ValueError):
    """A loss differs between two evaluations, so it has no curvature: something in the model draws in eval mode."""


class Sharpness(NamedTuple):
    """The top of a curvature's spectrum.

    Attributes:
        value: the algebraically largest eigenvalue.
        vector: its unit eigenvector, ``(p,)``.
    """

    value: float
    vector: Tensor


class TraceEstimate(NamedTuple):
    """A stochastic trace.

    Attributes:
        value: the mean over probes.
        standard_error: of that mean.
    """

    value: float
    standard_error: float


class _Outputs:
    """Named parameters → the outputs of a network on fixed samples; the network is left as it was."""

    def __init__(self, ref: ModelRef, inputs: Inputs) -> None:
        self.ref, self.inputs = ref, inputs

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        with self.ref.session() as model:
            return logits_of(self.inputs.call(lambda *a, **k: functional_call(model, dict(parameters), a, k)))


class _Loss:
    """Outputs → the loss against fixed targets."""

    def __init__(self, loss: Loss, targets: Tensor) -> None:
        self.loss, self.targets = loss, targets

    def __call__(self, outputs: Tensor) -> Tensor:
        return self.loss(outputs, self.targets)


class _Composed:
    """Named parameters → the loss."""

    def __init__(self, outputs: _Outputs, loss: _Loss) -> None:
        self.outputs, self.loss = outputs, loss

    def __call__(self, parameters: Mapping[str, Tensor]) -> Tensor:
        return self.loss(self.outputs(parameters))


def loss_hessian(model: nn.Module, loss: Loss, x: Any, y: Tensor) -> HessianOperator:
    """The Hessian of a network's loss in its trainable parameters, in eval mode [062].

    A ``StochasticLossError`` says that two evaluations differ; parameters below float32 are a ``ValueError``.

    Args:
        model: the network; read at its present weights and left as it was.
        loss: (outputs, targets) → a scalar, meaned as in training.
        x: samples, as the model is called with.
        y: targets.
    """
    outputs, of_outputs, at = _parts(model, loss, x, y)
    return HessianOperator(loss=_Composed(outputs, of_outputs), at=at)


def loss_gauss_newton(model: nn.Module, loss: Loss, x: Any, y: Tensor) -> GaussNewtonOperator:
    """The Gauss–Newton matrix of a network's loss, as :func:`loss_hessian` [062].

    Args:
        model: as in :func:`loss_hessian`.
        loss: as in :func:`loss_hessian`.
        x: as in :func:`loss_hessian`.
        y: targets.
    """
    outputs, of_outputs, at = _parts(model, loss, x, y)
    return GaussNewtonOperator(outputs=outputs, loss=of_outputs, at=at)


def _parts(model: nn.Module, loss: Loss, x: Any, y: Tensor) -> tuple[_Outputs, _Loss, dict[str, Tensor]]:
    outputs = _Outputs(ModelRef(model), as_inputs(x, "loss_hessian").detached())
    of_outputs = _Loss(loss, y)
    at = {name: p.detach().clone() for name, p in outputs.ref.model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        first = of_outputs(outputs(at))
        device = next((p.device for p in at.values()), torch.device("cpu"))
        # Another seed: a session puts the random state back, so that the same draws would come twice.
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(0x5EED)
            second = of_outputs(outputs(at))
    if first.ndim != 0:
        raise ValueError(f"the loss must be a scalar, got shape {tuple(first.shape)}: take its mean")
    if not torch.equal(first, second):
        raise StochasticLossError(
            f"the loss of {type(model).__name__} differs between two evaluations in eval mode "
            f"({float(first):.6g} and {float(second):.6g}): fix what it draws"
        )
    return outputs, of_outputs, at


def sharpness(operator: LinearOperator, *, rtol: float = 1e-3, max_iterations: int = 200) -> Sharpness:
    """The algebraically largest eigenvalue of a curvature, by :func:`tangrams.operators.eigsh` on products [062].

    Of the smallest one: ``sharpness(-operator)``; the one of largest magnitude is the larger of both.

    Args:
        operator: symmetric.
        rtol: residual ``‖A v − λ v‖`` relative to |λ|.
        max_iterations: the most block products.
    """
    n = operator.shape[0]
    # Small ones are formed; for others the budget keeps the route of products, and a basis of at most n/2 columns.
    budget = 2 << 30 if n <= 100 else min(2 << 30, 8 * n * n)
    values, vectors = eigsh(operator, 1, rtol=rtol, memory_budget=budget, max_iterations=max_iterations)
    return Sharpness(float(values[0]), vectors[:, 0])


def trace_estimate(
    operator: LinearOperator, probes: int = 32, *, generator: torch.Generator | None = None
) -> TraceEstimate:
    """Hutchinson's trace with Rademacher probes [062].

    Args:
        operator: square.
        probes: how many.
        generator: draws; a fixed seed by default.

    Raises:
        ValueError: if there are fewer than two probes.
    """
    if probes < 2:
        raise ValueError(f"trace_estimate needs two or more probes, got {probes}")
    generator = generator or torch.Generator().manual_seed(0)
    signs = torch.randint(0, 2, (operator.shape[0], probes), generator=generator) * 2 - 1
    z = signs.to(dtype=operator.dtype, device=operator.device)
    forms = (z * _product(operator, z)).sum(0).double()
    return TraceEstimate(float(forms.mean()), float(forms.std() / probes**0.5))


def directional_sharpness(operator: LinearOperator, direction: Tensor) -> float:
    """``dᵀ A d / ‖d‖²``, the curvature that a step along d meets [062].

    Args:
        operator: symmetric, ``(p, p)``.
        direction: d, ``(p,)``.

    Raises:
        ValueError: if the direction is zero or of another length.
    """
    if direction.shape != operator.shape[:1]:
        raise ValueError(
            f"directional_sharpness needs a direction of length {operator.shape[0]}, got {direction.shape}"
        )
    energy = float(direction.double().square().sum())
    if not energy > 0:
        raise ValueError("directional_sharpness needs a direction other than zero")
    return float((direction * _product(operator, direction)).double().sum()) / energy


def _product(operator: LinearOperator, v: Tensor) -> Tensor:
    product = operator @ v
    assert isinstance(product, Tensor)  # of an operator and a tensor
    return product


def step_scales(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    r"""The diagonal P by which an optimiser turns a gradient into a step: rates, over ``\sqrt{v} + ε`` for Adam [062].

    Args:
        model: the network.
        optimizer: SGD, Adam, AdamW or :class:`~tangrams.nn.optim.AdaBelief`; before the first step of the latter three
            P is the rates alone.

    Returns:
        Name of each trainable parameter → its entries of P; zero for those that the optimiser does not have.

    Raises:
        ValueError: for an optimiser whose steps are no such multiple of the gradient, or of a kind that is not known.
    """
    if not isinstance(optimizer, torch.optim.SGD | torch.optim.Adam | torch.optim.AdamW | AdaBelief):
        raise ValueError(
            f"step_scales knows how SGD, Adam, AdamW and AdaBelief scale a gradient, not {type(optimizer).__name__}"
        )
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    scales = {}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        group = groups.get(id(p))
        scale = torch.full_like(p, 0.0 if group is None else float(group["lr"]), requires_grad=False)
        state = optimizer.state.get(p, {})
        moment = next((state[key] for key in _MOMENTS if key in state), None)
        if group is not None and moment is not None:
            corrected = moment / (1 - group["betas"][1] ** float(state["step"]))
            scale = scale / (corrected.sqrt() + group["eps"])
        scales[name] = scale.detach()
    return scales


class SharpnessTracker:
    r"""Sharpness and loss of a network on fixed samples, every so many steps of its training [062].

    With an optimiser, the sharpness is that of ``P^{1/2} H P^{1/2}``, P being its rates (:func:`step_scales`):
    full-batch gradient descent is at the edge of stability at 2, with momentum β at 2 (1 + β), Adam at
    ``2 (1 + β_1) / (1 − β_1)``, 38 for its default. So networks with a rate per layer, and the same one in any
    parametrization, can be compared.

    Args:
        model: the network.
        loss: as in :func:`loss_hessian`.
        x: samples.
        y: targets.
        optimizer: whose coordinates count; those of the parameters by default.
        every: steps between two measurements.
        rtol: as in :func:`sharpness`.

    Raises:
        ValueError: if ``every < 1``.

    Attributes:
        steps: when it was measured.
        values: the largest eigenvalue then.
        losses: the loss then.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        x: Any,
        y: Tensor,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        every: int = 10,
        rtol: float = 1e-2,
    ) -> None:
        if every < 1:
            raise ValueError(f"SharpnessTracker needs every ≥ 1, got {every}")
        self.model, self.loss, self.x, self.y, self.every, self.rtol = model, loss, x, y, every, rtol
        self.optimizer = optimizer
        self.steps: list[int] = []
        self.values: list[float] = []
        self.losses: list[float] = []
        self._now = 0

    def step(self) -> None:
        """Call it before every training step: it measures at the first one and every ``every`` steps from then on."""
        if self._now % self.every == 0:
            H = loss_hessian(self.model, self.loss, self.x, self.y)
            self.steps.append(self._now)
            if self.optimizer is None:
                curvature = H
            else:
                curvature = PreconditionedCurvature(curvature=H, scales=step_scales(self.model, self.optimizer))
            self.values.append(sharpness(curvature, rtol=self.rtol).value)
            with torch.no_grad():
                self.losses.append(float(H.loss(H.at)))
        self._now += 1
