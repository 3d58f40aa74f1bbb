"""Measures of how a scalar kernel stands for the full one, against dense Kronecker algebra."""

import numpy as np
import pytest
import torch

from tangrams.lens import kernel_regression_gap, max_eig_ratio, ntk_relative_error


def kernels(n=5, m=5, C=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(n, C, 30, generator=generator, dtype=torch.float64)
    Q = J if m == n else torch.randn(m, C, 30, generator=generator, dtype=torch.float64)
    full = torch.einsum("icp,jdp->icjd", J, Q)
    scalar = full.sum((1, 3)) / C
    return full.reshape(n * C, m * C), scalar


@pytest.mark.parametrize("m", [5, 4])
def test_relative_error_is_that_of_the_kronecker_product(m):
    full, scalar = kernels(5, m)
    dense = torch.kron(scalar, torch.eye(3, dtype=torch.float64))
    assert ntk_relative_error(full, scalar) == pytest.approx(float((dense - full).norm() / full.norm()), abs=1e-12)


def test_the_mean_over_outputs_is_the_closest_scalar_kernel():
    full, _ = kernels()
    mean = full.reshape(5, 3, 5, 3).diagonal(dim1=1, dim2=3).mean(2)
    best = ntk_relative_error(full, mean)
    generator = torch.Generator().manual_seed(1)
    for _ in range(10):
        other = mean + 0.1 * torch.randn(5, 5, generator=generator, dtype=torch.float64)
        assert ntk_relative_error(full, other) > best


def test_an_exact_kronecker_product_has_no_error():
    _, scalar = kernels()
    full = torch.kron(scalar, torch.eye(3, dtype=torch.float64))
    assert ntk_relative_error(full, scalar) < 1e-15
    assert max_eig_ratio(full, scalar) < 1e-12


def test_the_largest_eigenvalue_is_compared_with_the_kronecker_products():
    full, scalar = kernels()
    dense = torch.kron(scalar, torch.eye(3, dtype=torch.float64))
    top = [float(torch.linalg.eigvalsh(K)[-1]) for K in (dense, full)]
    assert max_eig_ratio(full, scalar) == pytest.approx(abs(top[0] - top[1]) / top[1], rel=1e-8)


def test_the_regression_gap_is_between_the_two_flat_formulas():
    full, scalar = kernels(8, 8)
    full, scalar = full + torch.eye(24, dtype=torch.float64), scalar + torch.eye(8, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    cross_full, cross_scalar = torch.randn(12, 24, generator=generator), torch.randn(4, 8, generator=generator)
    cross_full, cross_scalar = cross_full.double(), cross_scalar.double()
    y = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    f0, f0_new = torch.randn(8, 3, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    a = f0_new + (cross_full @ full.inverse() @ (y - f0).reshape(-1)).reshape(4, 3)
    b = f0_new + cross_scalar @ scalar.inverse() @ (y - f0)
    labels = torch.tensor([0, 1, 2, 0])
    gap = kernel_regression_gap((full, cross_full), (scalar, cross_scalar), y, offsets=(f0, f0_new), labels=labels)
    assert gap.relative_difference == pytest.approx(float((b - a).norm() / (a - f0_new).norm()), rel=1e-8)
    assert gap.agreement == pytest.approx(float((a.argmax(1) == b.argmax(1)).double().mean()))
    assert gap.accuracy_full == pytest.approx(float((a.argmax(1) == labels).double().mean()))
    assert gap.accuracy_gap == pytest.approx(gap.accuracy_scalar - gap.accuracy_full)
    same = kernel_regression_gap((scalar, cross_scalar), (scalar, cross_scalar), y)
    assert same.relative_difference == 0
    assert np.isnan(same.accuracy_full)


def test_kernels_that_do_not_fit_are_refused():
    full, scalar = kernels()
    with pytest.raises(ValueError, match="do not fit"):
        ntk_relative_error(full[:14], scalar)
    with pytest.raises(ValueError, match="do not fit"):
        max_eig_ratio(full[:14, :14], scalar)
    with pytest.raises(ValueError, match="is zero"):
        ntk_relative_error(torch.zeros(4, 4), torch.zeros(2, 2))
