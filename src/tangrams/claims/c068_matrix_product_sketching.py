"""Coordinated samples of sparse rows estimate a product better than linear sketches of the same size [068].

The root mean square of ``‖W − AᵀB‖_F / (‖A‖_F ‖B‖_F)`` over seeds at equal storage in words, for priority, threshold
and end-biased samples against Gaussian, count and sparse-sign projections of the rows, and against rows sampled
without coordination: on synthetic tables whose rows have 5 of 100 entries and whose keys overlap in part, on the same
tables with dense rows, and on co-occurrences of the words of two texts. Sampled rows are heavier than most, and so
longer where length goes with weight: a budget pays for as many as it holds on average over the draws. Then regression
over a join, count sketches having as many rows as a sample or as many words as all samples together, and the products
of queries and keys of an attention layer trained on digits, whose coordinates are sampled.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.sparse
import torch
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tangrams.claims.base import Claim, Evidence
from tangrams.data import load
from tangrams.learners import JoinRegression
from tangrams.operators import (
    CountSketch,
    GaussianSketch,
    PrioritySampler,
    RowSample,
    RowSampler,
    Sketch,
    SparseSketch,
    ThresholdSampler,
    estimate_product,
    norms,
    squared_norms,
    uniform,
)

_SAMPLES: dict[str, Callable[[int, int], RowSampler]] = {
    "priority": lambda k, seed: PrioritySampler(k, seed=seed),
    "threshold": lambda k, seed: ThresholdSampler(k, seed=seed),
    "end-biased": lambda k, seed: ThresholdSampler(k, weights=norms, seed=seed),
}
_LINEAR: dict[str, Callable[[int, int], Sketch]] = {
    "Gaussian": lambda k, seed: GaussianSketch(k, seed=seed),
    "count sketch": lambda k, seed: CountSketch(k, seed=seed),
    "sparse signs": lambda k, seed: SparseSketch(k, nonzeros=min(4, k), seed=seed),
}
_ALONE = "uncoordinated"


def measure(rows: int, overlaps: Sequence[float], budgets: Sequence[int], seeds: int, text: str | None) -> Evidence:
    """Errors at equal words for each setting, then the two uses."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    spent: dict[str, dict[int, dict[str, float]]] = {}
    for overlap in overlaps:
        name = f"sparse, overlap {overlap:.0%}"
        found[name], spent[name] = _errors(*_tables(rows, 0.05, overlap), budgets, seeds)
    for name, tables, affordable in (
        ("dense, overlap 100%", _tables(rows, 1.0, 1.0), budgets[-1:]),
        (text or "digits, joined by pixel", _words(text), budgets),
    ):
        found[name], spent[name] = _errors(*tables, affordable, seeds)
    ratios = {
        name: {words: _best(errors, _SAMPLES) / _best(errors, _LINEAR) for words, errors in by_words.items()}
        for name, by_words in found.items()
    }
    last = budgets[-1]
    sparse = [ratios[f"sparse, overlap {overlap:.0%}"][last] for overlap in overlaps]
    dense, real = ratios["dense, overlap 100%"][last], ratios[text or "digits, joined by pixel"][last]
    regression, attention = _regression(rows, seeds), _attention(seeds)
    verdict = "holds" if max(sparse) < 0.5 and real < 1 else "holds in part" if max(sparse) < 1 else "does not hold"
    sentence = (
        f"At {last} words a table ({rows} rows, 5 of 100 entries, {seeds} seeds) the best sample's error is "
        f"{min(sparse):.2f} to {max(sparse):.2f} of the best linear sketch's for overlaps of "
        f"{overlaps[0]:.0%} to {overlaps[-1]:.0%}, {dense:.2f} on dense rows, {real:.2f} on "
        f"{text or 'digits joined by pixel'}. Over a join, {regression['rows']:.0f} of {rows} rows give the "
        f"coefficients to {regression['by norms']:.3f} by norms and {regression['by keys']:.3f} by keys alone, count "
        f"sketches of as many rows to {regression['count sketch, equal rows']:.3f}, of as many words "
        f"({regression['rows at equal words']:.0f} rows) to {regression['count sketch, equal words']:.3f}. For "
        f"attention scores {attention['kept']:.0f} of {attention['of']:.0f} coordinates leave "
        f"{attention['priority']:.2f} of the norm by sampling, {attention['Gaussian']:.2f} by Gaussian projection."
    )
    numbers = {
        "errors": found,
        "sample_over_linear": ratios,
        "words_spent": spent,
        "join_regression": regression,
        "attention": attention,
    }
    return Evidence(verdict, sentence, numbers, _figure(found, budgets))


def _tables(n: int, share: float, overlap: float) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Two tables of 100 columns with keys in common; a row's size is lognormal, and its own in both."""
    rng = np.random.default_rng(round(100 * overlap))
    size = rng.lognormal(0, 0.5, 2 * n)
    keys = np.arange(n), np.arange(n) + n - round(overlap * n)
    parts = []
    for own in keys:
        values = rng.standard_normal((n, 100)) * size[own, None]
        if share < 1:
            values *= rng.random((n, 100)).argsort(1) < round(100 * share)
        parts.append(scipy.sparse.csr_array(values) if share < 1 else torch.from_numpy(values))
    return parts[0], parts[1], *keys


def _words(text: str | None) -> tuple[Any, Any, np.ndarray, np.ndarray]:
    """Counts of words (log, by inverse document frequency) in the chunks of two halves of a text; or two digit sets.

    For digits a key is a pixel of one of twelve groups of images, so that rows are sparse over a party's images.
    """
    if text is None:
        images = load_digits().data  # type: ignore[attr-defined]
        pixels = np.arange(64 * 12)
        blocks = [[half[g * 50 : (g + 1) * 50].T for g in range(12)] for half in (images[:600], images[600:1200])]
        tables = [scipy.sparse.csr_array(scipy.sparse.block_diag(groups)) for groups in blocks]
        return tables[0], tables[1], pixels, pixels
    tokens = np.array("".join(c if c.isalpha() else " " for c in load(text).lower()).split())
    tables, keys = [], []
    for half in np.array_split(tokens, 2):
        words, index = np.unique(half, return_inverse=True)
        chunk = np.arange(len(half)) * 100 // len(half)
        counts = scipy.sparse.coo_array((np.ones(len(half)), (index, chunk)), shape=(len(words), 100)).tocsr()
        counts.data = np.log1p(counts.data)
        idf = np.log(101 / (1 + np.diff(counts.indptr)))
        tables.append(scipy.sparse.csr_array(counts.multiply(idf[:, None])))
        keys.append(words)
    return tables[0], tables[1], keys[0], keys[1]


def _errors(
    A: Any, B: Any, left: np.ndarray, right: np.ndarray, budgets: Sequence[int], seeds: int
) -> tuple[dict[int, dict[str, float]], dict[int, dict[str, float]]]:
    """Relative root mean square errors, and the words spent on a table, which are at most those given on average."""
    tables, together = ((A, left), (B, right)), np.union1d(left, right)
    aligned = [_aligned(table, keys, together) for table, keys in tables]
    truth = aligned[0] @ aligned[1].mT
    scale = float(aligned[0].norm() * aligned[1].norm())
    found: dict[int, dict[str, float]] = {}
    spent: dict[int, dict[str, float]] = {}
    for words in budgets:
        errors: dict[str, list[float]] = {}
        sizes: dict[str, list[float]] = {}
        counts = {name: _rows_for(words, A, B, make(2, 0).weights) for name, make in _SAMPLES.items()}
        for seed in range(seeds):
            for name, make in _SAMPLES.items():
                samples = [make(n, seed).sample(*table) for n, table in zip(counts[name], tables, strict=True)]
                errors.setdefault(name, []).append(float((estimate_product(*samples) - truth).norm()) / scale)
                sizes.setdefault(name, []).append(float(np.mean([sample.words for sample in samples])))
            hashes = (2 * seed, 2 * seed + 1)
            apart = zip(counts["threshold"], hashes, tables, strict=True)
            samples = [ThresholdSampler(n, seed=own).sample(*table) for n, own, table in apart]
            errors.setdefault(_ALONE, []).append(float((_alone(*samples) - truth).norm()) / scale)
            sizes.setdefault(_ALONE, []).append(float(np.mean([sample.words for sample in samples])))
            for name, make in _LINEAR.items():
                sketches = [make(max(1, words // len(table)), seed).bind(len(together)) for table in aligned]
                k = min(sketch.num_features for sketch in sketches)
                sketch = make(k, seed).bind(len(together))
                product = sketch.project(aligned[0]) @ sketch.project(aligned[1]).mT
                errors.setdefault(name, []).append(float((product - truth).norm()) / scale)
                sizes.setdefault(name, []).append(float(np.mean([k * len(table) for table in aligned])))
        spent[words] = {name: float(np.mean(values)) for name, values in sizes.items()}
        found[words] = {name: math.sqrt(float(np.mean(np.square(values)))) for name, values in errors.items()}
    return found, spent


def _aligned(table: Any, keys: np.ndarray, together: np.ndarray) -> Tensor:
    """The transposed table over all keys, zeros where it has none: what a linear sketch reads."""
    dense = table if isinstance(table, Tensor) else torch.from_numpy(table.toarray())
    out = torch.zeros(dense.shape[1], len(together), dtype=torch.float64)
    out[:, torch.from_numpy(np.searchsorted(together, keys))] = dense.mT
    return out


def _rows_for(words: int, A: Any, B: Any, weights: Callable[[Any], np.ndarray]) -> list[int]:
    """How many rows of each table a budget pays for, on average over samples by these weights."""
    affordable = []
    for table in (A, B):
        worth = weights(table)
        entries = np.full(len(worth), table.shape[1]) if isinstance(table, Tensor) else 2 * np.diff(table.indptr)

        def price(count: int, worth: np.ndarray = worth, cost: np.ndarray = entries + 2) -> float:
            tau = ThresholdSampler(count).threshold(worth)
            return 3 + float(cost @ (worth > 0 if math.isinf(tau) else np.minimum(1, tau * worth)))

        affordable.append(max(2, bisect.bisect_right(range(int((worth > 0).sum()) + 1), words, key=price, lo=1) - 1))
    return affordable


def _alone(a: RowSample, b: RowSample) -> Tensor:
    """The estimate from samples by different hashes: a row is in both with the product of its probabilities."""
    _, i, j = np.intersect1d(a.keys, b.keys, assume_unique=True, return_indices=True)
    scale = torch.from_numpy(1 / (a.probabilities[i] * b.probabilities[j]))
    first, second = (
        sample.rows if isinstance(sample.rows, Tensor) else torch.from_numpy(sample.rows.toarray()) for sample in (a, b)
    )
    return (first[i].mT * scale) @ second[j]


def _best(errors: dict[str, float], names: Any) -> float:
    return min(errors[name] for name in names)


def _regression(n: int, seeds: int) -> dict[str, float]:
    """Three parties hold four columns, two, and the target; the root mean square error of the coefficients."""
    rng = np.random.default_rng(0)
    A = torch.from_numpy(rng.standard_normal((n, 4)) * (rng.random((n, 4)) < 0.3))
    B = torch.from_numpy(rng.standard_normal((n, 2)) + A[:, :2].numpy())
    beta = torch.tensor([1.0, -1.0, 2.0, 0.5, 1.0, -2.0], dtype=torch.float64)
    X = torch.cat([A, B], 1)
    y = X @ beta + torch.from_numpy(rng.standard_normal(n))
    k = n // 10
    exact = torch.linalg.lstsq(X, y[:, None]).solution[:, 0]
    errors: dict[str, list[float]] = {}
    words = 0
    for seed in range(seeds):
        for name, weights in (("by norms", squared_norms), ("by keys", uniform)):
            tables = [PrioritySampler(k, weights=weights, seed=seed).sample(table) for table in (A, B, y)]
            coef = JoinRegression().fit_samples(tables[:2], tables[2]).coef_
            errors.setdefault(name, []).append(float((torch.from_numpy(coef) - exact).norm()))
            words = sum(table.words for table in tables)
        for name, size in (("equal rows", k), ("equal words", words // 7)):  # seven columns, the target's among them
            sketch = CountSketch(size, seed=seed).bind(n)
            sketched = torch.linalg.lstsq(sketch.project(X.mT).mT, sketch.project(y[None]).mT).solution[:, 0]
            errors.setdefault(f"count sketch, {name}", []).append(float((sketched - exact).norm()))
    means = {name: math.sqrt(float(np.mean(np.square(values)))) for name, values in errors.items()}
    return {"rows": float(k), "words": float(words), "rows at equal words": float(words // 7), **means}


def _attention(seeds: int) -> dict[str, float]:
    """Scores ``Q Kᵀ`` of a trained layer as a sum over its coordinates, of which a fourth is kept."""
    data = load_digits()
    x = torch.tensor(data.data, dtype=torch.float32).reshape(-1, 8, 8) / 16  # type: ignore[attr-defined]
    labels = torch.tensor(data.target)  # type: ignore[attr-defined]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        query, key, value, head = nn.Linear(8, 64), nn.Linear(8, 64), nn.Linear(8, 32), nn.Linear(256, 10)
        parameters = [p for layer in (query, key, value, head) for p in layer.parameters()]
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        for _ in range(60):
            optimizer.zero_grad()
            weights = (query(x) @ key(x).mT / 8).softmax(-1)
            nn.functional.cross_entropy(head((weights @ value(x)).flatten(1)), labels).backward()
            optimizer.step()
    with torch.no_grad():
        Q, K = query(x[:64]).flatten(0, 1).double(), key(x[:64]).flatten(0, 1).double()
    truth, kept = Q @ K.mT, 16
    errors: dict[str, list[float]] = {"priority": [], "Gaussian": []}
    for seed in range(seeds):
        samples = [PrioritySampler(kept, seed=seed).sample(M.mT.contiguous()) for M in (Q, K)]
        errors["priority"].append(float((estimate_product(*samples) - truth).norm() / truth.norm()))
        sketch = GaussianSketch(kept, seed=seed).bind(64)
        errors["Gaussian"].append(float((sketch.project(Q) @ sketch.project(K).mT - truth).norm() / truth.norm()))
    means = {name: math.sqrt(float(np.mean(np.square(values)))) for name, values in errors.items()}
    return {"kept": float(kept), "of": 64.0, **means}


def _figure(found: dict[str, dict[int, dict[str, float]]], budgets: Sequence[int]) -> Figure:
    shown = [name for name in found if len(found[name]) > 1]
    figure = Figure(figsize=(3.2 * len(shown), 3.4), layout="constrained")
    for axis, name in zip(np.atleast_1d(figure.subplots(1, len(shown), sharey=True)), shown, strict=True):
        for i, method in enumerate([*_SAMPLES, _ALONE, *_LINEAR]):
            style = "-o" if method in _SAMPLES else ":x" if method == _ALONE else "--s"
            axis.loglog(budgets, [found[name][w][method] for w in budgets], style, color=f"C{i}", label=method)
        axis.set_title(name, fontsize=9)
        axis.set_xticks(budgets, [str(words) for words in budgets])
        axis.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
        axis.set_xlabel("words a table")
    figure.axes[0].set_ylabel("‖W − AᵀB‖ / ‖A‖‖B‖")
    figure.axes[0].legend(fontsize=6)
    return figure


CLAIM = Claim(
    number=68,
    slug="matrix-product-sketching",
    statement=(
        "Products of matrices with sparse rows are estimated from coordinated samples of rows, made apart, with a far "
        "smaller error than from linear sketches of equal storage; with dense rows both are alike."
    ),
    baselines=("Gaussian projection", "a count sketch", "sparse signs", "samples without coordination"),
    measure=measure,
    presets={
        "quick": {"rows": 4000, "overlaps": (0.1, 1.0), "budgets": (2000, 8000), "seeds": 10, "text": None},
        "full": {
            "rows": 20_000,
            "overlaps": (0.1, 0.5, 1.0),
            "budgets": (2000, 4000, 8000, 16_000),
            "seeds": 12,
            "text": "tiny_shakespeare",
        },
    },
)
