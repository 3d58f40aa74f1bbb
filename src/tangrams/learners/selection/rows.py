"""Feature rows in float64, a panel at a time, for the transformations."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.operators import FeatureMatrix, row_panels


def as_rows(X: Tensor | FeatureMatrix) -> Iterator[Float[Tensor, "_ d"]]:
    """What :func:`~tangrams.learners.as_features` gave, read once from top to bottom.

    Args:
        X: a tensor, in one piece, or a feature matrix, in panels.

    Yields:
        Rows in float64.
    """
    if isinstance(X, Tensor):
        yield X.to(torch.float64)
        return
    for _, _, panel in row_panels(X.rows):
        yield panel.to(torch.float64)


def second_moment(X: Tensor | FeatureMatrix) -> Float[Tensor, "d d"]:
    """``ΦᵀΦ`` in float64, by one reading.

    Args:
        X: as :func:`as_rows` takes it.
    """
    d = X.shape[1]
    out = torch.zeros(d, d, dtype=torch.float64, device=X.device)
    for rows in as_rows(X):
        out.addmm_(rows.mT, rows)
    return out
