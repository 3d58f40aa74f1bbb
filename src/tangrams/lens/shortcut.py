"""How much a classifier leans on a shortcut: reliance, bias, interventions, and what kernels predict [008]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.shortcut import ShortcutSamples, ShortcutTask
from tangrams.kernels.base import Kernel
from tangrams.learners import KernelRidge
from tangrams.learners.base import as_array

Decide = Callable[[Tensor], Any]
"""Inputs → scores or decisions, of which the signs count: ``(m, d)`` → ``(m,)`` or ``(m, 1)``."""


@dataclass(frozen=True)
class BiasReport:
    """How much more a classifier leans on the shortcut than the optimal one does.

    Attributes:
        reliance: ``a_s − a_c`` of the classifier: 1 decides by the shortcut alone, −1 by the core alone.
        optimal_reliance: that of the optimal classifier.
        bias: the difference; positive is shortcut bias.
        a_s: agreement of the decisions with the sign of the shortcut, in [−1, 1].
        a_c: with that of the core.
        degenerate: whether all decisions are the same.
    """

    reliance: float
    optimal_reliance: float
    bias: float
    a_s: float
    a_c: float
    degenerate: bool


def agreements(decisions: Any, latents: Float[Tensor, "m 2"]) -> tuple[float, float]:
    r"""``a_i``, the mean of decision × sign z_i: of the shortcut and of the core [008].

    Args:
        decisions: scores or decisions; their signs count, zero counts as 1.
        latents: of the same probes.

    Raises:
        ValueError: if the numbers differ, a decision is not finite, or all lie in [0, 1]: probabilities, it seems.
    """
    values = torch.as_tensor(as_array(decisions), dtype=torch.float64).reshape(-1)
    z = torch.as_tensor(as_array(latents), dtype=torch.float64)
    if len(values) != len(z):
        raise ValueError(f"agreements needs one decision per probe, got {len(values)} for {len(z)}")
    if not bool(values.isfinite().all()):
        raise ValueError("agreements got a decision that is not finite: did the training diverge?")
    if bool((values >= 0).all() and (values <= 1).all() and (values != values[0]).any()):
        raise ValueError("agreements got values within [0, 1] alone: pass p − ½ of probabilities, or decisions ±1")
    signs = torch.where(values >= 0, 1.0, -1.0)[:, None] * z.sign()
    a_s, a_c = signs.mean(0).tolist()
    return a_s, a_c


def reliance(decisions: Any, latents: Float[Tensor, "m 2"]) -> float:
    r"""The mean of ``ŷ (sign z_s − sign z_c)``: 1 decides by the shortcut alone, −1 by the core alone [008].

    Args:
        decisions: as :func:`agreements` takes them.
        latents: of the same probes.
    """
    a_s, a_c = agreements(decisions, latents)
    return a_s - a_c


def bayes_decision(task: ShortcutTask, latents: Float[Tensor, "m 2"]) -> Float[Tensor, "m"]:
    """The optimal scores ``z @ Σ⁻¹ μ``.

    Args:
        task: whose.
        latents: z.
    """
    return latents.to(torch.float64) @ task.bayes_weights


def linear_discriminant(samples: ShortcutSamples) -> Decide:
    """The optimal classifier as the paper has it: linear discriminant analysis, by least squares, of embedded samples.

    Args:
        samples: what it is fitted to.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-9)
    fitted.fit(as_array(samples.inputs), as_array(samples.targets))
    return lambda inputs: fitted.decision_function(as_array(inputs))


def shortcut_bias(decide: Decide, task: ShortcutTask, *, optimal: Decide | None = None, side: int = 30) -> BiasReport:
    """A classifier's reliance on a grid of probes, less that of the optimal one [008].

    Args:
        decide: the classifier.
        task: what it was trained on.
        optimal: another optimal classifier, such as :func:`linear_discriminant`; the exact Bayes rule by default.
        side: probes per axis, even.
    """
    latents = task.probe(side)
    inputs = task.embed(latents)
    decisions = torch.as_tensor(as_array(decide(inputs)), dtype=torch.float64).reshape(-1)
    a_s, a_c = agreements(decisions, latents)
    best = reliance(bayes_decision(task, latents) if optimal is None else optimal(inputs), latents)
    signs = decisions >= 0
    degenerate = bool(signs.all() or not signs.any())
    return BiasReport(a_s - a_c, best, a_s - a_c - best, a_s, a_c, degenerate)


@dataclass(frozen=True)
class ShortcutMap:
    """Shortcut bias over predictivity and availability.

    Attributes:
        rhos: predictivities of the shortcut.
        alphas: its amplifications.
        bias: ``(rhos, alphas, seeds)``.
        reliance: of the classifiers, of the same shape.
    """

    rhos: tuple[float, ...]
    alphas: tuple[float, ...]
    bias: Float[np.ndarray, "r a s"]
    reliance: Float[np.ndarray, "r a s"]


def shortcut_map(
    train: Callable[[ShortcutSamples, int], Decide],
    rhos: Sequence[float],
    alphas: Sequence[float],
    *,
    seeds: int = 5,
    num_samples: int = 3200,
    **task: Any,
) -> ShortcutMap:
    """Train a classifier on every predictivity and availability, and measure its bias [008].

    Args:
        train: (samples, seed) → classifier.
        rhos: predictivities of the shortcut.
        alphas: its amplifications.
        seeds: of embedding, samples and classifier; the embedding of a seed is the same for all.
        num_samples: training samples.
        **task: further options of :class:`~tangrams.data.ShortcutTask`.
    """
    found = []
    for rho in rhos:
        for alpha in alphas:
            for seed in range(seeds):
                made = ShortcutTask(rho, alpha_s=alpha, seed=seed, **task)
                found.append(shortcut_bias(train(made.sample(num_samples, seed=seed), seed), made))
    shape = (len(rhos), len(alphas), seeds)
    bias, leaning = (np.array([getattr(r, name) for r in found]).reshape(shape) for name in ("bias", "reliance"))
    return ShortcutMap(tuple(rhos), tuple(alphas), bias, leaning)


class KernelShortcutProbe:
    r"""What a network of infinite width would lean on: regression of the labels with its kernel [008].

    .. math:: f(x) = \bar y + k_x (K + δ \tfrac{\mathrm{tr} K}{n} I)^{-1} (y - \bar y)

    with :class:`~tangrams.kernels.FullyConnectedNTK` for a trained network. On the linear kernel the rule does not
    depend on how the latents are amplified; on those of nonlinear networks it does, and this is the paper's account.
    For one hidden layer the sensitivity to a latent grows with its amplification.

    Args:
        kernel: the kernel.
        delta: the ridge in units of the Gram's mean diagonal; None: by leave-one-out.

    Example:
        >>> from tangrams.kernels import FullyConnectedNTK
        >>> task = ShortcutTask(0.85, alpha_s=5.0)
        >>> probe = KernelShortcutProbe(FullyConnectedNTK(1), delta=1e-9).fit(task.sample(200, seed=0))
        >>> abs(shortcut_bias(probe, task).bias) < 0.2
        True
    """

    def __init__(self, kernel: Kernel, *, delta: float | None = None) -> None:
        self.kernel = kernel
        self.delta = delta

    def fit(self, samples: ShortcutSamples) -> KernelShortcutProbe:
        """Regress the labels of samples."""
        self._samples = samples.inputs
        self._model = KernelRidge(self.kernel, delta=self.delta).fit(samples.inputs, samples.targets)
        self.delta_ = self._model.delta_
        return self

    def __call__(self, inputs: Float[Tensor, "m d"]) -> Float[np.ndarray, "m"]:
        """The scores of inputs."""
        return self._model.predict(inputs)

    def sensitivities(self, task: ShortcutTask, latents: Float[Tensor, "m 2"]) -> Float[Tensor, "m 2"]:
        """``∂f/∂z`` at probes: how much each latent moves the score.

        Args:
            task: embeds the latents.
            latents: where.
        """
        coefficients = torch.from_numpy(self._model.dual_coef_)
        with torch.enable_grad():
            z = latents.detach().to(torch.float64).requires_grad_()
            score = self.kernel.gram(task.embed(z), self._samples).to(torch.float64) @ coefficients
            (slope,) = torch.autograd.grad(score.sum(), z)
        return slope


@dataclass(frozen=True)
class InterventionReport:
    """What setting a latent against the other does to a classifier.

    Attributes:
        shortcut_flips: share of decisions that change when the shortcut changes its sign and the core stays.
        core_flips: when the core changes its sign and the shortcut stays.
        agreement_accuracy: share of right decisions where both latents point at the label.
        conflict_accuracy: where the shortcut points at the other label and the core at the label.
    """

    shortcut_flips: float
    core_flips: float
    agreement_accuracy: float
    conflict_accuracy: float


def intervene(decide: Decide, task: ShortcutTask, samples: ShortcutSamples) -> InterventionReport:
    """Flip one latent at a time, and look at samples whose latents disagree [008].

    Args:
        decide: the classifier.
        task: embeds the latents.
        samples: test samples.
    """

    def decisions(latents: Tensor) -> Tensor:
        return torch.as_tensor(as_array(decide(task.embed(latents)))).reshape(-1) >= 0

    plain = decisions(samples.latents)
    flips = [
        float((decisions(samples.latents * torch.tensor(signs)) != plain).double().mean())
        for signs in ([-1.0, 1.0], [1.0, -1.0])
    ]
    right = plain == (samples.targets > 0)
    toward = samples.latents * samples.targets[:, None] > 0
    parts = [toward[:, 1] & toward[:, 0], toward[:, 1] & ~toward[:, 0]]
    agree, conflict = (float(right[part].double().mean()) if bool(part.any()) else float("nan") for part in parts)
    return InterventionReport(flips[0], flips[1], agree, conflict)


def background_sensitivity(
    decide: Callable[[Tensor], Any],
    images: Float[Tensor, "n c h w"],
    labels: Any,
    foreground: Float[Tensor, "n 1 h w"],
    conflict: Any,
    interventions: Mapping[str, Callable[[Tensor], Tensor]],
) -> dict[str, float]:
    """How much a classifier gains on conflicting images when their background is made less available [008].

    The foreground is kept as it is; only what lies behind it goes through an intervention, which leaves the background
    as predictive as before. A classifier that leans on the background gains; one that does not stays.

    Args:
        decide: images → class indices.
        images: test images.
        labels: their class indices.
        foreground: 1 where the object is, 0 behind it.
        conflict: which images have the background of another class.
        interventions: name → function of images, such as :func:`blur`, :func:`fade` and :func:`grain`.

    Returns:
        Name → accuracy on conflicting images after the intervention, less that before.

    Raises:
        ValueError: if no image is in conflict.
    """
    chosen = torch.as_tensor(as_array(conflict), dtype=torch.bool)
    if not bool(chosen.any()):
        raise ValueError("background_sensitivity needs images whose background is that of another class, got none")
    shown, mask = images[chosen], foreground[chosen]
    truth = torch.as_tensor(as_array(labels))[chosen]

    def accuracy(given: Tensor) -> float:
        return float((torch.as_tensor(as_array(decide(given))).reshape(-1) == truth).double().mean())

    before = accuracy(shown)
    return {
        name: accuracy(mask * shown + (1 - mask) * change(shown)) - before for name, change in interventions.items()
    }
