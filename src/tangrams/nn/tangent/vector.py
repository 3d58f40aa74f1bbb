"""Tangent vectors: directions in the weight space of one base point, with an algebra."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.nn.tangent.errors import BasePointMismatchError
from tangrams.store import replacing

_FORMAT = "tangrams tangent vector 1"


class TangentVector(Mapping[str, Tensor]):
    r"""A direction :math:`\dot w` at a base point :math:`w_0`: named tensors, and the fingerprint of w₀.

    Vectors of one base point form a vector space: ``a + b``, ``a - b``, ``2 * a``, ``a / 3``, ``-a``, ``a.dot(b)``,
    ``a.norm()``. Those of different base points do not mix.

    Args:
        tensors: name of a parameter (the first of its names) → its direction; kept as they are.
        fingerprint: of the network at w₀, :meth:`tangrams.features.ModelRef.fingerprint`.

    Example:
        >>> import torch
        >>> v = TangentVector({"weight": torch.tensor([3.0, 4.0])}, "w0")
        >>> float((2 * v - v).norm())
        5.0

    [004] Tangent Model Composition.
    """

    def __init__(self, tensors: Mapping[str, Tensor], fingerprint: str) -> None:
        self._tensors = dict(tensors)
        self.fingerprint = fingerprint

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"TangentVector({len(self)} tensors, p={self.numel}, base {self.fingerprint[:8]})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TangentVector):
            return NotImplemented
        same = self.fingerprint == other.fingerprint and self._tensors.keys() == other._tensors.keys()
        return same and all(torch.equal(t, other[name]) for name, t in self.items())

    __hash__ = None  # type: ignore[assignment]

    @property
    def numel(self) -> int:
        """p, the number of entries."""
        return sum(t.numel() for t in self.values())

    def __add__(self, other: TangentVector) -> TangentVector:
        self.require_same_base(other)
        return self._map(lambda name, t: t + other[name])

    def __sub__(self, other: TangentVector) -> TangentVector:
        self.require_same_base(other)
        return self._map(lambda name, t: t - other[name])

    def __neg__(self) -> TangentVector:
        return self._map(lambda _, t: -t)

    def __mul__(self, factor: float) -> TangentVector:
        return self._map(lambda _, t: t * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> TangentVector:
        return self._map(lambda _, t: t / divisor)

    def dot(self, other: TangentVector) -> float:
        """The inner product, summed in float64."""
        self.require_same_base(other)
        return sum(float((t.double() * other[name].double()).sum()) for name, t in self.items())

    def norm(self) -> float:
        """The Euclidean norm, in float64."""
        return self.dot(self) ** 0.5

    def flat(self) -> Float[Tensor, "p"]:
        """All entries, in the order of the names: that of the columns of tangent features."""
        return torch.cat([t.reshape(-1) for t in self.values()])

    def with_flat(self, values: Float[Tensor, "p"]) -> TangentVector:
        """The vector of the same base point and names with these entries.

        Raises:
            ValueError: if their number is not p.
        """
        if values.shape != (self.numel,):
            raise ValueError(f"TangentVector has {self.numel} entries, got {tuple(values.shape)}")
        pieces = iter(values.split([t.numel() for t in self.values()]))
        return self._map(lambda _, t: next(pieces).reshape(t.shape).to(t))

    def to(self, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> TangentVector:
        """The same vector in another dtype or place."""
        return self._map(lambda _, t: t.to(device=device, dtype=dtype))

    def require_same_base(self, other: TangentVector) -> None:
        """Refuse a vector of another base point or of other parameters.

        Raises:
            BasePointMismatchError: if it is one.
        """
        if self.fingerprint != other.fingerprint:
            raise BasePointMismatchError(
                f"tangent vectors of different base points do not mix: {self.fingerprint[:12]}… and "
                f"{other.fingerprint[:12]}…. Fine-tune both from the same weights"
            )
        if self.keys() != other.keys():
            only = sorted(self.keys() ^ other.keys())
            raise BasePointMismatchError(f"tangent vectors over different parameters do not mix: {only[:6]}")

    def save(self, path: str | PathLike[str]) -> None:
        """Write tensors and fingerprint to a ``.safetensors`` file; an old one is replaced in one step."""
        from safetensors.torch import save_file

        tensors = {name: t.detach().contiguous().cpu() for name, t in self.items()}
        names = json.dumps(list(self))  # the file sorts its tensors
        metadata = {"format": _FORMAT, "fingerprint": self.fingerprint, "names": names}
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=metadata)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> TangentVector:
        """Read what :meth:`save` wrote; ``FileNotFoundError`` and ``ValueError`` where there is nothing like it."""
        with opened(path, _FORMAT, "tangent vector", "TangentVector.save") as (file, metadata):
            tensors = {name: file.get_tensor(name) for name in json.loads(metadata["names"])}
        return cls(tensors, metadata["fingerprint"])

    def _map(self, change: Callable[[str, Tensor], Tensor]) -> TangentVector:
        return TangentVector({name: change(name, t) for name, t in self.items()}, self.fingerprint)


@contextmanager
def opened(path: str | PathLike[str], kind: str, name: str, writer: str) -> Iterator[tuple[Any, dict[str, str]]]:
    """A ``.safetensors`` file of one of our formats.

    Args:
        path: of the file.
        kind: the format that its metadata must state.
        name: what is expected, in words.
        writer: what writes such files.

    Yields:
        The file and its metadata.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"no {name} at {path}")
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != kind:
                raise ValueError(f"{path} is no {name}: write one by {writer}")
            yield file, metadata
    except SafetensorError as error:
        raise ValueError(f"{path} is no {name}: {error}") from error
