"""Training that counters the spectral bias of a network by its own tangent kernel [016].

:class:`InductiveGradientAdjustment` makes the loss; :class:`GroupPartition` says which points share their adjustment,
and :class:`LargestError`, :class:`Centre` or :class:`RandomMember` which of them stands for the others.
"""

from tangrams.nn.gradient_adjustment.adjustment import InductiveGradientAdjustment
from tangrams.nn.gradient_adjustment.groups import GroupPartition
from tangrams.nn.gradient_adjustment.representatives import Centre, LargestError, RandomMember

__all__ = ["Centre", "GroupPartition", "InductiveGradientAdjustment", "LargestError", "RandomMember"]
