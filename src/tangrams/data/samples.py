"""What the items of a dataset are: inputs with or without a target, and how several become a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from tangrams.data.labelled import Labelled

TARGET_KEYS = ("labels", "label", "targets", "target", "y")
"""Where the target of a dict item is looked for, in this order."""


@runtime_checkable
class MapDataset(Protocol):
    """Anything with a length and items by index, such as a map-style ``torch.utils.data.Dataset``."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class _Slices:
    """The samples along the first axis of ``Labelled`` tensors or a dict of tensors."""

    def __init__(self, value: Any) -> None:
        sizes = {len(t) for t in _leaves(value)}
        if len(sizes) != 1:
            raise ValueError(f"tensors disagree on the number of samples along the first axis: {sorted(sizes)}")
        self.value = value
        self.length = sizes.pop()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        if not -self.length <= index < self.length:
            raise IndexError(f"sample {index} of {self.length}")
        return _map(self.value, lambda t: t[index])


def as_dataset(data: Any) -> MapDataset:
    """A map-style dataset of samples: one already, a tensor, ``Labelled``, or a dict of tensors.

    Args:
        data: the samples; of tensors the first axis counts them, and tensors that disagree are refused.

    Raises:
        TypeError: on a DataLoader, an iterable dataset, a bare tuple (arguments or samples?), or what has no length.
    """
    if isinstance(data, DataLoader):
        raise TypeError("samples are read by index, in order: pass the loader's .dataset, not the DataLoader")
    if isinstance(data, IterableDataset):
        raise TypeError("samples are read by index: an IterableDataset has none; collect it into a list of samples")
    if isinstance(data, Labelled | Mapping):
        return _Slices(data)
    if isinstance(data, tuple):
        raise TypeError("a tuple may be arguments or (x, y): pass Labelled(x, y), a TensorDataset or a list of samples")
    if isinstance(data, str | bytes) or not (hasattr(data, "__len__") and hasattr(data, "__getitem__")):
        raise TypeError(f"expected a map-style dataset, a tensor or Labelled, got {type(data).__name__}")
    return data


def split_item(item: Any) -> tuple[Any, Any]:
    """Inputs and target of one item of a dataset; the target is None where there is none.

    ========================  =================================================================
    item                      reading
    ========================  =================================================================
    ``Labelled(x, y)``        x, y
    ``(x,)``                  x, none
    ``(x, y)``                x, y
    ``(a, b, …, y)``          the model's arguments ``(a, b, …)``, y
    dict                      the first of :data:`TARGET_KEYS` that it has is the target
    anything else             x, none
    ========================  =================================================================

    Args:
        item: what the dataset returned.

    Raises:
        ValueError: on an empty tuple or a dict with nothing but a target.
    """
    if isinstance(item, Labelled):
        return item.inputs, item.targets
    if isinstance(item, Mapping):
        key = next((key for key in TARGET_KEYS if key in item), None)
        inputs = {k: v for k, v in item.items() if k != key}
        if not inputs:
            raise ValueError(f"a dict item needs something to call the model with, got only {sorted(item)}")
        return inputs, None if key is None else item[key]
    if isinstance(item, tuple | list):
        if not item:
            raise ValueError("an item of the dataset is an empty tuple")
        if len(item) == 1:
            return item[0], None
        return (item[0] if len(item) == 2 else tuple(item[:-1])), item[-1]
    return item, None


def stack_samples(samples: Sequence[Any]) -> Any:
    """A batch of equal samples: leaves are stacked along a new first axis, tuples and dicts kept.

    Args:
        samples: at least one; leaves are tensors, arrays or numbers (int → int64, float → float64), others refused.

    Raises:
        ValueError: if there are none, or if shapes, dtypes or structures differ between samples.
    """
    if not samples:
        raise ValueError("no samples to stack")
    first = samples[0]
    if isinstance(first, Mapping):
        for position, sample in enumerate(samples):
            if not isinstance(sample, Mapping) or sample.keys() != first.keys():
                raise ValueError(f"sample {position} of the batch has not the keys of the first, {sorted(first)}")
        return {key: stack_samples([sample[key] for sample in samples]) for key in first}
    if isinstance(first, tuple | list):
        for position, sample in enumerate(samples):
            if not isinstance(sample, tuple | list) or len(sample) != len(first):
                raise ValueError(f"sample {position} of the batch is not a tuple of {len(first)} as the first is")
        return tuple(stack_samples([sample[i] for sample in samples]) for i in range(len(first)))
    leaves = [as_leaf(sample) for sample in samples]
    for position, leaf in enumerate(leaves):
        if leaf.shape != leaves[0].shape or leaf.dtype != leaves[0].dtype:
            raise ValueError(
                f"sample {position} of the batch is {leaf.dtype} {tuple(leaf.shape)}, the first {leaves[0].dtype} "
                f"{tuple(leaves[0].shape)}: pad them, or take batches of one"
            )
    return torch.stack(leaves)


def as_leaf(value: Any) -> Tensor:
    """A tensor, array or number as a detached tensor.

    Args:
        value: int becomes int64, float float64, as in torch's own collation.

    Raises:
        TypeError: on anything else.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
        return torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))
    if isinstance(value, bool | int | float):
        return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
    raise TypeError(
        f"a sample holds {type(value).__name__}, neither tensor, array nor number: transform it in the dataset"
    )


def hash_sample(item: Any, into: Any) -> None:
    """Feed structure, dtypes, shapes and bytes of one item to a hash.

    Equal items of any container or strides hash alike; what differs in value, dtype or shape does not. A leaf that is
    neither tensor, array, number, string nor None is a ``TypeError``.

    Args:
        item: an item of a dataset.
        into: a ``hashlib`` object.
    """
    if isinstance(item, Mapping):
        into.update(f"d{len(item)}:".encode())
        for key in sorted(item, key=str):
            into.update(f"k{key!r}:".encode())
            hash_sample(item[key], into)
    elif isinstance(item, tuple | list):
        into.update(f"t{len(item)}:".encode())
        for member in item:
            hash_sample(member, into)
    elif item is None or isinstance(item, str | bytes):
        into.update(f"s{item!r}:".encode())
    else:
        leaf = as_leaf(item).cpu().contiguous()
        into.update(f"a{leaf.dtype}{tuple(leaf.shape)}:".encode())
        into.update(leaf.reshape(-1).view(torch.uint8).numpy() if leaf.numel() else b"")


def fingerprint(data: Any) -> str:
    """SHA-256 of all samples of a dataset in order, read one at a time.

    Args:
        data: what :func:`as_dataset` takes; items hold tensors, arrays, numbers and strings.
    """
    dataset = as_dataset(data)
    digest = hashlib.sha256(f"samples {len(dataset)};".encode())
    for index in range(len(dataset)):
        hash_sample(dataset[index], digest)
    return digest.hexdigest()


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        return [leaf for member in value.values() for leaf in _leaves(member)]
    if isinstance(value, tuple | list):
        return [leaf for member in value for leaf in _leaves(member)]
    return [value]


def _map(value: Any, change: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _map(member, change) for key, member in value.items()}
    if isinstance(value, Labelled):
        return Labelled(_map(value.inputs, change), change(value.targets))
    if isinstance(value, tuple | list):
        return tuple(_map(member, change) for member in value)
    return change(value)
