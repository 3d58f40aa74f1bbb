"""The coordinate check tells parametrizations apart."""

import math

import pytest
import torch
from torch import nn

from tangrams.lens import coordinate_check
from tangrams.nn.parametrizations import MaximalUpdate, NeuralTangent, Standard

X = torch.randn(16, 8, generator=torch.Generator().manual_seed(0))
Y = torch.randn(16, 1, generator=torch.Generator().manual_seed(1))
WIDTHS = (64, 256, 1024)


def build(width):
    return nn.Sequential(nn.Linear(8, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1))


def training(rule, lr, optimiser=torch.optim.SGD, kind="sgd"):
    def train(width, seed):
        torch.manual_seed(seed)
        model = build(width)
        plan = rule.apply(model, build(WIDTHS[0]))
        stepper = optimiser(getattr(plan, kind)(lr))

        def step():
            stepper.zero_grad()
            (model(X) - Y).square().mean().backward()
            stepper.step()

        return model, step

    return train


@pytest.mark.parametrize(("optimiser", "kind", "lr"), [(torch.optim.SGD, "sgd", 0.1), (torch.optim.Adam, "adam", 0.01)])
def test_maximal_update_keeps_activations_and_their_changes_flat(optimiser, kind, lr):
    found = coordinate_check(training(MaximalUpdate(), lr, optimiser, kind), WIDTHS, X)
    assert found.layers == ("0", "2", "4", "output")
    for layer in ("0", "2"):
        assert abs(found.slope(layer)) < 0.1
        assert abs(found.change_slope(layer)) < 0.15
    assert abs(found.change_slope("output")) < 0.25


def test_the_lazy_parametrization_freezes_features_and_the_standard_one_blows_up():
    lazy = coordinate_check(training(NeuralTangent(), 0.1), WIDTHS, X)
    assert -0.7 < lazy.change_slope("2") < -0.3
    assert abs(lazy.change_slope("output")) < 0.25
    standard = coordinate_check(training(Standard(), 0.1, torch.optim.Adam, "adam"), WIDTHS, X, steps=1)
    assert standard.change_slope("2") > 0.6


def test_layers_that_are_held_in_eval_mode_stay_so():
    def train(width, seed):
        model = nn.Sequential(nn.Linear(8, width), nn.BatchNorm1d(width), nn.Linear(width, 1)).train()
        model[1].eval()

        def step():
            assert [module.training for module in model] == [True, False, True]

        return model, step

    coordinate_check(train, (2, 4), X, steps=1, seeds=1)


def test_sizes_are_means_of_absolute_activations_from_the_start():
    torch.manual_seed(0)
    model = build(64)

    def train(width, seed):
        return (model if width == 64 else build(width)), lambda: None

    found = coordinate_check(train, (64, 128), X, steps=1, seeds=1)
    assert found.size.shape == (1, 2, 2, 4)
    assert found.size[0, 0, 0, 0] == pytest.approx(float(model[0](X).detach().abs().mean()))
    assert not found.change.any()
    assert math.isnan(found.change_slope("0"))
    assert model.training


def test_one_width_and_different_layers_are_refused():
    with pytest.raises(ValueError, match="two or more widths"):
        coordinate_check(lambda width, seed: (build(width), lambda: None), (8,), X)
    with pytest.raises(ValueError, match="layers are"):
        coordinate_check(
            lambda width, seed: (build(width) if width == 8 else nn.Linear(8, width), lambda: None), (8, 16), X
        )
