"""Loaders, generators and :class:`Labelled`.

:func:`digits` is the study's default; :func:`plant` puts known mistakes into any labelled samples.
"""

from tangrams.data.digits import CONFUSABLE_DIGITS, PlantedSplit, digits
from tangrams.data.errors import DataNotFoundError
from tangrams.data.labelled import Labelled
from tangrams.data.planting import Planted, nearest_classes, plant
from tangrams.data.samples import MapDataset, as_dataset, fingerprint, split_item, stack_samples

__all__ = [
    "CONFUSABLE_DIGITS",
    "DataNotFoundError",
    "Labelled",
    "MapDataset",
    "Planted",
    "PlantedSplit",
    "as_dataset",
    "digits",
    "fingerprint",
    "nearest_classes",
    "plant",
    "split_item",
    "stack_samples",
]
