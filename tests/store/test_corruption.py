"""No changed, cut, lost or exchanged byte is ever read as if nothing had happened, and all can be computed again."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tangrams.store import CorruptStoreError, FeatureStore, StoreError, StoreFormatError

VALUES = ("features", "targets", "outputs", "ids")


def read_all(path):
    store = FeatureStore.open(path)
    return {
        "features": store.matrix().to_dense(),
        "targets": store.targets,
        "outputs": store.outputs,
        "ids": store.ids,
    }


@pytest.fixture(scope="module")
def truth(tiny, unbroken, tmp_path_factory):
    return read_all(tiny.restore(tmp_path_factory.mktemp("truth") / "f.zarr", unbroken))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damaged") / "f.zarr"


def detected(path, truth):
    """Whether opening and verifying finds the damage; whatever can be read is as it was in any case."""
    found = False
    try:
        store = FeatureStore.open(path)
    except StoreError:
        return True
    try:
        store.verify()
    except StoreError:
        found = True
    for name in VALUES:
        try:
            value = store.matrix().to_dense() if name == "features" else getattr(store, name)
        except StoreError:
            continue
        assert torch.equal(value, truth[name]), f"{name} was read wrongly"
    return found


def damaged(tiny, folder, unbroken, name, value):
    files = dict(unbroken)
    if value is None:
        del files[name]
    else:
        files[name] = value
    return tiny.restore(folder, files)


def flipped(data, offset, mask):
    return data[:offset] + bytes([data[offset] ^ mask]) + data[offset + 1 :]


def names(unbroken):
    return [name for name, data in unbroken.items() if data]


def test_the_files_are_those_that_are_documented(unbroken):
    groups = {name.rpartition("/")[0] for name in unbroken}
    assert groups == {"", *VALUES}
    assert [name for name, data in unbroken.items() if not data] == ["features/lock"]
    assert len(unbroken) == 1 + 4 + 2 + 4 * 4


@settings(deadline=None, max_examples=500)
@given(draw=st.data())
def test_every_flipped_byte_is_detected(tiny, unbroken, truth, folder, draw):
    name = draw.draw(st.sampled_from(names(unbroken)))
    offset = draw.draw(st.integers(0, len(unbroken[name]) - 1))
    mask = draw.draw(st.integers(1, 255))
    path = damaged(tiny, folder, unbroken, name, flipped(unbroken[name], offset, mask))
    assert detected(path, truth)


def test_every_byte_of_every_small_file_matters(tiny, unbroken, truth, folder):
    path = tiny.restore(folder, unbroken)
    tried = 0
    for name in ("zarr.json", "features/manifest.jsonl", "features/c.0.0", "ids/c.3", "targets/zarr.json"):
        data = unbroken[name]
        for offset in range(0, len(data), 1 + len(data) // 200):
            (path / name).write_bytes(flipped(data, offset, 1 << offset % 8))
            assert detected(path, truth), (name, offset)
            tried += 1
        (path / name).write_bytes(data)
    assert tried > 600
    assert not detected(path, truth)


@settings(deadline=None, max_examples=150)
@given(draw=st.data())
def test_every_cut_file_is_detected(tiny, unbroken, truth, folder, draw):
    name = draw.draw(st.sampled_from(names(unbroken)))
    length = draw.draw(st.integers(0, len(unbroken[name]) - 1))
    assert detected(damaged(tiny, folder, unbroken, name, unbroken[name][:length]), truth)


@settings(deadline=None, max_examples=60)
@given(draw=st.data(), extra=st.binary(min_size=1, max_size=20))
def test_every_longer_file_is_detected_or_ignored_where_it_says_nothing(tiny, unbroken, truth, folder, draw, extra):
    name = draw.draw(st.sampled_from(names(unbroken)))
    path = damaged(tiny, folder, unbroken, name, unbroken[name] + extra)
    assert detected(path, truth) or name == "features/manifest.jsonl"  # a line without an end is an unfinished block


def test_every_missing_file_is_detected(tiny, unbroken, truth, folder):
    for name in names(unbroken):
        assert detected(damaged(tiny, folder, unbroken, name, None), truth), name


def test_exchanged_chunks_are_detected_though_each_is_whole(tiny, unbroken, truth, folder):
    for array in VALUES:
        chunks = sorted(name for name in unbroken if name.startswith(f"{array}/c."))
        files = dict(unbroken)
        files[chunks[0]], files[chunks[1]] = files[chunks[1]], files[chunks[0]]
        assert detected(tiny.restore(folder, files), truth), array


def test_chunks_and_manifest_of_another_store_of_the_same_shape_are_detected(tiny, unbroken, truth, folder, tmp_path):
    tiny.run(tmp_path / "other.zarr", phi=tiny.LinearMap(seed=5))
    other = tiny.contents(tmp_path / "other.zarr")
    for names in (["features/c.0.0"], ["features/manifest.jsonl"], ["features/c.0.0", "features/manifest.jsonl"]):
        files = unbroken | {name: other[name] for name in names}
        assert detected(tiny.restore(folder, files), truth)


def test_errors_name_the_file_the_block_and_the_way_out(tiny, unbroken, folder):
    name = "features/c.2.0"
    store = FeatureStore.open(damaged(tiny, folder, unbroken, name, flipped(unbroken[name], 9, 4)))
    with pytest.raises(CorruptStoreError, match=r"features/c\.2\.0 .*SHA-256 differs: run the same extraction") as one:
        store.matrix().to_dense()
    assert one.value.blocks == (2,)
    with pytest.raises(CorruptStoreError, match="blocks 2 are damaged") as all_of_them:
        store.verify()
    assert all_of_them.value.blocks == (2,)
    assert store.matrix()[:6].to_dense().shape == (6, 6)  # what is whole can be read


def recomputed(tiny, path):
    done = []
    tiny.run(path, progress=lambda now, total: done.append(now))
    return len(done) - 1


@settings(deadline=None, max_examples=60)
@given(draw=st.data())
def test_extracting_again_computes_just_what_is_damaged_to_the_same_bytes(tiny, unbroken, folder, draw):
    files = dict(unbroken)
    hurt = draw.draw(st.lists(st.sampled_from(names(unbroken)), min_size=1, max_size=3, unique=True))
    blocks = set()
    for name in hurt:
        how = draw.draw(st.sampled_from(["flip", "cut", "lose"]))
        data = files[name]
        offset = draw.draw(st.integers(0, len(data) - 1))
        if how == "lose":
            del files[name]
        else:
            files[name] = flipped(data, offset, 1) if how == "flip" else data[:offset]
        if "/c." in name:
            blocks.add(int(name.split("c.")[1].split(".")[0]))
        if name == "features/manifest.jsonl":
            blocks |= set(range(4))
    if "zarr.json" in hurt and "features/manifest.jsonl" in hurt:
        return  # nothing left that says what this is: the next test
    path = tiny.restore(folder, files)
    again = recomputed(tiny, path)
    assert again <= len(blocks)
    assert tiny.contents(path) == unbroken


def test_a_store_that_lost_header_and_manifest_is_left_alone(tiny, unbroken, folder):
    for manifest in (None, b"nonsense\n"):
        files = {name: data for name, data in unbroken.items() if name != "features/manifest.jsonl"}
        files["zarr.json"] = unbroken["zarr.json"][:40]
        if manifest is not None:
            files["features/manifest.jsonl"] = manifest
        path = tiny.restore(folder, files)
        with pytest.raises((CorruptStoreError, StoreFormatError), match="path"):
            tiny.run(path)
        assert {k: v for k, v in tiny.contents(path).items() if k != "features/lock"} == {
            k: v for k, v in files.items() if k != "features/lock"
        }


def test_a_damaged_header_does_not_let_another_extraction_in(tiny, unbroken, folder):
    files = unbroken | {"zarr.json": unbroken["zarr.json"][:-5]}
    path = tiny.restore(folder, files)
    with pytest.raises(CorruptStoreError, match="not of this extraction"):
        tiny.run(path, phi=tiny.LinearMap(seed=5))
    assert tiny.contents(path) == files
    tiny.run(path)
    assert tiny.contents(path) == unbroken


def test_a_torn_last_line_is_an_unfinished_block_and_not_damage(tiny, unbroken, folder):
    manifest = unbroken["features/manifest.jsonl"]
    path = damaged(tiny, folder, unbroken, "features/manifest.jsonl", manifest[:-3])
    store = FeatureStore.open(path)
    with pytest.raises(StoreError, match="3 of 4 blocks: run the same"):
        store.check_complete()
    assert recomputed(tiny, path) == 1
    assert tiny.contents(path) == unbroken


def test_half_written_files_of_a_dead_run_are_cleared_away(tiny, unbroken, folder):
    path = tiny.restore(folder, unbroken | {"features/c.1.0.partial": b"x", "zarr.json.partial": b"y"})
    tiny.run(path)
    assert tiny.contents(path) == unbroken


def test_the_manifest_is_json_lines_of_checksums(unbroken):
    lines = [json.loads(line) for line in unbroken["features/manifest.jsonl"].splitlines()]
    assert [line["block"] for line in lines] == [0, 1, 2, 3]
    assert all(len(line["sha256"]) == 4 for line in lines)
