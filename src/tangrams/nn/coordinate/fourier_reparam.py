"""A linear layer whose weights are combinations of fixed waves."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class FourierReparamLinear(nn.Module):
    r"""``nn.Linear`` with the weight :math:`W = Λ B`, Λ learned and B fixed cosines along the inputs.

    .. math:: B_{(ω, φ), j} = α \cos(ω t_j + φ), \qquad ω \in \{1/L, …, 1\} \cup \{1, …, H\}, \quad φ = 2πk/P

    with :math:`t_j` evenly over one longest period. Λ starts in :math:`U[-\sqrt{6/M}, \sqrt{6/M}] / (\|B_m\| ω_0)`, M
    waves. Shi, Zhou and Gu (2024); a baseline of [016].

    Args:
        in_features: d.
        out_features: the width.
        high: H, how many whole frequencies.
        low: L, how many fractions of one.
        phases: P.
        alpha: α.
        omega: ω₀ of the activation behind it, 1 for a ReLU.
        generator: draws Λ; the global stream by default.

    Shape:
        ``(…, d)`` → ``(…, out_features)``.

    Raises:
        ValueError: if a size is below one, there is no frequency, or α or ω₀ is not positive.
    """

    bases: Tensor

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        high: int = 128,
        low: int = 128,
        phases: int = 32,
        alpha: float = 0.01,
        omega: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if min(in_features, out_features, phases, high + low) < 1 or min(high, low) < 0:
            sizes = (in_features, out_features, high, low, phases)
            raise ValueError(f"FourierReparamLinear needs sizes ≥ 1 and some frequency, got {sizes}")
        if not min(alpha, omega) > 0:
            raise ValueError(f"FourierReparamLinear needs alpha and omega > 0, got {alpha} and {omega}")
        self.in_features, self.out_features, self.omega = in_features, out_features, omega
        fractions = torch.arange(1, low + 1, dtype=torch.float64) / max(low, 1)
        frequencies = torch.cat([fractions, torch.arange(1, high + 1, dtype=torch.float64)])
        half = math.pi / float(frequencies.min())
        points = torch.linspace(-half, half, in_features, dtype=torch.float64)
        shifts = 2 * math.pi * torch.arange(phases, dtype=torch.float64) / phases
        waves = alpha * torch.cos(frequencies[:, None, None] * points + shifts[:, None])
        self.register_buffer("bases", waves.flatten(0, 1).to(torch.get_default_dtype()))
        self.coefficients = nn.Parameter(torch.empty(out_features, len(self.bases)))
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw Λ and set the bias to zero.

        Args:
            generator: of the draw; the global stream by default.
        """
        norms = torch.linalg.vector_norm(self.bases, dim=1)
        norms = norms.clamp_min(1e-6 * float(norms.max()))  # a wave may vanish at all of few points
        bound = math.sqrt(6 / len(self.bases)) / (norms * self.omega)
        nn.init.uniform_(self.coefficients, -1, 1, generator=generator).mul_(bound)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        return F.linear(x, self.coefficients @ self.bases, self.bias)

    def extra_repr(self) -> str:
        """Sizes."""
        return f"{self.in_features}, {self.out_features}, waves={len(self.bases)}"
