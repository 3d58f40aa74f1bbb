"""The labelled pseudo-NTK says how samples teach one another, and prunes and cleans training sets [022].

Five measurements, on digits or a part of MNIST. (1) A sample's learning difficulty is not its own: trained on nested
subsets it correlates the less with the difficulty in the full run the smaller the subset; two full runs are the
ceiling. (2) Adding the samples that the normalised kernel calls interchangeable, unrelated or most contradictory to a
target changes the target's difficulty; beside them stand random samples, the pixel neighbours of the same and of
another class, and the same-class neighbours with wrong labels. (3) Pruning by farthest-point clusters against random
pruning and dropping the easiest by EL2N. (4) Flipped labels among the samples that the clustering flags, against
ranking by loss, early and after memorising. (5) Forgetting after one more step, predicted to first order, against the
smallest margins.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tangrams.claims._many import train_many
from tangrams.claims._networks import samples_of, standard_mlp, train
from tangrams.claims.base import Claim, Evidence
from tangrams.data import Labelled, plant
from tangrams.kernels import CosineKernel, LabelledPseudoNTK
from tangrams.learners import FarthestPointClustering, PoisonFilter, keep_heads, keep_random_members, thin_largest
from tangrams.lens import (
    attribution_precision_recall,
    error_l2_norm,
    predict_forgetting,
    score_events,
)

_HIDDEN = 64
_CLASSES = 10
_PRUNED = 0.2
"""The share that the paper prunes without loss, 10 to 20 %; the presets may measure others too."""


def measure(
    samples: int,
    seeds: int,
    epochs: int,
    sizes: Sequence[int],
    targets: int,
    added: int,
    repeats: int,
    prune: Sequence[float],
    noisy_epochs: Sequence[int],
    steps: int,
    data: str | None = None,
) -> Evidence:
    """All five measurements, over seeds."""
    runs = [
        {
            "difficulty": _difficulty(data, samples, sizes, epochs, seed),
            "added": _added(data, samples, epochs, targets, added, repeats, seed),
            "pruned": _pruned(data, samples, epochs, prune, repeats, seed),
            "noise": {str(e): _noise(data, samples, e, seed) for e in noisy_epochs},
            "forgetting": _forgetting(data, samples, steps, seed),
        }
        for seed in range(seeds)
    ]
    numbers: dict[str, Any] = {name: _gather([run[name] for run in runs]) for name in runs[0]}
    mean = _mean_leaves(numbers)
    correlation = [mean["difficulty"][str(size)] for size in sizes]
    difficulty = mean["added"]["difficulty"]
    full, pruned = mean["pruned"]["all samples"], mean["pruned"][f"thin the largest, {_PRUNED:.0%}"]
    noise = mean["noise"][str(noisy_epochs[0])]
    twins = mean["added"]["cosine"]["nearest, mislabelled"]
    parts = {
        "difficulty depends on the company": all(a > b for a, b in itertools.pairwise(correlation)),
        "added samples order difficulty": difficulty["interchangeable"]
        < difficulty["none"]
        < difficulty["contradictory"],
        "pruning keeps accuracy": pruned > full - 0.01,
        "contradictions have a negative kernel": twins < 0,
        "flagged samples are wrong": noise["flagged"] > 3 * noise["base rate"],
    }
    verdict = "holds" if all(parts.values()) else "holds in part" if any(parts.values()) else "does not hold"
    numbers["parts"] = parts
    share = f"{_PRUNED:.0%}"
    sentence = (
        f"Over {seeds} seeds difficulty correlates {correlation[0]:.2f} at n = {sizes[0]} down to "
        f"{correlation[-1]:.2f} at {sizes[-1]} (two full runs: {mean['difficulty']['full again']:.2f}). {added} "
        f"interchangeable samples take a target's from {difficulty['none']:.1f} to "
        f"{difficulty['interchangeable']:.1f}, the most contradictory to {difficulty['contradictory']:.1f} (random "
        f"{difficulty['random']:.1f}, unrelated {difficulty['unrelated']:.1f}); mislabelled twins take it to "
        f"{difficulty['nearest, mislabelled']:.1f} with a cosine of {twins:+.2f}: {_CLASSES - 2} of {_CLASSES} signs "
        f"agree. Pruning {share} leaves {pruned:.3f} of {full:.3f} accuracy (random "
        f"{mean['pruned'][f'random, {share}']:.3f}); {noise['flagged']:.0%} of the flagged labels are wrong (chance "
        f"{noise['base rate']:.0%}, by loss {noise['loss']:.0%}, by pixel neighbours "
        f"{noise['pixel neighbours']:.0%}); forgetting is predicted with F1 {mean['forgetting']['f1']:.2f} (margins "
        f"{mean['forgetting']['f1 of the smallest margins']:.2f})."
    )
    return Evidence(verdict, sentence, numbers, _figure(numbers, sizes))


def _difficulty(data: str | None, samples: int, sizes: Sequence[int], epochs: int, seed: int) -> dict[str, float]:
    """Pearson correlation of each sample's difficulty in a subset with that in the full run."""
    generator = torch.Generator().manual_seed(seed)
    part, _ = samples_of(data, samples, seed)
    X, y = part.inputs.flatten(1), part.targets
    spread = y.argsort(stable=True)  # every n-th of the sorted: subsets hold all classes alike, and are nested

    def run(count: int) -> Tensor:
        index = torch.stack([spread[e::count] for e in range(count)])
        many = train_many(X[index], y[index], hidden=_HIDDEN, epochs=epochs, generator=generator)
        found = torch.empty(samples)
        found[index.flatten()] = many.difficulty.flatten()
        return found

    full = run(1)
    found = {"full again": run(1), **{str(size): run(samples // size) for size in sizes}}
    return {name: float(np.corrcoef(full, value)[0, 1]) for name, value in found.items()}


def _added(
    data: str | None, samples: int, epochs: int, count: int, added: int, repeats: int, seed: int
) -> dict[str, dict[str, float]]:
    """Mean difficulty of targets learned among 20 random samples and k chosen ones, and their cosine to these."""
    generator = torch.Generator().manual_seed(100 + seed)
    part, _ = samples_of(data, samples, seed)
    X, y = part.inputs.flatten(1), part.targets
    network = train_many(X[None], y[None], hidden=_HIDDEN, epochs=epochs, generator=generator).network(0)
    target = torch.randperm(samples, generator=generator)[:count]
    kernel = CosineKernel(LabelledPseudoNTK(network))
    rho = kernel.gram(Labelled(X[target], y[target]), Labelled(X, y))
    pixels = nn.functional.normalize(X[target]) @ nn.functional.normalize(X).mT
    itself = torch.arange(samples) == target[:, None]
    same = y[target][:, None] == y

    def top(score: Tensor) -> Tensor:
        return score.masked_fill(itself, -torch.inf).topk(added, dim=1).indices

    chosen = {
        "interchangeable": top(rho),
        "unrelated": top(-rho.abs()),
        "contradictory": top(-rho),
        "random": torch.randint(samples, (count, added), generator=generator),
        "nearest, same class": top(pixels.masked_fill(~same, -2)),
        "nearest, other class": top(pixels.masked_fill(same, -2)),
    }
    chosen["nearest, mislabelled"] = chosen["nearest, same class"]
    company = torch.randint(samples, (count, 20), generator=generator)
    difficulty, cosine = {}, {}
    for name, extra in {"none": company[:, :0], **chosen}.items():
        index = torch.cat([target[:, None], company, extra], dim=1).repeat(repeats, 1)
        labels = y[index]
        if name == "nearest, mislabelled":
            labels[:, 21:] = (labels[:, 21:] + 1) % _CLASSES
        many = train_many(
            X[index],
            labels,
            hidden=_HIDDEN,
            epochs=epochs,
            batch_size=10**6,
            generator=torch.Generator().manual_seed(seed),
        )
        difficulty[name] = float(many.difficulty[:, 0].mean())
        if extra.shape[1]:
            given = labels[:count, 21:]
            pairs = [
                kernel.gram(Labelled(X[t][None], y[t][None]), Labelled(X[e], g))
                for t, e, g in zip(target, extra, given, strict=True)
            ]
            cosine[name] = float(torch.cat(pairs).mean())
    return {"difficulty": difficulty, "cosine": cosine}


def _pruned(
    data: str | None, samples: int, epochs: int, fractions: Sequence[float], repeats: int, seed: int
) -> dict[str, float]:
    """Test accuracy of networks retrained on what is kept, the mean over initialisations."""
    generator = torch.Generator().manual_seed(200 + seed)
    part, test = samples_of(data, samples, seed)
    X, y = part.inputs.flatten(1), part.targets
    trained = train_many(X[None], y[None], hidden=_HIDDEN, epochs=epochs, generator=generator)
    kernel = CosineKernel(LabelledPseudoNTK(trained.network(0)))
    labelled = Labelled(X, y)
    coarse = FarthestPointClustering(0.1, kernel=kernel).fit_classes(labelled, y)
    early = train_many(X.expand(repeats, -1, -1), y.expand(repeats, -1), hidden=_HIDDEN, epochs=3, generator=generator)
    easiness = error_l2_norm(early.logits(X).softmax(2).mean(0), y).argsort()

    def accuracy(index: Any) -> float:
        index = torch.as_tensor(index)
        many = train_many(
            X[index].expand(repeats, -1, -1),
            y[index].expand(repeats, -1),
            hidden=_HIDDEN,
            epochs=epochs,
            generator=torch.Generator().manual_seed(seed),
        )
        right = many.logits(test.inputs.flatten(1)).argmax(2) == test.targets
        return float(right.double().mean())

    found = {"all samples": accuracy(torch.arange(samples))}
    for fraction in fractions:
        fine = FarthestPointClustering(1 - fraction, kernel=kernel).fit_classes(labelled, y)
        kept: dict[str, Any] = {
            "heads": keep_heads(fine),
            "random member": keep_random_members(fine, random_state=seed),
            "thin the largest": thin_largest(coarse, fraction),
            "random": torch.randperm(samples, generator=generator)[: round((1 - fraction) * samples)],
            "drop the easiest": easiness[round(fraction * samples) :],
        }
        found |= {f"{name}, {fraction:.0%}": accuracy(index) for name, index in kept.items()}
    return found


def _noise(data: str | None, samples: int, epochs: int, seed: int) -> dict[str, float]:
    """The share of wrong labels among as many flagged samples as there are wrong ones."""
    part, _ = samples_of(data, samples, seed)
    planted = plant(part.inputs, part.targets, label_noise=0.1, duplicates=0, seed=seed)
    X, y, wrong = planted.inputs, planted.labels, planted.wrong.numpy()
    generator = torch.Generator().manual_seed(seed)
    network = standard_mlp([X[0].numel(), 256, _CLASSES], generator)
    train(network, X, y, epochs=epochs, generator=generator, lr=3e-3)
    logits = network(X).detach()
    loss = nn.functional.cross_entropy(logits, y, reduction="none").numpy()
    fitted = PoisonFilter(float(wrong.mean()), kernel=LabelledPseudoNTK(network)).fit(planted.labelled(), y)
    flat = nn.functional.normalize(X.flatten(1))
    similar = (flat @ flat.mT).fill_diagonal_(-1).topk(10).indices
    disagree = (y[similar] != y[:, None]).double().mean(1).numpy()

    def precision(score: np.ndarray) -> float:
        return attribution_precision_recall(score, wrong).precision_at_count

    return {
        "flagged": float(wrong[fitted.flagged_].mean()),
        "loss": precision(loss),
        "pixel neighbours": precision(disagree),
        "base rate": float(wrong.mean()),
        "labels fitted": float((logits.argmax(1) == y).double().mean()),
    }


def _forgetting(data: str | None, samples: int, steps: int, seed: int) -> dict[str, float]:
    """Right after its own batch, wrong after the next: predicted to first order, and by the smallest margins."""
    generator = torch.Generator().manual_seed(300 + seed)
    part, _ = samples_of(data, samples, seed)
    X, y = part.inputs.flatten(1), part.targets
    network = standard_mlp([X.shape[1], _HIDDEN, _CLASSES], generator)
    lr = 0.1
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)

    def step(batch: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(X[batch]), y[batch]).backward()
        optimizer.step()

    batches = [b for _ in range(2 * steps) for b in torch.randperm(samples, generator=generator).split(32)][: steps + 1]
    step(batches[0])
    predicted, margins, happened = [], [], []
    for before, after in itertools.pairwise(batches):
        predicted.append(
            predict_forgetting(network, Labelled(X[before], y[before]), Labelled(X[after], y[after]), lr=lr)
        )
        margin = _margin(network, X[before], y[before])
        step(after)
        happened.append((margin > 0) & (_margin(network, X[before], y[before]) <= 0))
        margins.append(torch.where(margin > 0, -margin, -torch.inf))
    score = score_events(torch.cat(predicted), torch.cat(happened))
    closest = torch.zeros(len(torch.cat(margins)), dtype=torch.bool)
    closest[torch.cat(margins).topk(max(score.predicted, 1)).indices] = True
    return {
        "precision": score.precision,
        "recall": score.recall,
        "f1": score.f1,
        "f1 of the smallest margins": score_events(closest, torch.cat(happened)).f1,
        "events": float(score.happened),
    }


def _margin(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        z = network(x)
    own = z.gather(1, y[:, None])[:, 0]
    return own - z.scatter(1, y[:, None], -torch.inf).max(1).values


def _gather(runs: Sequence[Any]) -> Any:
    """A dict of lists over seeds for a list of dicts."""
    if isinstance(runs[0], dict):
        return {name: _gather([run[name] for run in runs]) for name in runs[0]}
    return list(runs)


def _mean_leaves(numbers: Any) -> Any:
    if isinstance(numbers, dict):
        return {name: _mean_leaves(value) for name, value in numbers.items()}
    return float(np.mean(numbers))


def _figure(numbers: dict[str, Any], sizes: Sequence[int]) -> Figure:
    figure = Figure(figsize=(14, 3.8), layout="constrained")
    first, second, third, fourth = figure.subplots(1, 4)
    mean: Callable[[Any], float] = lambda values: float(np.mean(values))  # noqa: E731
    first.semilogx(sizes, [mean(numbers["difficulty"][str(s)]) for s in sizes], "-o", markersize=4)
    first.axhline(mean(numbers["difficulty"]["full again"]), color="0.6", linewidth=1)
    first.set_title("difficulty: correlation with the full run\n(line: a second full run)", fontsize=9)
    first.set_xlabel("samples trained with")
    _bars(second, numbers["added"]["difficulty"], "difficulty of a target, by what is added")
    share = f"{_PRUNED:.0%}"
    kept = {name: v for name, v in numbers["pruned"].items() if name == "all samples" or name.endswith(share)}
    _bars(third, kept, f"test accuracy after pruning {share}")
    low = min(min(v) for v in kept.values())
    third.set_xlim(low - 0.01, 1)
    noise = {
        f"{name}, {epochs} epochs": values[name]
        for epochs, values in numbers["noise"].items()
        for name in ("flagged", "loss", "pixel neighbours")
    }
    _bars(fourth, noise, "wrong labels among the flagged")
    return figure


def _bars(axis: Any, values: dict[str, list[float]], title: str) -> None:
    names = sorted(values, key=lambda name: np.mean(values[name]))
    axis.barh(names, [np.mean(values[name]) for name in names], color="0.85")
    for row, name in enumerate(names):
        axis.plot(values[name], [row] * len(values[name]), "o", color="C0", markersize=3)
    axis.tick_params(axis="y", labelsize=7)
    axis.set_title(title, fontsize=9)


CLAIM = Claim(
    number=22,
    slug="labelled-pseudo-ntk",
    statement=(
        "A scalar kernel of labelled samples tells which teach one another: a sample's difficulty depends on the "
        "others, interchangeable ones make it easier and contradictory ones harder, the over-represented can be "
        "pruned without loss, and the tail of the clusters holds mislabelled samples."
    ),
    baselines=("random samples", "pixel neighbours", "EL2N", "ranking by loss", "smallest margins"),
    measure=measure,
    presets={
        "quick": {
            "samples": 1024,
            "seeds": 2,
            "epochs": 20,
            "sizes": (256, 64, 16, 4),
            "targets": 20,
            "added": 10,
            "repeats": 5,
            "prune": (_PRUNED,),
            "noisy_epochs": (10,),
            "steps": 60,
        },
        "full": {
            "samples": 1024,
            "seeds": 5,
            "epochs": 30,
            "sizes": (256, 64, 16, 4, 1),
            "targets": 40,
            "added": 10,
            "repeats": 10,
            "prune": (0.1, _PRUNED, 0.5),
            "noisy_epochs": (10, 150),
            "steps": 300,
            "data": "mnist",
        },
    },
    data={"full": ("mnist",)},
)
