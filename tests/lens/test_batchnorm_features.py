"""Diagnostics of switched-off channels, on networks made by hand."""

import pytest
import torch
from torch import nn

from tangrams.lens import dead_channels, gamma_statistics, small_gammas_zeroed, zero_fractions
from tangrams.models import CifarResNet


def by_hand():
    """One channel always on, one always off, one on for positive inputs."""
    model = nn.Sequential(nn.Linear(1, 3, bias=False), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.ones(3, 1))
        model[1].weight.copy_(torch.tensor([0.001, -0.5, 1.0]))
        model[1].bias.copy_(torch.tensor([5.0, -50.0, 0.0]))
    return model


def test_scales_near_zero_are_counted_by_absolute_value():
    found = gamma_statistics(by_hand(), 0.01, bins=4)
    assert list(found) == ["1"]
    assert found["1"].near_zero == pytest.approx(1 / 3)
    assert found["1"].counts.tolist() == [1, 0, 1, 1]
    assert found["1"].edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    model = CifarResNet(8, 4)
    assert all(int(s.counts.sum()) == len(model.get_submodule(n).weight) for n, s in gamma_statistics(model).items())


def test_scales_that_are_all_zero_have_a_histogram():
    norm = nn.BatchNorm1d(3)
    nn.init.zeros_(norm.weight)
    assert gamma_statistics(norm)[""].near_zero == 1
    assert int(gamma_statistics(norm)[""].counts[0]) == 3


def test_zeros_are_counted_over_samples_and_batches():
    batches = [torch.tensor([[1.0], [2.0], [-1.0]]), torch.tensor([[-3.0]])]
    shares = zero_fractions(by_hand(), batches)
    torch.testing.assert_close(shares["2"], torch.tensor([0, 1, 0.5], dtype=torch.float64))
    assert dead_channels(by_hand(), batches)["2"].tolist() == [False, True, False]
    assert dead_channels(by_hand(), batches, 0.4)["2"].tolist() == [False, True, True]


def test_positions_of_images_count_and_repeated_calls_have_names_of_their_own():
    relu = nn.ReLU()
    model = nn.Sequential(relu, nn.Conv2d(2, 2, 1), relu)
    x = torch.tensor([[[[1.0, -1.0], [-1.0, -1.0]], [[1.0, 1.0], [1.0, -1.0]]]])
    shares = zero_fractions(model, [x, x])
    assert list(shares) == ["0", "0#2"]
    assert shares["0"].tolist() == [0.75, 0.25]


def test_the_network_is_left_as_it_was():
    model = CifarResNet(8, 2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    zero_fractions(model, [torch.randn(4, 3, 8, 8)])
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(RuntimeError):
        zero_fractions(model, [torch.randn(4, 2, 8, 8)])
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_small_scales_are_zero_in_the_block_and_come_back_after_an_exception():
    model = by_hand()
    gamma = model[1].weight.detach().clone()

    def fails():
        with small_gammas_zeroed(model, 0.6) as count:
            assert count == 2
            assert model[1].weight.tolist() == [0, 0, 1]
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert torch.equal(model[1].weight, gamma)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: zero_fractions(nn.Linear(2, 2), [torch.zeros(1, 2)]), "nn.ReLU"),
        (lambda: zero_fractions(nn.Sequential(nn.ReLU()), []), "samples"),
        (lambda: gamma_statistics(nn.ReLU()), "no BatchNorm"),
        (lambda: gamma_statistics(nn.BatchNorm1d(2), -1), "threshold"),
        (lambda: small_gammas_zeroed(nn.BatchNorm1d(2), float("nan")).__enter__(), "threshold"),
    ],
    ids=["no-relu", "no-samples", "no-norm", "negative", "nan"],
)
def test_impossible_questions_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
