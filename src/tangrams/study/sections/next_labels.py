"""Section 8: what should be labelled next? A batch from the pool that the network is unsure of and that spreads out."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    chosen, distances = spread_batch(kernel.pool, kernel.pool_cross, unsure, size)
    alone = _distance_to_labelled(kernel.pool, kernel.pool_cross)
    high_doubt, high_distance = float(unsure.quantile(0.75)), float(alone.quantile(0.75))
    batch = []
    for i, distance in zip(chosen.tolist(), distances.tolist(), strict=True):
        doubtful, far = float(unsure[i]) >= high_doubt, distance >= high_distance
        row = {
            "id": pool.id(i),
            "predicted": _prediction(material, i),
            "uncertainty": float(unsure[i]),
            "distance": distance,
            "why": "both" if doubtful and far else "far" if far else "uncertain",
        }
        batch.append(row)
    generator = torch.Generator().manual_seed(material.seed)
    random = torch.tensor(
        [_smallest_distance(kernel.pool, torch.randperm(len(pool), generator=generator)[:size]) for _ in range(20)]
    )
    own = torch.tensor([_smallest_distance(kernel.pool, chosen)])
    return {
        "state": "measured",
        "method": "greedy: uncertainty times distance to the nearest labelled or chosen sample in the tangent kernel",
        "batch": batch,
        "spread": score(spread(own, "batches"), {"random batch": spread(random, "random batches")}),
    }


def spread_batch(
    pool: Float[Tensor, "q q"], cross: Float[Tensor, "q n"], weight: Float[Tensor, "q"], size: int
) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
    """Choose samples one by one: the largest weight × distance to the nearest labelled or chosen sample.

    Args:
        pool: cosine kernel of the pool.
        cross: the pool against the labelled samples.
        weight: how much each sample is wanted for itself.
        size: how many, at most q.

    Returns:
        The chosen samples and each one's distance when it was chosen.
    """
    nearest = _distance_to_labelled(pool, cross)
    chosen, distances = [], []
    free = torch.ones(len(pool), dtype=torch.bool)
    for _ in range(size):
        wish = torch.where(free, (weight + 1e-9) * nearest, torch.full_like(nearest, -1.0))
        i = int(wish.argmax())
        chosen.append(i)
        distances.append(float(nearest[i]))
        free[i] = False
        nearest = torch.minimum(nearest, _distance(pool[i], pool.diagonal(), pool[i, i]))
    return torch.tensor(chosen, dtype=torch.int64), torch.tensor(distances, dtype=pool.dtype)


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


def _distance(products: Tensor, squares: Tensor, own: Tensor) -> Tensor:
    return (squares + own - 2 * products).clamp_min(0).sqrt()


def _distance_to_labelled(pool: Tensor, cross: Tensor) -> Tensor:
    """In cosines every labelled sample has norm 1."""
    return (pool.diagonal() + 1 - 2 * cross.max(1).values).clamp_min(0).sqrt()


def _smallest_distance(K: Tensor, index: Tensor) -> float:
    if len(index) < 2:
        return 0.0
    sub = K[index][:, index]
    distance = (sub.diagonal()[:, None] + sub.diagonal() - 2 * sub).clamp_min(0).sqrt()
    return float(distance[torch.triu(torch.ones_like(sub, dtype=torch.bool), 1)].min())
