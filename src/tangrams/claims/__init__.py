"""One runnable file per paper: its central claim, measured against the strongest simple baselines.

``catalogue()`` lists the papers, ``measure(slug, preset)`` measures one. A claim's file is ``cNNN_slug.py`` with a
module-level ``CLAIM``.
"""

from tangrams.claims.base import Claim, Evidence
from tangrams.claims.catalogue import Paper, catalogue, paper
from tangrams.claims.runner import Record, claims, keep, kept, measure

__all__ = ["Claim", "Evidence", "Paper", "Record", "catalogue", "claims", "keep", "kept", "measure", "paper"]
