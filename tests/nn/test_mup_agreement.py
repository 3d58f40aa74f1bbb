"""The maximal update parametrization against microsoft's mup, by frozen trainings (see ``make_mup.py``)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tangrams.nn.parametrizations import MaximalUpdate, Spectral

FROZEN = dict(np.load(Path(__file__).with_name("mup.npz")))


def build(width):
    return nn.Sequential(
        nn.Linear(5, width),
        nn.LayerNorm(width),
        nn.Tanh(),
        nn.Linear(width, 2 * width),
        nn.Tanh(),
        nn.Linear(2 * width, 3),
    ).double()


def trained(rule, name):
    model = build(32)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(FROZEN[f"initial/{key}"]))
    plan = rule.apply(model, build(8))
    optimiser = {
        "sgd": lambda: torch.optim.SGD(plan.sgd(0.1, weight_decay=0.05)),
        "adam": lambda: torch.optim.Adam(plan.adam(0.01, weight_decay=0.05)),
        "adamw": lambda: torch.optim.AdamW(plan.adam(0.01, weight_decay=0.05)),
    }[name]()
    x, y = (torch.from_numpy(FROZEN[key]) for key in ("x", "y"))
    outputs = []
    for _ in range(6):
        optimiser.zero_grad()
        f = model(x)
        outputs.append(f.detach())
        ((f - y) ** 2).mean().backward()
        optimiser.step()
    return torch.stack(outputs)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_training_is_that_of_mup(name):
    torch.testing.assert_close(trained(MaximalUpdate(), name), torch.from_numpy(FROZEN[name]), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_spectral_rule_trains_as_mup_does_without_its_multiplier(name):
    """To the rounding of SGD, and to Adam's ε, which a gradient four times as small feels more."""
    tolerance = 1e-9 if name == "sgd" else 1e-4
    torch.testing.assert_close(
        trained(Spectral(), name), torch.from_numpy(FROZEN[name]), rtol=tolerance, atol=tolerance
    )
