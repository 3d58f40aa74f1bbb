"""Facts of each sketch beyond the suite: exact variances, structure, and the inputs that break naive ones."""

import itertools
import math
import pickle

import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from tangrams.operators import (
    CirculantSketch,
    Column,
    CosineSketch,
    CountSketch,
    GaussianSketch,
    HadamardSketch,
    KhatriRaoSketch,
    KroneckerSketch,
    OrthogonalSketch,
    PooledHadamardSketch,
    RademacherSketch,
    Sketch,
    SparseSketch,
    TensorHadamardSketch,
    TensorSketch,
    block_generator,
)
from tangrams.operators.sketches import khatri_rao
from tangrams.operators.sketches.base import BLOCK, stream_blocks
from tangrams.operators.sketches.folding import fold_add, unfold_take
from tangrams.operators.sketches.runs import matrix_shape

SKETCHES = [
    CirculantSketch,
    CosineSketch,
    CountSketch,
    GaussianSketch,
    HadamardSketch,
    KhatriRaoSketch,
    KroneckerSketch,
    OrthogonalSketch,
    PooledHadamardSketch,
    RademacherSketch,
    SparseSketch,
    TensorHadamardSketch,
    TensorSketch,
]


def matrix(sketch):
    return sketch.matrix(dtype=torch.float64).to_dense()


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_folding_has_the_stated_mean_and_variance_over_every_draw():
    """All 2⁶ signs × 2³ shifts of six columns in runs of two, enumerated."""
    x, y = normal(2, 6)
    products = []
    for shifts in itertools.product(range(2), repeat=3):
        for signs in itertools.product((-1.0, 1.0), repeat=6):
            out = torch.zeros(2, 2, dtype=torch.float64)
            fold_add(torch.stack([x, y]), torch.tensor(signs, dtype=torch.float64), torch.tensor(shifts), 0, out)
            products.append(out[0] @ out[1])
    products = torch.stack(products)
    blocks_x, blocks_y = x.reshape(3, 2).square().sum(1), y.reshape(3, 2).square().sum(1)
    inner = (x * y).reshape(3, 2).sum(1)
    between = 1 - torch.eye(3, dtype=torch.float64)
    stated = (between * (torch.outer(blocks_x, blocks_y) + torch.outer(inner, inner))).sum() / 2
    torch.testing.assert_close(products.mean(), x @ y)
    torch.testing.assert_close(products.var(correction=0), stated)


@pytest.mark.parametrize("size", [3, 300])
def test_folding_by_pieces_and_by_scattering_agree(size):
    """Small and large folds take different routes; both follow ``(c + shift) mod size``."""
    width, low = 1000, 17
    part, signs = normal(2, width), torch.sign(normal(width, seed=1))
    shifts = torch.randint(0, size, (-(-BLOCK // size),), generator=torch.Generator().manual_seed(2))
    expected = torch.zeros(2, size, dtype=torch.float64)
    for c in range(width):
        expected[:, (low + c + int(shifts[(low + c) // size])) % size] += signs[c] * part[:, c]
    out = torch.zeros(2, size, dtype=torch.float64)
    fold_add(part, signs, shifts, low, out)
    torch.testing.assert_close(out, expected)
    back = unfold_take(out, signs, shifts, low)
    torch.testing.assert_close((back * part).sum(), out.square().sum())


def test_count_sketch_has_one_sign_per_column_and_no_collisions_within_a_block():
    k = 300
    S = matrix(CountSketch(k, seed=4).bind(1000))
    assert torch.equal((S != 0).sum(0), torch.ones(1000, dtype=torch.int64))
    assert torch.equal(S.abs().sum(0), torch.ones(1000, dtype=torch.float64))
    for first in range(0, 1000, k):
        block = S[:, first : first + k]
        torch.testing.assert_close(block.mT @ block, torch.eye(block.shape[1], dtype=torch.float64))


def test_folding_without_a_shift_breaks_on_sparse_inputs_and_count_sketch_does_not():
    """All rows of a weight use the same few inputs: without shifts they all fall on the same few entries."""
    k = 256
    inputs = torch.zeros(k, dtype=torch.float64)
    inputs[[3, 50, 200]] = 1
    x = torch.outer(normal(64), inputs).flatten()
    y = torch.outer(normal(64, seed=1), inputs).flatten()
    x, y = x / x.norm(), y / y.norm()
    rho = float(x @ y)
    shiftless, ours = [], []
    for seed in range(200):
        signs = torch.sign(normal(64 * k, seed=seed + 10))
        shiftless.append(((x * signs).reshape(64, k).sum(0) @ (y * signs).reshape(64, k).sum(0)) - rho)
        sketched = CountSketch(k, seed=seed).bind(64 * k).project(torch.stack([x, y]))
        ours.append(sketched[0] @ sketched[1] - rho)
    bound = math.sqrt((1 + rho**2) / k)
    assert float(torch.stack(shiftless).square().mean().sqrt()) > 4 * bound
    assert float(torch.stack(ours).square().mean().sqrt()) < 1.2 * bound


@pytest.mark.parametrize(("k", "s"), [(20, 4), (23, 3), (5, 5)])
def test_sparse_sketch_has_one_entry_in_each_group(k, s):
    S = matrix(SparseSketch(k, nonzeros=s, seed=1).bind(200))
    borders = [g * k // s for g in range(s + 1)]
    for low, high in itertools.pairwise(borders):
        assert torch.equal((S[low:high] != 0).sum(0), torch.ones(200, dtype=torch.int64))
    torch.testing.assert_close(S.square().sum(0), torch.ones(200, dtype=torch.float64))


def test_sparse_sketch_with_one_entry_has_the_variance_of_a_count_sketch():
    assert SparseSketch(64, nonzeros=1).variance(0.5) == CountSketch(64).variance(0.5)
    assert SparseSketch(64, nonzeros=4).variance(0.5) == pytest.approx(CountSketch(64).variance(0.5))
    with pytest.raises(ValueError, match="nonzeros"):
        SparseSketch(4, nonzeros=5)


@pytest.mark.parametrize(("k", "p"), [(8, 30), (20, 32), (64, 40), (3, 1)])
def test_hadamard_sketch_is_a_sampled_transform_of_signed_columns(k, p):
    sketch = HadamardSketch(k, seed=5).bind(p)
    S = matrix(sketch)
    m = max(1 << (p - 1).bit_length(), 1 << (k - 1).bit_length())
    H = torch.as_tensor(scipy.linalg.hadamard(m), dtype=torch.float64)
    unsigned = S * math.sqrt(k)
    torch.testing.assert_close(unsigned.abs(), torch.ones_like(unsigned))
    rows = sketch._rows()
    assert len(set(rows.tolist())) == k
    signs = unsigned[0] * H[rows[0], :p]  # D, from the first row drawn
    torch.testing.assert_close(unsigned, H[rows][:, :p] * signs)


def test_hadamard_sketch_of_full_size_is_orthogonal():
    S = matrix(HadamardSketch(64, seed=0).bind(50))
    torch.testing.assert_close(S.mT @ S, torch.eye(50, dtype=torch.float64))
    assert HadamardSketch(64).bind(50).variance(1.0) == 0


def test_hadamard_rows_are_distinct_and_uniform_when_there_are_many():
    sketch = HadamardSketch(500, seed=3).bind(1 << 20)
    rows = sketch._rows()
    assert len(set(rows.tolist())) == 500
    assert abs(float(rows.double().mean()) / 2**19 - 1) < 5 / math.sqrt(3 * 500)


def test_dense_sketches_have_the_stated_entries():
    S = matrix(RademacherSketch(64, seed=0).bind(700))
    assert torch.equal(S.abs(), torch.full_like(S, 1 / 8))
    assert abs(float(S.sum()) * 8) < 5 * math.sqrt(S.numel())
    G = matrix(GaussianSketch(64, seed=0).bind(700)) * 8
    assert abs(float(G.mean())) < 5 / math.sqrt(G.numel())
    assert abs(float(G.square().mean()) - 1) < 5 * math.sqrt(2 / G.numel())
    assert abs(float(G.pow(4).mean()) - 3) < 5 * math.sqrt(96 / G.numel())


@pytest.mark.parametrize("make", [GaussianSketch, OrthogonalSketch, KhatriRaoSketch])
def test_normal_draws_do_not_depend_on_the_default_dtype(make):
    found = []
    for dtype in (torch.float32, torch.float64):
        torch.set_default_dtype(dtype)
        try:
            found.append(make(5, seed=4).bind((Column("w", (3, 8), 0, 24),)).project(normal(2, 24)))
        finally:
            torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(found[0], found[1], rtol=1e-6, atol=1e-6)


def test_the_gaussian_variance_is_exact():
    x, y = normal(2, 60)
    x, y = x / x.norm(), y / y.norm()
    rho = float(x @ y)
    squares = []
    for seed in range(2000):
        sketched = GaussianSketch(16, seed=seed).bind(60).project(torch.stack([x, y]))
        squares.append((sketched[0] @ sketched[1] - rho).square())
    squares = torch.stack(squares)
    z = (float(squares.mean()) - GaussianSketch(16).variance(rho)) / (float(squares.std()) / math.sqrt(2000))
    assert abs(z) < 5


@pytest.mark.parametrize("make", [CountSketch, SparseSketch, RademacherSketch, GaussianSketch])
def test_more_columns_leave_the_first_ones_as_they_were(make):
    short, long = matrix(make(16, seed=2).bind(100)), matrix(make(16, seed=2).bind(160))
    assert torch.equal(short, long[:, :100])


def test_tensor_sketch_is_the_product_of_the_hashes_of_its_axes():
    sketch = TensorSketch(30, seed=3).bind((Column("w", (7, 2, 3), 0, 42), Column("b", (7,), 42, 49)))
    left, right = sketch._draw(0, sketch.columns[0])
    S = matrix(sketch)
    for o, i in itertools.product(range(7), range(6)):
        column = S[:, 6 * o + i]
        assert float(column[(left.hashes[o] + right.hashes[i]) % 30]) == float(left.signs[o] * right.signs[i])
        assert int((column != 0).sum()) == 1


def test_tensor_sketch_by_fft_never_forms_the_products():
    sketch = TensorSketch(512, seed=0).bind((Column("w", (300, 400), 0, 120_000),))
    left, right = normal(4, 1, 300), normal(4, 1, 400, seed=1)
    out = torch.zeros(4, 512, dtype=torch.float64)
    sketch.accumulate_outer(left, right, 0, out)
    torch.testing.assert_close(out, sketch.project((left.mT @ right).flatten(1)))


def test_kronecker_sketch_of_one_weight_is_a_kronecker_product():
    sketch = KroneckerSketch(36, seed=1).bind((Column("w", (20, 30), 0, 600),))
    pair = sketch._draw(0, sketch.columns[0], torch.zeros(1, dtype=torch.float64))
    small = torch.kron(pair.left.contiguous(), pair.right.contiguous())
    assert small.shape == (36, 600)
    torch.testing.assert_close(matrix(sketch), small.roll(pair.shift, 0) * pair.signs[:, None])


def test_kronecker_sketch_keeps_a_narrow_side_and_says_what_that_saves():
    narrow, wide, vector = (
        Column("n", (3, 200), 0, 600),
        Column("w", (90, 90), 600, 8700),
        Column("b", (9,), 8700, 8709),
    )
    sketch = KroneckerSketch(100, seed=0).bind((narrow, wide, vector))
    assert sketch._sizes(narrow) == (3, 33)
    assert sketch._sizes(wide) == (10, 10)
    assert sketch.run_variance(narrow) == 2 / 33
    assert sketch.run_variance(wide) == pytest.approx(0.44)
    assert sketch.run_variance(vector) == 0
    assert sketch.variance() == pytest.approx(0.44 + 0.01)
    only = KroneckerSketch(100, seed=0).bind((Column("b", (9,), 0, 9),))
    S = matrix(only)
    torch.testing.assert_close(S.mT @ S, torch.eye(9, dtype=torch.float64))


def test_kronecker_sketch_does_not_pile_its_runs_on_the_same_features():
    """First columns of two runs that are both kept whole: they may meet with probability 1/k, not always."""
    columns = (Column("a", (9,), 0, 9), Column("b", (9,), 9, 18))
    met = 0
    for seed in range(400):
        S = matrix(KroneckerSketch(20, seed=seed).bind(columns))
        met += int(S[:, 0] @ S[:, 9] != 0)
    assert abs(met - 20) < 5 * math.sqrt(400 * 0.05 * 0.95)


def test_kronecker_sketch_is_several_times_less_accurate_at_equal_k_as_it_states():
    o, i, k = 48, 64, 256
    columns = (Column("w", (o, i), 0, o * i),)
    shared_left, shared_right = normal(o), normal(i, seed=9)
    rows = []
    for n in range(2):
        left, right = shared_left + 0.5 * normal(o, seed=n + 1), shared_right + 0.5 * normal(i, seed=n + 20)
        rows.append(torch.outer(left, right).flatten())
    rows = torch.stack([row / row.norm() for row in rows])
    rho = float(rows[0] @ rows[1])

    def error(make):
        found = []
        for seed in range(300):
            sketched = make(k, seed=seed).bind(columns).project(rows)
            found.append((sketched[0] @ sketched[1] - rho).square())
        return math.sqrt(float(torch.stack(found).mean()))

    kronecker, count, tensor = error(KroneckerSketch), error(CountSketch), error(TensorSketch)
    assert kronecker > 3 * count
    assert kronecker <= 1.2 * KroneckerSketch(k).bind(columns).standard_error(rho)
    assert tensor < 2.5 * math.sqrt((1 + rho**2) / k)
    assert count < 1.2 * math.sqrt((1 + rho**2) / k)


def test_runs_are_read_as_matrices():
    assert matrix_shape(Column("w", (5, 2, 3), 0, 30)) == (5, 6)
    assert matrix_shape(Column("b", (7,), 0, 7)) == (1, 7)
    assert matrix_shape(Column("s", (), 0, 1)) == (1, 1)
    assert matrix_shape(Column("e", (0, 4), 3, 3)) == (1, 0)


def test_an_empty_run_among_others_changes_nothing():
    columns = (Column("e", (0, 4), 0, 0), Column("w", (3, 4), 0, 12), Column("s", (), 12, 13))
    for make in (CountSketch, TensorSketch, KroneckerSketch, HadamardSketch):
        sketch = make(8, seed=0).bind(columns)
        x = normal(2, 13)
        torch.testing.assert_close(sketch.project(x), x @ matrix(sketch).mT)


@pytest.mark.parametrize("make", SKETCHES)
def test_no_rows_and_no_positions_are_no_sketches_and_zeros(make):
    columns = (*weight_and_bias(), Column("none", (0, 3), 25, 25), Column("kernel", (3, 2, 2), 25, 37))
    sketch, no_rows, no_positions = make(8).bind(columns), torch.zeros(0, 8), torch.zeros(2, 8)
    assert sketch.project(torch.zeros(0, 37)).shape == (0, 8)
    assert sketch.lift(no_rows).shape == (0, 37)
    for start in (0, 3):  # aligned with the weight or not
        sketch.accumulate_outer(torch.zeros(0, 2, 5), torch.zeros(0, 2, 4), start, no_rows)
        sketch.accumulate_outer(torch.zeros(2, 0, 5), torch.zeros(2, 0, 4), start, no_positions)
    assert not no_positions.any()
    nothing = make(8).bind(0)
    assert torch.equal(nothing.project(torch.zeros(3, 0)), torch.zeros(3, 8))
    assert nothing.lift(torch.ones(3, 8)).shape == (3, 0)


def weight_and_bias():
    return (Column("weight", (5, 4), 0, 20), Column("bias", (5,), 20, 25))


def test_the_projections_of_a_khatri_rao_sketch_are_drawn_once_for_all_panels(monkeypatch):
    drawn = []

    def counting(seed, block):
        drawn.append(block)
        return block_generator(seed, block)

    monkeypatch.setattr(khatri_rao, "block_generator", counting)
    sketch, x = KhatriRaoSketch(11, seed=3).bind(weight_and_bias()), normal(6, 25)
    panels = torch.cat([sketch.project(panel) for panel in x.split(1)])
    sketch.lift(panels)
    sketch.accumulate_outer(normal(2, 1, 5), normal(2, 1, 4), 0, torch.zeros(2, 11, dtype=torch.float64))
    assert sorted(drawn) == [0, 1]
    monkeypatch.setattr(khatri_rao, "_KEPT_BYTES", 0)
    drawn.clear()
    frugal = KhatriRaoSketch(11, seed=3).bind(weight_and_bias())
    assert torch.equal(torch.cat([frugal.project(panel) for panel in x.split(1)]), panels)
    assert len(drawn) == 12


def test_what_a_khatri_rao_sketch_keeps_serves_no_other_seed_columns_or_dtype():
    sketch, x = KhatriRaoSketch(11, seed=3).bind(weight_and_bias()), normal(6, 25)
    with torch.inference_mode():
        whole = sketch.project(x).clone()
    z = x.clone().requires_grad_(True)
    torch.testing.assert_close(torch.autograd.grad(sketch.project(z).sum(), z)[0], sketch.lift(torch.ones_like(whole)))
    bare = len(pickle.dumps(KhatriRaoSketch(11, seed=3).bind(weight_and_bias())))
    assert len(pickle.dumps(sketch)) == bare
    other = KhatriRaoSketch(11, seed=4).bind(weight_and_bias())
    assert torch.equal(sketch.with_seed(4).project(x), other.project(x))
    assert torch.equal(sketch.bind(25).project(x), KhatriRaoSketch(11, seed=3).bind(25).project(x))
    assert sketch.project(x.float()).dtype == torch.float32
    assert torch.equal(sketch.project(x), whole)


def test_the_stream_is_cut_at_its_borders_and_its_blocks_are_independent():
    assert list(stream_blocks(BLOCK - 2, 2 * BLOCK + 1)) == [(0, BLOCK - 2, BLOCK), (1, 0, BLOCK), (2, 0, 1)]
    assert list(stream_blocks(5, 5)) == []
    draws = [torch.rand(4, generator=block_generator(s, b)) for s, b in ((0, 0), (0, 1), (1, 0), (0, -1))]
    assert len({tuple(d.tolist()) for d in draws}) == 4


def test_count_sketch_of_wide_gradients_is_within_its_bound_for_every_pair():
    """Many pairs at once, as gradients share a mean: the root mean square over pairs and seeds."""
    rows = normal(16, 5000) + 2 * normal(1, 5000, seed=5)
    rows = rows / rows.norm(dim=1, keepdim=True)
    gram = rows @ rows.mT
    off = ~torch.eye(16, dtype=torch.bool)
    k, errors = 256, []
    for seed in range(40):
        sketched = CountSketch(k, seed=seed).bind(5000).project(rows)
        errors.append((sketched @ sketched.mT - gram)[off])
    rms = float(torch.stack(errors).square().mean().sqrt())
    assert rms <= 1.1 * float(((1 + gram[off].square()) / k).mean().sqrt())


@pytest.mark.parametrize(
    "make",
    [CountSketch, GaussianSketch, HadamardSketch, KroneckerSketch, RademacherSketch, SparseSketch, TensorSketch],
)
@given(
    k=st.integers(4, 40),
    shapes=st.lists(st.lists(st.integers(0, 6), max_size=3).map(tuple), min_size=1, max_size=4),
    cuts=st.lists(st.floats(0, 1), max_size=3),
)
def test_any_size_any_runs_and_any_cuts_give_one_sketch(make, k, shapes, cuts):
    columns, start = [], 0
    for number, shape in enumerate(shapes):
        columns.append(Column(str(number), shape, start, start + math.prod(shape)))
        start = columns[-1].stop
    sketch = make(k, seed=1).bind(columns)
    x, u = normal(2, start), normal(2, k)
    whole = sketch.project(x)
    torch.testing.assert_close((whole * u).sum(), (x * sketch.lift(u)).sum())
    out = torch.zeros(2, k, dtype=torch.float64)
    for low, high in itertools.pairwise(sorted([0, start, *(round(cut * start) for cut in cuts)])):
        sketch.accumulate(x[:, low:high], low, out)
    torch.testing.assert_close(out, whole)


class RepeatedIdentity(Sketch):
    """A member that writes the one hook it must."""

    def accumulate(self, block, start, out):
        for c in range(block.shape[1]):
            out[:, (start + c) % self.num_features] += block[:, c]


def test_a_member_needs_to_write_one_hook():
    sketch = RepeatedIdentity(7).bind(600)
    S = matrix(sketch)
    assert torch.equal(S, torch.eye(7, dtype=torch.float64).repeat(1, 86)[:, :600])
    u = normal(3, 7)
    torch.testing.assert_close(sketch.lift(u), u @ S)
    torch.testing.assert_close(sketch.lift_block(u, 5, 590), (u @ S)[:, 5:590])
    with pytest.raises(NotImplementedError, match="RepeatedIdentity states no variance"):
        sketch.standard_error()
