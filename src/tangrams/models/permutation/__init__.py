"""Ensembles of wide networks that learn a permutation of bits from the basis vectors alone.

:class:`InfinitePermutationEnsemble` has networks of infinite width, in closed form;
:class:`FinitePermutationEnsemble` trains them.
"""

from tangrams.models.permutation.base import PermutationEnsemble
from tangrams.models.permutation.finite import FinitePermutationEnsemble
from tangrams.models.permutation.infinite import InfinitePermutationEnsemble

__all__ = ["FinitePermutationEnsemble", "InfinitePermutationEnsemble", "PermutationEnsemble"]
