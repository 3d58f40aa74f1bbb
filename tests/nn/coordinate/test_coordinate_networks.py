"""Coordinate networks: their formulas, their start, and Fourier reparametrisation."""

import math

import pytest
import torch
from torch import nn

from tangrams.nn import (
    FINER,
    SIREN,
    WIRE,
    WIREFINER,
    FourierReparamLinear,
    Gauss,
    GaussFINER,
    PositionalEncodingMLP,
)
from tangrams.nn.coordinate.positional_encoding import octaves_of
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(activation, encode=lambda module, x: x):
    def forward(module, x):
        y = encode(module, x)
        for layer in module.layers[:-1]:
            y = activation(module, y @ layer.weight.T + layer.bias)
        return y @ module.layers[-1].weight.T + module.layers[-1].bias

    return forward


def octaves(module, x):
    columns = [x[:, i : i + 1] for i in range(x.shape[1])]
    rows = [torch.cat([f(math.pi * 2**k * c) for c in columns for k in range(2)], 1) for f in (torch.sin, torch.cos)]
    return torch.cat([x, *rows], 1)


def finer(z, omega):
    return torch.sin(omega * (abs(z) + 1) * z)


def reparam():
    return FourierReparamLinear(4, 3, high=2, low=3, phases=4, alpha=0.05, generator=seeded())


TestCoordinateNetworks = conformance(
    ModuleSuite,
    Case(
        lambda: SIREN(2, 4, 2, 3, omega=5.0, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: torch.sin(5 * z)),
    ),
    Case(
        lambda: FINER(2, 4, 2, 3, omega=3.0, first_bias=2.0, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: finer(z, 3)),
    ),
    Case(
        lambda: Gauss(2, 4, 2, 3, scale=1.5, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: torch.exp(-2.25 * z**2)),
    ),
    Case(
        lambda: WIRE(2, 4, 2, 3, omega=3.0, scale=1.5, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: torch.cos(3 * z) * torch.exp(-2.25 * z**2)),
    ),
    Case(
        lambda: GaussFINER(2, 4, 2, 3, omega=2.0, scale=1.5, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: torch.exp(-2.25 * finer(z, 2) ** 2)),
    ),
    Case(
        lambda: WIREFINER(2, 4, 2, 3, omega=2.0, wave=3.0, scale=1.5, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: torch.cos(3 * finer(z, 2)) * torch.exp(-2.25 * finer(z, 2) ** 2)),
    ),
    Case(
        lambda: PositionalEncodingMLP(2, 4, 2, 3, num_frequencies=2, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: z.clamp_min(0), octaves),
    ),
    Case(
        lambda: PositionalEncodingMLP(2, 4, 2, num_frequencies=0, generator=seeded()),
        inputs=normal(2),
        reference=by_hand(lambda m, z: z.clamp_min(0)),
        name="ReLU",
    ),
    Case(reparam, inputs=normal(4), reference=lambda m, x: x @ (m.coefficients @ m.bases).T + m.bias),
)


@pytest.mark.parametrize("omega", [10.0, 30.0])
def test_arguments_of_sines_keep_their_variance_from_layer_to_layer(omega):
    # Sitzmann et al.: sin of an argument of variance ≥ 1 is arcsine-like with variance 1/2, so that the next argument
    # has variance ω² · d · (6/d/ω²)/3 · 1/2 = 1.
    net = SIREN(1, 512, 4, omega=omega, generator=seeded(1))
    y = torch.rand(4000, 1, generator=seeded(2)) * 2 - 1
    variances = []
    for layer in net.layers[:-1]:
        z = omega * (layer(y) - layer.bias)
        variances.append(float(z.detach().var()))
        y = torch.sin(omega * layer(y))
    assert all(0.85 < v < 1.15 for v in variances[1:])


def test_starts_have_the_bounds_of_their_papers():
    d, omega = 64, 30.0
    net = FINER(2, d, 3, omega=omega, first_bias=5.0, generator=seeded())
    bounds = [0.5, math.sqrt(6 / d) / omega, math.sqrt(6 / d) / omega, math.sqrt(6 / d) / omega]
    for layer, bound in zip(net.layers, bounds, strict=True):
        assert 0.9 * bound < float(layer.weight.detach().abs().max()) <= bound
    assert 4 < float(net.layers[0].bias.detach().abs().max()) <= 5
    assert float(net.layers[1].bias.detach().abs().max()) <= 1 / math.sqrt(d)
    plain = FINER(2, d, 1, generator=seeded())
    assert float(plain.layers[0].bias.detach().abs().max()) <= 1 / math.sqrt(2)
    wire = WIREFINER(2, d, 2, omega=5.0, wave=4.0, generator=seeded())
    assert float(wire.layers[1].weight.detach().abs().max()) <= math.sqrt(6 / d) / 20
    relu = PositionalEncodingMLP(2, d, 2, generator=seeded())
    assert 0.9 * math.sqrt(6 / d) < float(relu.layers[-1].weight.detach().abs().max()) <= math.sqrt(6 / d)


@pytest.mark.parametrize("cls", [SIREN, FINER, WIRE, Gauss, GaussFINER, WIREFINER, PositionalEncodingMLP])
def test_the_generator_fixes_the_start(cls):
    one, two, other = (cls(2, 8, 2, generator=seeded(s)).layers[1].weight for s in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_waves_are_cosines_over_one_longest_period():
    layer = FourierReparamLinear(5, 3, high=2, low=2, phases=3, alpha=0.1)
    points = torch.linspace(-2 * math.pi, 2 * math.pi, 5)  # the longest period, of frequency 1/2
    rows = [0.1 * torch.cos(w * points + 2 * math.pi * k / 3) for w in (0.5, 1.0, 1.0, 2.0) for k in range(3)]
    torch.testing.assert_close(layer.bases, torch.stack(rows), rtol=1e-6, atol=1e-7)


def test_coefficients_start_within_their_waves_bounds_and_the_bias_at_zero():
    layer = FourierReparamLinear(64, 400, high=4, low=4, phases=8, omega=30.0, generator=seeded())
    bound = math.sqrt(6 / 64) / (layer.bases.norm(dim=1) * 30)
    largest = layer.coefficients.detach().abs().amax(0)
    assert (largest <= bound).all()
    assert (largest > 0.9 * bound).all()
    assert (layer.bias == 0).all()


def test_a_hidden_layer_may_be_replaced():
    net = SIREN(2, 16, 2, generator=seeded())
    net.layers[1] = FourierReparamLinear(16, 16, high=4, low=4, phases=2, omega=30.0)
    start = net.layers[1].coefficients.detach().clone()
    net.reset_parameters(seeded(3))  # only of linear layers
    assert torch.equal(net.layers[1].coefficients, start)
    bases = net.layers[1].bases.clone()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    net(torch.rand(5, 2)).square().sum().backward()
    optimizer.step()
    assert torch.equal(net.layers[1].bases, bases)
    assert not torch.equal(net.layers[1].coefficients, start)


def test_positions_may_have_any_leading_dimensions():
    net = PositionalEncodingMLP(2, 8, 2, 3, num_frequencies=3)
    x = torch.rand(4, 5, 2)
    torch.testing.assert_close(net(x), net(x.reshape(-1, 2)).reshape(4, 5, 3))
    assert [octaves_of(n) for n in (4, 64, 256, 511)] == [0, 4, 6, 6]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SIREN(0), "sizes"),
        (lambda: SIREN(2, 4, 0), "sizes"),
        (lambda: SIREN(2, omega=0.0), "omega > 0"),
        (lambda: Gauss(2, scale=-1.0), "scale > 0"),
        (lambda: WIRE(2, omega=math.nan), "omega > 0"),
        (lambda: PositionalEncodingMLP(2, num_frequencies=-1), "num_frequencies"),
        (lambda: FourierReparamLinear(4, 4, high=0, low=0), "frequency"),
        (lambda: FourierReparamLinear(4, 4, alpha=0.0), "alpha"),
        (lambda: octaves_of(3), "at least 4"),
    ],
    ids=["no-input", "no-hidden", "omega", "scale", "nan", "frequencies", "no-waves", "alpha", "samples"],
)
def test_impossible_settings_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_network_fits_a_small_image_better_with_sines_than_without():
    x = torch.cartesian_prod(torch.linspace(-1, 1, 12), torch.linspace(-1, 1, 12))
    y = torch.sin(12 * x[:, :1]) * torch.sin(9 * x[:, 1:])
    errors = []
    for net in (
        SIREN(2, 32, 2, generator=seeded()),
        PositionalEncodingMLP(2, 32, 2, num_frequencies=0, generator=seeded()),
    ):
        optimizer = torch.optim.Adam(net.parameters(), 1e-3)
        for _ in range(150):
            loss = nn.functional.mse_loss(net(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[0] < 0.3 * errors[1]
