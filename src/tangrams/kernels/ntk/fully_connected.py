"""The two kernels of a fully connected network, without spelling out its layers."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from tangrams.kernels.ntk.analytic import AnalyticNNGP, AnalyticNTK
from tangrams.kernels.ntk.dual import DualActivation
from tangrams.kernels.ntk.layers import Dense, Layer, Serial
from tangrams.kernels.ntk.piecewise_duals import ReLU

_RELU = ReLU()


def fully_connected(depth: int, activation: DualActivation, W_std: float, b_std: float) -> Serial:
    """``depth`` dense layers with an activation between each two.

    Args:
        depth: number of weight layers.
        activation: between them.
        W_std: of every layer.
        b_std: of every layer.

    Raises:
        ValueError: if ``depth < 1``.
    """
    if depth < 1:
        raise ValueError(f"a fully connected network needs depth ≥ 1 weight layers, got {depth}")
    layers: list[Layer] = [Dense(W_std, b_std)]
    for _ in range(depth - 1):
        layers += [activation, Dense(W_std, b_std)]
    return Serial(*layers)


class FullyConnectedNTK(AnalyticNTK):
    r"""The neural tangent kernel of a fully connected network of infinite width [055].

    .. math:: K^1 = Θ^1 = σ_w^2 \frac{x^⊤ x'}{d} + σ_b^2, \qquad K^{l+1} = σ_w^2 T(K^l) + σ_b^2, \qquad
              Θ^{l+1} = K^{l+1} + σ_w^2\, Θ^l \dot T(K^l)

    The paper's own parametrisation is ``W_std=1, b_std=0.1``. Samples of any shape are flattened.

    Args:
        depth: L, the number of weight layers: one more than there are hidden layers.
        activation: between them; ReLU by default.
        W_std: σ_w.
        b_std: σ_b.
        **kwargs: of :class:`~tangrams.kernels.ntk.AnalyticNTK`.

    Shape:
        ``(n, …)`` → ``(n, m)``.

    Raises:
        ValueError: if ``depth < 1`` or a standard deviation is negative.
    """

    def __init__(
        self,
        depth: int = 2,
        activation: DualActivation = _RELU,
        W_std: float = math.sqrt(2),
        b_std: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(fully_connected(depth, activation, W_std, b_std), **kwargs)

    @property
    def nngp(self) -> FullyConnectedNNGP:
        """The other kernel of the same network."""
        kernel = FullyConnectedNNGP(block_bytes=self.block_bytes, event_shape=self.event_shape)
        kernel.net = self.net
        return kernel

    def _samples(self, x: Tensor) -> Tensor:
        return _vectors(super()._samples(x))


class FullyConnectedNNGP(AnalyticNNGP):
    """The covariance of the outputs of a random fully connected network of infinite width [055].

    Samples of any shape are flattened; the recursion is that of :class:`FullyConnectedNTK`.

    Args:
        depth: L, the number of weight layers.
        activation: between them; ReLU by default.
        W_std: σ_w.
        b_std: σ_b.
        **kwargs: of :class:`~tangrams.kernels.ntk.AnalyticNNGP`.

    Shape:
        ``(n, …)`` → ``(n, m)``.

    Raises:
        ValueError: if ``depth < 1`` or a standard deviation is negative.
    """

    def __init__(
        self,
        depth: int = 2,
        activation: DualActivation = _RELU,
        W_std: float = math.sqrt(2),
        b_std: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(fully_connected(depth, activation, W_std, b_std), **kwargs)

    def _samples(self, x: Tensor) -> Tensor:
        return _vectors(super()._samples(x))


def _vectors(x: Tensor) -> Tensor:
    return x.reshape(len(x), math.prod(x.shape[1:]))
