"""Facts of sheet 007 about the transformations, the sketch of products, the network and the loop."""

import numpy as np
import pytest
import torch
from sklearn.pipeline import make_pipeline

from tangrams.features import TangentFeatures
from tangrams.kernels import FeatureKernel, LaplaceKernel, PosteriorKernel, ProductKernel, ScaledKernel, SumKernel
from tangrams.learners import (
    ACSGradientFeatures,
    ACSRandomFeatures,
    ActiveLearningCurve,
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
    variance = PosteriorKernel(LINEAR, train, 0.5).diag(x).numpy()  # s: also the mean of (θᵀφ)²
    expected = (0.5 * np.log1p(variance / 0.25) - 2 * variance / 0.5) / 50**0.5
    z = (draws.mean((0, 2)) - expected) / (draws.std((0, 2)) / 2000**0.5)
    assert np.abs(z).max() < 4.5


def test_a_matrix_that_rounding_made_indefinite_is_factored_with_jitter():
    matrix = torch.diag(torch.tensor([1.0, 1.0, -1e-9], dtype=torch.float64))
    factor = jittered_cholesky(matrix)
    torch.testing.assert_close(factor @ factor.mT, matrix, atol=2e-5, rtol=0)
    with pytest.raises(ValueError, match="semi-definite"):
        jittered_cholesky(torch.diag(torch.tensor([1.0, -9.0], dtype=torch.float64)))


def test_the_sketch_of_products_multiplies_the_sketches_of_the_sides():
    sketch = KhatriRaoSketch(11, seed=3).bind((Column("weight", (5, 4), 0, 20), Column("bias", (5,), 20, 25)))
    left, right = rows(3, 5), rows(3, 4, seed=1)
    out = torch.zeros(3, 11, dtype=torch.float64)
    sketch.accumulate_outer(left[:, None], right[:, None], 0, out)
    dense = sketch.matrix(torch.float64).to_dense()
    torch.testing.assert_close(out, torch.einsum("no,ni->noi", left, right).flatten(1) @ dense[:, :20].mT)
    rank = [torch.linalg.matrix_rank(row.reshape(5, 4)) for row in dense[:, :20]]
    assert set(map(int, rank)) == {1}


def test_parallel_features_of_rank_one_attain_the_stated_variance():
    x = torch.outer(rows(1, 5)[0], rows(1, 4, seed=1)[0]).reshape(1, -1)
    x = x / x.norm()
    columns = (Column("weight", (5, 4), 0, 20),)
    values = torch.stack([KhatriRaoSketch(8, seed=s).bind(columns).project(x).square().sum() for s in range(6000)])
    stated = KhatriRaoSketch(8, seed=0).variance(1.0)
    spread = (values - values.mean()).square()
    z = (spread.mean() - stated) / (spread.std() / 6000**0.5)
    assert abs(float(z)) < 4.5
    assert abs(float((values.mean() - 1) / (values.std() / 6000**0.5))) < 4.5


def test_transformations_chain_by_scikit_learn():
    chain = make_pipeline(UnitDiagonal(), PosteriorFeatures(0.1)).fit(rows(9, seed=1))
    by_hand = PosteriorFeatures(0.1).fit(UnitDiagonal().fit_transform(rows(9, seed=1)))
    scale = UnitDiagonal().fit(rows(9, seed=1))
    np.testing.assert_allclose(chain.transform(rows()), by_hand.transform(scale.transform(rows())))


@pytest.mark.parametrize(
    "bad",
    [PosteriorFeatures(0.0), ACSRandomFeatures(noise=-1.0), ACSRandomFeatures(0), ACSGradientFeatures(noise=0.0)],
    ids=["posterior", "acs-noise", "acs-size", "gradient"],
)
def test_bad_options_are_refused(bad):
    with pytest.raises(ValueError, match=r"noise|num_features"):
        bad.fit(rows())
    for make in (lambda: PosteriorKernel(LINEAR, rows(), 0.0), lambda: ScaledKernel(LINEAR, 0.0), SumKernel):
        with pytest.raises(ValueError, match="needs"):
            make()


def plane(n=160, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    return x, np.sin(2 * x[:, 0]) + 0.3 * x[:, 1]


def test_the_network_of_the_benchmark_is_set_up_as_it_says():
    x, y = plane()
    model = TabularMLPRegressor((32, 32), epochs=60, validation_fraction=0.2).fit(x, y)
    assert np.sqrt(((model.predict(x) - y) ** 2).mean()) < 0.5 * y.std()
    assert not model.network_.training
    standard = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(model.network_inputs(x).numpy(), 5 * np.tanh(standard / 5), rtol=1e-5, atol=1e-6)
    with_pool = TabularMLPRegressor((4,), epochs=1).fit(x, y, unlabelled=x + 10)
    assert float(with_pool.network_inputs(x).mean()) < -0.5
    assert all(parameter.grad is None for parameter in model.network_.parameters())


def test_the_best_epoch_by_validation_is_kept():
    """On noise: training makes it worse and worse on other samples."""
    x, far = plane(64)[0], plane(64, seed=1)[0]
    noise, other = np.random.default_rng(0).standard_normal((2, 64))

    def error(model):
        return ((model.predict(far) - other) ** 2).mean()

    kept = TabularMLPRegressor((32,), epochs=200, batch_size=16).fit(x, noise, validation=(far, other))
    last = TabularMLPRegressor((32,), epochs=200, batch_size=16, validation_fraction=0.0).fit(x, noise)
    assert error(kept) < 0.8 * error(last)


def test_the_network_does_not_depend_on_the_default_dtype():
    x, y = plane(40)
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(TabularMLPRegressor((4,), activation=torch.nn.PReLU, epochs=2).fit(x, y).predict(x))
        finally:
            torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(*found)


def test_bad_networks_are_refused():
    x, y = plane(20)
    for options in ({"validation_fraction": 1.0}, {"epochs": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            TabularMLPRegressor((4,), **options).fit(x, y)


def test_the_loop_labels_every_sample_once_and_leaves_its_parts_unfitted():
    x, y = plane(120)
    seen = []

    def inputs(model, samples):
        seen.append(len(samples))
        return model.network_inputs(samples)

    regressor, selector = TabularMLPRegressor((8,), epochs=3), LargestClusterMaxDistance(10)
    loop = ActiveLearningLoop(regressor, selector, inputs)
    curve = loop.run(x, y, np.arange(20), rounds=3, test=plane(50, 1), validation=plane(20, 2))
    assert isinstance(curve, ActiveLearningCurve)
    assert curve.sizes == [20, 30, 40, 50]
    assert len(curve.errors) == 4
    assert len(set(np.concatenate(curve.chosen)) | set(range(20))) == 50
    assert curve.statuses == [None] * 3
    assert seen == [20, 100, 30, 90, 40, 80]
    assert not hasattr(regressor, "network_")
    assert not hasattr(selector, "indices_")
    again = loop.run(x, y, np.arange(20), rounds=3, test=plane(50, 1), validation=plane(20, 2))
    assert [error.rmse for error in again.errors] == [error.rmse for error in curve.errors]
    assert curve.mean_log_rmse == pytest.approx(np.mean([np.log(error.rmse) for error in curve.errors[1:]]))


def test_the_pool_mode_sees_labelled_samples_through_the_transformation_alone():
    x, y = plane(80)
    loop = PoolModeLoop(
        TabularMLPRegressor((8,), epochs=2), MaxDiagonal(5), lambda model, samples: samples, PosteriorFeatures(0.1)
    )
    curve = loop.run(x, y, np.arange(10), rounds=1, test=plane(30, 1))
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
