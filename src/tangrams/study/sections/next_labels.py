"""Section 8: what should be labelled next? A batch that stands for what the labels do not cover."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tangrams.learners import LargestClusterMaxDistance
from tangrams.study.estimates import absent, score, spread
from tangrams.study.material import Material

BATCH = 10


def measure(material: Material) -> dict[str, Any]:
    """A batch, why each sample is in it, and how spread out it is."""
    pool = material.problem.pool
    if pool is None:
        return absent("no pool of unlabelled samples was given")
    kernel = material.kernel
    size = min(BATCH, len(pool))
    unsure = _uncertainty(material)
    chosen, distances = cover_batch(kernel.gram, kernel.pool, kernel.pool_cross, size)
    alone = (kernel.pool.diagonal() + 1 - 2 * kernel.pool_cross.max(1).values).clamp_min(0).sqrt()  # labelled: norm 1
    high_doubt, high_distance = float(unsure.quantile(0.75)), float(alone.quantile(0.75))
    batch = []
    for i, distance in zip(chosen.tolist(), distances.tolist(), strict=True):
        doubtful, far = float(unsure[i]) >= high_doubt, distance >= high_distance
        row = {
            "id": pool.id(i),
            "predicted": _prediction(material, i),
            "uncertainty": float(unsure[i]),
            "distance": distance,
            "why": "both" if doubtful and far else "far" if far else "uncertain" if doubtful else "cluster",
        }
        batch.append(row)
    generator = torch.Generator().manual_seed(material.seed)
    random = torch.tensor(
        [_smallest_distance(kernel.pool, torch.randperm(len(pool), generator=generator)[:size]) for _ in range(20)]
    )
    own = torch.tensor([_smallest_distance(kernel.pool, chosen)])
    return {
        "state": "measured",
        "method": "largest cluster, maximum distance in the tangent kernel",
        "batch": batch,
        "spread": score(spread(own, "batches"), {"random batch": spread(random, "random batches")}),
    }


def cover_batch(
    gram: Float[Tensor, "n n"], pool: Float[Tensor, "q q"], cross: Float[Tensor, "q n"], size: int
) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
    """Choose a batch by :class:`~tangrams.learners.LargestClusterMaxDistance`, the labelled samples given.

    Args:
        gram: kernel of the labelled samples.
        pool: of the pool.
        cross: the pool against the labelled samples.
        size: how many, at most q.

    Returns:
        The chosen samples and each one's distance when it was chosen.
    """
    joint = torch.cat([torch.cat([pool, cross], 1), torch.cat([cross.mT, gram], 1)])
    numbers = torch.arange(len(joint))
    selector = LargestClusterMaxDistance(size, kernel=_Known(joint))
    selector.fit(numbers[: len(pool)], labelled=numbers[len(pool) :])
    distances = torch.from_numpy(selector.scores_).to(pool.dtype).clamp_min(0).sqrt()
    return torch.from_numpy(selector.indices_), distances.nan_to_num(0.0)


class _Known:
    """A kernel of numbered samples, its values known."""

    def __init__(self, gram: Tensor) -> None:
        self._gram = gram

    def gram(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        return self._gram[x][:, x if y is None else y]

    def diag(self, x: Tensor) -> Tensor:
        return self._gram.diagonal()[x]


def _uncertainty(material: Material) -> Tensor:
    """1 − the network's probability of its class; for a regression the posterior standard deviation of the ridge."""
    problem, kernel = material.problem, material.kernel
    assert problem.pool is not None
    if problem.task == "classification":
        return 1 - problem.probabilities(problem.pool).max(1).values
    explained = (kernel.spectrum.weights(kernel.pool_cross, material.delta) * kernel.pool_cross).sum(1)
    return (kernel.pool.diagonal() - explained).clamp_min(0).sqrt()


def _prediction(material: Material, i: int) -> float | int:
    pool = material.problem.pool
    assert pool is not None
    outputs = pool.outputs[i]
    return int(outputs.argmax()) if material.problem.task == "classification" else float(outputs[0])


def _smallest_distance(K: Tensor, index: Tensor) -> float:
    if len(index) < 2:
        return 0.0
    sub = K[index][:, index]
    distance = (sub.diagonal()[:, None] + sub.diagonal() - 2 * sub).clamp_min(0).sqrt()
    return float(distance[torch.triu(torch.ones_like(sub, dtype=torch.bool), 1)].min())
