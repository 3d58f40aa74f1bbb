"""Tangrams: extract a network's tangent features once, then ask everything of them.

Data go through a feature map into a *feature matrix*; its inner products are the *Gram matrix*; on those two stand
the answers. The rooms, from the ground up: :mod:`operators`, :mod:`manifolds`, :mod:`data`, :mod:`store`,
:mod:`features`, :mod:`kernels`, :mod:`nn`, :mod:`learners`, :mod:`lens`, :mod:`models`, :mod:`study`, :mod:`claims`.
A room is imported when it is first used.
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

_ROOMS = (
    "claims",
    "data",
    "features",
    "kernels",
    "learners",
    "lens",
    "manifolds",
    "models",
    "nn",
    "operators",
    "store",
    "study",
    "testing",
)
__all__ = ["__version__", *_ROOMS]


def __getattr__(name: str) -> ModuleType:
    if name in _ROOMS:
        return importlib.import_module(f"tangrams.{name}")
    raise AttributeError(f"tangrams has no room {name!r}; the rooms are {', '.join(_ROOMS)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_ROOMS])
