"""Loaders, generators and :class:`Labelled`.

:func:`digits` is the study's default; :func:`plant` puts known mistakes into any labelled samples.
"""

from tangrams.data.digits import CONFUSABLE_DIGITS, PlantedSplit, digits
from tangrams.data.errors import DataNotFoundError
from tangrams.data.labelled import Labelled
from tangrams.data.planting import Planted, nearest_classes, plant

__all__ = [
    "CONFUSABLE_DIGITS",
    "DataNotFoundError",
    "Labelled",
    "Planted",
    "PlantedSplit",
    "digits",
    "nearest_classes",
    "plant",
]
