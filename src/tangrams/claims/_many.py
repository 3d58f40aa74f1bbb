"""Many small networks trained at once: one batched matrix product for all of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True)
class Many:
    """E trained networks with one hidden layer of ReLUs, and what they went through.

    Attributes:
        parameters: weights and biases, ``(E, d, h)``, ``(E, 1, h)``, ``(E, h, K)``, ``(E, 1, K)``.
        difficulty: each training sample's distance from its label, summed over epochs: ``(E, n)``.
    """

    parameters: tuple[Tensor, Tensor, Tensor, Tensor]
    difficulty: Float[Tensor, "E n"]

    def logits(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "E m K"]:
        """Of the same samples by every network."""
        return _forward(self.parameters, x.expand(len(self.difficulty), -1, -1))

    def network(self, e: int) -> nn.Sequential:
        """One of them as a module."""
        W1, b1, W2, b2 = (p[e] for p in self.parameters)
        network = nn.Sequential(nn.Linear(W1.shape[0], W1.shape[1]), nn.ReLU(), nn.Linear(W2.shape[0], W2.shape[1]))
        with torch.no_grad():
            for target, source in zip(network.parameters(), (W1.mT, b1[0], W2.mT, b2[0]), strict=True):
                target.copy_(source)
        return network.eval()


def train_many(
    x: Float[Tensor, "E n d"],
    y: Int[Tensor, "E n"],
    *,
    hidden: int,
    epochs: int,
    generator: torch.Generator,
    batch_size: int = 32,
    lr: float = 0.1,
    momentum: float = 0.9,
    classes: int = 10,
) -> Many:
    """Train E networks, each on samples of its own, by SGD with momentum on the mean cross-entropy."""
    E, n, d = x.shape
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    parameters = (
        draw(E, d, hidden) * math.sqrt(2 / d),
        torch.zeros(E, 1, hidden),
        draw(E, hidden, classes) / math.sqrt(hidden),
        torch.zeros(E, 1, classes),
    )
    for p in parameters:
        p.requires_grad_()
    velocities = [torch.zeros_like(p) for p in parameters]
    targets = nn.functional.one_hot(y, classes).to(x)
    difficulty = torch.zeros(E, n)
    for _ in range(epochs):
        order = torch.rand(E, n, generator=generator).argsort(1)
        for batch in order.split(batch_size, dim=1):
            rows = x.gather(1, batch[:, :, None].expand(-1, -1, d))
            logits = _forward(parameters, rows).flatten(0, 1)
            labels = y.gather(1, batch).flatten()
            # A sum over networks of means over samples: no network sees another's gradient.
            loss = nn.functional.cross_entropy(logits, labels, reduction="sum") / batch.shape[1]
            gradients = torch.autograd.grad(loss, parameters)
            with torch.no_grad():
                for p, v, g in zip(parameters, velocities, gradients, strict=True):
                    v.mul_(momentum).add_(g)
                    p.sub_(v, alpha=lr)
        with torch.no_grad():
            difficulty += (_forward(parameters, x).softmax(2) - targets).norm(dim=2)
    return Many(tuple(p.detach() for p in parameters), difficulty)  # type: ignore[arg-type]


def _forward(parameters: tuple[Tensor, ...], x: Tensor) -> Tensor:
    W1, b1, W2, b2 = parameters
    return torch.baddbmm(b2, torch.relu(torch.baddbmm(b1, x, W1)), W2)
