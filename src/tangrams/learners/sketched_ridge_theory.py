"""What sketching does to ridge regression in the limit: an equivalent penalty and an excess risk [024]."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from tangrams.operators import Sketch


def equivalent_penalty(eigenvalues: Float[Tensor, "r"], sketch: Sketch, penalty: float) -> float:
    r"""μ with ``Sᵀ (S C Sᵀ + λ)⁻¹ S ≈ (C + μ)⁻¹``, from the spectrum of C = XᵀX/n itself, before anything is sketched.

    .. math:: \mu = \lambda\, \frac{\alpha (1 + \omega w)}{\alpha + w}, \qquad
        w = -\frac1p \sum_i \frac{c_i}{c_i + \mu}, \quad \alpha = q/p

    where ω is the sketch's ``orthogonality``: 0 for independent entries, 1 for rows of a rotation. The estimator's
    ``equivalent_ridge`` reads the same number off a sketched design.

    Args:
        eigenvalues: c, those of XᵀX/n that are not zero.
        sketch: bound to p columns.
        penalty: λ > 0.

    Raises:
        ValueError: if the penalty is not positive.
    """
    if not penalty > 0:
        raise ValueError(f"equivalent_penalty expects a positive penalty, got {penalty}")
    c, p, q = eigenvalues.double(), sketch.in_features, sketch.num_features

    def excess(log_mu: float) -> float:
        # (α + w) μ − λ α (1 + ω w): negative for small μ, positive for large.
        mu = 10.0**log_mu
        w = -float((c / (c + mu)).sum()) / p
        return (q / p + w) * mu - penalty * q / p * (1 + sketch.orthogonality * w)

    top = float(c.max()) if len(c) else 1.0
    low, high = torch.tensor(penalty).log10().item() - 1, torch.tensor(penalty + p / q * top + top).log10().item() + 3
    root: Any = brentq(excess, low, high, xtol=1e-13)
    return 10.0 ** float(root)


def sketching_excess(
    X: Float[Tensor, "n p"],
    y: Float[Tensor, "n"],
    sketch: Sketch,
    penalty: float,
    covariance: Float[Tensor, "p p"] | None = None,
) -> float:
    r"""V, what one sketch adds to the squared risk of ridge regression at μ; K independent ones add V/K.

    .. math:: V = -\dot\mu\, \lambda^2\, S'(w)\, \tfrac1p \mathrm{tr}\left[(C+\mu)^{-1} \Sigma (C+\mu)^{-1}\right]
        \|b_\mu\|^2

    with S the S-transform ``α(1 + ωw)/(α + w)``, ``μ̇ = dμ/dλ`` and b_μ the ridge solution at μ.

    Args:
        X: the design, without an intercept.
        y: targets.
        sketch: bound to the p columns.
        penalty: λ > 0.
        covariance: Σ of new samples; C itself if absent, which gives what sketching adds to the training error.
    """
    n, p = X.shape
    U, s, Vt = torch.linalg.svd(X.double(), full_matrices=False)
    c = s.square() / n
    mu = equivalent_penalty(c, sketch, penalty)
    alpha, omega = sketch.num_features / p, sketch.orthogonality
    w, slope = -float((c / (c + mu)).sum()) / p, float((c / (c + mu).square()).sum()) / p  # w and dw/dμ
    value = alpha * (1 + omega * w) / (alpha + w)
    derivative = alpha * (alpha * omega - 1) / (alpha + w) ** 2
    mu_dot = value / (1 - penalty * derivative * slope)
    if covariance is None:
        spread = float((c / (c + mu).square()).sum())
    else:
        # (C + μ)⁻² has 1/(c + μ)² on the span of X and 1/μ² beyond it.
        energy = torch.linalg.vecdot(Vt @ covariance.double(), Vt)
        outside = float(covariance.double().diagonal().sum() - energy.sum()) / mu**2
        spread = float((energy / (c + mu).square()).sum()) + outside
    norm = float(((s / n / (c + mu)) * (U.mT @ y.double())).square().sum())
    return -mu_dot * penalty**2 * derivative * spread / p * norm


def row_sketched_gcv(
    ensemble: Float[Tensor, "n"], members: Sequence[Float[Tensor, "n"]], dofs: Sequence[float], num_rows: int
) -> float:
    r"""Cross-validation of an ensemble whose *rows* were sketched, (T X, T y), where the plain formula is biased.

    .. math:: \mathrm{GCV}_K - \frac{\bar t^2 c}{K (1-\bar t)^2}\,
        \mathrm{mean}_k \frac{\|y - X b_k\|^2/n}{(1 - t_k)^2 + c\, t_k^2}, \qquad t_k = d_k/n, \; c = n/m - 1

    For independent T_k of m rows of a rotation, scaled to E TᵀT = I, subsamples among them; for T of independent
    entries the bias is larger and this takes off a part of it. The fraction is the risk of one member.

    Args:
        ensemble: residuals ``y − X b`` of the ensemble on all n rows.
        members: residuals of each member.
        dofs: d_k, each member's smoother trace on its sketched rows.
        num_rows: m, how many sketched rows a member sees.

    Raises:
        ValueError: if there are not as many traces as members.
    """
    if len(members) != len(dofs):
        raise ValueError(f"row_sketched_gcv got {len(members)} members and {len(dofs)} traces")
    n, K = len(ensemble), len(members)
    c, t = n / num_rows - 1, [dof / n for dof in dofs]
    mean = sum(t) / K
    plain = float(ensemble.square().mean()) / (1 - mean) ** 2
    alone = [float(r.square().mean()) / ((1 - share) ** 2 + c * share**2) for r, share in zip(members, t, strict=True)]
    return plain - mean**2 * c / (K * (1 - mean) ** 2) * sum(alone) / K
