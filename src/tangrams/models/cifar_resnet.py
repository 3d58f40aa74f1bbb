"""Residual networks for small images [052]."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CifarResNet(nn.Module):
    r"""The residual network of 6D + 2 layers for 32 × 32 images.

    A 3 × 3 convolution to W channels, three stages of D basic blocks with W, 2W and 4W channels, the second and third
    of which halve the image in their first block, a mean over positions, and a linear layer. Shortcuts are identities,
    and where the shape changes a 1 × 1 convolution with BatchNorm. Weights are drawn from He's normal law, scales of
    BatchNorm from U[0, 1) and shifts are zero, as in the experiments of [052].

    Args:
        depth: 6D + 2: 8, 14, 20, …, 866.
        width: W.
        num_classes: outputs.
        in_channels: of the images.
        generator: draws weights and scales; the global stream by default.

    Shape:
        ``(n, in_channels, h, w)`` → ``(n, num_classes)``, any h and w.

    Raises:
        ValueError: if the depth is not 6D + 2, or a size is below one.

    Example:
        >>> CifarResNet(14, width=4)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    [052] Training BatchNorm and Only BatchNorm.
    """

    def __init__(
        self,
        depth: int,
        width: int = 16,
        num_classes: int = 10,
        *,
        in_channels: int = 3,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"CifarResNet has 6D + 2 layers (8, 14, 20, …), got depth = {depth}")
        if min(width, num_classes, in_channels) < 1:
            raise ValueError(f"CifarResNet needs sizes ≥ 1, got {width}, {num_classes}, {in_channels}")
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        blocks, channels = [], width
        for stage in range(3):
            for block in range((depth - 2) // 6):
                blocks.append(BasicBlock(channels, width << stage, halve=stage > 0 and block == 0))
                channels = width << stage
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(channels, num_classes)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw all parameters.

        Args:
            generator: of the draws; the global stream by default.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, generator=generator)
                nn.init.zeros_(module.bias)
        bound = self.fc.in_features**-0.5
        nn.init.uniform_(self.fc.bias, -bound, bound, generator=generator)

    @property
    def shortcuts(self) -> list[nn.Module]:
        """The two shortcuts with weights."""
        return [
            b.shortcut for b in self.blocks if isinstance(b, BasicBlock) and not isinstance(b.shortcut, nn.Identity)
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        return self.fc(self.blocks(self.relu(self.bn(self.conv(x)))).mean((2, 3)))


class BasicBlock(nn.Module):
    """Two 3 × 3 convolutions with BatchNorm, added to the input before the last ReLU.

    Args:
        in_channels: of the input.
        channels: of the output.
        halve: whether the image is halved in width and height.

    Shape:
        ``(n, in_channels, h, w)`` → ``(n, channels, h, w)``, or half of h and w, rounded up.
    """

    def __init__(self, in_channels: int, channels: int, *, halve: bool = False) -> None:
        super().__init__()
        stride = 2 if halve else 1
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if halve or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The block."""
        y = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(y)) + self.shortcut(x))
