"""The embedding kernel: inner products of all layers' activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from tangrams.features import ModelRef
from tangrams.kernels.activations import ActivationKernel, Heard, keep


class EmbeddingKernel(ActivationKernel):
    r"""Inner products of activations summed over layers, :math:`\sum_l \langle a_l(x), a_l(x')\rangle` [072].

    A layer is a module without children, each time it is called; what a forward pass computes between modules
    (``F.relu``) is not heard.

    Args:
        model: the network.
        layers: names of the modules whose outputs count; None: all without children.
        **kwargs: of :class:`~tangrams.kernels.activations.ActivationKernel`: ``batch_size``, ``event_shape``,
            GPyTorch's.

    Shape:
        n and m samples → ``(n, m)``.

    Raises:
        ValueError: if the network has no module of one of the names.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
        >>> EmbeddingKernel(net).gram(torch.tensor([[1.0, -2.0]]))  # 5 + 1
        tensor([[6.]])
    """

    def __init__(self, model: nn.Module | ModelRef, layers: Sequence[str] | None = None, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        modules = dict(self.ref.model.named_modules())
        leaves = [name for name, module in modules.items() if not any(module.children())]
        self.layer_names = tuple(leaves if layers is None else layers)
        for name in self.layer_names:
            if name not in modules:
                raise ValueError(f"EmbeddingKernel: no module {name!r}; there are {', '.join(filter(None, modules))}")

    def _listen(self, network: nn.Module, heard: Heard) -> list[RemovableHandle]:
        def after(name: str) -> Any:
            return lambda _module, _args, output: keep(name, output, heard)

        return [network.get_submodule(name).register_forward_hook(after(name)) for name in self.layer_names]
