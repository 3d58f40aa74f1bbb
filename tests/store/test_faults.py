"""A disk that refuses a call at any moment leaves a store that continues later."""

import errno
import os

import pytest
import torch

from tangrams.store import StoreError, StoreSpec, StoreWriteError, StoreWriter


def refuse(number, code, torn=False):
    """Let the ``number``-th changing call fail, a write after half of its bytes if ``torn``."""

    def act(count, name, real, args, kwargs):
        if count == number and name != "close":
            if torn and name == "write":
                real(args[0], bytes(args[1])[: len(args[1]) // 2])
            raise OSError(code, os.strerror(code))
        return real(*args, **kwargs)

    return act


def calls(tiny, path):
    with tiny.interfering(tiny.plain) as counted:
        tiny.run(path)
    return counted.count


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_refused_call_is_one_typed_error_and_the_run_continues_later(tiny, unbroken, tmp_path, first):
    codes = (errno.ENOSPC, errno.EIO, errno.EACCES)
    total = calls(tiny, tmp_path / "counted.zarr")
    typed = 0
    for number in range(1, total + 1):
        path = tmp_path / f"{number}.zarr"
        code = codes[(number + first) % 3]
        errors = []
        try:
            with tiny.interfering(refuse(number, code, torn=True)):
                tiny.run(path)
        except StoreWriteError as error:
            errors.append(error)
        assert all(error.errno == code and str(path) in str(error) for error in errors)
        typed += len(errors)
        tiny.run(path)
        assert tiny.contents(path) == unbroken, f"refused at call {number}"
    assert typed > 0.6 * total


def test_every_file_is_flushed_before_it_gets_its_name_and_vouched_for_last(tiny, tmp_path):
    log = []
    names = {}

    def record(count, name, real, args, kwargs):
        result = real(*args, **kwargs)
        if name == "open":
            names[result] = str(args[0])
        log.append((name, names.get(args[0], str(args[0])), *map(str, args[1:2])))
        return result

    with tiny.interfering(record):
        tiny.run(tmp_path / "f.zarr")
    renamed = [i for i, call in enumerate(log) if call[0] == "replace"]
    assert len(renamed) >= 4 * 4 + 6
    for i in renamed:
        assert ("fsync", log[i][1]) in [call[:2] for call in log[i - 3 : i]]
    lines = [i for i, call in enumerate(log) if call[0] == "write" and call[1].endswith("manifest.jsonl")]
    assert len(lines) == 4
    for block, i in enumerate(lines):
        chunks = [k for k in renamed if f"/c.{block}" in log[k][2]]
        folders = [k for k in range(i) if log[k][0] == "fsync" and log[k][1].endswith(("features", "ids", "targets"))]
        assert max(chunks) < max(folders) < i
        assert log[i + 1][:2] == ("fsync", log[i][1])


def test_a_full_disk_that_stays_full_fails_each_time_and_continues_when_there_is_room(tiny, unbroken, tmp_path):
    path = tmp_path / "f.zarr"

    def full(count, name, real, args, kwargs):
        if count > 60 and name == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args, **kwargs)

    for _ in range(3):
        with tiny.interfering(full), pytest.raises(StoreWriteError, match="No space left"):
            tiny.run(path)
    tiny.run(path)
    assert tiny.contents(path) == unbroken


def test_the_same_writer_goes_on_after_a_refused_block(tiny, tmp_path):
    features = torch.randn(4, 3)
    spec = StoreSpec(4, 1, 3, "float32", 1)
    with StoreWriter(tmp_path / "whole.zarr", spec, {}) as writer:
        for block in range(4):
            writer.write_block(block, features[block : block + 1])
        writer.finish()
    with StoreWriter(tmp_path / "f.zarr", spec, {}) as writer:
        for block in range(4):
            with tiny.interfering(tiny.plain) as counted:
                writer.write_block(block, features[block : block + 1])
            for number in range(1, counted.count + 1):
                act = refuse(number, errno.ENOSPC, torn=True)
                try:
                    with tiny.interfering(act):
                        writer.write_block(block, features[block : block + 1])
                except StoreWriteError:
                    pass
            writer.write_block(block, features[block : block + 1])
        writer.finish()
    assert tiny.contents(tmp_path / "f.zarr") == tiny.contents(tmp_path / "whole.zarr")


def test_a_folder_that_cannot_be_written_is_a_typed_error(tiny, tmp_path):
    if os.geteuid() == 0:
        (tmp_path / "file").write_text("not a folder")
        where = tmp_path / "file" / "f.zarr"
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        where = tmp_path / "closed" / "f.zarr"
    with pytest.raises(StoreError, match=str(where)):
        tiny.run(where)


def test_an_error_of_the_feature_map_leaves_finished_blocks_and_says_where(tiny, unbroken, tmp_path):
    class Failing(tiny.LinearMap):
        def forward(self, x):
            if (x == tiny.data()[7][0]).all(-1).any():
                raise RuntimeError("out of memory")
            return super().forward(x)

    path = tmp_path / "f.zarr"
    with pytest.raises(RuntimeError, match="out of memory") as caught:
        tiny.run(path, phi=Failing())
    assert caught.value.__notes__ == ["in samples 6 … 8 of the dataset"]
    assert (path / "features/manifest.jsonl").read_bytes().count(b"\n") == 2
    tiny.run(path)
    assert tiny.contents(path) == unbroken
