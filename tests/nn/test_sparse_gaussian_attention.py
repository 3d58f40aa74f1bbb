"""Attention by sparse Gaussian kernel products."""

import math

import pytest
import torch

from tangrams.kernels.gaussian_products import AssumptionViolatedWarning, gaussian_block
from tangrams.nn import attention_as_gaussian, sparse_gaussian_attention


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_softmax(q, k, v, scale):
    return torch.softmax(scale * q @ k.mT, -1) @ v


def peaked(n, d=8, seed=0):
    """Queries near keys of their own group, all of one norm, as normalised heads have them."""
    centres = 5 * normal(n // 10, d, seed=seed)
    k = (centres[:, None] + 0.3 * normal(n // 10, 10, d, seed=seed + 1)).flatten(0, 1)
    q = k + 0.3 * normal(n, d, seed=seed + 2)
    return tuple(12 * torch.nn.functional.normalize(t) for t in (q, k))


def test_scores_are_a_gaussian_kernel_between_two_scalings():
    q, k = normal(2, 5, 4), normal(2, 6, 4, seed=1)
    sigma, left, right = attention_as_gaussian(q, k, 0.5)
    for h in range(2):
        rebuilt = left[h, :, None].exp() * gaussian_block(q[h], k[h], sigma) * right[h].exp()
        assert (rebuilt / (0.5 * q[h] @ k[h].T).exp() - 1).abs().max() < 1e-10
    assert sigma == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("scale", [None, 0.7])
def test_exact_pairs_give_softmax_attention(scale):
    q, k, v = normal(2, 3, 7, 4), normal(2, 3, 9, 4, seed=1), normal(2, 3, 9, 5, seed=2)
    found = sparse_gaussian_attention(q, k, v, scale=scale, tau=0.0)
    assert (found - by_softmax(q, k, v, 0.5 if scale is None else scale)).abs().max() < 1e-10


def test_the_error_of_the_kernel_is_that_of_signed_values_over_their_denominators():
    q, k = peaked(800)
    v = normal(800, 6, seed=5)
    exact = by_softmax(q, k, v, 1.0)
    found = sparse_gaussian_attention(q, k, v, scale=1.0, eps=0.02)
    mass = gaussian_block(q, k, 1.0).sum(1, keepdim=True)
    x = torch.cat([v, torch.ones(800, 1, dtype=v.dtype)], 1)
    # (y + δy) / (z + δz) − y / z is (δy − (y / z) δz) / z to first order, and ‖(δy, δz)‖ ≤ ε ‖x‖.
    error = (found - exact) * mass
    assert float(error.norm()) < 0.02 * float(x.norm()) * (1 + float(exact.norm(dim=1).max()))
    assert float(error.norm()) > 0


def test_scores_that_are_all_large_take_the_plain_way_with_a_warning():
    q, k, v = 0.1 * normal(300, 4), 0.1 * normal(300, 4, seed=1), normal(300, 2, seed=2)
    with pytest.warns(AssumptionViolatedWarning):
        found = sparse_gaussian_attention(q, k, v, tau=0.9999)
    assert (found - by_softmax(q, k, v, 0.5)).abs().max() < 1e-10


def test_rows_without_a_near_key_are_computed_whole():
    q, k = peaked(400)
    q = torch.cat([q, 8 * q[:3]])
    v = normal(400, 2, seed=5)
    found = sparse_gaussian_attention(q, k, v, scale=1.0)
    assert (found[-3:] - by_softmax(q[-3:], k, v, 1.0)).abs().max() < 1e-10
    assert torch.isfinite(found).all()


def test_rows_whose_near_keys_all_underflow_are_computed_whole():
    q, v = 30 * normal(400, 4).float(), normal(400, 2, seed=5).float()
    q[:200] *= 0.01  # of weight exp(−‖k‖²/4) beside the others
    found = sparse_gaussian_attention(q, q, v, scale=0.5)
    assert (found[:200] - by_softmax(q[:200], q, v, 0.5)).abs().max() < 1e-5


def test_gradients_of_exact_pairs_are_those_of_softmax():
    leaves = [t.requires_grad_() for t in (normal(5, 3), normal(6, 3, seed=1), normal(6, 2, seed=2))]
    assert torch.autograd.gradcheck(lambda q, k, v: sparse_gaussian_attention(q, k, v, tau=0.0), leaves)


def test_a_scale_that_is_none_is_refused():
    with pytest.raises(ValueError, match="scale"):
        attention_as_gaussian(normal(2, 3), normal(2, 3), 0.0)
