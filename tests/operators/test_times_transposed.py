"""The product by oneDNN against float64, and the ways around it."""

import pytest
import torch
from torch.autograd import forward_ad

from tangrams.operators import times_transposed
from tangrams.operators.times_transposed import _onednn

LARGE = (128, 96, 200)  # n, m, k beyond the size from which oneDNN is worthwhile


def close(found, a, b, extra=0.0):
    exact = a.double() @ b.double().mT + extra
    bound = 2e-6 * (a.double().abs() @ b.double().abs().mT + abs(extra if isinstance(extra, float) else extra.abs()))
    assert found.shape == exact.shape
    assert bool(((found.double() - exact).abs() <= bound + 1e-30).all())


@pytest.mark.parametrize("size", [LARGE, (3, 4, 5), (1, 96, 20000), (128, 1, 20000)], ids=str)
def test_products_are_right_to_rounding(size):
    n, m, k = size
    torch.manual_seed(0)
    a, b, bias, onto = torch.randn(n, k), torch.randn(m, k), torch.randn(m), torch.randn(n, m)
    close(times_transposed(a, b), a, b)
    close(times_transposed(a, b, bias), a, b, bias.double())
    close(times_transposed(a, b, onto=onto.clone()), a, b, onto.double())


def test_strides_and_leading_dimensions_do_not_matter():
    torch.manual_seed(0)
    wide, tall, weight = torch.randn(128, 400), torch.randn(200, 128), torch.randn(200, 96)
    close(times_transposed(wide[:, 100:300], weight.mT), wide[:, 100:300], weight.mT)
    close(times_transposed(tall.mT, weight.mT), tall.mT, weight.mT)
    close(times_transposed(wide[::2, ::2].expand(3, -1, -1), weight.mT)[1], wide[::2, ::2], weight.mT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_take_torchs_product(dtype):
    torch.manual_seed(0)
    a, b = torch.randn(LARGE[0], LARGE[2], dtype=dtype), torch.randn(LARGE[1], LARGE[2], dtype=dtype)
    torch.testing.assert_close(times_transposed(a, b), a @ b.mT)


@pytest.mark.parametrize(("n", "m", "k"), [(0, 96, 20000), (128, 0, 20000), (2048, 1024, 0)])
def test_empty_factors(n, m, k):
    product = times_transposed(torch.ones(n, k), torch.ones(m, k))
    assert product.shape == (n, m)
    assert not product.any()


def test_not_finite_entries_stay_in_their_row():
    a, b = torch.ones(LARGE[0], LARGE[2]), torch.ones(LARGE[1], LARGE[2])
    a[3, 5], a[7, 0] = torch.nan, torch.inf
    product = times_transposed(a, b)
    assert product[3].isnan().all()
    assert product[7].isinf().all()
    assert (product[[*range(3), *range(8, 128)]] == LARGE[2]).all()


def test_gradients_flow():
    torch.manual_seed(0)
    a = torch.randn(LARGE[0], LARGE[2], requires_grad=True)
    b = torch.nn.Parameter(torch.randn(LARGE[1], LARGE[2]))
    found = torch.autograd.grad(times_transposed(a, b).square().sum(), [a, b])
    expected = torch.autograd.grad((a @ b.mT).square().sum(), [a, b])
    torch.testing.assert_close(found, expected)
    with torch.no_grad():
        assert not times_transposed(a, b).requires_grad


def test_transforms_of_torch_func_pass_through():
    torch.manual_seed(0)
    a, b = torch.randn(4, LARGE[0], LARGE[2]), torch.randn(LARGE[1], LARGE[2])
    torch.testing.assert_close(torch.vmap(times_transposed, (0, None))(a, b), a @ b.mT)
    value, tangent = torch.func.jvp(lambda a: times_transposed(a, b), (a[0],), (a[1],))
    torch.testing.assert_close((value, tangent), (a[0] @ b.mT, a[1] @ b.mT))


def test_forward_mode_keeps_its_tangents():
    torch.manual_seed(0)
    a, t, b = torch.randn(LARGE[0], LARGE[2]), torch.randn(LARGE[0], LARGE[2]), torch.randn(LARGE[1], LARGE[2])
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(times_transposed(forward_ad.make_dual(a, t), b))
        torch.testing.assert_close((dual.primal, dual.tangent), (a @ b.mT, t @ b.mT))
        assert forward_ad.unpack_dual(times_transposed(a, b)).tangent is None


def test_without_onednn_the_product_is_torchs_own():
    torch.manual_seed(0)
    a, b = torch.randn(LARGE[0], LARGE[2]), torch.randn(LARGE[1], LARGE[2])
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(times_transposed(a, b), torch.nn.functional.linear(a, b))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_this_torch_has_the_entry_that_is_used():
    assert _onednn() is not None
