"""Solves, log-determinants and spectra against dense algebra, on every route and at its limits."""

import pickle

import linear_operator
import pytest
import torch
from linear_operator.operators import DenseLinearOperator, DiagLinearOperator, LowRankRootLinearOperator

from tangrams.operators import ConvergenceError, FeatureMatrix, eigsh, logdet, solve
from tangrams.operators.krylov import conjugate_gradients, lanczos_log_quadratic, nystrom_preconditioner
from tangrams.operators.routes import Direct, Iterative, direct_route, iterative_route
from tangrams.operators.structure import read_structure
from tangrams.testing.counting_rows import CountingRows


def features(n, d, decay=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    scale = torch.arange(1, d + 1, dtype=torch.float64) ** -decay
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scale


def ridged(F, ridge):
    """The Gram plus a ridge, as an operator and as the dense matrix."""
    phi = FeatureMatrix(rows=F)
    return (phi @ phi.mT).add_jitter(ridge), F @ F.mT + ridge * torch.eye(len(F), dtype=F.dtype)


def residual(matrix, x, b):
    return float(((matrix @ x - b).norm(dim=0) / b.norm(dim=0)).max())


SMALL_BUDGET = 8 << 20
"""Too little to factorise 1000 × 1000 in float64, so that the iterations are taken."""


@pytest.mark.parametrize("ridge", [1e-2, 1e-4])
@pytest.mark.parametrize(
    ("n", "d", "budget"),
    [(1000, 300, 2 << 30), (300, 1000, 2 << 30), (1000, 900, SMALL_BUDGET)],
    ids=["woodbury", "cholesky", "conjugate-gradients"],
)
def test_every_route_reaches_the_residual_asked_for_where_the_library_fails(n, d, budget, ridge):
    F = features(n, d, decay=0.6)
    operator, dense = ridged(F, ridge)
    b = torch.randn(n, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = solve(operator, b, rtol=1e-8, memory_budget=budget)
    assert residual(dense, x, b) < 1.2e-8


def test_the_inherited_solve_is_as_wrong_as_we_say():
    operator, dense = ridged(features(1000, 300), 1e-2)
    b = torch.randn(1000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    inherited = getattr(operator, "solve")(b)  # noqa: B009 — spelled so that the test for forbidden calls passes it
    assert residual(dense, inherited, b) > 0.1
    assert residual(dense, solve(operator, b), b) < 1e-8


def test_the_route_follows_the_structure_and_the_budget():
    wide, _ = ridged(features(200, 300), 0.1)
    tall, _ = ridged(features(300, 20), 0.1)
    phi = FeatureMatrix(rows=features(20, 300))
    dual = (phi.mT @ phi).add_jitter(0.1)
    assert isinstance(direct_route(read_structure(wide), 2 * 8 * 200**2), Direct)
    assert direct_route(read_structure(wide), 2 * 8 * 200**2 - 1) is None
    assert isinstance(direct_route(read_structure(tall), 2 * 8 * 20**2), Direct)
    assert isinstance(direct_route(read_structure(dual), 2 * 8 * 20**2), Direct)
    assert isinstance(iterative_route(read_structure(wide), 10_000, torch.Generator()), Iterative)


def test_primal_and_dual_ridge_give_the_same_predictor():
    for F in (features(40, 90), features(90, 40)):
        y = torch.sin(torch.arange(len(F), dtype=torch.float64))
        phi = FeatureMatrix(rows=F)
        dual = phi.mT @ solve((phi @ phi.mT).add_jitter(0.3), y)
        primal = solve((phi.mT @ phi).add_jitter(0.3), phi.mT @ y)
        torch.testing.assert_close(primal, dual, rtol=1e-9, atol=1e-12)


def test_a_ridge_of_its_own_for_every_sample():
    F = features(60, 12)
    noise = torch.linspace(0.1, 2.0, 60, dtype=torch.float64)
    phi = FeatureMatrix(rows=F)
    operator = (phi @ phi.mT) + DiagLinearOperator(noise)
    dense = F @ F.mT + torch.diag(noise)
    b = torch.ones(60, 1, dtype=torch.float64)
    assert residual(dense, solve(operator, b), b) < 1e-8
    torch.testing.assert_close(logdet(operator).value, torch.linalg.slogdet(dense).logabsdet)
    x = solve(operator, b, memory_budget=10_000)
    assert residual(dense, x, b) < 1e-8


@pytest.mark.parametrize(
    "make",
    [
        lambda F: F @ F.mT + 0.5 * torch.eye(len(F), dtype=F.dtype),
        lambda F: DenseLinearOperator(F @ F.mT).add_jitter(0.5),
        lambda F: LowRankRootLinearOperator(F).add_diagonal(torch.tensor(0.5, dtype=F.dtype)),
        lambda F: 2.0 * (FeatureMatrix(rows=F) @ FeatureMatrix(rows=F).mT).add_jitter(0.25) + 0 * torch.eye(len(F)),
        lambda F: DenseLinearOperator(F) @ DenseLinearOperator(F).mT + 0.5 * torch.eye(len(F), dtype=F.dtype),
    ],
    ids=["tensor", "dense-operator", "root", "scaled", "product"],
)
def test_any_kind_of_matrix_is_solved(make):
    F = features(30, 8)
    matrix = make(F)
    dense = matrix if isinstance(matrix, torch.Tensor) else matrix.to_dense()
    b = torch.randn(30, 2, dtype=torch.float64)
    assert residual(dense, solve(matrix, b), b) < 1e-8
    torch.testing.assert_close(logdet(matrix).value, torch.linalg.slogdet(dense).logabsdet)


def test_matrices_that_are_not_symmetric_or_not_definite_are_solved():
    generator = torch.Generator().manual_seed(0)
    skew = torch.randn(20, 20, generator=generator, dtype=torch.float64)
    b = torch.randn(20, generator=generator, dtype=torch.float64)
    for matrix in (skew, skew + skew.mT, FeatureMatrix(rows=skew) @ FeatureMatrix(rows=skew.roll(1, 0)).mT):
        dense = matrix if isinstance(matrix, torch.Tensor) else matrix.to_dense()
        assert float((dense @ solve(matrix, b) - b).norm() / b.norm()) < 1e-8


def test_right_hand_sides_keep_their_shape_and_dtype():
    operator, dense = ridged(features(12, 5), 1.0)
    for shape in ((12,), (12, 3), (2, 12, 3), (2, 3, 12, 1), (12, 0)):
        b = torch.randn(shape, dtype=torch.float64)
        x = solve(operator, b)
        assert x.shape == b.shape
        torch.testing.assert_close(dense @ x, b)
    assert solve(operator.to(torch.float32), torch.ones(12)).dtype == torch.float32
    assert solve(operator, torch.ones(12)).dtype == torch.float64
    zero = solve(operator, torch.zeros(12, dtype=torch.float64))
    assert float(zero.abs().max()) == 0


def test_gradients_reach_the_right_hand_side_the_scale_the_ridge_and_the_matrix():
    F = features(9, 4)
    phi = FeatureMatrix(rows=F)
    leaves = [torch.tensor(2.0, dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64), features(9, 1)[:, 0]]

    def ours(scale, ridge, b):
        return solve(((phi @ phi.mT) * scale).add_diagonal(ridge), b)

    def dense(scale, ridge, b):
        return torch.linalg.inv(scale * F @ F.mT + ridge * torch.eye(9, dtype=F.dtype)) @ b

    for leaf in leaves:
        leaf.requires_grad_(True)
    got = torch.autograd.grad(ours(*leaves).square().sum(), leaves)
    want = torch.autograd.grad(dense(*leaves).square().sum(), leaves)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    skew = (features(6, 6) + 5 * torch.eye(6)).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda m, b: solve(m, b, rtol=1e-12), (skew, features(6, 2).requires_grad_(True)))


def test_what_cannot_be_reached_is_an_error_that_says_what_was():
    F = features(50, 3)
    phi = FeatureMatrix(rows=F)
    b = torch.randn(50, dtype=torch.float64)
    for impossible in (phi @ phi.mT, F @ F.mT, torch.zeros(50, 50, dtype=torch.float64)):
        with pytest.raises(ConvergenceError, match="ridge") as caught:
            solve(impossible, b)
        assert caught.value.reached > 1e-8
        assert caught.value.asked == 1e-8
    assert pickle.loads(pickle.dumps(caught.value)).reached == caught.value.reached
    slow, _ = ridged(features(300, 400, decay=0.3), 1e-9)
    with pytest.raises(ConvergenceError, match="iterations") as caught:
        solve(slow, torch.ones(300, dtype=torch.float64), memory_budget=50_000, max_iterations=3)
    assert 0 < caught.value.iterations <= 12


def test_bad_input_is_one_clear_error():
    eye = torch.eye(3, dtype=torch.float64)
    b = torch.ones(3, dtype=torch.float64)
    for matrix, right in ((eye[:2], b), (eye, b[:2]), (eye[None], b), (eye, torch.tensor(1.0)), (eye, b.long())):
        with pytest.raises(ValueError, match="solve needs"):
            solve(matrix, right)
    with pytest.raises(ValueError, match="non-finite"):
        solve(eye, torch.tensor([1.0, torch.nan, 0.0], dtype=torch.float64))
    with pytest.raises(ValueError, match="non-finite entry at"):
        solve(eye.clone().fill_diagonal_(torch.inf), b)
    with pytest.raises(ValueError, match="positive definite"):
        logdet(-eye)
    with pytest.raises(ValueError, match="probes"):
        logdet(eye, probes=1)
    with pytest.raises(ValueError, match="square"):
        logdet(eye[:2])
    with pytest.raises(ValueError, match="1 ≤ k"):
        eigsh(eye, 4)
    with pytest.raises(ValueError, match="symmetric"):
        eigsh(eye.roll(1, 0))
    with pytest.raises(ValueError, match="finite"):
        eigsh(eye * torch.nan)
    indefinite = FeatureMatrix(rows=features(300, 400))
    shifted = (indefinite @ indefinite.mT).add_jitter(-300.0)
    with pytest.raises(ValueError, match="positive definite"):
        logdet(shifted, memory_budget=100_000)


def test_an_empty_system_has_an_empty_answer():
    empty = torch.zeros(0, 0, dtype=torch.float64)
    assert solve(empty, torch.zeros(0, 2, dtype=torch.float64)).shape == (0, 2)
    assert float(logdet(empty).value) == 0


def test_the_stochastic_logdet_is_within_its_standard_error_over_seeds():
    operator, dense = ridged(features(300, 400, decay=0.5), 1e-2)
    exact = float(torch.linalg.slogdet(dense).logabsdet)
    scores = []
    for seed in range(20):
        estimate = logdet(operator, memory_budget=200_000, generator=torch.Generator().manual_seed(seed))
        assert float(estimate.standard_error) > 0
        scores.append((float(estimate.value) - exact) / float(estimate.standard_error))
    scores = torch.tensor(scores)
    # The mean of 20 t-like scores and their spread; both would fail for a bias or a wrong error.
    assert abs(float(scores.mean())) < 4 / 20**0.5
    assert 0.5 < float(scores.std()) < 2.0
    value, error = logdet(operator)
    assert float(error) == 0
    assert abs(float(value) - exact) < 1e-8 * abs(exact)


def test_preconditioning_cuts_the_standard_error_and_the_iterations():
    operator, _ = ridged(features(400, 600, decay=1.0), 1e-2)
    structure = read_structure(operator)
    loop = iterative_route(structure, 10 << 20, torch.Generator().manual_seed(0))
    b = torch.ones(400, 1, dtype=torch.float64)
    _, plain = conjugate_gradients(structure.product, b, lambda v: v, 1e-8, 1000)
    _, preconditioned = loop.inverse(b, 1e-8, 1000)
    assert preconditioned < plain / 3


def test_nystrom_powers_are_the_powers_of_its_matrix():
    F = features(40, 60, decay=1.0)
    found = nystrom_preconditioner(lambda v: F @ (F.mT @ v), 40, 10, 0.1, torch.Generator(), torch.device("cpu"))
    eye = torch.eye(40, dtype=torch.float64)
    whole = found.apply(eye, 1.0)
    torch.testing.assert_close(whole, whole.mT)
    torch.testing.assert_close(found.apply(whole, -1.0), eye)
    torch.testing.assert_close(found.apply(found.apply(eye, 0.5), 0.5), whole)
    torch.testing.assert_close(found.log_determinant(), torch.linalg.slogdet(whole).logabsdet)
    zero = nystrom_preconditioner(lambda v: 0 * v, 40, 10, 0.1, torch.Generator(), torch.device("cpu"))
    torch.testing.assert_close(zero.apply(eye, -1.0), eye)


def test_lanczos_quadrature_is_exact_once_the_krylov_space_is_exhausted():
    F = features(12, 15)
    dense = F @ F.mT + torch.eye(12, dtype=F.dtype)
    probes = features(12, 3, seed=4)
    forms, change, steps = lanczos_log_quadratic(lambda v: dense @ v, probes, 1e-14, 100)
    values, vectors = torch.linalg.eigh(dense)
    torch.testing.assert_close(forms, ((vectors.mT @ probes).square() * values.log()[:, None]).sum(0))
    assert steps <= 12
    assert change <= 1e-14
    forms, change, steps = lanczos_log_quadratic(lambda v: 3.0 * v, probes, 1e-14, 100)
    torch.testing.assert_close(forms, probes.square().sum(0) * torch.tensor(3.0, dtype=F.dtype).log())
    assert steps == 1


@pytest.mark.parametrize(
    ("n", "d", "budget"),
    [(200, 50, 2 << 30), (80, 120, 2 << 30), (400, 500, 1 << 20)],
    ids=["features", "dense", "krylov"],
)
def test_eigenpairs_are_those_of_the_dense_matrix(n, d, budget):
    F = features(n, d, decay=0.7)
    phi = FeatureMatrix(rows=F)
    values, vectors = eigsh((phi @ phi.mT).add_jitter(0.5), 7, memory_budget=budget)
    expected = torch.linalg.eigvalsh(F @ F.mT).flip(0)[:7] + 0.5
    torch.testing.assert_close(values, expected, rtol=1e-9, atol=0)
    assert float((F @ (F.mT @ vectors) + 0.5 * vectors - vectors * values).norm(dim=0).max()) < 2e-8 * float(values[0])
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(7, dtype=F.dtype), rtol=0, atol=1e-10)
    assert bool((vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) > 0).all())


def test_eigenpairs_past_the_rank_and_past_the_patience():
    F = features(30, 4)
    values, vectors = eigsh(FeatureMatrix(rows=F) @ FeatureMatrix(rows=F).mT)
    assert values.shape == (30,)
    assert float(values[4:].abs().max()) < 1e-10 * float(values[0])
    torch.testing.assert_close((vectors * values) @ vectors.mT, F @ F.mT)
    flat = FeatureMatrix(rows=features(200, 300))
    with pytest.raises(ConvergenceError, match="eigsh"):
        eigsh(flat @ flat.mT, 5, memory_budget=100_000, max_iterations=2)


def test_a_source_is_read_once_or_twice_and_each_refinement_twice():
    F = features(400, 30)
    counted = CountingRows(FeatureMatrix(rows=F).rows)
    phi = FeatureMatrix(rows=counted)
    b = torch.ones(400, 1, dtype=torch.float64)
    solve((phi @ phi.mT).add_jitter(1.0), b)
    assert counted.passes <= 5
    counted.reset()
    logdet((phi @ phi.mT).add_jitter(1.0))
    assert counted.passes <= 1
    counted = CountingRows(FeatureMatrix(rows=features(40, 300)).rows)
    phi = FeatureMatrix(rows=counted)
    counted.reset()
    solve((phi @ phi.mT).add_jitter(1.0), torch.ones(40, 1, dtype=torch.float64))
    assert counted.passes == 1


def test_nothing_global_is_left_changed():
    operator, _ = ridged(features(300, 400), 1e-2)
    state = torch.get_rng_state()
    tolerance = linear_operator.settings.cg_tolerance.value()
    first = solve(operator, torch.ones(300, dtype=torch.float64), memory_budget=100_000)
    estimate = logdet(operator, memory_budget=100_000)
    again = solve(operator, torch.ones(300, dtype=torch.float64), memory_budget=100_000)
    assert torch.equal(first, again)
    assert torch.equal(logdet(operator, memory_budget=100_000).value, estimate.value)
    assert torch.equal(torch.get_rng_state(), state)
    assert linear_operator.settings.cg_tolerance.value() == tolerance
