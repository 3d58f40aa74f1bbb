"""The table of nasty models: what breaks libraries that take a user's network.

Each entry says what the right outcome is: features equal to the dense reference, or a refusal that names who and
where. Anything that takes a network can be run over it::

    for nasty in NASTY_MODELS:
        model, x = nasty.make(), nasty.inputs()

The families: :data:`LAYERS` (one kind of layer each), :data:`SEQUENCES` (attention, recurrence, language models),
:data:`SHARING` (how weights are held), :data:`STRUCTURE` (how samples and weights meet), :data:`CONTROL` (what forward
does besides algebra), :data:`INTERFACES` (calls, outputs, dtypes) and :data:`HOSTILE` (no right answer).
"""

from tangrams.testing.models.base import TOLERANCE, NastyModel
from tangrams.testing.models.control import CONTROL
from tangrams.testing.models.hostile import HOSTILE
from tangrams.testing.models.interfaces import INTERFACES
from tangrams.testing.models.layers import LAYERS
from tangrams.testing.models.sequences import SEQUENCES
from tangrams.testing.models.sharing import SHARING
from tangrams.testing.models.structure import STRUCTURE

NASTY_MODELS: tuple[NastyModel, ...] = LAYERS + SEQUENCES + SHARING + STRUCTURE + CONTROL + INTERFACES + HOSTILE
"""All of them."""

__all__ = [
    "CONTROL",
    "HOSTILE",
    "INTERFACES",
    "LAYERS",
    "NASTY_MODELS",
    "SEQUENCES",
    "SHARING",
    "STRUCTURE",
    "TOLERANCE",
    "NastyModel",
]
