"""What is frozen stays bit for bit, whatever the optimiser; what is drawn is what was asked for."""

import pytest
import torch
from torch import nn

from tangrams.models import CifarResNet
from tangrams.nn import (
    UpdateMask,
    batchnorm_affine,
    batchnorm_layers,
    freeze_except,
    init_batchnorm_,
    output_layer,
    random_entries,
    random_entries_per_channel,
)


def network():
    return CifarResNet(8, 4, generator=torch.Generator().manual_seed(0))


def step(model, optimizer, steps=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    model.train()
    for _ in range(steps):
        x = torch.randn(8, 3, 8, 8, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), torch.arange(8)).backward()
        optimizer.step()


def snapshot(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def changed(model, before):
    return {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, weight_decay=0.1, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, weight_decay=0.5),
    "foreach": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.5, foreach=True),
    "rprop": lambda p: torch.optim.Rprop(p),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_frozen_parameters_keep_every_bit(name):
    model = network()
    chosen = freeze_except(model, [*batchnorm_layers(model).values()])
    before = snapshot(model)
    step(model, OPTIMIZERS[name](chosen))
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert changed(model, before) == trained
    assert sum(p.numel() for p in chosen) == 2 * sum(len(a.gamma) for a in batchnorm_affine(model).values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_from_before_moves_nothing_that_is_frozen(name):
    model = network()
    optimizer = OPTIMIZERS[name](model.parameters())
    step(model, optimizer)  # momentum everywhere, and gradients left behind
    freeze_except(model, output_layer(model))
    before = snapshot(model)
    step(model, optimizer)
    assert changed(model, before) == {"fc.weight", "fc.bias"}


def test_what_was_frozen_before_does_not_matter():
    model = network().requires_grad_(False)
    assert len(freeze_except(model, ["fc.weight", "bn.bias"])) == 2
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {"fc.weight", "bn.bias"}
    freeze_except(model, lambda name, p: "bn" not in name)
    assert not any(p.requires_grad for layer in (model.bn, model.blocks[0].bn1) for p in layer.parameters())
    assert model.conv.weight.requires_grad
    assert len(freeze_except(model, None)) == len(list(model.parameters()))


def test_shortcuts_and_output_layers_are_selections():
    model = network()
    shortcuts = freeze_except(model, model.shortcuts)
    assert len(shortcuts) == 6
    assert len(freeze_except(model, [*model.shortcuts, output_layer(model)])) == 8


def test_tied_weights_count_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert len(freeze_except(model, model[1])) == 2
    assert model[0].weight.requires_grad
    assert not model[0].bias.requires_grad


def test_running_statistics_are_renewed_beside_frozen_scales():
    model = network()
    chosen = freeze_except(model, output_layer(model))
    mean = model.bn.running_mean.clone()
    step(model, torch.optim.SGD(chosen, 0.1))
    assert not torch.equal(model.bn.running_mean, mean)


@pytest.mark.parametrize("params", [["fc.wieght"], [], lambda name, p: False, nn.Linear(2, 2)])
def test_a_choice_that_fails_freezes_nothing(params):
    model = network()
    model.conv.weight.requires_grad_(False)
    model.fc.weight.grad = torch.ones_like(model.fc.weight)
    with pytest.raises(ValueError, match=r"freeze_except|no parameter|not part"):
        freeze_except(model, params)
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["conv.weight"]
    assert model.fc.weight.grad is not None


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_mask_lets_exactly_the_drawn_entries_change(name):
    model = network()
    masks = random_entries_per_channel(model, 2, seed=3)
    mask = UpdateMask(model, masks)
    optimizer = OPTIMIZERS[name](freeze_except(model, [*masks]))
    mask.attach(optimizer)
    before = snapshot(model)
    step(model, optimizer, steps=4)
    assert changed(model, before) == set(masks)
    for key, p in model.named_parameters():
        if key in masks:
            moved = p.detach() != before[key]
            assert not moved[~masks[key]].any()
            assert moved[masks[key]].float().mean() > 0.9  # a dead channel's gradient is zero


def test_a_mask_on_an_optimiser_with_momentum_still_holds():
    model = network()
    masks = {"fc.weight": torch.zeros(10, 16, dtype=torch.bool)}
    masks["fc.weight"][:, 0] = True
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    step(model, optimizer)
    handle = UpdateMask(model, masks).attach(optimizer)
    before = snapshot(model)
    step(model, optimizer)
    moved = model.fc.weight.detach() != before["fc.weight"]
    assert torch.equal(moved, masks["fc.weight"])
    assert "conv.weight" in changed(model, before)
    handle.remove()
    step(model, optimizer)
    assert (model.fc.weight.detach() != before["fc.weight"]).all()


def test_masks_follow_their_parameters_to_another_device():
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    mask = UpdateMask(layer, {"weight": torch.eye(3, 4, dtype=torch.bool)})
    mask.attach(optimizer)
    torch.__future__.set_swap_module_params_on_conversion(True)  # the same parameter, elsewhere: as on a device
    try:
        layer.to("meta")
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert layer.weight is mask.parameters[0]
    layer.weight.grad = torch.ones_like(layer.weight)
    optimizer.step()
    assert layer.weight.device.type == "meta"


def test_draws_do_not_depend_on_the_default_dtype():
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).float()
            init_batchnorm_(model, generator=torch.Generator().manual_seed(0))
            found.append((model[1].weight.detach(), random_entries_per_channel(model, 2)["0.weight"]))
        finally:
            torch.set_default_dtype(torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_masked_gradients_are_zero_in_the_norm():
    model = network()
    masks = random_entries_per_channel(model, 2)
    optimizer = torch.optim.SGD(freeze_except(model, [*masks]), 0.1)
    UpdateMask(model, masks).attach(optimizer)
    step(model, optimizer, steps=1)
    assert all((p.grad[~masks[name]] == 0).all() for name, p in model.named_parameters() if name in masks)


def test_a_step_with_a_closure_is_masked_too():
    layer = nn.Linear(4, 3)
    mask = {"weight": torch.eye(3, 4, dtype=torch.bool)}
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9)
    UpdateMask(layer, mask).attach(optimizer)
    before = layer.weight.detach().clone()

    def closure():
        optimizer.zero_grad()
        loss = layer(torch.ones(2, 4)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert torch.equal(layer.weight.detach() != before, mask["weight"])


def test_entries_per_channel_match_batchnorm_and_spread_uniformly():
    model = network()
    masks = random_entries_per_channel(model, 2)
    assert sum(int(m.sum()) for m in masks.values()) == sum(2 * len(a.gamma) for a in batchnorm_affine(model).values())
    assert all((m.flatten(1).sum(1) == 2).all() for m in masks.values())
    conv = nn.Conv2d(3, 4000, 2, bias=False)
    counts = random_entries_per_channel(conv, 3)["weight"].flatten(1).sum(0).double()
    p = 3 / 12
    # Each of 12 columns is Binomial(4000, 1/4), their sum fixed: z² has 11 degrees of freedom after the factor 11/12.
    assert float(((counts - 4000 * p) ** 2 / (4000 * p * (1 - p))).sum() * 11 / 12) < 31.3  # the 0.1 % point
    left = random_entries_per_channel(model, 2, exclude=[*model.shortcuts, model.conv])
    assert not any("shortcut" in name or name == "conv.weight" for name in left)
    assert torch.equal(
        random_entries_per_channel(conv, 3, seed=5)["weight"], random_entries_per_channel(conv, 3, seed=5)["weight"]
    )


def test_entries_of_all_parameters_together_have_the_count_asked_for():
    model = network()
    masks = random_entries(model, 100)
    assert sum(int(m.sum()) for m in masks.values()) == 100
    assert {n: m.shape for n, m in masks.items()} == {n: p.shape for n, p in model.named_parameters()}
    only = random_entries(model, 7, output_layer(model), seed=2)
    assert set(only) == {"fc.weight", "fc.bias"}
    assert sum(int(m.sum()) for m in only.values()) == 7


def test_scales_are_drawn_in_their_interval_and_shifts_set():
    model = network()
    init_batchnorm_(model, -1, 1, generator=torch.Generator().manual_seed(0))
    gammas = torch.cat([a.gamma for a in batchnorm_affine(model).values()])
    assert (gammas < 0).any()
    assert gammas.abs().max() <= 1
    init_batchnorm_(model, generator=torch.Generator().manual_seed(0))
    gammas = torch.cat([a.gamma for a in batchnorm_affine(model).values()])
    assert 0 <= gammas.min() <= gammas.max() < 1
    init_batchnorm_(model, 1, 1, 1)
    assert all((a.gamma == 1).all() and (a.beta == 1).all() for a in batchnorm_affine(model).values())


def test_copies_of_scales_do_not_follow_the_network():
    model = network()
    affine = batchnorm_affine(model)
    model.bn.weight.data.zero_()
    assert (affine["bn"].gamma != 0).any()


class FrozenBatchNorm2d(nn.Module):
    """As torchvision's: buffers in place of parameters."""


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Linear(2, 2), "no BatchNorm"),
        (nn.Sequential(nn.BatchNorm1d(2, affine=False)), "affine=True"),
        (nn.Sequential(nn.BatchNorm1d(2), FrozenBatchNorm2d()), "FrozenBatchNorm2d"),
        (nn.Sequential(nn.LazyBatchNorm1d()), "initialised"),
    ],
    ids=["none", "not-affine", "frozen-class", "lazy"],
)
def test_networks_without_trainable_scales_are_refused_by_name(model, message):
    with pytest.raises(ValueError, match=message):
        batchnorm_layers(model)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: UpdateMask(m, {"nope": torch.ones(1, dtype=torch.bool)}), "nope"),
        (lambda m: UpdateMask(m, {"fc.bias": torch.ones(3, dtype=torch.bool)}), "shape"),
        (lambda m: UpdateMask(m, {"fc.bias": torch.zeros(10, dtype=torch.bool)}), "no entry"),
        (
            lambda m: UpdateMask(m, {"fc.bias": torch.ones(10, dtype=torch.bool)}).attach(
                torch.optim.SGD([m.fc.weight], 0.1)
            ),
            "does not train",
        ),
        (lambda m: random_entries_per_channel(m, 1000), "entries per output channel"),
        (lambda m: random_entries_per_channel(nn.Linear(2, 2)), "no convolution"),
        (lambda m: random_entries(m, 0), "asked for"),
        (lambda m: output_layer(nn.Conv2d(1, 1, 1)), "output layer"),
        (lambda m: init_batchnorm_(m, 1, 0), "low ≤ high"),
    ],
    ids=["name", "shape", "empty", "optimizer", "too-many", "no-conv", "none", "no-linear", "interval"],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(network())
