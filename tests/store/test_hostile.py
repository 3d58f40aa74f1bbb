"""Readers given anything at all answer with a typed error, run no code, and take no memory."""

import copy
import json
import os
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tangrams.store import CorruptStoreError, FeatureStore, StoreError, StoreFormatError, StoreNotFoundError, StoreSpec
from tangrams.store.header import Header
from tangrams.store.manifest import Manifest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile") / "f.zarr"


def sealed(document):
    """The document with a checksum that is right for it, as a forger would write it."""
    content = document["attributes"]["tangrams"]
    content.pop("sha256", None)
    about = {key: value for key, value in content.items() if key not in ("format", "version", "spec")}
    try:
        return Header(StoreSpec.from_json(content["spec"]), about).to_bytes()
    except (StoreError, KeyError):
        return json.dumps(document, indent=2).encode()


def read_everything(path):
    store = FeatureStore.open(path)
    store.verify()
    return store.matrix().to_dense(), store.targets, store.outputs, store.ids, store.columns, repr(store), store.header


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["samples", "rows_per_sample", "features", "dtype", "block_size", "strip", "targets", "outputs", "ids"]


@settings(deadline=None, max_examples=200)
@given(key=st.sampled_from(KEYS), value=json_values | st.sampled_from([1 << 61, 1 << 31, 0, -1, 10**400]))
def test_a_forged_shape_is_a_typed_error(tiny, unbroken, folder, key, value):
    document = json.loads(unbroken["zarr.json"])
    if document["attributes"]["tangrams"]["spec"][key] == value or (key, value) == ("strip", 0):
        return  # no other store
    document["attributes"]["tangrams"]["spec"][key] = value
    path = tiny.restore(folder, unbroken | {"zarr.json": sealed(document)})
    with pytest.raises(StoreError):
        read_everything(path)


@settings(deadline=None, max_examples=200)
@given(value=json_values, where=st.sampled_from(["", "attributes", "attributes.tangrams", "attributes.tangrams.spec"]))
def test_any_json_in_the_header_is_a_typed_error(tiny, unbroken, folder, value, where):
    document = json.loads(unbroken["zarr.json"])
    target = document
    *path_to, last = where.split(".") if where else [None]
    for key in path_to:
        target = target[key]
    if last is None:
        document = value
    else:
        target[last] = value
    path = tiny.restore(folder, unbroken | {"zarr.json": json.dumps(document).encode()})
    with pytest.raises(StoreError):
        read_everything(path)


@settings(deadline=None, max_examples=150)
@given(data=st.binary(max_size=200))
def test_any_bytes_as_header_are_a_typed_error(tiny, unbroken, folder, data):
    path = tiny.restore(folder, unbroken | {"zarr.json": data})
    with pytest.raises(StoreError):
        FeatureStore.open(path)


@settings(deadline=None, max_examples=200)
@given(lines=st.lists(st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()), max_size=4))
def test_any_manifest_vouches_for_nothing(unbroken, lines):
    header = Header.from_bytes(unbroken["zarr.json"], "here")
    manifest = Manifest.from_bytes(b"".join(line + b"\n" for line in lines), header)
    assert manifest.entries == {}


def test_a_header_cut_anywhere_is_a_typed_error(tiny, unbroken, folder):
    data = unbroken["zarr.json"]
    path = tiny.restore(folder, unbroken)
    for length in range(len(data)):
        (path / "zarr.json").write_bytes(data[:length])
        with pytest.raises(CorruptStoreError, match=r"zarr\.json"):
            FeatureStore.open(path)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "NaN", "1e999", "\ud800", ""])
def test_json_made_to_break_parsers_is_a_typed_error(tiny, unbroken, folder, text):
    data = text.encode("utf-8", "surrogatepass")
    with pytest.raises(StoreError):
        FeatureStore.open(tiny.restore(folder, unbroken | {"zarr.json": data}))
    header = Header.from_bytes(unbroken["zarr.json"], "here")
    assert Manifest.from_bytes(data + b"\n", header).entries == {}


@pytest.mark.parametrize("version", [2, 0, "1", None, True, 1.0])
def test_an_unknown_version_is_refused_and_named(tiny, unbroken, folder, version):
    document = json.loads(unbroken["zarr.json"])
    document["attributes"]["tangrams"]["version"] = version
    path = tiny.restore(folder, unbroken | {"zarr.json": json.dumps(document).encode()})
    for act in (lambda: FeatureStore.open(path), lambda: tiny.run(path)):
        with pytest.raises(StoreFormatError, match="this one reads 1"):
            act()


def test_a_huge_store_that_is_not_there_costs_nothing(tiny, unbroken, folder):
    document = json.loads(unbroken["zarr.json"])
    spec = document["attributes"]["tangrams"]["spec"]
    spec |= {"samples": 1 << 61, "features": 1 << 61, "strip": 1 << 20}
    path = tiny.restore(folder, unbroken | {"zarr.json": sealed(document)})
    with pytest.raises(StoreError):
        read_everything(path)
    header = Header.from_bytes((path / "zarr.json").read_bytes(), "here")
    assert len(Manifest.from_bytes(unbroken["features/manifest.jsonl"], header).damaged) == 4


def test_nothing_on_disk_is_unpickled(tiny, unbroken, folder):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(folder.parent / "exploded"),)

    bomb = pickle.dumps(Bomb())
    for name in set(unbroken) - {"features/lock"}:
        with pytest.raises(StoreError):
            read_everything(tiny.restore(folder, unbroken | {name: bomb}))
    read_everything(tiny.restore(folder, unbroken | {"features/lock": bomb}))
    assert not (folder.parent / "exploded").exists()


def test_a_file_that_is_no_file_is_a_typed_error(tiny, unbroken, folder):
    path = tiny.restore(folder, unbroken)
    chunk = path / "features/c.1.0"
    chunk.unlink()
    os.mkfifo(chunk)  # reading it would wait for ever
    with pytest.raises(CorruptStoreError, match="no regular file"):
        FeatureStore.open(path).matrix().to_dense()
    chunk.unlink()
    chunk.mkdir()
    with pytest.raises(CorruptStoreError, match="no regular file"):
        FeatureStore.open(path).matrix().to_dense()


def test_a_chunk_longer_than_any_chunk_is_not_loaded(tiny, unbroken, folder):
    path = tiny.restore(folder, unbroken)
    with open(path / "features/c.1.0", "r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CorruptStoreError, match="longer than"):
        FeatureStore.open(path).matrix().to_dense()


def test_where_there_is_nothing_the_error_says_how_to_make_a_store(tmp_path):
    with pytest.raises(StoreNotFoundError, match=r"nothing\.zarr: make one with phi\.extract"):
        FeatureStore.open(tmp_path / "nothing.zarr")


def test_errors_of_a_store_survive_pickling():
    for error in (CorruptStoreError("a", [1]), StoreFormatError("b"), StoreNotFoundError("c")):
        assert str(copy.copy(pickle.loads(pickle.dumps(error)))) == str(error)


def test_a_forged_but_consistent_column_list_does_no_harm(tiny, unbroken, folder):
    document = json.loads(unbroken["zarr.json"])
    document["attributes"]["tangrams"]["columns"] = [["x", "abc", 0, 6]]
    path = tiny.restore(folder, unbroken | {"zarr.json": sealed(document)})
    assert FeatureStore.open(path).columns[0].name == "features"
    assert torch.equal(FeatureStore.open(tiny.restore(folder, unbroken)).ids, torch.arange(11))
