"""The role of the kernels that read what a network's layers return, by hooks, in one forward pass per batch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tangrams.features import ModelRef
from tangrams.features.inputs import as_inputs
from tangrams.kernels.base import Kernel
from tangrams.kernels.feature_kernel import any_floating, in_dtype

Heard = list[tuple[str, Tensor]]
"""Module name and activation, in the order of the calls; appended to while the network runs."""


class ActivationKernel(Kernel):
    """Inner products of activations, summed over the layers that a member listens to.

    The network runs in eval mode without gradients, is held by reference and left as it was. Activations of all
    samples are in memory at once.

    Args:
        model: the network.
        batch_size: samples per forward pass.
        event_shape: the shape of one sample, for GPyTorch.
        **kwargs: GPyTorch's own.

    Raises:
        ValueError: if ``batch_size < 1``.
    """

    def __init__(
        self,
        model: nn.Module | ModelRef,
        *,
        batch_size: int = 256,
        event_shape: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(event_shape=event_shape, **kwargs)
        if batch_size < 1:
            raise ValueError(f"{type(self).__name__} needs batch_size ≥ 1, got {batch_size}")
        self.ref = model if isinstance(model, ModelRef) else ModelRef(model)
        self.batch_size = batch_size

    @abstractmethod
    def _listen(self, network: nn.Module, heard: Heard) -> list[RemovableHandle]:
        """Hook: register forward hooks that fill ``heard`` (with :func:`keep`), and return their handles."""

    def layers(self, x: Any) -> list[Tensor]:
        """The activations of each layer listened to, ``(n, d_l)``.

        Args:
            x: n samples.

        Raises:
            ValueError: if nothing was heard, an activation has no sample axis, or batches ran through other layers.
        """
        who = type(self).__name__
        inputs = as_inputs(in_dtype(x, self.ref.dtype), who).detached()
        batches: list[Heard] = []
        with self.ref.session() as network, torch.no_grad():
            for start in range(0, max(inputs.n, 1), self.batch_size):
                batch, heard = inputs.slice(start, min(start + self.batch_size, inputs.n)), []
                handles = self._listen(network, heard)
                try:
                    batch.call(network)
                finally:
                    for handle in handles:
                        handle.remove()
                for name, value in heard:
                    if value.ndim == 0 or value.shape[0] != batch.n:
                        raise ValueError(
                            f"{who}: layer {name!r} gave shape {tuple(value.shape)} for {batch.n} samples: "
                            "the first axis must be the sample"
                        )
                batches.append(heard)
        names = [[name for name, _ in heard] for heard in batches]
        if not names[0]:
            raise ValueError(f"{who} heard no layer of {type(self.ref.model).__name__}: it called no such module")
        if any(other != names[0] for other in names):
            raise ValueError(f"{who}: batches ran through different layers; their activations do not line up")
        return [torch.cat([_rows(heard[layer][1]) for heard in batches]) for layer in range(len(names[0]))]

    def _gram(self, x: Any, y: Any) -> Tensor:
        left = self.layers(x)
        right = left if y is x else self.layers(y)
        if [a.shape[1:] for a in left] != [b.shape[1:] for b in right]:
            raise ValueError(f"{type(self).__name__}: x and y ran through different layers")
        return torch.stack([a @ b.mT for a, b in zip(left, right, strict=True)]).sum(0)

    def _diag(self, x: Any) -> Tensor:
        return torch.stack([a.square().sum(1) for a in self.layers(x)]).sum(0)

    def _answer_dtype(self, x: Any) -> torch.dtype:
        return super()._answer_dtype(x) if any_floating(x) else self.ref.dtype


def keep(name: str, value: Any, heard: Heard) -> None:
    """Append the tensor in what a module took or gave; a copy, as the next layer may work in place."""
    while isinstance(value, tuple | list) and value:
        value = value[0]
    if isinstance(value, Tensor) and value.is_floating_point():
        heard.append((name, value.detach().clone()))


def _rows(value: Tensor) -> Tensor:
    return value.flatten(1) if value.ndim > 1 else value[:, None]
