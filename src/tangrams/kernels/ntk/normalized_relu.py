"""The ReLU tangent kernel in the form that is compared with the Laplace kernel."""

from __future__ import annotations

from typing import Any, cast

import torch
from gpytorch.constraints import Interval, Positive
from gpytorch.priors import Prior
from torch import Tensor

from tangrams.kernels.base import Kernel
from tangrams.kernels.ntk.piecewise_duals import ReLU


class NormalizedReLUNTK(Kernel):
    r"""The tangent kernel of a ReLU network with its bias in the tangent alone; unit diagonal on the sphere [018].

    .. math:: S_0 = x^⊤ x', \quad K_0 = S_0 + β^2, \quad S_l = 2\, T(S_{l-1}), \quad
              K_l = K_{l-1} \cdot 2\, \dot T(S_{l-1}) + S_l + β^2, \quad
              k = \frac{K_D}{(D + 1)(β^2 + 1)}

    with T and Ṫ the duals of ReLU. S_l(x, x) = |x|², so k(x, x) = 1 on the unit sphere. The bias is a hyper-parameter
    with a gradient; start values are set like GPyTorch's: ``kernel.bias = 0.1``. Samples of any shape are flattened.

    Args:
        depth: D ≥ 1 hidden layers.
        bias: β at the start.
        bias_constraint: on β; positive by default.
        bias_prior: on β.
        **kwargs: of :class:`~tangrams.kernels.base.Kernel`.

    Shape:
        ``(n, …)`` → ``(n, m)``.

    Raises:
        ValueError: if ``depth < 1`` or ``bias < 0``.
    """

    vector_inputs = True
    raw_bias: torch.nn.Parameter

    def __init__(
        self,
        depth: int = 1,
        bias: float = 0.1,
        *,
        bias_constraint: Interval | None = None,
        bias_prior: Prior | None = None,
        **kwargs: Any,
    ) -> None:
        if depth < 1:
            raise ValueError(f"NormalizedReLUNTK needs depth ≥ 1 hidden layers, got {depth}")
        if not bias >= 0:
            raise ValueError(f"NormalizedReLUNTK needs bias ≥ 0, got {bias}")
        super().__init__(**kwargs)
        self.depth = depth
        self.register_parameter("raw_bias", torch.nn.Parameter(torch.zeros(*self.batch_shape, 1, 1)))
        self.register_constraint("raw_bias", bias_constraint or Positive())
        if bias_prior is not None:
            self.register_prior("bias_prior", bias_prior, _get_bias, _set_bias)
        self.bias = bias

    @property
    def bias(self) -> Tensor:
        """β, ``(*batch_shape, 1, 1)``."""
        return self._constraint.transform(self.raw_bias)

    @bias.setter
    def bias(self, value: float | Tensor) -> None:
        raw = self.raw_bias
        target = torch.as_tensor(value, dtype=raw.dtype, device=raw.device).expand_as(raw)
        self.initialize(raw_bias=self._constraint.inverse_transform(target))

    @property
    def _constraint(self) -> Interval:
        return cast(Interval, self.constraint_for_parameter_name("raw_bias"))

    def _gram(self, x: Tensor, y: Tensor) -> Tensor:
        same = x is y
        x = x.to(torch.float64)
        y = x if same else y.to(torch.float64)
        p, q = x.square().sum(-1, keepdim=True), y.square().sum(-1).unsqueeze(-2)
        gram = self._recursion(p, q, x @ y.mT)
        if not same:
            return gram
        diagonal = self._diag(x).expand(gram.shape[:-1])
        return torch.diagonal_scatter(gram, diagonal, dim1=-2, dim2=-1)

    def _diag(self, x: Tensor) -> Tensor:
        own = x.to(torch.float64).square().sum(-1, keepdim=True)
        return self._recursion(own, own, own).squeeze(-1)

    def _recursion(self, p: Tensor, q: Tensor, r: Tensor) -> Tensor:
        relu = ReLU()
        square = self.bias.to(torch.float64) ** 2
        kernel = r + square
        for _ in range(self.depth):
            kernel = kernel * 2 * relu.Tdot(p, q, r)
            r = 2 * relu.T(p, q, r)  # its variances stay |x|²
            kernel = kernel + r + square
        return kernel / ((self.depth + 1) * (square + 1))


def _get_bias(kernel: NormalizedReLUNTK) -> Tensor:
    return kernel.bias


def _set_bias(kernel: NormalizedReLUNTK, value: float | Tensor) -> None:
    kernel.bias = value
