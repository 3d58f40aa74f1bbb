"""The training recipe: rates at every epoch."""

import pytest
import torch
from torch import nn

from tangrams.nn import CIFAR_RECIPE, IMAGENET_RECIPE, TrainingRecipe


def rates(recipe, steps_per_epoch, epochs):
    optimizer = recipe.optimizer(nn.Linear(2, 1).parameters())
    scheduler = recipe.scheduler(optimizer, steps_per_epoch)
    found = []
    for _ in range(steps_per_epoch * epochs):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return torch.tensor(found).reshape(epochs, steps_per_epoch)


def test_the_rate_falls_tenfold_at_epochs_80_and_120():
    lr = rates(CIFAR_RECIPE, 3, CIFAR_RECIPE.epochs)
    expected = torch.tensor([0.1] * 80 + [0.01] * 40 + [0.001] * 40)
    torch.testing.assert_close(lr, expected[:, None].expand(-1, 3))


def test_the_rate_rises_linearly_over_the_warm_up():
    lr = rates(IMAGENET_RECIPE, 4, 40)
    torch.testing.assert_close(lr.flatten()[:20], 0.4 * torch.arange(1, 21) / 20)
    torch.testing.assert_close(lr[5:30], torch.full((25, 4), 0.4))
    torch.testing.assert_close(lr[30:], torch.full((10, 4), 0.04))


def test_the_optimiser_has_the_recipes_settings():
    group = IMAGENET_RECIPE.optimizer(nn.Linear(2, 1).parameters()).param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.4, 0.9, 1e-4)


def test_no_steps_are_refused():
    recipe = TrainingRecipe(1, 1, 0.1, ())
    with pytest.raises(ValueError, match="at least one step"):
        recipe.scheduler(recipe.optimizer(nn.Linear(2, 1).parameters()), 0)
