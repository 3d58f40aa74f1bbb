"""Multinomial logistic regression on plain features, to soft targets, by L-BFGS."""

from __future__ import annotations

import warnings

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize
from scipy.special import logsumexp
from sklearn.exceptions import ConvergenceWarning


def logistic_coefficients(
    Z: Float[np.ndarray, "n r"],
    targets: Float[np.ndarray, "n C"],
    *,
    penalty: float,
    weights: Float[np.ndarray, "n"] | None = None,
    fit_intercept: bool = True,
    max_iter: int,
    tol: float,
    who: str,
) -> tuple[Float[np.ndarray, "r C"], Float[np.ndarray, "C"], int]:
    r"""Minimise ``(1/n) Σ_i w_i CE(p_i, softmax(z_i β + b)) + (a/2) ‖β‖²``, a convex problem.

    Args:
        Z: features.
        targets: p, rows on the simplex.
        penalty: a; intercepts carry none.
        weights: w, one each when absent.
        fit_intercept: whether b is fitted, or zero.
        max_iter: iterations at most; a ``ConvergenceWarning`` says when they ran out.
        tol: the largest entry of the gradient at which it stops.
        who: named in the warning.

    Returns:
        β, b and the iterations made.
    """
    (n, r), C = Z.shape, targets.shape[1]
    w = (np.ones(n) if weights is None else weights)[:, None] / n

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        beta = parameters[: r * C].reshape(r, C)
        logits = Z @ beta + parameters[r * C :]
        log_p = logits - logsumexp(logits, axis=1, keepdims=True)
        error = w * (np.exp(log_p) * targets.sum(1, keepdims=True) - targets)
        value = penalty / 2 * float((beta * beta).sum()) - float((w * targets * log_p).sum())
        intercept = error.sum(0) if fit_intercept else np.zeros(C)
        return value, np.concatenate([(Z.T @ error + penalty * beta).ravel(), intercept])

    options = {"maxiter": max_iter, "maxfun": 20 * max_iter, "gtol": tol, "ftol": 0}
    found = minimize(loss, np.zeros(r * C + C), jac=True, method="L-BFGS-B", options=options)
    # With ftol = 0 a line search that can improve no further also ends it: that is convergence to rounding.
    if not found.success and float(abs(found.jac).max()) > 10 * tol:
        warnings.warn(
            f"{who} stopped after {found.nit} iterations: raise max_iter, or the penalty",
            ConvergenceWarning,
            stacklevel=4,
        )
    return found.x[: r * C].reshape(r, C), found.x[r * C :], int(found.nit)
