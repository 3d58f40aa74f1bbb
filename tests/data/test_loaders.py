"""Public data sets: read from the folder in TANGRAMS_DATA where there is one; never from the network."""

import gzip
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import tangrams.data
from tangrams.data import DataNotFoundError, RegressionTable, Split, load, names
from tangrams.data import files as files_module

FOLDER = os.environ.get(files_module.FOLDER)
needs_data = pytest.mark.skipif(not FOLDER, reason="TANGRAMS_DATA names no folder with the data sets")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    import pooch

    def refuse(*args, **kwargs):
        raise OSError("tests do not use the network")

    monkeypatch.setattr(pooch, "retrieve", refuse)


def test_every_family_has_names_and_every_file_a_checksum():
    known = names()
    assert {"mnist", "cifar10", "diamonds", "tiny_shakespeare", "uci_regression/airfoil", "meshes/bunny"} <= set(known)
    assert len(known) == len(set(known)) == 54
    for file, entry in files_module.table().items():
        assert len(bytes.fromhex(entry["sha256"])) == 32, file
        assert ("url" in entry) == ("url_sha256" in entry)
        assert entry.get("url", "https://raw.githubusercontent.com/").startswith("https://raw.githubusercontent.com/")
    families = {file.partition("/")[0] for file in files_module.table()}
    assert families == {name.partition("/")[0] for name in known}


def test_an_unknown_name_is_refused_with_its_neighbours():
    with pytest.raises(ValueError, match=r"'minst'; did you mean mnist"):
        load("minst")
    with pytest.raises(ValueError, match=r"names\(\)"):
        load("")


def test_numbers_of_samples_are_only_for_sets_with_parts(monkeypatch, tmp_path):
    monkeypatch.setenv(files_module.FOLDER, str(tmp_path))
    with pytest.raises(ValueError, match="no training and test part"):
        load("diamonds", num_train=3)
    with pytest.raises(ValueError, match="num_test ≥ 0"):
        load("mnist", num_test=-1)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "uci_regression/airfoil", "textures/brick", "diamonds"])
def test_a_missing_file_says_how_to_get_it(name, monkeypatch, tmp_path):
    monkeypatch.setenv(files_module.FOLDER, str(tmp_path))
    with pytest.raises(DataNotFoundError, match=rf"{tmp_path}.*cannot be read.*set TANGRAMS_DATA to a folder"):
        load(name)


def test_a_changed_file_is_not_read(monkeypatch, tmp_path):
    monkeypatch.setenv(files_module.FOLDER, str(tmp_path))
    (tmp_path / "diamonds").mkdir()
    (tmp_path / "diamonds/diamonds.csv.gz").write_bytes(gzip.compress(b"carat\n1\n"))
    with pytest.raises(DataNotFoundError, match=r"not the file it should be.*raw\.githubusercontent\.com"):
        load("diamonds")


def test_without_a_folder_a_file_that_is_public_nowhere_says_so(monkeypatch):
    monkeypatch.delenv(files_module.FOLDER, raising=False)
    with pytest.raises(DataNotFoundError, match="on no public server in this form: set TANGRAMS_DATA"):
        load("cifar10")


def test_without_a_folder_and_network_the_error_says_how(monkeypatch):
    monkeypatch.delenv(files_module.FOLDER, raising=False)
    with pytest.raises(DataNotFoundError, match=r"could not be downloaded .*tests do not use the network"):
        load("diamonds")


def test_a_download_is_asked_for_by_checksum_and_read_like_the_local_file(monkeypatch, tmp_path):
    monkeypatch.delenv(files_module.FOLDER, raising=False)
    data = b"first second 1.5\n\nthird fourth 2\n"
    asked = {}

    def retrieve(url, known_hash, fname, path):
        asked.update(url=url, known_hash=known_hash)
        (tmp_path / fname).write_bytes(data)
        return str(tmp_path / fname)

    import pooch

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    got = load("word_similarity/EN-MC-30")
    entry = files_module.table()["word_similarity/EN-MC-30.txt"]
    assert asked == {"url": entry["url"], "known_hash": "sha256:" + entry["url_sha256"]}
    assert entry["url"].startswith("https://raw.githubusercontent.com/mfaruqui/eval-word-vectors/94b3dd9f")
    assert got["first"].tolist() == ["first", "third"]
    assert got["score"].tolist() == [1.5, 2.0]


def test_published_splits_are_read_packed_and_spelled_out(monkeypatch):
    mask = np.random.default_rng(0).random((13, 10)) < 0.3
    packed = io.BytesIO()
    np.savez(packed, test_mask=np.packbits(mask, axis=0), rows=13)
    spelled = "\n".join(",".join(map(str, row)) for row in mask.astype(int)).encode()
    rows = "\n".join(f"{i},{2 * i},{3 * i}" for i in range(13)).encode()
    for splits in (packed.getvalue(), spelled):
        monkeypatch.setattr(
            "tangrams.data.loaders.read", lambda name, splits=splits: splits if "splits" in name else rows
        )
        table = load("uci_regression/airfoil")
        assert torch.equal(table.test_mask, torch.from_numpy(mask))
        split = table.split(3)
        assert split.test.targets.tolist() == [3.0 * i for i in range(13) if mask[i, 3]]
        assert split.train.inputs.tolist() == [[i, 2 * i] for i in range(13) if not mask[i, 3]]
        with pytest.raises(ValueError, match=r"splits 0 … 9, got 10"):
            table.split(10)


@needs_data
def test_every_file_of_the_folder_is_the_one_in_the_table():
    for file, entry in files_module.table().items():
        assert hashlib.sha256((Path(FOLDER) / file).read_bytes()).hexdigest() == entry["sha256"], file


@needs_data
@pytest.mark.parametrize("name", [name for name in names() if name not in ("mnist", "cifar10")])
def test_every_set_loads(name):
    value = load(name)
    arrays = value.values() if isinstance(value, dict) else [value]
    assert all(len(array if not isinstance(array, RegressionTable) else array.targets) for array in arrays)


def ridge(x, y, x_new, penalty):
    """Centred ridge regression in the primal."""
    mean, level = x.mean(0), y.mean(0)
    a = (x - mean).mT @ (x - mean) + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    return (x_new - mean) @ torch.cholesky_solve((x - mean).mT @ (y - level), torch.linalg.cholesky(a)) + level


@needs_data
def test_mnist_is_right_by_its_nearest_neighbours():
    data = load("mnist", num_test=2000)
    assert data.train.inputs.shape == (10000, 1, 28, 28)
    assert data.train.inputs.dtype == torch.float32
    assert (float(data.train.inputs.min()), float(data.train.inputs.max())) == (0.0, 1.0)
    nearest = torch.cdist(data.test.inputs.flatten(1), data.train.inputs.flatten(1)).argmin(1)
    assert float((data.train.targets[nearest] == data.test.targets).double().mean()) == 0.9225
    assert data.class_names == tuple("0123456789")


@needs_data
def test_cifar10_is_right_by_ridge_on_pixels():
    data = load("cifar10", num_train=10_000)
    assert data.test.inputs.shape == (10_000, 3, 32, 32)
    assert torch.bincount(data.test.targets).tolist() == [1000] * 10
    x, x_test = (part.inputs.flatten(1).double() for part in (data.train, data.test))
    y = torch.nn.functional.one_hot(data.train.targets, 10).double()
    accuracy = float((ridge(x, y, x_test, 100.0).argmax(1) == data.test.targets).double().mean())
    assert abs(accuracy - 0.374) < (0.374 * 0.626 / 10_000) ** 0.5  # decoders of JPEG differ in the last bit


@needs_data
@pytest.mark.parametrize(("name", "value"), [("elevators", 0.761), ("kin40k", 0.000)])
def test_uci_tables_are_right_by_ridge(name, value):
    split = load(f"uci_regression/{name}").split(0)
    mean, scale = split.train.inputs.mean(0), split.train.inputs.std(0)
    x, x_test = ((part.inputs - mean) / scale for part in (split.train, split.test))
    error = split.test.targets - ridge(x, split.train.targets[:, None], x_test, 1.0)[:, 0]
    r2 = 1 - error.square().sum() / (split.test.targets - split.test.targets.mean()).square().sum()
    assert abs(float(r2) - value) < 0.0015


@needs_data
def test_cora_is_right_by_propagated_features():
    import scipy.sparse as sp
    from sklearn.linear_model import LogisticRegression

    z = load("planetoid/cora")
    x = sp.csr_matrix((z["data"], z["indices"], z["indptr"]), shape=tuple(z["shape"])).toarray()
    u, v = z["edges"].T
    n = len(x)
    adjacency = sp.coo_matrix((np.ones(2 * len(u)), (np.r_[u, v], np.r_[v, u])), shape=(n, n)) + sp.eye(n)
    degree = np.asarray(adjacency.sum(1)).ravel()
    step = sp.diags(degree**-0.5) @ adjacency @ sp.diags(degree**-0.5)
    features = step @ (step @ (x / np.maximum(x.sum(1, keepdims=True), 1)))
    model = LogisticRegression(C=1000, max_iter=2000).fit(features[z["train_idx"]], z["labels"][z["train_idx"]])
    assert abs(model.score(features[z["test_idx"]], z["labels"][z["test_idx"]]) - 0.808) < 0.006


@needs_data
def test_omniglot_is_right_by_nearest_pixels():
    z = load("omniglot/one_shot_runs")
    train, test = (torch.from_numpy(z[part].reshape(20, 20, -1)).double() for part in ("train", "test"))
    nearest = torch.cdist(test, train).argmin(2)
    assert round(float((nearest == torch.from_numpy(z["answer"].astype(int))).double().mean()), 2) == 0.19


@needs_data
def test_gunpoint_is_right_by_nearest_neighbours():
    z = load("time_series/GunPoint")
    train, test = (torch.from_numpy(z[f"X_{part}"]).flatten(1).double() for part in ("train", "test"))
    nearest = torch.cdist(test, train).argmin(1)
    right = z["y_train"][nearest.numpy()] == z["y_test"]
    assert round(float(right.mean()), 3) == 0.913


@needs_data
def test_texts_tables_and_meshes_have_their_published_sizes():
    text = load("tiny_shakespeare")
    assert (len(text), len(set(text)), len(text.split())) == (1_115_394, 65, 202_651)
    diamonds = load("diamonds")
    assert len(diamonds) == 10
    assert diamonds["price"].shape == (53_940,)
    assert diamonds["price"].dtype == np.float64
    assert sum(column.dtype.kind == "U" for column in diamonds.values()) == 3
    bunny = load("meshes/bunny")
    assert bunny["vertices"].shape == (3485, 3)
    edges = {tuple(sorted(pair)) for face in bunny["faces"] for pair in zip(face, np.roll(face, 1), strict=True)}
    assert 3485 - len(edges) + len(bunny["faces"]) == 2  # closed, genus 0
    assert len(load("word_similarity/EN-MEN-TR-3k")["score"]) == 3000


@needs_data
def test_meshes_from_their_text_equal_the_packed_ones():
    for name in ("bunny", "cow"):
        with np.load(Path(FOLDER) / f"meshes/{name}.npz") as packed:
            mesh = load(f"meshes/{name}")
            assert np.array_equal(mesh["vertices"], packed["vertices"])
            assert np.array_equal(mesh["faces"], packed["faces"])
            assert mesh["faces"].dtype == packed["faces"].dtype


def test_a_split_of_images_has_the_fields_that_are_promised():
    assert list(Split.__dataclass_fields__) == ["train", "test", "class_names"]
    assert json.loads(json.dumps(tangrams.data.names())) == names()
