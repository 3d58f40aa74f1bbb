"""Polynomial networks, as modules and against their kernels at infinite width."""

import math

import pytest
import torch
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.kernels.ntk import CCPNTK, NCPNTK, ProductNTK, ReLU
from tangrams.kernels.ntk import Dense as WideDense
from tangrams.kernels.ntk import Serial as WideSerial
from tangrams.nn import CCP, NCP, NTKLinear, ProductBlock
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def ccp_by_hand(module, x):
    first, second, third = (f.weight.mT * f.W_std / math.sqrt(f.in_features) for f in module.factors)
    z = torch.tanh(x @ first)
    z = z * torch.tanh(x @ second) + z
    z = z * torch.tanh(x @ third) + z
    return z @ module.head.weight.mT / math.sqrt(z.shape[1]) + module.head.b_std * module.head.bias


def ncp_by_hand(module, x):
    first, second = (f.weight.mT * f.W_std / math.sqrt(f.in_features) for f in module.factors)
    mix = module.mixing[0]
    z = torch.tanh(x @ first)
    z = torch.tanh(x @ second) * (z @ mix.weight.mT / math.sqrt(z.shape[1]) + mix.b_std * mix.bias)
    return z @ module.head.weight.mT / math.sqrt(z.shape[1]) + module.head.b_std * module.head.bias


def make(kind, *args, **options):
    return kind(*args, generator=torch.Generator().manual_seed(0), **options).double()


def block():
    torch.manual_seed(0)
    return ProductBlock(nn.Linear(3, 4), nn.Sequential(nn.Linear(3, 4), nn.Tanh())).double()


TestPolynomialNetworks = conformance(
    ModuleSuite,
    Case(lambda: make(CCP, 3, 5, 2, 3, torch.tanh, W_std=1.2, b_std=0.3), inputs=normal(3), reference=ccp_by_hand),
    Case(lambda: make(NCP, 3, 5, 2, 2, torch.tanh, W_std=1.2, b_std=0.3), inputs=normal(3), reference=ncp_by_hand),
    Case(block, inputs=normal(3), reference=lambda m, x: m.branches[0](x) * m.branches[1](x)),
)


@pytest.mark.parametrize("kind", [CCP, NCP])
def test_without_an_activation_the_network_is_a_polynomial_of_its_degree(kind):
    network = make(kind, 2, 6, 1, 3)
    line = torch.linspace(-3, 3, 9, dtype=torch.float64)[:, None] * torch.tensor([[0.7, -0.4]], dtype=torch.float64)
    values = network(line)[:, 0].detach()
    assert values.diff(n=3).abs().max() > 1e-3
    assert values.diff(n=4).abs().max() < 1e-12


def empirical(make_network, x, seeds):
    grams = []
    for seed in range(seeds):
        network = make_network(torch.Generator().manual_seed(seed)).double()
        grams.append(TangentFeatures(network, "all").gram(x))
    return torch.stack(grams)


def relu_product(generator):
    width = 1024

    def branch():
        return nn.Sequential(NTKLinear(3, width, math.sqrt(2), 0.0, generator=generator), nn.ReLU())

    return nn.Sequential(ProductBlock(branch(), branch()), NTKLinear(width, 1, 1.0, 0.0, generator=generator))


RELU = WideSerial(WideDense(math.sqrt(2)), ReLU())
PAIRS = {
    "product": (relu_product, ProductNTK(RELU, RELU)),
    "ccp": (lambda g: CCP(3, 1024, 1, 3, b_std=0.4, generator=g), CCPNTK(3, b_std=0.4)),
    "ncp": (
        lambda g: NCP(3, 1024, 1, 2, torch.relu, W_std=math.sqrt(2), b_std=0.6, generator=g),
        NCPNTK(2, ReLU(), W_std=math.sqrt(2), b_std=0.6),
    ),
}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_the_mean_tangent_kernel_of_wide_networks_is_the_analytic_one(name):
    make_network, kernel = PAIRS[name]
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    x = math.sqrt(3) * x / x.norm(dim=1, keepdim=True)
    grams = empirical(make_network, x, 24)
    error = grams.std(0) / math.sqrt(len(grams))
    exact = kernel.gram(x)
    # A bias of order 1/m beside the statistical error: hidden units of a nested product depend on each other.
    assert ((grams.mean(0) - exact).abs() < 4 * error + 8 / 1024 * exact.abs().max()).all()
    assert error.max() < 0.05 * exact.abs().max()


def test_one_factor_is_an_ordinary_network():
    x = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ordinary = ProductNTK(RELU, WideDense(1.0)).gram(x)
    assert not torch.allclose(ordinary, NCPNTK(1, ReLU(), W_std=math.sqrt(2), b_std=0.0).gram(x))
    from tangrams.kernels import FullyConnectedNTK

    expected = FullyConnectedNTK(2, ReLU()).gram(x) / 2  # its readout has W_std = √2
    torch.testing.assert_close(NCPNTK(1, ReLU(), W_std=math.sqrt(2), b_std=0.0).gram(x), expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(CCPNTK(1).gram(x), 2 * x @ x.mT / 3, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [CCP, NCP])
def test_a_polynomial_needs_a_factor(kind):
    with pytest.raises(ValueError, match="degree"):
        kind(3, 4, 1, 0)


@pytest.mark.parametrize("kind", [CCPNTK, NCPNTK])
def test_a_polynomial_kernel_needs_a_factor(kind):
    with pytest.raises(ValueError, match="degree"):
        kind(0)


def test_branches_of_two_widths_are_refused():
    with pytest.raises(ValueError, match="one width"):
        ProductBlock(nn.Linear(3, 4), nn.Linear(3, 5))(torch.ones(2, 3))
    with pytest.raises(ValueError, match="two branches"):
        ProductBlock(nn.Linear(3, 4))


def test_an_offset_needs_centred_units():
    from tangrams.kernels.ntk import AnalyticNTK, Offset

    with pytest.raises(ValueError, match="mean zero"):
        AnalyticNTK(WideSerial(WideDense(), ReLU(), Offset(1.0), WideDense())).gram(torch.ones(2, 3))
