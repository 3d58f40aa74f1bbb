"""Samples whose mean is that of all: the simple choice that distillation has to beat."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def kernel_herding(K: Float[Tensor, "n n"], k: int) -> Int[Tensor, "k"]:
    r"""Choose k samples greedily, so that their mean feature stays close to that of all n.

    .. math:: i_{t+1} = \arg\max_i \frac1n \sum_j K_{ij} - \frac{1}{t+1} \sum_{s \le t} K_{i i_s}

    over what is not chosen yet. Chen, Welling, Smola (2010).

    Args:
        K: a Gram matrix.
        k: how many.

    Raises:
        ValueError: if there are fewer than k samples, or k is below one.
    """
    if not 1 <= k <= len(K):
        raise ValueError(f"kernel_herding chooses between 1 and {len(K)} samples, got {k}")
    mean, used = K.mean(1), torch.zeros(len(K), dtype=K.dtype, device=K.device)
    chosen: list[int] = []
    for t in range(k):
        gain = mean - used / (t + 1)
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
        used = used + K[:, chosen[-1]]
    return torch.tensor(chosen, device=K.device)
