"""Hessians and Gauss–Newton matrices against dense ones."""

from functools import partial

import pytest
import torch
from torch.func import hessian, jacrev

from tangrams.operators import eigsh
from tangrams.operators.curvature import GaussNewtonOperator, HessianOperator, PreconditionedCurvature
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.operator import OperatorSuite


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


X, Y = normal(7, 3), normal(7, 2, seed=1)
AT = {"w": normal(4, 3, seed=2), "b": normal(4, seed=3), "v": normal(2, 4, seed=4)}
SCALES = {"w": normal(4, 3, seed=5).square(), "b": 0.5, "v": 2.0}


def outputs(x, p):
    return torch.tanh(x @ p["w"].mT + p["b"]) @ p["v"].mT


def squared(y, f):
    return (f - y).square().sum(1).mean() / 2


def cross_entropy(y, f):
    return torch.nn.functional.cross_entropy(f, y)


def composed(x, y, of, p):
    return of(y, outputs(x, p))


def loss(of=squared, y=Y):
    return partial(composed, X, y, of)


def flat(nested):
    return torch.cat([torch.cat([nested[a][b].reshape(AT[a].numel(), -1) for b in AT], 1) for a in AT])


def dense_hessian(operator):
    return flat(hessian(operator.loss)(operator.at))


def dense_gauss_newton(operator):
    f = operator.outputs(operator.at)
    J = torch.cat([part.reshape(f.numel(), -1) for part in jacrev(operator.outputs)(operator.at).values()], 1)
    return J.mT @ hessian(operator.loss)(f).reshape(f.numel(), -1) @ J


def dense_preconditioned(operator):
    root = torch.cat([torch.as_tensor(SCALES[name]).expand(p.shape).reshape(-1) for name, p in AT.items()]).sqrt()
    return root[:, None] * dense_hessian(operator.curvature) * root


def gauss_newton(of=squared, y=Y):
    return GaussNewtonOperator(outputs=partial(outputs, X), loss=partial(of, y), at=AT)


LABELS = torch.tensor([0, 1, 1, 0, 1, 0, 0])

TestCurvature = conformance(
    OperatorSuite,
    Case(lambda: HessianOperator(loss=loss(), at=AT), reference=dense_hessian),
    Case(gauss_newton, reference=dense_gauss_newton),
    Case(lambda: gauss_newton(cross_entropy, LABELS), reference=dense_gauss_newton, name="GaussNewton-cross-entropy"),
    Case(
        lambda: PreconditionedCurvature(curvature=HessianOperator(loss=loss(), at=AT), scales=SCALES),
        reference=dense_preconditioned,
    ),
)


def test_the_hessian_is_the_gauss_newton_matrix_and_the_models_own_curvature():
    """H = G + Σ ∂ℓ/∂f ∇²f, the second by dense derivatives of the outputs."""
    H, G = HessianOperator(loss=loss(), at=AT).to_dense(), gauss_newton().to_dense()
    residual = (outputs(X, AT) - Y) / len(X)

    def weighted(p):
        return (residual * outputs(X, p)).sum()

    torch.testing.assert_close(H, G + flat(hessian(weighted)(AT)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("index", [(slice(2), slice(None)), (slice(None), slice(2)), ([1, 3], slice(5))])
def test_a_few_rows_cost_as_many_products_as_a_few_columns(index, monkeypatch):
    H, widths = HessianOperator(loss=loss(), at=AT), []
    expected = dense_hessian(H)[index]
    columns = HessianOperator._columns
    monkeypatch.setattr(HessianOperator, "_columns", lambda self, x: (widths.append(x.shape[1]), columns(self, x))[1])
    torch.testing.assert_close(H[index].to_dense(), expected, rtol=1e-10, atol=1e-12)
    assert sum(widths) == 2


def test_the_squared_loss_has_the_eigenvalues_of_the_tangent_gram_over_n():
    J = torch.cat([part.reshape(14, -1) for part in jacrev(partial(outputs, X))(AT).values()], 1)
    ours = eigsh(gauss_newton(), 3).values
    torch.testing.assert_close(ours, torch.linalg.eigvalsh(J @ J.mT).flip(0)[:3] / len(X), rtol=1e-8, atol=1e-10)


def test_a_model_that_is_linear_in_its_parameters_has_no_curvature_of_its_own():
    at = {"w": AT["w"]}

    def linear(p):
        return X @ p["w"].mT

    def of(f):
        return f.square().sum()

    H = HessianOperator(loss=lambda p: of(linear(p)), at=at)
    torch.testing.assert_close(H.to_dense(), GaussNewtonOperator(outputs=linear, loss=of, at=at).to_dense())


def test_rates_are_folded_into_the_eigenvalues_of_the_step():
    H = HessianOperator(loss=loss(), at=AT)
    P = torch.cat([torch.as_tensor(SCALES[name]).expand(p.shape).reshape(-1) for name, p in AT.items()])
    ours = torch.linalg.eigvalsh(PreconditionedCurvature(curvature=H, scales=SCALES).to_dense())
    theirs = torch.linalg.eigvals(P[:, None] * dense_hessian(H)).real.sort().values
    torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_bad_parameters_and_scales_are_refused():
    with pytest.raises(ValueError, match="one dtype"):
        HessianOperator(loss=loss(), at={})
    with pytest.raises(ValueError, match="second derivatives are lost"):
        HessianOperator(loss=loss(), at={"w": torch.zeros(2, dtype=torch.bfloat16)})
    H = HessianOperator(loss=loss(), at=AT)
    with pytest.raises(ValueError, match="no scale"):
        PreconditionedCurvature(curvature=H, scales={"w": 1.0})
    with pytest.raises(ValueError, match="negative"):
        PreconditionedCurvature(curvature=H, scales={**SCALES, "b": -1.0})
