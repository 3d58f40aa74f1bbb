"""Stores anywhere that fsspec reaches."""

import uuid
import zipfile

import fsspec
import pytest
import torch

from tangrams.store import (
    CorruptStoreError,
    FeatureStore,
    StoreNotFoundError,
    StoreReadError,
    StoreWriteError,
)


@pytest.fixture
def memory():
    url = f"memory://{uuid.uuid4()}/f.zarr"
    yield url
    fsspec.filesystem("memory").store.clear()


def files(url):
    fs, path = fsspec.core.url_to_fs(url)
    return {name.removeprefix(path).lstrip("/"): fs.cat_file(name) for name in fs.find(path)}


def without_lock(contents):
    return {name: data for name, data in contents.items() if name != "features/lock"}


def test_a_store_in_memory_has_the_bytes_of_a_local_one_and_reads_alike(tiny, unbroken, memory, tmp_path):
    store = tiny.run(memory)
    assert files(memory) == without_lock(unbroken)
    local = tiny.run(tmp_path / "f.zarr")
    assert torch.equal(store.matrix().to_dense(), local.matrix().to_dense())
    assert torch.equal(store.targets, local.targets)
    assert torch.equal(store.gram(), local.gram())
    store.verify()


def test_an_interrupted_remote_run_continues_to_the_same_bytes(tiny, unbroken, memory):
    fs, path = fsspec.core.url_to_fs(memory)

    class Stop(Exception):
        pass

    def stop(done, total):
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        tiny.run(memory, progress=stop)
    fs.pipe_file(f"{path}/features/c.0.0", b"rotten")
    done = []
    tiny.run(memory, progress=lambda now, total: done.append(now))
    assert done == [1, 2, 3, 4]
    assert files(memory) == without_lock(unbroken)


def test_remote_damage_is_detected(tiny, memory):
    store = tiny.run(memory)
    fs, path = fsspec.core.url_to_fs(memory)
    data = fs.cat_file(f"{path}/targets/c.1")
    fs.pipe_file(f"{path}/targets/c.1", data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorruptStoreError, match=r"memory://.*targets/c\.1"):
        _ = store.targets
    fs.rm_file(f"{path}/features/c.0.0")
    with pytest.raises(CorruptStoreError, match="missing"):
        store.matrix().to_dense()


def test_a_file_address_is_a_local_path(tiny, unbroken, tmp_path):
    store = tiny.run(f"file://{tmp_path}/f.zarr")
    assert store.url == str(tmp_path / "f.zarr")
    assert tiny.contents(tmp_path / "f.zarr") == unbroken


def test_a_store_in_a_zip_file_can_be_read(tiny, unbroken, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, data in unbroken.items():
            archive.writestr(f"sub/f.zarr/{name}", data)
    store = FeatureStore.open(f"zip://sub/f.zarr::file://{tmp_path}/all.zip")
    store.verify()
    local = FeatureStore.open(tiny.restore(tmp_path / "f.zarr", unbroken))
    assert torch.equal(store.matrix().to_dense(), local.matrix().to_dense())
    with pytest.raises(StoreNotFoundError):
        FeatureStore.open(f"zip://other.zarr::file://{tmp_path}/all.zip")


def test_what_cannot_be_reached_is_a_typed_error(tmp_path):
    with pytest.raises(StoreNotFoundError, match="memory://nothing"):
        FeatureStore.open("memory://nothing")
    with pytest.raises(StoreReadError, match="nosuchprotocol"):
        FeatureStore.open("nosuchprotocol://f.zarr")
    (tmp_path / "no.zip").write_bytes(b"not a zip file")
    with pytest.raises(StoreReadError, match="BadZipFile"):
        FeatureStore.open(f"zip://f.zarr::file://{tmp_path}/no.zip")


def test_a_refused_remote_write_is_a_typed_error(tiny, memory, monkeypatch):
    fs, _ = fsspec.core.url_to_fs(memory)
    calls = []

    def refuse(self, path, value, **kwargs):
        calls.append(path)
        raise PermissionError("403 Forbidden")

    monkeypatch.setattr(type(fs), "pipe_file", refuse)
    with pytest.raises(StoreWriteError, match="403 Forbidden"):
        tiny.run(memory)
    assert calls
