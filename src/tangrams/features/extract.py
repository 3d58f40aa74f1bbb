"""Drive a store with a feature map: each block of samples computed alone, so that it can be computed again.

The data are read twice: once to know what they are, once to compute. That refuses another data set before any work
is lost, and finds data that change from one reading to the next.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numcodecs
import numpy as np
import torch
from torch import Tensor

import tangrams
from tangrams.data.labelled import Labelled
from tangrams.data.samples import MapDataset, as_dataset, hash_sample, split_item, stack_samples
from tangrams.operators.sketches.base import block_generator
from tangrams.store import (
    FeatureStore,
    SideArray,
    StoreMismatchError,
    StoreSpec,
    StoreWriter,
    default_block_size,
    differences,
    dtype_name,
    text_bytes,
)

if TYPE_CHECKING:
    from tangrams.features.base import FeatureMap


def extract(
    phi: FeatureMap,
    dataset: Any,
    path: str | os.PathLike[str],
    *,
    batch_size: int | None = None,
    dtype: str | torch.dtype = "float32",
    block_size: int | None = None,
    ids: Sequence[int] | Sequence[str] | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FeatureStore:
    """Compute the features of a data set into a store, or whatever of them is missing there.

    Run again after any interruption it continues, and ends with the same bytes as an unbroken run; run on a finished
    store it reads everything and computes the damaged blocks again. What decides the bytes is recorded: a store made
    with another map, network, data or option is refused, and work on an old store goes on with its number of threads
    and only with its versions and on its device.

    Args:
        phi: the feature map.
        dataset: a map-style dataset with tensor, tuple ``(x, y)`` or dict items, ``Labelled`` or a tensor.
        path: where the store is made or continued: a local path or any fsspec address.
        batch_size: samples per call of the map; a block at once by default. Results depend on it in the last bits.
        dtype: of the stored features: "float32", "float64", or "float16" or "bfloat16", where overflow is an error.
        block_size: samples per unit of work, by default about 64 MiB of features.
        ids: a number or a name for each sample; their indices by default.
        seed: set before each block, together with its number, for maps that draw while they compute.
        progress: called with the number of finished blocks and of all, once at the start and after each block.

    Returns:
        The finished store.

    Raises:
        ValueError: if the data are empty or change between readings, or on ids, sizes or options that do not fit.

    A store that was made otherwise is a :class:`~tangrams.store.StoreMismatchError`; everything else that a store can
    answer is another :class:`~tangrams.store.StoreError`.
    """
    samples = as_dataset(dataset)
    n = len(samples)
    if n == 0:
        raise ValueError("extract got an empty dataset: there is nothing to compute")
    id_values = _ids(ids, n)
    for name, value in (("batch_size", batch_size), ("block_size", block_size)):
        if value is not None and (type(value) is not int or value < 1):
            raise ValueError(f"extract expects {name} ≥ 1, got {value!r}")

    probe = _Batch.compute(phi, [samples[0]], [0], seed)
    if probe.features.ndim != 2:
        raise ValueError(f"{type(phi).__name__} gave features of shape {tuple(probe.features.shape)}, not (rows, d)")
    stored = str(dtype).removeprefix("torch.")
    size = block_size or default_block_size(n, len(probe.features), probe.features.shape[1], _known(stored))
    spec = StoreSpec(
        samples=n,
        rows_per_sample=len(probe.features),
        features=probe.features.shape[1],
        dtype=stored,
        block_size=size,
        targets=_side(probe.targets),
        outputs=_side(probe.outputs),
        ids=SideArray("int64", ()) if id_values is None else _side(id_values) or SideArray("int64", ()),
    )
    states = _read_once(samples, spec)
    about = {
        "map": phi.describe(),
        "columns": [[column.name, column.shape, column.start, column.stop] for column in phi.columns],
        "data": {"samples": n, "sha256": states[-1].hexdigest(), "ids": _digest(id_values)},
        "options": {"batch_size": min(batch_size or size, size), "seed": seed},
        "environment": {
            "threads": torch.get_num_threads(),
            "device": probe.features.device.type,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "numcodecs": numcodecs.__version__,
            "tangrams": tangrams.__version__,
        },
    }
    with StoreWriter(path, spec, about) as writer:
        writer.drop_damaged_blocks()
        missing = writer.missing_blocks()
        if progress is not None:
            progress(spec.blocks - len(missing), spec.blocks)
        if missing:
            threads = _agreed_environment(writer.header.about.get("environment", {}), about["environment"], writer.url)
            with _threads(threads):
                for done, block in enumerate(missing, start=1):
                    batch = _block(phi, samples, spec, block, about["options"], states)
                    rows = spec.samples_of(block)
                    writer.write_block(
                        block,
                        batch.features,
                        targets=batch.targets,
                        outputs=batch.outputs,
                        ids=None if id_values is None else id_values[rows.start : rows.stop],
                    )
                    if progress is not None:
                        progress(spec.blocks - len(missing) + done, spec.blocks)
        writer.finish()
    return FeatureStore.open(path)


@dataclass(frozen=True)
class _Batch:
    """Features, targets and outputs of some samples."""

    features: Tensor
    targets: Tensor | None
    outputs: Tensor | None

    @classmethod
    def compute(
        cls, phi: FeatureMap, items: Sequence[Any], indices: Sequence[int], seed: int, block: int = 0
    ) -> _Batch:
        where = f"samples {indices[0]} … {indices[-1]} of the dataset"
        try:
            pairs = [split_item(item) for item in items]
            if len({target is None for _, target in pairs}) > 1:
                raise ValueError("some items have a target and some have none")
            inputs = stack_samples([inputs for inputs, _ in pairs])
            targets = None if pairs[0][1] is None else stack_samples([target for _, target in pairs])
            if targets is not None and not isinstance(targets, Tensor):
                raise ValueError("the target of a sample is a tensor, an array or a number, not a tuple or dict")
            x = inputs
            if phi.takes_targets:
                if targets is None:
                    raise ValueError(f"{type(phi).__name__} needs targets: the items of the dataset should be (x, y)")
                x = Labelled(inputs, targets)
            with _seeded(seed, block), torch.no_grad():
                features = phi(x)
                outputs = phi.outputs(x)
        except Exception as error:
            error.add_note(f"in {where}")
            raise
        return cls(features.detach(), targets, None if outputs is None else outputs.detach().cpu())


def _block(
    phi: FeatureMap, samples: MapDataset, spec: StoreSpec, block: int, options: dict[str, Any], states: list[Any]
) -> _Batch:
    """One block, computed from nothing but its samples."""
    wanted = spec.samples_of(block)
    digest = states[block].copy()
    parts: list[_Batch] = []
    for start in range(wanted.start, wanted.stop, options["batch_size"]):
        indices = range(start, min(start + options["batch_size"], wanted.stop))
        items = [samples[index] for index in indices]
        for item in items:
            hash_sample(item, digest)
        part = _Batch.compute(phi, items, indices, options["seed"], block)
        rows = (len(items) * spec.rows_per_sample, spec.features)
        if part.features.shape != rows:
            raise ValueError(
                f"{type(phi).__name__} gave features of shape {tuple(part.features.shape)} for samples "
                f"{indices[0]} … {indices[-1]}, {rows} after the first sample: every sample needs as many rows"
            )
        parts.append(part)
    if digest.digest() != states[block + 1].digest():
        raise ValueError(
            f"samples {wanted[0]} … {wanted[-1]} of the dataset changed between two readings: a random transform? "
            "Features of a store need data that stay as they are"
        )
    return _Batch(
        torch.cat([part.features.cpu() for part in parts]),
        _joined([part.targets for part in parts]),
        _joined([part.outputs for part in parts]),
    )


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    present = [part for part in parts if part is not None]
    return torch.cat(present) if present else None


def _read_once(samples: MapDataset, spec: StoreSpec) -> list[Any]:
    """The state of the hash over all samples before each block, and at the end: ``fingerprint`` on the way."""
    digest = hashlib.sha256(f"samples {len(samples)};".encode())
    states = []
    for block in range(spec.blocks):
        states.append(digest.copy())
        for index in spec.samples_of(block):
            try:
                hash_sample(samples[index], digest)
            except Exception as error:
                error.add_note(f"in sample {index} of the dataset")
                raise
    return [*states, digest]


def _agreed_environment(old: Mapping[str, Any], new: Mapping[str, Any], url: str) -> int:
    """The number of threads to go on with; refuses versions and devices that give other bits."""
    changed = [line for line in differences(old, new) if not line.startswith("threads:")]
    if changed:
        raise StoreMismatchError(
            f"{url} was begun in another environment ({'; '.join(changed)}), where the last bits may differ: "
            "go on in that one, or take another path",
            changed,
        )
    return old.get("threads", new["threads"])


def _side(values: Tensor | None) -> SideArray | None:
    return None if values is None else SideArray(dtype_name(values.dtype), tuple(values.shape[1:]))


def _known(dtype: str) -> str:
    try:
        return StoreSpec(0, 1, 1, dtype, 1).dtype
    except ValueError as error:
        raise ValueError(f"extract: {error}") from None


def _ids(ids: Any, n: int) -> Tensor | None:
    if ids is None:
        return None
    values = ids.tolist() if isinstance(ids, Tensor | np.ndarray) else list(ids)
    if len(values) != n:
        raise ValueError(f"extract got {len(values)} ids for {n} samples")
    if len(set(values)) != n:
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(f"extract needs a different id for each sample, got {twice!r} more than once")
    if all(isinstance(value, str) for value in values):
        return text_bytes(values)
    if all(type(value) is int and abs(value) < 1 << 63 for value in values):
        return torch.tensor(values)
    raise ValueError("extract takes ids that are all integers or all texts")


def _digest(ids: Tensor | None) -> str | None:
    return None if ids is None else hashlib.sha256(ids.numpy().tobytes()).hexdigest()


@contextlib.contextmanager
def _seeded(seed: int, block: int) -> Iterator[None]:
    """The generators of torch fixed inside, and as they were afterwards."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []
    value = block_generator(seed, block).initial_seed()
    with torch.random.fork_rng(devices=devices):
        torch.default_generator.manual_seed(value)
        if devices:
            torch.cuda.manual_seed_all(value)
        yield


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """As many threads inside, and as they were afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
