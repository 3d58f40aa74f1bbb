"""What is studied: the samples a network was trained and tested on, read from any dataset and judged once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.samples import as_dataset, split_item, stack_samples
from tangrams.features.inputs import Inputs, as_inputs
from tangrams.features.model_ref import ModelRef
from tangrams.features.outputs import logits_of
from tangrams.learners.kernel_ridge import one_hot

Task = Literal["classification", "regression"]


@dataclass(frozen=True, eq=False)
class Split:
    """One part of the data.

    Attributes:
        name: ``"train"``, ``"test"`` or ``"pool"``.
        inputs: what the network is called with.
        targets: class indices ``(n,)`` or values ``(n, k)``; None where there are none.
        positions: where the samples stand in the user's dataset: ``(n,)``.
        total: how many samples that has.
        outputs: the network's logits or values: ``(n, C)``, float64.
    """

    name: str
    inputs: Inputs
    targets: Tensor | None
    positions: Tensor
    total: int
    outputs: Float[Tensor, "n C"]

    def __len__(self) -> int:
        return self.inputs.n

    @property
    def given(self) -> Tensor:
        """The targets of samples that have some.

        Raises:
            ValueError: if these have none.
        """
        if self.targets is None:
            raise ValueError(f"the {self.name} samples have no targets")
        return self.targets

    def id(self, index: int) -> str:
        """The name of a sample in the report: split and position in the user's dataset."""
        return f"{self.name}/{int(self.positions[index])}"

    def flat_inputs(self) -> Float[Tensor, "n d"] | None:
        """Every floating input, flattened side by side; None where all are integers."""
        columns = [t.flatten(1).to("cpu", torch.float64) for t in self.inputs.tensors() if t.is_floating_point()]
        return torch.cat(columns, 1) if columns else None


@dataclass(frozen=True, eq=False)
class Problem:
    """The data of a study and what the network says about them.

    Attributes:
        task: what kind of targets these are.
        train: what the network was trained on.
        test: held-out samples with targets.
        pool: unlabelled samples, or None.
        classes: names in index order; empty in a regression.
        mean: of the training targets, ``(k,)``; zero in a classification.
        scale: their standard deviation, ``(k,)``; one in a classification.
        one_logit: whether the network has one logit for two classes, read here as two.
    """

    task: Task
    train: Split
    test: Split
    pool: Split | None
    classes: tuple[str, ...]
    mean: Tensor
    scale: Tensor
    one_logit: bool

    @property
    def splits(self) -> list[Split]:
        """Training, test and pool, where present."""
        return [self.train, self.test, *([] if self.pool is None else [self.pool])]

    def encode(self, split: Split) -> Float[Tensor, "n C"]:
        """Targets as columns: class indicators, or values in training standard deviations about the mean."""
        if self.task == "classification":
            return one_hot(split.given, len(self.classes))
        return (split.given - self.mean) / self.scale

    def standardised_outputs(self, split: Split) -> Float[Tensor, "n C"]:
        """The network's logits; in a regression its values in the units of :meth:`encode`."""
        return (split.outputs - self.mean) / self.scale if self.task == "regression" else split.outputs

    def probabilities(self, split: Split) -> Float[Tensor, "n C"]:
        """Softmax of the logits."""
        return split.outputs.softmax(1)

    def score(self, predicted: Float[Tensor, "m C"]) -> float:
        """What predictions on the test samples are worth: accuracy, or R²."""
        if self.task == "classification":
            return float((predicted.argmax(1) == self.test.given).double().mean())
        wanted = self.encode(self.test)
        return 1 - float((predicted - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum())


def read_problem(
    model: torch.nn.Module,
    train: Any,
    test: Any,
    pool: Any | None = None,
    *,
    task: Task | None = None,
    classes: Sequence[str] | None = None,
    max_train: int = 5000,
    max_test: int = 1000,
    max_pool: int = 2000,
    seed: int = 0,
) -> Problem:
    """Read the data, call the network on them in eval mode, and judge both.

    Args:
        model: the network; left as it was.
        train: a map-style dataset, ``Labelled``, or a dict of tensors; see :func:`tangrams.data.split_item`.
        test: the same.
        pool: the same, targets ignored; or None.
        task: what kind of targets; None: integers are classes, floats values.
        classes: names of the classes; None: their indices.
        max_train: a larger training set is sampled down to this.
        max_test: the same for the test set.
        max_pool: the same for the pool.
        seed: fixes those draws.

    Raises:
        ValueError: on empty data, missing or unfit targets, NaN in inputs or outputs, outputs that do not fit.
    """
    ref = ModelRef(model)
    read = {
        "train": _read(train, "train", max_train, seed, ref),
        "test": _read(test, "test", max_test, seed, ref),
    }
    if pool is not None:
        read["pool"] = _read(pool, "pool", max_pool, seed, ref)
    targets = {name: read[name][1] for name in ("train", "test")}
    for name, values in targets.items():
        if values is None:
            raise ValueError(f"study needs targets in {name}: items (x, y), Labelled(x, y) or a dict with 'labels'")
    if task is None:
        task = "regression" if targets["train"].is_floating_point() else "classification"  # type: ignore[union-attr]
    outputs = {name: network_outputs(ref, read[name][0], name, task) for name in read}
    num_outputs = outputs["train"].shape[1]
    check = _class_targets if task == "classification" else _value_targets
    judged = {name: check(values, num_outputs, name) for name, values in targets.items() if values is not None}
    mean = torch.zeros(num_outputs, dtype=torch.float64)
    scale = torch.ones(num_outputs, dtype=torch.float64)
    names: tuple[str, ...] = ()
    if task == "classification":
        names = tuple(str(c) for c in (range(num_outputs) if classes is None else classes))
        if len(names) != num_outputs:
            raise ValueError(f"study got {len(names)} class names for a network with {num_outputs} outputs")
        if len(torch.unique(judged["train"])) < 2:
            raise ValueError("study needs at least two classes in train, got one: there is nothing to tell apart")
    else:
        mean, scale = judged["train"].mean(0), judged["train"].std(0)
        if not bool((scale > 0).all()):
            raise ValueError("study got training targets that are all the same: there is nothing to learn")
    splits = {
        name: Split(name, inputs, judged.get(name), positions, total, outputs[name])
        for name, (inputs, _, positions, total) in read.items()
    }
    first = network_outputs(ref, splits["test"].inputs.slice(0, 1), "test", "regression")
    one_logit = task == "classification" and first.shape[1] == 1
    return Problem(task, splits["train"], splits["test"], splits.get("pool"), names, mean, scale, one_logit)


def _read(data: Any, name: str, limit: int, seed: int, ref: ModelRef) -> tuple[Inputs, Tensor | None, Tensor, int]:
    dataset = as_dataset(data)
    total = len(dataset)
    if total == 0:
        raise ValueError(f"study got no {name} samples")
    positions = torch.arange(total)
    if total > limit:
        generator = torch.Generator().manual_seed(seed)
        positions = torch.randperm(total, generator=generator)[:limit].sort().values
    rng = torch.get_rng_state()
    try:
        items = [split_item(dataset[int(i)]) for i in positions]
    finally:
        torch.set_rng_state(rng)
    try:
        stacked = stack_samples([x for x, _ in items])
        has_targets = name != "pool" and all(y is not None for _, y in items)
        targets = stack_samples([y for _, y in items]) if has_targets else None
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None

    def fit(t: Tensor) -> Tensor:
        return t.to(ref.device, ref.dtype) if t.is_floating_point() else t.to(ref.device)

    inputs = as_inputs(stacked, "study").map(fit)
    for tensor in inputs.tensors():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            row = int((~tensor.flatten(1).isfinite()).any(1).nonzero()[0])
            raise ValueError(f"study got NaN or infinity in the inputs of {name} sample {int(positions[row])}")
    return inputs, targets, positions, total


def network_outputs(model: torch.nn.Module | ModelRef, inputs: Inputs, name: str, task: Task) -> Float[Tensor, "n C"]:
    """Call a network in eval mode: float64 logits or values; one logit for two classes becomes two.

    Args:
        model: the network; left as it was.
        inputs: what it is called with.
        name: of the samples, for errors.
        task: what kind of outputs these are.

    Raises:
        ValueError: if it cannot be called, or its outputs are no rows of finite numbers.
    """
    parts = []
    ref = model if isinstance(model, ModelRef) else ModelRef(model)
    with ref.session() as network, torch.no_grad():
        for start in range(0, inputs.n, 256):
            batch = inputs.slice(start, min(start + 256, inputs.n))
            try:
                returned = batch.call(network)
            except Exception as error:
                shapes = ", ".join(f"{tuple(t.shape)} {t.dtype}" for t in batch.tensors())
                text = " ".join(str(error).split())
                raise ValueError(f"the network cannot be called on the {name} inputs ({shapes}): {text}") from error
            parts.append(logits_of(returned).to("cpu", torch.float64))
    outputs = torch.cat(parts)
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    if outputs.ndim != 2 or len(outputs) != inputs.n:
        raise ValueError(
            f"study expects one row of outputs per sample, got {tuple(outputs.shape)} for {inputs.n} {name} samples"
        )
    if not bool(outputs.isfinite().all()):
        row = int((~outputs.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"the network's output for {name} sample {row} is NaN or infinite")
    if task == "classification" and outputs.shape[1] == 1:  # one logit for two classes
        outputs = torch.cat([-outputs / 2, outputs / 2], 1)
    return outputs


def _class_targets(targets: Tensor, num_outputs: int, name: str) -> Tensor:
    if targets.ndim == 2 and targets.shape[1] == 1:
        targets = targets[:, 0]
    if targets.ndim != 1:
        raise ValueError(f"study expects one class index per sample, got {name} targets of {tuple(targets.shape)}")
    if targets.is_floating_point() and not bool((targets == targets.round()).all()):
        raise ValueError(f"study expects class indices, got fractions in the {name} targets: task='regression'?")
    labels = targets.to("cpu", torch.int64)
    if int(labels.min()) < 0 or int(labels.max()) >= num_outputs:
        wrong = int(((labels < 0) | (labels >= num_outputs)).nonzero()[0])
        raise ValueError(
            f"{name} label {int(labels[wrong])} at sample {wrong} is outside [0, {num_outputs}), the network's outputs"
            ": integers are classes, values are floats"
        )
    return labels


def _value_targets(targets: Tensor, num_outputs: int, name: str) -> Tensor:
    values = targets.to("cpu", torch.float64)
    values = values[:, None] if values.ndim == 1 else values
    if values.ndim != 2 or values.shape[1] != num_outputs:
        raise ValueError(
            f"study expects {name} targets like the network's {num_outputs} outputs, got {tuple(targets.shape)}"
        )
    if not bool(values.isfinite().all()):
        row = int((~values.isfinite()).any(1).nonzero()[0])
        raise ValueError(f"study got NaN or infinity in the target of {name} sample {row}")
    return values
