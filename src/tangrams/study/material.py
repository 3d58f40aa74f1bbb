"""What every section reads: the data, the network's tangent kernel on them, and the models fitted to it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tangrams.features import TangentFeatures
from tangrams.features.inputs import Inputs
from tangrams.lens.label_errors import LabelErrors, find_label_errors, find_target_errors
from tangrams.operators.ridge import GramSpectrum
from tangrams.study.problem import Problem
from tangrams.study.progress import Steps

EXPLAIN_DELTA = 1.0
"""The ridge for explanations: follows the network more closely than the one that predicts best."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What was planted in the training data on purpose.

    Attributes:
        wrong: where the given label was planted: ``(n,)``.
        labels: the labels before planting: ``(n,)``.
        copies: planted pairs (original, copy): ``(k, 2)``.
        kind: how the wrong labels were drawn.
    """

    wrong: Bool[Tensor, "n"]
    labels: Int[Tensor, "n"]
    copies: Int[Tensor, "k 2"]
    kind: Literal["uniform", "confusable"] = "uniform"


@dataclass(frozen=True, eq=False)
class TangentKernel:
    """The cosine trace NTK between training samples and all others.

    Attributes:
        gram: training against training: ``(n, n)``.
        cross: test against training: ``(m, n)``.
        pool: pool against pool: ``(q, q)``; q = 0 without a pool.
        pool_cross: pool against training: ``(q, n)``.
        spectrum: of ``gram``.
    """

    gram: Float[Tensor, "n n"]
    cross: Float[Tensor, "m n"]
    pool: Float[Tensor, "q q"]
    pool_cross: Float[Tensor, "q n"]
    spectrum: GramSpectrum

    @classmethod
    def of(cls, model: nn.Module, problem: Problem, *, memory_budget: int | str) -> TangentKernel:
        """Measure it: one exact trace Gram over all samples, brought to cosines [072].

        A sample without gradient has cosine 0 with all others.
        """
        n, m = len(problem.train), len(problem.test)
        phi = TangentFeatures(model, output="trace", memory_budget=memory_budget)
        K = phi.gram(_joined([split.inputs for split in problem.splits])).detach().to("cpu", torch.float64)
        norms = K.diagonal().sqrt()
        norms = torch.where(norms > 0, norms, torch.ones_like(norms))
        K = K.div_(norms).div_(norms[:, None])
        train, held_out, rest = slice(0, n), slice(n, n + m), slice(n + m, None)
        gram = K[train, train].clone()
        cross, pool, pool_cross = (K[a, b].clone() for a, b in ((held_out, train), (rest, rest), (rest, train)))
        return cls(gram, cross, pool, pool_cross, GramSpectrum.of(gram))


@dataclass(frozen=True, eq=False)
class Material:
    """All that the sections of a study measure on.

    Attributes:
        model: the network.
        problem: its data.
        kernel: its tangent kernel on them.
        initial: the same at the weights before training, where they are known.
        truth: what was planted, where that is known.
        retrain: trains a fresh copy of the network on the training samples at an index, or None.
        seed: fixes every draw.
        steps: where time goes.
    """

    model: nn.Module
    problem: Problem
    kernel: TangentKernel
    initial: TangentKernel | None
    truth: Truth | None
    retrain: Callable[[Tensor], nn.Module] | None
    seed: int
    steps: Steps = field(repr=False)

    @cached_property
    def targets(self) -> Float[Tensor, "n C"]:
        """Training targets as columns."""
        return self.problem.encode(self.problem.train)

    @cached_property
    def errors(self) -> LabelErrors:
        """The judgement of every training label, whose ridge is the clean-up model's."""
        return self.judge(self.kernel)

    def judge(self, kernel: TangentKernel) -> LabelErrors:
        """Closed-form leave-one-out judgement of the training labels on a kernel."""
        train = self.problem.train
        if self.problem.task == "regression":
            return find_target_errors(kernel.spectrum, self.targets)
        return find_label_errors(kernel.spectrum, train.given, len(self.problem.classes))

    @property
    def delta(self) -> float:
        """The clean-up model's ridge, by leave-one-out."""
        return self.errors.delta

    def cleanup(self, delta: float, kernel: TangentKernel | None = None) -> Float[Tensor, "m C"]:
        """Test outputs of kernel ridge fitted to the labels."""
        return ridge_outputs(kernel or self.kernel, self.targets, delta)

    @cached_property
    def mimic_delta(self) -> float:
        """The mimic's ridge, by leave-one-out on the network's outputs."""
        return self.kernel.spectrum.choose(self.problem.standardised_outputs(self.problem.train))

    @cached_property
    def mimic(self) -> Float[Tensor, "m C"]:
        """Test outputs of kernel ridge fitted to the network's logits (its values in a regression)."""
        outputs = self.problem.standardised_outputs(self.problem.train)
        return ridge_outputs(self.kernel, outputs, self.mimic_delta)


def ridge_outputs(kernel: TangentKernel, targets: Float[Tensor, "n C"], delta: float) -> Float[Tensor, "m C"]:
    """Kernel ridge around the mean target, evaluated on the test samples."""
    return targets.mean(0) + kernel.cross @ kernel.spectrum.dual(targets, delta)


def with_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A copy of the network with other weights; the network itself is left alone.

    Args:
        model: the network.
        weights: a state dict of it.

    Raises:
        ValueError: if the weights do not fit.
    """
    other = copy.deepcopy(model)
    try:
        other.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the network: {' '.join(str(error).split())}") from None
    return other


def _joined(parts: list[Inputs]) -> Inputs:
    """The samples of several inputs of the same form, one after another."""
    columns = iter([torch.cat(column) for column in zip(*(part.tensors() for part in parts), strict=True)])
    joined = parts[0].map(lambda _: next(columns))
    return joined
