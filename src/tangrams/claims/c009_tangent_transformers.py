"""Tangent attention fine-tuning composes, forgets and is trained privately better than non-linear fine-tuning [009].

A small vision transformer is pre-trained on the digits 0–4 and its last block, final norm and a fresh head are
fine-tuned on the digits 5–9: linearly (the square loss and ridge in closed form, and once by Adam as in the paper) and
non-linearly (Adam on the cross-entropy), unsharded and in random shards, whose tangent vectors are averaged and whose
networks are averaged in their weights. Then both, and a linear probe, are trained privately by noisy gradient descent.
Of every method as many ridges or learning rates are tried, and one is chosen on held-out samples; that choice is not
counted in ε, for any method.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from tangrams.claims._fine_tuning import accuracy, average_of_weights, composed, cpu_seconds, old_and_new, take
from tangrams.claims._networks import train
from tangrams.claims.base import Claim, Evidence
from tangrams.data import Labelled, data_shards
from tangrams.features import ModelRef, TangentFeatures
from tangrams.learners import (
    FullBatchAccountant,
    PrivateTangentClassifier,
    SubsampledAccountant,
    TAFTClassifier,
    TangentRidgeClassifier,
)
from tangrams.learners.private_tangent import clipping
from tangrams.learners.tangent_classifier import with_head
from tangrams.nn.tangent import linearize
from tangrams.nn.transformer import VisionTransformer

TANGENT, SOUP, PROBES = "tangent mean", "average of weights", "mean of linear probes"
PRIVATE, PRIVATE_NETWORK, PRIVATE_PROBE = "tangent", "network", "linear probe"
HEAD = ["2.weight", "2.bias"]
DELTA = 1e-4


def measure(
    image: tuple[int, int],
    shards: Mapping[int, int],
    epsilons: Sequence[float],
    seeds: int,
    samples: int,
    sharded: int,
    dim: int,
    depth: int,
    pretraining_epochs: int,
    private_steps: int,
    private_batch: int | None,
    rates: Sequence[float],
    adam_rates: Sequence[float],
    ridges: Sequence[float],
    private_rates: Sequence[float],
    data: str | None = None,
    device: str = "cpu",
) -> Evidence:
    """Accuracies by shards and by ε over seeds, and the cost of a pass.

    ``shards`` gives the steps of a non-linear fine-tune of a shard by the number of shards.
    """
    by_shards = {count: {name: [] for name in (TANGENT, SOUP, PROBES)} for count in shards}
    by_epsilon = {epsilon: {name: [] for name in (PRIVATE, PRIVATE_NETWORK, PRIVATE_PROBE)} for epsilon in epsilons}
    by_adam, cost = [], {}
    for seed in range(seeds):
        known, new, test = old_and_new(data, samples, seed, device)
        generator = torch.Generator().manual_seed(seed)
        vit = VisionTransformer(image[0], image[1], 1, dim, depth, 4, mlp_ratio=2.0, generator=generator)
        network = nn.Sequential(vit, nn.Linear(dim, 5)).to(device)
        train(network, known.inputs, known.targets, epochs=pretraining_epochs, generator=generator, lr=2e-3)
        bench = _Bench(vit, new, test, sharded, seed)
        for count, steps in shards.items():
            for name, value in bench.shards(count, steps, rates, ridges).items():
                by_shards[count][name].append(value)
        by_adam.append(bench.by_adam(shards[min(shards)], adam_rates))
        for epsilon in epsilons:
            for name, value in bench.private(epsilon, private_steps, private_batch, private_rates).items():
                by_epsilon[epsilon][name].append(value)
        cost = cost or bench.cost()
    means = {count: {name: float(np.mean(v)) for name, v in found.items()} for count, found in by_shards.items()}
    private = {e: {name: float(np.mean(v)) for name, v in found.items()} for e, found in by_epsilon.items()}
    few, many = min(shards), max(shards)
    drop = {name: means[few][name] - means[many][name] for name in (TANGENT, SOUP)}
    good = {
        "within five points of non-linear fine-tuning, unsharded": means[few][TANGENT] > means[few][SOUP] - 0.05,
        "in many shards it loses less than averaged weights": drop[TANGENT] < drop[SOUP],
        "more accurate than averaged weights in many shards": means[many][TANGENT] > means[many][SOUP],
        "more accurate than linear probes": all(found[TANGENT] > found[PROBES] for found in means.values()),
        "a pass costs less than three plain ones": cost["last block"] < 3 and cost["all blocks"] < 3,
        "private training is more accurate than of the network": all(
            found[PRIVATE] > found[PRIVATE_NETWORK] for found in private.values()
        ),
        "private training is more accurate than of a linear probe": all(
            found[PRIVATE] > found[PRIVATE_PROBE] for found in private.values()
        ),
    }
    verdict = "holds" if all(good.values()) else "holds in part" if any(good.values()) else "does not hold"
    numbers: dict[str, Any] = {
        "accuracy_by_shards": {str(count): found for count, found in by_shards.items()},
        "accuracy_by_adam_unsharded": by_adam,
        "accuracy_by_epsilon": {str(epsilon): found for epsilon, found in by_epsilon.items()},
        "delta": DELTA,
        "plain_passes": cost,
        "checks": {name: bool(value) for name, value in good.items()},
    }
    sentence = _sentence(means, private, float(np.mean(by_adam)), cost, seeds)
    return Evidence(verdict, sentence, numbers, _figure(by_shards, by_epsilon))


class _Tail(nn.Module):
    """The last block and the final norm of a transformer, on the tokens that the blocks below give."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.blocks, self.norm = vit.blocks[-1:], vit.norm

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, d)``."""
        return self.norm(self.blocks(tokens)[:, 0])


class _Bench:
    """The last block of a pre-trained transformer and the new classes, as tokens in front of it."""

    def __init__(self, vit: VisionTransformer, new: Labelled, test: Labelled, sharded: int, seed: int) -> None:
        self.whole, self.images, self.seed = vit.eval(), test.inputs, seed
        self.vit = ModelRef(_Tail(vit))
        new, self.test = self._tokens(new), self._tokens(test)
        held_out, *kept = data_shards(len(new.targets), 5, seed=seed)
        self.train, self.held_out = take(new, torch.cat(kept)), take(new, held_out)
        self.sharded = take(new, torch.cat(kept)[:sharded])
        self.trained = [name for name, _ in self.start().named_parameters()]

    def _tokens(self, part: Labelled) -> Labelled:
        """The blocks below never change: they are run once."""
        seen: list[Tensor] = []
        hook = self.whole.blocks[-1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        with torch.no_grad():
            self.whole(part.inputs)
        hook.remove()
        return Labelled(seen[0], part.targets)

    def start(self) -> nn.Sequential:
        """The network with its fresh head, a copy."""
        generator = torch.Generator().manual_seed(self.seed)
        return copy.deepcopy(with_head(self.vit, self.train.inputs, 5, generator)).eval()

    def ridge(self, ridge: float, trainable: list[str]) -> TangentRidgeClassifier:
        """The tangent learner in closed form."""
        return TangentRidgeClassifier(
            self.vit, trainable=trainable, classes=range(5), weight_decay=ridge, random_state=self.seed
        )

    def network(self, part: Labelled, rate: float, steps: int) -> nn.Sequential:
        """A non-linear fine-tune of the same parameters."""
        network = self.start()
        epochs = math.ceil(steps / math.ceil(len(part.targets) / 32))
        generator = torch.Generator().manual_seed(self.seed)
        train(network, part.inputs, part.targets, epochs=epochs, generator=generator, lr=rate, batch_size=32)
        return network

    def shards(self, count: int, steps: int, rates: Sequence[float], ridges: Sequence[float]) -> dict[str, float]:
        """Accuracies of components of random shards, averaged."""
        index = data_shards(len(self.sharded.targets), count, seed=self.seed + 1)
        pieces = [take(self.sharded, i) for i in index]
        tangents = (self._score(composed(self.ridge(r, self.trained), pieces)) for r in ridges)
        probes = (self._score(composed(self.ridge(r, HEAD), pieces)) for r in ridges)
        soups = (self._score(average_of_weights([self.network(p, rate, steps) for p in pieces])) for rate in rates)
        return {TANGENT: max(tangents)[1], PROBES: max(probes)[1], SOUP: max(soups)[1]}

    def by_adam(self, steps: int, rates: Sequence[float]) -> float:
        """The paper's training of the tangents, unsharded."""
        epochs = math.ceil(steps / math.ceil(len(self.sharded.targets) / 32))
        found = []
        for rate in rates:
            model = TAFTClassifier(
                self.vit,
                classes=range(5),
                learning_rate=rate,
                epochs=epochs,
                milestones=(epochs // 2, epochs * 4 // 5),
                random_state=self.seed,
            ).fit(self.sharded.inputs, self.sharded.targets)
            found.append(self._score(model.linearized_))
        return max(found)[1]

    def private(self, epsilon: float, steps: int, batch: int | None, rates: Sequence[float]) -> dict[str, float]:
        """Accuracies at a budget."""
        found = {}
        for name, trainable in ((PRIVATE, self.trained), (PRIVATE_PROBE, HEAD)):
            models = (
                PrivateTangentClassifier(
                    self.vit,
                    trainable=trainable,
                    classes=range(5),
                    epsilon=epsilon,
                    delta=DELTA,
                    learning_rate=rate,
                    steps=steps,
                    averaged=steps // 2,
                    batch_size=batch,
                    random_state=self.seed,
                ).fit(self.train.inputs, self.train.targets)
                for rate in rates
            )
            found[name] = max(self._score(model.linearized_) for model in models)[1]
        n = len(self.train.targets)
        share = min(1.0, (batch or n) / n)
        accountant = FullBatchAccountant() if share == 1 else SubsampledAccountant(share)
        sigma = accountant.noise_multiplier(epsilon, steps, DELTA)
        networks = (self._private_network(sigma, steps, share, rate) for rate in rates)
        found[PRIVATE_NETWORK] = max(self._score(network) for network in networks)[1]
        return found

    def _private_network(self, sigma: float, steps: int, share: float, rate: float) -> nn.Sequential:
        """Noisy gradient descent on the cross-entropy of the network itself, clipped at one."""
        network = self.start()
        moving = list(network.parameters())
        generator = torch.Generator().manual_seed(self.seed)
        phi = TangentFeatures(network, _losses)
        n = len(self.train.targets)
        last = []
        for step in range(steps):
            drawn = take(self.train, (torch.rand(n, generator=generator) < share).nonzero()[:, 0])
            weights = clipping(phi.diag(drawn).clamp_min(0).sqrt(), 1.0)
            loss = (weights * _losses(network(drawn.inputs), drawn.targets)).sum()
            gradients = torch.autograd.grad(loss, moving)
            with torch.no_grad():
                for p, g in zip(moving, gradients, strict=True):
                    p -= rate * (g + sigma * torch.randn(p.shape, generator=generator).to(p)) / (share * n)
            if step >= steps - steps // 2:
                last.append(copy.deepcopy(network))
        return average_of_weights(last)

    def cost(self) -> dict[str, float]:
        """CPU time of a linearised pass of the whole transformer over that of a plain one."""
        x = self.images[:200]
        plain = cpu_seconds(lambda: self.whole(x))
        below = len(self.whole.blocks) - 1
        last = [n for n, _ in self.whole.named_parameters() if n.startswith((f"blocks.{below}.", "norm."))]
        modules = {"last block": linearize(self.whole, trainable=last), "all blocks": linearize(self.whole)}
        return {name: cpu_seconds(lambda m=module: m(x)) / plain for name, module in modules.items()}

    def _score(self, predict: nn.Module) -> tuple[float, float]:
        return accuracy(predict, self.held_out), accuracy(predict, self.test)


def _losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="none")


def _sentence(means: Any, private: Any, adam: float, cost: dict[str, float], seeds: int) -> str:
    shards = "; ".join(
        f"{count} shard{'s' if count > 1 else ''}: {m[TANGENT]:.1%} (averaged weights {m[SOUP]:.1%}, linear probes "
        f"{m[PROBES]:.1%})"
        for count, m in means.items()
    )
    budgets = "; ".join(
        f"ε = {epsilon:g}: {m[PRIVATE]:.1%} (network {m[PRIVATE_NETWORK]:.1%}, linear probe {m[PRIVATE_PROBE]:.1%})"
        for epsilon, m in private.items()
    )
    return (
        f"Accuracy of tangents of the last block over {seeds} seeds, averaged over {shards}; by Adam, unsharded, "
        f"{adam:.1%}. Trained privately at δ = {DELTA:g}, {budgets}. A pass costs {cost['last block']:.1f} plain ones "
        f"with the last block trained and {cost['all blocks']:.1f} with all."
    )


def _figure(by_shards: Any, by_epsilon: Any) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axis, found, label in ((left, by_shards, "shards"), (right, by_epsilon, "ε")):
        x = list(found)
        for name in found[x[0]]:
            values = np.array([found[value][name] for value in x])
            error = values.std(1, ddof=1) / values.shape[1] ** 0.5 if values.shape[1] > 1 else None
            axis.errorbar(x, values.mean(1), error, marker="o", label=name)
        axis.set_xscale("log")
        axis.minorticks_off()
        axis.set_xticks(x, [f"{value:g}" for value in x])
        axis.set_xlabel(label)
        axis.set_ylabel("test accuracy, five new classes")
        axis.legend(fontsize=8)
    right.set_title(f"private, δ = {DELTA:g}", fontsize=10)
    return figure


CLAIM = Claim(
    number=9,
    slug="tangent-transformers",
    statement=(
        "Fine-tuning the tangents of a transformer's last block is about as accurate as fine-tuning the block, loses "
        "less when trained in many shards and composed, costs less than three passes, and is more accurate when "
        "trained privately, also than a linear probe."
    ),
    baselines=(
        "non-linear fine-tuning of the same parameters, averaged in its weights",
        "linear probes, also in shards and private",
        "private non-linear fine-tuning at the same budget",
    ),
    measure=measure,
    presets={
        "quick": {
            "image": (8, 2),
            "shards": {1: 200, 20: 100},
            "epsilons": (1.0, 3.0),
            "seeds": 1,
            "samples": 1347,
            "sharded": 700,
            "dim": 32,
            "depth": 3,
            "pretraining_epochs": 30,
            "private_steps": 12,
            "private_batch": None,
            "rates": (1e-2,),
            "adam_rates": (3e-2,),
            "ridges": (1e-4,),
            "private_rates": (0.4,),
        },
        "full": {
            "image": (28, 7),
            "shards": {1: 800, 20: 200},
            "epsilons": (1.0, 3.0),
            "seeds": 2,
            "samples": 10000,
            "sharded": 1200,
            "dim": 32,
            "depth": 4,
            "pretraining_epochs": 8,
            "private_steps": 150,
            "private_batch": 256,
            "rates": (3e-3, 1e-2, 3e-2),
            "adam_rates": (1e-2, 3e-2, 1e-1),
            "ridges": (1e-5, 1e-4, 1e-3),
            "private_rates": (0.3, 1.0, 3.0),
            "data": "mnist",
        },
        "gpu": {
            "image": (28, 4),
            "shards": {1: 2000, 5: 500, 20: 500, 50: 500},
            "epsilons": (1.0, 3.0, 8.0),
            "seeds": 5,
            "samples": 10000,
            "sharded": 4000,
            "dim": 128,
            "depth": 6,
            "pretraining_epochs": 60,
            "private_steps": 500,
            "private_batch": 512,
            "rates": (3e-4, 1e-3, 3e-3),
            "adam_rates": (1e-3, 3e-3, 1e-2),
            "ridges": (1e-5, 1e-4, 1e-3),
            "private_rates": (0.1, 0.3, 1.0, 3.0),
            "data": "mnist",
            "device": "cuda",
        },
    },
)
