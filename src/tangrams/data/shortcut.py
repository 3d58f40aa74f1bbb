"""Binary classification by two latent features, a shortcut and a core, with predictivity and availability apart."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_RECOVERED = 0.9
"""Below this share of explained variance a nested latent is hardly in the input any more."""


class ShortcutSamples(NamedTuple):
    """Inputs, their labels and what they were made from.

    Attributes:
        inputs: ``(n, d)``.
        targets: −1 or 1: ``(n,)``.
        latents: shortcut and core: ``(n, 2)``.
    """

    inputs: Float[Tensor, "n d"]
    targets: Float[Tensor, "n"]
    latents: Float[Tensor, "n 2"]


@dataclass(frozen=True)
class ShortcutTask:
    r"""Two latent features of a label, embedded in d dimensions: how predictive and how available each is [008].

    .. math:: (z_s, z_c) \mid y \sim N\!\left(y \begin{bmatrix} μ_s \\ μ_c \end{bmatrix},
              \begin{bmatrix} 1 & σ_{sc} \\ σ_{sc} & 1 \end{bmatrix}\right), \qquad
              μ_i = \sqrt2\, \mathrm{erf}^{-1}(2 ρ_i - 1), \qquad x = α_s\, e_s(z_s) + α_c\, e_c(z_c)

    The rule sign z_i is right with probability ρ_i, so the shortcut is the feature with the smaller ρ. Each
    :math:`e_i(z) = w_i z` is a random direction of length one, behind η_i random tanh layers
    :math:`h \mapsto \tanh(W h) / \sqrt d`, W standard normal: the larger α_i and the smaller η_i, the more available
    the feature, at equal predictivity. (How wide the nested layers of the paper are is not known to us.)
    Directions and layers depend on the seed alone.

    Args:
        rho_s: predictivity of the shortcut, in (½, 1).
        rho_c: that of the core.
        covariance: σ_sc, of the latents within a class.
        alpha_s: amplification of the shortcut.
        alpha_c: that of the core.
        eta_s: nesting of the shortcut.
        eta_c: that of the core.
        dim: d.
        seed: fixes directions and nested layers.

    Raises:
        ValueError: for a predictivity outside (½, 1), \|σ_sc\| ≥ 1, α ≤ 0, a nesting that is no number ≥ 0, or d < 2.

    Example:
        >>> task = ShortcutTask(0.8)
        >>> task.sample(4, seed=0).inputs.shape
        torch.Size([4, 100])
    """

    rho_s: float
    rho_c: float = 0.9
    covariance: float = 0.6
    alpha_s: float = 1.0
    alpha_c: float = 1.0
    eta_s: int = 0
    eta_c: int = 0
    dim: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rho_s", "rho_c"):
            if not 0.5 < getattr(self, name) < 1:
                raise ValueError(f"ShortcutTask expects {name} in (0.5, 1), got {getattr(self, name)}")
        if not abs(self.covariance) < 1:
            raise ValueError(f"ShortcutTask expects |covariance| < 1, got {self.covariance}: it is a correlation too")
        for name in ("alpha_s", "alpha_c"):
            if not getattr(self, name) > 0:
                raise ValueError(f"ShortcutTask expects {name} > 0, got {getattr(self, name)}")
        for name in ("eta_s", "eta_c"):
            if int(getattr(self, name)) != getattr(self, name) or getattr(self, name) < 0:
                raise ValueError(f"ShortcutTask expects {name} to be a number of layers ≥ 0, got {getattr(self, name)}")
        if self.dim < 2:
            raise ValueError(f"ShortcutTask expects dim ≥ 2, got {self.dim}")
        if self.eta_s or self.eta_c:
            for name, share in zip(("shortcut", "core"), self.recoverability(), strict=True):
                if share < _RECOVERED:
                    warnings.warn(
                        f"the nested {name} explains {share:.0%} of itself through its nearest embeddings: lower its "
                        "nesting, or what is measured is lost information",
                        stacklevel=2,
                    )

    @property
    def means(self) -> Float[Tensor, "2"]:
        """μ_s and μ_c."""
        rho = torch.tensor([self.rho_s, self.rho_c], dtype=torch.float64)
        return math.sqrt(2) * torch.special.erfinv(2 * rho - 1)

    @property
    def bayes_weights(self) -> Float[Tensor, "2"]:
        """``Σ⁻¹ μ``: the optimal rule is the sign of ``z @ w``."""
        m_s, m_c = self.means.tolist()
        c = self.covariance
        return torch.tensor([m_s - c * m_c, m_c - c * m_s], dtype=torch.float64) / (1 - c**2)

    @property
    def bayes_accuracy(self) -> float:
        """How often the optimal rule is right, ``Φ(√(μᵀ Σ⁻¹ μ))``."""
        return float(torch.special.ndtr((self.means @ self.bayes_weights).sqrt()))

    def sample(self, n: int, *, seed: int, balanced: bool = True) -> ShortcutSamples:
        """Draw samples, float64.

        Args:
            n: how many.
            seed: fixes them.
            balanced: as many of each class (one more of class 1 for odd n); else labels are drawn.
        """
        generator = torch.Generator().manual_seed(seed)
        if balanced:
            y = 1 - 2 * (torch.randperm(n, generator=generator) % 2).to(torch.float64)
        else:
            y = 1 - 2 * torch.randint(0, 2, (n,), generator=generator).to(torch.float64)
        noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
        c = self.covariance
        correlated = torch.stack([noise[:, 0], c * noise[:, 0] + math.sqrt(1 - c**2) * noise[:, 1]], 1)
        z = y[:, None] * self.means + correlated
        return ShortcutSamples(self.embed(z), y, z)

    def embed(self, latents: Float[Tensor, "m 2"]) -> Float[Tensor, "m d"]:
        """The inputs of latents, differentiable in them."""
        return self._part(latents[:, 0], 0) + self._part(latents[:, 1], 1)

    def probe(self, side: int = 30) -> Float[Tensor, "s2 2"]:
        """A grid of latents over ±3 μ in each, ``side`` by ``side``.

        Args:
            side: an even number, so that no latent is zero.

        Raises:
            ValueError: if it is odd or below two.
        """
        if side < 2 or side % 2:
            raise ValueError(f"a probe needs an even side ≥ 2, got {side}: at zero a latent has no sign")
        axes = [torch.linspace(-3 * m, 3 * m, side, dtype=torch.float64) for m in self.means.tolist()]
        return torch.cartesian_prod(*axes)

    def recoverability(self, n: int = 400) -> tuple[float, float]:
        """The share of each latent's variance that the nearest embedding of another sample explains.

        Args:
            n: how many samples to look at.
        """
        z = self.sample_latents(n)
        shares = []
        for which in (0, 1):
            part = self._part(z[:, which], which)
            nearest = torch.cdist(part, part).fill_diagonal_(torch.inf).argmin(1)
            guess = z[nearest, which]
            shares.append(1 - float((guess - z[:, which]).square().mean() / z[:, which].var()))
        return shares[0], shares[1]

    def sample_latents(self, n: int) -> Float[Tensor, "n 2"]:
        """Latents spread evenly over ±3 μ, in no relation to each other.

        Args:
            n: how many.
        """
        generator = torch.Generator().manual_seed(self.seed)
        return (2 * torch.rand(n, 2, generator=generator, dtype=torch.float64) - 1) * 3 * self.means

    def _part(self, latent: Float[Tensor, "m"], which: int) -> Float[Tensor, "m d"]:
        alpha, eta = ((self.alpha_s, self.eta_s), (self.alpha_c, self.eta_c))[which]
        generator = torch.Generator().manual_seed(2 * self.seed + which)
        w = torch.randn(self.dim, generator=generator, dtype=torch.float64)
        hidden = latent[:, None] * (w / w.norm()).to(latent)
        for _ in range(int(eta)):
            W = torch.randn(self.dim, self.dim, generator=generator, dtype=torch.float64).to(latent)
            hidden = torch.tanh(hidden @ W.mT) / math.sqrt(self.dim)
        return alpha * hidden
