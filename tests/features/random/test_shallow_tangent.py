"""Tangent features of the first layer of a random two-layer network."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tangrams.features import RandomFeatures, ShallowTangentFeatures, TangentFeatures
from tangrams.features.random import ActivationError, shallow_tangent
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.feature_map import FeatureMapSuite


def half_square(u):
    return u.square() / 2


SMOOTH = [torch.tanh, torch.cos, F.softplus, half_square]
EACH = pytest.mark.parametrize("activation", SMOOTH, ids=lambda f: f.__name__)


def samples(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_hand(phi, x):
    x = x.flatten(1)
    W = phi.weights(0, phi.num_units, x)
    u = (x @ W.mT).requires_grad_()
    (slope,) = torch.autograd.grad(phi.activation(u).sum(), u)
    rows = [torch.cat([s * row for s in slopes]) for slopes, row in zip(slope, x, strict=True)]
    found = torch.stack(rows) if rows else x.new_empty(0, phi.num_features)
    return found / math.sqrt(phi.num_units * phi.in_features)


TestShallowTangent = conformance(
    FeatureMapSuite,
    Case(lambda: ShallowTangentFeatures(4, 7, torch.tanh, seed=1), normal(4), by_hand),
    Case(lambda: ShallowTangentFeatures(4, 300, torch.relu), normal(2, 2), by_hand, name="ShallowTangent-relu"),
)


@EACH
def test_they_are_the_tangent_features_of_the_network_with_signed_outputs(activation):
    d, k = 3, 6
    phi, x = ShallowTangentFeatures(d, k, activation), samples(5, d)
    signs = torch.tensor([1.0, -1.0] * (k // 2), dtype=torch.float64)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(d, k, bias=False).double()
            self.first.weight.data.copy_(phi.weights(0, k, x) * math.sqrt(d))

        def forward(self, x):
            return (activation(self.first(x) / math.sqrt(d)) * signs).sum(1, keepdim=True) / math.sqrt(k)

    tangent = TangentFeatures(Net(), "sum")
    unsigned = tangent(x).unflatten(1, (k, d)) * signs[:, None]
    torch.testing.assert_close(phi(x), unsigned.flatten(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi.gram(x), tangent.gram(x), rtol=1e-10, atol=1e-12)


def test_the_gram_never_forms_the_features(monkeypatch):
    phi, x, y = ShallowTangentFeatures(5, 600, torch.tanh), samples(6, 5), samples(4, 5, 1)
    expected, diagonal = phi(x) @ phi(y).mT, phi(x).square().sum(1)
    monkeypatch.setattr(ShallowTangentFeatures, "panel", lambda *_: pytest.fail("features were formed"))
    monkeypatch.setattr(shallow_tangent, "PANEL_BYTES", 1)
    torch.testing.assert_close(phi.gram(x, y), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi.diag(x), diagonal, rtol=1e-10, atol=1e-12)


@EACH
def test_derivatives_in_the_input_are_those_of_autograd(activation):
    phi, z, x = ShallowTangentFeatures(3, 300, activation), samples(4, 3), samples(5, 3, 1)
    theta = samples(1, 900)[0]
    jacobian = torch.autograd.functional.jacobian(lambda row: phi(row[None])[0], z[0])
    torch.testing.assert_close(phi.input_jacobian(z)[0], jacobian.mT, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(phi.input_vjp(z, theta), phi.input_jacobian(z) @ theta, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(phi.kernel_gradient(z, x), phi.input_jacobian(z) @ phi(x).mT, rtol=1e-9, atol=1e-12)


@EACH
def test_kernel_gradients_of_random_features_are_jacobian_times_features(activation):
    phi, z, x = RandomFeatures(3, 700, activation, bias_std=0.4), samples(4, 3), samples(5, 3, 1)
    torch.testing.assert_close(phi.kernel_gradient(z, x), phi.input_jacobian(z) @ phi(x).mT, rtol=1e-9, atol=1e-12)


def test_a_half_square_gives_features_that_are_quadratic_in_the_input():
    phi, z = ShallowTangentFeatures(4, 6, half_square), samples(3, 4)
    theta = samples(1, 24)[0]
    torch.testing.assert_close(phi(2 * z), 4 * phi(z))
    torch.testing.assert_close(phi.input_vjp(-3 * z, theta), -3 * phi.input_vjp(z, theta))


@pytest.mark.parametrize("activation", [torch.relu, torch.abs, F.leaky_relu, F.hardtanh], ids=lambda f: f.__name__)
def test_an_activation_whose_slope_jumps_has_no_gradient_in_the_input(activation):
    phi, z = ShallowTangentFeatures(3, 4, activation), samples(2, 3)
    assert phi(z).shape == (2, 12)
    for call in (lambda: phi.input_vjp(z, samples(1, 12)[0]), lambda: phi.input_jacobian(z)):
        with pytest.raises(ActivationError, match=f"ShallowTangentFeatures.*{activation.__name__} jumps"):
            call()


def test_features_are_differentiable_in_the_samples():
    assert torch.autograd.gradcheck(ShallowTangentFeatures(3, 4, torch.tanh), (samples(2, 3).requires_grad_(),))


def test_units_are_a_function_of_seed_and_number():
    x = samples(2, 3)
    wide, narrow = ShallowTangentFeatures(3, 40, torch.tanh, seed=4), ShallowTangentFeatures(3, 10, torch.tanh, seed=4)
    np.testing.assert_allclose(wide(x)[:, :30] * 2, narrow(x), rtol=1e-12)


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="ShallowTangentFeatures needs"):
        ShallowTangentFeatures(0, 3, torch.tanh)
