"""Curvature operators against curvlinops, where it is installed (``pip install --no-deps curvlinops-for-pytorch``)."""

import pytest
import torch
from torch import nn

from tangrams.lens import loss_gauss_newton, loss_hessian, sharpness

pytestmark = pytest.mark.peers
curvlinops = pytest.importorskip("curvlinops", exc_type=ImportError)


@pytest.fixture
def problem():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    return model, torch.randn(20, 5, dtype=torch.float64)


@pytest.mark.parametrize("kind", ["squared", "cross-entropy"])
def test_products_agree_with_curvlinops(problem, kind):
    model, x = problem
    if kind == "squared":
        loss, y = nn.MSELoss(), torch.randn(20, 3, dtype=torch.float64)
    else:
        loss, y = nn.CrossEntropyLoss(), torch.randint(3, (20,))
    parameters = dict(model.named_parameters())
    try:
        theirs = [
            make(model, loss, parameters, [(x, y)])
            for make in (curvlinops.HessianLinearOperator, curvlinops.GGNLinearOperator)
        ]
    except (TypeError, AttributeError):  # older versions take a list
        theirs = [
            make(model, loss, list(parameters.values()), [(x, y)])
            for make in (curvlinops.HessianLinearOperator, curvlinops.GGNLinearOperator)
        ]
    ours = [loss_hessian(model, loss, x, y), loss_gauss_newton(model, loss, x, y)]
    v = torch.randn(ours[0].shape[0], 3, dtype=torch.float64)
    for mine, other in zip(ours, theirs, strict=True):
        product = torch.as_tensor(other @ v)
        torch.testing.assert_close(mine @ v, product, rtol=1e-9, atol=1e-12)
        dense = torch.as_tensor(other @ torch.eye(len(v), dtype=torch.float64))
        top = float(torch.linalg.eigvalsh((dense + dense.mT) / 2)[-1])
        assert sharpness(mine, rtol=1e-8).value == pytest.approx(top, rel=1e-6)
