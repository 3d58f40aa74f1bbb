"""Studies to draw in tests: plausible numbers from a kernel ridge on pixels, nothing from a network."""

from __future__ import annotations

import copy
import math
from functools import cache
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from tangrams.study.report import png, signed_png

DELTA = 1.0


def estimate(value: float, spread: float | None = None, how: str | None = None) -> dict[str, Any]:
    if spread is None:
        return {"value": float(value), "interval": None, "how": how or "one run: no interval"}
    interval = [float(value - spread), float(value + spread)]
    return {"value": float(value), "interval": interval, "how": how or "95 % Wilson"}


def score(value: float, spread: float | None = None, /, **baselines: float) -> dict[str, Any]:
    named = [{"name": k.replace("_", " "), "value": estimate(v)} for k, v in baselines.items()]
    return {"value": estimate(value, spread), "baselines": named}


@cache
def _digits() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Images and labels of 600 training and 150 test digits, and which 30 labels were planted wrong."""
    data = load_digits()
    images, labels = torch.tensor(data.images) / 16, torch.tensor(data.target)
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(images), generator=generator)[:750]
    images, labels = images[order], labels[order]
    planted = torch.zeros(600, dtype=torch.bool)
    planted[torch.randperm(600, generator=generator)[:30]] = True
    images[590:600] = images[:10]
    labels[590:600] = labels[:10]
    planted[590:600] = planted[:10] = False
    return images[:600], labels[:600], images[600:], labels[600:], planted


@cache
def _ridge() -> dict[str, Any]:
    x, true, x_test, y_test, planted = _digits()
    given = torch.where(planted, (true + 3) % 10, true)
    flat, flat_test = x.flatten(1), x_test.flatten(1)
    K, k = torch.exp(-(torch.cdist(flat, flat) ** 2) / 4), torch.exp(-(torch.cdist(flat_test, flat) ** 2) / 4)
    targets = torch.nn.functional.one_hot(given, 10).double()
    base = targets.mean(0)
    inverse = torch.linalg.inv(K + DELTA * torch.eye(len(K), dtype=K.dtype))
    weights = k @ inverse
    outputs = base + weights @ (targets - base)
    tight = torch.linalg.inv(K + 0.05 * torch.eye(len(K), dtype=K.dtype))
    loo = targets - (tight @ (targets - base)) / tight.diagonal()[:, None]
    own = loo.gather(1, given[:, None])[:, 0]
    rest = loo.scatter(1, given[:, None], -math.inf)
    generator = torch.Generator().manual_seed(1)
    network = 6 * outputs + 0.6 * torch.randn(outputs.shape, generator=generator, dtype=outputs.dtype)
    return {
        "x": x,
        "true": true,
        "given": given,
        "planted": planted,
        "x_test": x_test,
        "y_test": y_test,
        "K": K,
        "weights": weights,
        "targets": targets,
        "base": base,
        "outputs": outputs,
        "margin": own - rest.max(1).values,
        "suggested": rest.argmax(1),
        "probabilities": torch.softmax(2 * network, 1),
    }


def _explanations(r: dict[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for i in range(len(r["x_test"])):
        c = int(r["outputs"][i].argmax())
        a = r["weights"][i] * (r["targets"][:, c] - r["base"][c])
        order = a.argsort()
        top, bottom = order.flip(0)[:8], order[:8]
        for_all, against_all = float(a.clamp(min=0).sum()), float(a.clamp(max=0).sum())
        rows.append(
            {
                "id": f"test/{i}",
                "label": int(r["y_test"][i]),
                "predicted": int(r["probabilities"][i].argmax()),
                "probabilities": r["probabilities"][i].tolist(),
                "explained": c,
                "output": float(r["outputs"][i, c]),
                "base": float(r["base"][c]),
                "supporters": [{"id": f"train/{int(j)}", "weight": float(a[j])} for j in top],
                "opposers": [{"id": f"train/{int(j)}", "weight": float(a[j])} for j in bottom],
                "others_for": max(0.0, for_all - float(a[top].sum())),
                "others_against": min(0.0, against_all - float(a[bottom].sum())),
            }
        )
    return rows


def _labels(r: dict[str, Any]) -> dict[str, Any]:
    order = r["margin"].argsort()
    count = 33
    suspects = []
    for j in order[:60].tolist():
        suggested = int(r["suggested"][j])
        close = r["K"][j] * (r["given"] == suggested)
        suspects.append(
            {
                "id": f"train/{j}",
                "given": int(r["given"][j]),
                "suggested": suggested,
                "score": float(r["margin"][j]),
                "neighbours": [f"train/{int(n)}" for n in close.argsort(descending=True)[:2]],
                "planted": bool(r["planted"][j]),
                "true": int(r["true"][j]),
            }
        )
    hits = r["planted"][order].double().cumsum(0)
    ranks = torch.arange(1, len(hits) + 1)
    keep = torch.unique(torch.logspace(0, math.log10(len(hits)), 60).round().long()) - 1
    recall, precision = (hits / hits[-1])[keep], (hits / ranks)[keep]
    curves = [{"name": "tangent ridge", "baseline": False, "recall": recall.tolist(), "precision": precision.tolist()}]
    for name, power in (("loss ranking", 1.6), ("input neighbours", 0.7), ("untrained network", 0.1)):
        worse = (precision * (1 - 0.5 * power * recall**2)).clamp(0.05, 1)
        curves.append({"name": name, "baseline": True, "recall": recall.tolist(), "precision": worse.tolist()})
    return {
        "state": "measured",
        "method": "leave-one-out",
        "delta": 0.05,
        "count": count,
        "of": 600,
        "suspects": suspects,
        "precision": [
            {"count": n, "precision": estimate(p, 0.05, "95 % bootstrap over 20 rounds of flips")}
            for n, p in ((10, 0.95), (20, 0.92), (33, 0.87), (60, 0.49))
        ],
        "planted": {
            "count": 30,
            "found_in_count": 29,
            "average_precision": score(
                0.991,
                0.006,
                loss_ranking=0.723,
                input_neighbours=0.943,
                untrained_network=0.989,
                random=0.05,
            ),
            "top_tenth": score(0.99, None, loss_ranking=0.861, random=0.1),
            "suggested_right": estimate(0.97, 0.03),
            "curves": curves,
        },
    }


def _redundancy() -> dict[str, Any]:
    how = "spread over 3 random subsets"
    points = (
        (0.05, 0.951, 0.918),
        (0.1, 0.981, 0.964),
        (0.2, 0.986, 0.979),
        (0.3, 0.988, 0.984),
        (0.5, 0.989, 0.988),
        (1.0, 0.99, 0.99),
    )
    return {
        "state": "measured",
        "exact": [[f"train/{i}", f"train/{590 + i}"] for i in range(10)],
        "exact_count": 10,
        "conflicting": 0,
        "near": [{"a": "train/20", "b": "train/31", "similarity": 0.81}],
        "near_count": 1,
        "threshold": {"value": 0.47, "quantile": 0.9999},
        "curve": [
            {"fraction": f, "chosen": estimate(a, 0.005), "random": estimate(b, 0.01, how)} for f, a, b in points
        ],
        "all": estimate(0.99, 0.008),
        "retrained": [
            {"fraction": f, "chosen": estimate(a), "random": estimate(b)}
            for f, a, b in ((0.1, 0.924, 0.887), (0.2, 0.964, 0.929), (0.3, 0.97, 0.946))
        ],
        "retrained_all": estimate(0.98, 0.01),
        "keep": {"value": 0.18, "interval": [0.12, 0.22], "how": "spread over 3 starts"},
        "tolerance": 0.01,
        "planted": {"exact": 10, "exact_found": 10, "near": 4, "near_found": 1},
    }


def _richness(r: dict[str, Any]) -> dict[str, Any]:
    eigenvalues = torch.linalg.eigvalsh(r["K"]).flip(0)
    ranks = torch.unique(torch.logspace(0, math.log10(len(eigenvalues) - 1), 120).round().long())
    measured = [(60, 0.239), (120, 0.214), (300, 0.196), (600, 0.184)]
    return {
        "state": "measured",
        "spectrum": {
            "ranks": ranks.tolist(),
            "eigenvalues": [max(float(v), 1e-9) for v in eigenvalues[ranks - 1]],
        },
        "exponent": {"value": 1.48, "interval": [1.41, 1.55], "how": "spread over 5 fitting windows"},
        "windows": [{"from": 10, "to": 300, "exponent": 1.48}, {"from": 20, "to": 200, "exponent": 1.55}],
        "effective_dimension": {"value": 166.0, "delta": 0.05, "of": 600},
        "risk": {
            "metric": "squared test error of the clean-up model",
            "unit": "",
            "measured": [{"n": n, "risk": estimate(v, 0.008, "spread over 3 random subsets")} for n, v in measured],
            "fit": {"a": 0.15, "b": 0.6, "c": 0.45},
            "extrapolation": [
                {"n": n, "risk": estimate(v, s, "95 % bootstrap")}
                for n, v, s in ((900, 0.178, 0.01), (1200, 0.174, 0.015))
            ],
            "eigenframework": [
                {"n": n, "risk": estimate(v, 0.004, "spread over 5 fitting windows")}
                for n, v in ((60, 0.231), (120, 0.211), (300, 0.197), (600, 0.184), (1200, 0.171))
            ],
            "check": {
                "from": 120,
                "to": 600,
                "predicted": estimate(0.19, 0.01, "spread over 3 subsets"),
                "measured": 0.184,
            },
        },
        "features": {
            "rows": [
                {"k": k, "measured": estimate(v, 0.01, "spread over 3 random draws"), "predicted": v + 0.004}
                for k, v in ((16, 0.41), (64, 0.26), (256, 0.19))
            ],
            "all": estimate(0.184, 0.008, "95 % bootstrap over test samples"),
            "within": 0.05,
            "enough": 256,
            "foreseen": None,
        },
        "feature_learning": {
            "trained": estimate(0.99, 0.008),
            "initial": estimate(0.985, 0.01),
            "difference": estimate(0.005, 0.009, "paired bootstrap"),
        },
    }


def _fragility(r: dict[str, Any]) -> dict[str, Any]:
    top = r["outputs"].topk(2, 1)
    distance = (top.values[:, 0] - top.values[:, 1]).clamp(min=0.004) * 1.4
    right = r["probabilities"].argmax(1) == r["y_test"]
    order = distance.argsort()[:10].tolist()
    generator = torch.Generator().manual_seed(2)
    closest = []
    for j in order:
        change = torch.randn(8, 8, generator=generator, dtype=torch.float64) * 0.05
        closest.append(
            {
                "id": f"test/{j}",
                "predicted": int(top.indices[j, 0]),
                "toward": int(top.indices[j, 1]),
                "distance": float(distance[j]),
                "radius": float(distance[j] * 1.05),
                "sensitivity": 7.5,
                "perturbation": signed_png(change),
                "perturbed": png(r["x_test"][j] + change, low=0, high=1),
            }
        )
    return {
        "state": "measured",
        "unit": "pixel values 0–1",
        "median": estimate(float(distance.median()), 0.04, "95 % bootstrap"),
        "distances": [
            {
                "id": f"test/{i}",
                "distance": float(distance[i]),
                "confidence": float(r["probabilities"][i].max()),
                "right": bool(right[i]),
            }
            for i in range(len(distance))
        ],
        "closest": closest,
        "attack": {
            "name": "DeepFool",
            "spearman": estimate(0.997, 0.001, "95 % bootstrap"),
            "ratio": estimate(1.05, 0.02),
        },
        "error_detection": score(0.956, 0.02, confidence=0.966),
        "sensitivity": {"median": estimate(6.2, 0.3), "error_detection": estimate(0.7, 0.05)},
    }


def _layers() -> dict[str, Any]:
    rows = []
    for name, kind, shape, dead, ratio, exponent, share, flags in (
        ("0", "Conv2d", [16, 1, 3, 3], 0.0, 2.1, None, 0.02, []),
        ("2", "Conv2d", [32, 16, 3, 3], 0.06, 2.6, 0.52, 0.05, []),
        ("5", "Linear", [64, 512], 0.48, 1.9, 0.43, 0.19, [{"measure": "dead", "direction": "high"}]),
        ("7", "Linear", [10, 64], None, 11.4, None, 0.74, [{"measure": "norm", "direction": "high"}]),
    ):
        spectrum = (
            None
            if exponent is None
            else {
                "value": 4.0 * exponent,
                "fresh": 4.0,
                "ratio": exponent,
                "band": [0.3, 0.85],
                "eigenvalues": 32,
            }
        )
        rows.append(
            {
                "name": name,
                "kind": kind,
                "shape": shape,
                "parameters": math.prod(shape) + shape[0],
                "dead": None if dead is None else {"share": dead, "units": shape[0], "limit": 0.3},
                "norm": {"value": ratio * 0.8, "fresh": 0.8, "ratio": ratio, "band": [1.15, 8.0]},
                "exponent": spectrum,
                "tangent_share": share,
                "flags": flags,
            }
        )
    return {"state": "measured", "layers": rows, "samples": 600}


@cache
def _classification() -> dict[str, Any]:
    r = _ridge()
    sections = {
        "explanations": {
            "state": "measured",
            "delta": DELTA,
            "samples": _explanations(r),
            "of": 150,
            "quality": {
                "largest_gap": 3e-15,
                "same_class": estimate(1.0, None, "every test sample counted"),
                "busiest": estimate(0.027),
                "cancellation": estimate(1.8, 0.1),
                "planted_in_top": estimate(0.003),
                "datamodeling": score(0.287, 0.01, input_cosine=0.256),
                "removal": score(-0.93, 0.35, random_of_the_same_class=-0.12),
            },
        },
        "labels": _labels(r),
        "redundancy": _redundancy(),
        "richness": _richness(r),
        "fragility": _fragility(r),
        "layers": _layers(),
        "next": {"state": "absent", "reason": "no pool of unlabelled samples was given"},
    }
    surrogate = {"delta": 1.0, "accuracy": estimate(0.984, 0.01), "agreement": estimate(0.973, 0.012)}
    study = {
        "version": "1.0",
        "created": "2026-11-24T20:30:00Z",
        "task": "classification",
        "model": {"name": "SmallCNN", "parameters": 38282, "trainable": 38282, "source": None},
        "data": {
            "name": "digits",
            "train": 600,
            "test": 150,
            "pool": 0,
            "classes": [str(c) for c in range(10)],
            "input_shape": [1, 8, 8],
            "target": None,
            "planted": {"label_errors": 30, "kind": "uniform", "exact_duplicates": 10, "near_duplicates": 4},
        },
        "samples": {
            **{
                f"train/{i}": {"label": int(r["given"][i]), "image": png(image, low=0, high=1)}
                for i, image in enumerate(r["x"])
            },
            **{
                f"test/{i}": {"label": int(r["y_test"][i]), "image": png(image, low=0, high=1)}
                for i, image in enumerate(r["x_test"])
            },
        },
        "cost": {"seconds": 47.3, "memory_mb": 1130.0, "cores": 2},
        "network": {"accuracy": estimate(0.953, 0.02), "train_accuracy": estimate(0.996, 0.004)},
        "surrogates": {
            "state": "measured",
            "cleanup": {**surrogate, "kendall": estimate(0.71, 0.04)},
            "mimic": {**surrogate, "agreement": estimate(0.991, 0.007), "kendall": estimate(0.85, 0.03)},
            "features": "trace NTK, cosine",
            "tuned_cleanup": {"delta": 0.05, "accuracy": estimate(0.99, 0.008)},
        },
        **sections,
        "again": {
            "command": "tangrams study --out study/ --seed 0",
            "versions": {"tangrams": "0.1.0", "torch": "2.13.0", "python": "3.11.9"},
            "seeds": {"data": 0, "model": 0},
            "fingerprints": {"model": "9f1c5a20d1", "train": "0b77aa4c1e", "test": "77d1f29a0c"},
            "steps": [{"name": "train", "seconds": 12.1}, {"name": "Gram matrix", "seconds": 3.4}],
            "platform": "Linux x86_64",
            "threads": 2,
            "study": "study.json",
            "store": "features.zarr",
        },
    }
    return study


SECTIONS = ("explanations", "labels", "redundancy", "richness", "fragility", "layers", "next")


def classification() -> dict[str, Any]:
    """Every section measured but the pool's, with planted errors and two flagged layers."""
    return copy.deepcopy(_classification())


def quiet() -> dict[str, Any]:
    """The same on data in which nothing is unusual and nothing was planted."""
    study = classification()
    study["data"]["planted"] = None
    study["labels"].update(count=0, suspects=[], precision=[], planted=None)
    study["redundancy"].update(exact=[], exact_count=0, near=[], near_count=0, planted=None)
    study["redundancy"]["keep"] = estimate(0.9, 0.05, "spread over 3 starts")
    for row in study["layers"]["layers"]:
        row["flags"] = []
    return study


def absent() -> dict[str, Any]:
    """No section could be measured."""
    study = classification()
    for name in (*SECTIONS, "surrogates"):
        study[name] = {"state": "absent", "reason": f"{name} was left out by --only"}
    study["samples"] = {}
    return study


def regression() -> dict[str, Any]:
    """Four columns of a table and a target in metres: no classes, no images."""
    study = classification()
    study["task"] = "regression"
    study["model"]["name"] = "TableMLP"
    study["data"].update(name="rivers", classes=[], input_shape=[4], target="depth (m)", planted=None)
    for i, sample in enumerate(study["samples"].values()):
        sample.pop("image")
        sample["label"] = 2 + math.sin(i)
        sample["values"] = [{"name": name, "value": round(math.cos(i * k), 3)} for k, name in enumerate("abcd", 1)]
    for row in study["explanations"]["samples"]:
        row.update(label=2.0, predicted=row["output"] * 2, probabilities=None, explained=None)
    for key in ("same_class", "planted_in_top"):
        study["explanations"]["quality"].pop(key)
    for row in study["labels"]["suspects"]:
        row.pop("planted")
        row.pop("true")
    study["labels"]["planted"] = None
    study["redundancy"]["planted"] = None
    for kind in ("cleanup", "mimic"):
        study["surrogates"][kind]["kendall"] = None
    study["fragility"] = {"state": "absent", "reason": "a regression has no decision boundary"}
    return study


def with_pool() -> dict[str, Any]:
    """The classification with a batch to label next."""
    study = classification()
    study["data"]["pool"] = 40
    batch = []
    for i, why in enumerate(("uncertain", "far", "both", "uncertain", "far")):
        study["samples"][f"pool/{i}"] = {"label": None, "image": study["samples"][f"test/{i}"]["image"]}
        batch.append({"id": f"pool/{i}", "predicted": i, "uncertainty": 0.4 - 0.05 * i, "distance": 0.9, "why": why})
    study["next"] = {
        "state": "measured",
        "method": "k-centre on tangent features",
        "batch": batch,
        "spread": score(0.62, None, random_batch=0.31),
    }
    return study


def hostile() -> dict[str, Any]:
    """Text from a user that tries to leave its place: markup, script ends, quotes, right-to-left marks."""
    study = classification()
    study["data"]["classes"] = [
        "<script>window.owned = 1</script>",
        "</script><img src=x onerror=window.owned=1>",
        "\"'`--><!--",
        "{{ 7 * 7 }}${7*7}",
        "‮evil\u2028\u2029",
        "& &amp; &lt;b&gt;",
        "a" * 300,
        "",
        "javascript:alert(1)",
        "=1+1",
    ]
    study["model"]["name"] = "<b onclick=alert(1)>net</b>"
    study["data"]["name"] = "</title><script>window.owned = 1</script>"
    study["again"]["command"] = "tangrams study '</pre><script>window.owned = 1</script>'"
    study["again"]["store"] = "javascript:window.owned=1"
    study["samples"]["test/0"]["name"] = "<img src=x onerror=window.owned=1>"
    study["layers"]["layers"][0]["name"] = "</td><script>window.owned = 1</script>"
    study["next"]["reason"] = "<script>window.owned = 1</script>"
    return study


STUDIES = {f.__name__: f for f in (classification, quiet, absent, regression, with_pool, hostile)}
