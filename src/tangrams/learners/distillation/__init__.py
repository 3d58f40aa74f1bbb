"""Data set distillation: a few synthetic images on which networks train as on the real ones.

:class:`RCIG` learns a :class:`DistilledSet` [092]. Its pieces serve other bilevel problems:
:func:`implicit_gradient` of an :class:`InnerProblem` (:class:`LinearizedRidge` is convex, :class:`NonlinearRidge` and
:class:`PlainNetwork` are what it is compared with), solved by :class:`AdamMethod` as in the paper or by
:class:`ConjugateGradients`; :func:`ridge_head`, :class:`ModelPool`, :class:`StepSize`.
:class:`ZCA` whitens images, :class:`ImageAugmentation` changes them, :func:`kernel_herding` chooses real ones.
"""

from tangrams.learners.distillation.augmentation import ImageAugmentation
from tangrams.learners.distillation.distilled_set import DistilledSet, centred_labels
from tangrams.learners.distillation.herding import kernel_herding
from tangrams.learners.distillation.implicit import ImplicitGradient, implicit_gradient
from tangrams.learners.distillation.inner import (
    Frozen,
    InnerProblem,
    ridge_factor,
    ridge_head,
    split_head,
    with_mirror,
)
from tangrams.learners.distillation.linearized_ridge import LinearizedRidge
from tangrams.learners.distillation.methods import (
    AdamMethod,
    ConjugateGradients,
    InnerDivergenceError,
    InnerMethod,
    adam_quadratic_solve,
)
from tangrams.learners.distillation.model_pool import ModelPool
from tangrams.learners.distillation.nonlinear import NonlinearRidge, PlainNetwork
from tangrams.learners.distillation.rcig import RCIG, RCIGConfig, outer_loss
from tangrams.learners.distillation.step_size import StepSize
from tangrams.learners.distillation.whitening import ZCA

__all__ = [
    "RCIG",
    "ZCA",
    "AdamMethod",
    "ConjugateGradients",
    "DistilledSet",
    "Frozen",
    "ImageAugmentation",
    "ImplicitGradient",
    "InnerDivergenceError",
    "InnerMethod",
    "InnerProblem",
    "LinearizedRidge",
    "ModelPool",
    "NonlinearRidge",
    "PlainNetwork",
    "RCIGConfig",
    "StepSize",
    "adam_quadratic_solve",
    "centred_labels",
    "implicit_gradient",
    "kernel_herding",
    "outer_loss",
    "ridge_factor",
    "ridge_head",
    "split_head",
    "with_mirror",
]
