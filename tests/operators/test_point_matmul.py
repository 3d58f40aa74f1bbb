"""The point-approximate product against brute force, and its bounds."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tangrams.operators import (
    CompressedRows,
    pamm_compress,
    pamm_error_bound,
    pamm_generators_needed,
    pamm_matmul,
)

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=F64)


def brute_force(A, C):
    """Nearest line, scale and residual of each row, by trying every generator."""
    found = []
    for row in A.numpy():
        best = None
        for j, c in enumerate(C.numpy()):
            scale = row @ c / (c @ c)
            distance = np.linalg.norm(row - scale * c)
            if best is None or distance < best[2] - 1e-12:
                best = (j, scale, distance)
        found.append(best)
    assign, scale, distance = zip(*found, strict=True)
    return torch.tensor(assign), torch.tensor(scale, dtype=F64), torch.tensor(distance, dtype=F64)


def test_every_row_gets_the_nearest_point_on_the_nearest_line():
    A = normal(60, 5)
    c = pamm_compress(A, 7, generator=seeded())
    assign, scale, distance = brute_force(A, c.generators)
    assert torch.equal(c.assign.long(), assign)
    torch.testing.assert_close(c.scale, scale, rtol=1e-12, atol=1e-12)
    residual = torch.linalg.vector_norm(A - c.to_dense(), dim=1)
    torch.testing.assert_close(residual, distance, rtol=1e-10, atol=1e-12)
    cosine = torch.nn.functional.cosine_similarity(A, c.generators[c.assign.long()])
    torch.testing.assert_close(residual**2, (A**2).sum(1) * (1 - cosine**2).clamp_min(0), rtol=1e-9, atol=1e-12)


def test_generators_are_distinct_rows_of_the_matrix():
    A = normal(30, 4)
    C = pamm_compress(A, 12, generator=seeded(3)).generators
    places = [int((c == A).all(1).nonzero()) for c in C]
    assert len(set(places)) == 12


def test_every_row_is_drawn_equally_often():
    A, draws, k = normal(20, 3), 3000, 4
    generator = seeded(5)
    counts = torch.zeros(20)
    for _ in range(draws):
        counts[[int((c == A).all(1).nonzero()) for c in pamm_compress(A, k, generator=generator).generators]] += 1
    p = k / 20
    z = (counts - draws * p) / math.sqrt(draws * p * (1 - p))
    # Counts sum to a constant: their chi-square has 19 degrees of freedom after the factor 19/20.
    assert float((z**2).sum() * 19 / 20) < 43.8  # the 0.1 % point


def test_all_rows_as_generators_make_the_product_exact():
    A, B = normal(40, 6), normal(40, 3, seed=1)
    torch.testing.assert_close(
        pamm_matmul(pamm_compress(A, 40, generator=seeded()), B), A.mT @ B, rtol=1e-12, atol=1e-12
    )


def test_rows_on_few_lines_make_the_product_exact_when_each_line_is_drawn():
    lines, B = normal(3, 8), normal(90, 4, seed=1)
    A = normal(90, 1, seed=2) * lines.repeat(30, 1)
    c = pamm_compress(A, 12, generator=seeded(7))
    hit = {int(torch.nn.functional.cosine_similarity(g[None], lines).abs().argmax()) for g in c.generators}
    assert hit == {0, 1, 2}
    torch.testing.assert_close(pamm_matmul(c, B), A.mT @ B, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("epsilon", [math.inf, 0.6])
def test_the_product_is_that_of_the_dense_approximation(epsilon):
    A, B = normal(50, 6), normal(50, 3, seed=1)
    c = pamm_compress(A, 5, epsilon=epsilon, generator=seeded())
    torch.testing.assert_close(pamm_matmul(c, B), c.beta * c.to_dense().mT @ B, rtol=1e-12, atol=1e-12)


@given(factor=st.floats(1e-3, 1e3), sign=st.sampled_from([-1, 1]), row=st.integers(0, 19))
@settings(max_examples=30, deadline=None)
def test_scaling_a_row_scales_its_multiple_and_keeps_its_line(factor, sign, row):
    A = normal(20, 4)
    first = pamm_compress(A, 5, generator=seeded(1))
    A[row] *= sign * factor
    second = pamm_compress(A, 5, generator=seeded(1))
    if torch.equal(first.generators, second.generators):  # the row itself was not drawn
        assert torch.equal(first.assign, second.assign)
        torch.testing.assert_close(second.scale[row], sign * factor * first.scale[row], rtol=1e-10, atol=0)


@pytest.mark.parametrize("epsilon", [math.inf, 0.9, 0.5, 0.1, 0.0])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_the_error_bound_holds(k, epsilon):
    for seed in range(5):
        A, B = normal(30, 6, seed=seed), normal(30, 5, seed=seed + 100)
        c = pamm_compress(A, k, epsilon=epsilon, generator=seeded(seed))
        error = float(torch.linalg.matrix_norm(pamm_matmul(c, B) - A.mT @ B))
        assert error <= pamm_error_bound(A, B, c) * (1 + 1e-10) + 1e-10


def test_the_error_bound_is_reached_by_a_single_row_that_was_dropped():
    A = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=F64)
    B = torch.tensor([[0.0], [3.0]], dtype=F64)
    seed = next(s for s in range(50) if pamm_compress(A, 1, epsilon=0.1, generator=seeded(s)).generators[0, 0] == 1)
    c = pamm_compress(A, 1, epsilon=0.1, generator=seeded(seed))
    assert c.kept.tolist() == [True, False]
    assert c.beta == 2
    # β Ã B = 0, as B's first row is zero; all of A's second row is missed.
    assert pamm_error_bound(A, B, c) >= float(torch.linalg.matrix_norm(pamm_matmul(c, B) - A.mT @ B)) == 6.0


def test_rows_outside_the_neighbourhood_are_dropped_and_counted():
    A = normal(80, 4)
    c = pamm_compress(A, 6, epsilon=0.5, generator=seeded())
    _, _, distance = brute_force(A, c.generators)
    expected = distance <= 0.5 * torch.linalg.vector_norm(A, dim=1)
    assert torch.equal(c.kept, expected)
    assert (c.scale[~expected] == 0).all()
    assert c.beta == 80 / int(expected.sum())


def test_drawn_rows_are_kept_at_radius_zero_in_single_precision():
    A = normal(50, 300).float()
    c = pamm_compress(A, 9, epsilon=0.0, generator=seeded())
    assert int(c.kept.sum()) == 9
    assert c.beta == 50 / 9


def test_zero_rows_stand_for_themselves_and_are_drawn_last():
    A = normal(20, 3)
    A[::2] = 0
    c = pamm_compress(A, 10, epsilon=0.5, generator=seeded())
    assert (c.generators != 0).any(1).all()
    assert (c.scale[::2] == 0).all()
    assert c.kept[::2].all()
    for k in (1, 20):
        nothing = pamm_compress(torch.zeros(20, 3), k, generator=seeded())
        assert torch.equal(pamm_matmul(nothing, torch.ones(20, 2)), torch.zeros(3, 2))


def test_ties_go_to_the_first_generator():
    A = torch.tensor([1.0, -2.0, 3.0, 0.5], dtype=F64)[:, None] * torch.tensor([[3.0, 4.0]], dtype=F64)
    assert pamm_compress(A, 3, generator=seeded()).assign.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("k", "dtype"), [(1, torch.int16), (1 << 15, torch.int16), ((1 << 15) + 1, torch.int32)])
def test_indices_take_the_narrowest_integer(k, dtype):
    c = pamm_compress(torch.ones(k, 1), k, generator=seeded())
    assert c.assign.dtype == dtype
    assert int(c.assign.max()) == 0


def test_bytes_are_those_of_generators_indices_and_scales():
    c = pamm_compress(normal(100, 16).float(), 4, generator=seeded())
    assert c.nbytes == 4 * (4 * 16) + 100 * (4 + 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    A = (300 * normal(64, 400)).to(dtype)  # a squared norm overflows float16
    B = normal(64, 3, seed=1).to(dtype)
    c = pamm_compress(A, 8, generator=seeded())
    exact = pamm_compress(A.double(), 8, generator=seeded())
    assert c.scale.dtype == c.generators.dtype == dtype
    assert torch.equal(c.assign, exact.assign)
    bits = torch.finfo(dtype).eps
    torch.testing.assert_close(c.scale.double(), exact.scale, rtol=bits, atol=bits)
    product = pamm_matmul(CompressedRows(c.generators / 300, c.assign, c.scale, 1.0, None, math.inf), B)
    assert product.dtype == dtype
    assert torch.isfinite(product).all()


def test_panels_of_rows_change_nothing(monkeypatch):
    import tangrams.operators.point_matmul as module

    A = normal(50, 6)
    whole = pamm_compress(A, 5, generator=seeded())
    monkeypatch.setattr(module, "_PANEL_ELEMENTS", 17)
    panels = pamm_compress(A, 5, generator=seeded())
    assert torch.equal(whole.assign, panels.assign)
    torch.testing.assert_close(whole.scale, panels.scale, rtol=1e-13, atol=0)


def test_not_a_number_is_seen_in_the_product():
    A = normal(20, 3)
    A[4, 1] = torch.nan
    for epsilon in (math.inf, 0.5):
        c = pamm_compress(A, 3, epsilon=epsilon, generator=seeded(2))
        assert torch.isnan(pamm_matmul(c, torch.ones(20, 2, dtype=F64))).any()


def test_enough_generators_reach_every_row_as_often_as_promised():
    # 16 lines with 32 rows each: a row's neighbours are the 32 on its line.
    b, neighbours, delta = 512, 32, 0.2
    k = pamm_generators_needed(b, neighbours, delta)
    A = normal(16, 24).repeat_interleave(neighbours, 0)
    trials = 200
    missed = sum(
        not bool(pamm_compress(A, k, epsilon=1e-3, generator=seeded(seed)).kept.all()) for seed in range(trials)
    )
    assert missed / trials <= delta
    assert pamm_generators_needed(b, 1, 1e-9) == b


def test_draws_come_from_the_generator_alone():
    state = torch.get_rng_state()
    A = normal(20, 3)
    assert torch.equal(
        pamm_compress(A, 3, generator=seeded(1)).generators, pamm_compress(A, 3, generator=seeded(1)).generators
    )
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pamm_compress(torch.zeros(0, 3), 1), "without any"),
        (lambda: pamm_compress(torch.zeros(4, 3), 0), "1 ≤ k ≤ 4"),
        (lambda: pamm_compress(torch.zeros(4, 3), 5), "1 ≤ k ≤ 4"),
        (lambda: pamm_compress(torch.zeros(4, 3), 2, epsilon=-0.1), "epsilon"),
        (lambda: pamm_compress(torch.zeros(4, 3), 2, epsilon=math.nan), "epsilon"),
        (lambda: pamm_matmul(pamm_compress(torch.ones(4, 3), 2), torch.zeros(5, 2)), "4 rows"),
        (lambda: pamm_generators_needed(10, 11, 0.1), "neighbours"),
        (lambda: pamm_generators_needed(10, 2, 0.0), "delta"),
    ],
    ids=["empty", "k0", "k-large", "epsilon-negative", "epsilon-nan", "rows", "neighbours", "delta"],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
