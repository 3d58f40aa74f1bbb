"""The labelled pseudo-NTK: how learning one labelled sample moves another."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from tangrams.data.labelled import Labelled
from tangrams.features import ModelRef
from tangrams.features.inputs import as_inputs
from tangrams.features.outputs import logits_of
from tangrams.features.parameters import Selection
from tangrams.kernels.empirical_ntk import EmpiricalNTK
from tangrams.kernels.feature_kernel import in_dtype


class SignedSumOfLogits:
    """The logits' sum with a plus at the label and a minus elsewhere, over √K; one logit takes labels ±1."""

    def __call__(self, returned: Any, targets: Tensor) -> Tensor:
        """``s(y) · z / √K``: ``(n,)``."""
        z = logits_of(returned)
        z = z.reshape(len(z), -1)
        K = z.shape[1]
        if K == 1:
            return z[:, 0] * targets.to(z)
        right = torch.arange(K, device=z.device) == targets[:, None]
        return torch.where(right, z, -z).sum(1) / math.sqrt(K)


class LabelledPseudoNTK(EmpiricalNTK):
    r"""How one step on a labelled sample moves the prediction at another, as a scalar kernel of both [022].

    .. math::
        \kappa\bigl((x, y), (x', y')\bigr) = \tfrac1K \, s(y)^\top \Theta(x, x') \, s(y'),
        \qquad s(y)_k = \begin{cases} +1 & k = y \\ -1 & k \ne y \end{cases}

    Θ is the tangent kernel of the K logits, and s(y) the signs of the error :math:`e_y - p`. It is the inner product of
    gradients of the signed sum of logits :math:`s(y) \cdot z / \sqrt K`: one gradient per sample. Normalised, by
    :class:`~tangrams.kernels.CosineKernel`, it sorts pairs into interchangeable, unrelated and contradictory ones:
    :func:`~tangrams.lens.relation`.

    Samples are :class:`~tangrams.data.Labelled`; labels are 0 … K−1, or ±1 where the network has a single logit.

    Args:
        model: a classifier that returns logits.
        params: with respect to what gradients are taken.
        **kwargs: the further arguments of :class:`~tangrams.kernels.EmpiricalNTK`.

    Shape:
        n and m labelled samples → ``(n, m)``.

    Example:
        >>> k = LabelledPseudoNTK(torch.nn.Linear(2, 2))
        >>> x = Labelled(torch.ones(2, 2), torch.tensor([0, 1]))
        >>> k.gram(x).round()  # ⟨x, x′⟩ + 1 = 3, with opposite signs in both logits
        tensor([[ 3., -3.],
                [-3.,  3.]])
    """

    def __init__(self, model: nn.Module | ModelRef, params: Selection = None, **kwargs: Any) -> None:
        super().__init__(model, SignedSumOfLogits(), params, **kwargs)

    def _validated(self, x: Any, name: str) -> Labelled:
        who = type(self).__name__
        if not isinstance(x, Labelled):
            raise TypeError(f"{who}: {name} must be Labelled(inputs, targets), got {type(x).__name__}")
        inputs = super()._validated(x.inputs, name)
        n = as_inputs(inputs, who).n
        if n == 0:
            return Labelled(inputs, x.targets)
        outputs = self.phi.outputs(as_inputs(in_dtype(inputs, self.ref.dtype), who).slice(0, 16))
        refuse_probabilities(outputs, who)
        targets = check_labels(x.targets, outputs.shape[1], who)
        if len(targets) != n:
            raise ValueError(f"{who}: {name} has {n} samples and {len(targets)} labels")
        return Labelled(inputs, targets.to(outputs.device))


def check_labels(y: Any, K: int, who: str) -> Int[Tensor, "n"]:
    """Labels as int64, if they fit K logits.

    Args:
        y: ``(n,)``, 0 … K−1; ±1 where K is one.
        K: the number of logits.
        who: named in errors.

    Raises:
        TypeError: if labels are no whole numbers.
        ValueError: if one is out of range, or ``y`` is not one label per sample.
    """
    y = torch.as_tensor(y).detach()
    if y.ndim != 1:
        raise ValueError(f"{who} expects one label per sample, got shape {tuple(y.shape)}")
    if y.is_floating_point() and not bool((y == y.round()).all()):
        raise TypeError(f"{who} expects class labels, got {y.dtype} values: pass integers")
    y = y.to(torch.int64)
    wrong = (y.abs() != 1) if K == 1 else (y < 0) | (y >= K)
    if bool(wrong.any()):
        i = int(wrong.nonzero()[0])
        raise ValueError(f"{who} expects labels {'±1' if K == 1 else f'in 0 … {K - 1}'}, got {int(y[i])} at sample {i}")
    return y


def refuse_probabilities(outputs: Tensor, who: str) -> None:
    """Warn where a network's outputs are distributions: these kernels are of logits."""
    if outputs.shape[1] < 2 or len(outputs) == 0:
        return
    if bool((outputs >= 0).all()) and bool(((outputs.sum(1) - 1).abs() < 1e-4).all()):
        warnings.warn(
            f"{who} expects logits, and this network's outputs sum to one: take its softmax off", stacklevel=3
        )
