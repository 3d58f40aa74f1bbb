"""``load(name)``: public data sets as tensors or plain arrays, a small loader per family."""

from __future__ import annotations

import csv
import difflib
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tangrams.data.files import read, table
from tangrams.data.labelled import Labelled
from tangrams.data.split import Split

DIGIT_NAMES = tuple("0123456789")


@dataclass(frozen=True)
class RegressionTable:
    """A regression table with its published random splits.

    Attributes:
        inputs: ``(n, d)``, float64.
        targets: ``(n,)``, float64.
        test_mask: column k marks the test rows of split k.
    """

    inputs: Float[Tensor, "n d"]
    targets: Float[Tensor, "n"]
    test_mask: Bool[Tensor, "n k"]

    def split(self, k: int = 0) -> Split:
        """Split k, rows in order.

        Args:
            k: which of the published splits.

        Raises:
            ValueError: if there is no such split.
        """
        if not 0 <= k < self.test_mask.shape[1]:
            raise ValueError(f"the table has splits 0 … {self.test_mask.shape[1] - 1}, got {k}")
        test = self.test_mask[:, k]
        return Split(Labelled(self.inputs[~test], self.targets[~test]), Labelled(self.inputs[test], self.targets[test]))


def names() -> list[str]:
    """Every name that :func:`load` takes."""
    families = {file.partition("/")[0] for file in table()}
    single = [family for family in families if family in _WHOLE]
    members = [f"{family}/{member}" for family in families if family in _MEMBERS for member in _members_of(family)]
    return sorted([*single, *members])


def load(name: str, *, num_train: int | None = None, num_test: int | None = None) -> Any:
    """A data set by name, from the folder in ``TANGRAMS_DATA``, or downloaded where it is public in that form.

    ==================================  ==============================================================================
    name                                what comes
    ==================================  ==============================================================================
    ``mnist``, ``cifar10``              :class:`Split`: inputs ``(n, C, h, w)`` float32 in [0, 1], targets int64.
                                        MNIST has its first 10,000 training images; CIFAR-10 is from JPEG copies, its
                                        order shuffled, so that any leading part is nearly balanced
    ``uci_regression/<table>``          :class:`RegressionTable`
    ``diamonds``, ``fitzpatrick17k``,   dict of columns: float64 where all entries are numbers, else text
    ``ett/ETTh1``
    ``tiny_shakespeare``                the text
    ``word_similarity/<set>``           dict of ``first``, ``second`` (words) and ``score``
    ``time_series/<set>``,              dict of the published arrays
    ``planetoid/cora``, ``musae/<g>``
    ``meshes/<name>``                   dict of ``vertices`` (v, 3) float64 and ``faces`` (f, 3) int32
    ``omniglot/<part>``                 dict; ink masks unpacked to ``(…, 105, 105)`` bool
    ``textures/<name>``                 ``(512, 512)`` uint8
    ==================================  ==============================================================================

    Args:
        name: one of :func:`names`.
        num_train: only so many leading training samples, of a :class:`Split`.
        num_test: only so many leading test samples, of a :class:`Split`.

    A file that is not there or not as it should be is a :class:`DataNotFoundError` that says how to get it.

    Raises:
        ValueError: if the name is unknown, or a number is asked of a set without a split.
    """
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        raise ValueError(f"no data set {name!r}; " + (f"did you mean {', '.join(close)}?" if close else "see names()"))
    family, _, member = name.partition("/")
    if family in _SPLITS:
        for argument, value in (("num_train", num_train), ("num_test", num_test)):
            if value is not None and value < 0:
                raise ValueError(f"load expects {argument} ≥ 0, got {value}")
        return _SPLITS[family](num_train, num_test)
    if num_train is not None or num_test is not None:
        raise ValueError(f"{name} has no training and test part: load it whole")
    return _MEMBERS[family](member) if member else _WHOLE[family]()


def _mnist(num_train: int | None, num_test: int | None) -> Split:
    train = _npz("mnist/train_first10k.npz")
    parts = [
        (train["images"], train["labels"], num_train),
        (_idx(read("mnist/t10k-images-idx3-ubyte.gz")), _idx(read("mnist/t10k-labels-idx1-ubyte.gz")), num_test),
    ]
    first, second = (_images(images[:n, None], labels[:n]) for images, labels, n in parts)
    return Split(first, second, DIGIT_NAMES)


def _cifar10(num_train: int | None, num_test: int | None) -> Split:
    from PIL import Image

    parts = []
    classes: tuple[str, ...] = ()
    for part, number in (("train", num_train), ("test", num_test)):
        arrays = _npz(f"cifar10/{part}.npz")
        labels, offsets, data = arrays["labels"][:number], arrays["offsets"], arrays["jpeg"].tobytes()
        images = np.empty((len(labels), 3, 32, 32), np.uint8)
        for i in range(len(labels)):
            with Image.open(io.BytesIO(data[offsets[i] : offsets[i + 1]])) as image:
                images[i] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        parts.append(_images(images, labels))
        classes = tuple(str(c) for c in arrays["classes"])
    return Split(parts[0], parts[1], classes)


def _images(images: np.ndarray, labels: np.ndarray) -> Labelled:
    return Labelled(
        torch.from_numpy(images.astype(np.float32) / np.float32(255)), torch.from_numpy(labels.astype(np.int64))
    )


def _regression_table(member: str) -> RegressionTable:
    rows = np.loadtxt(io.BytesIO(read(f"uci_regression/{member}.csv.gz")), delimiter=",", dtype=np.float64)
    data = read(f"uci_regression/{member}_splits.npz")
    if data.startswith(b"PK"):  # the local file packs what the published one spells out
        with np.load(io.BytesIO(data), allow_pickle=False) as packed:
            mask = np.unpackbits(packed["test_mask"], axis=0)[: int(packed["rows"])]
    else:
        mask = np.loadtxt(io.BytesIO(data), delimiter=",", dtype=np.uint8)
    values = torch.from_numpy(rows)
    return RegressionTable(values[:, :-1].contiguous(), values[:, -1].contiguous(), torch.from_numpy(mask.astype(bool)))


def _columns(file: str) -> dict[str, np.ndarray]:
    """A table with a header, column by column."""
    header, *rows = csv.reader(io.StringIO(read(file).decode("utf-8")))
    columns = {}
    for name, values in zip(header, zip(*rows, strict=True), strict=True):
        array = np.array(values)
        try:
            columns[name] = array.astype(np.float64)
        except ValueError:
            columns[name] = array
    return columns


def _word_similarity(member: str) -> dict[str, np.ndarray]:
    lines = [
        line.split() for line in read(f"word_similarity/{member}.txt").decode("utf-8").splitlines() if line.strip()
    ]
    first, second, score = zip(*lines, strict=True)
    return {"first": np.array(first), "second": np.array(second), "score": np.array(score, np.float64)}


def _mesh(member: str) -> dict[str, np.ndarray]:
    if f"meshes/{member}.off" not in table():
        return _npz(f"meshes/{member}.npz")
    kind, *numbers = read(f"meshes/{member}.off").split()
    v, f, start = int(numbers[0]), int(numbers[1]), 3
    if kind != b"OFF":
        raise ValueError(f"meshes/{member}.off does not begin with OFF")
    vertices = np.array(numbers[start : start + 3 * v], np.float64).reshape(v, 3)
    faces = np.array(numbers[start + 3 * v : start + 3 * v + 4 * f], np.int32).reshape(f, 4)
    return {"vertices": vertices, "faces": np.ascontiguousarray(faces[:, 1:])}  # each line begins with its length, 3


def _omniglot(member: str) -> dict[str, np.ndarray]:
    arrays = _npz(f"omniglot/{member}.npz")
    height, width = (int(size) for size in arrays.pop("shape"))

    def unpack(packed: np.ndarray) -> np.ndarray:
        pixels = np.unpackbits(packed, axis=-1)[..., : height * width]
        return pixels.reshape(*packed.shape[:-1], height, width).astype(bool)

    masks = {"packed": "images", "train": "train", "test": "test"}
    return {masks.get(key, key): unpack(value) if key in masks else value for key, value in arrays.items()}


def _texture(member: str) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(read(f"textures/{member}.png"))) as image:
        return np.array(image)


def _npz(file: str) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(read(file)), allow_pickle=False) as arrays:
        return dict(arrays)


def _idx(data: bytes) -> np.ndarray:
    """LeCun's format: two zeros, a type, the number of axes, their lengths, the bytes."""
    axes = data[3]
    shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _members_of(family: str) -> set[str]:
    files = (file.partition("/")[2] for file in table() if file.startswith(f"{family}/"))
    return {file.partition(".")[0] for file in files if not file.endswith("_splits.npz")}


_SPLITS: dict[str, Callable[[int | None, int | None], Split]] = {"mnist": _mnist, "cifar10": _cifar10}
_WHOLE: dict[str, Callable[..., Any]] = {
    **_SPLITS,
    "diamonds": lambda: _columns("diamonds/diamonds.csv.gz"),
    "fitzpatrick17k": lambda: _columns("fitzpatrick17k/fitzpatrick17k.csv.gz"),
    "tiny_shakespeare": lambda: read("tiny_shakespeare/input.txt.gz").decode("utf-8"),
}
_MEMBERS: dict[str, Callable[[str], Any]] = {
    "ett": lambda member: _columns(f"ett/{member}.csv.gz"),
    "meshes": _mesh,
    "musae": lambda member: _npz(f"musae/{member}.npz"),
    "omniglot": _omniglot,
    "planetoid": lambda member: _npz(f"planetoid/{member}.npz"),
    "textures": _texture,
    "time_series": lambda member: _npz(f"time_series/{member}.npz"),
    "uci_regression": _regression_table,
    "word_similarity": _word_similarity,
}
