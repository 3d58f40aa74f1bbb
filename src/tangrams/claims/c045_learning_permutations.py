"""Wide networks trained on k basis vectors permute the bits of any input, once enough of them are averaged [045].

For k bits and a random permutation, ensembles are drawn from the exact law of infinitely wide networks, and the
smallest number of networks for which many random inputs all come out is compared with the union bound, and its growth
with that of k log k. Finite networks are trained for k = 5 and asked all 31 inputs. Baselines: a single network, and
the linear map of least norm through the same samples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tangrams.claims.base import Claim, Evidence
from tangrams.lens import ensemble_size
from tangrams.models import FinitePermutationEnsemble, InfinitePermutationEnsemble

_DELTA = 0.05


def measure(bits: Sequence[int], inputs: int, trials: int, width: int, networks: Sequence[int], seeds: int) -> Evidence:
    """Sizes for each k over trials, then finite networks over seeds."""
    needed = {k: [_needed(k, inputs, seed) for seed in range(trials)] for k in bits}
    bounds = {k: ensemble_size(k, _DELTA, num_inputs=inputs) for k in bits}
    every = {k: ensemble_size(k, _DELTA) for k in bits}
    limit = all(_accuracy(InfinitePermutationEnsemble(_permutation(k, 0)), _random(k, inputs, 0)) == 1 for k in bits)
    single = float(
        np.mean([_accuracy(InfinitePermutationEnsemble(_permutation(k, 0), 1), _random(k, inputs, 0)) for k in bits])
    )
    linear = all(_linear(k, inputs) == 1 for k in bits)
    below = all(np.quantile(needed[k], 1 - _DELTA) <= bounds[k] for k in bits)
    growth = float(np.median(needed[bits[-1]]) / np.median(needed[bits[0]]))
    stated = bits[-1] * math.log(bits[-1]) / (bits[0] * math.log(bits[0]))

    finite = {count: [_finite(count, width, seed) for seed in range(seeds)] for count in networks}
    exact = [float(np.mean(finite[count])) for count in networks]
    rises = exact[-1] == 1 and exact[0] < 1
    parts = [limit, below, rises, growth <= stated]
    verdict = "holds" if all(parts) else "holds in part" if any(parts) else "does not hold"
    last = bits[-1]
    sentence = (
        f"The mean of infinitely wide networks is right on all of {inputs} random inputs for k = {bits[0]} to {last}; "
        f"one network on {single:.1%} of them. At k = {last} {np.median(needed[last]):.0f} networks are enough (median "
        f"of {trials}; the bound asks for {bounds[last]}, for all inputs {every[last]}); the need grew "
        f"{growth:.1f} times from k = {bits[0]}, k log k {stated:.1f} times. Networks of width {width} at k = 5 get "
        f"{', '.join(f'{v:.1%}' for v in exact)} of all inputs right with {', '.join(map(str, networks))} averaged. "
        f"The linear map of least norm through the same samples makes no mistake by itself: {linear}."
    )
    numbers: dict[str, Any] = {
        "needed": {str(k): found for k, found in needed.items()},
        "bound_for_these_inputs": {str(k): value for k, value in bounds.items()},
        "bound_for_all_inputs": {str(k): value for k, value in every.items()},
        "growth": growth,
        "growth_of_k_log_k": stated,
        "one_network": single,
        "linear_map_is_exact": linear,
        "finite_accuracy": {str(count): found for count, found in finite.items()},
    }
    return Evidence(verdict, sentence, numbers, _figure(needed, bounds, finite))


def _permutation(k: int, seed: int) -> Tensor:
    return torch.randperm(k, generator=torch.Generator().manual_seed(seed))


def _random(k: int, count: int, seed: int) -> Tensor:
    """Nonzero inputs, their number of ones uniform, so that the hard ones are among them."""
    generator = torch.Generator().manual_seed(1000 + seed)
    ones = torch.randint(1, k + 1, (count, 1), generator=generator)
    ranks = torch.rand(count, k, generator=generator).argsort(1).argsort(1)
    return (ranks < ones).to(torch.float64)


def _accuracy(ensemble: InfinitePermutationEnsemble | FinitePermutationEnsemble, x: Tensor) -> float:
    return float((ensemble.predict(x) == ensemble.permuted(x)).all(1).double().mean())


def _needed(k: int, inputs: int, seed: int) -> int:
    """Smallest number of networks at which one draw gets every input right; more networks shrink the same draw."""
    x, permutation = _random(k, inputs, seed), _permutation(k, seed)
    mean = InfinitePermutationEnsemble(permutation).decision(x)
    one = InfinitePermutationEnsemble(permutation, 1, seed=seed)
    noise = one.decision(x) - mean
    wrong_way = torch.where(one.permuted(x), -noise, noise)
    gap = torch.where(one.permuted(x), mean, -mean)
    open_question = x.sum(1) > 1
    ratio = (wrong_way / gap)[open_question].clamp_min(0)
    return max(1, math.ceil(float(ratio.max()) ** 2))


def _linear(k: int, inputs: int) -> float:
    x, permutation = _random(k, inputs, 0), _permutation(k, 0)
    weights = torch.linalg.lstsq(torch.eye(k, dtype=torch.float64), torch.eye(k, dtype=torch.float64)[permutation])
    predicted = x @ weights.solution > 0.5
    truth = InfinitePermutationEnsemble(permutation).permuted(x)
    return float((predicted == truth).all(1).double().mean())


def _finite(networks: int, width: int, seed: int) -> float:
    x = torch.cartesian_prod(*[torch.tensor([0, 1])] * 5)[1:]
    return _accuracy(FinitePermutationEnsemble(_permutation(5, seed), networks, width, seed=seed), x)


def _figure(needed: dict[int, list[int]], bounds: dict[int, int], finite: dict[int, list[float]]) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    ks = list(needed)
    left.plot(ks, [np.median(needed[k]) for k in ks], "-o", label="needed, median")
    left.fill_between(ks, [min(needed[k]) for k in ks], [max(needed[k]) for k in ks], alpha=0.2)
    left.plot(ks, list(bounds.values()), "--", color="0.4", label="union bound")
    left.set(xlabel="bits k", ylabel="networks", title="all random inputs exact")
    left.legend(fontsize=8)
    counts = list(finite)
    right.semilogx(counts, [np.mean(finite[c]) for c in counts], "-o")
    for c in counts:
        right.plot([c] * len(finite[c]), finite[c], "k.", markersize=4)
    right.set_xticks(counts, [str(c) for c in counts])
    right.set_xticks([], minor=True)
    right.set(xlabel="trained networks averaged", ylabel="exact share of all 31 inputs", title="finite width, k = 5")
    return figure


CLAIM = Claim(
    number=45,
    slug="learning-permutations",
    statement=(
        "The average of two-layer networks trained on the k basis vectors permutes every nonzero binary input exactly; "
        "the number of networks grows like k log k for one input, k² for all."
    ),
    baselines=("a single network", "the linear map of least norm through the same samples"),
    measure=measure,
    presets={
        "quick": {
            "bits": (5, 10, 15, 20),
            "inputs": 300,
            "trials": 15,
            "width": 500,
            "networks": (1, 20, 200, 1000),
            "seeds": 3,
        },
        "full": {
            "bits": (5, 10, 15, 20, 25, 30),
            "inputs": 1000,
            "trials": 20,
            "width": 2000,
            "networks": (1, 20, 200, 1000),
            "seeds": 5,
        },
    },
)
