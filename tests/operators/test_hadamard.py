"""The Walsh–Hadamard transform against its matrix."""

import pytest
import scipy.linalg
import torch

from tangrams.operators import hadamard_transform


@pytest.mark.parametrize("bits", range(14))
def test_it_is_the_product_with_sylvesters_matrix(bits):
    n = 1 << bits
    x = torch.randn(3, n, generator=torch.Generator().manual_seed(bits), dtype=torch.float64)
    H = torch.as_tensor(scipy.linalg.hadamard(n), dtype=torch.float64) if bits < 11 else None
    y = hadamard_transform(x)
    if H is not None:
        torch.testing.assert_close(y, x @ H, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(hadamard_transform(y), n * x, rtol=1e-12, atol=1e-9)


def test_its_entries_are_parities_of_the_common_bits():
    n = 1 << 13
    unit = torch.zeros(n, dtype=torch.float64)
    unit[4_321] = 1
    column = hadamard_transform(unit)
    expected = torch.tensor([(-1.0) ** bin(r & 4_321).count("1") for r in range(n)], dtype=torch.float64)
    assert torch.equal(column, expected)


def test_any_leading_dimensions_autograd_and_vmap():
    x = torch.randn(2, 0, 3, 16, dtype=torch.float64)
    assert hadamard_transform(x).shape == x.shape
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(hadamard_transform)(x), hadamard_transform(x))
    small = torch.randn(2, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(hadamard_transform, small)
    assert hadamard_transform(x.float()).dtype == torch.float32


@pytest.mark.parametrize("n", [0, 3, 12])
def test_other_lengths_are_refused(n):
    with pytest.raises(ValueError, match="power of two"):
        hadamard_transform(torch.zeros(2, n))
