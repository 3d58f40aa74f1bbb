"""Tangent attention fine-tuning: the last blocks of a transformer, linearised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, no_type_check

import torch
from torch import Tensor, nn

from tangrams.features.model_ref import ModelRef
from tangrams.learners.tangent_classifier import TangentClassifier, with_head
from tangrams.learners.tangent_training import Penalty, norm_penalty
from tangrams.nn.tangent import LinearizedModule, linearize


class TAFTClassifier(TangentClassifier):
    r"""Fine-tunes a tangent vector of the last blocks of a vision transformer [009].

    What comes after the front of the transformer, from one block on to the final norm and the head, carries tangents;
    the blocks below run plainly. Base weights stay, those of the head are drawn anew; see
    :func:`~tangrams.nn.transformer.with_fresh_blocks` to draw those of the last blocks too, and
    :func:`~tangrams.nn.transformer.with_fresh_token` for a new class token.

    Args:
        backbone: images → ``(n, d)`` features, such as a :class:`~tangrams.nn.transformer.VisionTransformer` without a
            head; None: the samples are the features.
        unfreeze_from: index of the first block that is trained, also from the end; −1: the last one.
        blocks: where the list of blocks is in the backbone.
        classes: as for :class:`TangentClassifier`.
        alpha: as there.
        loss: as there.
        learning_rate: as there.
        weight_decay: as there.
        penalty: as there.
        epochs: as there.
        batch_size: as there.
        milestones: as there.
        random_state: as there.

    Attributes:
        classes_: the labels, sorted.
        linearized_: the network with its head, linearised, at the trained direction.
        tangent_: the direction.
        loss_curve_: the mean objective of each epoch.

    Shape:
        ``X (n, …)`` → labels ``(n,)``.

    Raises:
        ValueError: from ``fit``, if there are no such blocks.
    """

    @no_type_check  # scikit-learn: a constructor takes anything, fit judges it
    def __init__(
        self,
        backbone: nn.Module | ModelRef | None = None,
        *,
        unfreeze_from: int = -1,
        blocks: str = "blocks",
        classes: Any = None,
        alpha: float = 15.0,
        loss: Callable[[Tensor, Tensor], Tensor] | None = None,
        learning_rate: float = 1e-3,
        weight_decay: float = 1e-5,
        penalty: Penalty = norm_penalty,
        epochs: int = 30,
        batch_size: int = 32,
        milestones: Sequence[int] = (25, 40),
        random_state: int = 0,
    ) -> None:
        self.backbone = backbone
        self.unfreeze_from = unfreeze_from
        self.blocks = blocks
        self.classes = classes
        self.alpha = alpha
        self.loss = loss
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.penalty = penalty
        self.epochs = epochs
        self.batch_size = batch_size
        self.milestones = milestones
        self.random_state = random_state

    def _linearize(self, x: Any, generator: torch.Generator) -> LinearizedModule:
        ref = self._backbone()
        network = with_head(ref, x, len(self.classes_), generator)
        if ref is None:
            return linearize(network)
        return linearize(network, trainable=self._trained(network, ref))

    def _trained(self, network: nn.Module, ref: ModelRef) -> list[str]:
        """Names of all parameters from the first of the block on, in the order of the modules."""
        who = f"{type(self).__name__}(blocks={self.blocks!r}, unfreeze_from={self.unfreeze_from})"
        try:
            blocks = list(ref.model.get_submodule(self.blocks).children())
            first = next(iter(blocks[self.unfreeze_from].parameters()))
        except (AttributeError, IndexError, StopIteration) as error:
            raise ValueError(f"{who} finds no such block in {type(ref.model).__name__}: {error}") from error
        named = list(network.named_parameters())
        start = next(i for i, (_, p) in enumerate(named) if p is first)
        return [name for name, p in named[start:] if p.requires_grad]
