"""Gradient descent whose every update has the spectral norm that moves features by their own size."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from tangrams.nn.optim.base import NormalizedSGD
from tangrams.operators import spectral_norm


class SpectralSGD(NormalizedSGD):
    r"""Spectrally normalised gradient descent [115].

    .. math:: W ← W - η \sqrt{\tfrac{fan_{out}}{fan_{in}}}\; \frac{M}{‖M‖_2}

    The spectral norm is exact for small matrices and comes from Lanczos iterations otherwise, each started from the
    singular vector of the step before. Groups from :meth:`WidthPlan.spectral` know embeddings, gains and grouped
    convolutions; plain parameters are matrices of ``out`` rows.

    Args:
        params: parameters or groups.
        lr: η; the norm of an update, relative to that of a weight.
        momentum: of the gradient before it is normalised.
        maximize: climb instead.

    Raises:
        ValueError: if lr is negative or the momentum not in [0, 1).

    Example:
        >>> import torch
        >>> weight = torch.nn.Parameter(torch.zeros(4, 1))
        >>> weight.grad = torch.tensor([[3.0], [0.0], [0.0], [4.0]])
        >>> SpectralSGD([weight], lr=0.1).step(); weight.detach().norm()
        tensor(0.2000)
    """

    def _norms(self, blocks: Tensor, state: dict[str, Any]) -> Tensor:
        norms, direction = spectral_norm(blocks, state.get("direction"), rtol=1e-3)
        if direction is not None:
            state["direction"] = direction
        return norms


class FrobeniusSGD(NormalizedSGD):
    r"""The same with the Frobenius norm in place of the spectral one, which needs no iteration [115].

    .. math:: W ← W - η \sqrt{\tfrac{fan_{out}}{fan_{in}}}\; \frac{M}{‖M‖_F}

    Gradients have a low stable rank s, so an update is shorter by no more than ``\sqrt{s}``.

    Args:
        params: parameters or groups.
        lr: η.
        momentum: of the gradient before it is normalised.
        maximize: climb instead.

    Raises:
        ValueError: if lr is negative or the momentum not in [0, 1).
    """

    def _norms(self, blocks: Tensor, state: dict[str, Any]) -> Tensor:
        return blocks.norm(dim=(1, 2))
