"""The kernel at infinite width that the claim of [016] compares with."""

import math

import torch

from tangrams.claims.c016_inductive_gradient_adjustment import _CircleNetwork, _limit_kernel
from tangrams.features import TangentFeatures


def test_it_is_the_mean_of_the_empirical_kernels():
    angle = torch.tensor([0.0, 0.4, 1.3, 2.5, 3.0], dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    grams = torch.stack([TangentFeatures(_CircleNetwork(400, seed).double()).gram(x) for seed in range(60)])
    z = (grams.mean(0) - _limit_kernel(x)) / (grams.std(0) / math.sqrt(len(grams))).clamp_min(1e-12)
    assert float(z.abs().max()) < 4.5  # of 15 different entries
    torch.testing.assert_close(_limit_kernel(x).diagonal(), torch.full((5,), 0.5, dtype=torch.float64))
