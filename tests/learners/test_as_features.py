"""The gate where every learner judges its X."""

import numpy as np
import pytest
import torch
from linear_operator import to_linear_operator
from scipy import sparse
from sklearn.base import BaseEstimator

from tangrams.data import Labelled
from tangrams.features import TangentFeatures
from tangrams.learners import as_features, as_samples, as_targets
from tangrams.learners.base import num_samples, take_samples
from tangrams.operators import FeatureMatrix
from tangrams.testing.suites.estimator import WideRows


class Anything(BaseEstimator):
    """An estimator without a fit."""


def test_tensors_stay_tensors_and_lose_their_graph():
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    rows = as_features(Anything(), x * 2)
    assert not rows.requires_grad
    torch.testing.assert_close(rows, 2 * x.detach())


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.int64, torch.float32),
    ],
)
def test_precisions_below_float32_are_raised_to_it(dtype, expected):
    assert as_features(Anything(), torch.ones(3, 2).to(dtype)).dtype == expected


def test_arrays_and_lists_become_tensors():
    assert as_features(Anything(), [[1, 2], [3, 4]]).dtype == torch.float64
    assert as_features(Anything(), np.ones((2, 2), np.float32)).dtype == torch.float32


def test_feature_matrices_and_what_opens_as_one_are_not_read():
    class Store:
        def matrix(self):
            return FeatureMatrix(rows=WideRows(torch.ones(3, 2)))

    estimator = Anything()
    rows = as_features(estimator, Store())
    assert isinstance(rows, FeatureMatrix)
    assert estimator.n_features_in_ == rows.shape[1]


def test_a_real_store_is_streamed(tmp_path):
    from tangrams.learners import KernelRidge
    from tangrams.store import FeatureStore

    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))
    x = torch.randn(12, 4)
    phi = TangentFeatures(net, "sum")
    phi.extract(x, tmp_path / "features.zarr", block_size=5)
    y = x.sum(1)
    store = FeatureStore.open(tmp_path / "features.zarr")
    stored = KernelRidge(delta=0.1).fit(store, y).predict(store)
    dense = KernelRidge(delta=0.1).fit(phi(x).detach(), y).predict(phi(x))
    np.testing.assert_allclose(stored, dense, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        (torch.ones(3), ValueError, "2-D feature rows, got a tensor of shape"),
        (torch.ones(0, 2), ValueError, "0 sample"),
        (torch.ones(2, 0), ValueError, "0 feature"),
        (torch.ones(2, 2, dtype=torch.complex64), ValueError, "Complex data"),
        (torch.tensor([[1.0, 2.0], [1.0, float("inf")]]), ValueError, "first in row 1"),
        (torch.eye(2).to_sparse(), TypeError, "to_dense"),
        (to_linear_operator(torch.eye(2)), TypeError, "FeatureMatrix"),
        (sparse.eye(2).tocsr(), TypeError, "[Ss]parse"),
        (TangentFeatures(torch.nn.Linear(2, 1)), TypeError, "matrix"),
        ([[1.0, float("nan")]], ValueError, "NaN"),
    ],
)
def test_what_is_no_table_of_numbers_is_refused(X, error, message):
    with pytest.raises(error, match=message):
        as_features(Anything(), X)


def test_arrays_on_disk_are_refused_rather_than_loaded_whole(tmp_path):
    import zarr

    array = zarr.create_array(store=str(tmp_path / "a.zarr"), shape=(4, 2), dtype="f4")
    for gate in (as_features, as_samples):
        with pytest.raises(TypeError, match="whole zarr array"):
            gate(Anything(), array)


def test_another_number_of_features_is_refused_after_the_fit():
    estimator = Anything()
    as_features(estimator, torch.ones(3, 2))
    for X in (torch.ones(3, 4), np.ones((3, 4)), FeatureMatrix(rows=torch.ones(3, 4))):
        with pytest.raises(ValueError, match="4 features, but Anything is expecting 2"):
            as_features(estimator, X, reset=False)


def test_names_of_columns_are_forgotten_when_rows_without_names_are_fitted():
    pandas = pytest.importorskip("pandas")
    estimator = Anything()
    as_features(estimator, pandas.DataFrame({"a": [1.0, 2.0]}))
    assert list(estimator.feature_names_in_) == ["a"]
    as_features(estimator, torch.ones(2, 3))
    assert not hasattr(estimator, "feature_names_in_")


def test_samples_of_any_shape_pass_the_second_gate():
    images = np.zeros((3, 1, 2, 2))
    assert as_samples(Anything(), images).shape == (3, 1, 2, 2)
    pair = Labelled(torch.ones(3, 2), torch.zeros(3))
    assert as_samples(Anything(), pair) is pair


def test_targets_are_counted_and_finite():
    X = torch.ones(3, 2)
    assert as_targets(Anything(), X, torch.tensor([0, 1, 2])).dtype == np.int64
    with pytest.raises(ValueError, match="inconsistent"):
        as_targets(Anything(), X, [0, 1])
    with pytest.raises(ValueError, match="NaN"):
        as_targets(Anything(), X, torch.tensor([0.0, float("nan"), 1.0]))
    with pytest.raises(ValueError, match="requires y"):
        as_targets(Anything(), X, None)


def test_samples_in_structures_are_counted_and_chosen():
    x = torch.arange(6.0).reshape(3, 2)
    for structure in (x, (x, x), {"a": x}, Labelled((x, x), torch.arange(3)), FeatureMatrix(rows=x)):
        assert num_samples(structure) == 3
        assert num_samples(take_samples(structure, [2, 0])) == 2
    assert take_samples(Labelled(x, torch.arange(3)), [2, 0]).targets.tolist() == [2, 0]
    with pytest.raises(TypeError, match="pass tensors"):
        take_samples(object(), [0])
