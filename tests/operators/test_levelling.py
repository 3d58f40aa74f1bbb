"""The transform that levels a block of eigenvalues."""

import numpy as np
import pytest
import torch

from tangrams.operators import spectral_transform

F64 = torch.float64


def gram(g=8, rank=None, seed=0):
    J = torch.randn(g, rank or 2 * g, generator=torch.Generator().manual_seed(seed), dtype=F64)
    return J @ J.mT


def descending(K):
    return torch.linalg.eigvalsh(K).flip(0)


def by_hand(K, end, pivot, start=0):
    """The sum over modes, one at a time, in NumPy."""
    values, vectors = np.linalg.eigh(K.numpy())
    values, vectors = values[::-1], vectors[:, ::-1]
    S = np.eye(len(K))
    for i in range(start, end):
        if values[i] <= 0:
            break
        S -= (1 - values[pivot] / values[i]) * np.outer(vectors[:, i], vectors[:, i])
    return torch.from_numpy(S)


BLOCKS = [(3, None, 0), (3, 0, 0), (5, 2, 1), (8, 7, 0), (1, 0, 0)]


@pytest.mark.parametrize(("end", "pivot", "start"), BLOCKS)
def test_the_block_takes_the_value_of_the_pivot_and_all_else_stays(end, pivot, start):
    K = gram()
    S = spectral_transform(K, end, pivot, start=start)
    values = descending(K)
    expected = values.clone()
    expected[start:end] = values[end if pivot is None else pivot]
    KS = K @ S
    torch.testing.assert_close(KS, KS.mT, rtol=0, atol=1e-10 * float(values[0]))
    torch.testing.assert_close(
        descending((KS + KS.mT) / 2), expected.sort(descending=True).values, rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(KS, S @ K, rtol=0, atol=1e-10 * float(values[0]))
    torch.testing.assert_close(S, by_hand(K, end, end if pivot is None else pivot, start), rtol=1e-9, atol=1e-10)


def test_it_is_the_identity_where_the_block_is_the_pivot():
    torch.testing.assert_close(spectral_transform(gram(), 3, 2, start=2), torch.eye(8, dtype=F64), rtol=0, atol=1e-12)


def test_permuting_the_points_permutes_the_transform():
    K = gram()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    permuted = spectral_transform(K[order][:, order], 4)
    torch.testing.assert_close(permuted, spectral_transform(K, 4)[order][:, order], rtol=1e-9, atol=1e-10)


def test_the_block_and_the_pivot_end_where_eigenvalues_are_zero():
    K = gram(8, rank=4)
    values = descending(K)
    S = spectral_transform(K, 7)
    expected = torch.cat([values[3].expand(4), torch.zeros(4, dtype=F64)])
    torch.testing.assert_close(descending(S @ K), expected, rtol=1e-9, atol=1e-9 * float(values[0]))
    assert torch.equal(spectral_transform(torch.zeros(3, 3), 2), torch.eye(3))


def test_it_is_computed_in_double_precision_and_without_gradients():
    K = torch.diag(torch.tensor([1.0, 1e-5, 1e-6])).requires_grad_()
    S = spectral_transform(K, 1)
    assert S.dtype == torch.float32
    assert not S.requires_grad
    torch.testing.assert_close((K.detach() @ S).diagonal(), torch.tensor([1e-5, 1e-5, 1e-6]))


@pytest.mark.parametrize("block", [(9, 0), (0, 0), (8, None), (3, 8), (3, -1)])
def test_indices_out_of_range_are_refused(block):
    with pytest.raises(ValueError, match="spectral_transform levels modes"):
        spectral_transform(gram(), *block)
    with pytest.raises(ValueError, match="spectral_transform levels modes"):
        spectral_transform(gram(), 3, start=3)


def test_a_matrix_that_is_not_finite_is_refused():
    K = gram()
    K[2, 1] = torch.inf
    with pytest.raises(FloatingPointError, match="not finite"):
        spectral_transform(K, 3)
