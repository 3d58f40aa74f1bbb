"""The spectral form of kernel ridge against the plain formula and refits."""

import pytest
import torch

from tangrams.operators.ridge import GramSpectrum


@pytest.fixture
def problem():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(23, 40, generator=generator, dtype=torch.float64)
    test = torch.randn(7, 40, generator=generator, dtype=torch.float64)
    y = torch.randn(23, 3, generator=generator, dtype=torch.float64) + 2
    return x @ x.T / 40, test @ x.T / 40, y


def plain_fit(K, cross, y, ridge):
    """The definition, by a dense inverse."""
    mean = y.mean(0)
    return mean + cross @ torch.linalg.inv(K + ridge * torch.eye(len(K), dtype=K.dtype)) @ (y - mean)


@pytest.mark.parametrize("delta", [1e-3, 0.1, 1.0, 30.0])
def test_leave_one_out_in_closed_form_equals_refitting(problem, delta):
    K, _, y = problem
    spectrum = GramSpectrum.of(K)
    ridge = delta * float(K.diagonal().mean())
    slow = torch.stack(
        [
            y[i] - plain_fit(K[keep][:, keep], K[i, keep][None], y[keep], ridge)[0]
            for i in range(len(K))
            for keep in [torch.arange(len(K)) != i]
        ]
    )
    torch.testing.assert_close(spectrum.loo_residuals(y, delta), slow, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("delta", [1e-3, 1.0])
def test_hat_weights_and_dual_give_the_plain_formula(problem, delta):
    K, cross, y = problem
    spectrum = GramSpectrum.of(K)
    ridge = delta * float(K.diagonal().mean())
    want = plain_fit(K, cross, y, ridge)
    by_weights = y.mean(0) + spectrum.weights(cross, delta) @ (y - y.mean(0))
    by_dual = y.mean(0) + cross @ spectrum.dual(y, delta)
    torch.testing.assert_close(by_weights, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(by_dual, want, rtol=1e-10, atol=1e-10)
    fitted = plain_fit(K, K, y, ridge)
    torch.testing.assert_close(y - spectrum.residuals(y, delta), fitted, rtol=1e-10, atol=1e-10)
    H = spectrum.hat(delta)
    torch.testing.assert_close(y.mean(0) + H @ (y - y.mean(0)), fitted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(H.diagonal(), spectrum.hat_diagonal(delta), rtol=1e-10, atol=1e-10)
    assert spectrum.effective_dimension(delta) == pytest.approx(float(H.trace()), rel=1e-10)


def test_generalised_cross_validation_uses_the_trace_of_the_whole_smoother(problem):
    K, _, y = problem
    n, delta = len(K), 0.3
    spectrum = GramSpectrum.of(K)
    centre = torch.full((n, n), 1 / n, dtype=K.dtype)
    H = spectrum.hat(delta)
    S = centre + H @ (torch.eye(n, dtype=K.dtype) - centre)
    want = float((y - S @ y).square().sum(1).mean()) / (1 - float(S.trace()) / n) ** 2
    assert spectrum.gcv_error(y, delta) == pytest.approx(want, rel=1e-10)
    assert GramSpectrum.of(K).gcv_error(y, 1e-14) == float("inf")


@pytest.mark.parametrize(
    ("K", "match"), [(torch.zeros(3, 3), "trace zero"), (torch.ones(3, 2), "square"), (torch.ones(3), "square")]
)
def test_gram_matrices_that_are_none_are_refused(K, match):
    with pytest.raises(ValueError, match=match):
        GramSpectrum.of(K)


def test_leaving_one_out_of_one_is_refused():
    with pytest.raises(ValueError, match="two samples"):
        GramSpectrum.of(torch.ones(1, 1)).loo_residuals(torch.ones(1, 1, dtype=torch.float64), 1.0)
