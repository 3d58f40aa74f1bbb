"""Train a small network on a few thousand samples: quick on one thread, and the same every time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tangrams.features.inputs import Inputs
from tangrams.features.outputs import logits_of
from tangrams.study.progress import Advance


def train_classifier(
    model: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    *,
    epochs: int = 60,
    learning_rate: float = 5e-3,
    batch_size: int = 64,
    seed: int = 0,
    advance: Advance | None = None,
) -> nn.Module:
    """Train in place by Adam under a cosine schedule, long enough to memorise; ends in eval mode.

    The global random state and number of threads are left as they were.

    Args:
        model: the network; its weights are changed.
        inputs: what it is called with.
        labels: class indices.
        epochs: passes over the data.
        learning_rate: at the start; falls to zero along a cosine.
        batch_size: samples per step.
        seed: fixes the order of the samples, and dropout where the network has any.
        advance: told how far it has come.
    """
    n = len(labels)
    steps = -(-n // batch_size) * epochs
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(seed)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch other devices too
        torch.set_num_threads(1)  # small steps are slower on two
        model.train()
        try:
            for epoch in range(epochs):
                for index in torch.randperm(n, generator=generator).split(batch_size):
                    logits = logits_of(inputs.take(index).call(model))
                    loss = nn.functional.cross_entropy(logits, labels[index])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
                if advance is not None:
                    advance((epoch + 1) / epochs)
        finally:
            torch.set_num_threads(threads)
    model.zero_grad()
    return model.eval()
