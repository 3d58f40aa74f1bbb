"""Products of sparse matrices."""

import pickle

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tangrams.data import rmat
from tangrams.operators import SparseProductOperator, spgemm
from tangrams.operators.sparse_products import (
    CSR,
    MIN_PLUS,
    OR_AND,
    PLUS_TIMES,
    AutomaticDataflow,
    CompiledDataflow,
    DenseDataflow,
    HashAccumulator,
    HashDataflow,
    InnerDataflow,
    LibraryDataflow,
    OuterDataflow,
    SortDataflow,
    TableFullError,
    csr_matmul,
    flops_per_row,
    graph_square,
    high_bits,
    low_bits,
    masked_spgemm,
    meetings,
    plan_windows,
    product,
    semiring_spgemm,
    static_loads,
    token_loads,
    traffic,
    triangle_count,
)
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.operator import OperatorSuite

DATAFLOWS = {
    "hash": HashDataflow(),
    "hash-windows": HashDataflow(64),
    "hash-low-bits": HashDataflow(256, 0.9, hash=low_bits),
    "dense": DenseDataflow(),
    "dense-windows": DenseDataflow(50),
    "sort": SortDataflow(),
    "outer": OuterDataflow(),
    "inner": InnerDataflow(),
    "library": LibraryDataflow(),
    "automatic": AutomaticDataflow(),
    "compiled": CompiledDataflow(),
}


@pytest.fixture(params=DATAFLOWS, ids=str)
def dataflow(request):
    if request.param == "compiled":
        pytest.importorskip("numba")
    return DATAFLOWS[request.param]


def random(n, m, density=0.2, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    dense = torch.randn(n, m, generator=g, dtype=dtype) * (torch.rand(n, m, generator=g) < density)
    return CSR.from_torch(dense)


def graph(scale=7, seed=0, values=None):
    edges = rmat(scale, seed=seed)
    values = torch.randn(edges.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return CSR.from_entries(edges[0], edges[1], values, (1 << scale, 1 << scale))


def banded(n, width):
    i = torch.arange(n)
    return CSR.from_torch(random(n, n, 1.0).to_dense() * ((i[:, None] - i).abs() <= width))


PAIRS = {
    "square": (random(30, 30), random(30, 30, seed=1)),
    "rectangular": (random(7, 40), random(40, 13, seed=1)),
    "power-law": (graph(), graph(seed=2)),
    "banded": (banded(40, 3), banded(40, 2)),
    "dense": (random(12, 9, 1.0), random(9, 8, 1.0, seed=1)),
    "empty": (random(6, 5, 0.0), random(5, 7, seed=1)),
    "empty-rows": (CSR.from_torch(torch.eye(9, dtype=torch.float64)[:, :3].mT), random(9, 4, 0.1, seed=1)),
    "no-rows": (random(0, 5), random(5, 3, seed=1)),
    "no-columns": (random(4, 5), random(5, 0)),
}

TestSparseProductOperator = conformance(
    OperatorSuite,
    Case(
        lambda: SparseProductOperator(a=random(6, 8, 0.4), b=random(8, 5, 0.4, seed=1)),
        reference=lambda op: op.a.to_dense() @ op.b.to_dense(),
    ),
)


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_every_dataflow_gives_scipys_product_with_sorted_columns(dataflow, pair):
    a, b = PAIRS[pair]
    made, stats = dataflow.product(a, b)
    expected = (a.to_scipy() @ b.to_scipy()).tocsr()
    expected.sort_indices()
    assert made.shape == expected.shape
    assert torch.equal(made.crow, torch.from_numpy(expected.indptr.astype(np.int64)))
    assert torch.equal(made.col, torch.from_numpy(expected.indices.astype(np.int64)))
    assert (made.values - torch.from_numpy(expected.data)).abs().max() < 1e-12 if made.nnz else True
    assert stats.flops == int(flops_per_row(a, b).sum())
    assert stats.nnz == made.nnz


@given(st.integers(0, 12), st.integers(1, 12), st.integers(0, 12), st.floats(0, 0.6), st.integers(0, 1000))
def test_any_shape_and_density_multiplies(n, k, m, density, seed):
    a, b = random(n, k, density, seed), random(k, m, density, seed + 1)
    dense = a.to_dense() @ b.to_dense()
    for each in (HashDataflow(16), DenseDataflow(8), SortDataflow(), OuterDataflow(), InnerDataflow()):
        assert torch.allclose(each.product(a, b)[0].to_dense(), dense, atol=1e-12)


def test_products_associate_and_identities_and_permutations_act():
    a, b, c = random(9, 12), random(12, 10, seed=1), random(10, 8, seed=2)
    left, right = spgemm(spgemm(a, b), c), spgemm(a, spgemm(b, c))
    assert (left.to_dense() - right.to_dense()).abs().max() < 1e-12
    eye = CSR.from_torch(torch.eye(12, dtype=torch.float64))
    assert torch.equal(spgemm(a, eye).col, a.col)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    permuted = spgemm(CSR.from_torch(torch.eye(12, dtype=torch.float64)[order]), b)
    assert torch.equal(permuted.to_dense(), b.to_dense()[order])


def test_partial_products_are_counted_by_the_formula():
    a, b = random(20, 15), random(15, 12, seed=1)
    dense_a, dense_b = a.to_dense() != 0, b.to_dense() != 0
    assert torch.equal(flops_per_row(a, b), (dense_a.long() @ dense_b.long()).sum(1))


def test_gradients_are_those_of_the_dense_product(dataflow):
    a, b = random(6, 7, 0.4), random(7, 5, 0.4, seed=1)

    def values(x, y):
        return spgemm(a._replace(values=x), b._replace(values=y), dataflow=dataflow).values

    assert torch.autograd.gradcheck(values, (a.values.clone().requires_grad_(), b.values.clone().requires_grad_()))


def test_complex_values_multiply_and_have_gradients():
    a, b = random(6, 7, 0.4, dtype=torch.complex128), random(7, 5, 0.4, seed=1, dtype=torch.complex128)
    assert (spgemm(a, b).to_dense() - a.to_dense() @ b.to_dense()).abs().max() < 1e-12
    leaves = a.values.clone().requires_grad_(), b.values.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: spgemm(a._replace(values=x), b._replace(values=y)).values, leaves)


def test_integers_multiply_exactly():
    a = CSR.from_torch(torch.tensor([[0, 3], [2**60, 0]]))
    assert spgemm(a, a).to_dense().tolist() == [[3 * 2**60, 0], [0, 3 * 2**60]]


def test_places_that_cancel_are_kept_until_pruned(dataflow):
    a = CSR.from_torch(torch.tensor([[1.0, 1.0]], dtype=torch.float64))
    b = CSR.from_torch(torch.tensor([[2.0, 1.0], [-2.0, 0.0]], dtype=torch.float64))
    made = dataflow.product(a, b)[0]
    assert made.nnz == 2
    assert made.prune().col.tolist() == [1]


def test_nan_spreads_through_stored_entries_only():
    a = CSR.from_torch(torch.tensor([[float("nan"), 0.0], [0.0, 1.0]], dtype=torch.float64))
    b = CSR.from_torch(torch.tensor([[0.0, 1.0], [1.0, 1.0]], dtype=torch.float64))
    made = spgemm(a, b).to_dense()
    assert made.isnan().tolist() == [[False, True], [False, False]]


def test_entries_in_any_order_are_made_canonical():
    csr = CSR.from_entries(
        torch.tensor([1, 0, 1, 1]), torch.tensor([2, 1, 0, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0]), (2, 3)
    )
    assert csr.col.tolist() == [1, 0, 2]
    assert csr.to_dense().tolist() == [[0, 2, 0], [3, 0, 5]]
    assert torch.equal(CSR.from_torch(csr.to_torch()).values, csr.values)
    assert torch.equal(CSR.from_scipy(csr.to_scipy()).col, csr.col)
    assert torch.equal(csr.transpose().to_dense(), csr.to_dense().mT)


@pytest.mark.parametrize("hash", [high_bits, low_bits])
def test_a_table_adds_what_a_dict_adds(hash):
    g = torch.Generator().manual_seed(0)
    table, sums = HashAccumulator(512, torch.zeros(0, dtype=torch.float64), hash=hash), {}
    for _ in range(3):
        keys, values = torch.randint(0, 460, (400,), generator=g), torch.randn(400, generator=g, dtype=torch.float64)
        table.insert_add(keys * 7, values)
        for key, value in zip((keys * 7).tolist(), values.tolist(), strict=True):
            sums[key] = sums.get(key, 0.0) + value
    keys, values = table.drain()
    assert len(sums) > 0.8 * 512  # a load at which probes are long
    assert keys.tolist() == sorted(sums)
    assert np.allclose(values.numpy(), [sums[key] for key in sorted(sums)])


def test_a_full_table_says_so_and_an_exactly_full_one_does_not():
    table = HashAccumulator(8, torch.zeros(0))
    table.insert_add(torch.arange(8), torch.ones(8))
    assert table.drain()[0].tolist() == list(range(8))
    with pytest.raises(TableFullError, match="full"):
        table.insert_add(torch.tensor([100]), torch.ones(1))
    with pytest.raises(ValueError, match="power of two"):
        HashAccumulator(12, torch.zeros(0))


def test_windows_keep_to_the_budget_and_cover_all_rows():
    a = graph(9)
    plan = plan_windows(a, a, 1 << 12)
    assert len(plan.windows) > 3
    assert [first for first, _ in plan.windows] == [0, *[last for _, last in plan.windows[:-1]]]
    assert plan.windows[-1][1] == a.shape[0]
    assert sum(plan.flops) == int(flops_per_row(a, a).sum())
    for (first, last), upper, size in zip(plan.windows, plan.upper, plan.table_sizes, strict=True):
        assert upper <= size * 0.5
        assert size <= 1 << 12 or last == first + 1
    _, stats = HashDataflow(1 << 12).product(a, a)
    assert stats.peak_entries <= 3 * (1 << 12)
    assert stats.peak_entries < SortDataflow().product(a, a)[1].peak_entries / 4
    assert stats.per_window == plan.flops


def test_the_number_of_windows_does_not_change_the_product():
    a = graph(8)
    results = [HashDataflow(1 << bits).product(a, a)[0] for bits in (8, 12, 20)]
    for other in results[1:]:
        assert torch.equal(results[0].col, other.col)
        assert (results[0].values - other.values).abs().max() < 1e-12


def test_tokens_balance_what_static_rows_do_not():
    a = graph(10)
    static, tokens = static_loads(a, a, 8), token_loads(a, a, 8)
    total = int(flops_per_row(a, a).sum())
    assert int(static.sum()) == int(tokens.sum()) == total
    assert float(static.max()) / (total / 8) > 2
    assert float(tokens.max()) / (total / 8) < 1.2


def test_traffic_is_counted_as_the_loops_would():
    a, b = random(6, 7, 0.4), random(7, 5, 0.4, seed=1)
    made = spgemm(a, b)
    rows, cols = a.to_dense() != 0, b.to_dense() != 0
    inner = sum(int(r.sum() + c.sum()) for r in rows for c in cols.mT if r.any() and c.any())
    flops = int((rows.long() @ cols.long()).sum())
    assert traffic(a, b, made.nnz, 1) == {
        "inner": inner + made.nnz,
        "outer": a.nnz + b.nnz + 2 * flops + made.nnz,
        "row-wise": a.nnz + flops + made.nnz,
    }


def test_a_masked_product_is_the_product_on_the_mask():
    a, b, mask = random(20, 15, 0.3), random(15, 12, 0.3, seed=1), random(20, 12, 0.3, seed=2)
    found = masked_spgemm(a, b, mask)
    expected = (a.to_dense() @ b.to_dense())[mask.row, mask.col]
    assert (found.values - expected).abs().max() < 1e-12
    leaves = a.values.clone().requires_grad_(), b.values.clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, y: masked_spgemm(a._replace(values=x), b._replace(values=y), mask).values, leaves
    )
    assert masked_spgemm(a, b, random(20, 12, 0.0)).nnz == 0


def test_triangles_are_those_of_networkx():
    edges = rmat(8, 6, seed=3)
    both = torch.cat([edges, edges.flip(0)], 1)
    adjacency = CSR.from_entries(both[0], both[1], torch.ones(both.shape[1]), (256, 256))
    network = networkx.Graph([edge for edge in edges.T.tolist() if edge[0] != edge[1]])
    assert triangle_count(adjacency) == sum(networkx.triangles(network).values()) // 3 > 100


def test_graph_squares_count_paths():
    a = graph(6)
    pattern = (a.to_dense() != 0).double()
    assert torch.equal(graph_square(a).to_dense(), pattern @ pattern)


def test_semirings_find_shortest_steps_and_reachability():
    a = random(9, 9, 0.3)
    a = a._replace(values=a.values.abs() + 0.1)
    dense = torch.where(a.to_dense() > 0, a.to_dense(), torch.inf)
    shortest = (dense[:, :, None] + dense[None]).amin(1)
    found = semiring_spgemm(a, a, MIN_PLUS)
    assert torch.equal(torch.isfinite(shortest), found.to_dense() > 0)
    assert (found.values - shortest[found.row, found.col]).abs().max() < 1e-12
    reach = semiring_spgemm(a, a, OR_AND)
    assert torch.equal(reach.values, torch.ones(reach.nnz, dtype=reach.values.dtype))
    plain = semiring_spgemm(a, a, PLUS_TIMES)
    assert (plain.to_dense() - a.to_dense() @ a.to_dense()).abs().max() < 1e-12


def test_a_semiring_product_holds_the_pairs_of_a_few_rows_at_once(monkeypatch):
    a, held = random(40, 40, 0.2), []

    def watched(*args):
        left, right = meetings(*args)
        held.append(len(left))
        return left, right

    whole = semiring_spgemm(a, a, MIN_PLUS)
    monkeypatch.setattr(product, "meetings", watched)
    monkeypatch.setattr(product, "PORTION", 150)
    found = semiring_spgemm(a, a, MIN_PLUS)
    assert max(held) <= max(150, int(flops_per_row(a, a).max())) < sum(held)
    assert sum(held) == int(flops_per_row(a, a).sum())
    for part, whole_part in zip(found, whole, strict=True):
        assert part == whole_part if isinstance(part, int) else torch.equal(part, whole_part)
    empty = semiring_spgemm(random(3, 4, 0.0), random(4, 5, 0.0), MIN_PLUS)
    assert (empty.shape, empty.nnz) == ((3, 5), 0)


def test_the_operator_sorts_its_transpose_once(monkeypatch):
    a, b = random(20, 15, 0.3), random(15, 12, 0.3, seed=1)
    operator, sorts = SparseProductOperator(a=a, b=b), []
    transpose = CSR.transpose
    monkeypatch.setattr(CSR, "transpose", lambda self: sorts.append(1) or transpose(self))
    u = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    dense = spgemm(a, b).to_dense()
    for _ in range(3):
        assert (operator.mT @ u - dense.mT @ u).abs().max() < 1e-12
        assert (operator.mT.mT.mT @ u - dense.mT @ u).abs().max() < 1e-12
        assert (operator[3:5].to_dense() - dense[3:5]).abs().max() < 1e-12
    assert len(sorts) == 2
    assert len(pickle.dumps(operator)) == len(pickle.dumps(SparseProductOperator(a=a, b=b)))


def test_the_operator_forms_nothing_until_asked():
    a, b = random(20, 15, 0.3), random(15, 12, 0.3, seed=1)
    operator = SparseProductOperator(a=a, b=b)
    assert torch.equal(operator.materialise().to_dense(), spgemm(a, b).to_dense())
    x = torch.randn(15, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    leaves = a.values.clone().requires_grad_(), x.requires_grad_()
    assert torch.autograd.gradcheck(lambda values, x: csr_matmul(a._replace(values=values), x), leaves)


def test_the_automatic_choice_takes_what_is_there():
    import importlib.util

    compiled = importlib.util.find_spec("numba") is not None
    a = random(9, 9)
    choice = AutomaticDataflow().choose(a, a)
    assert isinstance(choice, CompiledDataflow if compiled else LibraryDataflow)
    c = random(9, 9, dtype=torch.complex128)
    assert isinstance(AutomaticDataflow().choose(c, c), SortDataflow)
    few, sparse, full = torch.eye(9), banded(3000, 5).to_dense(), torch.ones(99, 99)
    half, large, full = (CSR.from_torch(t.to(torch.bfloat16)) for t in (few, sparse, full))
    assert isinstance(AutomaticDataflow().choose(half, half), SortDataflow)
    assert isinstance(AutomaticDataflow().choose(large, large), HashDataflow)
    assert isinstance(AutomaticDataflow().choose(full, full), DenseDataflow)
    if not compiled:
        with pytest.raises(ImportError, match="fast"):
            CompiledDataflow().product(a, a)


def test_bad_input_is_refused():
    a = random(4, 5)
    with pytest.raises(ValueError, match="fit"):
        spgemm(a, a)
    with pytest.raises(ValueError, match="dtype"):
        spgemm(a, random(5, 3, dtype=torch.float32))
    with pytest.raises(ValueError, match="mask"):
        masked_spgemm(a, random(5, 3), random(4, 4))
    with pytest.raises(ValueError, match="loop over the batch"):
        CSR.from_torch(torch.zeros(2, 2, 2))
    with pytest.raises(ValueError, match="outside"):
        CSR.from_entries(torch.tensor([5]), torch.tensor([0]), torch.ones(1), (5, 5))
    with pytest.raises(ValueError, match="square"):
        triangle_count(a)
    with pytest.raises(ValueError, match="load_factor"):
        plan_windows(a, random(5, 3), load_factor=0.0)
