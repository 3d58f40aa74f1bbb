"""A store as a feature matrix equals the dense one, streams, and reads few times."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tangrams.operators import CountSketch, DenseRows, FeatureMatrix, GaussianSketch
from tangrams.operators.dense_rows import ColumnRows
from tangrams.operators.rows import Rows
from tangrams.store import FeatureStore, StoredRows, StoreSpec, StoreWriter

N, R, D = 23, 2, 17


def make(path, features, dtype="float64", block=4, strip=5, r=R):
    spec = StoreSpec(len(features) // r, r, features.shape[1], dtype, block, strip=strip)
    with StoreWriter(path, spec, {"r": r}) as writer:
        for number in writer.missing_blocks():
            samples = spec.samples_of(number)
            writer.write_block(number, features[samples.start * r : samples.stop * r])
        writer.finish()
    return FeatureStore.open(path)


@pytest.fixture(scope="module")
def dense():
    return torch.randn(N * R, D, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def store(dense, tmp_path_factory):
    return make(tmp_path_factory.mktemp("rows") / "f.zarr", dense)


@pytest.fixture(params=["all", "some"])
def both(request, store, dense):
    """Stored rows and the same dense ones: all, or a few in another order with repeats."""
    rows = StoredRows(store)
    if request.param == "all":
        return rows, dense
    index = torch.tensor([40, 3, 3, 17, 0, 45, 44, 8, 9, 10])
    return rows.take(index), dense[index]


def test_stored_rows_are_rows(both):
    rows, dense = both
    assert isinstance(rows, Rows)
    assert rows.shape == dense.shape
    assert rows.dtype == torch.float64
    assert rows.device == torch.device("cpu")


def test_every_product_equals_the_dense_one(both):
    rows, dense = both
    generator = torch.Generator().manual_seed(1)
    v = torch.randn(D, 3, dtype=torch.float64, generator=generator)
    u = torch.randn(len(dense), 3, dtype=torch.float64, generator=generator)
    assert torch.equal(rows.dense(), dense)
    torch.testing.assert_close(rows.matmul(v), dense @ v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows.t_matmul(u), dense.mT @ u, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(rows.diag(), dense.square().sum(1), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("panel_bytes", [1, 8 * 5 * 8, 8 * 5 * 20, 1 << 20])
def test_gram_matrices_equal_the_dense_ones_for_any_panel(both, store, dense, tmp_path, panel_bytes):
    rows, left = both
    rows = StoredRows(store, rows._index, panel_bytes=panel_bytes)
    own = rows.gram(rows)
    torch.testing.assert_close(own, left @ left.mT, rtol=1e-12, atol=1e-12)
    assert torch.equal(own, own.mT)
    torch.testing.assert_close(rows.gram(StoredRows(store)), left @ dense.mT, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(StoredRows(store).gram(rows), dense @ left.mT, rtol=1e-12, atol=1e-12)
    other = torch.randn(9, D, dtype=torch.float64)
    torch.testing.assert_close(rows.gram(DenseRows(other)), left @ other.mT, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(DenseRows(other).gram(rows), other @ left.mT, rtol=1e-12, atol=1e-12)
    otherwise = make(tmp_path / "g.zarr", dense, block=3, strip=7)
    torch.testing.assert_close(
        rows.gram(StoredRows(otherwise, panel_bytes=panel_bytes)), left @ dense.mT, rtol=1e-12, atol=1e-12
    )


def test_gram_with_rows_of_another_kind_equals_the_dense_one(both):
    rows, left = both

    wide = torch.randn(9, D + 3, dtype=torch.float64)
    other = ColumnRows(DenseRows(wide), torch.arange(D) + 2)
    torch.testing.assert_close(rows.gram(other), left @ wide[:, 2:-1].mT, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sketch", [CountSketch(6, seed=1), GaussianSketch(6, seed=1)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("panel_bytes", [1, 1 << 20])
def test_a_sketch_of_stored_rows_equals_that_of_dense_ones(both, store, sketch, panel_bytes):
    rows, dense = both
    bound = sketch.bind(D)
    got = StoredRows(store, rows._index, panel_bytes=panel_bytes).project(bound)
    torch.testing.assert_close(got, bound.project(dense), rtol=1e-12, atol=1e-12)


def test_no_rows_give_empty_answers(store):
    rows = StoredRows(store).take(torch.zeros(0, dtype=torch.int64))
    assert rows.dense().shape == (0, D)
    assert rows.matmul(torch.zeros(D, 2, dtype=torch.float64)).shape == (0, 2)
    assert torch.equal(rows.t_matmul(torch.zeros(0, 2, dtype=torch.float64)), torch.zeros(D, 2, dtype=torch.float64))
    assert rows.gram(rows).shape == (0, 0)
    assert rows.gram(StoredRows(store)).shape == (0, N * R)
    assert rows.diag().shape == (0,)
    assert rows.project(CountSketch(3).bind(D)).shape == (0, 3)


def test_rows_out_of_range_are_refused(store):
    rows = StoredRows(store)
    for bad in (torch.tensor([0, N * R]), torch.tensor([-1])):
        with pytest.raises(IndexError, match="46"):
            rows.take(bad)
        with pytest.raises(IndexError, match="46"):
            StoredRows(store, bad)
    with pytest.raises(IndexError, match="of 2"):
        rows.take(torch.tensor([5, 6])).take(torch.tensor([2]))


@settings(deadline=None, max_examples=40)
@given(
    index=st.lists(st.integers(0, N * R - 1), max_size=60),
    again=st.lists(st.integers(0, 10**6), max_size=10),
)
def test_taking_rows_composes_in_any_order_with_repeats(store, dense, index, again):
    index = torch.tensor(index, dtype=torch.int64)
    again = torch.tensor([a % max(1, len(index)) for a in again] if len(index) else [], dtype=torch.int64)
    rows = StoredRows(store).take(index)
    assert torch.equal(rows.dense(), dense[index])
    assert torch.equal(rows.take(again).dense(), dense[index][again])
    v = torch.ones(D, 1, dtype=torch.float64)
    torch.testing.assert_close(rows.take(again).matmul(v), dense[index][again] @ v, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_answers_and_sums_in_float32(tmp_path, dense, dtype):
    large = dense * 300
    store = make(tmp_path / "f.zarr", large, dtype)
    rounded = large.to(getattr(torch, dtype)).float()
    rows = StoredRows(store)
    assert rows.dtype == torch.float32
    assert torch.equal(rows.dense(), rounded)
    torch.testing.assert_close(rows.gram(rows), rounded @ rounded.mT, rtol=1e-5, atol=1.0)
    assert torch.isfinite(rows.gram(rows)).all()
    assert rows.gram(rows).max() > 65504


def test_another_dtype_is_answered_and_summed_in_that_dtype(store, dense):
    single = StoredRows(store).to(torch.float32)
    assert single.dtype == torch.float32
    assert torch.equal(single.dense(), dense.float())
    assert single.matmul(torch.ones(D, 1)).dtype == torch.float32
    assert single.gram(StoredRows(store)).dtype == torch.float32
    assert single.to(device=torch.device("cpu")).dtype == torch.float32


def test_the_feature_matrix_of_a_store_does_plain_algebra(store, dense):
    matrix = store.matrix()
    v = torch.randn(D, dtype=torch.float64)
    assert isinstance(matrix, FeatureMatrix)
    torch.testing.assert_close(matrix @ v, dense @ v)
    torch.testing.assert_close((matrix @ matrix.mT).to_dense(), dense @ dense.mT)
    torch.testing.assert_close(matrix[3:9].to_dense(), dense[3:9])
    torch.testing.assert_close(matrix[5, 2], dense[5, 2])
    torch.testing.assert_close(store.gram(), dense @ dense.mT)
    torch.testing.assert_close(store.gram(dense[:4]), dense @ dense[:4].mT)
    torch.testing.assert_close(store.gram(store), dense @ dense.mT)
    torch.testing.assert_close(store.gram(matrix[:3]), dense @ dense[:3].mT)
    torch.testing.assert_close(store.diag(), dense.square().sum(1))
    with pytest.raises(ValueError, match="17 features, the other side 3"):
        store.gram(torch.zeros(2, 3, dtype=torch.float64))


def test_pickles_and_copies_carry_the_address_not_the_data(both):
    rows, dense = both
    data = pickle.dumps(rows)
    assert len(data) < 2000
    assert torch.equal(pickle.loads(data).dense(), dense)
    assert torch.equal(copy.deepcopy(rows).dense(), dense)


class Counting:
    """A store that counts how often each chunk is read."""

    def __init__(self, store):
        self.store, self.read = store, []

    def __getattr__(self, name):
        return getattr(self.store, name)

    def read_features(self, block, strip):
        self.read.append((block, strip))
        return self.store.read_features(block, strip)


def chunks(store):
    return [(block, strip) for block in range(store.spec.blocks) for strip in range(store.spec.features_layout.strips)]


def test_products_read_every_chunk_once(store, dense):
    products = {
        "matmul": lambda rows: rows.matmul(dense[:2].mT.contiguous()),
        "t_matmul": lambda rows: rows.t_matmul(dense[:, :1]),
        "dense": lambda rows: rows.dense(),
        "diag": lambda rows: rows.diag(),
        "project": lambda rows: rows.project(CountSketch(3).bind(D)),
        "gram with dense rows": lambda rows: rows.gram(DenseRows(dense)),
        "gram in one panel": lambda rows: rows.gram(rows),
    }
    for name, product in products.items():
        counting = Counting(store)
        rows = StoredRows.__new__(StoredRows)
        rows.__dict__.update(StoredRows(store, panel_bytes=1 << 20).__dict__, store=counting)
        product(rows)
        assert sorted(counting.read) == chunks(store), name


def test_rows_of_one_block_read_that_block_only(store):
    counting = Counting(store)
    rows = StoredRows.__new__(StoredRows)
    rows.__dict__.update(StoredRows(store, torch.tensor([9, 8, 9])).__dict__, store=counting)
    rows.dense()
    assert {block for block, _ in counting.read} == {1}


def test_a_gram_reads_the_store_as_often_as_its_panels_say(dense, tmp_path):
    store = make(tmp_path / "f.zarr", dense[:, :15])
    blocks = store.spec.blocks
    panel = 2 * 8 * 5 * 8  # two blocks of eight rows, five columns, eight bytes
    counting = Counting(store)
    rows = StoredRows.__new__(StoredRows)
    rows.__dict__.update(StoredRows(store, panel_bytes=panel).__dict__, store=counting)
    rows.gram(rows)
    panels = -(-blocks // 2)
    own = blocks + sum(blocks - 2 * (p + 1) for p in range(panels) if blocks > 2 * (p + 1))
    assert len(counting.read) == own * store.spec.features_layout.strips


MEMORY = """
import re, sys, torch
def peak(field):  # of this process, in bytes
    return int(re.search(field + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
torch.set_num_threads(1)
from tangrams.operators import CountSketch
from tangrams.store import FeatureStore
store = FeatureStore.open(sys.argv[1])
matrix = store.matrix()
u = torch.ones(store.shape[0], 2)
v = torch.ones(store.shape[1], 2)
bound = CountSketch(16).bind(store.shape[1])
matrix[:2] @ v  # what is loaded once
open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
before = peak("VmRSS")
{"products": lambda: (matrix @ v, matrix.mT @ u, store.diag()), "gram": lambda: store.gram(),
 "sketch": lambda: matrix.rows.project(bound)}[sys.argv[2]]()
print(peak("VmHWM") - before)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """256 MiB of features in blocks of 16 MiB."""
    path = tmp_path_factory.mktemp("large") / "f.zarr"
    spec = StoreSpec(1024, 1, 1 << 16, "float32", 64)
    block = torch.randn(64, 1 << 16, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    with StoreWriter(path, spec, {}) as writer:
        for number in writer.missing_blocks():
            writer.write_block(number, block + number)
        writer.finish()
    return path


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux's /proc")
@pytest.mark.parametrize(("what", "share"), [("products", 6), ("gram", 3), ("sketch", 3)])
def test_products_over_a_store_peak_far_below_its_size(large, what, share):
    script = [sys.executable, "-c", MEMORY, str(large), what]
    done = subprocess.run(script, capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    assert int(done.stdout) < (256 << 20) / share
