"""Linear layers that keep a compressed copy of their input for the backward pass.

:class:`CompressedLinear` is a drop-in for ``nn.Linear``, :func:`compress_activations_` puts it into a network. What it
keeps is its compression's to say: :class:`PAMM` keeps a few rows and one index and scale for each of the others [090],
:class:`UniformRows` keeps a few rows, :class:`RandomProjection` all rows in few dimensions.
"""

from tangrams.nn.activation_compression.base import ActivationCompression, Compressed
from tangrams.nn.activation_compression.linear import CompressedLinear, compress_activations_
from tangrams.nn.activation_compression.pamm import PAMM
from tangrams.nn.activation_compression.random_projection import RandomProjection
from tangrams.nn.activation_compression.uniform_rows import UniformRows

__all__ = [
    "PAMM",
    "ActivationCompression",
    "Compressed",
    "CompressedLinear",
    "RandomProjection",
    "UniformRows",
    "compress_activations_",
]
