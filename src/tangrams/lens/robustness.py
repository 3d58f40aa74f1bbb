"""How much a prediction moves with its input, and what drives it [001]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.features import FeatureMap
from tangrams.learners.linearized_regressor import flow_coefficients
from tangrams.operators import FeatureMatrix


class RankDeficientError(ValueError):
    """Samples cannot be interpolated: their Gram matrix has too low a rank for the targets."""


@runtime_checkable
class HasKernelGradient(Protocol):
    """What the minimum-norm fit needs of a feature map."""

    def __call__(self, x: Any) -> Tensor:
        """Rows of features, differentiable in ``x``."""
        ...  # a protocol: whoever fits it writes the body

    def gram(self, x: Any, y: Any | None = None) -> Tensor:
        """``Φ(x) Φ(y)ᵀ``."""
        ...  # a protocol: whoever fits it writes the body

    def matrix(self, x: Any) -> FeatureMatrix:
        """The lazy feature matrix."""
        ...  # a protocol: whoever fits it writes the body

    def kernel_gradient(self, z: Tensor, x: Tensor) -> Tensor:
        """∂⟨φ(z), φ(x_i)⟩ / ∂z: ``(b, d, n)``."""
        ...  # a protocol: whoever fits it writes the body


def sensitivity(
    model: Callable[[Tensor], Tensor], z: Float[Tensor, "b *event"], *, scale: float | Tensor | None = None
) -> Float[Tensor, "b"]:
    r"""How fast a scalar prediction changes around each sample, in units of the sample's size [001].

    .. math:: S(z) = \lVert z \rVert \, \lVert \nabla_z f(z) \rVert

    A model is robust where this stays bounded as sizes grow; it is zero for a constant, and |c| times as large for c
    times the model.

    Args:
        model: differentiable; samples to one number each, ``(b,)`` or ``(b, 1)``, independent of one another.
        z: samples.
        scale: what the gradient's norm is multiplied with, such as ``math.sqrt(d)``, one number or one a sample; the
            norms of the samples by default.

    Raises:
        ValueError: if the model gives more than one number a sample, or does not depend on its input.

    Example:
        >>> sensitivity(lambda z: z.square().sum(1), torch.tensor([[3.0, 4.0]]))
        tensor([50.])
    """
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        values = model(z)
        if values.shape not in ((len(z),), (len(z), 1)):
            raise ValueError(f"sensitivity needs one number a sample, got {tuple(values.shape)} for {len(z)} samples")
        if not values.requires_grad:
            raise ValueError("sensitivity needs a model that is differentiable in its input: it gave detached values")
        (gradient,) = torch.autograd.grad(values.sum(), z)
    size = z.detach().flatten(1).norm(dim=1) if scale is None else scale
    return size * gradient.flatten(1).norm(dim=1)


def universal_sensitivity(num_samples: int, in_features: int, num_parameters: int) -> float:
    """√(n d / p): no interpolating model of generic data is less sensitive, up to a constant. Bubeck and Sellke (2021).

    Args:
        num_samples: n.
        in_features: d.
        num_parameters: p.
    """
    return math.sqrt(num_samples * in_features / num_parameters)


@dataclass(frozen=True, eq=False)
class MinNormFit:
    """The interpolating linear model on a feature map that is nearest to its start: where gradient flow ends [001].

    Calling it predicts, differentiably.

    Attributes:
        phi: the map.
        inputs: the samples X.
        targets: Y less what θ₀ predicts, ``(n,)``, float64.
        gram: K, ``(n, n)``, float64.
        dual: α = K⁺ (Y − Φ θ₀), ``(n,)``, float64.
        theta: θ₀ + Φᵀ α, ``(p,)``, float64.
        start: θ₀, or None for zero.
    """

    phi: HasKernelGradient
    inputs: Tensor
    targets: Float[Tensor, "n"]
    gram: Float[Tensor, "n n"]
    dual: Float[Tensor, "n"]
    theta: Float[Tensor, "p"]
    start: Float[Tensor, "p"] | None

    def __call__(self, z: Tensor) -> Float[Tensor, "b"]:
        """Predictions ``φ(z) · θ``."""
        rows = self.phi(z)
        return rows @ self.theta.to(rows)

    @property
    def rank(self) -> int:
        """That of K, in float64."""
        return int(torch.linalg.matrix_rank(self.gram, hermitian=True))

    @cached_property
    def inverse_norm(self) -> float:
        """The operator norm of K⁺."""
        eigenvalues = torch.linalg.eigvalsh(self.gram)
        kept = eigenvalues > len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues[-1]
        return 1 / float(eigenvalues[kept][0])


def min_norm_fit(
    phi: FeatureMap,
    inputs: Tensor,
    targets: Float[Tensor, "n"],
    *,
    theta0: Float[Tensor, "p"] | None = None,
    rtol: float = 1e-6,
) -> MinNormFit:
    r"""Where gradient flow on squares ends: :math:`θ_0 + Φ^+ (Y - Φ θ_0)`, the pseudo-inverse through the Gram [001].

    Args:
        phi: a map with ``kernel_gradient``, such as :class:`~tangrams.features.RandomFeatures`.
        inputs: samples X.
        targets: Y.
        theta0: θ₀; zero by default.
        rtol: the largest residual, relative to the targets'.

    Raises:
        TypeError: if the map has no ``kernel_gradient``.
        ValueError: if targets are not one a sample.
        RankDeficientError: if the targets are not interpolated.
    """
    if not isinstance(phi, HasKernelGradient):
        raise TypeError(
            f"min_norm_fit needs a map with kernel_gradient, got {type(phi).__name__}: RandomFeatures and "
            "ShallowTangentFeatures have it"
        )
    if targets.shape != (len(inputs),):
        raise ValueError(f"min_norm_fit needs one target a sample, got {tuple(targets.shape)} for {len(inputs)}")
    x = inputs.detach().double()
    K, y = phi.gram(x), targets.detach().to(x)
    matrix = phi.matrix(x)
    if theta0 is not None:
        y = y - (matrix @ theta0.to(x)[:, None])[:, 0]
    dual = flow_coefficients(K, y[:, None], 0.0, math.inf)
    residual = float((K @ dual - y[:, None]).norm() / y.norm().clamp_min(1e-300))
    if residual > rtol:
        rank = int(torch.linalg.matrix_rank(K, hermitian=True))
        raise RankDeficientError(
            f"min_norm_fit: the Gram matrix of {len(x)} samples has rank {rank}, the relative residual is "
            f"{residual:.1e}: take more features, or drop repeated samples"
        )
    theta = (matrix.mT @ dual)[:, 0]
    if theta0 is not None:
        theta = theta + theta0.to(x)
    return MinNormFit(phi, x, y, K, dual[:, 0], theta, None if theta0 is None else theta0.detach().to(x))


def interaction_matrix(
    phi: HasKernelGradient, z: Float[Tensor, "d"], inputs: Float[Tensor, "n d"], *, center: bool = True
) -> Float[Tensor, "d n"]:
    r""":math:`I(z) = J(z) (Φ - 1 \bar φ^T)^T`, J the Jacobian of φ at z: how samples act on its gradient [001].

    The gradient of a minimum-norm fit is :math:`J(z) Φ^T K^{-1} Y`.

    Args:
        phi: the map.
        z: one sample.
        inputs: samples X.
        center: whether the mean over the samples is taken off the features.
    """
    found = phi.kernel_gradient(z[None], inputs)[0]
    return found - found.mean(1, keepdim=True) if center else found


@dataclass(frozen=True)
class SensitivityParts:
    """A minimum-norm fit's sensitivity at one sample, and what bounds it: S ≤ ‖z‖ ‖I‖ ‖K⁻¹‖ ‖Y‖ for θ₀ = 0 [001].

    Attributes:
        sensitivity: S(z).
        size: ‖z‖.
        interaction: the operator norm of I(z), features not centred.
        centred_interaction: that of I(z) with centred features.
        inverse_gram: the operator norm of K⁺.
        targets: ‖Y‖.
    """

    sensitivity: float
    size: float
    interaction: float
    centred_interaction: float
    inverse_gram: float
    targets: float

    @property
    def bound(self) -> float:
        """The product that S does not exceed."""
        return self.size * self.interaction * self.inverse_gram * self.targets


def sensitivity_parts(fit: MinNormFit, z: Float[Tensor, "b d"]) -> tuple[SensitivityParts, ...]:
    """Decompose the sensitivity of a minimum-norm fit at each sample.

    Args:
        fit: with θ₀ = 0.
        z: the samples.

    Raises:
        ValueError: if the fit does not start at zero.
    """
    if fit.start is not None:
        raise ValueError("sensitivity_parts needs a fit from θ₀ = 0: the gradient of another start is not in the span")
    z = z.detach().to(fit.inputs)
    interactions = fit.phi.kernel_gradient(z, fit.inputs)
    sizes = z.norm(dim=1)
    slopes = (interactions @ fit.dual).norm(dim=1)
    norms = _operator_norms(interactions)
    centred = _operator_norms(interactions - interactions.mean(2, keepdim=True))
    inverse_gram, targets = fit.inverse_norm, float(fit.targets.norm())
    columns = (column.tolist() for column in (sizes * slopes, sizes, norms, centred))
    return tuple(
        SensitivityParts(S, size, norm, around_mean, inverse_gram, targets)
        for S, size, norm, around_mean in zip(*columns, strict=True)
    )


def _operator_norms(A: Float[Tensor, "b r c"]) -> Float[Tensor, "b"]:
    """The largest singular values, from the smaller of A Aᵀ and Aᵀ A."""
    square = A @ A.mT if A.shape[1] <= A.shape[2] else A.mT @ A
    return torch.linalg.eigvalsh(square)[:, -1].clamp_min(0).sqrt()
