"""The memory that a forward pass holds for the backward pass."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor


class ActivationMemoryMeter:
    """Bytes of the tensors that autograd saves, counted while they are held.

    A context manager around forward and backward pass. Storages are counted once, however many nodes save them or
    views of them, and given back when the last node lets go. What is alive anyway, such as parameters, is left out.

    Args:
        exclude: tensors whose storages are not counted; the parameters of the network, say.

    Attributes:
        held_bytes: held now.
        peak_bytes: the most that was held.

    Example:
        >>> layer, x = torch.nn.Linear(4, 2, bias=False), torch.zeros(8, 4)
        >>> with ActivationMemoryMeter(exclude=layer.parameters()) as meter:
        ...     layer(x).sum().backward()
        >>> meter.peak_bytes, meter.held_bytes
        (128, 0)
    """

    def __init__(self, exclude: Iterable[Tensor] = ()) -> None:
        self._excluded = {tensor.untyped_storage().data_ptr() for tensor in exclude}
        self._holders: dict[int, int] = {}
        self.held_bytes = 0
        self.peak_bytes = 0
        self._hooks: Any = None

    def __enter__(self) -> ActivationMemoryMeter:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(lambda tensor: _Held(self, tensor), _Held.unpack)
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, traceback)

    def _add(self, key: int, size: int) -> None:
        self._holders[key] = self._holders.get(key, 0) + 1
        if self._holders[key] == 1:
            self.held_bytes += size
            self.peak_bytes = max(self.peak_bytes, self.held_bytes)

    def _remove(self, key: int, size: int) -> None:
        self._holders[key] -= 1
        if not self._holders[key]:
            del self._holders[key]
            self.held_bytes -= size


class _Held:
    """A saved tensor; its life is that of the node that saved it."""

    def __init__(self, meter: ActivationMemoryMeter, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # a node that held its own result, with its graph, would never be freed
        self.version = tensor._version
        storage = tensor.untyped_storage()
        self.key, self.size = storage.data_ptr(), storage.nbytes()
        self.meter = None if self.key in meter._excluded else meter
        if self.meter is not None:
            self.meter._add(self.key, self.size)

    def unpack(self) -> Tensor:
        if self.tensor._version != self.version:
            raise RuntimeError("a tensor that autograd saved for the backward pass was changed in place since")
        return self.tensor

    def __del__(self) -> None:
        if self.meter is not None:
            self.meter._remove(self.key, self.size)
