"""The joint laws of random directions."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from tangrams.features.random import (
    HadamardRotation,
    IIDCoupling,
    OrthogonalCoupling,
    SimplexCoupling,
    SimplexPlusCoupling,
    rf_conformity,
    simplex_matmul,
)
from tangrams.features.random.conformity import equiangular_log_conformity, log_series
from tangrams.features.random.simplex import oppose
from tangrams.features.random.stream import WeightStream

COUPLINGS = [IIDCoupling(), OrthogonalCoupling(), SimplexCoupling(), SimplexPlusCoupling()]
EXACT = pytest.mark.parametrize("coupling", COUPLINGS, ids=lambda c: type(c).__name__)


def groups(coupling, d, count, seed=0):
    """Independent groups of d vectors, ``(count, d, d)``."""
    stream = WeightStream(d, count * d, coupling, seed)
    return stream.rows(0, count * d, torch.empty(0, dtype=torch.float64)).W.reshape(count, d, d)


@pytest.mark.parametrize("d", [2, 3, 7, 64])
def test_simplex_directions_have_equal_pairwise_angles_and_sum_to_zero(d):
    S = simplex_matmul(torch.eye(d, dtype=torch.float64)).mT
    expected = torch.full((d, d), -1 / (d - 1), dtype=torch.float64).fill_diagonal_(1)
    torch.testing.assert_close(S @ S.mT, expected, rtol=0, atol=1e-13)
    assert float(S.sum(0).abs().max()) < 1e-12


def test_simplex_matmul_is_the_product_with_the_directions_of_the_formula():
    d = 9
    S = torch.zeros(d, d, dtype=torch.float64)
    ones = torch.ones(d, dtype=torch.float64)
    ones[-1] = 0
    for i in range(d - 1):
        S[i, i] = math.sqrt(d / (d - 1))
        S[i] -= (math.sqrt(d) + 1) / (d - 1) ** 1.5 * ones
    S[-1] = ones / math.sqrt(d - 1)
    y = torch.randn(2, 5, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(simplex_matmul(y), y @ S.mT, rtol=1e-12, atol=1e-12)


@EXACT
def test_every_vector_is_a_standard_normal_one(coupling):
    d, count = 5, 4000
    W = groups(coupling, d, count)
    mean = W.mean(0) * math.sqrt(count)
    assert float(mean.abs().max()) < 5
    second = torch.einsum("gri,grj->rij", W, W) / count - torch.eye(d)
    deviation = torch.full((d, d), 1.0, dtype=torch.float64).fill_diagonal_(math.sqrt(2)) / math.sqrt(count)
    assert float((second / deviation).abs().max()) < 5
    for row in range(d):  # also rows that were turned last, and entries along fixed directions
        assert stats.kstest(W[:, row].norm(dim=1).numpy(), stats.chi(d).cdf).pvalue > 1e-4
        assert stats.kstest(W[:, row, row % d].numpy(), stats.norm.cdf).pvalue > 1e-4


@EXACT
def test_groups_do_not_depend_on_one_another(coupling):
    W = groups(coupling, 4, 4000).flatten(1)
    product = (W[:-1] * W[1:]).mean(0) * math.sqrt(len(W) - 1)
    assert float(product.abs().max()) < 5


def test_sums_of_pairs_are_as_long_as_the_formula_says():
    d, count = 6, 6000
    mean_chi = math.sqrt(2) * math.exp(math.lgamma((d + 1) / 2) - math.lgamma(d / 2))
    expected = {OrthogonalCoupling: 2 * d, SimplexCoupling: 2 * d - 2 * mean_chi**2 / (d - 1)}
    for member, value in expected.items():
        W = groups(member(), d, count)
        total = W.sum(1).square().sum(1)  # Σ‖w‖² + Σ_{i≠j} w_i·w_j
        pairs = 2 * W.square().sum((1, 2)) / d + 2 * (total - W.square().sum((1, 2))) / (d * (d - 1))
        z = (pairs.mean() - value) / (pairs.std() / math.sqrt(count))
        assert abs(float(z)) < 4


def test_turning_vectors_against_the_others_never_lengthens_their_sum():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(20, 7, 7, generator=generator, dtype=torch.float64)
    norms = [oppose(W, sweeps).sum(1).norm(dim=1) for sweeps in range(6)]
    assert all(bool((after <= before + 1e-9).all()) for before, after in itertools.pairwise(norms))
    turned = oppose(W, 50)
    torch.testing.assert_close(turned.norm(dim=2), W.norm(dim=2), rtol=1e-12, atol=0)
    rest = turned.sum(1, keepdim=True) - turned
    cosine = torch.nn.functional.cosine_similarity(turned, rest, dim=2)
    assert float(cosine.max()) < -0.99


def test_a_vector_whose_others_cancel_keeps_its_direction():
    W = torch.tensor([[[2.0, 0.0], [1.0, 0.0], [-1.0, 0.0]]], dtype=torch.float64)
    turned = oppose(W, 1)
    assert torch.equal(turned[0, 0], W[0, 0])
    assert bool(turned.isfinite().all())


def test_lengths_matter_to_the_weight_dependent_coupling_alone():
    d = 8
    simplex, plus = groups(SimplexCoupling(), d, 200), groups(SimplexPlusCoupling(), d, 200)
    assert float(plus.sum(1).norm(dim=1).mean()) < 0.2 * float(simplex.sum(1).norm(dim=1).mean())


@pytest.mark.parametrize("d", [2, 3, 8, 64])
@pytest.mark.parametrize("square", [0.0, 0.3, 4.0])
def test_conformity_of_orthogonal_directions_has_its_closed_form(d, square):
    from scipy.special import hyp1f1

    found = equiangular_log_conformity(d, 0.0, torch.tensor(square, dtype=torch.float64)).exp()
    assert float(found) == pytest.approx(hyp1f1(d, d / 2, square / 2), rel=1e-10)


@pytest.mark.parametrize(("d", "cosine"), [(2, -1.0), (3, -0.5), (16, -1 / 15), (5, 0.4)])
def test_conformity_of_one_angle_is_the_mean_over_two_lengths(d, cosine):
    square = torch.tensor(1.5, dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    top = math.sqrt(d) + 9
    c = torch.from_numpy((nodes + 1) * top / 2)
    p = torch.from_numpy(weights * stats.chi(d).pdf(c.numpy()) * top / 2)
    s = c[:, None] ** 2 + c[None, :] ** 2 + 2 * cosine * c[:, None] * c[None, :]
    expected = (log_series(None, d / 2, square * s.clamp_min(0) / 4).exp() * p[:, None] * p[None, :]).sum()
    found = equiangular_log_conformity(d, cosine, square).exp()
    assert float(found) == pytest.approx(float(expected), rel=1e-9)


def test_conformity_of_given_vectors_is_the_mean_over_rotations():
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    v = torch.tensor([0.3, -0.8, 0.2], dtype=torch.float64)
    Q, R = torch.linalg.qr(torch.randn(200_000, 3, 3, generator=generator, dtype=torch.float64))
    turned = torch.einsum("gij,kj->gki", Q * R.diagonal(dim1=1, dim2=2).sign()[:, None], W) @ v
    i, j = torch.triu_indices(4, 4, 1)
    values = torch.exp(turned[:, i] + turned[:, j]).mean(1)
    assert rf_conformity(W, float(v.norm())) == pytest.approx(rf_conformity(W, v), rel=1e-12)
    z = (values.mean() - rf_conformity(W, v)) / (values.std() / math.sqrt(len(values)))
    assert abs(float(z)) < 4


def test_conformity_falls_from_independent_to_weight_dependent_directions():
    squares = torch.tensor([0.01, 0.5, 3.0, 100.0], dtype=torch.float64)
    for d in (2, 5, 64):
        logs = [coupling.log_conformity(d, squares) for coupling in COUPLINGS]
        assert all(bool((a > b - 1e-12).all()) for a, b in itertools.pairwise(logs[:3]))
        assert float((logs[3] - logs[2]).max()) < 1e-9
        assert all(bool(log.isfinite().all()) for log in logs)


@pytest.mark.parametrize("member", [OrthogonalCoupling, SimplexCoupling, SimplexPlusCoupling])
@pytest.mark.parametrize("d", [6, 16])
def test_fast_products_are_those_of_their_own_vectors(member, d):
    stream = WeightStream(d, 1000, member(HadamardRotation()), 3)
    x = torch.randn(3, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W, b = stream.rows(0, 1000, x)
    for start, stop in ((0, 1000), (5, 9), (100, 777)):
        projections, offsets = stream.project(x, start, stop)
        torch.testing.assert_close(projections, x @ W[start:stop].mT, rtol=1e-10, atol=1e-12)
        assert torch.equal(offsets, b[start:stop])


def test_fast_directions_keep_their_angles():
    W = groups(SimplexCoupling(HadamardRotation()), 16, 3)
    unit = W / W.norm(dim=2, keepdim=True)
    off = (unit @ unit.mT)[:, ~torch.eye(16, dtype=torch.bool)]
    torch.testing.assert_close(off, torch.full_like(off, -1 / 15), rtol=0, atol=1e-12)


def test_fast_rows_that_do_not_fit_are_those_that_do(monkeypatch):
    from tangrams.features.random import stream as module

    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    coupling = SimplexCoupling(HadamardRotation())
    kept = WeightStream(16, 2000, coupling, 0).project(x, 300, 1501)
    monkeypatch.setattr(module, "PANEL_BYTES", 1)
    drawn = WeightStream(16, 2000, coupling, 0).project(x, 300, 1501)
    assert torch.equal(kept[0], drawn[0])
    assert torch.equal(kept[1], drawn[1])


@pytest.mark.parametrize("member", [SimplexCoupling, SimplexPlusCoupling])
def test_one_dimension_has_no_simplex(member):
    with pytest.raises(ValueError, match="in_features ≥ 2"):
        WeightStream(1, 4, member(), 0)


def test_impossible_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 2 entries"):
        simplex_matmul(torch.ones(3, 1))
    with pytest.raises(ValueError, match="sweeps"):
        SimplexPlusCoupling(sweeps=0)
    with pytest.raises(ValueError, match="at least 2 vectors"):
        rf_conformity(torch.ones(1, 3), torch.ones(3))
