"""A user's network, held by reference and left as it was found."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

_SHARDED = ("DTensor", "ShardedTensor")


class Known:
    """What is looked up about a network again and again.

    Args:
        model: the network.

    Attributes:
        parameters: every parameter under every name.
        dtype: the widest floating dtype among them; the default dtype for a model without any.
        summed: what inner products are summed in: at least float32.
        device: that of the first; the CPU for a model without any.
    """

    __slots__ = ("device", "dtype", "parameters", "summed")

    def __init__(self, model: nn.Module) -> None:
        self.parameters: dict[str, nn.Parameter] = dict(model.named_parameters(remove_duplicate=False))
        dtype: torch.dtype | None = None
        for p in self.parameters.values():
            if p.is_floating_point() and p.dtype != dtype:
                dtype = p.dtype if dtype is None else torch.promote_types(dtype, p.dtype)
        self.dtype: torch.dtype = torch.get_default_dtype() if dtype is None else dtype
        self.summed = torch.promote_types(self.dtype, torch.float32)
        first = next(iter(self.parameters.values()), None)
        self.device = torch.device("cpu") if first is None else first.device


class ModelRef:
    """A network that a feature map or a kernel reads but does not own.

    The network is not registered as a submodule (its weights stay out of ``parameters()`` and ``state_dict()``,
    ``train()`` and ``double()`` do not reach it), and copies share it: ``copy.deepcopy`` and
    ``sklearn.base.clone`` return this very object. Pickling does copy the network.

    Args:
        model: the network; a ``DataParallel`` wrapper is taken off with a warning, that of ``torch.compile`` quietly.

    Raises:
        TypeError: if ``model`` is not an ``nn.Module``, or is TorchScript.
        ValueError: if a parameter or buffer is on the meta device, uninitialised, complex or sharded.
    """

    __slots__ = ("__weakref__", "_known", "model")

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            raise TypeError(f"expected an nn.Module, got {type(model).__name__}")
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            warnings.warn(
                f"{type(model).__name__} is taken off: tangent features read the module inside it",
                stacklevel=3,
            )
            model = model.module
        model = getattr(model, "_orig_mod", model)
        for path, module in model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                raise TypeError(
                    f"{path or 'the model'} ({type(model).__name__}) is TorchScript, whose parameters cannot be "
                    "followed: pass the module that was scripted"
                )
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            _refuse_unreadable(name, tensor)
        self.model: nn.Module = model
        self._known: Known | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelRef:
        return self

    def __copy__(self) -> ModelRef:
        return self

    def __sklearn_clone__(self) -> ModelRef:
        return self

    def __getstate__(self) -> nn.Module:
        return self.model

    def __setstate__(self, model: nn.Module) -> None:
        self.model = model
        self._known = None

    def __repr__(self) -> str:
        return f"ModelRef({type(self.model).__name__})"

    @property
    def known(self) -> Known:
        """Dtype, device and parameters; looked up once per session."""
        return self._known or Known(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """The widest floating dtype among the parameters; the default dtype for a model without any."""
        return self.known.dtype

    @property
    def device(self) -> torch.device:
        """The device of the first parameter; the CPU for a model without any."""
        return self.known.device

    def refuse_move(self, owner: str, apply: Callable[[Tensor], Tensor]) -> None:
        """Say that the network is moved by itself when ``apply`` would change its dtype or device.

        Called from ``Module._apply`` of an owner.
        """
        probe = torch.empty(0, dtype=self.dtype, device=self.device)
        moved = apply(probe)
        if moved.dtype != probe.dtype or moved.device != probe.device:
            warnings.warn(
                f"{owner} holds its network by reference and does not move it: call model.to("
                f"{moved.dtype}, {moved.device}) on the network itself",
                stacklevel=4,
            )

    def versions(self) -> tuple[tuple[int, int], ...]:
        """A cheap token that changes whenever a parameter is written to or replaced in this process."""
        return tuple((p.data_ptr(), p._version) for p in self.known.parameters.values())

    def fingerprint(self) -> str:
        """SHA-256 over the names, shapes, dtypes and bytes of every parameter and buffer."""
        digest = hashlib.sha256()
        tensors = [*self.model.named_parameters(), *self.model.named_buffers()]
        for name, tensor in sorted(tensors, key=lambda item: item[0]):
            data = tensor.detach().cpu().contiguous()
            digest.update(f"{name}|{tuple(data.shape)}|{data.dtype}|".encode())
            digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    @contextmanager
    def lookup(self) -> Iterator[None]:
        """Look the parameters up once for everything inside, where the network does not change.

        Yields:
            Nothing.
        """
        outer, self._known = self._known, self.known
        try:
            yield
        finally:
            self._known = outer

    @contextmanager
    def session(self) -> Iterator[nn.Module]:
        """The network in eval mode with gradients enabled; everything is put back afterwards.

        Restored also after an exception: modes, ``requires_grad``, ``.grad``, hooks on parameters, buffers (identity
        and values), random states (of the processor and of the devices that the network lies on), default dtype.

        Yields:
            The network.
        """
        model = self.model
        outer, self._known = self._known, self.known
        modules = list(model.modules())
        modes = [module.training for module in modules]
        parameters = [
            (p, p.requires_grad, p.grad, p._backward_hooks)
            for p in {id(p): p for p in self._known.parameters.values()}.values()
        ]
        slots = [(m, dict(m._parameters)) for m in modules if m._parameters]
        buffers = [
            (m, dict(m._buffers), [(b, b._version, b.clone()) for b in m._buffers.values() if b is not None])
            for m in modules
            if m._buffers
        ]
        devices = {p.device for p, *_ in parameters if p.is_cuda}
        default_dtype = torch.get_default_dtype()
        try:
            with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
                if any(modes):
                    model.eval()
                for p, _, _, hooks in parameters:
                    if hooks:
                        p._backward_hooks = None
                yield model
        finally:
            self._known = outer
            for module, mode in zip(modules, modes, strict=True):
                module.training = mode
            for p, requires_grad, grad, hooks in parameters:
                if p.requires_grad != requires_grad:
                    p.requires_grad_(requires_grad)
                if p.grad is not grad:
                    p.grad = grad
                if hooks:
                    p._backward_hooks = hooks
            for module, entries in slots:
                if any(module._parameters.get(key) is not p for key, p in entries.items()):
                    module._parameters.update(entries)
            with torch.no_grad():
                for module, entries, contents in buffers:
                    module._buffers.clear()
                    module._buffers.update(entries)
                    for buffer, version, value in contents:
                        if buffer._version != version:
                            buffer.copy_(value)
            if torch.get_default_dtype() != default_dtype:
                torch.set_default_dtype(default_dtype)


def _refuse_unreadable(name: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise ValueError(f"{name!r} is not initialised: call the model once on a batch first")
    if tensor.device.type == "meta":
        raise ValueError(f"{name!r} is on the meta device and has no values: load the weights first")
    if tensor.is_complex() and tensor.requires_grad:
        raise ValueError(f"{name!r} is complex: tangent features are defined for real parameters")
    if type(tensor).__name__ in _SHARDED or type(tensor.data).__name__ in _SHARDED:
        raise ValueError(f"{name!r} is sharded over processes: gather the full weights first")
