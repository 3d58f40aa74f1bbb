"""How much predictions move with their inputs."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tangrams.features import PositiveRandomFeatures, RandomFeatures, ShallowTangentFeatures
from tangrams.lens import (
    MinNormFit,
    RankDeficientError,
    SensitivityParts,
    interaction_matrix,
    min_norm_fit,
    sensitivity,
    sensitivity_parts,
    universal_sensitivity,
)

D = 5
MAPS = {
    "random": lambda: RandomFeatures(D, 60, torch.tanh, seed=1),
    "tangent": lambda: ShallowTangentFeatures(D, 12, torch.cos, seed=1),
}
EACH = pytest.mark.parametrize("kind", sorted(MAPS))


def data(n=14, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(n, D, generator=generator, dtype=torch.float64),
        torch.randn(n, generator=generator, dtype=torch.float64),
    )


@EACH
def test_the_fit_interpolates_with_numpys_pseudo_inverse(kind):
    phi, (x, y) = MAPS[kind](), data()
    fit = min_norm_fit(phi, x, y)
    assert isinstance(fit, MinNormFit)
    assert fit.rank == len(x)
    torch.testing.assert_close(fit(x), y, rtol=1e-8, atol=1e-8)
    expected = np.linalg.pinv(phi(x).numpy()) @ y.numpy()
    np.testing.assert_allclose(fit.theta.numpy(), expected, rtol=1e-7, atol=1e-9)


@EACH
def test_another_start_moves_the_least(kind):
    phi, (x, y) = MAPS[kind](), data()
    start = torch.randn(phi.num_features, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    fit = min_norm_fit(phi, x, y, theta0=start)
    torch.testing.assert_close(fit(x), y, rtol=1e-8, atol=1e-8)
    null = torch.linalg.svd(phi(x))[2][len(x) :]  # rows that no sample sees
    torch.testing.assert_close(null @ (fit.theta - start), torch.zeros(len(null)).double(), rtol=0, atol=1e-9)


@EACH
def test_sensitivity_is_size_times_gradient_and_that_of_the_closed_form(kind):
    phi, (x, y) = MAPS[kind](), data()
    fit, z = min_norm_fit(phi, x, y), data(3, 7)[0]
    gradients = [torch.autograd.functional.jacobian(lambda row: fit(row[None])[0], row) for row in z]
    expected = torch.stack([row.norm() * g.norm() for row, g in zip(z, gradients, strict=True)])
    torch.testing.assert_close(sensitivity(fit, z), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(phi.input_vjp(z, fit.theta), torch.stack(gradients), rtol=1e-8, atol=1e-10)
    for parts, value in zip(sensitivity_parts(fit, z), expected, strict=True):
        assert isinstance(parts, SensitivityParts)
        assert parts.sensitivity == pytest.approx(float(value), rel=1e-7)
        assert parts.sensitivity <= parts.bound
        assert parts.targets == pytest.approx(float(y.norm()))


def test_parts_are_operator_norms():
    phi, (x, y) = MAPS["random"](), data()
    fit, z = min_norm_fit(phi, x, y), data(1, 3)[0][0]
    (parts,) = sensitivity_parts(fit, z[None])
    Phi, J = phi(x), phi.input_jacobian(z[None])[0]
    assert parts.interaction == pytest.approx(np.linalg.norm((J @ Phi.mT).numpy(), 2))
    assert parts.centred_interaction == pytest.approx(np.linalg.norm((J @ (Phi - Phi.mean(0)).mT).numpy(), 2))
    assert parts.inverse_gram == pytest.approx(np.linalg.norm(np.linalg.inv((Phi @ Phi.mT).numpy()), 2))


@EACH
def test_the_interaction_matrix_is_the_jacobian_times_centred_features(kind):
    phi, (x, _), z = MAPS[kind](), data(), data(1, 3)[0][0]
    Phi, J = phi(x), phi.input_jacobian(z[None])[0]
    torch.testing.assert_close(interaction_matrix(phi, z, x), J @ (Phi - Phi.mean(0)).mT, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(interaction_matrix(phi, z, x, center=False), J @ Phi.mT, rtol=1e-9, atol=1e-12)


@EACH
def test_targets_times_a_number_give_sensitivity_times_its_size(kind):
    phi, (x, y), z = MAPS[kind](), data(), data(3, 7)[0]
    once, scaled = (sensitivity(min_norm_fit(phi, x, c * y), z) for c in (1.0, -2.5))
    torch.testing.assert_close(scaled, 2.5 * once, rtol=1e-8, atol=1e-10)


def test_constant_features_have_no_sensitivity():
    x, z = data()[0], data(3, 7)[0]
    fit = min_norm_fit(RandomFeatures(D, 8, lambda u: 0 * u + 1), x, torch.full((len(x),), 3.0))
    torch.testing.assert_close(sensitivity(fit, z), torch.zeros(3, dtype=torch.float64))


def test_the_order_of_hidden_units_does_not_matter():
    x, y = data()
    z, order = data(3, 7)[0], torch.randperm(60, generator=torch.Generator().manual_seed(0))

    class Permuted(RandomFeatures):
        def panel(self, samples, start, stop):
            return super().panel(samples, 0, self.num_features)[:, order][:, start:stop]

    plain = min_norm_fit(MAPS["random"](), x, y)
    permuted = min_norm_fit(Permuted(D, 60, torch.tanh, seed=1), x, y)
    torch.testing.assert_close(sensitivity(permuted, z), sensitivity(plain, z), rtol=1e-8, atol=1e-10)


def test_any_network_and_scale_are_taken_and_left_as_they_were():
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 1)).double()
    z = torch.randn(4, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = sensitivity(network, z, scale=math.sqrt(6))
    torch.testing.assert_close(found, math.sqrt(6) * network[1].weight.detach().norm().expand(4))
    assert all(p.grad is None for p in network.parameters())
    assert not z.requires_grad


def test_repeated_samples_with_different_targets_are_refused_and_with_equal_ones_fitted():
    phi, (x, y) = MAPS["random"](), data()
    twice, same = torch.cat([x, x[:1]]), torch.cat([y, y[:1]])
    fit = min_norm_fit(phi, twice, same)
    assert fit.rank == len(x)
    torch.testing.assert_close(fit(x), y, rtol=1e-6, atol=1e-6)
    with pytest.raises(RankDeficientError, match="15 samples has rank 14"):
        min_norm_fit(phi, twice, torch.cat([y, -y[:1]]))
    with pytest.raises(RankDeficientError, match="take more features"):
        min_norm_fit(RandomFeatures(D, 6, torch.tanh), x, y)


def half_square(u):
    return u.square() / 2


@pytest.mark.parametrize("name", ["random_tanh", *(f"{m}_{a}" for m in MAPS for a in ("cos", "square", "softplus"))])
def test_sensitivities_are_those_of_the_authors_script_at_the_same_weights(name):
    with np.load(Path(__file__).with_name("robustness_laws.npz")) as arrays:
        frozen = {key: torch.from_numpy(array) for key, array in arrays.items()}
    kind, activation = name.split("_")
    function = {"tanh": torch.tanh, "cos": torch.cos, "square": half_square, "softplus": F.softplus}[activation]
    phi = RandomFeatures(10, 40, function) if kind == "random" else ShallowTangentFeatures(10, 6, function)
    fit = min_norm_fit(phi, frozen["X"], frozen["Y"])
    found = sensitivity(fit, frozen["z"][None], scale=math.sqrt(10))
    torch.testing.assert_close(found[0], frozen[name], rtol=1e-8, atol=0)


def test_the_universal_law_is_the_root_of_n_d_over_p():
    assert universal_sensitivity(200, 50, 2500) == 2.0


def test_bad_input_is_refused_by_name():
    x, y = data()
    with pytest.raises(TypeError, match="PositiveRandomFeatures: RandomFeatures and"):
        min_norm_fit(PositiveRandomFeatures(D, 10), x, y)
    with pytest.raises(ValueError, match="one target a sample"):
        min_norm_fit(MAPS["random"](), x, y[:-1])
    with pytest.raises(ValueError, match="one number a sample"):
        sensitivity(lambda z: z, x)
    with pytest.raises(ValueError, match="detached"):
        sensitivity(lambda z: z.detach().sum(1), x)
    fit = min_norm_fit(MAPS["random"](), x, y, theta0=torch.ones(60))
    with pytest.raises(ValueError, match="θ₀ = 0"):
        sensitivity_parts(fit, x)
