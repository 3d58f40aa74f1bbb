"""Ridge on random features: against scikit-learn, against its kernel, and against what the eigenframework says."""

import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge as SklearnKernelRidge

from tangrams.features import RandomFeatures
from tangrams.learners import KernelRidge, RandomFeatureRidge, random_feature_ridge
from tangrams.lens import EigenTask, ridge_risk
from tangrams.operators import FeatureMatrix, dense_rows


def problem(n=60, d=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return x, torch.stack([x[:, 0].sin(), x[:, 1] * x[:, 2]], 1)


@pytest.mark.parametrize("k", [20, 300])
def test_it_is_kernel_ridge_on_the_gram_matrix_of_its_features(k):
    x, y = problem()
    model = RandomFeatureRidge(num_features=k, delta=0.01, random_state=3).fit(x, y)
    Z = model.feature_map_(x).numpy()
    K = Z @ Z.T
    reference = SklearnKernelRidge(alpha=0.01 * K.trace() / 60, kernel="precomputed").fit(
        K, y.numpy() - y.numpy().mean(0)
    )
    new = problem(seed=1)[0]
    expected = y.numpy().mean(0) + reference.predict(model.feature_map_(new).numpy() @ Z.T)
    np.testing.assert_allclose(model.predict(new), expected, rtol=0, atol=1e-8)
    ours = KernelRidge(RandomFeatures(6, k, seed=3), delta=0.01).fit(x, y)
    np.testing.assert_allclose(model.predict(new), ours.predict(new), rtol=0, atol=1e-8)


def test_without_a_ridge_it_interpolates_with_the_least_weights():
    x, y = problem()
    model = RandomFeatureRidge(num_features=300, delta=0.0).fit(x, y)
    np.testing.assert_allclose(model.predict(x), y, rtol=0, atol=1e-8)
    Z = model.feature_map_(x).numpy()
    np.testing.assert_allclose(model.coef_, np.linalg.pinv(Z) @ (y - y.mean(0)).numpy(), rtol=0, atol=1e-6)


def test_a_map_may_be_given_and_takes_samples_of_any_shape():
    x, y = problem(d=12)
    phi = RandomFeatures(12, 50, torch.tanh, seed=1)
    flat = RandomFeatureRidge(phi, delta=0.1).fit(x, y[:, 0])
    pictures = RandomFeatureRidge(phi, delta=0.1).fit(x.reshape(60, 3, 2, 2), y[:, 0])
    assert flat.feature_map_ is phi
    np.testing.assert_allclose(flat.predict(x), pictures.predict(x.reshape(60, 3, 2, 2)), rtol=0, atol=1e-12)
    assert flat.predict(x).shape == (60,)


def test_rows_that_are_not_in_memory_are_read_in_panels(monkeypatch):
    x, y = problem()
    expected = RandomFeatureRidge(num_features=40).fit(x, y).predict(x)
    read = []

    class Rows(dense_rows.DenseRows):
        def dense(self):
            read.append(len(self.tensor))
            return super().dense()

        def take(self, index):
            return Rows(self.tensor[index])

    monkeypatch.setattr(random_feature_ridge, "row_panels", lambda rows: dense_rows.row_panels(rows, 7 * 6 * 8))
    model = RandomFeatureRidge(num_features=40).fit(FeatureMatrix(rows=Rows(x)), y)
    np.testing.assert_allclose(model.predict(FeatureMatrix(rows=Rows(x))), expected, rtol=0, atol=1e-10)
    assert max(read) <= 7


def test_its_error_is_what_the_eigenframework_predicts():
    """Linear features of a Gaussian design: the kernel's spectrum is λ, and k random ones are a projection of it."""
    task = EigenTask.power_law(1.5, 1.5, 200, noise_variance=0.2)
    scale = task.eigenvalues.sqrt() * 200**0.5  # RandomFeatures divide by √d
    generator = torch.Generator().manual_seed(0)
    found = []
    for seed in range(30):
        x, new = (torch.randn(n, 200, generator=generator, dtype=torch.float64) for n in (80, 1000))
        y = x @ task.coefficients + 0.2**0.5 * torch.randn(80, generator=generator, dtype=torch.float64)
        phi = RandomFeatures(200, 50, lambda u: u, seed=seed)
        unit = float(phi.diag(x * scale).mean())
        model = RandomFeatureRidge(phi, delta=0.1 / unit).fit(x * scale, y)
        wanted = (new @ task.coefficients).numpy()
        found.append(float(np.square(model.predict(new * scale) - wanted).mean()) + 0.2)
    predicted = ridge_risk(task, 80, 0.1, k=50).test
    error = np.std(found, ddof=1) / len(found) ** 0.5
    assert abs(np.mean(found) - predicted) < 4 * error + 0.04 * predicted  # the mean that is fitted costs 1/n


def test_seeds_give_other_features_and_a_negative_ridge_is_refused():
    x, y = problem()
    first, second = (RandomFeatureRidge(num_features=30, random_state=s).fit(x, y).predict(x) for s in (0, 1))
    assert np.abs(first - second).max() > 1e-3
    with pytest.raises(ValueError, match="delta ≥ 0"):
        RandomFeatureRidge(delta=-1.0).fit(x, y)
