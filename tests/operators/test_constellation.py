"""The constellation and its inverse in closed form."""

import math

import pytest
import torch

from tangrams.operators import ConstellationInverse, constellation_features, constellation_nodes, constellation_solve
from tangrams.operators.constellation import (
    InverseEntries,
    constellation_distances,
    constellation_pullback,
    polyharmonic,
)
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.operator import OperatorSuite


def gram(m, b=5.0, c=400.0):
    """From differences of the nodes, entry by entry, with NumPy's logarithm of r."""
    nodes = constellation_nodes(m, torch.float64)
    r = (nodes[:, None] - nodes[None]).norm(dim=-1)
    return torch.where(r > 0, r.square() * (r.clamp_min(1e-300).log() - b), 0.0) + c


def inverse_reference(operator):
    return torch.linalg.inv(gram(operator.m, operator.b, operator.c))


TestConstellationInverse = conformance(
    OperatorSuite,
    Case(lambda: ConstellationInverse(3, dtype=torch.float64), reference=inverse_reference),
    Case(
        lambda: ConstellationInverse(1, 2.0, 30.0, dtype=torch.float64),
        reference=inverse_reference,
        name="one-dimension",
    ),
)


def points(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("m", [1, 3, 50, 300])
def test_the_closed_form_inverts_the_kernel_matrix(m):
    eye = torch.eye(2 * m + 1, dtype=torch.float64)
    assert (constellation_solve(gram(m)) - eye).abs().max() < 1e-10
    assert (ConstellationInverse(m, dtype=torch.float64) @ gram(m) - eye).abs().max() < 1e-10


def test_the_spectrum_of_the_kernel_matrix_is_what_the_sheet_says():
    for m in (3, 300):
        values = torch.linalg.eigvalsh(gram(m))
        assert 0.4 < values[0] < 1.4
        assert abs(values[-1] / m - 783) < 783 * (0.2 if m == 3 else 0.01)


def test_the_features_at_the_nodes_are_the_identity():
    nodes = constellation_nodes(6, torch.float64)
    eye = torch.eye(13, dtype=torch.float64)
    assert (constellation_features(nodes) - eye).abs().max() < 1e-12
    assert (constellation_features(nodes, 3.0, 100.0) - eye).abs().max() < 1e-12


def test_the_features_are_kernel_rows_times_the_inverse():
    x = 0.7 * points(2, 5, 4)
    rows = polyharmonic(constellation_distances(x)) + 400
    assert (constellation_features(x) - rows @ torch.linalg.inv(gram(4))).abs().max() < 1e-10


def test_float32_features_keep_their_digits_although_c_dwarfs_them():
    x = 0.5 * points(50, 20)
    exact = constellation_features(x)
    naive = (polyharmonic(constellation_distances(x.float())) + 400) @ torch.linalg.inv(gram(20)).float()
    error = (constellation_features(x.float()).double() - exact).abs().max()
    assert error < 2e-5
    assert (naive.double() - exact).abs().max() > 5 * error


def test_signed_permutations_of_coordinates_permute_the_features():
    x, m = points(7, 5), 5
    order, signs = torch.tensor([3, 0, 4, 1, 2]), torch.tensor([1.0, -1, -1, 1, -1], dtype=torch.float64)
    h, moved = constellation_features(x), constellation_features(x[:, order] * signs)
    minus = torch.where(signs > 0, 1 + order, 1 + m + order)
    plus = torch.where(signs > 0, 1 + m + order, 1 + order)
    assert (moved - h[:, torch.cat([torch.tensor([0]), minus, plus])]).abs().max() < 1e-12


def test_the_pullback_is_the_gradient_by_autograd():
    x = torch.cat([points(6, 4), constellation_nodes(4, torch.float64)]).requires_grad_()
    g = points(15, 9, seed=1)
    (expected,) = torch.autograd.grad((g * polyharmonic(constellation_distances(x))).sum(), x)
    found = constellation_pullback(x.detach(), g)
    assert (found[:6] - expected[:6]).abs().max() < 1e-12
    assert (found - expected).abs().max() < 1e-9
    assert torch.isfinite(expected).all()


def test_a_product_with_the_inverse_takes_time_linear_in_the_dimension():
    """By the largest tensor that is made on the way: no square of m is ever formed."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Largest(TorchDispatchMode):
        size = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                self.size = max(self.size, out.numel())
            return out

    m = 1000
    with Largest() as largest:
        constellation_solve(torch.ones(2 * m + 1, 3))
        constellation_features(torch.ones(2, m))
    assert largest.size <= 3 * (2 * m + 1)


@pytest.mark.parametrize(
    ("m", "b", "c"),
    [(0, 5.0, 400.0), (3, 0.5, 400.0), (200, 5.0, 30.0), (3, 5.0, 0.0), (3, 5.0, -1.0), (3, math.nan, 400.0)],
)
def test_what_is_no_covariance_is_refused(m, b, c):
    with pytest.raises(ValueError, match="constellation"):
        InverseEntries.of(m, b, c)


def test_it_is_refused_exactly_where_the_kernel_matrix_is_indefinite():
    for m in (1, 2, 10, 40):
        for b, c in [(5.0, 30.0), (5.0, 35.0), (5.0, 37.0), (1.0, 1.3), (0.6, 1.0), (0.8, 1.0)]:
            definite = bool(torch.linalg.eigvalsh(gram(m, b, c))[0] > 0)
            try:
                InverseEntries.of(m, b, c)
            except ValueError:
                assert not definite, (m, b, c)
            else:
                assert definite, (m, b, c)


def test_values_of_another_number_of_nodes_are_refused():
    for rows in (1, 4):
        with pytest.raises(ValueError, match="2m \\+ 1"):
            constellation_solve(torch.ones(rows, 2))
