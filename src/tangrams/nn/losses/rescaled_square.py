"""The square loss that fine-tunes classifiers."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


def rescaled_square_loss(logits: Float[Tensor, "n C"], y: Int[Tensor, "n"], alpha: float = 15.0) -> Float[Tensor, ""]:
    r"""The mean squared distance of logits from a scaled one-hot target [004].

    .. math:: \frac{1}{nC} \sum_{ic} (f_c(x_i) - α\, 1[y_i = c])^2

    Convex in the direction of a linearised network, whose Hessian it makes constant. The large target keeps the
    gradient of the true class from drowning among C − 1 zeros.

    Args:
        logits: of all C classes, also those without samples.
        y: the class of each sample.
        alpha: α; 15 for class-incremental and joint training, 5 for random shards.

    Shape:
        ``(n, C)``, ``(n,)`` → scalar.

    Example:
        >>> import torch
        >>> rescaled_square_loss(torch.zeros(1, 2), torch.tensor([0]), alpha=2.0)
        tensor(2.)
    """
    return F.mse_loss(logits, alpha * F.one_hot(y, logits.shape[1]).to(logits))
