"""Whole systems assembled from the pieces.

:class:`CifarResNet` is the residual network for small images, of :class:`BasicBlock`.
:class:`InfinitePermutationEnsemble` and :class:`FinitePermutationEnsemble` learn a permutation of bits from k samples.
:mod:`tangrams.models.gan` moves samples by the gradients of discriminators.
"""

from tangrams.models.cifar_resnet import BasicBlock, CifarResNet
from tangrams.models.permutation import FinitePermutationEnsemble, InfinitePermutationEnsemble, PermutationEnsemble

__all__ = [
    "BasicBlock",
    "CifarResNet",
    "FinitePermutationEnsemble",
    "InfinitePermutationEnsemble",
    "PermutationEnsemble",
]
