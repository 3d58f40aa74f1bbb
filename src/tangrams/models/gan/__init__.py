"""Generative adversarial networks as flows of kernels.

A discriminator is fitted to fake and real samples and moves the fakes by its gradient. Those of infinite width are
known in function space: :class:`IPMDiscriminator` (an MMD flow; :class:`AttractionDiscriminator` is half of it),
:class:`LSGANDiscriminator`, :class:`VanillaDiscriminator` (:class:`LambertDiscriminator` approximates it).
:class:`FiniteDiscriminator` trains a network. :class:`ParticleFlow` moves free samples, :class:`GeneratorFlow` a
network that makes them.
"""

from tangrams.models.gan.base import Discriminator, InfiniteDiscriminator
from tangrams.models.gan.finite import FiniteDiscriminator
from tangrams.models.gan.flow import GeneratorFlow, ParticleFlow, Trajectory
from tangrams.models.gan.ipm import AttractionDiscriminator, IPMDiscriminator
from tangrams.models.gan.losses import AdversarialLoss, HingeLoss, IPMLoss, LSGANLoss, VanillaLoss
from tangrams.models.gan.lsgan import LSGANDiscriminator
from tangrams.models.gan.vanilla import LambertDiscriminator, VanillaDiscriminator

__all__ = [
    "AdversarialLoss",
    "AttractionDiscriminator",
    "Discriminator",
    "FiniteDiscriminator",
    "GeneratorFlow",
    "HingeLoss",
    "IPMDiscriminator",
    "IPMLoss",
    "InfiniteDiscriminator",
    "LSGANDiscriminator",
    "LSGANLoss",
    "LambertDiscriminator",
    "ParticleFlow",
    "Trajectory",
    "VanillaDiscriminator",
    "VanillaLoss",
]
