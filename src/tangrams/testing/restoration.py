"""Whether a call left everything as it was: the network, its inputs, and torch's global state."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_forward_hooks_with_kwargs",
)


class Snapshot:
    """Everything that a call may not change, as it is now.

    Of the network: which tensors are parameters and buffers, their values, versions, ``requires_grad``, gradients and
    hooks; each module's class, mode, hooks and attributes. Of the inputs: values, ``requires_grad``, gradients. Of the
    process: random states, default dtype, gradient mode, autocast, determinism and precision flags, the attention fast
    path, the number of threads.

    Args:
        model: the network.
        x: what it is called with.
    """

    def __init__(self, model: nn.Module, x: Any = None) -> None:
        self._model, self._x = model, x
        self._state = dict(self._facts())

    def differences(self) -> list[str]:
        """What is no longer as it was, by name; empty when all is restored."""
        now = dict(self._facts())
        return [
            name
            for name in sorted(self._state.keys() | now.keys())
            if name not in now or name not in self._state or not _equal(self._state[name], now[name])
        ]

    def _facts(self) -> Iterator[tuple[str, Any]]:
        for name, module in self._model.named_modules():
            where = f"model.{name}" if name else "model"
            yield f"{where}: class", type(module)
            yield f"{where}: mode", module.training
            yield (
                f"{where}: attributes",
                {key: _identity(value) for key, value in vars(module).items() if key != "training"},
            )
            for hooks in _HOOKS:
                yield f"{where}: {hooks}", dict(getattr(module, hooks, {}))
            for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
                for key, tensor in tensors.items():
                    yield from _tensor_facts(f"{where}: {kind} {key}", tensor)
        for i, tensor in enumerate(_tensors(self._x)):
            yield from _tensor_facts(f"input {i}", tensor)
        yield from _process_facts()


def _tensor_facts(where: str, tensor: Tensor | None) -> Iterator[tuple[str, Any]]:
    yield f"{where}: identity", id(tensor)
    if tensor is None or isinstance(tensor, nn.UninitializedParameter):
        return
    yield f"{where}: value", tensor.detach().clone()
    yield f"{where}: memory", (tensor.data_ptr() if not tensor.is_meta else 0, tensor.stride(), tensor.dtype)
    yield f"{where}: requires_grad", tensor.requires_grad
    if tensor.is_leaf:
        yield f"{where}: grad", id(tensor.grad)
        yield f"{where}: grad value", None if tensor.grad is None else tensor.grad.clone()
    yield f"{where}: hooks", dict(tensor._backward_hooks or {})


def _process_facts() -> Iterator[tuple[str, Any]]:
    yield "torch: random state", torch.get_rng_state()
    yield "numpy: random state", str(np.random.get_state())  # noqa: NPY002
    yield "torch: default dtype", torch.get_default_dtype()
    yield "torch: gradient mode", torch.is_grad_enabled()
    yield "torch: inference mode", torch.is_inference_mode_enabled()
    yield "torch: autocast", torch.is_autocast_enabled("cpu")
    yield "torch: anomaly mode", torch.is_anomaly_enabled()
    yield "torch: deterministic", torch.are_deterministic_algorithms_enabled()
    yield "torch: matmul precision", torch.get_float32_matmul_precision()
    yield "torch: attention fast path", torch.backends.mha.get_fastpath_enabled()
    yield "torch: flash attention", torch.backends.cuda.flash_sdp_enabled()
    yield "torch: mkldnn", torch.backends.mkldnn.enabled
    yield "torch: threads", torch.get_num_threads()
    yield "torch: global hooks", len(nn.modules.module._global_forward_hooks)


def _identity(value: Any) -> Any:
    """Which object it is; of a list, which objects it holds (recurrent layers keep lists of references to weights)."""
    if isinstance(value, list | tuple):
        return tuple(_identity(item) for item in value)
    return id(value()) if isinstance(value, weakref.ref) else id(value)


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, Mapping | tuple | list):
        for value in x.values() if isinstance(x, Mapping) else x:
            yield from _tensors(value)


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        if a.shape != b.shape or a.dtype != b.dtype or a.is_meta or b.is_meta:
            return a.shape == b.shape and a.dtype == b.dtype
        return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)
    return type(a) is type(b) and a == b
