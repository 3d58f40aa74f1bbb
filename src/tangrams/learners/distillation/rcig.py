"""Data set distillation with convexified implicit gradients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tangrams.data import Labelled
from tangrams.learners.distillation.distilled_set import DistilledSet, centred_labels
from tangrams.learners.distillation.implicit import implicit_gradient
from tangrams.learners.distillation.inner import InnerProblem, Tensors, with_mirror
from tangrams.learners.distillation.linearized_ridge import LinearizedRidge
from tangrams.learners.distillation.methods import AdamMethod, InnerMethod
from tangrams.learners.distillation.model_pool import ModelPool
from tangrams.learners.distillation.whitening import ZCA
from tangrams.nn.optim import AdaBelief


@dataclass(frozen=True)
class RCIGConfig:
    """Settings of :class:`RCIG`, the paper's where nothing is said.

    Attributes:
        inner: the inner problem; others than the convex one are for comparison.
        ridge_rate: λ per synthetic image.
        inner_steps: on ω.
        hessian_steps: on the Hessian's inverse; 0 leaves the direct gradient alone.
        batch_size: real samples per step.
        image_lr: of AdaBelief, for images and labels.
        temperature_lr: the same for the log-temperature.
        ema: decay of the moving average.
        learn_labels: whether labels move too.
        mirrored: whether the set is used with its mirror images.
        pool_size: networks in the pool.
        pool_lr: of their Adam.
        pool_steps: the most steps that a network is trained after its turn.
        max_age: steps after which it is replaced.
        backprop_images: synthetic images that carry a gradient in a step, of a large set; None: all.
        method: makes what solves the inner problem and with its Hessian.
    """

    inner: type[InnerProblem] = LinearizedRidge
    ridge_rate: float = 5e-4
    inner_steps: int = 20
    hessian_steps: int = 20
    batch_size: int = 1024
    image_lr: float = 3e-3
    temperature_lr: float = 0.03
    ema: float = 0.99
    learn_labels: bool = True
    mirrored: bool = True
    pool_size: int = 30
    pool_lr: float = 5e-5
    pool_steps: int = 15
    max_age: int = 100
    backprop_images: int | None = None
    method: Callable[[], InnerMethod] = AdamMethod


class RCIG:
    r"""Learn a few images and soft labels on which networks train as on the real data [092].

    Each step takes a network of the pool, solves the inner problem on the synthetic set S (by default convexified:
    :class:`LinearizedRidge`), and moves S against the gradient of

    .. math:: L_t = \mathrm{CE}(e^τ f(x_t), y_t) - \mathrm{mean}_s \min(y_{s(1)} - y_{s(2)}, \tfrac{1}{2C})

    on a real batch, through the inner solution (:func:`implicit_gradient`, clipped to the direct part's norm), by
    AdaBelief; y₍₁₎ − y₍₂₎ is the margin of a soft label. Then the network itself is trained a little on S.

    Args:
        factory: makes a network with a body and a linear head, such as ``lambda: ConvNet(1, 10)``; activations that are
            smooth (softplus) suit it, networks that are evaluated may have others.
        images_per_class: size of S per class.
        num_classes: C ≥ 2.
        steps: how many; 10 000 in the paper, 15 000 for one image per class.
        whitening: what real images go through; None: as they are.
        config: all else.
        random_state: fixes every draw.

    Attributes:
        pool_: the networks, after :meth:`fit`.
        method_: what solved the inner problems, with the rates that it ended at.
        history_: per step: outer loss, outer accuracy, the inner loss before and after.

    Raises:
        ValueError: for fewer than two classes, no images or no steps.
    """

    def __init__(
        self,
        factory: Callable[[], nn.Module],
        images_per_class: int,
        num_classes: int,
        *,
        steps: int = 10_000,
        whitening: ZCA | None = None,
        config: RCIGConfig | None = None,
        random_state: int = 0,
    ) -> None:
        if num_classes < 2:
            raise ValueError(f"RCIG needs two classes or more, got {num_classes}: a margin has two labels")
        if images_per_class < 1 or steps < 1:
            raise ValueError(f"RCIG needs images and steps ≥ 1, got {images_per_class} and {steps}")
        self.factory, self.images_per_class, self.num_classes = factory, images_per_class, num_classes
        self.steps, self.whitening, self.random_state = steps, whitening, random_state
        self.config = config or RCIGConfig()

    def fit(self, data: Labelled, *, progress: Callable[[int], Any] | None = None) -> DistilledSet:
        """Distil.

        Args:
            data: images ``(n, c, h, w)`` and class indices.
            progress: called with the steps done.

        Raises:
            ValueError: if a class has too few samples to start from.
        """
        config, C = self.config, self.num_classes
        counts = torch.bincount(data.targets, minlength=C)
        if len(counts) > C or int(counts.min()) < self.images_per_class:
            raise ValueError(
                f"RCIG needs classes 0 … {C - 1} of {self.images_per_class} samples or more, got {counts.tolist()}"
            )
        generator = torch.Generator().manual_seed(self.random_state)
        real = data.inputs if self.whitening is None else self.whitening.whiten(data.inputs)
        hyper = self._start(real, data.targets, generator)
        self.pool_ = ModelPool(
            self.factory, config.pool_size, lr=config.pool_lr, max_age=config.max_age, seed=self.random_state
        )
        self.method_ = config.method()
        self._prepare(hyper, real, data.targets, generator)
        optimizer = AdaBelief(
            [
                {"params": [hyper["images"], hyper["labels"]], "lr": config.image_lr},
                {"params": [hyper["temperature"]], "lr": config.temperature_lr},
            ]
        )
        average = {name: torch.zeros_like(value) for name, value in hyper.items()}
        self.history_: list[dict[str, float]] = []
        for step in range(self.steps):
            batch = torch.randint(len(real), (config.batch_size,), generator=generator).to(real.device)
            self._move(hyper, optimizer, real[batch], data.targets[batch], generator)
            for name, value in hyper.items():
                average[name].lerp_(value, 1 - config.ema)
            if progress is not None:
                progress(step + 1)
        weight = 1 - config.ema**self.steps  # of what has been averaged
        return DistilledSet(
            hyper["images"],
            hyper["labels"],
            average["images"] / weight,
            average["labels"] / weight,
            self.whitening,
            config.mirrored,
        )

    def _start(self, real: Tensor, targets: Tensor, generator: torch.Generator) -> Tensors:
        """Real samples of each class, their labels, and temperature one."""
        order = torch.randperm(len(real), generator=generator).to(real.device)
        index = torch.cat([order[targets[order] == c][: self.images_per_class] for c in range(self.num_classes)])
        labels = centred_labels(targets[index], self.num_classes).to(real)
        return {"images": real[index].clone(), "labels": labels, "temperature": torch.zeros((), device=real.device)}

    def _move(self, hyper: Tensors, optimizer: AdaBelief, x: Tensor, y: Tensor, generator: torch.Generator) -> None:
        config, index = self.config, self.pool_.draw()
        problem = self._problem(index)
        frozen = problem.freeze(hyper)
        omega, losses = self.method_.minimise(frozen, problem.zeros(), config.inner_steps)
        accuracy = 0.0

        def outer(omega: Tensors, hyper: Tensors) -> Tensor:
            nonlocal accuracy
            f = problem.outputs(omega, self._partly(hyper, generator), x)
            accuracy = float((f.argmax(1) == y).double().mean())
            return outer_loss(f, y, hyper["labels"], hyper["temperature"])

        found = implicit_gradient(
            problem,
            outer,
            omega,
            hyper,
            lambda hvp, g: self.method_.invert(hvp, g, config.hessian_steps),
            frozen=frozen,
        )
        for name, gradient in found.clipped().items():
            hyper[name].grad = gradient if name != "labels" or config.learn_labels else None
        optimizer.step()
        images, labels = problem.set_of(hyper)
        steps = int(torch.randint(1, config.pool_steps + 1, (), generator=generator))
        self.pool_.train(index, images, labels, steps)
        self.history_.append(
            {
                "outer_loss": found.value,
                "outer_accuracy": accuracy,
                "inner_first": losses[0] if losses else 0.0,
                "inner_last": losses[-1] if losses else 0.0,
            }
        )

    def _problem(self, index: int) -> InnerProblem:
        ridge = self.config.ridge_rate * self.images_per_class * self.num_classes
        support = with_mirror if self.config.mirrored else None
        return self.config.inner(self.pool_.members[index].network, ridge, support)

    def _prepare(self, hyper: Tensors, real: Tensor, targets: Tensor, generator: torch.Generator) -> None:
        """Let the method find its settings on one network."""
        config, problem = self.config, self._problem(0)
        batch = torch.randint(len(real), (config.batch_size,), generator=generator).to(real.device)
        omega = {name: value.requires_grad_() for name, value in problem.zeros().items()}
        with torch.enable_grad():
            f = problem.outputs(omega, hyper, real[batch])
            value = outer_loss(f, targets[batch], hyper["labels"], hyper["temperature"])
            found = torch.autograd.grad(value, list(omega.values()), materialize_grads=True)
        g = dict(zip(omega, found, strict=True))
        self.method_.prepare(problem.freeze(hyper), problem.zeros(), g, config.inner_steps, config.hessian_steps)

    def _partly(self, psi: Tensors, generator: torch.Generator) -> Tensors:
        """ψ, with gradients through a random part of the images alone where the set is large."""
        images, most = psi["images"], self.config.backprop_images
        if most is None or most >= len(images):
            return psi
        carries = torch.zeros(len(images), dtype=torch.bool)
        carries[torch.randperm(len(images), generator=generator)[:most]] = True
        mask = carries.to(images.device)[:, None, None, None]
        return {**psi, "images": torch.where(mask, images, images.detach())}


def outer_loss(f: Tensor, y: Tensor, labels: Tensor, temperature: Tensor) -> Tensor:
    """Cross-entropy at a learned temperature, minus the mean margin of the soft labels, which counts up to 1/(2C).

    Args:
        f: outputs.
        y: class indices.
        labels: soft labels.
        temperature: τ.
    """
    top = labels.topk(2, 1).values
    margin = (top[:, 0] - top[:, 1]).clamp(max=0.5 / labels.shape[1])
    return nn.functional.cross_entropy(temperature.exp() * f, y) - margin.mean()
