"""The conjugate kernel: inner products of one layer's activations."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tangrams.features import ModelRef
from tangrams.kernels.activations import ActivationKernel, Heard, keep


class ConjugateKernel(ActivationKernel):
    r"""Inner products of the last hidden activations, :math:`\langle h(x), h(x')\rangle` [072].

    With the readout's weights alone trained, and a bias apart, this is the tangent kernel of each output.

    Args:
        model: the network.
        layer: the name of the module whose output h is; None: what the last module with parameters of its own is given.
        **kwargs: of :class:`~tangrams.kernels.activations.ActivationKernel`: ``batch_size``, ``event_shape``,
            GPyTorch's.

    Shape:
        n and m samples → ``(n, m)``.

    Raises:
        ValueError: if the network has no module of that name.

    Example:
        >>> import torch
        >>> net = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 3))
        >>> ConjugateKernel(net).gram(torch.tensor([[1.0, 2.0], [-1.0, 1.0]]))
        tensor([[5., 2.],
                [2., 1.]])
    """

    def __init__(self, model: nn.Module | ModelRef, layer: str | None = None, **kwargs: Any) -> None:
        super().__init__(model, **kwargs)
        names = dict(self.ref.model.named_modules())
        if layer is not None and layer not in names:
            raise ValueError(f"ConjugateKernel: no module {layer!r}; there are {', '.join(filter(None, names))}")
        self.layer = layer

    def features(self, x: Any) -> Float[Tensor, "n d"]:
        """h(x), flattened.

        Args:
            x: n samples.
        """
        return self.layers(x)[-1]

    def _listen(self, network: nn.Module, heard: Heard) -> list[RemovableHandle]:
        if self.layer is not None:
            module, name = network.get_submodule(self.layer), self.layer
            return [module.register_forward_hook(lambda _m, _args, out: keep(name, out, heard))]

        def before(name: str) -> Any:
            def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
                heard.clear()  # only the last one counts
                keep(name, args, heard)

            return hook

        return [
            module.register_forward_pre_hook(before(name))
            for name, module in network.named_modules()
            if next(module.parameters(recurse=False), None) is not None
        ]

    def _gram(self, x: Any, y: Any) -> Tensor:
        left = self.features(x)
        return left @ (left if y is x else self.features(y)).mT

    def _diag(self, x: Any) -> Tensor:
        return self.features(x).square().sum(1)
