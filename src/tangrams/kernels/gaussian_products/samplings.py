"""Samplings of keys: random weights w, mostly zero, with E w = x."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Weights = tuple[Int64[Tensor, "s"], Float[Tensor, "s c"]]
"""Distinct keys, and their rows of w; all other rows are zero."""


@runtime_checkable
class KeySampling(Protocol):
    """What a sampling of keys is."""

    def num_samples(self, tail: float, num_keys: int) -> int:
        """How many samples the error that is allowed asks for.

        Args:
            tail: ``Σ K²`` of the pairs that are not in F, over the square of the error that is allowed.
            num_keys: m.
        """
        ...  # a protocol: whoever fits it writes the body

    def weights(self, x: Float[Tensor, "m c"], num_samples: int, generator: torch.Generator) -> Weights:
        """One draw of w.

        Args:
            x: what the kernel is multiplied with.
            num_samples: draws, with replacement.
            generator: a generator on the CPU.
        """
        ...  # a protocol: whoever fits it writes the body


def _distinct(index: Tensor) -> tuple[Tensor, Tensor]:
    return torch.unique(index, return_counts=True)


class SquaredNormSampling:
    r"""Keys with probability :math:`p_j = \lVert x_j \rVert^2 / \lVert x \rVert^2`: a library addition to [047].

    With t draws, and F the pairs that are added exactly, of a single column

    .. math:: E \lVert y - Kx \rVert^2 = \frac{\lVert x \rVert^2}{t} \sum_{ij \notin F} K_{ij}^2
              - \frac1t \lVert K_{\notin F}\, x \rVert^2.
    """

    def num_samples(self, tail: float, num_keys: int) -> int:
        """``⌈tail⌉``.

        Args:
            tail: as in :class:`KeySampling`.
            num_keys: m.
        """
        return math.ceil(tail)

    def weights(self, x: Float[Tensor, "m c"], num_samples: int, generator: torch.Generator) -> Weights:
        """One draw of w; probabilities are constants to autograd, so that gradients stay unbiased.

        Args:
            x: what the kernel is multiplied with.
            num_samples: t.
            generator: a generator on the CPU.
        """
        squared = x.detach().double().square().sum(1)
        cumulative = squared.cumsum(0)
        drawn = torch.rand(num_samples, generator=generator, dtype=torch.float64).to(x.device)
        # Strictly above: a key of weight zero is never drawn.
        index = torch.searchsorted(cumulative, drawn * cumulative[-1], right=True)
        index, counts = _distinct(index.clamp_max(int(squared.nonzero()[-1])))
        scale = counts * cumulative[-1] / (num_samples * squared[index])
        return index, x[index] * scale.to(x.dtype)[:, None]


class UniformSampling:
    r"""The largest entries of x exactly, the other keys uniformly: the paper's scheme [047].

    With the s largest rows exact, t draws from the other n′ keys and F complete down to K ≥ τ,

    .. math:: E \lVert y - Kx \rVert^2 \le \frac{n'}{t} \sum_{ij \notin F} K_{ij}^2 x_j^2
              \le \frac{n}{t} \frac{\lVert x \rVert^2}{s}\, τ \lVert K \rVert_1.

    Args:
        num_largest: s.

    Raises:
        ValueError: if ``num_largest < 1``.
    """

    def __init__(self, num_largest: int = 256) -> None:
        if num_largest < 1:
            raise ValueError(f"UniformSampling needs num_largest ≥ 1, got {num_largest}")
        self.num_largest = num_largest

    def num_samples(self, tail: float, num_keys: int) -> int:
        """``⌈tail · m / s⌉``, for the worst x.

        Args:
            tail: as in :class:`KeySampling`.
            num_keys: m.
        """
        return math.ceil(tail * max(1.0, num_keys / self.num_largest))

    def weights(self, x: Float[Tensor, "m c"], num_samples: int, generator: torch.Generator) -> Weights:
        """One draw of w: x itself at the largest rows.

        Args:
            x: what the kernel is multiplied with.
            num_samples: t.
            generator: a generator on the CPU.
        """
        largest = x.detach().square().sum(1).argsort(descending=True, stable=True)
        head, rest = largest[: self.num_largest], largest[self.num_largest :]
        if not len(rest):
            return head, x[head]
        drawn = torch.randint(len(rest), (num_samples,), generator=generator).to(x.device)
        index, counts = _distinct(rest[drawn])
        scale = (counts * (len(rest) / num_samples)).to(x.dtype)
        return torch.cat([head, index]), torch.cat([x[head], x[index] * scale[:, None]])
