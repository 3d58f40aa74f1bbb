"""Networks of infinite width that learn features, in finitely many numbers.

:class:`InfiniteLinearNetwork` is the μP limit of linear networks with any number of hidden layers; its ``sample(n)`` is
a :class:`LinearNetwork` of width n. :class:`CBOW` are word vectors, at a width or at its limit. Limits that do not
learn features, those of Gaussian processes and of tangent kernels, are :class:`tangrams.learners.FunctionalSGD` on a
kernel.
"""

from tangrams.nn.infinite_width.cbow import CBOW, negative_sampling_loss
from tangrams.nn.infinite_width.linear_network import InfiniteLinearNetwork, LinearNetwork

__all__ = ["CBOW", "InfiniteLinearNetwork", "LinearNetwork", "negative_sampling_loss"]
