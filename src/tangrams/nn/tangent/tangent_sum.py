"""Tangent vectors composed by weights, each kept apart so that it can be taken out again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike

from tangrams.nn.tangent.errors import EmptyCompositionError
from tangrams.nn.tangent.vector import TangentVector, opened
from tangrams.store import replacing

_FORMAT = "tangrams tangent composition 1"


class TangentSum:
    r"""Named tangent vectors of one base point and their weighted sum.

    .. math:: \dot w = \sum_i λ_i \dot w_i, \qquad λ_i = s\, a_i / \textstyle\sum_j a_j

    The mean by default. The vectors are kept and the sum is made from them in the order they came, so that removing one
    leaves, bit for bit, what would be there had it never been added.

    Args:
        total: s, what the weights sum to; None takes the aᵢ as they are. With :math:`\sum λ_i = 1` the linearised
            network at the sum gives the weighted mean of the components' outputs; otherwise the outputs at w₀ are
            still counted once.

    [004] Tangent Model Composition.
    """

    def __init__(self, total: float | None = 1.0) -> None:
        self.total = total
        self._vectors: dict[str, TangentVector] = {}
        self._amounts: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._vectors)

    def __contains__(self, name: object) -> bool:
        return name in self._vectors

    @property
    def components(self) -> dict[str, TangentVector]:
        """The vectors by name, in the order they came."""
        return dict(self._vectors)

    @property
    def weights(self) -> dict[str, float]:
        """λ by name."""
        if self.total is None or not self._amounts:
            return dict(self._amounts)
        amount = sum(self._amounts.values())
        if amount == 0:
            raise ValueError(f"weights that sum to zero cannot be scaled to {self.total}: use total=None")
        return {name: self.total * a / amount for name, a in self._amounts.items()}

    def add(self, name: str, vector: TangentVector, weight: float = 1.0) -> None:
        """Put a component in; one of another base point is a ``BasePointMismatchError``.

        Args:
            name: not taken yet.
            vector: its direction.
            weight: a, relative to those of the others.

        Raises:
            ValueError: if the name is taken.
        """
        if name in self._vectors:
            raise ValueError(f"there is a component {name!r} already: remove it first")
        self._require_same_base(vector)
        self._vectors[name] = vector
        self._amounts[name] = float(weight)

    def remove(self, name: str) -> TangentVector:
        """Take a component out; nothing of it remains."""
        self._require(name)
        del self._amounts[name]
        return self._vectors.pop(name)

    def replace(self, name: str, vector: TangentVector) -> None:
        """Put another vector in the place of a component, with its weight."""
        self._require(name)
        self._require_same_base(vector)
        self._vectors[name] = vector

    def set_weights(self, weights: Mapping[str, float]) -> None:
        """Change a of some components."""
        for name in weights:
            self._require(name)
        self._amounts.update({name: float(a) for name, a in weights.items()})

    def vector(self) -> TangentVector:
        """ẇ.

        Raises:
            EmptyCompositionError: if there is no component.
        """
        if not self._vectors:
            raise EmptyCompositionError("the composition has no components left: add one, or use the base network")
        weights = self.weights
        first, *rest = self._vectors
        total = self._vectors[first] * weights[first]
        for name in rest:
            total = total + self._vectors[name] * weights[name]
        return total

    def save(self, path: str | PathLike[str]) -> None:
        """Write all components and their weights to one ``.safetensors`` file; an old one is replaced in one step.

        Raises:
            EmptyCompositionError: if there is no component.
        """
        from safetensors.torch import save_file

        if not self._vectors:
            raise EmptyCompositionError("an empty composition cannot be saved: delete the file instead")
        names = list(self._vectors)
        first = self._vectors[names[0]]
        tensors = {
            f"{i}/{key}": t.detach().contiguous().cpu()
            for i, name in enumerate(names)
            for key, t in self._vectors[name].items()
        }
        about = {"names": names, "amounts": list(self._amounts.values()), "keys": list(first), "total": self.total}
        metadata = {"format": _FORMAT, "fingerprint": first.fingerprint, "about": json.dumps(about)}
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=metadata)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TangentSum:
        """Read what :meth:`save` wrote; ``FileNotFoundError`` and ``ValueError`` where there is nothing like it."""
        with opened(path, _FORMAT, "composition of tangent vectors", "`tangrams compose`") as (file, metadata):
            about = json.loads(metadata["about"])
            found = cls(about["total"])
            for i, (name, amount) in enumerate(zip(about["names"], about["amounts"], strict=True)):
                tensors = {key: file.get_tensor(f"{i}/{key}") for key in about["keys"]}
                found.add(name, TangentVector(tensors, metadata["fingerprint"]), amount)
        return found

    def _require(self, name: str) -> None:
        if name not in self._vectors:
            raise KeyError(f"no component {name!r}: there are {', '.join(self._vectors) or 'none'}")

    def _require_same_base(self, vector: TangentVector) -> None:
        for other in self._vectors.values():
            other.require_same_base(vector)
            return
