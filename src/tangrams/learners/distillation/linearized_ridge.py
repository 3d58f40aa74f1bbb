"""The convexified inner problem: the body linearised at the network's weights, the head by ridge regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jacrev, jvp, vjp, vmap

from tangrams.learners.distillation.inner import Frozen, InnerProblem, Tensors, inner_product, ridge_factor

_BIAS = "head.bias"
_JACOBIAN_BYTES = 1 << 25
"""The most that J may take to be held: a product with what no cache holds costs as much as one through the network."""


class LinearizedRidge(InnerProblem):
    r"""Training on a synthetic set, convexified twice [092].

    With h(x) the features at the network's weights θ, K their inner products, and
    :math:`g(x; ω) = J(x)\, ω` the change of the outputs to first order in the body's weights and the head's bias,

    .. math::
        f(x) = g(x) + K_{xs} (K_{ss} + λI)^{-1} (Y_s - g(X_s)), \qquad
        L_s = \frac{λ}{2 n_s C} \bigl( r^T (K_{ss} + λI)^{-1} r + ‖ω‖^2 \bigr), \quad r = Y_s - g(X_s),

    the ridge loss at its best head. It is quadratic in ω, with Hessian
    :math:`\frac{λ}{n_s C} (J_s^T (K_{ss} + λI)^{-1} J_s + I)`. At ω = 0, f is kernel regression on the features. The
    head's weights have no tangent: the ridge replaces them.

    Args:
        network: with a body and a linear head.
        ridge: λ.
        support: images → those that the network is trained on.
    """

    def zeros(self) -> Tensors:
        """No change of the body and of the head's bias."""
        found = {name: torch.zeros_like(p) for name, p in self.base.items()}
        found[_BIAS] = torch.zeros(self.head.out_features, dtype=self.head.weight.dtype, device=self.head.weight.device)
        return found

    def loss(self, omega: Tensors, hyper: Tensors) -> Tensor:
        """L_s."""
        images, labels = self.set_of(hyper)
        h, g = self._dual(omega, images)
        r = (labels - g).double()
        alpha = torch.cholesky_solve(r, ridge_factor(h, self.ridge))
        return self._scale(labels) / 2 * ((r * alpha).sum().to(h.dtype) + inner_product(omega, omega))

    def outputs(self, omega: Tensors, hyper: Tensors, x: Tensor) -> Float[Tensor, "n C"]:
        """F at real samples: their tangents are taken forwards, and pulled back by one backward pass."""
        images, labels = self.set_of(hyper)
        h_s, g_s = self._dual(omega, images)
        h_x, g_x = self._pushed(omega, x)
        alpha = torch.cholesky_solve((labels - g_s).double(), ridge_factor(h_s, self.ridge)).to(h_s.dtype)
        return g_x + h_x @ (h_s.mT @ alpha)

    def freeze(self, hyper: Tensors) -> Frozen:
        """The quadratic at a fixed ψ: one factorisation, then a push and a pull for each product."""
        images, labels = self.set_of({name: value.detach() for name, value in hyper.items()})
        h, push, pull = self._linear_map(images)
        L, scale = ridge_factor(h, self.ridge), self._scale(labels)
        solve = lambda u: torch.cholesky_solve(u.double(), L).to(u.dtype)  # noqa: E731

        @torch.no_grad()
        def value_and_gradient(omega: Tensors) -> tuple[Tensor, Tensors]:
            r = labels - push(omega)
            alpha = solve(r)
            back = pull(alpha)
            value = scale / 2 * ((r * alpha).sum() + inner_product(omega, omega))
            return value, {n: scale * (w - back[n]) for n, w in omega.items()}

        @torch.no_grad()
        def hessian_product(omega: Tensors, vector: Tensors) -> Tensors:
            back = pull(solve(push(vector)))
            return {n: scale * (v + back[n]) for n, v in vector.items()}

        return Frozen(value_and_gradient, hessian_product)

    def _linear_map(self, images: Tensor) -> tuple[Tensor, Callable[[Tensors], Tensor], Callable[[Tensor], Tensors]]:
        """Features, and J as two products: with its entries where they are few, through the network where not."""
        W = self.head.weight.detach()
        sizes = {name: p.numel() for name, p in self.base.items()}
        if len(images) * len(W) * sum(sizes.values()) * W.element_size() > _JACOBIAN_BYTES:
            pulled: Any = vjp(lambda p: self.run_body(p, images), self.base)
            h, through = pulled
            return (
                h,
                lambda omega: self._dual(omega, images)[1],
                lambda u: {**through(u @ W)[0], _BIAS: u.sum(0)},
            )
        single = lambda p, x: self.run_body(p, x[None])[0] @ W.mT  # noqa: E731
        blocks = vmap(jacrev(single), (None, 0))(self.base, images)  # name → (n, C, …)
        J = torch.cat([blocks[name].flatten(2) for name in sizes], 2).flatten(0, 1)  # (n·C, p)
        with torch.no_grad():
            h = self.run_body(self.base, images)

        def push(omega: Tensors) -> Tensor:
            return (J @ torch.cat([omega[name].flatten() for name in sizes])).reshape(len(images), -1) + omega[_BIAS]

        def pull(u: Tensor) -> Tensors:
            parts = (J.mT @ u.flatten()).split(list(sizes.values()))
            back = {n: part.reshape(self.base[n].shape) for n, part in zip(sizes, parts, strict=True)}
            return {**back, _BIAS: u.sum(0)}

        return h, push, pull

    def slope(self, omega: Tensors, vector: Tensors, hyper: Tensors) -> Tensor:
        """⟨v, ∂L_s/∂ω⟩ = λ/(n_s C) (⟨ω, v⟩ − tr rᵀ (K + λI)⁻¹ g(X_s; v))."""
        images, labels = self.set_of(hyper)
        h, g = self._dual(omega, images)
        along = self._dual(vector, images)[1]
        alpha = torch.cholesky_solve((labels - g).double(), ridge_factor(h, self.ridge)).to(h.dtype)
        return self._scale(labels) * (inner_product(omega, vector) - (alpha * along).sum())

    def _scale(self, labels: Tensor) -> float:
        return self.ridge / labels.numel()

    def _dual(self, omega: Tensors, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(h, g)``: features, and the outputs' change along ω."""
        body = {name: omega[name] for name in self.base}
        pushed: Any = jvp(lambda p: self.run_body(p, x), (self.base,), (body,))
        h, dh = pushed
        return h, dh @ self.head.weight.detach().mT + omega[_BIAS]

    def _pushed(self, omega: Tensors, x: Tensor) -> tuple[Tensor, Tensor]:
        """The same without a graph but for ω in g.

        Forward mode under a backward pass is dear on a large batch. The gradient of J ω in ω is that of the features in
        their weights, so features at θ + (ω − ω) carry it.
        """
        with torch.no_grad():
            h, g = self._dual({name: value.detach() for name, value in omega.items()}, x)
        if not any(value.requires_grad for value in omega.values()):
            return h, g
        moved = {name: p + (omega[name] - omega[name].detach()) for name, p in self.base.items()}
        carrier = self.run_body(moved, x) @ self.head.weight.detach().mT + omega[_BIAS]
        return h, g + (carrier - carrier.detach())
