"""Damped dual Gauss–Newton for cascades of spline packages: every step solves for a batch's outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.nn.polyharmonic import PolyharmonicCascade, SplinePackage

_RETRIES = 12


@dataclass(frozen=True)
class CascadeStep:
    """What one step of the solver did.

    Attributes:
        loss: mean squared error of the batch before the step.
        alpha: the damping that was used; above the one asked for where the system was not positive definite.
        radius: for each package the largest norm of what it saw; splines only extrapolate far outside the unit ball.
    """

    loss: float
    alpha: float
    radius: tuple[float, ...]


class CascadeSolver:
    r"""Trains a :class:`~tangrams.nn.PolyharmonicCascade` without a learning rate [097].

    For a batch with residuals e, every model's values move by

    .. math:: \Delta V = J^T (J J^T + α I)^{-1} e, \qquad J J^T = \sum_l (H_l H_l^T) \circ (G_l G_l^T),

    with the features H of package l and the gradients G of the outputs in what it gave, by closed-form pullbacks: the
    tangent Gram of the batch, from inner products alone. Of a model with C outputs the system is of size n · C. The
    signs of e, by which the authors scale the gradients, cancel.

    Args:
        cascade: changed in place by every step.
    """

    def __init__(self, cascade: PolyharmonicCascade) -> None:
        self.cascade = cascade

    @torch.no_grad()
    def step(self, x: Float[Tensor, "n m"], y: Float[Tensor, "n outputs"], alpha: float) -> CascadeStep:
        """One batch; nothing changes where it is refused.

        Args:
            x: samples.
            y: what the cascade should give.
            alpha: α, the damping; the larger, the smaller the step.

        Raises:
            ValueError: if α is not positive or y has another shape than the outputs.
            FloatingPointError: if outputs or gradients overflow, or no damping makes the system positive definite.
        """
        if not alpha > 0:
            raise ValueError(f"CascadeSolver needs alpha > 0, got {alpha}")
        models, C = self.cascade.num_models, self.cascade.widths[-1]
        if y.shape != (len(x), models * C):
            raise ValueError(f"CascadeSolver needs y of shape {(len(x), models * C)}, got {tuple(y.shape)}")
        inputs, features, outputs = self._forward(x)
        e = y.to(outputs.dtype).reshape(len(y), models, C).movedim(1, 0) - outputs  # (K, n, C)
        radius = tuple(float(x.norm(dim=-1).max()) for x in inputs)
        if not bool(torch.isfinite(e).all()):
            raise FloatingPointError(f"CascadeSolver: outputs overflow; normalise the data, or raise alpha ({alpha:g})")
        gradients = self._gradients(inputs, e)
        used, updates = alpha, []
        shared = features[0] @ features[0].mT  # all models see the same samples
        for model in range(models):  # one at a time: a batch's Gram matrices are what takes memory
            H = [h if h.ndim == 2 else h[model] for h in features]
            G = [g[:, model].movedim(0, 1) for g in gradients]  # (n, C, m)
            q, damping = _damped_solve(_tangent_gram(shared, H, G), e[model].reshape(-1, 1), alpha)
            q = q.to(e.dtype).reshape(-1, C, 1)
            used = max(used, damping)
            updates.append([h.mT @ (g * q).sum(1) for h, g in zip(H, G, strict=True)])
        for package, *update in zip(self._packages(), *updates, strict=True):
            package.values += torch.stack(update)
        return CascadeStep(float(e.square().mean()), used, radius)

    def _packages(self) -> list[SplinePackage]:
        return list(self.cascade.packages)  # type: ignore[arg-type]

    def _forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Inputs and features of all packages, and the outputs."""
        inputs, features = [], []
        for package in self._packages():
            inputs.append(x)
            features.append(package.features(x))
            x = features[-1] @ package.values
        return inputs, features, x

    def _gradients(self, inputs: list[Tensor], like: Tensor) -> list[Tensor]:
        """Gradients of every output in what each package gave, ``(C, K, n, m)``."""
        K, n, C = like.shape
        g = torch.eye(C, dtype=like.dtype, device=like.device)[:, None, None].expand(C, K, n, C)
        found = [g]
        for package, x in zip(self._packages()[:0:-1], inputs[:0:-1], strict=True):
            g = package.pullback(x, g)
            found.append(g)
        return found[::-1]


def _tangent_gram(shared: Tensor, features: list[Tensor], gradients: list[Tensor]) -> Float[Tensor, "nC nC"]:
    """``J Jᵀ`` of one model, sample-major: the feature and gradient Grams of every package, multiplied and added.

    Args:
        shared: the Gram of the first package's features.
        features: H of every package, ``(n, ·)``.
        gradients: G of every package, ``(n, C, ·)``.
    """
    n, C, _ = gradients[0].shape
    T = torch.zeros(n, C, n, C, dtype=shared.dtype, device=shared.device)
    for layer, (h, g) in enumerate(zip(features, gradients, strict=True)):
        flat = g.reshape(n * C, -1)
        gram = shared if layer == 0 else h @ h.mT
        T += gram[:, None, :, None] * (flat @ flat.mT).reshape(n, C, n, C)
    return T.reshape(n * C, n * C)


def _damped_solve(T: Tensor, e: Tensor, alpha: float) -> tuple[Tensor, float]:
    """``(T + αI)⁻¹ e`` in float64, with α raised tenfold while rounding makes the system indefinite."""
    T = T.to(torch.float64)
    if not bool(torch.isfinite(T).all()):
        raise FloatingPointError(f"CascadeSolver: gradients overflow; normalise the data, or raise alpha ({alpha:g})")
    for _ in range(_RETRIES):
        damped = T.clone()
        damped.diagonal().add_(alpha)
        factor, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            return torch.cholesky_solve(e.to(torch.float64), factor), alpha
        alpha *= 10
    raise FloatingPointError("CascadeSolver: rounding dwarfs every damping; normalise the data")
