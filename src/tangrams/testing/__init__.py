"""Conformance suites, reference implementations and nasty models, for our tests and for yours.

A suite per base class lives in :mod:`tangrams.testing.suites`; :func:`conformance` runs one on a :class:`Case`.
:data:`NASTY_MODELS` is the table of networks that things break on, :func:`reference_rows` the slow tangent features
they are judged by, and :class:`Snapshot` tells whether a call left a network as it was. pytest is imported with
:mod:`tangrams.testing.conformance`.
"""

from tangrams.testing.conformance import Case, Suite, conformance, normal
from tangrams.testing.models import NASTY_MODELS, NastyModel
from tangrams.testing.reference import reference_rows
from tangrams.testing.restoration import Snapshot

__all__ = ["NASTY_MODELS", "Case", "NastyModel", "Snapshot", "Suite", "conformance", "normal", "reference_rows"]
