"""The main job: what a trained network learned, asked of its tangent features.

The room is the function: ``tangrams.study(model, train, test)`` studies a network and returns a :class:`Study`;
:func:`run_default` and :func:`run_user` are what the command calls.
"""

import inspect
import sys
from types import ModuleType

from tangrams.study.main import Study, study
from tangrams.study.material import Truth
from tangrams.study.run import run_default, run_user

__all__ = ["Study", "Truth", "run_default", "run_user", "study"]


class _Room(ModuleType):
    """A module that can be called, so that ``tangrams.study(model, train, test)`` reads as it should."""

    __call__ = staticmethod(study)


__signature__ = inspect.signature(study)
sys.modules[__name__].__class__ = _Room
