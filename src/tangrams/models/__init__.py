"""Whole systems assembled from the pieces.

:class:`CifarResNet` is the residual network for small images, of :class:`BasicBlock`.
"""

from tangrams.models.cifar_resnet import BasicBlock, CifarResNet

__all__ = ["BasicBlock", "CifarResNet"]
