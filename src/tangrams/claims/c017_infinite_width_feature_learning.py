"""The infinite-width limit of μP learns features, is exact, and does better than the limits that do not [017].

Four measurements. Trainings of finite linear networks against the exact limit, one and two hidden layers: the error
falls as the root of the width. Few-shot learning (first-order MAML, 5 classes, one sample each) by linear networks of
several widths, by their limit, and, in as many steps, by the kernel limits (NNGP, NTK) of a ReLU network, which
meta-learning cannot give features. Word vectors (CBOW with negative sampling): loss on held-out text at several widths
and in the limit. And the share of analogies that they answer after training on a text in which these are planted; in
the kernel limits word vectors stay where they start.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from tangrams.claims.base import Claim, Evidence
from tangrams.data import Corpus, context_windows, digits, load, planted_analogies
from tangrams.kernels import FullyConnectedNNGP, FullyConnectedNTK
from tangrams.learners import FirstOrderMAML
from tangrams.learners.base import HasGram
from tangrams.lens import analogy_accuracy
from tangrams.nn.infinite_width import CBOW, InfiniteLinearNetwork, negative_sampling_loss

WAYS, QUERIES, TEST_TASKS, INNER_LR, TEST_STEPS = 5, 3, 200, 0.4, 20


def measure(
    limit_widths: Sequence[int],
    widths: Sequence[int],
    seeds: int,
    meta_steps: int,
    meta_lr: float,
    word_widths: Sequence[int],
    word_steps: int,
    sentences: int,
    stems: int,
    planted_rate: float,
    images: str | None = None,
    text: str | None = None,
    min_count: int = 5,
) -> Evidence:
    """All four, over seeds."""
    errors = {
        layers: [[_limit_error(layers, n, seed) for seed in range(2 * seeds)] for n in limit_widths]
        for layers in (1, 2)
    }
    slopes = {L: float(np.polyfit(np.log(limit_widths), np.log(np.mean(e, 1)), 1)[0]) for L, e in errors.items()}
    train, test = _classes(images)
    accuracy: dict[str, list[float]] = {}
    for n in (*widths, math.inf):
        accuracy[_name(n)] = [_few_shot(train, test, n, seed, meta_steps, meta_lr) for seed in range(seeds)]
    for name, kernel in (("NNGP", FullyConnectedNNGP(2)), ("NTK", FullyConnectedNTK(2))):
        phi = _kernel_features(train, test, kernel)
        accuracy[name] = [_few_shot(*phi, None, seed, meta_steps, meta_lr) for seed in range(seeds)]
    corpus = Corpus.read(load(text) if text else _shipped_text(), min_count=min_count)
    losses = {
        _name(n): [_words(corpus, n, seed, word_steps)[1] for seed in range(seeds)] for n in (*word_widths, math.inf)
    }
    planted, questions = planted_analogies(sentences, stems=stems)
    analogies = {
        _name(n): [
            analogy_accuracy(_words(planted, n, seed, word_steps, 2, planted_rate)[0].word_vectors(), questions)
            for seed in range(seeds)
        ]
        for n in (*word_widths, math.inf)
    }

    def untrained(seed: int) -> CBOW:
        return CBOW(len(planted.words), word_widths[-1], generator=torch.Generator().manual_seed(seed))

    analogies["kernels"] = [analogy_accuracy(untrained(seed).word_vectors(), questions) for seed in range(seeds)]

    few, word, share = ({k: float(np.mean(v)) for k, v in found.items()} for found in (accuracy, losses, analogies))
    ordered = [few[_name(n)] for n in (*widths, math.inf)]
    worded = [word[_name(n)] for n in (*word_widths, math.inf)]
    shares = [share[_name(n)] for n in (*word_widths, math.inf)]
    best_kernel = max(few["NNGP"], few["NTK"])
    good = {
        "errors fall as the root of the width": all(-0.7 < s < -0.3 for s in slopes.values()),
        "few-shot accuracy rises to the limit": all(b > a - 0.01 for a, b in itertools.pairwise(ordered))
        and ordered[-1] > ordered[0],
        "the limit beats both kernels": ordered[-1] > best_kernel,
        "word loss falls to the limit": all(b < a + 0.002 for a, b in itertools.pairwise(worded)),
        "analogies rise to the limit": all(b > a - 0.01 for a, b in itertools.pairwise(shares))
        and shares[-1] > max(shares[0], share["kernels"]),
    }
    verdict = "holds" if all(good.values()) else "holds in part" if any(good.values()) else "does not hold"
    sentence = (
        f"Finite linear networks differ from the exact limit by width^{slopes[1]:.2f} (one hidden layer) and "
        f"width^{slopes[2]:.2f} (two); 5-way 1-shot accuracy is {ordered[0]:.3f} at width {widths[0]}, "
        f"{ordered[-2]:.3f} at {widths[-1]} and {ordered[-1]:.3f} in the limit, {best_kernel:.3f} for the better "
        f"kernel; the held-out loss of word vectors is {worded[0]:.3f} at width {word_widths[0]} and "
        f"{worded[-1]:.3f} in the limit; of {len(questions)} planted analogies these answer {shares[0]:.3f} and "
        f"{shares[-1]:.3f}, vectors that stay at the start {share['kernels']:.3f}."
    )
    numbers: dict[str, Any] = {
        "limit_widths": list(limit_widths),
        "limit_error": {str(layers): values for layers, values in errors.items()},
        "slopes": {str(layers): slope for layers, slope in slopes.items()},
        "accuracy": accuracy,
        "word_loss": losses,
        "analogies": analogies,
        "vocabulary": len(corpus.words),
        "parts": good,
    }
    return Evidence(verdict, sentence, numbers, _figure(limit_widths, errors, few, word, share))


def _name(width: float) -> str:
    return "limit" if width == math.inf else str(width)


def _limit_error(layers: int, width: int, seed: int) -> float:
    """Relative difference of outputs on new inputs, over five steps of gradient descent."""
    generator = torch.Generator().manual_seed(seed)
    x, y, new = (torch.randn(n, k, generator=generator, dtype=torch.float64) for n, k in ((8, 4), (8, 2), (20, 4)))
    runs = []
    limit = InfiniteLinearNetwork(4, 2, layers, horizon=5, dtype=torch.float64)
    for model in (limit.sample(width, generator=generator), limit):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        outputs = []
        for _ in range(5):
            optimizer.zero_grad()
            (model(x) - y).square().mean().backward()
            optimizer.step()
            outputs.append(model(new).detach())
        runs.append(torch.stack(outputs))
    return float((runs[0] - runs[1]).norm() / runs[1].norm())


def _classes(images: str | None) -> tuple[Tensor, Tensor]:
    """Training and test classes, ``(classes, samples, d)``, centred and of norm three."""
    if images is None:
        part = digits(label_noise=0, duplicates=0).train.labelled()
        turned = [torch.rot90(part.inputs[part.targets == k][:60], r, (2, 3)) for k in range(10) for r in range(4)]
        x, cut = torch.stack(turned).flatten(2), 28
    else:
        masks = torch.from_numpy(load(images)["images"]).float()
        x = nn.functional.adaptive_avg_pool2d(masks[:, None], 14).reshape(-1, 20, 196)
        x, cut = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))], 100
    x = x - x[:cut].mean((0, 1))
    x = 3 * x / x.norm(dim=2, keepdim=True)
    return x[:cut], x[cut:]


def _tasks(
    classes: Tensor, count: int, generator: torch.Generator
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Support and query of some tasks, each on classes of its own in an order of its own."""
    chosen = torch.rand(count, len(classes), generator=generator).argsort(1)[:, :WAYS]
    drawn = torch.rand(count, WAYS, classes.shape[1], generator=generator).argsort(2)[:, :, : 1 + QUERIES]
    x = classes[chosen[:, :, None], drawn]
    labels = torch.arange(WAYS)
    support = x[:, :, 0], labels.expand(count, WAYS)
    return support, (x[:, :, 1:].flatten(1, 2), labels.repeat_interleave(QUERIES).expand(count, -1))


def _few_shot(train: Tensor, test: Tensor, width: float | None, seed: int, steps: int, lr: float) -> float:
    """Accuracy on tasks of new classes after so many steps; no width: of a linear readout of the samples."""
    generator = torch.Generator().manual_seed(seed)
    model = _start(train.shape[2], width, generator)
    meta = FirstOrderMAML(model, inner_lr=INNER_LR)
    optimizer = torch.optim.SGD(model.parameters(), lr)
    for _ in range(steps):
        meta.backward(*_tasks(train, 16, generator))
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
    support, (x, y) = _tasks(test, TEST_TASKS, torch.Generator().manual_seed(1000 + seed))
    predicted = meta.predict(support, x, inner_steps=TEST_STEPS).argmax(2)
    return float((predicted == y).double().mean())


def _start(d: int, width: float | None, generator: torch.Generator) -> nn.Module:
    if width is None:
        readout = nn.Linear(d, WAYS, bias=False)
        nn.init.zeros_(readout.weight)
        return readout
    limit = InfiniteLinearNetwork(d, WAYS, sigma_v=1 / 32, input_bias=1.0)
    return limit if width == math.inf else limit.sample(int(width), generator=generator)


def _kernel_features(train: Tensor, test: Tensor, kernel: HasGram) -> tuple[Tensor, Tensor]:
    """Features of all images whose inner products are the kernel's.

    Gradient descent on a linear readout of them, from zero, moves the function as
    :class:`~tangrams.learners.KernelMAML` does, and its gradient's norm is that in the kernel's space; but a step costs
    the same however many came before. The images enter by x·x', as in the linear networks, not by x·x'/d.
    """
    x = torch.cat([train, test]).double() * math.sqrt(train.shape[2])
    K = kernel.gram(x.flatten(0, 1))
    K.diagonal().add_(1e-10 * K.diagonal().mean())
    phi = torch.linalg.cholesky(K).to(train).unflatten(0, x.shape[:2])
    return phi[: len(train)], phi[len(train) :]


def _shipped_text() -> str:
    """The descriptions of scikit-learn's data sets: the English text that comes with a dependency."""
    files = sorted(resources.files("sklearn.datasets.descr").iterdir(), key=lambda file: file.name)
    return "\n".join(file.read_text(encoding="utf-8") for file in files if file.name.endswith(".rst"))


def _words(
    corpus: Corpus, width: float, seed: int, steps: int, window: int = 5, rate: float = 0.05
) -> tuple[CBOW, float]:
    """The model and its held-out loss after training on the first nine tenths; every width sees the same batches."""
    batch, negatives = 128, 10
    generator = torch.Generator().manual_seed(seed)
    v = len(corpus.words)
    model = (
        CBOW.infinite(v) if width == math.inf else CBOW(v, int(width), generator=torch.Generator().manual_seed(seed))
    )
    cut = 9 * len(corpus.tokens) // 10
    windows = context_windows(corpus.tokens, window, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate * batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-4, steps)

    def candidates(index: Tensor, draws: torch.Generator) -> Tensor:
        noise = torch.multinomial(corpus.noise(), len(index) * negatives, replacement=True, generator=draws)
        return torch.cat([corpus.tokens[index][:, None], noise.reshape(len(index), negatives)], 1)

    for _ in range(steps):
        index = torch.randint(cut, (batch,), generator=generator)
        optimizer.zero_grad()
        negative_sampling_loss(model(windows[index], candidates(index, generator))).backward()
        optimizer.step()
        schedule.step()
    index = torch.arange(cut, len(corpus.tokens))
    with torch.no_grad():
        chosen = candidates(index, torch.Generator().manual_seed(seed))
        parts = zip(windows[index].split(512), chosen.split(512), strict=True)
        return model, float(sum(len(c) * float(negative_sampling_loss(model(w, c))) for w, c in parts) / len(index))


def _figure(widths: Sequence[int], errors: Any, few: dict[str, float], *words: dict[str, float]) -> Figure:
    figure = Figure(figsize=(14, 3.6), layout="constrained")
    left, *panels = figure.subplots(1, 4)
    for layers, values in errors.items():
        left.loglog(
            widths, np.mean(values, 1), "-o", label=f"{layers} hidden layer{'s' if layers > 1 else ''}", markersize=4
        )
    left.set(title="distance to the exact limit", xlabel="width", xticks=widths, xticklabels=widths)
    left.minorticks_off()
    left.legend(fontsize=8)
    titles = "5-way 1-shot accuracy", "held-out loss of word vectors", "planted analogies answered"
    for axis, found, title in zip(panels, (few, *words), titles, strict=True):
        colours = ["C0" if name.isdigit() else "C1" if name == "limit" else "C2" for name in found]
        axis.bar(list(found), list(found.values()), color=colours)
        low, high = min(found.values()), max(found.values())
        axis.set(title=title, ylim=(max(0.0, low - 0.3 * (high - low)), high + 0.1 * (high - low)))
    return figure


CLAIM = Claim(
    number=17,
    slug="infinite-width-feature-learning",
    statement=(
        "In the maximal update parametrization wide networks approach a limit that learns features and can be computed "
        "exactly for linear networks; performance rises with width towards it, above the kernel limits."
    ),
    baselines=("the NNGP and NTK limits of a ReLU network", "finite widths"),
    measure=measure,
    presets={
        "quick": {
            "limit_widths": (64, 256, 1024),
            "widths": (8, 64),
            "seeds": 2,
            "meta_steps": 150,
            "meta_lr": 0.1,
            "word_widths": (16, 64),
            "word_steps": 300,
            "sentences": 1000,
            "stems": 30,
            "planted_rate": 0.2,
        },
        "full": {
            "limit_widths": (64, 128, 256, 512, 1024),
            "widths": (8, 32, 128, 512),
            "seeds": 3,
            "meta_steps": 1000,
            "meta_lr": 0.1,
            "word_widths": (16, 64, 256),
            "word_steps": 1500,
            "sentences": 4000,
            "stems": 60,
            "planted_rate": 0.1,
            "images": "omniglot/images_background_small1",
            "text": "tiny_shakespeare",
            "min_count": 30,
        },
    },
    data={"full": ("omniglot/images_background_small1", "tiny_shakespeare")},
)
