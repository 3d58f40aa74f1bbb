"""torch's own table of modules as networks with samples: layers that we did not choose.

``torch.testing._internal.common_modules.module_db`` lists every ``nn.Module`` of torch with sample inputs. Some are
called batch first, some sequence first, some without a batch at all, some return a loss over the batch.
:class:`Adapted` makes each a network whose first axis is the sample, by the first reading of its inputs under which
samples do not influence one another. Needs ``expecttest``, which torch's table imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

MIXES = 6
"""Each module's outputs are mixed down to this many, so that every output counts and none is left out."""


class Adapted(nn.Module):
    """A module of torch as a network of ``(n, …)`` inputs with ``(n, 6)`` outputs.

    Args:
        module: the module.
        leaves: what it is called with, flattened.
        spec: how to unflatten it to ``(args, kwargs)``.
        moving: which leaves are given per sample; the others stay as they are.
        axis: the sample's axis in the module's own inputs and outputs; None to call it once per sample.
    """

    def __init__(
        self, module: nn.Module, leaves: Sequence[Any], spec: Any, moving: Sequence[int], axis: int | None
    ) -> None:
        super().__init__()
        self.module = module
        self.leaves, self.spec, self.moving, self.axis = list(leaves), spec, list(moving), axis

    def forward(self, *samples: Tensor) -> Tensor:
        """``(n, 6)``."""
        if self.axis is None:
            out = torch.stack([self._call(sample) for sample in zip(*samples, strict=True)])
        else:
            out = self._call([sample.movedim(0, self.axis) for sample in samples]).movedim(self.axis, 0)
        out = out.flatten(1) if out.ndim > 1 else out.unsqueeze(1)
        return out @ torch.arange(1.0, out.shape[1] * MIXES + 1, dtype=out.dtype).square().cos().view(-1, MIXES)

    def _call(self, samples: Sequence[Tensor]) -> Tensor:
        leaves = list(self.leaves)
        for i, sample in zip(self.moving, samples, strict=True):
            leaves[i] = sample
        args, kwargs = tree_unflatten(leaves, self.spec)
        out = self.module(*args, **kwargs)
        return out[0] if isinstance(out, tuple) else out


def parametrised() -> dict[str, Any]:
    """The entries of the installed torch's ``module_db`` that have parameters, by name."""
    from torch.testing._internal.common_modules import module_db

    found = {}
    for info in module_db:
        first = _samples(info)[0].constructor_input
        if any(True for _ in info.module_cls(*first.args, **first.kwargs).parameters()):
            found[info.name] = info
    return found


def networks(info: Any, variants: int = 8) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
    """Networks and samples for one entry, in float64 and eval mode.

    Args:
        info: the entry.
        variants: at most how many of its sample inputs, evenly spread.

    Yields:
        A network and what it is called with.
    """
    samples = _samples(info)
    for sample in samples[:: -(-len(samples) // variants)]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            make = sample.constructor_input
            module = info.module_cls(*make.args, **make.kwargs).double().eval()
            call = sample.forward_input
            module(*call.args, **call.kwargs)  # lazy modules take their shapes here
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter += 0.1 * torch.randn_like(parameter)
            if any(True for _ in module.parameters()):
                yield adapt(module, call.args, call.kwargs)


def adapt(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A network over samples, and samples, out of a module and what it is called with.

    Args:
        module: the module.
        args: its positional arguments.
        kwargs: its keyword arguments.

    Returns:
        The network; a tuple of ``(n, …)`` tensors.
    """
    leaves, spec = tree_flatten((args, kwargs))
    leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
    tensors = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    first = [i for i in tensors if i < len(tree_flatten(args)[0])]
    for moving in (tensors, first):
        for axis in (0, 1):
            adapted = Adapted(module, leaves, spec, moving, axis)
            samples = _split(leaves, moving, axis)
            if samples is not None and _independent(adapted, samples):
                return adapted, samples
    copies = tuple(torch.stack([_near(leaves[i], k) for k in range(3)]) for i in tensors)
    return Adapted(module, leaves, spec, tensors, None), copies


def _split(leaves: Sequence[Any], moving: Sequence[int], axis: int) -> tuple[Tensor, ...] | None:
    chosen = [leaves[i] for i in moving]
    if not chosen or any(leaf.ndim <= axis for leaf in chosen) or len({leaf.shape[axis] for leaf in chosen}) > 1:
        return None
    return tuple(leaf.movedim(axis, 0).contiguous() for leaf in chosen)


def _near(leaf: Tensor, k: int) -> Tensor:
    if not leaf.is_floating_point():
        return leaf
    generator = torch.Generator().manual_seed(k)
    return leaf + 0.1 * torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype)


def _independent(adapted: Adapted, samples: tuple[Tensor, ...]) -> bool:
    """Whether every sample alone gives what it gives in the batch, and there are at least two."""
    n = len(samples[0])
    with torch.no_grad():
        try:
            together = adapted(*samples)
            alone = torch.cat([adapted(*(s[i : i + 1] for s in samples)) for i in range(n)])
        except (RuntimeError, ValueError, IndexError, AssertionError):
            return False
    return n > 1 and together.shape == alone.shape == (n, MIXES) and torch.allclose(together, alone, atol=1e-12)


def _samples(info: Any) -> list[Any]:
    make: Callable[..., Sequence[Any]] = info.module_inputs_func
    return list(make(info, device="cpu", dtype=torch.float64, requires_grad=False, training=False))
