"""Sketched regression against the exact one: the identities of its sheet, its errors, its bound."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from tangrams.learners import RankDeficientSketchError, SketchedLeastSquares, linf_error_ratio, sketched_lstsq
from tangrams.operators import (
    CirculantSketch,
    Column,
    CountSketch,
    FeatureMatrix,
    GaussianSketch,
    HadamardSketch,
    PooledHadamardSketch,
    SparseSketch,
    TensorHadamardSketch,
)
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance

SKETCHES = [HadamardSketch, PooledHadamardSketch, CirculantSketch, GaussianSketch, SparseSketch]


def problem(n=400, d=6, noise=1.0, seed=0):
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((n, d)) * np.logspace(0, 2, d)
    x = rng.standard_normal(d)
    return A, A @ x + noise * rng.standard_normal(n), x


@pytest.mark.parametrize("make", SKETCHES)
def test_a_target_in_the_range_is_found_exactly_by_every_sketch(make):
    A, b, x = problem(noise=0.0)
    np.testing.assert_allclose(SketchedLeastSquares(make(60)).fit(A, b).coef_, x, rtol=1e-10)


def test_a_transform_of_all_rows_is_least_squares():
    A, b, _ = problem(n=100)
    S = HadamardSketch(128, seed=3).bind(100)
    solution = sketched_lstsq(S.project(torch.from_numpy(A.T)).mT, S.project(torch.from_numpy(b[None])).mT)
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    np.testing.assert_allclose(solution.coef[:, 0].numpy(), exact, rtol=1e-10)


def test_at_least_as_many_features_as_rows_give_the_exact_answer_of_least_norm():
    A, b, _ = problem(n=50)
    model = SketchedLeastSquares(CountSketch(50)).fit(A, b)
    np.testing.assert_allclose(model.coef_, np.linalg.lstsq(A, b, rcond=None)[0], rtol=1e-10)
    assert model.sketch_ is None
    assert model.distortion(A) == (1.0, 1.0)
    assert not model.coordinate_error_.any()
    assert not model.coordinate_error_bound().any()
    wide = problem(n=10, d=30)
    for rows in (wide[0], FeatureMatrix(rows=torch.from_numpy(wide[0]))):
        coef = SketchedLeastSquares().fit(rows, wide[1]).coef_
        np.testing.assert_allclose(coef, np.linalg.lstsq(wide[0], wide[1], rcond=None)[0], atol=1e-8)


@pytest.mark.parametrize("make", SKETCHES)
def test_the_answer_moves_with_the_design_and_the_target(make):
    A, b, _ = problem()
    rng = np.random.default_rng(1)
    T, c = rng.standard_normal((6, 6)), rng.standard_normal(6)
    coef = SketchedLeastSquares(make(80)).fit(A, b).coef_
    np.testing.assert_allclose(SketchedLeastSquares(make(80)).fit(A @ T, b).coef_, np.linalg.inv(T) @ coef, rtol=1e-7)
    np.testing.assert_allclose(SketchedLeastSquares(make(80)).fit(A, b + A @ c).coef_, coef + c, rtol=1e-8)


def test_the_error_identity_of_the_paper():
    """x' − x* = V Σ⁻¹ (UᵀSᵀSU)⁻¹ UᵀSᵀS r."""
    A, b, _ = problem()
    U, sigma, Vt = np.linalg.svd(A, full_matrices=False)
    S = HadamardSketch(70, seed=2).bind(400).matrix(dtype=torch.float64).to_dense().numpy()
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    SU, Sr = S @ U, S @ (b - A @ exact)
    expected = Vt.T @ (np.linalg.inv(SU.T @ SU) @ (SU.T @ Sr) / sigma)
    model = SketchedLeastSquares(HadamardSketch(70, seed=2)).fit(A, b)
    np.testing.assert_allclose(model.coef_ - exact, expected, rtol=1e-6, atol=1e-10)
    low, high = model.distortion(A)
    values = np.linalg.svd(SU, compute_uv=False)
    np.testing.assert_allclose((low, high), (values[-1], values[0]), rtol=1e-8)
    assert model.coordinate_error_bound(0.5)[0] == pytest.approx(
        0.5 / math.sqrt(6) * np.linalg.norm(b - A @ exact) / sigma[-1], rel=0.5
    )


def test_standard_errors_have_students_law_for_a_gaussian_sketch():
    """The squares of (x' − x*)/se have mean ν/(ν − 2), ν = k − d; over seeds, within five standard errors."""
    A, b, _ = problem(n=200, d=4)
    exact, k = np.linalg.lstsq(A, b, rcond=None)[0], 24
    squares = []
    for seed in range(600):
        model = SketchedLeastSquares(GaussianSketch(k, seed=seed)).fit(A, b)
        squares.append(((model.coef_ - exact) / model.coordinate_error_) ** 2)
    squares, nu = np.array(squares).mean(1), k - 4
    z = (squares.mean() - nu / (nu - 2)) / (squares.std() / math.sqrt(len(squares)))
    assert abs(z) < 5


def test_a_dense_sketch_keeps_every_coordinate_and_a_sparse_one_loses_some():
    """Spikes, and the residual on one row: over seeds the 99 % quantile of the ratio, bounded or √d."""
    n, d, k = 512, 16, 128
    A, b = np.eye(n, d), np.zeros(n)
    b[-1] = 1.0
    worst = {}
    for make in (HadamardSketch, PooledHadamardSketch, CountSketch):
        models = [SketchedLeastSquares(make(k, seed=seed)).fit(A, b) for seed in range(150)]
        worst[make] = np.quantile([linf_error_ratio(m.coef_, np.zeros(d), A, b) for m in models], 0.95)
    assert worst[CountSketch] == pytest.approx(math.sqrt(d))
    assert worst[HadamardSketch] < 1.6
    assert worst[PooledHadamardSketch] < 2.0


def test_several_targets_share_a_factor_and_an_intercept_is_a_column_of_ones():
    A, b, _ = problem()
    B = np.stack([b, -2 * b + 3], 1)
    model = SketchedLeastSquares(HadamardSketch(90), fit_intercept=True).fit(A, B)
    single = SketchedLeastSquares(HadamardSketch(90)).fit(np.column_stack([A, np.ones(400)]), b)
    np.testing.assert_allclose(model.coef_[0], single.coef_[:-1], rtol=1e-9)
    assert model.intercept_[0] == pytest.approx(single.coef_[-1])
    assert model.intercept_[1] == pytest.approx(3 - 2 * single.coef_[-1])
    np.testing.assert_allclose(model.predict(A)[:, 0], single.predict(np.column_stack([A, np.ones(400)])), rtol=1e-9)
    np.testing.assert_allclose(model.coordinate_error_[0], single.coordinate_error_[:-1], rtol=1e-8)
    values = np.linalg.svd(
        single.sketch_.matrix(dtype=torch.float64).to_dense().numpy()
        @ np.linalg.qr(np.column_stack([A, np.ones(400)]))[0],
        compute_uv=False,
    )
    np.testing.assert_allclose(model.distortion(A), (values[-1], values[0]), rtol=1e-8)


def test_rows_in_panels_are_sketched_as_rows_at_once(monkeypatch):
    from tangrams.operators import dense_rows

    A, b, _ = problem(n=1000)
    whole = SketchedLeastSquares(HadamardSketch(64)).fit(A, b).coef_
    monkeypatch.setattr(dense_rows.row_panels, "__defaults__", (6 * 8 * 37,))
    panels = SketchedLeastSquares(HadamardSketch(64)).fit(FeatureMatrix(rows=torch.from_numpy(A)), b).coef_
    np.testing.assert_allclose(panels, whole, rtol=1e-9)


def test_refinements_reach_the_exact_answer():
    A, b, _ = problem(n=800, d=10)
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    errors = []
    for steps in (0, 4, 30):
        model = SketchedLeastSquares(HadamardSketch(100), fit_intercept=False, refinements=steps).fit(A, b)
        errors.append(np.linalg.norm(model.coef_ - exact) / np.linalg.norm(exact))
    assert errors[1] < 0.1 * errors[0]
    assert errors[2] < 1e-12
    ones = SketchedLeastSquares(HadamardSketch(100), fit_intercept=True, refinements=30).fit(A, b + 5)
    full = np.linalg.lstsq(np.column_stack([A, np.ones(800)]), b + 5, rcond=None)[0]
    np.testing.assert_allclose(np.append(ones.coef_, ones.intercept_), full, rtol=1e-9)


def test_a_kronecker_design_is_solved_through_its_sketched_factors():
    rng = np.random.default_rng(0)
    A1, A2 = rng.standard_normal((40, 3)), rng.standard_normal((30, 2))
    A = np.kron(A1, A2)
    b = A @ rng.standard_normal(6) + 0.1 * rng.standard_normal(1200)
    S = TensorHadamardSketch(300, seed=0).bind((Column("rows", (40, 30), 0, 1200),))
    SA = S.project_kronecker(torch.from_numpy(A1), torch.from_numpy(A2))
    solution = sketched_lstsq(SA, S.project(torch.from_numpy(b[None])).mT)
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    z = (solution.coef[:, 0].numpy() - exact) / solution.standard_error()[:, 0].numpy()
    assert np.abs(z).max() < 5
    assert np.linalg.norm(solution.coef[:, 0].numpy() - exact) < 0.1


def test_scipys_count_sketch_is_as_heavy_tailed_as_ours():
    """The independent implementation: Clarkson and Woodruff's transform in SciPy, on the spiked problem."""
    n, d, k, draws = 512, 16, 128, 300
    A = np.eye(n, d)
    b = np.zeros(n)
    b[-1] = 1.0
    lost = 0
    for seed in range(draws):
        sketched = scipy.linalg.clarkson_woodruff_transform(np.column_stack([A, b]), k, rng=seed)
        lost += np.abs(np.linalg.lstsq(sketched[:, :d], sketched[:, d], rcond=None)[0]).max() > 0.4
    ours = sum(
        np.abs(SketchedLeastSquares(CountSketch(k, seed=seed)).fit(A, b).coef_).max() > 0.4 for seed in range(draws)
    )
    expected, spread = draws * d / k, 5 * math.sqrt(draws * d / k)
    assert abs(ours - expected) < spread
    assert abs(lost - expected) < spread + 12  # SciPy's own columns collide, too


def test_the_ratio_is_the_papers_epsilon():
    A, b, _ = problem()
    exact = np.linalg.lstsq(A, b, rcond=None)[0]
    moved = exact + np.array([0, 0, 0.1, 0, 0, 0])
    expected = math.sqrt(6) * 0.1 * np.linalg.svd(A, compute_uv=False)[-1] / np.linalg.norm(A @ exact - b)
    assert linf_error_ratio(moved, exact, A, b) == pytest.approx(expected)
    assert linf_error_ratio(np.ones(6), np.ones(6), A, A @ np.ones(6)) == 0
    with pytest.raises(ValueError, match="range of A"):
        linf_error_ratio(np.eye(6)[0] * 2, np.eye(6)[0], np.eye(8, 6), np.eye(8, 6)[:, 0])


@pytest.mark.parametrize(
    ("fit", "error", "match"),
    [
        (lambda A, b: SketchedLeastSquares(CountSketch(5)).fit(A, b), ValueError, "6 coefficients"),
        (lambda A, b: SketchedLeastSquares("srht").fit(A, b), ValueError, "expects a Sketch"),
        (lambda A, b: SketchedLeastSquares(epsilon=2.0).fit(A, b), ValueError, "epsilon"),
        (lambda A, b: SketchedLeastSquares(CountSketch(99)).fit(A[:, [0, 0]], b), RankDeficientSketchError, "rank 1"),
        (lambda A, b: SketchedLeastSquares(CountSketch(99)).fit(A, b * np.nan), ValueError, "NaN"),
        (lambda A, b: sketched_lstsq(torch.ones(2, 3), torch.ones(2, 1)), ValueError, "as many rows"),
    ],
)
def test_bad_input_is_named(fit, error, match):
    A, b, _ = problem()
    with pytest.raises(error, match=match):
        fit(A, b)


TestSketchedLeastSquares = estimator_conformance(
    Case(SketchedLeastSquares),
    Case(
        lambda: SketchedLeastSquares(HadamardSketch(12), fit_intercept=True, refinements=2),
        name="sketched-12-of-24",
        excuses={"check_stored_rows_are_never_held_whole": "a sketch of 12 rows cannot fit more coefficients than 12"},
    ),
)
