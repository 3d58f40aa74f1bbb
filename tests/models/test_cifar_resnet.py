"""The residual network for small images: its count of layers, its start, and the published implementation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tangrams.models import BasicBlock, CifarResNet
from tangrams.nn import batchnorm_layers
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(*args, seed=0, **kwargs):
    return CifarResNet(*args, generator=seeded(seed), **kwargs)


def off_the_kinks(model):
    """Shifts that differ from zero: where a channel is off, the next ReLU would sit exactly at its kink."""
    for place, layer in enumerate(batchnorm_layers(model).values()):
        nn.init.constant_(layer.bias, 0.3 + 0.05 * place)
    return model


def block(*args, **kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = BasicBlock(*args, **kwargs)
    for layer in batchnorm_layers(made).values():
        layer.running_mean.fill_(0.1)
    return made


def block_by_hand(module, x):
    def norm(bn, y):
        scale = bn.weight / (bn.running_var + bn.eps).sqrt()
        return (y - bn.running_mean[:, None, None]) * scale[:, None, None] + bn.bias[:, None, None]

    conv = nn.functional.conv2d
    stride = module.conv1.stride[0]
    y = norm(module.bn1, conv(x, module.conv1.weight, stride=stride, padding=1)).clamp_min(0)
    y = norm(module.bn2, conv(y, module.conv2.weight, padding=1))
    if stride == 2:
        x = norm(module.shortcut[1], conv(x[:, :, ::2, ::2], module.shortcut[0].weight))
    return (y + x).clamp_min(0)


TestCifarResNet = conformance(
    ModuleSuite,
    Case(lambda: off_the_kinks(make(8, 1, 2)), inputs=normal(3, 4, 4)),
    Case(lambda: block(2, 2), inputs=normal(2, 3, 3), reference=block_by_hand),
    Case(lambda: block(2, 3, halve=True), inputs=normal(2, 4, 5), reference=block_by_hand, name="BasicBlock-halving"),
)


@pytest.mark.parametrize("depth", [8, 14, 20, 56])
def test_depth_counts_the_convolutions_on_the_long_path_and_the_output_layer(depth):
    model = make(depth, 2)
    convolutions = [m for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in name]
    assert len(convolutions) + 1 == depth
    assert [len(list(s.parameters())) for s in model.shortcuts] == [3, 3]


def test_batchnorm_has_two_parameters_per_channel_and_under_two_percent_of_all():
    model = make(14, 16)
    own = [p for layer in batchnorm_layers(model).values() for p in (layer.weight, layer.bias)]
    D, W = 2, 16
    channels = W + 2 * D * (W + 2 * W + 4 * W) + 2 * W + 4 * W  # stem, blocks, two shortcuts
    assert sum(p.numel() for p in own) == 2 * channels
    assert 0.006 < 2 * channels / sum(p.numel() for p in model.parameters()) < 0.02


def test_weights_have_the_variance_of_he_and_scales_are_uniform():
    model = make(14, 16)
    weight = model.blocks[-1].conv2.weight
    expected = 2 / (64 * 9)
    z = (weight.detach().square().mean() - expected) / (expected * (2 / weight.numel()) ** 0.5)
    assert abs(float(z)) < 4
    gammas = torch.cat([layer.weight.detach() for layer in batchnorm_layers(model).values()])
    assert 0 <= float(gammas.min()) <= float(gammas.max()) < 1
    z = (gammas.mean() - 0.5) / (1 / (12 * len(gammas))) ** 0.5
    assert abs(float(z)) < 4
    assert all((layer.bias == 0).all() for layer in batchnorm_layers(model).values())


def test_the_generator_fixes_every_draw():
    first, second, other = make(8, 2), make(8, 2), make(8, 2, seed=1)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.conv.weight, other.conv.weight)
    model = make(8, 2)
    model.reset_parameters(seeded(1))
    assert torch.equal(model.fc.bias, other.fc.bias)


def test_scaling_a_convolution_before_batchnorm_changes_nothing():
    model = make(14, 4).double().train()
    for layer in batchnorm_layers(model).values():
        layer.eps = 1e-15
    x = torch.randn(6, 3, 16, 16, generator=seeded(), dtype=torch.float64)
    expected = model(x)
    with torch.no_grad():
        model.blocks[2].conv1.weight.mul_(3.7)
        model.conv.weight.mul_(0.2)
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


def test_a_channel_without_scale_and_shift_is_removed():
    model = make(14, 4).double()
    x = torch.randn(6, 3, 16, 16, generator=seeded(), dtype=torch.float64)
    with torch.no_grad():
        model.blocks[1].bn1.weight[2] = 0
        model.blocks[1].bn1.bias[2] = 0
    expected = model(x)
    with torch.no_grad():
        model.blocks[1].conv1.weight[2].normal_(generator=seeded(1))
        model.blocks[1].conv2.weight[:, 2].normal_(generator=seeded(2))
    torch.testing.assert_close(model(x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [(14, 4), (20, 3)], ids=["14-4", "20-3"])
def test_it_is_the_published_network_parameter_by_parameter(size):
    # Frozen by make_open_lth.py.
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("make_open_lth", Path(__file__).with_name("make_open_lth.py"))
    recipe = module_from_spec(spec)
    spec.loader.exec_module(recipe)
    frozen = np.load(Path(__file__).with_name("open_lth.npz"))
    key = f"{size[0]}_{size[1]}"
    shapes = json.loads(str(frozen[f"shapes_{key}"]))
    model = make(*size).double()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == shapes
    model.load_state_dict(recipe.known_state(shapes))
    for mode in ("eval", "train"):
        expected = torch.from_numpy(frozen[f"{mode}_{key}"])
        found = model.train(mode == "train")(recipe.known_images())
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("arguments", [(15,), (2,), (14, 0), (14, 4, 0)])
def test_impossible_sizes_are_refused(arguments):
    with pytest.raises(ValueError, match="CifarResNet"):
        CifarResNet(*arguments)
