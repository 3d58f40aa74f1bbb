"""Differentially private training of a tangent vector."""

from __future__ import annotations

import math
from typing import Any, no_type_check

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from tangrams.data.labelled import Labelled
from tangrams.features import TangentFeatures
from tangrams.features.model_ref import ModelRef
from tangrams.features.parameters import Selection
from tangrams.learners.base import num_samples
from tangrams.learners.privacy import FullBatchAccountant, PrivacyAccountant, SubsampledAccountant
from tangrams.learners.tangent_classifier import TangentClassifier
from tangrams.learners.tangent_training import batch_of
from tangrams.nn.tangent import LinearizedModule, TangentSum

_CHUNK = 256


class PrivateTangentClassifier(TangentClassifier):
    r"""A tangent classifier by noisy gradient descent, (ε, δ)-private for each sample [009].

    .. math::
        \dot w \leftarrow Π_R\!\left(\dot w - η \left(\tfrac{1}{n} \left(\sum_i
        g_i \min(1, S / \|g_i\|) + S σ z\right) + 2 μ \dot w\right)\right), \qquad
        g_i = \tfrac{2}{C} J_i^\top (f(x_i; \dot w) - α\, 1[y_i])

    z standard normal, S the clipping norm, n the expected number of samples of a step, Π_R the projection on a ball.
    The norms :math:`\|J_i^\top r_i\|` come from the layers' structure, without a gradient per sample. Where every step
    sees all samples the accounting is exact; with batches, drawn by a coin per sample, it is opacus's.

    The labels in ``y`` become public unless ``classes`` are given, and so does n.

    Args:
        backbone: as for :class:`TangentClassifier`; it must know nothing of these samples.
        trainable: as there.
        classes: as there.
        alpha: α.
        epsilon: ε; or else
        noise_multiplier: σ. One of the two.
        delta: δ.
        max_grad_norm: S.
        learning_rate: η.
        weight_decay: μ.
        radius: R; None: no projection.
        steps: of gradient descent.
        averaged: the answer is the mean over so many last steps, which costs no privacy and, as the problem is convex,
            takes noise away.
        batch_size: the expected number of samples of a step; None for all.
        random_state: None for fresh noise, and the head of number 0, so that what was trained apart can be composed. A
            number fixes the head and the noise: whoever knows it, or has two components of the same one, can take the
            noise away again, so it is for experiments.

    Attributes:
        classes_: the labels, sorted.
        linearized_: the network with its head, linearised, at the trained direction.
        tangent_: the direction.
        noise_multiplier_: σ.
        epsilon_: ε, infinite without noise.

    Shape:
        ``X (n, …)`` → labels ``(n,)``.

    Raises:
        ValueError: from ``fit``, unless one of ``epsilon`` and ``noise_multiplier`` is given, or for numbers out of
            range.
        ImportError: from ``fit``, for batches without opacus.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        backbone: nn.Module | ModelRef | None = None,
        *,
        trainable: Selection = None,
        classes: Any = None,
        alpha: float = 1.0,
        epsilon: float | None = None,
        noise_multiplier: float | None = None,
        delta: float = 1e-5,
        max_grad_norm: float = 1.0,
        learning_rate: float = 0.1,
        weight_decay: float = 0.0,
        radius: float | None = None,
        steps: int = 100,
        averaged: int = 1,
        batch_size: int | None = None,
        random_state: int | None = None,
    ) -> None:
        self.backbone = backbone
        self.trainable = trainable
        self.classes = classes
        self.alpha = alpha
        self.epsilon = epsilon
        self.noise_multiplier = noise_multiplier
        self.delta = delta
        self.max_grad_norm = max_grad_norm
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.radius = radius
        self.steps = steps
        self.averaged = averaged
        self.batch_size = batch_size
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> PrivateTangentClassifier:
        """Train the direction, from zero."""
        self._check()
        x = self._samples(X, reset=True)
        index = self._class_index(x, y)
        n = num_samples(x)
        rate = 1.0 if self.batch_size is None else min(1.0, self.batch_size / n)
        self.noise_multiplier_, self.epsilon_ = self._budget(rate)
        generator = torch.Generator().manual_seed(int(self.random_state or 0))
        self.linearized_ = self._linearize(x, generator)
        draws = _Draws(None if self.random_state is None else generator)
        phi = gradients_along(self.linearized_)
        last = TangentSum()
        for step in range(self.steps):
            drawn = torch.arange(n) if rate == 1 else draws.coins(n, rate)
            self._step(phi, x, torch.from_numpy(index), drawn, rate * n, draws)
            if step >= self.steps - self.averaged:
                last.add(str(step), self.linearized_.vector())
        self.tangent_ = last.vector()
        self.linearized_.set_vector(self.tangent_)
        return self

    def _step(
        self,
        phi: TangentFeatures,
        x: Any,
        labels: Tensor,
        drawn: Tensor,
        expected: float,
        draws: _Draws,
    ) -> None:
        tangents = list(self.linearized_.parameters())
        total = [torch.zeros_like(t) for t in tangents]
        for part in drawn.split(_CHUNK):
            if len(part):
                rows = batch_of(x, part, tangents[0])
                clipped = clipped_gradient(self.linearized_, phi, rows, labels[part], self.alpha, self.max_grad_norm)
                total = [a + g for a, g in zip(total, clipped, strict=True)]
        with torch.no_grad():
            for t, g in zip(tangents, total, strict=True):
                if self.noise_multiplier_:
                    g = g + self.max_grad_norm * self.noise_multiplier_ * draws.normal(t)
                t -= self.learning_rate * (g / expected + 2 * self.weight_decay * t)
            if self.radius is not None:
                norm = torch.stack([t.square().sum() for t in tangents]).sum().sqrt()
                for t in tangents:
                    t *= (self.radius / norm.clamp_min(1e-30)).clamp(max=1.0)

    def _budget(self, rate: float) -> tuple[float, float]:
        """σ and ε."""
        if self.noise_multiplier == 0:
            return 0.0, math.inf
        accountant: PrivacyAccountant = FullBatchAccountant() if rate == 1 else SubsampledAccountant(rate)
        sigma = self.noise_multiplier
        if self.epsilon is not None:
            sigma = accountant.noise_multiplier(self.epsilon, self.steps, self.delta)
        return float(sigma), accountant.epsilon(sigma, self.steps, self.delta)

    def _check(self) -> None:
        who = type(self).__name__
        if (self.epsilon is None) == (self.noise_multiplier is None):
            raise ValueError(f"{who} needs either epsilon or noise_multiplier")
        if self.noise_multiplier is not None and self.noise_multiplier < 0:
            raise ValueError(f"{who} needs noise_multiplier ≥ 0, got {self.noise_multiplier}")
        for name in ("max_grad_norm", "learning_rate", "steps", "averaged", "radius", "batch_size"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{who} needs {name} > 0, got {value}")
        if not 0 < self.delta < 1:
            raise ValueError(f"{who} needs 0 < delta < 1, got {self.delta}")


class _Draws:
    """Noise and coins.

    Torch's generator keeps 32 bits of its seed, few enough to try them all; NumPy's, by which fresh draws are made,
    starts from 128 of the system's.

    Args:
        generator: what fixes them; None for fresh ones.
    """

    def __init__(self, generator: torch.Generator | None) -> None:
        self._generator = generator
        self._fresh = np.random.default_rng()

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal, in the shape, precision and place of a tensor."""
        if self._generator is None:
            return torch.as_tensor(self._fresh.standard_normal(tuple(like.shape))).to(like)
        return torch.randn(like.shape, generator=self._generator, dtype=like.dtype).to(like.device)

    def coins(self, n: int, rate: float) -> Tensor:
        """Which of n samples are drawn, each with probability ``rate``."""
        if self._generator is None:
            return torch.from_numpy(np.flatnonzero(self._fresh.random(n) < rate))
        return (torch.rand(n, generator=self._generator, dtype=torch.float32) < rate).nonzero().squeeze(1)


def clipped_gradient(
    linearized: LinearizedModule, phi: TangentFeatures, x: Tensor, labels: Tensor, alpha: float, max_grad_norm: float
) -> list[Tensor]:
    r"""The sum over samples of :math:`g_i \min(1, S / \|g_i\|)`, per tensor of the direction.

    Args:
        linearized: at the direction.
        phi: its :func:`gradients_along`.
        x: samples.
        labels: the class of each.
        alpha: α of the square loss.
        max_grad_norm: S.
    """
    logits = linearized(x)
    target = alpha * nn.functional.one_hot(labels.to(logits.device), logits.shape[1]).to(logits)
    residual = (2 / logits.shape[1]) * (logits.detach() - target)
    weights = clipping(gradient_norms(phi, x, residual), max_grad_norm)
    return list(torch.autograd.grad(logits, list(linearized.parameters()), weights[:, None] * residual))


def gradients_along(linearized: LinearizedModule) -> TangentFeatures:
    r"""The features :math:`J_i^\top r_i` of samples labelled with r."""
    return TangentFeatures(linearized.base, _weighted_sum, params=list(linearized.names))


def gradient_norms(phi: TangentFeatures, x: Tensor, cotangents: Float[Tensor, "n C"]) -> Float[Tensor, "n"]:
    r""":math:`\|J_i^\top r_i\|` for each sample, without its gradient where the layers' structure allows.

    Args:
        phi: :func:`gradients_along`.
        x: samples.
        cotangents: r.
    """
    return phi.diag(Labelled(x, cotangents)).clamp_min(0).sqrt()


def clipping(norms: Float[Tensor, "n"], max_grad_norm: float) -> Float[Tensor, "n"]:
    """What each gradient is multiplied with: ``min(1, S / norm)``."""
    return (max_grad_norm / norms.clamp_min(torch.finfo(norms.dtype).tiny)).clamp(max=1.0)


def _weighted_sum(outputs: Tensor, cotangents: Tensor) -> Tensor:
    return (outputs * cotangents).sum(1)
