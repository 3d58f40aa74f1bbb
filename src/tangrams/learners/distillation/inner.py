"""The inner problem of data set distillation: what a network does when it is trained on a synthetic set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Frozen:
    """The inner loss on a synthetic set that is held fixed.

    Attributes:
        value_and_gradient: ω → loss, its gradient.
        hessian_product: ``(ω, v)`` → the Hessian at ω times v.
    """

    value_and_gradient: Callable[[Tensors], tuple[Tensor, Tensors]]
    hessian_product: Callable[[Tensors, Tensors], Tensors]


class InnerProblem(ABC):
    r"""A loss :math:`L_s(ω, ψ)` of parameters ω and a synthetic set ψ, and what a network with these ω answers.

    ψ is a dict with ``images`` and ``labels``. A member writes :meth:`zeros`, :meth:`loss` and :meth:`outputs`; the
    derivatives come from autograd unless it knows better.

    Args:
        network: with a ``body`` and a linear ``head``, or a ``Sequential`` that ends with one.
        ridge: λ > 0.
        support: images → those that the network is trained on; labels are repeated to their number.

    Raises:
        ValueError: if the ridge is not positive.
    """

    def __init__(self, network: nn.Module, ridge: float, support: Callable[[Tensor], Tensor] | None = None) -> None:
        if not ridge > 0:
            raise ValueError(f"{type(self).__name__} needs a ridge λ > 0, got {ridge}")
        self.body, self.head = split_head(network)
        self.ridge = float(ridge)
        self.base = {name: p.detach() for name, p in self.body.named_parameters()}
        self._support = support

    @abstractmethod
    def zeros(self) -> Tensors:
        """Where ω starts."""

    @abstractmethod
    def loss(self, omega: Tensors, hyper: Tensors) -> Tensor:
        """L_s(ω, ψ), differentiable in both."""

    @abstractmethod
    def outputs(self, omega: Tensors, hyper: Tensors, x: Tensor) -> Float[Tensor, "n C"]:
        """Outputs at real samples, differentiable once in ω and ψ."""

    def freeze(self, hyper: Tensors) -> Frozen:
        """The loss, its gradient and Hessian products at a fixed ψ."""
        hyper = {name: value.detach() for name, value in hyper.items()}

        def differentiate(omega: Tensors) -> tuple[list[Tensor], Tensor, tuple[Tensor, ...]]:
            leaves = [value.detach().requires_grad_() for value in omega.values()]
            with torch.enable_grad():
                value = self.loss(dict(zip(omega, leaves, strict=True)), hyper)
                return leaves, value, torch.autograd.grad(value, leaves, create_graph=True)

        def value_and_gradient(omega: Tensors) -> tuple[Tensor, Tensors]:
            _, value, gradient = differentiate(omega)
            return value.detach(), {n: g.detach() for n, g in zip(omega, gradient, strict=True)}

        def hessian_product(omega: Tensors, vector: Tensors) -> Tensors:
            leaves, _, gradient = differentiate(omega)
            with torch.enable_grad():
                along = inner_product(dict(zip(omega, gradient, strict=True)), vector)
            found = torch.autograd.grad(along, leaves, materialize_grads=True)
            return dict(zip(omega, found, strict=True))

        return Frozen(value_and_gradient, hessian_product)

    def slope(self, omega: Tensors, vector: Tensors, hyper: Tensors) -> Tensor:
        """⟨v, ∂L_s/∂ω⟩, differentiable in ψ: its gradient there is what an implicit gradient needs."""
        leaves = [value.detach().requires_grad_() for value in omega.values()]
        with torch.enable_grad():
            value = self.loss(dict(zip(omega, leaves, strict=True)), hyper)
            gradient = torch.autograd.grad(value, leaves, create_graph=True)
            return inner_product(dict(zip(omega, gradient, strict=True)), vector)

    def set_of(self, hyper: Tensors) -> tuple[Tensor, Tensor]:
        """The images and labels that the network is trained on."""
        images = hyper["images"] if self._support is None else self._support(hyper["images"])
        return images, hyper["labels"].repeat(len(images) // len(hyper["labels"]), 1)

    def run_body(self, parameters: Tensors, x: Tensor) -> Float[Tensor, "n m"]:
        """Features of x with the given parameters; buffers and the mode are the network's own."""
        return functional_call(self.body, parameters, (x,)).flatten(1)


def inner_product(a: Tensors, b: Tensors) -> Tensor:
    """⟨a, b⟩ over all members.

    Args:
        a: tensors by name.
        b: the same names and shapes.
    """
    return torch.stack([(value * b[name]).sum() for name, value in a.items()]).sum()


def split_head(network: nn.Module) -> tuple[nn.Module, nn.Linear]:
    """The body and the linear head of a network.

    Args:
        network: one with attributes ``body`` and ``head``, or a ``Sequential`` whose last module is the head.

    Raises:
        ValueError: if it has no linear head.
    """
    if isinstance(network, nn.Sequential) and len(network) > 1:
        body, head = network[:-1], network[-1]
    else:
        body, head = getattr(network, "body", None), getattr(network, "head", None)
    if not isinstance(body, nn.Module) or not isinstance(head, nn.Linear):
        raise ValueError(
            f"distillation needs a network with a body and a linear head, got a {type(network).__name__}: give it "
            "attributes body and head, or make it a Sequential that ends with a Linear"
        )
    return body, head


def with_mirror(images: Float[Tensor, "n c h w"]) -> Float[Tensor, "k c h w"]:
    """Images, and after them their mirror images: k = 2n."""
    return torch.cat([images, images.flip(-1)])


def ridge_factor(features: Float[Tensor, "n m"], ridge: float) -> Float[Tensor, "n n"]:
    """The Cholesky factor of K + λI for K = HHᵀ, in float64, differentiable.

    Args:
        features: H.
        ridge: λ.

    Raises:
        ValueError: if K + λI is not positive definite: λ is lost in the rounding of a singular K.
    """
    H = features.double()
    L, info = torch.linalg.cholesky_ex(H @ H.mT + ridge * torch.eye(len(H), dtype=H.dtype, device=H.device))
    if int(info) != 0:
        raise ValueError(
            f"K + λI of {len(H)} synthetic samples is not positive definite at λ = {ridge:g}: raise the ridge"
        )
    return L


def ridge_head(features: Float[Tensor, "n m"], targets: Float[Tensor, "n C"], ridge: float) -> Float[Tensor, "m C"]:
    r"""The head :math:`H^T (HH^T + λI)^{-1} Y` that minimises :math:`‖Y - HW‖^2 + λ ‖W‖^2`, differentiable [092].

    Args:
        features: H.
        targets: Y.
        ridge: λ.

    Example:
        >>> ridge_head(torch.tensor([[1.0]]), torch.tensor([[2.0]]), 1.0)
        tensor([[1.]])
    """
    alpha = torch.cholesky_solve(targets.double(), ridge_factor(features, ridge))
    return (features.double().mT @ alpha).to(features.dtype)
