"""Learners of polyharmonic cascades."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_friedman1
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

from tangrams.learners import CascadeClassifier, CascadeRegressor
from tangrams.operators import FeatureMatrix
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance

COORDINATES = {"check_stored_rows_are_never_held_whole": "two nodes per coordinate: beyond 65,536 it asks for a sketch"}

TestCascades = estimator_conformance(
    Case(lambda: CascadeClassifier((4,), epochs=6, batch_size=20, alpha=0.01), excuses=COORDINATES),
    Case(lambda: CascadeRegressor((4,), epochs=6, batch_size=20, alpha=0.01), excuses=COORDINATES),
)


def test_digits_are_told_apart():
    X, y = load_digits(return_X_y=True)
    a, b, c, d = train_test_split(X, y, test_size=450, random_state=0, stratify=y)
    model = CascadeClassifier((16,), batch_size=300, epochs=5).fit(a, c)
    assert model.score(b, d) > 0.95
    assert model.decision_function(b).shape == (450, 10)
    assert model.loss_curve_[-1] < model.loss_curve_[0] / 5
    assert len(model.radius_) == 2


def test_two_classes_are_one_cascade_with_a_signed_score():
    X = np.r_[np.random.default_rng(0).normal(-1, 1, (60, 3)), np.random.default_rng(1).normal(1, 1, (60, 3))]
    y = np.repeat(["no", "yes"], 60)
    model = CascadeClassifier((3,), batch_size=60).fit(X, y)
    assert model.cascade_.num_models == 1
    assert np.array_equal(model.predict(X) == "yes", model.decision_function(X) > 0)
    assert model.score(X, y) > 0.9


def test_a_curved_function_is_fitted_better_than_by_a_line():
    X, y = make_friedman1(900, noise=0.1, random_state=0)
    train, test = slice(0, 600), slice(600, None)
    model = CascadeRegressor((16, 8), batch_size=200, epochs=15, alpha=0.01).fit(X[train], y[train])
    line = LinearRegression().fit(X[train], y[train])
    assert 1 - model.score(X[test], y[test]) < (1 - line.score(X[test], y[test])) / 3


def test_several_targets_equal_the_shape_and_scale_of_y():
    X, y = make_friedman1(200, random_state=0)
    Y = np.c_[y, 1e3 + 1e2 * y, np.full(200, 7.0)]
    model = CascadeRegressor((8,), batch_size=100).fit(X, Y)
    prediction = model.predict(X)
    assert prediction.shape == (200, 3)
    assert np.allclose(prediction[:, 2], 7)
    assert abs(prediction[:, 1].mean() - Y[:, 1].mean()) < 20


def test_constant_columns_are_ignored_and_scales_too():
    X, y = make_friedman1(200, random_state=0)
    plain = CascadeRegressor((8,), batch_size=100).fit(X, y).predict(X)
    scaled = CascadeRegressor((8,), batch_size=100).fit(X * 1e3 - 5e5, y).predict(X * 1e3 - 5e5)
    assert np.allclose(plain, scaled, atol=1e-5)
    model = CascadeRegressor((8,), batch_size=100).fit(np.c_[X, np.full(200, 3.0)], y)
    assert model.scale_[-1] == 0
    assert np.allclose(model.predict(np.c_[X, np.zeros(200)]), model.predict(np.c_[X, np.full(200, 9.0)]))


def test_rows_of_a_feature_matrix_are_read_in_batches():
    class Counting:
        """Rows that remember the most that was asked for at once."""

        def __init__(self, rows):
            self.inner, self.most = rows, [0]

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def take(self, index):
            self.most[0] = max(self.most[0], len(index))
            return self.inner.take(index)

    X, y = make_friedman1(300, random_state=0)
    from tangrams.operators import DenseRows

    rows = Counting(DenseRows(torch.from_numpy(X)))
    model = CascadeRegressor((8,), batch_size=50)
    model.fit(FeatureMatrix(rows=rows), y)
    assert rows.most[0] == 50
    assert np.allclose(model.predict(X), CascadeRegressor((8,), batch_size=50).fit(X, y).predict(X))


def test_bad_settings_are_refused():
    X, y = make_friedman1(20, random_state=0)
    for settings, word in (({"epochs": 0}, "epochs"), ({"batch_size": 0}, "batch_size"), ({"alpha": 0.0}, "alpha")):
        with pytest.raises(ValueError, match=word):
            CascadeRegressor((4,), **settings).fit(X, y)
    with pytest.raises(ValueError, match="sketch"):
        CascadeRegressor((4,)).fit(np.zeros((2, (1 << 16) + 1), dtype=np.float32), y[:2])
