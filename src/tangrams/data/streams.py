"""How samples come: task by task, or shard by shard."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def class_tasks(targets: Any, n_tasks: int) -> list[Tensor]:
    """The samples of each task of a class-incremental stream.

    Classes are dealt out in sorted order, each task a run of them; where they do not divide, the first tasks have one
    more.

    Args:
        targets: the label of each sample.
        n_tasks: at most the number of classes.

    Returns:
        For each task the positions of its samples, in order.

    Raises:
        ValueError: if there are fewer classes than tasks.

    Example:
        >>> [task.tolist() for task in class_tasks([0, 1, 2, 0], 2)]
        [[0, 1, 3], [2]]
    """
    labels = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    classes = np.unique(labels)
    if not 1 <= n_tasks <= len(classes):
        raise ValueError(f"class_tasks needs 1 ≤ n_tasks ≤ {len(classes)} classes, got {n_tasks}")
    return [torch.from_numpy(np.flatnonzero(np.isin(labels, part))) for part in np.array_split(classes, n_tasks)]


def data_shards(n: int, n_shards: int, *, seed: int = 0) -> list[Tensor]:
    """Samples dealt at random to shards whose sizes differ by one at most.

    Args:
        n: the number of samples.
        n_shards: at most n.
        seed: fixes the order they are dealt in.

    Returns:
        For each shard the positions of its samples.

    Raises:
        ValueError: if there are fewer samples than shards.
    """
    if not 1 <= n_shards <= n:
        raise ValueError(f"data_shards needs 1 ≤ n_shards ≤ {n} samples, got {n_shards}")
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return [order[shard::n_shards] for shard in range(n_shards)]
