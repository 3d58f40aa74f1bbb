"""Takes apart what a network returned in dual numbers, whatever its structure."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tangrams.features.errors import TangentError
from tangrams.nn.tangent.dual import Dual, filled, read_dual


@dataclass(frozen=True)
class Returned:
    """The tensors that a network returned, apart.

    Attributes:
        structure: what was returned; its tensors stand for the places of theirs.
        values: its tensors, in order.
        tangents: theirs; zeros where a tensor has none to have, such as one of whole numbers.
    """

    structure: Any
    values: tuple[Tensor, ...]
    tangents: tuple[Tensor, ...]

    @classmethod
    def read(cls, returned: Any, who: str) -> Returned:
        """Unpack dual numbers.

        Args:
            returned: by the network.
            who: names the network in errors.

        Raises:
            TangentError: if nothing in it carries a tangent.
        """
        leaves = tensors_of(returned)
        pairs = [read_dual(t) for t in leaves]
        if all(pair.tangent is None for pair in pairs):
            raise TangentError(
                f"nothing that {who} returned depends on its trained parameters: its forward detaches them, runs "
                "under no_grad, or does not use them"
            )
        values = tuple(pair.value for pair in pairs)
        tangents = tuple(filled(pair.tangent, t) for pair, t in zip(pairs, values, strict=True))
        return cls(returned, values, tangents)

    def dual(self) -> Dual:
        """Values, and tangents in the same structure."""
        return Dual(self._with(self.values), self._with(self.tangents))

    def sum(self) -> Any:
        """Values plus tangents, in the structure."""
        pairs = zip(self.values, self.tangents, strict=True)
        return self._with(
            value + change if value.is_floating_point() or value.is_complex() else value for value, change in pairs
        )

    def _with(self, leaves: Iterable[Any]) -> Any:
        following = iter(leaves)
        return changed(self.structure, lambda _: next(following))


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in a structure, in order."""
    found: list[Tensor] = []

    def keep(t: Tensor) -> Tensor:
        found.append(t)
        return t

    changed(value, keep)
    return found


def changed(value: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same structure of tuples, lists, mappings and plain objects with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(changed(item, change) for item in value))
    if isinstance(value, tuple | list):
        return type(value)(changed(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: changed(getattr(value, field.name), change) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, Mapping):
        return type(value)({key: changed(item, change) for key, item in value.items()})  # type: ignore[call-arg]
    if any(isinstance(item, Tensor) for item in getattr(value, "__dict__", {}).values()):
        value = copy.copy(value)
        value.__dict__.update({key: changed(item, change) for key, item in value.__dict__.items()})
    return value
