"""The private names of autograd's saved tensors that the readers depend on, one test per node."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tangrams.features.tangent.consumers import BY_NODE


def walk(value):
    found, stack, seen = {}, [value.grad_fn], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        found.setdefault(node.name(), node)
        stack.extend(child for child, _ in node.next_functions)
    return found


def weight(*shape):
    return nn.Parameter(torch.randn(*shape))


NODES = {
    "AddmmBackward0": (
        lambda: F.linear(torch.randn(4, 3), weight(2, 3), weight(2)),
        ["mat1", "alpha", "beta"],
    ),
    "MmBackward0": (lambda: torch.randn(4, 3) @ weight(3, 2), ["self"]),
    "BmmBackward0": (lambda: torch.bmm(torch.randn(4, 5, 3), weight(3, 2).expand(4, 3, 2)), ["self"]),
    "ConvolutionBackward0": (
        lambda: F.conv2d(torch.randn(4, 3, 6, 6), weight(2, 3, 3, 3), weight(2)),
        ["input", "stride", "padding", "dilation", "groups", "transposed", "output_padding"],
    ),
    "NativeLayerNormBackward0": (
        lambda: F.layer_norm(torch.randn(4, 3), (3,), weight(3), weight(3)),
        ["input", "result1", "result2", "normalized_shape"],
    ),
    "NativeBatchNormBackward0": (
        lambda: F.batch_norm(torch.randn(4, 3), torch.zeros(3), torch.ones(3), weight(3), weight(3)),
        ["input", "running_mean", "running_var", "eps", "training"],
    ),
    "NativeGroupNormBackward0": (
        lambda: F.group_norm(torch.randn(4, 6), 2, weight(6), weight(6)),
        ["input", "result1", "result2", "group"],
    ),
    "EmbeddingBackward0": (
        lambda: F.embedding(torch.arange(4), weight(9, 2)),
        ["indices", "padding_idx", "scale_grad_by_freq"],
    ),
    "AddBackward0": (lambda: torch.randn(4, 3) + weight(3), ["alpha"]),
    "SubBackward0": (lambda: torch.randn(4, 3) - weight(3), ["alpha"]),
    "MulBackward0": (lambda: torch.randn(4, 3) * weight(3), ["self"]),
    "ExpandBackward0": (lambda: weight(1, 3).expand(4, 3), []),
    "PreluKernelBackward0": (lambda: F.prelu(torch.randn(4, 3), weight(3)), ["self"]),
}


@pytest.mark.parametrize("name", NODES)
def test_a_node_keeps_the_tensors_that_its_reader_reads(name):
    make, saved = NODES[name]
    node = walk(make())[name]
    for attribute in saved:
        assert hasattr(node, f"_saved_{attribute}"), f"{name} no longer has _saved_{attribute}"
    assert hasattr(node, "_input_metadata")
    assert tuple(node._input_metadata[0].shape)


def test_every_reader_has_its_node_pinned():
    assert set(BY_NODE) == set(NODES)
