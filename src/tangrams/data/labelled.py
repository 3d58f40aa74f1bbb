"""Inputs together with targets, so that a tuple of model arguments is never mistaken for one."""

from typing import Any, NamedTuple

from torch import Tensor


class Labelled(NamedTuple):
    """What a model is called with, and the target of each sample.

    Everywhere in the library ``x`` is what the model is called with; targets travel as
    ``Labelled(inputs, targets)``.

    Attributes:
        inputs: a tensor, a tuple or a dict of tensors whose first axis is the sample.
        targets: ``(n, …)``.
    """

    inputs: Any
    targets: Tensor
