"""Finds every use of every parameter in the autograd graph of the outputs.

Parameters are followed, not modules: a layer called twice, a tied weight, a parameter used through ``F.linear`` or by
hand are all just edges that end in the parameter's ``AccumulateGrad``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tangrams.features.tangent.consumers import BY_NODE, Consumer, Expansion, Source

_VIEWS = {
    "ViewBackward0",
    "UnsafeViewBackward0",
    "ReshapeAliasBackward0",
    "UnsqueezeBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "AliasBackward0",
}
_TRANSPOSES = {"TBackward0", "TransposeBackward0", "PermuteBackward0", "NumpyTBackward0"}
_PASSED = _VIEWS | _TRANSPOSES | {"ExpandBackward0"}
_LEAF = "torch::autograd::AccumulateGrad"
_REENTRANT = "CheckpointFunctionBackward"
_VMAP_LIES = {"PreluKernelBackward0"}  # samples are taken for functions when there are as many of both


@dataclass
class Uses:
    """What a walk found.

    Attributes:
        consumers: nodes whose parameters are understood, in the order met.
        unexplained: parameter → the name of a node that uses it in another way.
        reentrant: whether a reentrant checkpoint hides parameters from the graph.
        vmap_lies: whether it holds a node whose backward under ``vmap`` can be wrong without an error.
        floats: numbers in all intermediate results, over the batch; 0 unless measured.
        precision: the narrowest dtype of any intermediate result; float64 unless measured.
    """

    consumers: list[Consumer] = field(default_factory=list)
    unexplained: dict[str, str] = field(default_factory=dict)
    reentrant: bool = False
    vmap_lies: bool = False
    floats: int = 0
    precision: torch.dtype = torch.float64

    def signature(self) -> tuple[Any, ...]:
        """What must not change between batches for a recipe to hold."""
        return (
            tuple(consumer.signature() for consumer in self.consumers),
            tuple(sorted(self.unexplained.items())),
            self.reentrant,
        )


def find_uses(outputs: Tensor, parameters: Mapping[str, nn.Parameter], *, measure: bool = False) -> Uses:
    """Walk the graph of ``outputs`` and explain the uses of ``parameters``.

    Args:
        outputs: of the network.
        parameters: by name.
        measure: whether ``floats`` and ``precision`` are wanted, too.
    """
    names = {id(p): name for name, p in parameters.items()}
    uses = Uses()
    parents: dict[Any, list[tuple[Any, int]]] = {}
    leaves: dict[str, Any] = {}
    labels: dict[Any, str] = {}
    stack: list[Any] = [outputs.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in labels:
            continue
        labels[node] = label = node.name()
        if label == _LEAF:
            name = names.get(id(node.variable))
            if name is not None:
                leaves[name] = node
            continue
        for slot, (child, _) in enumerate(node.next_functions):
            if child is not None:
                parents.setdefault(child, []).append((node, slot))
                stack.append(child)
    explained: set[tuple[Any, int]] = set()
    for node, label in labels.items():
        if label.startswith(_REENTRANT):
            uses.reentrant = True
        if label in _VMAP_LIES:
            uses.vmap_lies = True
        if measure:
            _measure(node, label, uses)
        reader = BY_NODE.get(label)
        if reader is None:
            continue
        sources = {}
        for slot, (child, _) in enumerate(node.next_functions):
            source = _resolve(child, names)
            if source is not None:
                sources[slot] = source
        consumer = reader.accept(node, sources) if sources else None
        if consumer is not None:
            uses.consumers.append(consumer)
            explained.update((node, slot) for slot in consumer.sources)
    passed = {id(node) for consumer in uses.consumers for s in consumer.sources.values() for node in s.through}
    doubled = [c for c in uses.consumers if isinstance(c, Expansion) and id(c.node) in passed]
    for consumer in doubled:  # the matrix product behind the expansion reads the parameter already
        uses.consumers.remove(consumer)
        explained.discard((consumer.node, 0))
    for name, leaf in leaves.items():
        stranger = _stranger(leaf, parents, explained)
        if stranger is not None:
            uses.unexplained[name] = stranger
    return uses


def _measure(node: Any, label: str, uses: Uses) -> None:
    results = getattr(node, "_input_metadata", ())
    for metadata in results:
        if metadata.dtype.itemsize < uses.precision.itemsize and metadata.dtype.is_floating_point:
            uses.precision = metadata.dtype
    if label not in _VIEWS and label not in _TRANSPOSES:
        uses.floats += sum(math.prod(metadata.shape) for metadata in results)


def _resolve(node: Any, names: Mapping[int, str]) -> Source | None:
    """The parameter at the end of a chain of views, and how it is seen through them."""
    top: tuple[int, ...] | None = None
    through: list[Any] = []
    transposed = expanded = False
    while node is not None:
        label = node.name()
        if label == _LEAF:
            name = names.get(id(node.variable))
            if name is None:
                return None
            shape = tuple(node.variable.shape)
            return Source(name, shape, shape if top is None else top, transposed, expanded, tuple(through))
        if label not in _PASSED:
            return None
        through.append(node)
        shape = tuple(node._input_metadata[0].shape)
        top = shape if top is None else top
        if label in _TRANSPOSES:
            if len(shape) != 2 or (label == "PermuteBackward0" and tuple(d % 2 for d in node._saved_dims) == (0, 1)):
                return None
            if label == "TransposeBackward0" and node._saved_dim0 % 2 == node._saved_dim1 % 2:
                return None
            transposed = not transposed
        elif label == "ExpandBackward0":
            expanded = True
        node = node.next_functions[0][0]
    return None


def _stranger(node: Any, parents: Mapping[Any, list[tuple[Any, int]]], explained: set[tuple[Any, int]]) -> str | None:
    """The name of a node above ``node`` that reads it in a way nobody explained."""
    for parent, slot in parents.get(node, ()):
        if (parent, slot) in explained:
            continue
        label = parent.name()
        if label in _PASSED:
            found = _stranger(parent, parents, explained)
            if found is not None:
                return found
            continue
        return label
    return None
