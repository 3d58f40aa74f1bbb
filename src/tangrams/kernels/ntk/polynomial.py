"""The tangent kernels of polynomial networks: products of branches, by the product rule of the algebra."""

from __future__ import annotations

from typing import Any

from tangrams.kernels.ntk.analytic import AnalyticNTK
from tangrams.kernels.ntk.dual import DualActivation
from tangrams.kernels.ntk.layers import Dense, Layer, Offset, ParallelProduct, Serial


class ProductNTK(AnalyticNTK):
    r"""The neural tangent kernel of a product of branches, read out by one layer [012].

    .. math:: f(x) = \frac{σ_w}{\sqrt m} \sum_r v_r \prod_b h_{b,r}(x), \qquad
              K = \prod_b K_b, \qquad Θ = σ_w^2 \Big(K + \sum_b Θ_b \prod_{b' \neq b} K_{b'}\Big) + σ_b^2

    On the sphere of squared radius d, branches ``Serial(Dense(2**0.5), ReLU())`` have K(x, x) = 1.

    Args:
        *branches: two or more layers of the algebra; see :class:`~tangrams.kernels.ntk.ParallelProduct`.
        W_std: σ_w of the readout.
        b_std: σ_b of the readout.
        **kwargs: of :class:`~tangrams.kernels.ntk.AnalyticNTK`.

    Shape:
        ``(n, d)`` → ``(n, m)``.

    Raises:
        ValueError: if there are fewer than two branches, or a standard deviation is negative.
    """

    def __init__(self, *branches: Layer, W_std: float = 1.0, b_std: float = 0.0, **kwargs: Any) -> None:
        super().__init__(Serial(ParallelProduct(*branches), Dense(W_std, b_std)), **kwargs)


class CCPNTK(AnalyticNTK):
    r"""The neural tangent kernel of a :class:`~tangrams.nn.polynomial.CCP` without activation, of infinite width [012].

    .. math:: K = K_1 (K_1 + 1)^{N-1}, \qquad
              Θ = K + Θ_1 (K_1 + 1)^{N-1} + (N - 1)\, Θ_1 K_1 (K_1 + 1)^{N-2}

    with :math:`K_1 = Θ_1 = σ_w^2 x^⊤ x' / d` those of one factor. The closed form needs factors of mean zero, which
    those behind a ReLU are not.

    Args:
        degree: N.
        W_std: σ_w of each factor.
        b_std: of the readout.
        **kwargs: of :class:`~tangrams.kernels.ntk.AnalyticNTK`.

    Shape:
        ``(n, d)`` → ``(n, m)``.

    Raises:
        ValueError: if ``degree < 1``, or a standard deviation is negative.
    """

    def __init__(self, degree: int = 2, *, W_std: float = 1.0, b_std: float = 0.0, **kwargs: Any) -> None:
        _check("CCPNTK", degree)
        factor = Dense(W_std)
        layers = [factor, *[Serial(Dense(W_std), Offset(1.0)) for _ in range(degree - 1)]]
        product = factor if degree == 1 else ParallelProduct(*layers)
        super().__init__(Serial(product, Dense(1.0, b_std)), **kwargs)


class NCPNTK(AnalyticNTK):
    r"""The neural tangent kernel of an :class:`~tangrams.nn.polynomial.NCP` of infinite width [012].

    .. math:: K_n = K_σ (K_{n-1} + σ_b^2), \qquad
              Θ_n = Θ_σ (K_{n-1} + σ_b^2) + K_σ (K_{n-1} + σ_b^2 + Θ_{n-1})

    with K_σ, Θ_σ those of one factor σ(Ax), and the readout behind them.

    Args:
        degree: N.
        activation: σ; None for the identity.
        W_std: σ_w of the factors of the input.
        b_std: σ_b.
        **kwargs: of :class:`~tangrams.kernels.ntk.AnalyticNTK`.

    Shape:
        ``(n, d)`` → ``(n, m)``.

    Raises:
        ValueError: if ``degree < 1``, or a standard deviation is negative.
    """

    def __init__(
        self,
        degree: int = 2,
        activation: DualActivation | None = None,
        *,
        W_std: float = 1.0,
        b_std: float = 1.0,
        **kwargs: Any,
    ) -> None:
        _check("NCPNTK", degree)
        factor = Dense(W_std) if activation is None else Serial(Dense(W_std), activation)
        network: Layer = factor
        for _ in range(degree - 1):
            network = ParallelProduct(factor, Serial(network, Dense(1.0, b_std)))
        super().__init__(Serial(network, Dense(1.0, b_std)), **kwargs)


def _check(who: str, degree: int) -> None:
    if degree < 1:
        raise ValueError(f"{who} needs degree ≥ 1, got {degree}")
