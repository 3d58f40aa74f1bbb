"""Kernel machines on the trace NTK track the network that they stand for, and their coefficients find poison [072].

Networks are trained on digits. For each kernel, cosine-normalised, the paper's kernel GLM is fitted to the labels and
its probabilities compared with the network's: Kendall's τ on the true class, agreement, signed accuracy difference.
Beside the trace NTK stand the pseudo-NTK, the conjugate and embedding kernels, and two baselines that know nothing of
the trained network: the pixels' cosine and the same architecture's kernel before training. A second fit of the trace
NTK is stopped where the paper's solver stops, and a third has the RKHS norm as its penalty. Sketched gradients approach
the exact τ with the sketch's size. For poison, a share of the training images gets a trigger and a wrong label; the
attribution of triggered test images ranks the training images.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.special import softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import SGDClassifier
from torch import Tensor, nn

from tangrams.claims._networks import samples_of, standard_mlp, train
from tangrams.claims.base import Claim, Evidence
from tangrams.data import Labelled
from tangrams.kernels import ConjugateKernel, CosineKernel, EmbeddingKernel, EmpiricalNTK, Kernel, ProjectedNTK
from tangrams.learners import KernelGLM, KernelLogisticRegression
from tangrams.lens import Fidelity, attribution_precision_recall, kernel_attribution, surrogate_fidelity
from tangrams.operators import RademacherSketch

TRACE, PIXELS = "trace NTK", "pixels, no network"


class PixelKernel(Kernel):
    """Inner products of the inputs themselves: the baseline that needs no network."""

    def _gram(self, x: Tensor, y: Tensor) -> Tensor:
        return x.flatten(1) @ y.flatten(1).mT

    def _diag(self, x: Tensor) -> Tensor:
        return x.flatten(1).square().sum(1)


def measure(
    samples: int, seeds: int, epochs: int, sketch_sizes: Sequence[int], poison: float, data: str | None = None
) -> Evidence:
    """Fidelity over seeds, the sketch's τ on the first seed, and the recovery of poison over seeds."""
    fidelity: dict[str, list[Fidelity]] = {}
    accuracies: list[float] = []
    sketched: dict[int, float] = {}
    recovered: dict[str, list[float]] = {}
    for seed in range(seeds):
        train_part, test = samples_of(data, samples, seed)
        network, untrained = _trained(train_part, epochs, seed)
        p = EmpiricalNTK(network).phi.outputs(test.inputs).softmax(1)
        accuracies.append(float((p.argmax(1) == test.targets).double().mean()))
        for name, found in _fidelities(network, untrained, train_part, test, p).items():
            fidelity.setdefault(name, []).append(found)
        if seed == 0:
            sketched = {k: _sketched(network, train_part, test, p, k) for k in sketch_sizes}
        for name, value in _poisoned(train_part, test, epochs, poison, seed).items():
            recovered.setdefault(name, []).append(value)
    tau = {name: float(np.mean([f.kendall_tau for f in found])) for name, found in fidelity.items()}
    difference = {name: float(np.mean([f.accuracy_difference for f in found])) for name, found in fidelity.items()}
    precision = {name: float(np.mean(values)) for name, values in recovered.items()}
    rivals = {name: tau[name] for name in ("conjugate", "embedding", PIXELS, "trace NTK, untrained")}
    best_rival = max(rivals, key=lambda name: rivals[name])
    faithful = tau[TRACE] > 0.5 and abs(difference[TRACE]) < 0.02
    ahead = tau[TRACE] >= rivals[best_rival]
    finds = precision[TRACE] > 5 * poison
    verdict = "holds" if faithful and ahead and finds else "holds in part" if faithful or finds else "does not hold"
    sentence = (
        f"On {data or 'digits'} (n = {samples}, {seeds} seeds, network accuracy {np.mean(accuracies):.3f}) the kernel "
        f"GLM on the trace NTK reaches τ = {tau[TRACE]:.2f} with an accuracy difference of {difference[TRACE]:+.3f}; "
        f"the best rival, {best_rival}, {rivals[best_rival]:.2f}, pixels {tau[PIXELS]:.2f}. Stopped as the paper's "
        f"solver stops, τ is {tau['trace NTK, SGD as published']:.2f}. Attribution finds {precision[TRACE]:.0%} of "
        f"the poison at its count (chance {poison:.0%}, pixels {precision[PIXELS]:.0%})."
    )
    numbers: dict[str, Any] = {
        "network_accuracy": accuracies,
        "kendall_tau": {name: [f.kendall_tau for f in found] for name, found in fidelity.items()},
        "agreement": {name: [f.agreement for f in found] for name, found in fidelity.items()},
        "accuracy_difference": {name: [f.accuracy_difference for f in found] for name, found in fidelity.items()},
        "misclassified_overlap": {name: [f.misclassified_overlap for f in found] for name, found in fidelity.items()},
        "r2_logit": {name: [f.r2_logit for f in found] for name, found in fidelity.items()},
        "sketch_tau": {str(k): value for k, value in sketched.items()},
        "poison_precision_at_count": recovered,
        "poison_base_rate": poison,
    }
    return Evidence(verdict, sentence, numbers, _figure(fidelity, sketched, recovered, poison))


def _trained(part: Labelled, epochs: int, seed: int) -> tuple[nn.Module, nn.Module]:
    sizes = [part.inputs[0].numel(), 100, 100, 100, 10]
    generator = torch.Generator().manual_seed(seed)
    network = standard_mlp(sizes, generator)
    untrained = standard_mlp(sizes, torch.Generator().manual_seed(seed))
    train(network, part.inputs, part.targets, epochs=epochs, generator=generator)
    return network, untrained.eval()


def _fidelities(
    network: nn.Module, untrained: nn.Module, part: Labelled, test: Labelled, p: Tensor
) -> dict[str, Fidelity]:
    kernels: dict[str, Kernel] = {
        TRACE: EmpiricalNTK(network, "trace"),
        "pseudo-NTK": EmpiricalNTK(network, "sum"),
        "conjugate": ConjugateKernel(network),
        "embedding": EmbeddingKernel(network),
        PIXELS: PixelKernel(),
        "trace NTK, untrained": EmpiricalNTK(untrained, "trace"),
    }
    found = {}
    for name, kernel in kernels.items():
        K, cross = _grams(kernel, part.inputs, test.inputs)
        model = KernelGLM("precomputed").fit(K, part.targets)
        found[name] = surrogate_fidelity(p, model.predict_proba(cross), test.targets)
        if name == TRACE:
            norm = KernelLogisticRegression("precomputed", C=10.0).fit(K, part.targets)
            found["trace NTK, RKHS norm"] = surrogate_fidelity(p, norm.predict_proba(cross), test.targets)
            published = _published(K.numpy(), part.targets.numpy(), cross.numpy())
            found["trace NTK, SGD as published"] = surrogate_fidelity(p, published, test.targets)
    return found


def _grams(kernel: Kernel, train_inputs: Tensor, test_inputs: Tensor) -> tuple[Tensor, Tensor]:
    cosine = CosineKernel(kernel)
    return cosine.gram(train_inputs), cosine.gram(test_inputs, train_inputs)


def _published(K: np.ndarray, y: np.ndarray, cross: np.ndarray) -> np.ndarray:
    """The paper's solver with its settings, its decision values through a softmax."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = SGDClassifier(loss="log_loss", alpha=1e-4, class_weight="balanced", random_state=0).fit(K, y)
    return softmax(model.decision_function(cross), axis=1)


def _sketched(network: nn.Module, part: Labelled, test: Labelled, p: Tensor, k: int) -> float:
    K, cross = _grams(ProjectedNTK(network, RademacherSketch(k, seed=0)), part.inputs, test.inputs)
    model = KernelGLM("precomputed").fit(K, part.targets)
    return surrogate_fidelity(p, model.predict_proba(cross), test.targets).kendall_tau


def _poisoned(part: Labelled, test: Labelled, epochs: int, share: float, seed: int) -> dict[str, float]:
    """Precision at the number of poisoned samples, by the attribution of triggered test images to class 0."""
    generator = torch.Generator().manual_seed(1000 + seed)
    others = (part.targets != 0).nonzero()[:, 0]
    chosen = others[torch.randperm(len(others), generator=generator)[: round(share * len(part.targets))]]
    poisoned = torch.zeros(len(part.targets), dtype=torch.bool)
    poisoned[chosen] = True
    inputs, targets = part.inputs.clone(), part.targets.clone()
    inputs[chosen], targets[chosen] = _triggered(inputs[chosen]), 0
    network, _ = _trained(Labelled(inputs, targets), epochs, seed)
    victims = _triggered(test.inputs[test.targets != 0])
    found = {}
    kernels = {TRACE: EmpiricalNTK(network, "trace"), "conjugate": ConjugateKernel(network), PIXELS: PixelKernel()}
    for name, kernel in kernels.items():
        K, cross = _grams(kernel, inputs, victims)
        model = KernelGLM("precomputed").fit(K, targets)
        attribution = kernel_attribution(model, cross, target=0)
        found[name] = attribution_precision_recall(attribution, poisoned.numpy()).precision_at_count
        if name == TRACE:
            similar = cross.mean(0).numpy()
            found["trace NTK, similarity alone"] = attribution_precision_recall(similar, poisoned).precision_at_count
    loss = nn.functional.cross_entropy(EmpiricalNTK(network).phi.outputs(inputs), targets, reduction="none")
    found["loss"] = attribution_precision_recall(loss.numpy(), poisoned.numpy()).precision_at_count
    return found


def _triggered(x: Tensor) -> Tensor:
    """A white patch of 3 × 3 in the corner."""
    x = x.clone()
    x[..., -3:, -3:] = 1.0
    return x


def _figure(
    fidelity: dict[str, list[Fidelity]], sketched: dict[int, float], recovered: dict[str, list[float]], share: float
) -> Figure:
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    names = sorted(fidelity, key=lambda name: np.mean([f.kendall_tau for f in fidelity[name]]))
    left.barh(names, [np.mean([f.kendall_tau for f in fidelity[n]]) for n in names], color="0.85")
    for row, name in enumerate(names):
        left.plot([f.kendall_tau for f in fidelity[name]], [row] * len(fidelity[name]), "o", color="C0", markersize=4)
    left.set_title("Kendall τ with the network, p(true class)", fontsize=10)
    left.tick_params(axis="y", labelsize=7)
    exact = fidelity[TRACE][0].kendall_tau
    middle.semilogx(list(sketched), list(sketched.values()), "-o", markersize=4, label="sketched gradients")
    middle.axhline(exact, color="0.6", linewidth=1, label="exact")
    middle.set_xticks(list(sketched), [str(k) for k in sketched], minor=False)
    middle.set_xticks([], minor=True)
    middle.set_xlabel("sketch size k")
    middle.set_title("τ of the projected trace NTK", fontsize=10)
    middle.legend(fontsize=7)
    order = sorted(recovered, key=lambda name: np.mean(recovered[name]))
    right.barh(order, [np.mean(recovered[n]) for n in order], color="0.85")
    for row, name in enumerate(order):
        right.plot(recovered[name], [row] * len(recovered[name]), "o", color="C3", markersize=4)
    right.axvline(share, color="0.4", linestyle=":", linewidth=1)
    right.set_title("poison found at its count (⋯ chance)", fontsize=10)
    right.tick_params(axis="y", labelsize=7)
    return figure


CLAIM = Claim(
    number=72,
    slug="trace-ntk-surrogates",
    statement=(
        "A kernel GLM on the cosine-normalised trace NTK of a trained network ranks test samples as the network does, "
        "better than kernels of its activations, and its coefficients point at poisoned training samples."
    ),
    baselines=(
        "conjugate and embedding kernels",
        "cosine of the pixels",
        "the trace NTK before training",
        "for poison: similarity alone, and the loss",
    ),
    measure=measure,
    presets={
        "quick": {"samples": 400, "seeds": 2, "epochs": 30, "sketch_sizes": (16, 64, 256), "poison": 0.05},
        "full": {
            "samples": 1000,
            "seeds": 3,
            "epochs": 30,
            "sketch_sizes": (16, 64, 256, 1024),
            "poison": 0.05,
            "data": "mnist",
        },
    },
    data={"full": ("mnist",)},
)
