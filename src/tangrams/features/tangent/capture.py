"""Runs the network on a batch and reads inputs and output gradients off its graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from tangrams.features.inputs import Inputs
from tangrams.features.tangent import generic
from tangrams.features.tangent.consumers import Consumer
from tangrams.features.tangent.graph import find_uses
from tangrams.features.tangent.recipe import Recipe, bind
from tangrams.features.tangent.spec import TangentSpec


class Capture:
    """The graph of one batch, ready to be read.

    Args:
        spec: the network, outputs and parameters.
        model: the network, in a session.
        recipe: where the samples lie.
        batch: the samples.
        wanted: consumers whose gradients will be asked for.
        known: consumers whose gradients are known without a backward pass.
    """

    def __init__(
        self,
        spec: TangentSpec,
        model: nn.Module,
        recipe: Recipe,
        batch: Inputs,
        wanted: Sequence[int],
        known: Sequence[int] = (),
    ) -> None:
        self.n, self.r = batch.n, recipe.r
        self.values = generic.outputs(model, spec.output, batch)
        found = find_uses(self.values, spec.weights())
        self.consumers: list[Consumer] = bind(found, recipe, batch.n, spec.dtype, wanted)
        self.wanted = tuple(wanted)
        self._asked = tuple(k for k in wanted if k not in set(known))
        for k in self.wanted:
            consumer = self.consumers[k]
            with torch.no_grad():
                consumer.load(recipe.axes[k], batch.n, spec.dtype)

    def gradients(self, function: int) -> Mapping[int, Tensor]:
        """Arranged gradients of one function, summed over samples, by consumer."""
        if not self._asked:
            return {}
        cotangent = torch.zeros_like(self.values)
        cotangent[:, function] = 1
        edges = [GradientEdge(self.consumers[k].node, 0) for k in self._asked]
        keep = function + 1 < self.r
        found = torch.autograd.grad(self.values, edges, cotangent, retain_graph=keep, allow_unused=True)
        arranged = {}
        for k, gradient in zip(self._asked, found, strict=True):
            if gradient is None:
                gradient = self.values.new_zeros(self.consumers[k].shape)
            arranged[k] = self.consumers[k].arrange(gradient.detach())
        return arranged
