"""Linear fine-tunes compose by their mean in weight space as well as an ensemble, at the cost of one network [004].

A small convolutional network with BatchNorm is pre-trained on the digits 0–4. The digits 5–9 then come in random
shards, or as tasks of some classes each. Every part is fine-tuned from the same weights, linearly (the square loss and
ridge solved in closed form) and non-linearly (Adam on the cross-entropy). Compared on test digits 5–9: the mean of the
tangent vectors (one forward pass), the ensemble of the networks' logits (S passes), the average of their weights (one
pass), the mean of linear probes of the frozen features (one pass), and a linear and a non-linear fine-tune of all parts
together. The ridge, or the learning rate, of each method is chosen on held-out samples, from as many values. A
composition that forgets a shard is compared with two trainings without it: of the components, which should give the
same bits, and of one linear fine-tune of the other shards together, from which it differs as any composition does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tangrams.claims._fine_tuning import (
    MeanOfLogits,
    accuracy,
    average_of_weights,
    composed,
    cpu_seconds,
    old_and_new,
    take,
)
from tangrams.claims._networks import train
from tangrams.claims.base import Claim, Evidence
from tangrams.data import Labelled, class_tasks, data_shards
from tangrams.features import ModelRef
from tangrams.features.parameters import Selection
from tangrams.learners import ShardedTangentClassifier, TangentComposition, TangentRidgeClassifier
from tangrams.learners.tangent_classifier import with_head

COMPOSED, ENSEMBLE, SOUP, PROBES = "tangent mean", "ensemble of networks", "average of weights", "mean of linear probes"
JOINT, JOINT_NETWORK = "tangent, all shards together", "network, all shards together"
METHODS = (COMPOSED, ENSEMBLE, SOUP, PROBES, JOINT, JOINT_NETWORK)


def conv_net(width: int, classes: int, generator: torch.Generator) -> nn.Sequential:
    """Three convolutions with BatchNorm and a linear head."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    body = nn.Sequential(
        *block(1, width, 1),
        *block(width, 2 * width, 2),
        *block(2 * width, 2 * width, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    network = nn.Sequential(body, nn.Linear(2 * width, classes))
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.normal_(generator=generator).mul_((2 / fan_in) ** 0.5)
    return network


def measure(
    shards: Sequence[int],
    tasks: Sequence[int],
    seeds: int,
    samples: int,
    width: int,
    pretraining_epochs: int,
    steps: int,
    rates: Sequence[float],
    ridges: Sequence[float],
    pool: int = 1,
    data: str | None = None,
    device: str = "cpu",
) -> Evidence:
    """Accuracies over seeds for every stream, what forgetting leaves, and the cost of many components."""
    streams = [f"{count} shards" for count in shards] + [f"{count} tasks" for count in tasks]
    found: dict[str, dict[str, list[float]]] = {stream: {method: [] for method in METHODS} for stream in streams}
    forgetting: list[dict[str, float]] = []
    cost = {}
    for seed in range(seeds):
        known, new, test = old_and_new(data, samples, seed, device, pool)
        generator = torch.Generator().manual_seed(seed)
        network = conv_net(width, 5, generator).to(device)
        train(network, known.inputs, known.targets, epochs=pretraining_epochs, generator=generator, lr=3e-3)
        bench = _Bench(network[0], new, test, steps, seed, rates, ridges)
        for stream in streams:
            for method, value in bench.accuracies(stream).items():
                found[stream][method].append(value)
        forgetting.append(bench.forgetting())
        if seed == 0:
            cost = bench.cost()
    means = {stream: {m: float(np.mean(v)) for m, v in values.items()} for stream, values in found.items()}
    by_shards, by_tasks = ([m for s, m in means.items() if s.endswith(kind)] for kind in ("shards", "tasks"))
    ahead = {rival: np.mean([m[COMPOSED] - m[rival] for m in by_shards]) for rival in (SOUP, ENSEMBLE)}
    good = {
        "better than the average of weights, on the mean over shards": ahead[SOUP] > 0,
        "within three points of the ensemble, on the mean over shards": ahead[ENSEMBLE] > -0.03,
        "better than the mean of linear probes": all(m[COMPOSED] > m[PROBES] for m in by_shards),
        "better than the average of weights, task by task": all(m[COMPOSED] > m[SOUP] for m in by_tasks),
        "forgetting leaves the bits of components trained again": all(f["same bits"] for f in forgetting),
        "the cost does not grow with the components": cost["20 components"] < 1.2 * cost["1 component"],
    }
    verdict = "holds" if all(good.values()) else "holds in part" if any(good.values()) else "does not hold"
    return Evidence(
        verdict,
        _sentence(means, streams, seeds, cost, {k: float(np.mean([f[k] for f in forgetting])) for k in forgetting[0]}),
        {
            "accuracy": found,
            "mean_accuracy": means,
            "checks": {name: bool(value) for name, value in good.items()},
            "forgetting_one_of_four_shards": forgetting,
            "cpu_seconds_of_1000_predictions": cost,
        },
        _figure(found, cost),
    )


class _Bench:
    """A pre-trained body and the new classes: every method on every stream."""

    def __init__(
        self,
        body: nn.Module,
        new: Labelled,
        test: Labelled,
        steps: int,
        seed: int,
        rates: Sequence[float],
        ridges: Sequence[float],
    ) -> None:
        self.body, self.test, self.steps, self.seed = ModelRef(body), test, steps, seed
        self.rates, self.ridges = rates, ridges
        held_out, kept = data_shards(len(new.targets), 5, seed=seed)[0], data_shards(len(new.targets), 5, seed=seed)[1:]
        self.train, self.held_out = take(new, torch.cat(kept)), take(new, held_out)

    def tangent(self, ridge: float, alpha: float, trainable: Selection = None) -> TangentRidgeClassifier:
        """All but the first convolution and norm carry tangents by default."""
        chosen = (lambda name, p: not name.startswith(("0.0.", "0.1."))) if trainable is None else trainable
        return TangentRidgeClassifier(
            self.body, trainable=chosen, classes=range(5), alpha=alpha, weight_decay=ridge, random_state=self.seed
        )

    def network(self, part: Labelled, rate: float) -> nn.Sequential:
        """A non-linear fine-tune by cross-entropy, from the same body and head."""
        generator = torch.Generator().manual_seed(self.seed)
        network = copy.deepcopy(with_head(self.body, part.inputs, 5, generator))
        epochs = math.ceil(self.steps / math.ceil(len(part.targets) / 32))
        train(network, part.inputs, part.targets, epochs=epochs, generator=generator, lr=rate, batch_size=32)
        return network

    @cached_property
    def together(self) -> dict[str, float]:
        """One fine-tune on everything."""
        linear = (self._score(composed(self.tangent(ridge, 15.0), [self.train])) for ridge in self.ridges)
        network = (self._score(self.network(self.train, rate)) for rate in self.rates)
        return {JOINT: max(linear)[1], JOINT_NETWORK: max(network)[1]}

    def accuracies(self, stream: str) -> dict[str, float]:
        """Of every method, each with the learning rate that is best on held-out samples."""
        count, kind = stream.split()
        parts = (
            data_shards(len(self.train.targets), int(count), seed=self.seed + 1)
            if kind == "shards"
            else class_tasks(self.train.targets, int(count))
        )
        alpha = 5.0 if kind == "shards" else 15.0
        pieces = [take(self.train, i) for i in parts]
        head = ["2.weight", "2.bias"]
        found = {}
        for name, values, run in (
            (COMPOSED, self.ridges, lambda ridge: composed(self.tangent(ridge, alpha), pieces)),
            (PROBES, self.ridges, lambda ridge: composed(self.tangent(ridge, alpha, head), pieces)),
        ):
            found[name] = max(self._score(run(value)) for value in values)[1]
        found |= self.together
        several = [(rate, [self.network(piece, rate) for piece in pieces]) for rate in self.rates]
        found[ENSEMBLE] = max(self._score(MeanOfLogits(networks)) for _, networks in several)[1]
        found[SOUP] = max(self._score(average_of_weights(networks)) for _, networks in several)[1]
        return found

    def forgetting(self) -> dict[str, float]:
        """What a composition of four shards without one of them is, beside trainings without that shard."""
        count, gone = 4, 2
        fitted = [
            ShardedTangentClassifier(self.tangent(ridge, 5.0), n_shards=count, random_state=self.seed).fit(
                self.train.inputs, self.train.targets
            )
            for ridge in self.ridges
        ]
        whole = max(fitted, key=lambda model: accuracy(model.composition_.as_module(), self.held_out))
        pieces = [take(self.train, i) for i in data_shards(len(self.train.targets), count, seed=self.seed)]
        kept = pieces[:gone] + pieces[gone + 1 :]
        before = torch.as_tensor(whole.logits(self.test.inputs))
        left = whole.forget_shard(gone).composition_
        again = composed(whole.estimator, kept)
        together = composed(whole.estimator, [_joined(kept)])
        with torch.no_grad():
            f, joint = left.as_module()(self.test.inputs), together(self.test.inputs)
        return {
            "same bits": float(left.vector() == again.vector()),
            "moved by": float((f - before.to(f)).norm() / before.norm()),
            "distance from joint": float((f - joint).norm() / joint.norm()),
            "agreement with joint": float((f.argmax(1) == joint.argmax(1)).double().mean()),
            "accuracy": accuracy(left.as_module(), self.test),
            "accuracy of joint": accuracy(together, self.test),
        }

    def cost(self) -> dict[str, float]:
        """CPU seconds of 1000 predictions, the median of five: composed, and plain networks."""
        model = self.tangent(self.ridges[0], 5.0).fit(self.train.inputs[:100], self.train.targets[:100])
        x = self.test.inputs.repeat(1000 // len(self.test.inputs) + 1, 1, 1, 1)[:1000]
        plain = model.linearized_.base.eval()
        found = {}
        for count in (1, 5, 20):
            total = TangentComposition(model)
            for i in range(count):
                total.add(str(i), model.tangent_)
            module = total.as_module()
            name = f"{count} component{'s' if count > 1 else ''}"
            found[name] = cpu_seconds(lambda module=module: module(x))
            found[f"{count} network{'s' if count > 1 else ''}"] = cpu_seconds(
                lambda count=count: [plain(x) for _ in range(count)]
            )
        return found

    def _score(self, predict: Callable[[Tensor], Tensor]) -> tuple[float, float]:
        """Accuracy on held-out samples, and on the test."""
        return accuracy(predict, self.held_out), accuracy(predict, self.test)


def _joined(pieces: list[Labelled]) -> Labelled:
    return Labelled(torch.cat([p.inputs for p in pieces]), torch.cat([p.targets for p in pieces]))


def _sentence(
    means: dict[str, dict[str, float]], streams: list[str], seeds: int, cost: Any, forgetting: dict[str, float]
) -> str:
    each = "; ".join(
        f"{stream}: {m[COMPOSED]:.1%} (ensemble {m[ENSEMBLE]:.1%}, average of weights {m[SOUP]:.1%}, linear probes "
        f"{m[PROBES]:.1%}, all shards together {m[JOINT]:.1%} linear, {m[JOINT_NETWORK]:.1%} non-linear)"
        for stream, m in ((s, means[s]) for s in streams)
    )
    return (
        f"Accuracy of the tangent mean over {seeds} seeds, {each}. A pass with 20 components cost "
        f"{cost['20 components'] / cost['1 component']:.2f} times one with 1, "
        f"{cost['1 component'] / cost['1 network']:.1f} times a plain network, and "
        f"1/{cost['20 networks'] / cost['20 components']:.1f} of an ensemble of 20. "
        f"Forgetting one shard of four moved the logits by {forgetting['moved by']:.1%} and "
        f"{'left' if forgetting['same bits'] == 1 else 'did not leave'} the bits of components trained again without "
        f"it; from one linear fine-tune of the other shards together the logits differ by "
        f"{forgetting['distance from joint']:.1%}, the class for {1 - forgetting['agreement with joint']:.1%} "
        f"({forgetting['accuracy']:.1%} against {forgetting['accuracy of joint']:.1%} right)."
    )


def _figure(found: dict[str, dict[str, list[float]]], cost: dict[str, float]) -> Figure:
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    streams = list(found)
    for i, method in enumerate(METHODS):
        values = np.array([found[stream][method] for stream in streams])
        error = values.std(1, ddof=1) / values.shape[1] ** 0.5 if values.shape[1] > 1 else None
        left.bar(np.arange(len(streams)) + 0.13 * (i - 2.5), values.mean(1), 0.12, yerr=error, label=method)
    left.set_xticks(range(len(streams)), streams)
    left.set_ylabel("test accuracy, five new classes")
    left.legend(fontsize=7, ncols=2, loc="lower left")
    counts = [1, 5, 20]
    for kind, label in (("component", "tangent vectors, composed"), ("network", "networks, ensemble")):
        values = [1e3 * cost[f"{c} {kind}{'s' if c > 1 else ''}"] for c in counts]
        right.loglog(counts, values, "-o", label=label)
    right.set_xlabel("components")
    right.set_ylabel("CPU ms per 1000 predictions")
    right.legend(fontsize=8)
    return figure


CLAIM = Claim(
    number=4,
    slug="tangent-model-composition",
    statement=(
        "Tangent vectors fine-tuned apart compose by their mean: better than averaging the weights of non-linear "
        "fine-tunes and about as good as ensembling them, in one forward pass whatever their number; and taking one "
        "out again leaves the composition that was never trained on its samples."
    ),
    baselines=(
        "the ensemble and the weight average of non-linear fine-tunes",
        "the mean of linear probes",
        "one fine-tune of all shards together",
        "after forgetting, components trained again and one fine-tune of the other shards together",
    ),
    measure=measure,
    presets={
        "quick": {
            "shards": (5, 20),
            "tasks": (2, 5),
            "seeds": 1,
            "samples": 1000,
            "width": 20,
            "pretraining_epochs": 10,
            "steps": 60,
            "rates": (1e-2,),
            "ridges": (1e-3,),
        },
        "full": {
            "shards": (5, 20),
            "tasks": (2, 5),
            "seeds": 2,
            "samples": 2000,
            "width": 24,
            "pretraining_epochs": 20,
            "steps": 120,
            "rates": (1e-2, 3e-2),
            "ridges": (1e-4, 1e-3),
            "pool": 2,
            "data": "mnist",
        },
        "gpu": {
            "shards": (5, 10, 20, 50),
            "tasks": (2, 5),
            "seeds": 5,
            "samples": 10000,
            "width": 64,
            "pretraining_epochs": 20,
            "steps": 500,
            "rates": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
            "ridges": (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
            "data": "mnist",
            "device": "cuda",
        },
    },
)
