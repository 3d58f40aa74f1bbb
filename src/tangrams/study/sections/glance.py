"""Section 1: the model, the data, and how well three models of them agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import kendalltau
from torch import Tensor

from tangrams.learners.kernel_logistic_regression import KernelLogisticRegression
from tangrams.study.estimates import bootstrap, share
from tangrams.study.material import EXPLAIN_DELTA, Material
from tangrams.study.problem import Problem, Split

LOGISTIC_C = 10.0
"""The inverse penalty of the logistic clean-up model: the smallest power of ten whose confidence follows a network."""


def network(material: Material) -> dict[str, Any]:
    """How good the network is on its test and training data."""
    problem = material.problem
    return {
        "accuracy": _quality(problem, problem.test, problem.standardised_outputs(problem.test), material.seed),
        "train_accuracy": _quality(problem, problem.train, problem.standardised_outputs(problem.train), material.seed),
    }


def surrogates(material: Material) -> dict[str, Any]:
    """The clean-up model (fitted to the labels) and the mimic (fitted to the network): two goals, two models."""
    problem, kernel = material.problem, material.kernel
    explaining, tuned = material.cleanup(EXPLAIN_DELTA), material.cleanup(material.delta)
    found = {
        "state": "measured",
        "features": "trace NTK, cosine",
        "cleanup": {"delta": EXPLAIN_DELTA} | fidelity(problem, explaining, material.seed),
        "tuned_cleanup": {
            "delta": material.delta,
            "accuracy": _quality(problem, problem.test, tuned, material.seed),
        },
        "mimic": {"delta": material.mimic_delta} | fidelity(problem, material.mimic, material.seed),
    }
    if problem.task == "classification":
        logistic = KernelLogisticRegression("precomputed", C=LOGISTIC_C, tol=1e-4).fit(
            kernel.gram.numpy(), problem.train.given
        )
        logits = torch.full((len(problem.test), len(problem.classes)), -np.inf, dtype=torch.float64)
        logits[:, torch.from_numpy(logistic.classes_)] = torch.from_numpy(
            np.asarray(logistic.logits(kernel.cross.numpy()), dtype=np.float64)
        )
        found["cleanup_logistic"] = {"C": LOGISTIC_C} | fidelity(problem, logits, material.seed)
    return found


def fidelity(problem: Problem, outputs: Float[Tensor, "m C"], seed: int) -> dict[str, Any]:
    """How a surrogate's test outputs compare with the network's.

    Args:
        problem: the data.
        outputs: logits or scores; in a regression standardised values.
        seed: fixes the bootstrap.
    """
    test = problem.test
    network = problem.standardised_outputs(test)
    if problem.task == "regression":

        def correlation(index: Tensor) -> float:
            pairs = torch.stack([network[index].flatten(), outputs[index].flatten()])
            return float(torch.corrcoef(pairs)[0, 1])

        return {
            "accuracy": _quality(problem, test, outputs, seed),
            "agreement": bootstrap(correlation, len(test), seed=seed, resampled="test samples"),
            "kendall": None,
        }
    ours, theirs = log_probability_of_given(outputs, test), log_probability_of_given(network, test)

    def tau(index: Tensor) -> float:
        return float(kendalltau(ours[index], theirs[index]).statistic)  # type: ignore[attr-defined]

    return {
        "accuracy": share(outputs.argmax(1) == test.given),
        "agreement": share(outputs.argmax(1) == network.argmax(1)),
        "kendall": bootstrap(tau, len(test), seed=seed, repeats=100, resampled="test samples"),
    }


def log_probability_of_given(outputs: Float[Tensor, "m C"], split: Split) -> Float[Tensor, "m"]:
    """Log-softmax at the given class: in the logarithm a confident network's probabilities stay apart."""
    return outputs.log_softmax(1).gather(1, split.given[:, None])[:, 0]


def _quality(problem: Problem, split: Split, outputs: Float[Tensor, "n C"], seed: int) -> dict[str, Any]:
    """Accuracy with a Wilson interval, or R² with a bootstrap interval."""
    if problem.task == "classification":
        return share(outputs.argmax(1) == split.given)
    wanted = problem.encode(split)

    def r_squared(index: Tensor) -> float:
        rows = wanted[index]
        return 1 - float((outputs[index] - rows).square().sum() / (rows - rows.mean(0)).square().sum())

    return bootstrap(r_squared, len(split), seed=seed)
