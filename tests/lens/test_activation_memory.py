"""The meter of what autograd holds."""

import pytest
import torch
from torch import nn

from tangrams.lens import ActivationMemoryMeter


def test_a_storage_counts_once_however_often_it_is_saved():
    x = torch.randn(10, 4, requires_grad=True)
    with ActivationMemoryMeter() as meter:
        y = (x * x).sum() + (x[:3] ** 2).sum() + x.t().square().sum()
        assert meter.held_bytes == 160
        y.backward()
    assert (meter.held_bytes, meter.peak_bytes) == (0, 160)


def test_saved_outputs_are_freed_with_their_graph():
    x = torch.randn(10, 4, requires_grad=True)
    with ActivationMemoryMeter() as meter:
        y = x.exp()  # saves its own result
        assert meter.held_bytes == 160
        del y
        assert meter.held_bytes == 0


def test_the_peak_is_of_what_is_held_together():
    a, b = torch.randn(100, requires_grad=True), torch.randn(50, requires_grad=True)
    with ActivationMemoryMeter() as meter:
        (a * a).sum().backward()
        (b * b).sum().backward()
    assert meter.peak_bytes == 400


def test_parameters_are_left_out_and_a_network_of_layers_adds_up():
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4), nn.Tanh())
    x = torch.randn(5, 8)
    with ActivationMemoryMeter(exclude=model.parameters()) as meter:
        model(x).sum().backward()
    assert meter.peak_bytes == 4 * 5 * (8 + 16 + 4)


def test_gradients_are_unchanged_and_hooks_end_with_the_block():
    x = torch.randn(6, requires_grad=True)
    (expected,) = torch.autograd.grad(x.sin().exp().sum(), x)
    with ActivationMemoryMeter() as meter:
        (found,) = torch.autograd.grad(x.sin().exp().sum(), x)
    assert torch.equal(found, expected)
    peak = meter.peak_bytes
    x.exp().exp().exp().sum().backward()
    assert meter.peak_bytes == peak
    with pytest.raises(KeyError), ActivationMemoryMeter():
        raise KeyError
    assert x.exp().grad_fn._saved_result is not None


def test_a_saved_tensor_that_was_changed_is_still_an_error():
    x = torch.randn(6, requires_grad=True)
    with ActivationMemoryMeter():
        y = x + 0
        z = y.sin().sum()
        y.add_(1)
        with pytest.raises(RuntimeError, match="in place"):
            z.backward()
