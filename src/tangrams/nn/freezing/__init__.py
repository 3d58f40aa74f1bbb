"""Training some parameters of a network and leaving the others at their random start [052].

:func:`freeze_except` freezes whole tensors; :func:`batchnorm_layers` and :func:`output_layer` are what is often left to
train. :class:`UpdateMask` freezes single entries, drawn by :func:`random_entries_per_channel` or
:func:`random_entries`. :func:`init_batchnorm_` and :func:`batchnorm_affine` write and read scales and shifts.
"""

from tangrams.nn.freezing.batchnorm import BatchNormAffine, batchnorm_affine, batchnorm_layers, init_batchnorm_
from tangrams.nn.freezing.selection import freeze_except, output_layer
from tangrams.nn.freezing.update_mask import UpdateMask, random_entries, random_entries_per_channel

__all__ = [
    "BatchNormAffine",
    "UpdateMask",
    "batchnorm_affine",
    "batchnorm_layers",
    "freeze_except",
    "init_batchnorm_",
    "output_layer",
    "random_entries",
    "random_entries_per_channel",
]
