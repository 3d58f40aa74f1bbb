"""A linear layer with an exact forward pass, an exact input gradient, and a weight gradient from a compressed input."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from tangrams.nn.activation_compression.base import ActivationCompression
from tangrams.nn.activation_compression.pamm import PAMM


class CompressedLinear(nn.Linear):
    r"""``nn.Linear`` that keeps a compressed copy of its input for the weight gradient [090].

    .. math:: Z = X W^⊤ + b, \qquad dX = dZ\, W, \qquad db = 1^⊤ dZ, \qquad dW ≈ dZ^⊤ X

    Only dW is approximate, and only what it needs is compressed: in eval mode, without gradients, or with a frozen
    weight the layer is ``nn.Linear``. Its state is that of ``nn.Linear``; draws are not part of it. Accumulated
    gradients, autocast, checkpointing and in-place activations work as before; a second derivative is refused by
    autograd.

    Args:
        in_features: n.
        out_features: m.
        bias: whether there is one.
        compression: what is kept; give several layers the same one and they share it. ``PAMM(1 / 512)`` by default.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        ``(…, n)`` → ``(…, m)``.

    Example:
        >>> shared = PAMM(1 / 16)
        >>> query, key = (CompressedLinear(8, 8, compression=shared) for _ in range(2))
        >>> query(torch.zeros(2, 32, 8)).shape
        torch.Size([2, 32, 8])

    [090] QKV Projections Require a Fraction of Their Memory.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        compression: ActivationCompression | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.compression = PAMM() if compression is None else compression

    @classmethod
    def from_linear(cls, linear: nn.Linear, compression: ActivationCompression | None = None) -> CompressedLinear:
        """A layer with the very parameters of ``linear``.

        Args:
            linear: a plain ``nn.Linear`` without hooks.
            compression: what is kept.

        Raises:
            ValueError: if it is of a class of its own, whose forward pass may be another, or carries hooks.
        """
        if type(linear) is not nn.Linear:
            raise ValueError(f"CompressedLinear replaces a plain nn.Linear, got {type(linear).__name__}")
        if any(getattr(linear, name) for name in _HOOKS):
            raise ValueError("CompressedLinear would lose the hooks of this nn.Linear: remove them first")
        layer = cls(
            linear.in_features, linear.out_features, linear.bias is not None, compression=compression, device="meta"
        )
        layer.weight, layer.bias = linear.weight, linear.bias
        return layer.train(linear.training)

    def forward(self, x: Tensor) -> Tensor:
        """The layer."""
        if not (self.training and torch.is_grad_enabled() and self.weight.requires_grad and x.numel()):
            return F.linear(x, self.weight, self.bias)
        compressed = self.compression(x)
        # Without a gradient to the weight, the product keeps no input. It is flat, so that it is no view and may be
        # handed on as its own result.
        z = F.linear(x.reshape(-1, x.shape[-1]), self.weight.detach(), self.bias)
        z = _WeightGradient.apply(z, self.weight, compressed.product, *compressed.tensors)
        return z.unflatten(0, x.shape[:-1]) if x.ndim > 1 else z[0]

    def extra_repr(self) -> str:
        """Sizes and compression."""
        return f"{super().extra_repr()}, compression={self.compression}"


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _WeightGradient(torch.autograd.Function):
    """Hands z on, and gives the weight the gradient that a product of dZ with what was kept estimates."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, weight: Tensor, product: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        ctx.mark_dirty(z)
        ctx.product, ctx.dtype = product, weight.dtype
        ctx.save_for_backward(*tensors)
        return z

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dZ: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        dW = ctx.product(dZ, *tensors).to(ctx.dtype) if ctx.needs_input_grad[1] else None
        return dZ, dW, None, *(None for _ in tensors)


def compress_activations_(
    model: nn.Module, names: Collection[str], compression: Callable[[], ActivationCompression]
) -> list[str]:
    """Replace linear layers of a network by :class:`CompressedLinear` ones with the same parameters, in place.

    Layers of one parent share a compression: queries, keys and values of an attention block keep their input once.

    Args:
        model: the network.
        names: names of the layers within their parents, such as ``{"q_proj", "k_proj", "v_proj"}``.
        compression: makes one for each parent; with a seed of its own, or all draw alike.

    Returns:
        The full names of the layers that were replaced.

    Raises:
        ValueError: if a name matches nothing, or a layer of that name is not a plain ``nn.Linear``; nothing is
            replaced then.

    Example:
        >>> import itertools
        >>> blocks = nn.ModuleList(nn.ModuleDict({"q_proj": nn.Linear(4, 4)}) for _ in range(2))
        >>> compress_activations_(blocks, {"q_proj"}, lambda seeds=itertools.count(): PAMM(1 / 4, seed=next(seeds)))
        ['0.q_proj', '1.q_proj']
    """
    wanted = set(names)
    replaced: list[tuple[nn.Module, str, str, CompressedLinear]] = []
    for path, parent in model.named_modules():
        chosen = [(name, child) for name, child in parent.named_children() if name in wanted]
        if not chosen:
            continue
        shared = compression()
        for name, child in chosen:
            if not isinstance(child, nn.Linear):
                raise ValueError(f"compress_activations_ replaces nn.Linear, {path}.{name} is a {type(child).__name__}")
            full = f"{path}.{name}" if path else name
            replaced.append((parent, name, full, CompressedLinear.from_linear(child, shared)))
    missing = wanted - {name for _, name, _, _ in replaced}
    if missing or not wanted:
        raise ValueError(f"compress_activations_ found no layer named {sorted(missing)} in {type(model).__name__}")
    for parent, name, _, layer in replaced:
        setattr(parent, name, layer)
    return [full for _, _, full, _ in replaced]
