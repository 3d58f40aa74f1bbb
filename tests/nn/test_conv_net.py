"""The network of data set distillation."""

import pytest
import torch
from torch import nn

from tangrams.nn import ConvNet
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def seeded(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ConvNet(2, 3, 4, width=2, depth=2, **options)


TestConvNet = conformance(
    ModuleSuite,
    Case(lambda: seeded(activation=nn.Softplus(beta=3)), inputs=normal(2, 4, 4)),
    Case(lambda: seeded(activation=nn.Tanh(), batch_norm=True), inputs=normal(2, 4, 4), name="ConvNet-batch-norm"),
)


@pytest.mark.parametrize(("size", "depth", "side"), [(28, 3, 4), (32, 3, 4), (64, 4, 4), (8, 2, 2), (14, 3, 1)])
def test_images_are_halved_by_every_block_and_28_pixels_are_padded_to_32(size, depth, side):
    network = ConvNet(1, 10, size, width=2, depth=depth)
    assert network.body(torch.zeros(1, 1, size, size)).shape == (1, 2 * 2 ** (depth - 1) * side**2)
    widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert widths == [2 * 2**i for i in range(depth)]


def test_weights_have_variance_one_over_fan_in_and_biases_start_at_zero():
    torch.manual_seed(0)
    network = ConvNet(3, 10, width=64)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in, n = module.weight[0].numel(), module.weight.numel()
            z = (float(module.weight.square().mean()) * fan_in - 1) / (2 / n) ** 0.5
            assert abs(z) < 4
            assert float(module.bias.abs().max()) == 0


@pytest.mark.parametrize("arguments", [(0, 2, 8), (1, 0, 8), (1, 2, 4)])
def test_networks_that_cannot_be_are_refused(arguments):
    with pytest.raises(ValueError, match="ConvNet"):
        ConvNet(*arguments, depth=3)
