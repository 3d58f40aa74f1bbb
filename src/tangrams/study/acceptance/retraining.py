"""Do explanations say what retraining without the samples would do?"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from tangrams.study.acceptance.base import Bench, Criterion, at_least, at_most, listed, told
from tangrams.study.material import EXPLAIN_DELTA, Material
from tangrams.study.sections import predictions
from tangrams.study.sections.redundancy import retrained_outputs

POWER = 20
"""Of the input cosine: the one that did best among 1, 5, 10, 20, 40."""
SUBSETS = 26
"""Half-data retrainings for the linear datamodeling score."""
REMOVED = 30
"""Training samples removed at a time."""
POINTS = 30
"""Test samples whose supporters are removed, per seed."""


def measure_datamodeling(bench: Bench) -> list[Criterion]:
    """Linear datamodeling score over half-data retrainings, against input cosines."""
    group = "datamodeling"
    figures: dict[str, list[float]] = {}
    errors = []
    for material in bench.materials():
        column, masks, outcomes = half_data(material, bench)
        for name, attributions in candidates(material, column).items():
            scores = datamodeling_scores(attributions, masks, outcomes)
            figures.setdefault(name, []).append(float(scores.mean()))
            if name == SHOWN:
                errors.append(float(scores.std() / len(scores) ** 0.5))
    ours = figures.pop(SHOWN)
    same = figures[SAME_CODING]
    note = listed(figures | {"standard error over test samples": errors})
    return [
        at_least(group, f"linear datamodeling score, {SUBSETS} retrainings", ours, 0.15, note),
        at_least(
            group,
            "score above the input cosine",
            [a - b for a, b in zip(ours, same, strict=True)],
            0.0,
            "labels coded alike; with ±1 labels the input cosine gains what our margin form gains",
        ),
    ]


SHOWN = "explanations as shown"
SAME_CODING = f"input cosine^{POWER}, labels coded alike"


def half_data(material: Material, bench: Bench) -> tuple[Tensor, Tensor, Tensor]:
    """Explained class per test sample ``(m,)``, which samples each half kept ``(s, n)``, and the margins ``(s, m)``.

    Args:
        material: of the default.
        bench: shows progress.
    """
    column = predictions.explain(material).column
    n = len(material.targets)
    generator = torch.Generator().manual_seed(1000 + material.seed)
    masks, outcomes = [], []
    with bench.steps(f"{SUBSETS} half-data retrainings, seed {material.seed}") as advance:
        for done in range(SUBSETS):
            index = torch.randperm(n, generator=generator)[: n // 2]
            mask = torch.zeros(n, dtype=torch.float64)
            mask[index] = 1
            masks.append(mask)
            outcomes.append(margin(retrained_outputs(material, index), column))
            advance((done + 1) / SUBSETS)
    return column, torch.stack(masks), torch.stack(outcomes)


def candidates(material: Material, column: Int[Tensor, "m"]) -> dict[str, Float[Tensor, "m n"]]:
    """Attributions by name: as shown, as a margin, and from input cosines without a network.

    Args:
        material: of the default.
        column: the explained class of each test sample.
    """
    problem = material.problem
    train, test = problem.train.flat_inputs(), problem.test.flat_inputs()
    assert train is not None
    assert test is not None
    cosine = torch.nn.functional.normalize(test) @ torch.nn.functional.normalize(train).mT
    sign = torch.where(problem.train.given == column[:, None], 1.0, -1.0)
    centred = material.targets - material.targets.mean(0)
    shown = predictions.explain(material).contributions
    weights = material.kernel.spectrum.weights(material.kernel.cross, EXPLAIN_DELTA)
    rivals = problem.test.outputs.scatter(1, column[:, None], -torch.inf).softmax(1)  # what the margin is against
    return {
        SHOWN: shown,
        "explanations of the margin": shown - weights * (rivals @ centred.mT),
        SAME_CODING: cosine**POWER * centred.mT[column],
        f"input cosine^{POWER}, ±1 labels": cosine**POWER * sign,
        "input cosine, ±1 labels": cosine * sign,
    }


def datamodeling_scores(
    attributions: Float[Tensor, "m n"], masks: Float[Tensor, "s n"], outcomes: Float[Tensor, "s m"]
) -> Float[Tensor, "m"]:
    """Rank correlation, over subsets, of the summed attributions inside the subset with the retrained outcome.

    Args:
        attributions: of m test samples to n training samples.
        masks: one where the training sample was kept.
        outcomes: of each retraining for each test sample.
    """
    predicted = masks @ attributions.mT
    pairs = zip(predicted.mT.numpy(), outcomes.mT.numpy(), strict=True)
    return torch.tensor([float(spearmanr(a, b).statistic) for a, b in pairs], dtype=torch.float64)  # type: ignore[attr-defined]


def margin(outputs: Float[Tensor, "m C"], column: Tensor) -> Float[Tensor, "m"]:
    """Logit of a class minus the log-sum-exp of all others."""
    others = outputs.scatter(1, column[:, None], -torch.inf)
    return outputs.gather(1, column[:, None])[:, 0] - others.logsumexp(1)


def measure_removal(bench: Bench) -> list[Criterion]:
    """Retrain without the top supporters of a test sample, and without as many others of their class."""
    group = "removal"
    top, random = [], []
    for material in bench.materials():
        a, b = removal_effects(material, bench)
        top.append(a)
        random.append(b)
    all_top, all_random = np.concatenate(top), np.concatenate(random)
    paired = all_top - all_random
    error = float(paired.std(ddof=1) / len(paired) ** 0.5)
    note = f"paired difference {paired.mean():+.2f} ± {error:.2f} (standard error), {len(paired)} test samples"
    return [
        told(group, f"margin change without the top {REMOVED}", [float(a.mean()) for a in top], note),
        told(group, f"margin change without {REMOVED} random of the class", [float(b.mean()) for b in random]),
        at_most(
            group, "top minus random, over all seeds", [float(paired.mean())], 0.0, f"± {error:.2f} standard error"
        ),
        at_least(group, "test samples", [len(paired)], 30),
    ]


def removal_effects(material: Material, bench: Bench) -> tuple[np.ndarray, np.ndarray]:
    """Margin changes of test samples when their top supporters, or random ones of their class, are gone.

    Args:
        material: of the default.
        bench: shows progress.
    """
    problem = material.problem
    found = predictions.explain(material)
    generator = torch.Generator().manual_seed(2000 + material.seed)
    agreeing = torch.nonzero(found.column == problem.test.outputs.argmax(1))[:, 0]
    points = agreeing[torch.randperm(len(agreeing), generator=generator)[:POINTS]]
    n = len(material.targets)
    before = margin(problem.test.outputs, found.column)
    top, random = [], []
    with bench.steps(f"{2 * len(points)} retrainings without samples, seed {material.seed}") as advance:
        for done, point in enumerate(points.tolist()):
            column = int(found.column[point])
            supporters = found.supporters(REMOVED)[point]
            of_class = torch.nonzero(problem.train.given == column)[:, 0]
            others = of_class[torch.randperm(len(of_class), generator=generator)[:REMOVED]]
            for removed, changes in ((supporters, top), (others, random)):
                kept = torch.ones(n, dtype=torch.bool)
                kept[removed] = False
                after = margin(retrained_outputs(material, torch.nonzero(kept)[:, 0]), found.column)
                changes.append(float(after[point] - before[point]))
            advance((done + 1) / len(points))
    return np.array(top), np.array(random)
