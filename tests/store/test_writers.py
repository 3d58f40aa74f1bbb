"""One writer at a time, one store for one extraction."""

import pickle
import subprocess
import sys

import pytest
import torch

from tangrams.store import (
    FeatureStore,
    SideArray,
    StoreFormatError,
    StoreLockedError,
    StoreMismatchError,
    StoreSpec,
    StoreWriter,
)

SPEC = StoreSpec(4, 1, 3, "float32", 2)

HOLD = """
import sys
from tangrams.store import StoreSpec, StoreWriter
with StoreWriter(sys.argv[1], StoreSpec(4, 1, 3, "float32", 2), {}):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_writer_of_another_process_is_told_who_writes(tmp_path):
    path = tmp_path / "f.zarr"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=f"process {process.pid} on "):
            StoreWriter(path, SPEC, {})
        assert FeatureStore.open(path).shape == (4, 3)  # reading is free
        process.kill()
        process.wait()
        StoreWriter(path, SPEC, {}).close()
    finally:
        process.kill()
        process.wait()


def test_a_second_writer_of_the_same_process_is_refused_and_keeps_the_first(tmp_path):
    path = tmp_path / "f.zarr"
    with StoreWriter(path, SPEC, {}) as writer:
        for _ in range(2):
            with pytest.raises(StoreLockedError, match="this process already"):
                StoreWriter(path, SPEC, {})
        with pytest.raises(StoreLockedError, match="this process already"):
            StoreWriter(tmp_path / "." / "f.zarr", SPEC, {})
        writer.write_block(0, torch.ones(2, 3))
        other = subprocess.run(
            [sys.executable, "-c", HOLD, str(path)], input="\n", capture_output=True, text=True, check=False
        )
        assert "StoreLockedError" in other.stderr  # the refused attempts did not drop the system's lock
    writer.close()
    with StoreWriter(path, SPEC, {}) as writer:
        assert writer.missing_blocks() == [1]


def test_an_error_while_opening_lets_the_lock_go(tmp_path):
    path = tmp_path / "f.zarr"
    StoreWriter(path, SPEC, {"map": 1}).close()
    with pytest.raises(StoreMismatchError):
        StoreWriter(path, SPEC, {"map": 2})
    StoreWriter(path, SPEC, {"map": 1}).close()


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"phi": {"seed": 1}}, "map.seed: 0 in the store, 1 now"),
        ({"phi": {"scale": 2.0}}, "map.checksum: "),
        ({"phi": {"out": 5}}, "spec.features: 6 in the store, 5 now"),
        ({"phi": {"rows": 1}}, "spec.rows_per_sample: 2 in the store, 1 now"),
        ({"data": {"seed": 2}}, "data.sha256: "),
        ({"data": {"n": 12}}, "spec.samples: 11 in the store, 12 now"),
        ({"options": {"dtype": "bfloat16"}}, 'spec.dtype: "float32" in the store, "bfloat16" now'),
        ({"options": {"block_size": 4}}, "spec.block_size: 3 in the store, 4 now"),
        ({"options": {"batch_size": 2}}, "options.batch_size: 3 in the store, 2 now"),
        ({"options": {"seed": 1}}, "options.seed: 0 in the store, 1 now"),
        ({"options": {"ids": list(range(1, 12))}}, "data.ids: null in the store, "),
    ],
    ids=lambda value: None if isinstance(value, dict) else value.split(":")[0],
)
def test_another_model_data_or_option_is_refused_with_the_difference_named(tiny, tmp_path, change, difference):
    path = tmp_path / "f.zarr"
    tiny.run(path)
    before = tiny.contents(path)
    with pytest.raises(StoreMismatchError) as caught:
        tiny.run(
            path,
            phi=tiny.LinearMap(**change.get("phi", {})),
            dataset=tiny.data(**change.get("data", {})),
            **change.get("options", {}),
        )
    assert any(line.startswith(difference) for line in caught.value.differences), caught.value.differences
    assert difference in str(caught.value) or "more difference" in str(caught.value)
    assert tiny.contents(path) == before
    assert pickle.loads(pickle.dumps(caught.value)).differences == caught.value.differences


def test_the_same_extraction_in_another_environment_keeps_a_finished_store(tiny, tmp_path, monkeypatch):
    path = tmp_path / "f.zarr"
    tiny.run(path)
    before = tiny.contents(path)
    monkeypatch.setattr("torch.__version__", "9.9")
    tiny.run(path)
    assert tiny.contents(path) == before
    (path / "features/c.1.0").unlink()
    with pytest.raises(StoreMismatchError, match=r'torch: "2.* in the store, "9\.9" now'):
        tiny.run(path)
    monkeypatch.undo()
    tiny.run(path)
    assert tiny.contents(path) == before


def test_work_goes_on_with_the_recorded_number_of_threads_and_puts_it_back(tiny, tmp_path):
    path = tmp_path / "f.zarr"
    threads = torch.get_num_threads()
    seen = []

    class Watching(tiny.LinearMap):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return super().forward(x)

    try:
        torch.set_num_threads(3)
        tiny.run(path, phi=Watching())
        before = tiny.contents(path)
        (path / "features/c.1.0").unlink()
        torch.set_num_threads(1)
        seen.clear()
        tiny.run(path, phi=Watching())
        assert seen[-1] == 3
        assert torch.get_num_threads() == 1
        assert tiny.contents(path) == before
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("what", ["file", "other files", "zarr group", "zarr array"])
def test_what_is_no_store_is_refused_and_left_as_it_was(tiny, tmp_path, what):
    import zarr

    path = tmp_path / "f.zarr"
    if what == "file":
        path.write_text("mine")
    elif what == "other files":
        path.mkdir()
        (path / "thesis.tex").write_text("mine")
    elif what == "zarr group":
        zarr.create_group(path).create_array("features", shape=(3, 2), dtype="f4")[:] = 1
    else:
        zarr.create_array(path, shape=(3, 2), dtype="f4")[:] = 1
    before = tiny.contents(path) if path.is_dir() else path.read_bytes()
    for act in (lambda: tiny.run(path), lambda: FeatureStore.open(path)):
        with pytest.raises(StoreFormatError, match=r"f\.zarr"):
            act()
        assert (tiny.contents(path) if path.is_dir() else path.read_bytes()) == before


def test_the_beginnings_of_a_store_of_another_shape_make_way(tiny, unbroken, tmp_path):
    path = tmp_path / "f.zarr"
    with StoreWriter(path, StoreSpec(4, 1, 3, "float32", 2, outputs=SideArray("int8", (3,))), {}):
        pass
    (path / "zarr.json").unlink()  # as if killed just before it was there
    StoreWriter(path, SPEC, {}).close()
    StoreWriter(tmp_path / "g.zarr", SPEC, {}).close()
    assert tiny.contents(path) == tiny.contents(tmp_path / "g.zarr")
    assert FeatureStore.open(path).outputs is None


def test_a_store_without_samples_or_features_is_one_too(tiny, tmp_path):
    with StoreWriter(tmp_path / "a.zarr", StoreSpec(0, 2, 3, "float32", 2, targets=SideArray("int64", ())), {}) as one:
        one.finish()
    store = FeatureStore.open(tmp_path / "a.zarr")
    store.verify()
    assert store.matrix().to_dense().shape == (0, 3)
    assert store.targets.shape == (0,)
    assert store.gram().shape == (0, 0)
    assert store.dask().compute(scheduler="synchronous").shape == (0, 3)
    with StoreWriter(tmp_path / "b.zarr", StoreSpec(3, 1, 0, "float32", 2), {}) as two:
        two.write_block(0, torch.zeros(2, 0))
        two.write_block(1, torch.zeros(1, 0))
        two.finish()
    store = FeatureStore.open(tmp_path / "b.zarr")
    store.verify()
    assert store.matrix().to_dense().shape == (3, 0)
    assert torch.equal(store.gram(), torch.zeros(3, 3))
