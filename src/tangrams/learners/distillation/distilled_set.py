"""A distilled set of images, and what networks trained on it are worth."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tangrams.data import Labelled
from tangrams.learners.distillation.inner import with_mirror
from tangrams.learners.distillation.model_pool import seeded
from tangrams.learners.distillation.whitening import ZCA

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


@dataclass(frozen=True, eq=False)
class DistilledSet:
    """Synthetic images with soft labels [092].

    Attributes:
        images: in the space that networks see, ``(n, c, h, w)``.
        labels: one column per class, centred, ``(n, C)``.
        ema_images: their moving average: the result.
        ema_labels: the same of the labels.
        whitening: what real images go through first; None if they are seen as they are.
        mirrored: whether networks are trained on the mirror images too.
    """

    images: Float[Tensor, "n c h w"]
    labels: Float[Tensor, "n C"]
    ema_images: Float[Tensor, "n c h w"]
    ema_labels: Float[Tensor, "n C"]
    whitening: ZCA | None = None
    mirrored: bool = False

    @classmethod
    def of_samples(
        cls, samples: Labelled, num_classes: int, *, whitening: ZCA | None = None, mirrored: bool = False
    ) -> DistilledSet:
        """Real samples in the place of a distilled set: what it is compared with.

        Args:
            samples: images and class indices.
            num_classes: C.
            whitening: what they go through.
            mirrored: whether networks see their mirror images.
        """
        images = samples.inputs if whitening is None else whitening.whiten(samples.inputs)
        labels = centred_labels(samples.targets, num_classes)
        return cls(images, labels, images, labels, whitening, mirrored)

    def pictures(self) -> Float[Tensor, "n c h w"]:
        """The result as images: whitening undone."""
        return self.ema_images if self.whitening is None else self.whitening.restore(self.ema_images)

    def evaluate(
        self,
        factory: Callable[[], nn.Module],
        test: Labelled,
        *,
        augment: Augmentation | None = None,
        repeats: int = 5,
        lr: float = 1e-4,
        updates: int | None = None,
        batch_size: int = 256,
        seed: int = 0,
    ) -> Float[Tensor, "r"]:
        """Accuracies on real samples of fresh networks that are trained on the result.

        By Adam on half the mean squared error. The rate rises over the first half (500 updates at most) and falls by a
        cosine to 1 %; without augmentation it stays there for another 1.5 times as long.

        Args:
            factory: makes a network.
            test: real samples, before whitening.
            augment: changes the images at every update.
            repeats: how many networks.
            lr: the peak rate.
            updates: until the rate is lowest; None: 1000 for 10 images, else 2000.
            batch_size: of larger sets.
            seed: fixes the draws.
        """
        images = with_mirror(self.ema_images) if self.mirrored else self.ema_images
        labels = self.ema_labels.repeat(len(images) // len(self.ema_labels), 1)
        real = test.inputs if self.whitening is None else self.whitening.whiten(test.inputs)
        horizon = updates or (1000 if len(self.ema_images) == 10 else 2000)
        found = []
        for repeat in range(repeats):
            network = seeded(factory, seed + repeat)
            generator = torch.Generator().manual_seed(seed + repeat)
            optimizer = torch.optim.Adam(network.parameters(), lr=lr)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: _rate(t, horizon))
            network.train()
            for _ in range(horizon if augment is not None else round(2.5 * horizon)):
                x, y = images, labels
                if len(images) > batch_size:
                    index = torch.randperm(len(images), generator=generator)[:batch_size].to(images.device)
                    x, y = images[index], labels[index]
                if augment is not None:
                    x = augment(x, generator)
                optimizer.zero_grad()
                (nn.functional.mse_loss(network(x), y) / 2).backward()
                optimizer.step()
                schedule.step()
            network.eval()
            with torch.no_grad():
                answers = torch.cat([network(part).argmax(1) for part in real.split(1000)])
            found.append(float((answers == test.targets).double().mean()))
        return torch.tensor(found, dtype=torch.float64)


def centred_labels(targets: Tensor, num_classes: int) -> Float[Tensor, "n C"]:
    """One-hot labels minus 1/C."""
    return nn.functional.one_hot(targets, num_classes).to(torch.get_default_dtype()) - 1 / num_classes


def _rate(update: int, horizon: int) -> float:
    warm = min(500, horizon // 2)
    if update < warm:
        return (update + 1) / warm
    done = min(1.0, (update - warm) / max(1, horizon - warm))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2
