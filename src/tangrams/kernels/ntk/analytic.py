"""The kernels of an infinitely wide network, for GPyTorch, learners and lens."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tangrams.kernels.base import Kernel
from tangrams.kernels.ntk.layers import Layer, Serial
from tangrams.kernels.ntk.state import KernelState, diagonal_state, initial_state

_LIVE = 6
"""Covariances alive at once while a block goes through a layer."""


class _Analytic(Kernel):
    """The blocks that both kernels of a network share."""

    _tangent: bool

    def __init__(self, net: Layer, *, block_bytes: int = 1 << 28, **kwargs: Any) -> None:
        name = type(self).__name__
        if not isinstance(net, Layer):
            raise TypeError(f"{name} takes a layer of tangrams.kernels.ntk, got {type(net).__name__}")
        if block_bytes < 1:
            raise ValueError(f"{name} needs block_bytes ≥ 1, got {block_bytes}")
        super().__init__(**kwargs)
        self.net = net
        self.block_bytes = block_bytes

    def _select(self, state: KernelState) -> Tensor | None:
        raise NotImplementedError

    def _samples(self, x: Tensor) -> Tensor:
        """``x`` in float64, with an axis for features."""
        if not isinstance(x, Tensor):
            raise TypeError(f"{type(self).__name__} takes one tensor, got {type(x).__name__}")
        x = x.to(torch.float64)
        return x.unsqueeze(1) if x.ndim == 1 else x

    def _gram(self, x: Any, y: Any) -> Tensor:
        same = x is y
        x = self._samples(x)
        y = x if same else self._samples(y)
        size = self._block_size(x)
        rows: list[list[Tensor]] = []
        for i, left in enumerate(x.split(size)):
            row = []
            for j, right in enumerate(y.split(size)):
                row.append(rows[j][i].mT if same and j < i else self._block(left, right))
            rows.append(row)
        gram = torch.cat([torch.cat(row, 1) for row in rows])
        # The diagonal by its own recursion: exact, and with the gradient that a sample has with itself.
        return torch.diagonal_scatter(gram, self._diag(x)) if same else gram

    def _diag(self, x: Any) -> Tensor:
        x = self._samples(x)
        size = self._block_size(x) ** 2
        return torch.cat([self._run(diagonal_state, part).squeeze(1) for part in x.split(size)])

    def _block(self, x: Tensor, y: Tensor) -> Tensor:
        return self._run(initial_state, x, y)

    def _run(self, start: Any, *inputs: Tensor) -> Tensor:
        net = Serial(self.net)
        state = net.run(start(*inputs, pairs=net.needs_pairs(False), tangent=self._tangent))
        if state.spatial:
            raise ValueError(
                f"{type(self).__name__}: the network ends at {state.spatial} positions: "
                "end it with Flatten or GlobalAvgPool, and Dense"
            )
        selected = self._select(state)
        assert selected is not None  # the state carries what the class asked for
        return selected

    def _block_size(self, x: Tensor) -> int:
        positions = math.prod(x.shape[2:])
        entries = positions**2 if Serial(self.net).needs_pairs(False) else positions
        return max(1, math.isqrt(self.block_bytes // (8 * _LIVE * entries)))


class AnalyticNTK(_Analytic):
    r"""The neural tangent kernel of an infinitely wide network [055].

    .. math:: Θ(x, x') = \lim_{\text{width} → ∞} \sum_θ ∂_θ f(x)\, ∂_θ f(x')

    of one output; for C outputs it is Θ ⊗ I. The network is a value of :mod:`tangrams.kernels.ntk`, not a module: it
    has no weights. All of it is computed in float64, since near duplicates lose half their digits, and returned in the
    dtype of the inputs. Where positions matter, blocks of samples bound the memory.

    Args:
        net: the layers.
        block_bytes: what one block of samples may take at a time.
        **kwargs: of :class:`~tangrams.kernels.base.Kernel`; ``event_shape`` for images through GPyTorch.

    Shape:
        ``(n, d)``, or ``(n, C, *S)`` with positions S → ``(n, m)``.

    Raises:
        TypeError: if ``net`` is not a layer of the algebra.
        ValueError: if the network ends at positions.
    """

    _tangent = True

    @property
    def nngp(self) -> AnalyticNNGP:
        """The other kernel of the same network."""
        return AnalyticNNGP(self.net, block_bytes=self.block_bytes, event_shape=self.event_shape)

    def _select(self, state: KernelState) -> Tensor | None:
        return state.ntk


class AnalyticNNGP(_Analytic):
    r"""The covariance of the outputs of an infinitely wide random network [055].

    .. math:: K(x, x') = \lim_{\text{width} → ∞} E f(x) f(x')

    It is also the kernel of training the last layer alone.

    Args:
        net: the layers.
        block_bytes: what one block of samples may take at a time.
        **kwargs: of :class:`~tangrams.kernels.base.Kernel`; ``event_shape`` for images through GPyTorch.

    Shape:
        ``(n, d)``, or ``(n, C, *S)`` with positions S → ``(n, m)``.

    Raises:
        TypeError: if ``net`` is not a layer of the algebra.
        ValueError: if the network ends at positions.
    """

    _tangent = False

    def _select(self, state: KernelState) -> Tensor:
        return state.nngp
