"""Each tangent rule against ``torch.func.jvp`` of the plain function, in float64."""

import pytest
import torch
from torch.func import jvp
from torch.nn import functional as F

from tangrams.nn.tangent import Dual, rules


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agrees(rule, plain, *operands: torch.Tensor, missing: tuple[int, ...] = ()) -> None:
    """All operands move, or all but some."""
    moving = [i for i in range(len(operands)) if i not in missing]
    tangents = {i: draw(*operands[i].shape, seed=10 + i) for i in moving}

    def function(*values):
        full = list(operands)
        for i, value in zip(moving, values, strict=True):
            full[i] = value
        return plain(*full)

    value, tangent = jvp(function, tuple(operands[i] for i in moving), tuple(tangents[i] for i in moving))
    found = rule(*(Dual(x, tangents.get(i)) for i, x in enumerate(operands)))
    torch.testing.assert_close(found.value, value, rtol=1e-10, atol=1e-10, equal_nan=True)
    torch.testing.assert_close(found.tangent, tangent, rtol=1e-10, atol=1e-10, equal_nan=True)


SUBSETS = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]


@pytest.mark.parametrize("missing", SUBSETS, ids=str)
@pytest.mark.parametrize("shape", [(4, 5), (5,), (2, 3, 5)], ids=str)
def test_linear(shape, missing):
    agrees(rules.linear, F.linear, draw(*shape), draw(3, 5, seed=1), draw(3, seed=2), missing=missing)


@pytest.mark.parametrize("missing", SUBSETS, ids=str)
@pytest.mark.parametrize("shape", [(2, 120, 96), (96, 240)], ids=str)
def test_large_linear_layers_in_single_precision_keep_the_value_to_the_last_bit(shape, missing):
    """Their products go through another library, which wants its bias without gaps."""
    x = draw(*shape) if len(shape) == 3 else draw(*shape).mT
    W, b = draw(192, 96, seed=1).mT[:, ::2].mT, draw(192, seed=2)[::2]
    operands, tangents = (x, W, b), [draw(*t.shape, seed=10 + i) for i, t in enumerate((x, W))]
    tangents.append(draw(192, seed=12)[::2])
    moving = [None if i in missing else t for i, t in enumerate(tangents)]
    exact = rules.linear(*(Dual(t, m) for t, m in zip(operands, moving, strict=True)))
    single = [Dual(t.float(), None if m is None else m.float()) for t, m in zip(operands, moving, strict=True)]
    single[2] = Dual(*(None if t is None else torch.stack([t, t], 1)[:, 0] for t in single[2]))
    found = rules.linear(*single)
    assert torch.equal(found.value, F.linear(*(dual.value for dual in single)))
    assert found.tangent.dtype == torch.float32
    scale = float(exact.tangent.abs().max())
    torch.testing.assert_close(found.tangent.double(), exact.tangent, rtol=0, atol=1e-6 * scale)


CONVOLUTIONS = {
    "plain": (lambda x, W, b: F.conv2d(x, W, b, stride=2, padding=1), (4, 3, 3, 3), 4),
    "in groups": (lambda x, W, b: F.conv2d(x, W, b, groups=3), (6, 1, 2, 2), 6),
    "transposed": (lambda x, W, b: F.conv_transpose2d(x, W, b, stride=2), (3, 4, 3, 3), 4),
}


@pytest.mark.parametrize("missing", SUBSETS, ids=str)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolution(kind, missing):
    plain, shape, outputs = CONVOLUTIONS[kind]
    operands = draw(2, 3, 5, 5), draw(*shape, seed=1), draw(outputs, seed=2)

    def rule(*duals):
        return rules.convolution(plain, *duals)

    agrees(rule, plain, *operands, missing=missing)


@pytest.mark.parametrize("missing", [(), (0,), (1,)], ids=str)
def test_matrix_products_broadcast(missing):
    agrees(rules.product, torch.matmul, draw(2, 1, 3, 4), draw(5, 4, 2, seed=1), missing=missing)


@pytest.mark.parametrize("missing", [(), (0,), (1,)], ids=str)
def test_matrix_products_of_the_heads_of_one_buffer(missing):
    q, k, _ = draw(2, 7, 36).view(2, 7, 3, 4, 3).permute(2, 0, 3, 1, 4)
    agrees(rules.product, torch.matmul, q, k.mT, missing=missing)
    assert torch.equal(rules.product(Dual(q, q), Dual(k.mT, None)).value, q @ k.mT)


@pytest.mark.parametrize("missing", SUBSETS, ids=str)
def test_batch_normalisation_keeps_its_statistics_fixed(missing):
    mean, variance = draw(3, seed=5), draw(3, seed=6).square() + 0.5

    def rule(x, g, b):
        return rules.batch_norm(x, mean, variance, g, b, 1e-5)

    def plain(x, g, b):
        return F.batch_norm(x, mean, variance, g, b, eps=1e-5)

    agrees(rule, plain, draw(4, 3, 2, 2), draw(3, seed=1), draw(3, seed=2), missing=missing)


@pytest.mark.parametrize("missing", SUBSETS, ids=str)
@pytest.mark.parametrize("rows", ["random", "constant"])
def test_layer_normalisation_also_of_constant_rows(rows, missing):
    x = draw(3, 4, 6) if rows == "random" else torch.full((3, 4, 6), 2.5, dtype=torch.float64)
    agrees(
        lambda x, g, b: rules.layer_norm(x, [6], g, b, 1e-6),
        lambda x, g, b: F.layer_norm(x, [6], g, b, 1e-6),
        x,
        draw(6, seed=1),
        draw(6, seed=2),
        missing=missing,
    )


@pytest.mark.parametrize(
    ("rule", "plain"),
    [
        (rules.relu, torch.relu),
        (rules.gelu, F.gelu),
        (lambda x: rules.gelu(x, "tanh"), lambda x: F.gelu(x, approximate="tanh")),
        (rules.silu, F.silu),
        (rules.tanh, torch.tanh),
        (rules.sigmoid, torch.sigmoid),
        (rules.glu, F.glu),
        (lambda x: rules.softmax(x, 0), lambda x: torch.softmax(x, 0)),
        (lambda x: rules.quotient(x, 3.0), lambda x: x / 3.0),
        (rules.normalize, lambda x: F.normalize(x, dim=-1)),
    ],
    ids=["relu", "gelu", "gelu-tanh", "silu", "tanh", "sigmoid", "glu", "softmax", "quotient", "normalize"],
)
def test_functions_of_one_operand(rule, plain):
    agrees(rule, plain, 2 * draw(5, 4))


def test_gelu_is_right_at_zero_and_far_out():
    x = torch.tensor([0.0, -0.0, 1e-9, -1e-9, 30.0, -30.0], dtype=torch.float64)
    agrees(rules.gelu, F.gelu, x)
    assert float(rules.gelu(Dual(x, torch.ones_like(x))).tangent[0]) == 0.5


def test_unit_vectors_of_tiny_vectors_are_divided_by_epsilon():
    agrees(rules.normalize, lambda x: F.normalize(x, dim=-1), 1e-14 * draw(2, 3))


@pytest.mark.parametrize("missing", SUBSETS, ids=str)
def test_attention(missing):
    agrees(
        rules.dot_attention,
        lambda q, k, v: torch.softmax(q @ k.mT / 2, -1) @ v,
        draw(2, 3, 5, 4),
        draw(2, 3, 6, 4, seed=1),
        draw(2, 3, 6, 7, seed=2),
        missing=missing,
    )


@pytest.mark.parametrize("kind", ["boolean", "additive"])
def test_attention_under_a_mask_moves_nothing_where_nothing_is_seen(kind):
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    mask = seen if kind == "boolean" else torch.zeros(5, 5, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    q, k, v = draw(2, 5, 4), draw(2, 5, 4, seed=1), draw(2, 5, 3, seed=2)
    agrees(
        lambda q, k, v: rules.dot_attention(q, k, v, mask, 0.3),
        lambda q, k, v: torch.softmax((q @ k.mT * 0.3).masked_fill(~seen, -torch.inf), -1) @ v,
        q,
        k,
        v,
    )


def test_tangents_of_softmax_sum_to_zero():
    moved = rules.softmax(Dual(draw(4, 6), draw(4, 6, seed=1)), -1)
    torch.testing.assert_close(moved.tangent.sum(-1), torch.zeros(4, dtype=torch.float64), rtol=0, atol=1e-14)


def test_the_row_of_the_padding_is_a_constant():
    index = torch.tensor([[0, 2], [1, 1]])
    found = rules.embedding(index, Dual(draw(3, 4), torch.ones(3, 4, dtype=torch.float64)), padding_idx=1)
    assert found.tangent[0].eq(1).all()
    assert found.tangent[1].eq(0).all()


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_rows(mode):
    index = torch.tensor([[0, 2, 1], [1, 1, 3]])
    W, V = draw(4, 5), draw(4, 5, seed=1)
    found = rules.embedding_bag(index, Dual(W, V), Dual(None, None), mode, {})
    h = 1e-6
    numeric = (F.embedding_bag(index, W + h * V, mode=mode) - F.embedding_bag(index, W - h * V, mode=mode)) / (2 * h)
    torch.testing.assert_close(found.tangent, numeric, rtol=1e-7, atol=1e-7)
