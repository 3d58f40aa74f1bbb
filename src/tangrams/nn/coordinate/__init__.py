"""Coordinate networks: signals as functions of position, by small fully connected networks.

They differ in the activation and the start that goes with it: :class:`SIREN` (sines), :class:`FINER` (sines whose
frequency grows with the argument), :class:`Gauss`, :class:`WIRE` (a wave under a bell), :class:`GaussFINER` and
:class:`WIREFINER`; :class:`PositionalEncodingMLP` has ReLUs behind sines of the coordinates, or none of these.
:class:`FourierReparamLinear` takes the place of a hidden layer.
"""

from tangrams.nn.coordinate.base import CoordinateNetwork
from tangrams.nn.coordinate.finer import FINER
from tangrams.nn.coordinate.fourier_reparam import FourierReparamLinear
from tangrams.nn.coordinate.gauss import Gauss
from tangrams.nn.coordinate.gauss_finer import GaussFINER
from tangrams.nn.coordinate.positional_encoding import PositionalEncodingMLP
from tangrams.nn.coordinate.siren import SIREN
from tangrams.nn.coordinate.wire import WIRE
from tangrams.nn.coordinate.wire_finer import WIREFINER

__all__ = [
    "FINER",
    "SIREN",
    "WIRE",
    "WIREFINER",
    "CoordinateNetwork",
    "FourierReparamLinear",
    "Gauss",
    "GaussFINER",
    "PositionalEncodingMLP",
]
