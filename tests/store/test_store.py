"""Writing blocks and reading them back."""

import json
import pickle
import shutil
import warnings

import numpy as np
import pytest
import torch
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from tangrams.store import (
    FeatureStore,
    IncompleteStoreError,
    SideArray,
    StoredValueError,
    StoreMismatchError,
    StoreSpec,
    StoreWriter,
    default_block_size,
)


def spec_of(features, dtype="float32", *, r=2, block=3, **side):
    return StoreSpec(len(features) // r, r, features.shape[1], dtype, block, **side)


def write(path, features, spec, about=None, **side):
    with StoreWriter(path, spec, about or {}) as writer:
        for block in writer.missing_blocks():
            samples = spec.samples_of(block)
            rows = slice(samples.start * spec.rows_per_sample, samples.stop * spec.rows_per_sample)
            cut = {name: value[samples.start : samples.stop] for name, value in side.items()}
            writer.write_block(block, features[rows], **cut)
        writer.finish()
    return FeatureStore.open(path)


@pytest.fixture
def features():
    return torch.randn(22, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("strip", [1, 3, 7, 100])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_features_come_back_as_they_were_rounded(tmp_path, features, dtype, strip):
    store = write(tmp_path / "f.zarr", features, spec_of(features, dtype, strip=strip))
    assert store.spec.features_layout.strips == -(-7 // strip)
    assert store.dtype == getattr(torch, dtype)
    expected = features.to(store.dtype)
    got = store.matrix().to_dense()
    assert got.dtype == (torch.float64 if dtype == "float64" else torch.float32)
    assert torch.equal(got, expected.to(got.dtype))
    assert np.array_equal(store.dask().compute(scheduler="synchronous"), expected.to(got.dtype).numpy())
    store.verify()


@pytest.mark.parametrize(
    "values",
    [
        torch.arange(11),
        torch.arange(11) % 2 == 0,
        torch.arange(11, dtype=torch.uint8),
        torch.randn(11, 2, 3),
        torch.randn(11, 4).bfloat16(),
        torch.randn(11, 1).double(),
        torch.zeros(11, 0),
    ],
    ids=lambda t: f"{t.dtype}-{tuple(t.shape)}",
)
def test_targets_and_outputs_of_any_dtype_and_shape_come_back(tmp_path, features, values):
    side = SideArray(str(values.dtype).removeprefix("torch."), tuple(values.shape[1:]))
    spec = spec_of(features, targets=side, outputs=side)
    store = write(tmp_path / "f.zarr", features, spec, targets=values, outputs=values.flip(0))
    assert torch.equal(store.targets, values)
    assert torch.equal(store.outputs, values.flip(0))
    assert store.ids.tolist() == list(range(11))
    store.verify()


def test_a_store_without_targets_has_none(tmp_path, features):
    store = write(tmp_path / "f.zarr", features, spec_of(features))
    assert store.targets is None
    assert store.outputs is None


def test_zarr_reads_the_same_arrays_without_a_warning(tmp_path, features):
    spec = spec_of(features, strip=3, targets=SideArray("int64", ()), outputs=SideArray("float32", (2, 3)))
    targets, outputs = torch.arange(11), torch.randn(11, 2, 3)
    write(tmp_path / "f.zarr", features, spec, {"map": {"a": 1}}, targets=targets, outputs=outputs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(tmp_path / "f.zarr", mode="r")
        assert sorted(name for name, _ in group.members()) == ["features", "ids", "outputs", "targets"]
        assert np.array_equal(group["features"][:], features.numpy())
        assert np.array_equal(group["targets"][:], targets.numpy())
        assert np.array_equal(group["outputs"][:], outputs.numpy())
    assert group.attrs["tangrams"]["map"] == {"a": 1}
    assert np.isnan(group["features"].fill_value)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_metadata_is_what_zarr_itself_would_write(tmp_path, features, dtype):
    spec = spec_of(features, dtype, targets=SideArray("bool", ()), outputs=SideArray("int32", (2, 3)))
    for array in spec.arrays:
        data_type = "uint16" if array.dtype == "bfloat16" else array.dtype
        fill = np.nan if array.fill == "NaN" else array.fill
        made = zarr.create_array(
            store=tmp_path / dtype / array.name,
            shape=(array.rows, *array.row_shape),
            chunks=array.chunk_shape,
            dtype=data_type,
            fill_value=fill,
            compressors=[ZstdCodec(level=1), Crc32cCodec()],
            chunk_key_encoding={"name": "default", "separator": "."},
            attributes={"bits_of": "bfloat16"} if array.dtype == "bfloat16" else {},
        )
        theirs = json.loads((tmp_path / dtype / array.name / "zarr.json").read_bytes())
        assert json.loads(array.metadata()) == theirs
        assert made.shape == (array.rows, *array.row_shape)


def test_what_zarr_writes_in_a_chunk_is_what_we_write(tmp_path, features):
    write(tmp_path / "f.zarr", features, spec_of(features))
    group = zarr.open_group(tmp_path / "f.zarr", mode="r+")
    before = {p.name: p.read_bytes() for p in (tmp_path / "f.zarr/features").glob("c.*")}
    group["features"][:] = features.numpy()
    assert {p.name: p.read_bytes() for p in (tmp_path / "f.zarr/features").glob("c.*")} == before


@pytest.mark.parametrize(("dtype", "value"), [("float16", 70000.0), ("float32", 1e39), ("bfloat16", 3.4e38)])
def test_overflow_names_the_sample_and_writes_nothing(tmp_path, features, dtype, value):
    features = features.double()
    features[9, 2] = -value
    with StoreWriter(tmp_path / "f.zarr", spec_of(features, dtype), {}) as writer:
        writer.write_block(0, features[:6])
        with pytest.raises(StoredValueError, match=rf"sample 4 \(row 1 of 2\) overflows {dtype}") as caught:
            writer.write_block(1, features[6:12])
        assert caught.value.sample == 4
        assert pickle.loads(pickle.dumps(caught.value)).sample == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_feature_that_is_not_finite_is_refused(tmp_path, features, value):
    features[21, 6] = value
    with (
        StoreWriter(tmp_path / "f.zarr", spec_of(features), {}) as writer,
        pytest.raises(StoredValueError, match=r"sample 10 .* not finite"),
    ):
        writer.write_block(3, features[18:])


def test_a_row_that_vanishes_in_half_precision_is_refused_but_a_zero_row_is_not(tmp_path, features):
    features[4] = 0.0
    features[3] = 1e-9
    with StoreWriter(tmp_path / "f.zarr", spec_of(features, "float16"), {}) as writer:
        with pytest.raises(StoredValueError, match=r"sample 1 .*too small for float16"):
            writer.write_block(0, features[:6])
        features[3, 0] = 1.0
        writer.write_block(0, features[:6])


def test_blocks_may_come_in_any_order_and_twice(tmp_path, features):
    spec = spec_of(features)
    write(tmp_path / "a.zarr", features, spec)
    with StoreWriter(tmp_path / "b.zarr", spec, {}) as writer:
        for block in (2, 0, 3, 2, 1):
            samples = spec.samples_of(block)
            writer.write_block(block, features[samples.start * 2 : samples.stop * 2])
        writer.finish()
    names = sorted(p.relative_to(tmp_path / "a.zarr") for p in (tmp_path / "a.zarr").rglob("*") if p.is_file())
    assert all((tmp_path / "a.zarr" / name).read_bytes() == (tmp_path / "b.zarr" / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        (4, {}, "blocks 0 … 3"),
        (-1, {}, "blocks 0 … 3"),
        (0, {"features": torch.zeros(5, 7)}, "features of shape"),
        (0, {"features": torch.zeros(6, 8)}, "features of shape"),
        (3, {}, "features of shape"),
        (0, {"features": torch.zeros(6, 7, dtype=torch.int64)}, "floating point"),
        (0, {"targets": None}, "targets of shape"),
        (0, {"targets": torch.zeros(3)}, "targets as int64"),
        (0, {"outputs": torch.zeros(3)}, "without outputs"),
        (0, {"ids": torch.zeros(2, dtype=torch.int64)}, "ids of shape"),
    ],
)
def test_a_block_that_does_not_fit_is_refused_and_leaves_the_store_as_it_was(tmp_path, block, change, message):
    spec = StoreSpec(11, 2, 7, "float32", 3, targets=SideArray("int64", ()))
    given = {"features": torch.zeros(6, 7), "targets": torch.zeros(3, dtype=torch.int64)} | change
    with StoreWriter(tmp_path / "f.zarr", spec, {}) as writer:
        with pytest.raises(ValueError, match=message):
            writer.write_block(block, **given)
        assert writer.missing_blocks() == [0, 1, 2, 3]
    assert not list((tmp_path / "f.zarr").rglob("c.*"))


def test_an_unfinished_store_opens_says_so_and_gives_nothing(tmp_path, features):
    with StoreWriter(tmp_path / "f.zarr", spec_of(features), {}) as writer:
        writer.write_block(1, features[6:12])
        with pytest.raises(IncompleteStoreError, match="lacks 3 of 4"):
            writer.finish()
    store = FeatureStore.open(tmp_path / "f.zarr")
    assert not store.complete
    assert "1 of 4 blocks" in repr(store)
    for ask in (store.matrix, store.gram, store.diag, store.dask, store.verify, lambda: store.ids):
        with pytest.raises(IncompleteStoreError, match="1 of 4 blocks"):
            ask()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": -1}, "samples ≥ 0"),
        ({"block_size": 0}, "block_size ≥ 1"),
        ({"dtype": "int8"}, "features as"),
        ({"targets": SideArray("complex64", ())}, "targets as"),
        ({"targets": SideArray("int64", (-1,))}, "cannot have shape"),
        ({"outputs": SideArray("float32", (1 << 40,))}, "smaller block_size"),
        ({"ids": SideArray("float32", ())}, "id is"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        StoreSpec(**{"samples": 3, "rows_per_sample": 1, "features": 2, "dtype": "float32", "block_size": 2} | options)


def test_the_default_block_is_about_64_mib_and_at_least_a_sample():
    assert default_block_size(10**6, 1, 1 << 20, "float32") == 16
    assert default_block_size(10**6, 10, 1 << 30, "float16") == 1
    assert default_block_size(10**6, 1, 10, "float32") == 1024
    assert default_block_size(7, 1, 10, "float32") == 7


def test_wide_blocks_are_cut_into_strips_of_about_8_mib_and_the_header_says_how(tmp_path):
    spec = StoreSpec(1000, 1, 1 << 20, "float32", 16)
    assert spec.strip == 1 << 17
    assert spec.features_layout.strips == 8
    assert spec.features_layout.chunk_bytes == 8 << 20
    assert StoreSpec.from_json(spec.to_json()) == spec
    other = StoreSpec(1000, 1, 1 << 20, "float32", 16, strip=5)
    assert StoreSpec.from_json(other.to_json()) == other != spec


def test_headers_hold_json_only_and_not_their_own_keys(tmp_path, features):
    with pytest.raises(ValueError, match="JSON"):
        StoreWriter(tmp_path / "f.zarr", spec_of(features), {"map": torch.zeros(1)})
    with pytest.raises(ValueError, match="JSON"):
        StoreWriter(tmp_path / "f.zarr", spec_of(features), {"map": float("nan")})
    with pytest.raises(ValueError, match="its own spec"):
        StoreWriter(tmp_path / "f.zarr", spec_of(features), {"spec": 1})
    assert not (tmp_path / "f.zarr").exists()


def test_a_pickled_store_refuses_another_one_at_its_address(tmp_path, features):
    path = tmp_path / "f.zarr"
    store = write(path, features, spec_of(features), {"map": 1})
    copy = pickle.dumps(store)
    assert torch.equal(pickle.loads(copy).matrix().to_dense(), features)
    shutil.rmtree(path)
    write(path, features, spec_of(features), {"map": 2})
    with pytest.raises(StoreMismatchError, match="another one"):
        pickle.loads(copy)


def test_the_header_handed_out_is_a_copy(tmp_path, features):
    store = write(tmp_path / "f.zarr", features, spec_of(features), {"map": {"a": 1}})
    store.header["map"]["a"] = 2
    assert store.header["map"] == {"a": 1}
    assert store.header["format"] == "tangrams-features"
    assert store.header["version"] == 1


def test_columns_are_those_of_the_header_or_one_run(tmp_path, features):
    listed = [["w", [2, 3], 0, 6], ["b", [1], 6, 7]]
    named = write(tmp_path / "a.zarr", features, spec_of(features), {"columns": listed})
    assert [(c.name, c.shape, c.start, c.stop) for c in named.columns] == [("w", (2, 3), 0, 6), ("b", (1,), 6, 7)]
    for number, bad in enumerate([None, "no", [["w", [2], 0, 3]], [1, 2]]):
        store = write(tmp_path / f"{number}.zarr", features, spec_of(features), {"columns": bad})
        assert [(c.start, c.stop) for c in store.columns] == [(0, 7)]
