"""Networks of infinite width that learn a permutation of bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.kernels.ntk import FullyConnectedNTK, ReLU
from tangrams.learners import KernelGradientFlow
from tangrams.models.permutation.base import PermutationEnsemble


class InfinitePermutationEnsemble(PermutationEnsemble):
    r"""Averages of two-layer ReLU networks of infinite width, trained to zero loss on the basis vectors [045].

    Outputs of one network are Gaussian, those of N averaged ones have an N-th of the variance. The k basis vectors, of
    2^k − 1 inputs, determine the sign of the mean for all of them: each bit is right once the average is close enough,
    after some k log k networks for one input and k² for all; see :func:`~tangrams.lens.ensemble_size`.

    Args:
        permutation: π: bit i of the input becomes bit π(i) of the output.
        num_networks: N; None for their limit, which makes no mistake.
        seed: of the draw.

    Shape:
        ``(n, k)`` binary inputs → ``(n, k)``.

    Raises:
        ValueError: if ``permutation`` is none, or ``num_networks < 1``.

    Example:
        >>> ensemble = InfinitePermutationEnsemble([2, 0, 1])
        >>> ensemble.predict(torch.tensor([[1, 1, 0]])).int()
        tensor([[1, 0, 1]], dtype=torch.int32)
    """

    def __init__(
        self, permutation: Sequence[int] | Int64[Tensor, "k"], num_networks: int | None = None, *, seed: int = 0
    ) -> None:
        super().__init__(permutation)
        if num_networks is not None and num_networks < 1:
            raise ValueError(f"InfinitePermutationEnsemble needs num_networks ≥ 1, got {num_networks}")
        self.num_networks = num_networks
        self.seed = int(seed)
        kernel = FullyConnectedNTK(2, ReLU(), W_std=1.0).double()
        basis = torch.eye(self.num_bits, dtype=torch.float64)
        self._flow = KernelGradientFlow(kernel).fit(basis, self.targets.numpy())

    def mean_output(self, x: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
        """The mean, and where networks are counted a draw of their average: inputs together, outputs apart."""
        if self.num_networks is None:
            return torch.from_numpy(self._flow.predict(x))
        law = self._flow.gp_posterior(x)
        values, vectors = torch.linalg.eigh(torch.from_numpy(law.covariance))
        generator = torch.Generator().manual_seed(self.seed)
        noise = torch.randn(len(x), self.num_bits, generator=generator, dtype=torch.float64)
        spread = vectors @ ((values.clamp_min(0) / self.num_networks).sqrt()[:, None] * noise)
        # On training points the variance is zero; what rounding leaves of it would be cut off at zero by the sign.
        spread[x.sum(1) == 1] = 0
        return torch.from_numpy(law.mean) + spread
