"""The same choices and the same kernels as bmdal-reg, on its frozen answers and, where it is installed, beside it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from tangrams.features import TangentFeatures
from tangrams.kernels import (
    FeatureKernel,
    FullyConnectedNNGP,
    FullyConnectedNTK,
    LaplaceKernel,
    PosteriorKernel,
    ProductKernel,
)
from tangrams.learners import (
    BAIT,
    ACSHyperRandomFeatures,
    ACSRandomFeatures,
    FrankWolfe,
    LargestClusterMaxDistance,
    MaxDeterminant,
    MaxDiagonal,
    MaxDistance,
    PosteriorFeatures,
    UnitDiagonal,
)
from tangrams.nn import NTKLinear

FROZEN = np.load(Path(__file__).with_name("bmdal_reg.npz"))
POOL, TRAIN = (torch.from_numpy(FROZEN[name]).double() for name in ("pool", "train"))
OURS = {
    "maxdiag": lambda b: MaxDiagonal(b),
    "maxdet": lambda b: MaxDeterminant(b, noise=0.1),
    "maxdet_features": lambda b: MaxDeterminant(b, noise=0.1),
    "bait_f": lambda b: BAIT(b, noise=0.1),
    "bait_fb": lambda b: BAIT(b, noise=0.1, overselection=2.0),
    "frank_wolfe": FrankWolfe,
    "frank_wolfe_kernel": FrankWolfe,
    "maxdist": MaxDistance,
    "lcmd": LargestClusterMaxDistance,
}


class Inner:
    """Inner products, for the kernel routes."""

    def gram(self, x, y=None):
        return x @ (x if y is None else y).mT

    def diag(self, x):
        return x.square().sum(1)


def choose(name, mode, batch_size, pool, train, kernel=None):
    selector = OURS[name](batch_size).set_params(kernel=kernel)
    given = {"labelled": train} if mode == "TP" else {"reference": train} if name.startswith("bait") else {}
    chosen = selector.fit(pool, **given).indices_
    assert selector.status_ is None
    return chosen[::-1] if name == "maxdiag" else chosen  # theirs lists the largest last


@pytest.mark.parametrize("mode", ["P", "TP"])
@pytest.mark.parametrize("name", sorted(OURS))
def test_deterministic_selections_are_those_of_bmdal_reg(name, mode):
    expected = FROZEN[f"select_{name}_{mode}"]
    np.testing.assert_array_equal(choose(name, mode, len(expected), POOL, TRAIN), expected)


@pytest.mark.parametrize("mode", ["P", "TP"])
@pytest.mark.parametrize("name", sorted(OURS))
def test_kernels_choose_what_features_choose(name, mode):
    expected = FROZEN[f"select_{name}_{mode}"]
    np.testing.assert_array_equal(choose(name, mode, len(expected), POOL, TRAIN, kernel=Inner()), expected)


def agrees(ours, name):
    ours = ours.detach().numpy() if isinstance(ours, torch.Tensor) else ours
    theirs = FROZEN[f"kernel_{name}"]
    np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=1e-7, atol=1e-9)


def test_base_kernels_agree():
    agrees(LaplaceKernel(1 / 0.7).double().gram(POOL, TRAIN), "laplace")
    agrees(FullyConnectedNNGP(3, W_std=0.8**0.5, b_std=0.1**0.5).gram(POOL, TRAIN), "nngp")
    agrees(FullyConnectedNTK(3, W_std=0.8**0.5, b_std=0.1**0.5).gram(POOL, TRAIN), "ntk")


def test_gradient_kernels_agree():
    network = torch.nn.Sequential(NTKLinear(12, 9, 0.2, 0.2), torch.nn.ReLU(), NTKLinear(9, 1, 0.2, 0.2)).double()
    with torch.no_grad():
        for layer, i in ((network[0], 0), (network[2], 1)):
            layer.weight.copy_(torch.from_numpy(FROZEN[f"weight_{i}_0"]).mT)
            layer.bias.copy_(torch.from_numpy(FROZEN[f"weight_{i}_1"]))
    agrees(FeatureKernel(TangentFeatures(network)).gram(POOL[:30], TRAIN), "grad")
    agrees(FeatureKernel(TangentFeatures(network, params=[network[2]])).gram(POOL[:30], TRAIN), "last")


def test_scaling_and_posterior_agree():
    agrees((UnitDiagonal().fit(TRAIN).transform(POOL) ** 2).sum(1), "scale")
    posterior = PosteriorFeatures(0.3).fit(TRAIN)
    agrees(posterior.transform(POOL) @ posterior.transform(TRAIN).T, "posterior")


def test_the_product_with_the_posterior_agrees_but_for_its_scale():
    linear = FeatureKernel(TangentFeatures(torch.nn.Linear(12, 1, bias=False).double()))
    exact = ProductKernel(linear, PosteriorKernel(linear, TRAIN, noise=0.3)).gram(POOL, TRAIN) / 0.3**4
    agrees(exact / 0.3**4, "acs_grad")  # theirs scales the features, not the kernel, by σ⁻⁴


def test_random_likelihood_features_agree_but_for_two_slips():
    theta = torch.from_numpy(FROZEN["kernel_acs_rf_theta"])
    model = ACSRandomFeatures(5, noise=0.3).fit(TRAIN)
    model.theta_ = 0.3 * theta.numpy()
    covariance = torch.linalg.inv(TRAIN.mT @ TRAIN + 0.09 * torch.eye(12, dtype=torch.float64))
    s = 0.09 * ((POOL @ covariance) * POOL).sum(1, keepdim=True)
    ours = (0.5 * torch.log1p(s / 0.09) - ((POOL @ theta * 0.3) ** 2 + s) / (2 * 0.09)) / math.sqrt(5)
    np.testing.assert_allclose(model.transform(POOL), ours.numpy(), rtol=1e-9, atol=1e-10)
    # Theirs leaves σ² out of s and of the covariance of θ, and divides by the root of the input dimension.
    theirs = (0.5 * torch.log1p(s / 0.09**2) - ((POOL @ theta) ** 2 + s / 0.09) / (2 * 0.09)) / math.sqrt(12)
    agrees(theirs, "acs_rf")


def test_random_likelihood_features_with_learned_noise_agree_but_for_one_slip():
    model = ACSHyperRandomFeatures(5).fit(TRAIN, (TRAIN.sum(1) / 3).numpy())
    model.theta_ = FROZEN["kernel_acs_hyper_theta"]
    agrees(model.transform(POOL) * math.sqrt(5 / 12), "acs_hyper")


@pytest.mark.peers
@pytest.mark.parametrize("seed", range(3))
def test_selections_beside_bmdal_reg(seed, monkeypatch):
    pytest.importorskip("bmdal_reg")
    monkeypatch.syspath_prepend(Path(__file__).parent)
    from bmdal_reg_peer import selections

    generator = torch.Generator().manual_seed(seed)
    pool, train = (torch.randn(n, 20, generator=generator, dtype=torch.float64) for n in (900, 50))
    for name, expected in selections(pool, train, 80).items():
        method, _, mode = name.rpartition("_")
        np.testing.assert_array_equal(choose(method, mode, 80, pool, train), expected, err_msg=name)
