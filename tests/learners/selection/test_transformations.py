"""Facts of sheet 007 about the transformations, the sketch of products, the network and the loop."""

import numpy as np
import pytest
import torch

from tangrams.features import TangentFeatures
from tangrams.kernels import FeatureKernel, LaplaceKernel, PosteriorKernel, ProductKernel, ScaledKernel, SumKernel
from tangrams.learners import (
    ACSGradientFeatures,
    ACSRandomFeatures,
    ActiveLearningLoop,
    LargestClusterMaxDistance,
    MaxDiagonal,
    PoolModeLoop,
    PosteriorFeatures,
    RandomSelection,
    RegressionErrors,
    TabularMLPRegressor,
    UnitDiagonal,
    sketched_gradients,
)
from tangrams.learners.selection.posterior import jittered_cholesky
from tangrams.operators import Column, FeatureMatrix, GaussianSketch, KhatriRaoSketch

LINEAR = FeatureKernel(TangentFeatures(torch.nn.Linear(6, 1, bias=False).double()))


def rows(n=30, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("labelled", [4, 9], ids=["fewer-than-features", "more-than-features"])
def test_posterior_features_have_the_posterior_kernel(labelled):
    x, train = rows(), rows(labelled, seed=1)
    features = PosteriorFeatures(0.3).fit(train).transform(x)
    np.testing.assert_allclose(features @ features.T, PosteriorKernel(LINEAR, train, 0.3).gram(x).numpy(), atol=1e-10)


def test_conditioning_twice_is_conditioning_on_the_union():
    x, first, second = rows(), rows(5, seed=1), rows(7, seed=2)
    once = PosteriorFeatures(0.3).fit(torch.cat([first, second])).transform(x)
    step = PosteriorFeatures(0.3).fit(first)
    twice = PosteriorFeatures(0.3).fit(step.transform(second)).transform(step.transform(x))
    np.testing.assert_allclose(twice @ twice.T, once @ once.T, atol=1e-10)
    kernel = LaplaceKernel().double()
    nested = PosteriorKernel(PosteriorKernel(kernel, first, 0.3), second, 0.3).gram(x)
    torch.testing.assert_close(nested, PosteriorKernel(kernel, torch.cat([first, second]), 0.3).gram(x))


def test_a_posterior_kernel_follows_its_hyperparameters_and_their_gradient():
    kernel = LaplaceKernel().double()
    posterior = PosteriorKernel(kernel, rows(5, seed=1), 0.3)
    with torch.no_grad():
        before = posterior.gram(rows())
        kernel.lengthscale = 2.0
        after = posterior.gram(rows())
    assert not torch.allclose(before, after)
    torch.testing.assert_close(after, PosteriorKernel(kernel, rows(5, seed=1), 0.3).gram(rows()).detach())
    (slope,) = torch.autograd.grad(posterior.gram(rows()).sum(), kernel.raw_lengthscale)
    step = 1e-6
    with torch.no_grad():
        kernel.raw_lengthscale += step
        change = (posterior.gram(rows()).sum() - after.sum()) / step
    assert float(change) == pytest.approx(float(slope), rel=1e-4)


def test_scaled_features_and_kernels_have_a_unit_diagonal_on_average():
    train = rows(20, seed=1)
    assert (UnitDiagonal().fit_transform(train) ** 2).sum(1).mean() == pytest.approx(1)
    unit = ScaledKernel.to_unit(LINEAR, train)
    assert float(unit.diag(train).mean()) == pytest.approx(1)
    with pytest.raises(ValueError, match="zero"):
        UnitDiagonal().fit(torch.zeros(3, 2))
    with pytest.raises(ValueError, match="zero"):
        ScaledKernel.to_unit(LINEAR, torch.zeros(3, 6, dtype=torch.float64))


def test_kernels_of_an_ensemble_are_those_of_features_side_by_side():
    nets = [torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1)).double() for _ in "ab"]
    maps = [TangentFeatures(net) for net in nets]
    summed = SumKernel(*(FeatureKernel(phi) for phi in maps)).gram(rows())
    torch.testing.assert_close(summed, (maps[0] | maps[1]).gram(rows()))


def test_gradient_likelihood_features_have_the_product_kernel_on_average():
    x, train = rows(8), rows(12, seed=1)
    exact = ProductKernel(LINEAR, PosteriorKernel(LINEAR, train, 0.5)).gram(x).numpy() / 0.5**4
    draws = []
    for seed in range(300):
        features = ACSGradientFeatures(16, noise=0.5, random_state=seed).fit(train).transform(x)
        draws.append(features @ features.T)
    z = (np.mean(draws, 0) - exact) / (np.std(draws, 0) / 300**0.5)
    assert np.abs(z).max() < 4.5


def test_random_likelihood_features_have_the_mean_that_the_formula_has():
    x, train = rows(8), rows(12, seed=1)
    draws = np.stack([ACSRandomFeatures(50, noise=0.5, random_state=s).fit(train).transform(x) for s in range(40)])
    linear = FeatureKernel(TangentFeatures(torch.nn.Linear(3, 1, bias=False).double()))
    variance = PosteriorKernel(linear, torch.from_numpy(x[:10]), 0.1)
    expected = 10 + np.argsort(-variance.diag(torch.from_numpy(x[10:])).numpy())[:5]
    np.testing.assert_array_equal(curve.chosen[0], expected)


def test_sketched_gradients_are_unbiased_and_leave_the_network_alone():
    x, y = plane(40)
    model = TabularMLPRegressor((6,), epochs=2).fit(x, y)
    exact = TangentFeatures(model.network_).gram(model.network_inputs(x[:6])).double()
    draws = torch.stack(
        [(lambda F: F @ F.mT)(sketched_gradients(model, x[:6], 32, seed).to_dense().double()) for seed in range(100)]
    )
    z = (draws.mean(0) - exact) / (draws.std(0) / 100**0.5)
    assert float(z.abs().max()) < 4.5
    assert isinstance(sketched_gradients(model, x), FeatureMatrix)
    dense = TangentFeatures(model.network_) >> GaussianSketch(32, seed=0)
    assert dense.num_features == sketched_gradients(model, x, 32).shape[1]


def test_errors_are_those_of_their_names():
    y, p = np.zeros(100), np.arange(100) / 10.0
    errors = RegressionErrors.of(y, p)
    assert (errors.mae, errors.maxe, errors.q95, errors.q99) == pytest.approx((4.95, 9.9, 9.5, 9.9))
    assert errors.rmse == pytest.approx(np.sqrt((p**2).mean()))


def test_random_selection_stands_in_for_any_selector_in_the_loop():
    x, y = plane(40)
    loop = ActiveLearningLoop(TabularMLPRegressor((4,), epochs=1), RandomSelection(4), sketched_gradients)
    assert len(loop.run(x, y, np.arange(5), rounds=2, test=plane(10, 1)).chosen) == 2
