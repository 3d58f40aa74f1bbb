"""Layers that are interpolants: packages of polyharmonic splines on shared nodes, and cascades of them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tangrams.operators import solve
from tangrams.operators.constellation import (
    OFFSET,
    SHIFT,
    InverseEntries,
    constellation_features,
    constellation_nodes,
    constellation_pullback,
    constellation_solve,
)

Initializer = Callable[[Tensor, torch.Generator | None], Any]
"""Fills a package's values, ``(*batch_shape, 2m + 1, out)``, in place."""


@torch.no_grad()
def identity_(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Values of the identity: every node is mapped to itself.

    Args:
        values: filled in place.
        generator: not used.

    Raises:
        ValueError: if the package does not map a space to itself.
    """
    m, out = values.shape[-2] // 2, values.shape[-1]
    if m != out:
        raise ValueError(f"identity_ needs as many outputs as inputs, got {m} inputs and {out} outputs: use uniform_")
    return values.copy_(constellation_nodes(m, values.dtype, values.device))


@torch.no_grad()
def uniform_(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Independent values, uniform in ``(−1, 1)/√m``.

    Args:
        values: filled in place.
        generator: draws them; the global stream by default.
    """
    bound = 1 / math.sqrt(values.shape[-2] // 2)
    return values.uniform_(-bound, bound, generator=generator)


@torch.no_grad()
def zeros_(values: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """The zero function.

    Args:
        values: filled in place.
        generator: not used.
    """
    return values.zero_()


class SplinePackage(nn.Module):
    r"""Polyharmonic splines that share the nodes {0, ±eᵢ}: a layer that interpolates its parameters [097].

    .. math:: f(x) = k(x, N) K^{-1} V = H(x) V, \qquad k(r) = r^2 (\ln r - b) + c

    with the nodes N, their kernel matrix K, and the *values* V of every spline at every node as parameters. It is
    linear in them, O(m · out) per sample, and grows like r² ln r outside the unit ball: keep inputs near it.

    Args:
        in_features: m.
        out_features: how many splines.
        b: shift of the logarithm.
        c: the kernel's value at zero.
        init: fills the values: :func:`uniform_`, :func:`identity_`, :func:`zeros_`, or another.
        batch_shape: independent packages, applied to inputs ``(*batch_shape, n, m)`` or to shared ones ``(n, m)``.
        generator: draws the values; the global stream by default.
        device: of the values.
        dtype: of the values.

    Shape:
        ``(…, n, m)`` → ``(…, n, out)``.

    Raises:
        ValueError: if a size is below one, the kernel matrix is not positive definite, or ``init`` does not fit.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        b: float = SHIFT,
        c: float = OFFSET,
        *,
        init: Initializer = uniform_,
        batch_shape: Sequence[int] = (),
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, *batch_shape, 1) < 1:
            raise ValueError(f"SplinePackage needs sizes ≥ 1, got {in_features}, {out_features}, {tuple(batch_shape)}")
        InverseEntries.of(in_features, b, c)  # refuses a kernel that is none
        self.in_features, self.out_features, self.b, self.c = in_features, out_features, float(b), float(c)
        self.init = init
        shape = (*batch_shape, 2 * in_features + 1, out_features)
        self.values = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Fill the values as at the start."""
        self.init(self.values, generator)

    def features(self, x: Tensor) -> Tensor:
        """H(x), ``(…, n, 2m + 1)``: what the values are weighted with. H is the identity at the nodes.

        Args:
            x: points.

        Raises:
            ValueError: if they are not of m dimensions.
        """
        if x.shape[-1] != self.in_features:
            raise ValueError(f"SplinePackage takes {self.in_features} features, got {x.shape[-1]}")
        return constellation_features(x, self.b, self.c)

    def forward(self, x: Tensor) -> Tensor:
        """The splines at x."""
        return self.features(x) @ self.values

    def coefficients(self) -> Tensor:
        """``A = K⁻¹ V``, the weights of the kernel at the nodes."""
        return constellation_solve(self.values, self.b, self.c)

    def pullback(self, x: Float[Tensor, "... n m"], g: Float[Tensor, "... n out"]) -> Float[Tensor, "... n m"]:
        """The gradient in x, in closed form, of a loss whose gradient in the outputs is g: one matrix product.

        Args:
            x: the inputs.
            g: the gradients in the outputs.
        """
        return constellation_pullback(x, g @ self.coefficients().mT, self.b)

    @torch.no_grad()
    def fit_values(self, x: Float[Tensor, "n m"], y: Float[Tensor, "n out"], ridge: float = 1e-6) -> SplinePackage:
        """Set the values by least squares, ``(HᵀH + ridge · I) V = Hᵀ y``, in float64.

        Args:
            x: samples.
            y: what the splines should be there.
            ridge: regularises the values.

        Returns:
            itself.

        Raises:
            ValueError: if ``ridge <= 0`` or y does not fit.
        """
        if not ridge > 0:
            raise ValueError(f"SplinePackage.fit_values needs ridge > 0, got {ridge}")
        if y.shape != (len(x), self.out_features):
            raise ValueError(
                f"SplinePackage.fit_values needs y of shape {(len(x), self.out_features)}, got {tuple(y.shape)}"
            )
        H = self.features(x.to(torch.float64))
        normal = H.mT @ H
        normal.diagonal().add_(ridge)
        self.values.copy_(solve(normal, H.mT @ y.to(torch.float64)).expand_as(self.values))
        return self

    def extra_repr(self) -> str:
        """Sizes and the kernel's numbers."""
        batch = tuple(self.values.shape[:-2])
        return f"{self.in_features}, {self.out_features}, b={self.b:g}, c={self.c:g}" + (
            f", batch_shape={batch}" if batch else ""
        )


class PolyharmonicCascade(nn.Module):
    r"""Spline packages one after the other, without activations between: as deep as you like [097].

    Independent cascades run side by side, as the paper trains one per output. Hidden packages start as the identity
    where they can and uniform elsewhere, the last one as zero. Inputs should be normalised to about the unit ball.

    Args:
        widths: m₀, …, m_L, at least two.
        num_models: independent cascades on the same inputs.
        b: shift of the logarithm.
        c: the kernel's value at zero.
        generator: draws the values; the global stream by default.
        device: of the values.
        dtype: of the values.

    Shape:
        ``(n, m₀)`` → ``(n, num_models · m_L)``, model after model.

    Raises:
        ValueError: if there are fewer than two widths, or a size is below one.
    """

    def __init__(
        self,
        widths: Sequence[int],
        num_models: int = 1,
        b: float = SHIFT,
        c: float = OFFSET,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"PolyharmonicCascade needs at least an input and an output width, got {list(widths)}")
        if num_models < 1:
            raise ValueError(f"PolyharmonicCascade needs num_models ≥ 1, got {num_models}")
        self.widths, self.num_models = tuple(widths), num_models
        last = len(widths) - 2
        self.packages = nn.ModuleList(
            SplinePackage(
                m,
                out,
                b,
                c,
                init=zeros_ if layer == last else identity_ if m == out else uniform_,
                batch_shape=(num_models,),
                generator=generator,
                device=device,
                dtype=dtype,
            )
            for layer, (m, out) in enumerate(itertools.pairwise(widths))
        )

    def forward(self, x: Tensor) -> Tensor:
        """All models' outputs."""
        for package in self.packages:
            x = package(x)
        return x.movedim(0, 1).flatten(1)

    def activations(self, x: Float[Tensor, "n m"]) -> list[Tensor]:
        """What every package sees: ``(n, m₀)``, then ``(num_models, n, m_l)``.

        Args:
            x: samples.
        """
        seen = [x]
        for package in list(self.packages)[:-1]:
            seen.append(package(seen[-1]))
        return seen
