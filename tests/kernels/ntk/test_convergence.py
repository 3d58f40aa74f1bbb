"""Random networks of finite width approach the analytic kernels at the rate of one over the root of the width."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tangrams.kernels import AnalyticNTK
from tangrams.kernels.ntk import (
    AvgPool,
    Conv,
    Dense,
    Erf,
    Flatten,
    GlobalAvgPool,
    Identity,
    ParallelProduct,
    ParallelSum,
    ReLU,
    Serial,
)
from tangrams.nn import NTKConv2d, NTKLinear


class ErfModule(nn.Module):
    def forward(self, x):
        return torch.erf(x)


class Residual(nn.Module):
    def __init__(self, *main):
        super().__init__()
        self.main = nn.Sequential(*main)

    def forward(self, x):
        return x + self.main(x)


class Product(nn.Module):
    def __init__(self, *branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        out = self.branches[0](x)
        for branch in list(self.branches)[1:]:
            out = out * branch(x)
        return out


VECTORS = (6, 5)
IMAGES = (4, 2, 4, 4)


def fully_connected(width, generator):
    def dense(*sizes):
        return NTKLinear(*sizes, 1.4, 0.2, generator=generator, dtype=torch.float64)

    return nn.Sequential(dense(5, width), nn.ReLU(), dense(width, width), nn.ReLU(), dense(width, 1))


def residual(width, generator):
    def dense(*sizes):
        return NTKLinear(*sizes, 1.2, 0.1, generator=generator, dtype=torch.float64)

    block = Residual(nn.ReLU(), dense(width, width), ErfModule(), dense(width, width))
    return nn.Sequential(dense(5, width), block, nn.ReLU(), dense(width, 1))


def product(width, generator):
    def dense(*sizes):
        return NTKLinear(*sizes, 1.2, 0.3, generator=generator, dtype=torch.float64)

    branches = Product(nn.Sequential(dense(5, width), nn.ReLU()), nn.Sequential(dense(5, width), ErfModule()))
    return nn.Sequential(branches, dense(width, 1))


def convolutional(width, generator):
    def conv(*sizes):
        return NTKConv2d(*sizes, 3, 1.4, 0.1, generator=generator, dtype=torch.float64)

    readout = NTKLinear(width, 1, 1.0, 0.0, generator=generator, dtype=torch.float64)
    return nn.Sequential(
        conv(2, width),
        nn.ReLU(),
        nn.AvgPool2d(2),
        conv(width, width),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        readout,
    )


def strided(width, generator):
    options = {"generator": generator, "dtype": torch.float64}
    return nn.Sequential(
        NTKConv2d(2, width, 3, 1.4, 0.1, stride=2, padding=1, **options),
        nn.ReLU(),
        NTKConv2d(width, width, 2, 1.2, 0.0, padding="valid", **options),
        nn.Flatten(),
        NTKLinear(width, 1, 1.1, 0.3, **options),
    )


def empirical(model, x):
    """J Jᵀ of one output, a backward pass per sample."""
    rows = []
    for sample in x:
        gradients = torch.autograd.grad(model(sample[None]).squeeze(), list(model.parameters()))
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    J = torch.stack(rows)
    return J @ J.T


CASES = {
    "fully connected": (
        fully_connected,
        Serial(Dense(1.4, 0.2), ReLU(), Dense(1.4, 0.2), ReLU(), Dense(1.4, 0.2)),
        VECTORS,
    ),
    "residual": (
        residual,
        Serial(
            Dense(1.2, 0.1),
            ParallelSum(Identity(), Serial(ReLU(), Dense(1.2, 0.1), Erf(), Dense(1.2, 0.1))),
            ReLU(),
            Dense(1.2, 0.1),
        ),
        VECTORS,
    ),
    "product": (
        product,
        Serial(
            ParallelProduct(Serial(Dense(1.2, 0.3), ReLU()), Serial(Dense(1.2, 0.3), Erf())),
            Dense(1.2, 0.3),
        ),
        VECTORS,
    ),
    "convolutional": (
        convolutional,
        Serial(Conv(3, 1.4, 0.1), ReLU(), AvgPool(2), Conv(3, 1.4, 0.1), ReLU(), GlobalAvgPool(), Dense()),
        IMAGES,
    ),
    "strided": (
        strided,
        Serial(
            Conv(3, 1.4, 0.1, stride=2, padding=1),
            ReLU(),
            Conv(2, 1.2, 0.0, padding="valid"),
            Flatten(),
            Dense(1.1, 0.3),
        ),
        IMAGES,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_empirical_kernel_converges_at_the_rate_of_the_root_of_the_width(case):
    build, net, shape = CASES[case]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = AnalyticNTK(net).gram(x)
    widths, seeds = (16, 64, 256), 12
    errors = []
    for width in widths:
        found = []
        for seed in range(seeds):
            gram = empirical(build(width, torch.Generator().manual_seed(seed)), x)
            found.append(float((gram - exact).norm() / exact.norm()))
        errors.append(math.sqrt(np.mean(np.square(found))))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert errors[-1] < 0.2
    assert -0.7 < slope < -0.3, (slope, errors)


def test_the_mean_over_seeds_is_unbiased_to_the_noise_of_the_mean():
    build, net, shape = CASES["fully connected"]
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = AnalyticNTK(net).gram(x)
    grams = torch.stack([empirical(build(512, torch.Generator().manual_seed(seed)), x) for seed in range(30)])
    z = (grams.mean(0) - exact) / (grams.std(0) / math.sqrt(30))
    # Finite width biases the mean by O(1/512), well below its noise of O(1/√(512 · 30)); entries are correlated.
    assert float(z.abs().max()) < 4.5
