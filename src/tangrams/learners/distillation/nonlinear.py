"""The inner problems that are not convexified: what the convex one is compared with."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from tangrams.learners.distillation.inner import InnerProblem, Tensors, inner_product, ridge_factor


class NonlinearRidge(InnerProblem):
    r"""A head by ridge regression on a body that is trained as it is: reparametrised, but not convex [092].

    :math:`L_s = \frac{λ}{2 n_s C} (Y^T (K + λI)^{-1} Y + ‖ω‖^2)` with K of the features at θ + ω.

    Args:
        network: with a body and a linear head.
        ridge: λ.
        support: images → those that the network is trained on.
    """

    def zeros(self) -> Tensors:
        """No change of the body."""
        return {name: torch.zeros_like(p) for name, p in self.base.items()}

    def loss(self, omega: Tensors, hyper: Tensors) -> Tensor:
        """L_s."""
        images, labels = self.set_of(hyper)
        h = self._features(omega, images)
        alpha = torch.cholesky_solve(labels.double(), ridge_factor(h, self.ridge)).to(h.dtype)
        return self.ridge / (2 * labels.numel()) * ((labels * alpha).sum() + inner_product(omega, omega))

    def outputs(self, omega: Tensors, hyper: Tensors, x: Tensor) -> Float[Tensor, "n C"]:
        """Kernel regression on the features at θ + ω."""
        images, labels = self.set_of(hyper)
        h = self._features(omega, images)
        alpha = torch.cholesky_solve(labels.double(), ridge_factor(h, self.ridge)).to(h.dtype)
        return self._features(omega, x) @ (h.mT @ alpha)

    def _features(self, omega: Tensors, x: Tensor) -> Tensor:
        return self.run_body({name: p + omega[name] for name, p in self.base.items()}, x)


class PlainNetwork(InnerProblem):
    r"""The whole network trained by squared error with weight decay: neither reparametrised nor convex [092].

    :math:`L_s = \frac{1}{2 n_s C} (‖Y - f(X; θ + ω)‖^2 + λ ‖ω‖^2)`.

    Args:
        network: with a body and a linear head.
        ridge: λ.
        support: images → those that the network is trained on.
    """

    def zeros(self) -> Tensors:
        """No change of the body and the head."""
        found = {f"body.{name}": torch.zeros_like(p) for name, p in self.base.items()}
        return found | {f"head.{name}": torch.zeros_like(p) for name, p in self.head.named_parameters()}

    def loss(self, omega: Tensors, hyper: Tensors) -> Tensor:
        """L_s."""
        images, labels = self.set_of(hyper)
        residual = labels - self.outputs(omega, hyper, images)
        return (residual.square().sum() + self.ridge * inner_product(omega, omega)) / (2 * labels.numel())

    def outputs(self, omega: Tensors, hyper: Tensors, x: Tensor) -> Float[Tensor, "n C"]:
        """The network's."""
        h = self.run_body({name: p + omega[f"body.{name}"] for name, p in self.base.items()}, x)
        head = {name: p.detach() + omega[f"head.{name}"] for name, p in self.head.named_parameters()}
        return functional_call(self.head, head, (h,))
