"""Layers in NTK parametrisation: standard normal parameters, and the scale of the width in the forward pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tangrams.kernels.ntk.layers import check_std


class NTKLinear(nn.Module):
    r"""A linear layer whose learning at a fixed rate does not depend on its width [055].

    .. math:: y = \frac{σ_w}{\sqrt{d}} W x + σ_b b, \qquad W_{ij}, b_i \sim N(0, 1)

    A network of these with an activation between converges to :class:`~tangrams.kernels.FullyConnectedNTK` as its
    widths grow.

    Args:
        in_features: d.
        out_features: the width.
        W_std: σ_w.
        b_std: σ_b; zero leaves the bias out.
        generator: draws the parameters; the global stream by default.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        ``(…, d)`` → ``(…, out_features)``.

    Raises:
        ValueError: if a size is below one or a standard deviation negative.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        W_std: float = 1.0,
        b_std: float = 0.1,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        _check_sizes("NTKLinear", in_features, out_features)
        check_std("NTKLinear", W_std, b_std)
        self.in_features, self.out_features = in_features, out_features
        self.W_std, self.b_std = W_std, b_std
        self.weight = nn.Parameter(torch.empty(out_features, in_features, device=device, dtype=dtype))
        bias = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype)) if b_std else None
        self.register_parameter("bias", bias)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters from N(0, 1)."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The layer; the scale meets the input, so that the weight enters a plain linear map."""
        y = F.linear(x * (self.W_std / math.sqrt(self.in_features)), self.weight)
        return y if self.bias is None else y + self.b_std * self.bias

    def extra_repr(self) -> str:
        """Sizes and scales."""
        return f"{self.in_features}, {self.out_features}, W_std={self.W_std:g}, b_std={self.b_std:g}"


class NTKConv2d(nn.Module):
    r"""A convolution whose learning at a fixed rate does not depend on its number of channels [055].

    .. math:: y_p = \frac{σ_w}{\sqrt{C s}} \sum_d W_d\, x_{p+d} + σ_b b, \qquad W, b \sim N(0, 1)

    with C input channels and s offsets d in the window. Its kernel at infinite width is
    :class:`tangrams.kernels.ntk.Conv`, which counts positions outside the image in s as well.

    Args:
        in_channels: C.
        out_channels: the width.
        kernel_size: side of the window, or both sides.
        W_std: σ_w.
        b_std: σ_b; zero leaves the bias out.
        stride: as in ``torch.nn.Conv2d``.
        padding: as in ``torch.nn.Conv2d``.
        generator: draws the parameters; the global stream by default.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        ``(n, C, H, W)`` → ``(n, out_channels, H′, W′)``.

    Raises:
        ValueError: if a size is below one or a standard deviation negative.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        W_std: float = 1.0,
        b_std: float = 0.1,
        *,
        stride: int | tuple[int, int] = 1,
        padding: str | int | tuple[int, int] = "same",
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        _check_sizes("NTKConv2d", in_channels, out_channels, height, width)
        check_std("NTKConv2d", W_std, b_std)
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, (height, width)
        self.W_std, self.b_std = W_std, b_std
        self.stride, self.padding = stride, padding
        options: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, height, width, **options))
        self.register_parameter("bias", nn.Parameter(torch.empty(out_channels, **options)) if b_std else None)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters from N(0, 1)."""
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """The convolution; the scale meets the input, so that the weight enters a plain one."""
        fan_in = self.in_channels * math.prod(self.kernel_size)
        y = F.conv2d(x * (self.W_std / math.sqrt(fan_in)), self.weight, stride=self.stride, padding=self.padding)
        return y if self.bias is None else y + self.b_std * self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Sizes and scales."""
        return (
            f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, W_std={self.W_std:g}, "
            f"b_std={self.b_std:g}, stride={self.stride}, padding={self.padding!r}"
        )


def _check_sizes(who: str, *sizes: int) -> None:
    if min(sizes) < 1:
        raise ValueError(f"{who} needs sizes ≥ 1, got {sizes}")
