"""Small networks, their training and the pictures that several claims share."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from tangrams.data import Labelled, digits, load


class Scaled(nn.Linear):
    """A linear layer in the NTK parametrisation: standard normal weights, divided by √fan-in in the forward pass."""

    def forward(self, x: Tensor) -> Tensor:
        """``x Wᵀ / √fan_in``."""
        return super().forward(x) / math.sqrt(self.in_features)


def standard_mlp(sizes: Sequence[int], generator: torch.Generator, *, bias: bool = True) -> nn.Sequential:
    """A ReLU network with He's normal weights, and biases that start at zero."""
    layers = [nn.Linear(a, b, bias=bias) for a, b in itertools.pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            scale = math.sqrt((1 if layer is layers[-1] else 2) / layer.in_features)
            layer.weight.normal_(generator=generator).mul_(scale)
            if layer.bias is not None:
                layer.bias.zero_()
    return _joined(layers)


def ntk_mlp(sizes: Sequence[int], generator: torch.Generator) -> nn.Sequential:
    """A ReLU network without biases in the NTK parametrisation, gain √2 behind every ReLU."""
    layers: list[nn.Linear] = [Scaled(a, b, bias=False) for a, b in itertools.pairwise(sizes)]
    with torch.no_grad():
        for layer in layers:
            layer.weight.normal_(generator=generator)
            if layer is not layers[0]:
                layer.weight.mul_(math.sqrt(2))
    return _joined(layers)


def _joined(layers: Sequence[nn.Linear]) -> nn.Sequential:
    modules: list[nn.Module] = [nn.Flatten()]
    for layer in layers[:-1]:
        modules += [layer, nn.ReLU()]
    return nn.Sequential(*modules, layers[-1])


def train(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    generator: torch.Generator,
    lr: float = 1e-3,
    batch_size: int = 64,
    weight_decay: float = 0.0,
    after_epoch: Callable[[int], None] | None = None,
) -> None:
    """Train a classifier by Adam under a cosine schedule; leaves it in eval mode."""
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)
    steps = epochs * math.ceil(len(x) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    network.train()
    for epoch in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
        if after_epoch is not None:
            after_epoch(epoch)
    network.eval()


def samples_of(name: str | None, n: int, seed: int, *, dtype: torch.dtype = torch.float32) -> tuple[Labelled, Labelled]:
    """Some n random training samples and up to 1000 test ones: of scikit-learn's digits, or of a data set by name."""
    generator = torch.Generator().manual_seed(seed)
    if name is None:
        split = digits(label_noise=0, duplicates=0, seed=seed)
        parts = [(split.train.labelled(), n), (split.test, 450)]
    else:
        found = load(name)
        parts = [(found.train, n), (found.test, 1000)]
    chosen = []
    for part, count in parts:
        index = torch.randperm(len(part.targets), generator=generator)[:count]
        chosen.append(Labelled(part.inputs[index].to(dtype), part.targets[index]))
    return chosen[0], chosen[1]
