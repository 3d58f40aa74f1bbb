"""Layers in NTK parametrisation."""

import math

import pytest
import torch

from tangrams.nn import NTKConv2d, NTKLinear
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def linear_by_hand(module, x):
    return module.W_std / math.sqrt(module.in_features) * x @ module.weight.T + module.b_std * module.bias


def conv_by_hand(module, x):
    scaled = module.weight * module.W_std / math.sqrt(module.in_channels * 9)
    return torch.nn.functional.conv2d(x, scaled, module.b_std * module.bias, padding="same")


def seeded(make):
    return make(generator=torch.Generator().manual_seed(0))


TestNTKLayers = conformance(
    ModuleSuite,
    Case(lambda: seeded(lambda **g: NTKLinear(5, 3, 1.4, 0.3, **g)), inputs=normal(5), reference=linear_by_hand),
    Case(lambda: seeded(lambda **g: NTKLinear(5, 3, 1.4, 0.0, **g)), inputs=normal(2, 5), name="NTKLinear-plain"),
    Case(lambda: seeded(lambda **g: NTKConv2d(2, 3, 3, 1.4, 0.3, **g)), inputs=normal(2, 4, 5), reference=conv_by_hand),
    Case(
        lambda: seeded(lambda **g: NTKConv2d(2, 3, (2, 3), stride=2, padding=1, **g)),
        inputs=normal(2, 4, 5),
        name="NTKConv2d-strided",
    ),
)


@pytest.mark.parametrize("make", [lambda: NTKLinear(64, 256, 1.3, 0.2), lambda: NTKConv2d(16, 64, 2, 1.3, 0.2)])
def test_outputs_have_the_variance_of_the_parametrisation(make):
    torch.manual_seed(0)
    module = make()
    outputs = []
    for _ in range(40):
        module.reset_parameters()
        x = torch.ones(1, 64) if isinstance(module, NTKLinear) else torch.ones(1, 16, 2, 2)
        y = module(x).detach()
        outputs.append(y.flatten() if y.ndim == 2 else y[0, :, 0, 0])
    sample = torch.cat(outputs)
    expected = 1.3**2 + 0.2**2
    # A mean of N squares of normals of variance v has standard error v √(2/N).
    z = (sample.square().mean() - expected) / (expected * math.sqrt(2 / len(sample)))
    assert abs(float(z)) < 4


def test_a_zero_bias_scale_leaves_the_bias_out():
    assert [name for name, _ in NTKLinear(3, 2, b_std=0.0).named_parameters()] == ["weight"]


@pytest.mark.parametrize("arguments", [(0, 2), (2, 0), (2, 2, -1.0), (2, 2, 1.0, -0.1), (2, 2, math.nan)])
def test_impossible_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="NTKLinear"):
        NTKLinear(*arguments)
