"""Training along the eigenvectors of the network's own tangent kernel at rates that are chosen [016]."""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tangrams.features import TangentFeatures
from tangrams.nn.gradient_adjustment.groups import GroupPartition
from tangrams.nn.gradient_adjustment.representatives import LargestError, Representatives
from tangrams.operators.levelling import check_block, spectral_transform


class InductiveGradientAdjustment:
    r"""A mean square error whose gradient moves the leading modes of the residual at one rate.

    In the linear regime a step of gradient descent takes the residual r to :math:`(I - \frac{2η}{N} K) r`, K the
    empirical tangent kernel, so that modes of small eigenvalues, the high frequencies, learn slowly. Here r is
    multiplied by S before it is propagated back,

    .. math:: ∇ = \tfrac{2}{M} J^⊤ S r, \qquad r ← \big(I - \tfrac{2η}{N} K S\big) r, \qquad
              S = \operatorname{spectral\_transform}(K_e)

    M numbers in all. S comes from the kernel :math:`K_e` of one representative per group of neighbours and serves all
    members alike, those at the same place together; with groups of one it is that of all points. For several outputs
    :math:`K_e` is the pseudo-kernel of their sum over √c. Any optimiser takes the gradient.

    Args:
        model: the network; its kernel is taken in eval mode.
        groups: of neighbours.
        end: the modes ``start … end − 1`` are levelled,
        pivot: to the rate of this one: ``end`` by default, which allows larger learning rates; 0 lifts them to the
            first.
        start: the first of them.
        representatives: which member stands for a group.
        refresh: S is renewed at every ``refresh``-th loss.

    Attributes:
        kernel: the last :math:`K_e`.
        transform: the last S.
        failures: how often the eigendecomposition failed and S was the identity.

    Raises:
        ValueError: if there are fewer groups than modes (see :func:`~tangrams.operators.spectral_transform`), or
            ``refresh < 1``.

    Example:
        >>> x = torch.linspace(-1, 1, 16)[:, None]
        >>> net = nn.Linear(1, 1)
        >>> adjust = InductiveGradientAdjustment(net, GroupPartition.sequence(16, 4), end=1)
        >>> adjust.loss(x, net(x), x.sin()).backward()

    [016] Inductive Gradient Adjustment For Spectral Bias In Implicit Neural Representations.
    """

    def __init__(
        self,
        model: nn.Module,
        groups: GroupPartition,
        end: int = 25,
        pivot: int | None = None,
        *,
        start: int = 0,
        representatives: Representatives | None = None,
        refresh: int = 1,
    ) -> None:
        check_block(type(self).__name__, len(groups), start, end, pivot)
        if refresh < 1:
            raise ValueError(f"{type(self).__name__} expects refresh ≥ 1, got {refresh}")
        self.features = TangentFeatures(model, "sum")
        self.groups, self.refresh = groups, refresh
        self.end, self.pivot, self.start = end, pivot, start
        self.representatives = LargestError() if representatives is None else representatives
        self.kernel: Tensor | None = None
        self.transform: Tensor | None = None
        self.failures = 0
        self._losses = 0

    def loss(
        self, x: Float[Tensor, "n d"], prediction: Float[Tensor, "n c"], target: Float[Tensor, "..."]
    ) -> Float[Tensor, ""]:
        """The mean square error, with the adjusted gradient.

        Args:
            x: all points, in the order of the groups.
            prediction: the network's at these points, with its graph.
            target: the signal, of the same shape.

        Raises:
            ValueError: if the shapes differ, or there are not as many points as the groups are of.
        """
        if prediction.shape != target.shape:
            shapes = tuple(prediction.shape), tuple(target.shape)
            raise ValueError(f"{type(self).__name__} got predictions of shape {shapes[0]} for targets of {shapes[1]}")
        return self.adjust(x, prediction, (prediction - target).square().mean())

    def adjust(
        self, x: Float[Tensor, "n d"], prediction: Float[Tensor, "n c"], loss: Float[Tensor, ""]
    ) -> Float[Tensor, ""]:
        """Any loss, with the adjusted gradient: S meets the gradient in the predictions on its way to the weights.

        For a cross-entropy of occupancy, say, or for pictures that are rendered from the field at the points of rays.

        Args:
            x: all points, in the order of the groups.
            prediction: the network's at these points, with its graph.
            loss: a function of the predictions, with its graph; its way back to them is used up.

        Raises:
            ValueError: if there are not as many points as the groups are of.
        """
        if len(x) != self.groups.num_points:
            raise ValueError(f"{type(self).__name__} has groups of {self.groups.num_points} points, got {len(x)}")
        self.groups = self.groups if self.groups.index.device == x.device else self.groups.to(x.device)
        (gradient,) = torch.autograd.grad(loss, prediction)
        if self._losses % self.refresh == 0:
            self._renew(x, gradient)
        self._losses += 1
        assert self.transform is not None  # the first loss renews it
        surrogate = (prediction * self.groups.apply(self.transform, gradient)).sum()
        return loss.detach() + (surrogate - surrogate.detach())

    def _renew(self, x: Tensor, gradient: Tensor) -> None:
        chosen = self.representatives(self.groups.index, gradient.abs().sum(1))
        self.kernel = self.features.gram(x[chosen].detach())
        try:
            self.transform = spectral_transform(self.kernel, self.end, self.pivot, start=self.start)
        except torch.linalg.LinAlgError as error:
            self.failures += 1
            warnings.warn(
                f"the eigendecomposition of the tangent kernel failed, S is the identity: {error}", stacklevel=3
            )
            self.transform = torch.eye(len(chosen), dtype=self.kernel.dtype, device=self.kernel.device)
