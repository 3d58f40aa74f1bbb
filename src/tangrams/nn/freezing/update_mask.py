"""Training single entries of weight tensors: the matched control of [052]."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tangrams.features.parameters import Selection, select_parameters


class UpdateMask:
    """Lets an optimiser move the marked entries of some parameters and no others.

    The mask acts on the update: after every step the other entries are put back, so that neither momentum nor weight
    decay moves them, whatever the optimiser. Their gradients are set to zero before it, which keeps them out of norms.

    Args:
        model: the network.
        masks: parameter name → which of its entries are trained.

    Attributes:
        parameters: the parameters with trained entries, to give to an optimiser; see also :func:`freeze_except`.
        num_trained: how many entries are trained.

    Raises:
        ValueError: for an unknown name, a mask of another shape, or if nothing is marked.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> mask = UpdateMask(layer, {"bias": torch.tensor([True, False])})
        >>> mask.num_trained
        1

    [052] Training BatchNorm and Only BatchNorm.
    """

    def __init__(self, model: nn.Module, masks: Mapping[str, Bool[Tensor, "..."]]) -> None:
        known = dict(model.named_parameters())
        for name, mask in masks.items():
            if name not in known:
                raise ValueError(f"UpdateMask has a mask for {name!r}, which {type(model).__name__} does not have")
            if mask.shape != known[name].shape:
                raise ValueError(
                    f"UpdateMask expects a mask of shape {tuple(known[name].shape)} for {name!r}, got "
                    f"{tuple(mask.shape)}"
                )
        self.parameters = [known[name] for name in masks]
        self._masks = list(masks.values())
        self.num_trained = sum(int(mask.sum()) for mask in self._masks)
        if not self.num_trained:
            raise ValueError("UpdateMask marks no entry: there is nothing to train")

    def attach(self, optimizer: torch.optim.Optimizer) -> UpdateMaskHandle:
        """Mask every step of an optimiser from now on.

        Args:
            optimizer: has the masked parameters, and may have others.

        Returns:
            A handle whose ``remove()`` ends it.

        Raises:
            ValueError: if a masked parameter is not among the optimiser's.
        """
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if any(id(p) not in owned for p in self.parameters):
            raise ValueError(f"this {type(optimizer).__name__} does not train all masked parameters: give it them")
        before: list[Tensor] = []

        def keep(*_: Any) -> None:
            before[:] = [p.detach().clone() for p in self.parameters]
            for p, mask in self._marked():
                if p.grad is not None:
                    p.grad.masked_fill_(~mask, 0)

        def put_back(*_: Any) -> None:
            with torch.no_grad():
                for (p, mask), old in zip(self._marked(), before, strict=True):
                    p.copy_(torch.where(mask, p, old))
            before.clear()

        return UpdateMaskHandle(optimizer.register_step_pre_hook(keep), optimizer.register_step_post_hook(put_back))

    def _marked(self) -> list[tuple[nn.Parameter, Tensor]]:
        """The parameters with their masks, which follow them to another device."""
        self._masks = [mask.to(p.device) for p, mask in zip(self.parameters, self._masks, strict=True)]
        return list(zip(self.parameters, self._masks, strict=True))


class UpdateMaskHandle:
    """Ends the masking of an optimiser.

    Args:
        *handles: of its hooks.
    """

    def __init__(self, *handles: RemovableHandle) -> None:
        self._handles = handles

    def remove(self) -> None:
        """Let the optimiser move all entries again."""
        for handle in self._handles:
            handle.remove()


def random_entries_per_channel(
    model: nn.Module, count: int = 2, *, exclude: Collection[nn.Module] = (), seed: int = 0
) -> dict[str, Tensor]:
    """Masks with ``count`` random entries for each output channel of each convolution.

    Two match BatchNorm's scale and shift, where every convolution is followed by it.

    Args:
        model: the network.
        count: entries per output channel.
        exclude: convolutions, or modules that hold them, to leave out.
        seed: fixes the draw.

    Raises:
        ValueError: if there is no convolution, or a channel has fewer entries.
    """
    generator = torch.Generator().manual_seed(seed)
    left_out = {id(module) for outer in exclude for module in outer.modules()}
    masks = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) or id(module) in left_out:
            continue
        channels, size = len(module.weight), module.weight[0].numel()
        if not 1 <= count <= size:
            raise ValueError(f"{name!r} has {size} entries per output channel, {count} were asked for")
        places = torch.rand(channels, size, generator=generator, dtype=torch.float32).topk(count).indices
        mask = torch.zeros(channels, size, dtype=torch.bool).scatter_(1, places, True)
        masks[f"{name}.weight" if name else "weight"] = mask.reshape(module.weight.shape)
    if not masks:
        raise ValueError(f"{type(model).__name__} has no convolution to draw entries from")
    return masks


def random_entries(model: nn.Module, count: int, params: Selection = None, *, seed: int = 0) -> dict[str, Tensor]:
    """Masks with ``count`` random entries of all chosen parameters together.

    Args:
        model: the network.
        count: how many entries in all.
        params: what they are drawn from: None for all that require grad; names; modules; a predicate.
        seed: fixes the draw.

    Raises:
        ValueError: if there are fewer entries, or as :func:`freeze_except` for the choice.
    """
    names = select_parameters(model, params, who="random_entries").names
    chosen = {name: p for name, p in model.named_parameters() if name in names}
    total = sum(p.numel() for p in chosen.values())
    if not 1 <= count <= total:
        raise ValueError(f"random_entries draws from {total} entries, {count} were asked for")
    generator = torch.Generator().manual_seed(seed)
    marked = torch.zeros(total, dtype=torch.bool)
    marked[torch.randperm(total, generator=generator)[:count]] = True
    parts = marked.split([p.numel() for p in chosen.values()])
    return {name: part.reshape(p.shape) for (name, p), part in zip(chosen.items(), parts, strict=True)}
