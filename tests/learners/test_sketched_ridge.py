"""Sketched ridge ensembles: identities, scikit-learn at full size, the theory, intervals."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from tangrams.learners import (
    DegenerateGCVWarning,
    SketchedRidgeEnsemble,
    equivalent_penalty,
    row_sketched_gcv,
    sign_error,
    sketching_excess,
    squared_error,
)
from tangrams.operators import (
    Column,
    CosineSketch,
    CountSketch,
    FeatureMatrix,
    GaussianSketch,
    HadamardSketch,
    OrthogonalSketch,
    SparseSketch,
    TensorSketch,
)
from tangrams.testing.conformance import Case
from tangrams.testing.suites.estimator import estimator_conformance

FAMILIES = {
    "Gaussian": GaussianSketch,
    "orthogonal": OrthogonalSketch,
    "cosine": CosineSketch,
    "Hadamard": HadamardSketch,
    "stacked count": partial(SparseSketch, nonzeros=32),
}


def problem(n=80, p=30, noise=0.5, seed=0):
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(n, p, generator=g, dtype=torch.float64) * torch.linspace(0.3, 2, p) + 1
    beta = torch.randn(p, generator=g, dtype=torch.float64) / math.sqrt(p)
    return X, X @ beta + noise * torch.randn(n, generator=g, dtype=torch.float64) - 3


@pytest.mark.parametrize("make", [OrthogonalSketch, CosineSketch])
@pytest.mark.parametrize("intercept", [False, True])
def test_a_full_rotation_is_ridge_regression_with_its_cross_validation(make, intercept):
    X, y = problem()
    penalty = 0.1
    model = SketchedRidgeEnsemble(make(30), penalty=penalty, n_estimators=1, fit_intercept=intercept).fit(X, y)
    peer = Ridge(alpha=80 * penalty, fit_intercept=intercept).fit(X.numpy(), y.numpy())
    np.testing.assert_allclose(model.coef_, peer.coef_, rtol=1e-8)
    np.testing.assert_allclose(model.predict(X), peer.predict(X.numpy()), rtol=1e-8)
    A = torch.cat([X, torch.ones(80, int(intercept), dtype=torch.float64)], 1)
    D = torch.diag(torch.tensor([8.0] * 30 + [0.0] * int(intercept), dtype=torch.float64))
    hat = A @ torch.linalg.inv(A.mT @ A + D) @ A.mT
    free = 1 - float(hat.diagonal().sum()) / 80
    assert model.gcv_score() == pytest.approx(float((y - hat @ y).square().mean()) / free**2, rel=1e-8)
    assert model.equivalent_ridge() == pytest.approx(penalty, rel=1e-8)
    assert model.effective_dof_ == pytest.approx(float(hat.diagonal().sum()))


def test_scikit_learns_cross_validation_chooses_the_same_penalty_without_a_sketch():
    """RidgeCV leaves one out; its generalised form differs little: the same choice on a coarse grid."""
    X, y = problem()
    penalties = np.logspace(-3, 2, 6)
    model = SketchedRidgeEnsemble(OrthogonalSketch(30), penalty=penalties, n_estimators=1).fit(X, y)
    peer = RidgeCV(alphas=80 * penalties).fit(X.numpy(), y.numpy())
    assert model.penalty_ * 80 == pytest.approx(peer.alpha_)
    assert model.risk_path_.shape == (1, 6)


def test_members_are_the_papers_formula():
    X, y = problem()
    model = SketchedRidgeEnsemble(GaussianSketch(12), penalty=0.2, n_estimators=3, fit_intercept=False).fit(X, y)
    coefs = []
    for k in range(3):
        S = GaussianSketch(12, seed=k).bind(30).matrix(dtype=torch.float64).to_dense()
        A = S @ X.mT @ X @ S.mT / 80 + 0.2 * torch.eye(12, dtype=torch.float64)
        coefs.append(S.mT @ torch.linalg.inv(A) @ S @ X.mT @ y / 80)
    np.testing.assert_allclose(model.coef_, torch.stack(coefs).mean(0).numpy(), rtol=1e-8)
    np.testing.assert_allclose(model.coef_, torch.stack(coefs[::-1]).mean(0).numpy(), rtol=1e-8)


@pytest.mark.parametrize("intercept", [False, True])
def test_corrected_residuals_are_the_residuals_over_the_free_share_and_give_the_closed_form(intercept):
    X, y = problem()
    model = SketchedRidgeEnsemble(CosineSketch(12), penalty=0.2, fit_intercept=intercept).fit(X, y)
    free = 1 - model.effective_dof_ / 80
    residuals = y.numpy() - model.predict(X)
    np.testing.assert_allclose(y.numpy() - model.corrected_predictions_, residuals / free, rtol=1e-8)
    closed = (residuals**2).mean() / free**2
    assert model.gcv_score() == pytest.approx(closed, rel=1e-10)
    assert model.gcv_score(lambda t, z: (t - z) ** 2) == pytest.approx(closed, rel=1e-10)
    assert model.risk_path_[0, 0] == pytest.approx(closed, rel=1e-10)


def test_another_penalty_is_a_fresh_fit():
    X, y = problem()
    model = SketchedRidgeEnsemble(CosineSketch(12), penalty=[0.1, 1.0]).fit(X, y).refit(0.7)
    fresh = SketchedRidgeEnsemble(CosineSketch(12), penalty=0.7).fit(X, y)
    np.testing.assert_allclose(model.coef_, fresh.coef_, rtol=1e-12)
    assert model.gcv_score() == pytest.approx(fresh.gcv_score())
    assert model.intercept_ == pytest.approx(fresh.intercept_)


def test_the_features_are_read_once_for_all_candidates():
    X, y = problem()
    reads = []

    class Counting(type(FeatureMatrix(rows=X).rows)):
        def project(self, sketch):
            reads.append(sketch.num_features)
            return super().project(sketch)

    model = SketchedRidgeEnsemble([CosineSketch(8), CountSketch(16)], penalty=[0.1, 1.0], n_estimators=3)
    model.fit(FeatureMatrix(rows=Counting(X)), y)
    assert reads == [3 * (8 + 16)]
    assert model.risk_path_.shape == (2, 2)
    best = np.unravel_index(model.risk_path_.argmin(), (2, 2))
    assert type(model.sketch_) is [CosineSketch, CountSketch][best[0]]
    assert model.penalty_ == [0.1, 1.0][best[1]]
    dense = SketchedRidgeEnsemble([CosineSketch(8), CountSketch(16)], penalty=[0.1, 1.0], n_estimators=3).fit(X, y)
    np.testing.assert_allclose(model.coef_, dense.coef_, rtol=1e-9)


def test_a_sketch_bound_to_the_shapes_of_the_features_is_used_as_it_is():
    X, y = problem()
    columns = (Column("w", (5, 6), 0, 30),)
    model = SketchedRidgeEnsemble(TensorSketch(20).bind(columns), penalty=0.1, n_estimators=2).fit(X, y)
    assert model.sketch_.columns == columns


def covariance_problem(n=300, p=400, seed=0):
    g = torch.Generator().manual_seed(seed)
    a = 2 / (1 + 30 * torch.arange(p, dtype=torch.float64) / p)
    beta = torch.randn(p, generator=g, dtype=torch.float64) / math.sqrt(p)
    X = torch.randn(n, p, generator=g, dtype=torch.float64) * a.sqrt()
    return X, X @ beta + 2 * torch.randn(n, generator=g, dtype=torch.float64), a, beta


@pytest.mark.parametrize("family", FAMILIES)
def test_the_equivalent_ridge_has_the_degrees_of_freedom_of_the_sketched_one(family):
    """From the data's spectrum and from the sketched design: one μ, and d is that of ridge at μ."""
    p = 512 if family == "Hadamard" else 400  # columns of a padded Hadamard matrix are not free of its rows
    X, y, _, _ = covariance_problem(p=p)
    c = torch.linalg.svdvals(X).square() / 300
    for q, penalty in ((100, 0.5), (250, 0.05), (100, 1e-3)):
        sketch = FAMILIES[family](q)
        mu = equivalent_penalty(c, sketch.bind(p), penalty)
        model = SketchedRidgeEnsemble(sketch, penalty=penalty, n_estimators=4, fit_intercept=False).fit(X, y)
        assert model.equivalent_ridge() == pytest.approx(mu, rel=0.05)
        assert model.effective_dof_ == pytest.approx(float((c / (c + mu)).sum()), rel=0.03)
        path = [model.equivalent_ridge(value) for value in (1e-3, 1e-2, 0.1, 1.0)]
        assert path == sorted(path)


@pytest.mark.parametrize(("k", "p", "m"), [(40, 100, 128), (100, 100, 128), (60, 60, 64)])
def test_a_part_of_a_rotation_lies_between_independent_entries_and_a_rotation(k, p, m):
    """The S-transform of a corner of a projection, ω = p/m, against the spectrum of one: trace of ``(SᵀS + 1)⁻¹``."""
    g = torch.Generator().manual_seed(0)
    traces = []
    for _ in range(40):
        Q = torch.linalg.qr(torch.randn(m, k, generator=g, dtype=torch.float64)).Q[:p] * math.sqrt(m / k)
        traces.append(float(torch.linalg.inv(Q @ Q.mT + torch.eye(p, dtype=torch.float64)).diagonal().mean()))
    # C = I: S^T (S S^T + λ)⁻¹ S ≈ (1 + μ)⁻¹ I, so that tr SᵀS (SᵀS + λ)⁻¹ / p = 1 / (1 + μ).
    sketch = HadamardSketch(k).bind(p)
    assert sketch.orthogonality == p / m
    mu = equivalent_penalty(torch.ones(p), sketch, 1.0)
    assert 1 - np.mean(traces) == pytest.approx(1 / (1 + mu), rel=5e-3)


def test_at_no_penalty_the_equivalent_ridge_is_the_limit():
    X, y, _, _ = covariance_problem()
    for make, share in ((OrthogonalSketch, 1 - 100 / 400), (GaussianSketch, 1.0)):
        model = SketchedRidgeEnsemble(make(100), penalty=0.0, n_estimators=2, fit_intercept=False).fit(X, y)
        means = []
        for k in range(2):
            Z = make(100, seed=k).bind(400).project(X)
            means.append(share / float((1 / torch.linalg.eigvalsh(Z.mT @ Z / 300)).mean()))
        assert model.equivalent_ridge() == pytest.approx(np.mean(means), rel=1e-6)
        assert model.equivalent_ridge(1e-9) == pytest.approx(model.equivalent_ridge(), rel=1e-5)


@pytest.mark.parametrize("family", ["Gaussian", "cosine", "Hadamard"])
def test_sketching_adds_the_stated_excess_over_the_number_of_members(family):
    """Averaged over problems and draws, within five standard errors and 8 %."""
    gaps = []
    for seed in range(12):
        X, y, a, beta = covariance_problem(seed=seed)
        sketch = FAMILIES[family](100)
        C, mu = X.mT @ X / 300, equivalent_penalty(torch.linalg.svdvals(X).square() / 300, sketch.bind(400), 0.5)
        ridge = torch.linalg.lstsq(C + mu * torch.eye(400, dtype=torch.float64), (X.mT @ y / 300)[:, None]).solution

        def risk(b, a=a, beta=beta):
            return float((a * (torch.as_tensor(b).flatten() - beta).square()).sum())

        V = sketching_excess(X, y, sketch.bind(400), 0.5, torch.diag(a))
        for K in (1, 3):
            model = SketchedRidgeEnsemble(sketch, penalty=0.5, n_estimators=K, fit_intercept=False, random_state=seed)
            gaps.append((K * (risk(model.fit(X, y).coef_) - risk(ridge)) / V, K))
    for K in (1, 3):
        ratios = np.array([ratio for ratio, k in gaps if k == K])
        assert abs(ratios.mean() - 1) < 5 * ratios.std() / math.sqrt(12) + 0.08
        assert ratios.std() < 0.6


def test_the_ensemble_trick_reaches_the_cross_validation_of_unsketched_ridge():
    """Over problems: from two members the estimate at infinity, against ridge regression at μ on all features."""
    found = []
    for seed in range(15):
        X, y, _, _ = covariance_problem(seed=seed)
        model = SketchedRidgeEnsemble(
            OrthogonalSketch(150), penalty=0.3, n_estimators=2, fit_intercept=False, random_state=seed
        ).fit(X, y)
        full = SketchedRidgeEnsemble(
            OrthogonalSketch(400), penalty=model.equivalent_ridge(), n_estimators=1, fit_intercept=False
        ).fit(X, y)
        alone = np.mean([model._risk([design], 0.3, squared_error) for design in model._designs])
        found.append((model.unsketched_gcv() / full.gcv_score() - 1, alone / full.gcv_score() - 1))
    trick, alone = np.array(found).T
    assert abs(trick.mean()) < 0.01 + 5 * trick.std() / math.sqrt(15)
    assert alone.mean() > 0.03
    assert abs(trick.mean()) < 0.3 * alone.mean()


def test_cross_validation_estimates_the_risk_and_intervals_cover():
    """Risk and coverage on new samples, averaged over problems; a skewed target, so that no Gaussian interval fits."""
    gaps, covered = [], []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        X = torch.randn(1300, 200, generator=g, dtype=torch.float64)
        signal = X @ torch.randn(200, generator=g, dtype=torch.float64) / math.sqrt(200)
        y = signal + torch.empty(1300, dtype=torch.float64).exponential_(generator=g)
        model = SketchedRidgeEnsemble(CosineSketch(80), penalty=1e-6).fit(X[:300], y[:300])
        errors = y[300:].numpy() - model.predict(X[300:])
        gaps.append(model.gcv_score() / np.mean(errors**2) - 1)
        low, high = model.prediction_interval(X[300:], 0.9)
        covered.append(np.mean((low <= y[300:].numpy()) & (y[300:].numpy() <= high)))
    gaps, covered = np.array(gaps), np.array(covered)
    assert abs(gaps.mean()) < 0.02 + 3 * gaps.std() / math.sqrt(8)
    assert covered.mean() == pytest.approx(0.9, abs=0.02)


def test_any_risk_is_estimated_and_minimised():
    """The classification error of the sign of the corrected predictions, against that on new samples."""
    gaps = []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        X = torch.randn(2400, 150, generator=g, dtype=torch.float64)
        y = torch.sign(
            X @ torch.randn(150, generator=g, dtype=torch.float64) + 5 * torch.randn(2400, generator=g).double()
        )
        model = SketchedRidgeEnsemble(CosineSketch(60), penalty=[0.1, 1.0, 10.0], risk=sign_error).fit(X[:400], y[:400])
        assert model.gcv_score() == pytest.approx(model.risk_path_.min())
        gaps.append(model.gcv_score() - np.mean(sign_error(y[400:].numpy(), model.predict(X[400:]))))
    assert abs(np.mean(gaps)) < 0.03


@pytest.mark.parametrize("subsample", [False, True])
def test_rows_that_were_sketched_need_the_corrected_formula(subsample):
    """Ridge on (T X, T y), over problems: the plain formula is biased by a tenth, the corrected one is not."""
    plain, corrected = [], []
    n, p, m, penalty, K = 400, 130, 200, 0.05, 2
    for seed in range(40):
        g = torch.Generator().manual_seed(seed)
        X = torch.randn(n, p, generator=g, dtype=torch.float64)
        beta = torch.randn(p, generator=g, dtype=torch.float64) / math.sqrt(p)
        y = X @ beta + torch.randn(n, generator=g, dtype=torch.float64)
        coefs, dofs = [], []
        for k in range(K):
            if subsample:
                index = torch.randperm(n, generator=g)[:m]
                TX, Ty = X[index] * math.sqrt(n / m), y[index] * math.sqrt(n / m)
            else:
                T = CosineSketch(m, seed=seed * K + k).bind(n)
                TX, Ty = T.project(X.mT).mT, T.project(y[None])[0]
            A = TX.mT @ TX / n + penalty * torch.eye(p, dtype=torch.float64)
            coefs.append(torch.linalg.inv(A) @ (TX.mT @ Ty) / n)
            dofs.append(float(torch.linalg.inv(A).mul(TX.mT @ TX / n).sum()))
        b = torch.stack(coefs).mean(0)
        risk = float((b - beta).square().sum()) + 1
        residuals = [y - X @ coef for coef in coefs]
        plain.append(float((y - X @ b).square().mean()) / (1 - np.mean(dofs) / n) ** 2 / risk - 1)
        corrected.append(row_sketched_gcv(y - X @ b, residuals, dofs, m) / risk - 1)
    plain, corrected = np.array(plain), np.array(corrected)
    assert plain.mean() > 4 * plain.std() / math.sqrt(40)
    assert abs(corrected.mean()) < 3 * corrected.std() / math.sqrt(40)
    with pytest.raises(ValueError, match="2 members and 1 traces"):
        row_sketched_gcv(y, residuals, [1.0], m)


def test_an_interpolating_fit_has_no_cross_validation():
    X, y = problem(n=20, p=40)
    model = SketchedRidgeEnsemble(CosineSketch(40), penalty=1e-12, fit_intercept=False).fit(X, y)
    with pytest.warns(DegenerateGCVWarning, match="0/0"):
        assert math.isnan(model.gcv_score())
    with pytest.raises(ValueError, match="knows no residuals"):
        model.prediction_interval(X)
    with pytest.warns(DegenerateGCVWarning, match="every candidate"):
        both = SketchedRidgeEnsemble(CosineSketch(40), penalty=[1e-12, 1e-13], fit_intercept=False).fit(X, y)
    assert both.penalty_ == 1e-12
    mixed = SketchedRidgeEnsemble(CosineSketch(40), penalty=[1e-12, 1.0], fit_intercept=False).fit(X, y)
    assert mixed.penalty_ == 1.0


def test_a_negative_penalty_is_legal_down_to_the_smallest_eigenvalue():
    X, y = problem()
    Z = OrthogonalSketch(30).bind(30).project(X - X.mean(0))
    least = float(torch.linalg.eigvalsh(Z.mT @ Z / 80)[0])
    SketchedRidgeEnsemble(OrthogonalSketch(30), penalty=-0.9 * least).fit(X, y)
    with pytest.raises(ValueError, match="smallest eigenvalue"):
        SketchedRidgeEnsemble(OrthogonalSketch(30), penalty=-1.1 * least).fit(X, y)
    model = SketchedRidgeEnsemble(OrthogonalSketch(30), penalty=0.1).fit(X, y)
    with pytest.raises(ValueError, match="smallest eigenvalue"):
        model.refit(-1.1 * least)
    assert model.penalty_ == 0.1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: SketchedRidgeEnsemble(n_estimators=0), "n_estimators"),
        (lambda: SketchedRidgeEnsemble("srdct"), "expects a Sketch"),
        (lambda: SketchedRidgeEnsemble([]), "expects a Sketch"),
    ],
)
def test_bad_input_is_named(make, match):
    X, y = problem()
    with pytest.raises(ValueError, match=match):
        make().fit(X, y)
    model = SketchedRidgeEnsemble(CosineSketch(5), n_estimators=1, penalty=1.0).fit(X, y)
    with pytest.raises(ValueError, match="two members"):
        model.unsketched_gcv()
    with pytest.raises(ValueError, match="level"):
        model.prediction_interval(X, 1.5)
    with pytest.raises(ValueError, match="positive penalty"):
        equivalent_penalty(torch.ones(3), CosineSketch(5).bind(30), 0.0)


TestSketchedRidge = estimator_conformance(
    Case(
        lambda: SketchedRidgeEnsemble(n_estimators=2),
        excuses={"check_stored_rows_are_never_held_whole": "a sketch reads the columns, not inner products alone"},
    ),
    Case(
        lambda: SketchedRidgeEnsemble(SparseSketch(9), penalty=1e-3, n_estimators=1),
        name="SketchedRidgeEnsemble-fixed",
        excuses={"check_stored_rows_are_never_held_whole": "a sketch reads the columns, not inner products alone"},
    ),
)
