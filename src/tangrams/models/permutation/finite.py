"""Networks of finite width that learn a permutation of bits, trained side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.models.permutation.base import PermutationEnsemble
from tangrams.operators import ConvergenceError, block_generator

_BATCH_BYTES = 256 << 20


class FinitePermutationEnsemble(PermutationEnsemble):
    r"""Two-layer ReLU networks of finite width, trained by full-batch gradient descent on the basis vectors [045].

    .. math:: f(x) = \frac{1}{\sqrt n} W_2\, \mathrm{ReLU}(W_1 x / \sqrt k), \qquad W \sim N(0, 1)

    Batches of networks are trained at once. The rate is that of the limit, 1/λ_max, at which the loss falls at a fixed
    rate for wide networks.

    Args:
        permutation: π: bit i of the input becomes bit π(i) of the output.
        num_networks: N.
        width: n.
        seed: of the draw; a network's depends on the seed and its number alone.
        tolerance: root mean square of the residual at which training ends.
        max_steps: after which it is given up.

    Shape:
        ``(n, k)`` binary inputs → ``(n, k)``.

    Raises:
        ValueError: if ``permutation`` is none, or a size is below one.
        ConvergenceError: if a network does not fit the basis vectors in time: make it wider.
    """

    def __init__(
        self,
        permutation: Sequence[int] | Int64[Tensor, "k"],
        num_networks: int,
        width: int,
        *,
        seed: int = 0,
        tolerance: float = 1e-4,
        max_steps: int = 2000,
    ) -> None:
        super().__init__(permutation)
        if min(num_networks, width, max_steps) < 1:
            raise ValueError(
                "FinitePermutationEnsemble needs num_networks, width and max_steps ≥ 1, got "
                f"{num_networks}, {width} and {max_steps}"
            )
        self.num_networks, self.width = num_networks, width
        self.tolerance = 10 * tolerance
        self.seed = int(seed)
        k = self.num_bits
        batch = max(1, _BATCH_BYTES // (6 * 4 * width * k))
        self._layers = [
            self._trained(range(first, min(first + batch, num_networks)), tolerance, max_steps)
            for first in range(0, num_networks, batch)
        ]

    def _trained(self, networks: range, tolerance: float, max_steps: int) -> tuple[Tensor, Tensor]:
        k, n = self.num_bits, self.width
        drawn = [self._drawn(number) for number in networks]
        first, second = (torch.stack(layers) for layers in zip(*drawn, strict=True))
        targets = self.targets.mT.float()
        # λ_max of Θ on the basis: (1/k)(1 + (k − 1)/2π).
        rate = k / (1 + (k - 1) / (2 * math.pi))
        for _ in range(max_steps):
            hidden = first.mT / math.sqrt(k)  # the first layer at basis vectors is its own columns: (N, k, n)
            active = hidden.clamp_min(0)
            residual = second @ active.mT / math.sqrt(n) - targets  # (N, k outputs, k inputs)
            if float(residual.square().mean((1, 2)).max()) ** 0.5 <= tolerance:
                return first, second
            back = residual.mT @ second / math.sqrt(n) * (hidden > 0)
            second = second - rate * (residual @ active) / math.sqrt(n)
            first = first - rate * back.mT / math.sqrt(k)
        left = float(residual.square().mean((1, 2)).max()) ** 0.5
        remedy = f"make the networks wider than {n}"
        raise ConvergenceError("FinitePermutationEnsemble", left, tolerance, max_steps, remedy)

    def _drawn(self, number: int) -> tuple[Float[Tensor, "n k"], Float[Tensor, "k n"]]:
        generator = block_generator(self.seed, number)
        shape = self.width, self.num_bits
        first, second = (torch.randn(s, generator=generator, dtype=torch.float32) for s in (shape, shape[::-1]))
        return first, second

    def mean_output(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The average over networks."""
        total = torch.zeros_like(x)
        scale = 1 / math.sqrt(self.num_bits * self.width)
        for first, second in self._layers:
            hidden = (x.float() @ first.mT).clamp_min(0)  # (N, inputs, n)
            total += (hidden @ second.mT).double().sum(0) * scale
        return total / self.num_networks
