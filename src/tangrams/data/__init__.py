"""Loaders, generators and :class:`Labelled`.

:func:`digits` is the study's default; :func:`plant` puts known mistakes into any labelled samples; :func:`load` reads
public data sets by name, from the folder in ``TANGRAMS_DATA`` or by a checked download.
:func:`rmat` draws graphs, :func:`planted_analogies` a text whose word vectors have something to know.
:func:`sine_mixture`, :func:`gyroid_solid` and :func:`striped_balls` are a signal, a solid and a scene that coordinate
networks learn.
"""

from tangrams.data.analogies import planted_analogies
from tangrams.data.augment import flip_and_crop
from tangrams.data.corpus import Corpus, context_windows
from tangrams.data.densities import eight_gaussians, image_density, two_modes
from tangrams.data.digits import CONFUSABLE_DIGITS, PlantedSplit, digits
from tangrams.data.errors import DataNotFoundError
from tangrams.data.fields import gyroid_solid, orbit_rays, render_rays, sine_mixture, striped_balls
from tangrams.data.labelled import Labelled
from tangrams.data.loaders import RegressionTable, load, names
from tangrams.data.planting import Planted, nearest_classes, plant
from tangrams.data.regression import (
    ackley,
    franke,
    friedman1,
    friedman2,
    friedman3,
    nonpolynomial,
    parametric_curve,
    skewed_spiral,
    unit_circle,
)
from tangrams.data.rmat import rmat
from tangrams.data.samples import MapDataset, as_dataset, fingerprint, split_item, stack_samples
from tangrams.data.sequences import (
    correlation_cosine,
    correlation_power,
    key_power,
    spherical_sequences,
)
from tangrams.data.shortcut import ShortcutSamples, ShortcutTask
from tangrams.data.sphere import sphere_quadrature
from tangrams.data.split import Split
from tangrams.data.streams import class_tasks, data_shards
from tangrams.data.two_objects import TwoObjectImages

__all__ = [
    "CONFUSABLE_DIGITS",
    "Corpus",
    "DataNotFoundError",
    "Labelled",
    "MapDataset",
    "Planted",
    "PlantedSplit",
    "RegressionTable",
    "ShortcutSamples",
    "ShortcutTask",
    "Split",
    "TwoObjectImages",
    "ackley",
    "as_dataset",
    "class_tasks",
    "context_windows",
    "correlation_cosine",
    "correlation_power",
    "data_shards",
    "digits",
    "eight_gaussians",
    "fingerprint",
    "flip_and_crop",
    "franke",
    "friedman1",
    "friedman2",
    "friedman3",
    "gyroid_solid",
    "image_density",
    "key_power",
    "load",
    "names",
    "nearest_classes",
    "nonpolynomial",
    "orbit_rays",
    "parametric_curve",
    "plant",
    "planted_analogies",
    "render_rays",
    "rmat",
    "sine_mixture",
    "skewed_spiral",
    "sphere_quadrature",
    "spherical_sequences",
    "split_item",
    "stack_samples",
    "striped_balls",
    "two_modes",
    "unit_circle",
]
