"""How faithfully a surrogate's outputs track the network it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import logit
from scipy.stats import binom, kendalltau

from tangrams.learners.base import as_array


@dataclass(frozen=True)
class Fidelity:
    """A surrogate beside its network, on the same samples.

    Attributes:
        kendall_tau: τ_b between the two probabilities of the true class; NaN where one is constant.
        agreement: the share of samples that both put into the same class.
        accuracy_difference: the surrogate's accuracy minus the network's, signed; zero is faithful.
        misclassified_overlap: |both wrong| / |either wrong|; NaN where neither errs.
        overlap_p_value: the chance of as many common errors if the surrogate erred independently of the network.
        r2: of the surrogate's probability of the true class as a prediction of the network's.
        r2_logit: the same after the logit, which spreads out what saturates.
    """

    kendall_tau: float
    agreement: float
    accuracy_difference: float
    misclassified_overlap: float
    overlap_p_value: float
    r2: float
    r2_logit: float


def surrogate_fidelity(network: Any, surrogate: Any, y: Any) -> Fidelity:
    r"""Compare the probabilities of a surrogate with those of its network [072].

    Common errors under the null hypothesis that the surrogate errs where it pleases are
    :math:`\mathrm{Binomial}(|W_s|, |W_n| / n)`, with W the sets of wrong samples; the p-value is its upper tail.

    Args:
        network: probabilities ``(n, C)``; ``(n,)`` for the second of two classes.
        surrogate: likewise.
        y: true class of each sample, 0 … C−1.

    Raises:
        ValueError: if shapes differ, a row is no distribution, or a label is out of range.
    """
    p, q = _probabilities(network, "network"), _probabilities(surrogate, "surrogate")
    if p.shape != q.shape:
        raise ValueError(f"surrogate_fidelity got probabilities of shapes {p.shape} and {q.shape}")
    y = _labels(y, p)
    n = len(y)
    wrong_p, wrong_q = p.argmax(1) != y, q.argmax(1) != y
    both, either = int((wrong_p & wrong_q).sum()), int((wrong_p | wrong_q).sum())
    true_p, true_q = p[np.arange(n), y], q[np.arange(n), y]
    # A probability of exactly 0 or 1 has no logit: half a rounding step inside.
    inside = np.finfo(np.float64).eps / 2
    tau: Any = kendalltau(true_p, true_q, variant="b")
    return Fidelity(
        kendall_tau=float(tau.statistic),
        agreement=float((p.argmax(1) == q.argmax(1)).mean()),
        accuracy_difference=float(wrong_p.mean() - wrong_q.mean()),
        misclassified_overlap=both / either if either else float("nan"),
        overlap_p_value=float(binom.sf(both - 1, int(wrong_q.sum()), wrong_p.mean())),
        r2=_r2(true_p, true_q),
        r2_logit=_r2(logit(true_p.clip(inside, 1 - inside)), logit(true_q.clip(inside, 1 - inside))),
    )


def _r2(target: np.ndarray, prediction: np.ndarray) -> float:
    spread = float(((target - target.mean()) ** 2).sum())
    return 1 - float(((target - prediction) ** 2).sum()) / spread if spread > 0 else float("nan")


def _probabilities(values: Any, who: str) -> np.ndarray:
    p = as_array(values).astype(np.float64)
    if p.ndim == 1:
        p = np.stack([1 - p, p], axis=1)
    if p.ndim != 2 or p.shape[0] == 0 or p.shape[1] < 2:
        raise ValueError(f"surrogate_fidelity expects probabilities (n, C) of the {who}, got shape {p.shape}")
    wrong = ~np.isfinite(p).all(1) | (p < -1e-6).any(1) | (abs(p.sum(1) - 1) > 1e-3)
    if wrong.any():
        raise ValueError(
            f"surrogate_fidelity expects distributions, row {int(wrong.argmax())} of the {who} is none: "
            "pass probabilities, not logits"
        )
    return p


def _labels(y: Any, p: np.ndarray) -> np.ndarray:
    labels = as_array(y)
    if labels.shape != (len(p),):
        raise ValueError(f"surrogate_fidelity expects {len(p)} labels, got shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= p.shape[1]:
        raise ValueError(
            f"surrogate_fidelity expects labels in 0 … {p.shape[1] - 1}, got {labels.min()}…{labels.max()}"
        )
    return labels.astype(np.int64)
