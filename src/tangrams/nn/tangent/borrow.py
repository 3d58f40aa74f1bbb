"""A network run with other tensors in place of its parameters, and left as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

_KEEPS_BUFFERS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
"""Layers that do not write to their buffers in eval mode."""


class Borrowed:
    """The parts of a network, as they are now.

    Args:
        model: the network.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.modules: list[nn.Module] = []
        seen: set[int] = set()
        waiting: list[nn.Module] = [model]
        while waiting:  # three times as fast as model.modules(), and this runs in every forward pass
            module = waiting.pop()
            if id(module) not in seen:
                seen.add(id(module))
                self.modules.append(module)
                waiting.extend(child for child in module._modules.values() if child is not None)
        self.slots = [
            (m._parameters, key, p) for m in self.modules for key, p in m._parameters.items() if p is not None
        ]
        buffers = [b for m in self.modules for b in m._buffers.values() if b is not None]
        self.tensors: list[Tensor] = [p for _, _, p in self.slots] + buffers

    def versions(self) -> tuple[tuple[int, int, int], ...]:
        """Changes whenever a parameter or buffer is written to, replaced or moved."""
        return tuple([(id(t), t.data_ptr(), t._version) for t in self.tensors])

    @contextmanager
    def with_parameters(self, replace: Callable[[nn.Parameter], Tensor]) -> Iterator[nn.Module]:
        """The network in eval mode, each parameter replaced, gradients enabled.

        Modes, parameters, buffers (identity and values), random states (of the processor and of the devices that it
        lies on) and default dtype are put back, also after an exception.

        Args:
            replace: gives what stands for a parameter; called once for each.

        Yields:
            The network.
        """
        modes = [module.training for module in self.modules]
        buffers = [
            (m, dict(m._buffers), [(b, b._version, b.clone()) for b in m._buffers.values() if b is not None])
            for m in self.modules
            if m._buffers and type(m) not in _KEEPS_BUFFERS
        ]
        devices = {t.device for t in self.tensors if t.is_cuda}
        dtype = torch.get_default_dtype()
        others: dict[int, Tensor] = {}
        try:
            with torch.random.fork_rng(devices), torch.enable_grad():
                if any(modes):
                    self.model.eval()
                for entries, key, p in self.slots:
                    if id(p) not in others:
                        others[id(p)] = replace(p)
                        others[id(p)]._is_param = True  # pyright: ignore[reportAttributeAccessIssue]  # isinstance(…, nn.Parameter)
                    entries[key] = others[id(p)]  # pyright: ignore[reportArgumentType]
                yield self.model
        finally:
            for entries, key, p in self.slots:
                entries[key] = p
            for module, mode in zip(self.modules, modes, strict=True):
                if module.training is not mode:
                    module.training = mode
                if isinstance(module, nn.RNNBase):
                    module._init_flat_weights()  # a list of its own beside the parameters
            _put_back(buffers)
            if torch.get_default_dtype() != dtype:
                torch.set_default_dtype(dtype)


def _put_back(buffers: list[tuple[nn.Module, dict[str, Any], list[tuple[Tensor, int, Tensor]]]]) -> None:
    for module, entries, contents in buffers:
        module._buffers.clear()
        module._buffers.update(entries)
        for buffer, version, value in contents:
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)
