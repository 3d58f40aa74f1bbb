"""Freezing all parameters of a network but some [052]."""

from __future__ import annotations

from torch import nn

from tangrams.features.parameters import Selection, select_parameters


def freeze_except(model: nn.Module, params: Selection) -> list[nn.Parameter]:
    """Leave the chosen parameters to be trained and freeze all others, in place.

    What a network's parameters required before does not matter. Frozen ones lose their gradient, so that no optimiser
    moves them, whether it was made before or after: momentum and weight decay act on parameters with a gradient only.
    Buffers are not parameters: a BatchNorm layer with frozen scales still renews its running statistics in training.

    Unknown names, foreign modules and an empty choice are a ``ValueError``, and nothing is frozen then.

    Args:
        model: the network.
        params: what is trained: names; a module or modules; a predicate ``(name, parameter)``; None for all.

    Returns:
        The parameters to give to an optimiser, each once.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
        >>> sum(p.numel() for p in freeze_except(net, net[1]))
        8

    [052] Training BatchNorm and Only BatchNorm.
    """
    parameters = [p for p in model.parameters() if p.is_floating_point() or p.is_complex()]
    before = [p.requires_grad for p in parameters]
    try:
        for p in parameters:
            p.requires_grad_(True)
        names = set(select_parameters(model, params, who="freeze_except").names)
    except BaseException:
        for p, required in zip(parameters, before, strict=True):
            p.requires_grad_(required)
        raise
    chosen = [p for name, p in model.named_parameters() if name in names]
    kept = {id(p) for p in chosen}
    for p in parameters:
        if id(p) not in kept:
            p.requires_grad_(False)
            p.grad = None
    return chosen


def output_layer(model: nn.Module) -> nn.Linear:
    """The last ``nn.Linear`` of a network, in the order of definition.

    Args:
        model: the network.

    Raises:
        ValueError: if there is none.
    """
    found = [module for module in model.modules() if isinstance(module, nn.Linear)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no nn.Linear to be its output layer")
    return found[-1]
