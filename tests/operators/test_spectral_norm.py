"""The spectral norm by products, against the singular values."""

import pytest
import torch

from tangrams.operators import spectral_norm


@pytest.mark.parametrize("shape", [(3, 1, 50), (2, 40, 300), (2, 130, 90), (1, 100, 400)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_it_is_the_largest_singular_value(shape, dtype):
    blocks = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    found = spectral_norm(blocks)
    expected = torch.linalg.svdvals(blocks)[:, 0]
    torch.testing.assert_close(found.values, expected, rtol=2e-6, atol=0)
    if found.vectors is not None:
        image = (blocks @ found.vectors[:, :, None].to(dtype))[:, :, 0]
        torch.testing.assert_close(image.norm(dim=1), expected, rtol=1e-5, atol=0)


def test_a_good_start_is_used_and_a_bad_one_left():
    generator = torch.Generator().manual_seed(1)
    matrix = torch.randn(1, 100, 90, generator=generator)
    first = spectral_norm(matrix)
    again = spectral_norm(matrix + 1e-4, first.vectors, rtol=1e-3)
    torch.testing.assert_close(again.values, first.values, rtol=1e-3, atol=0)
    rank_one = torch.zeros(1, 100, 90)
    rank_one[0, 0, 0] = 2.0
    orthogonal = torch.zeros(1, 90)
    orthogonal[0, 1] = 1.0
    assert float(spectral_norm(rank_one, orthogonal).values) == pytest.approx(2.0, rel=1e-5)


def test_exhausted_krylov_spaces_keep_their_answer():
    """A multiple of the identity, and two distinct singular values, beside a matrix that goes on."""
    two = torch.cat([torch.full((40,), 3.0), torch.full((50,), 1.0)]).diag()
    full = torch.randn(90, 90, generator=torch.Generator().manual_seed(0))
    blocks = torch.stack([2 * torch.eye(90), two, full, torch.zeros(90, 90)])
    expected = torch.linalg.svdvals(blocks)[:, 0]
    torch.testing.assert_close(spectral_norm(blocks).values, expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [10, 90])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_entries_that_are_not_finite_are_refused(size, value):
    blocks = torch.ones(3, size, size)
    blocks[1, 2, 3] = value
    with pytest.raises(FloatingPointError, match=r"matrices \[1\]"):
        spectral_norm(blocks)


def test_extreme_scales_neither_vanish_nor_overflow():
    matrix = torch.randn(1, 80, 80, generator=torch.Generator().manual_seed(0))
    norm = spectral_norm(matrix).values
    for scale in (1e-30, 1e30):
        torch.testing.assert_close(spectral_norm(matrix * scale).values / scale, norm, rtol=1e-5, atol=0)
    assert not spectral_norm(torch.zeros(2, 80, 80)).values.any()
    half = spectral_norm(matrix.half())
    assert half.values.dtype == torch.float16
    torch.testing.assert_close(half.values.float(), norm, rtol=2e-3, atol=0)
