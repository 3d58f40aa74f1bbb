"""The convolutional network of data set distillation."""

from __future__ import annotations

import itertools

from torch import Tensor, nn


class ConvNet(nn.Module):
    r"""Blocks of a 3 × 3 convolution, an activation and 2 × 2 average pooling, and a linear head [092].

    The width doubles from block to block. Weights are drawn with variance 1/fan-in, biases start at zero. Images of 28
    pixels are padded to 32.

    Args:
        in_channels: c.
        num_classes: C.
        image_size: h = w, in pixels.
        width: channels of the first block.
        depth: blocks; the image must be halved so often.
        activation: one module, shared by all blocks; ReLU by default. Distillation prefers ``nn.Softplus(beta=60)``.
        batch_norm: whether each convolution is followed by batch normalisation.

    Shape:
        ``(n, c, h, w)`` → ``(n, C)``.

    Raises:
        ValueError: if a size is below one, or the image vanishes.

    Example:
        >>> import torch
        >>> ConvNet(1, 10, 8, width=4, depth=2)(torch.zeros(3, 1, 8, 8)).shape
        torch.Size([3, 10])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        image_size: int = 32,
        *,
        width: int = 128,
        depth: int = 3,
        activation: nn.Module | None = None,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if min(in_channels, num_classes, width, depth) < 1:
            raise ValueError(f"ConvNet needs sizes ≥ 1, got {in_channels}, {num_classes}, {width} and {depth}")
        padded = 32 if image_size == 28 else image_size
        if padded >> depth < 1:
            raise ValueError(f"ConvNet cannot halve {image_size} pixels {depth} times: choose a smaller depth")
        channels = [in_channels, *(width << i for i in range(depth))]
        blocks: list[nn.Module] = []
        for i, (a, b) in enumerate(itertools.pairwise(channels)):
            blocks.append(nn.Conv2d(a, b, 3, padding=3 if i == 0 and image_size == 28 else 1))
            if batch_norm:
                blocks.append(nn.BatchNorm2d(b))
            blocks += [activation or nn.ReLU(), nn.AvgPool2d(2)]
        self.body = nn.Sequential(*blocks, nn.Flatten())
        self.head = nn.Linear(channels[-1] * (padded >> depth) ** 2, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """The head on the body."""
        return self.head(self.body(x))
