"""Learning curves: fits against a general solver, intervals."""

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from tangrams.lens.learning_curve import LearningCurve, RiskLaw, measure_learning_curve

SIZES = (100, 150, 220, 330, 500, 700, 1000)


def curve_of(risks):
    losses = torch.tensor(risks, dtype=torch.float64)[:, None, None].expand(-1, 2, 30).clone()
    return LearningCurve(SIZES, losses)


@pytest.mark.parametrize(("a", "b", "c"), [(0.1, 2.0, 0.6), (0.0, 1.0, 0.3), (0.05, 40.0, 1.2)])
def test_a_curve_that_is_a_power_law_is_recovered(a, b, c):
    law = curve_of([a + b * n**-c for n in SIZES]).fit()
    for n in (100, 1000, 2000):
        assert law(n) == pytest.approx(a + b * n**-c, rel=0.02)


def test_the_fit_is_as_good_as_a_general_solver_finds():
    generator = np.random.default_rng(0)
    for _ in range(5):
        risks = np.array([0.08 + 1.5 * n**-0.5 for n in SIZES]) * (1 + 0.05 * generator.normal(size=len(SIZES)))
        law = curve_of(risks).fit()

        def misfit(p, risks=risks):
            return (p[0] + p[1] * np.array(SIZES, float) ** -p[2]) / risks - 1

        best = least_squares(misfit, [0.05, 1.0, 0.5], bounds=([0, 0, 0.05], [np.inf, np.inf, 2.0]))
        ours = 0.5 * float(np.square(misfit([law.a, law.b, law.c])).sum())
        assert ours <= best.cost * 1.02 + 1e-12


def test_a_rising_curve_is_called_flat_and_none_goes_below_zero():
    law = curve_of([0.1 + 1e-4 * n for n in SIZES]).fit()
    assert law.b == 0
    steep = curve_of([5.0 * n**-1.0 for n in SIZES]).fit()
    assert steep.a >= 0
    assert steep(10**6) >= 0


def test_bootstrap_intervals_cover_the_measured_risk_and_shrink_with_more_samples():
    generator = torch.Generator().manual_seed(0)

    def noisy(m):
        mean = torch.tensor([0.1 + 2 * n**-0.6 for n in SIZES], dtype=torch.float64)
        noise = 0.5 + torch.rand(len(SIZES), 4, m, generator=generator, dtype=torch.float64)
        return LearningCurve(SIZES, mean[:, None, None] * noise)

    small, large = noisy(50), noisy(5000)
    for curve in (small, large):
        low, high = curve.intervals().unbind(1)
        assert bool(((low <= curve.risk) & (curve.risk <= high)).all())
    width = [float(c.bootstrap((2000,)).quantile(0.95) - c.bootstrap((2000,)).quantile(0.05)) for c in (small, large)]
    assert width[1] < width[0] / 3
    torch.testing.assert_close(small.bootstrap((2000,), seed=1), small.bootstrap((2000,), seed=1))


def test_the_curve_measures_what_refitting_gives():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 10, generator=generator, dtype=torch.float64)
    new = torch.randn(25, 10, generator=generator, dtype=torch.float64)
    y, wanted = x[:, :1] ** 2, new[:, :1] ** 2
    K, cross = (1 + x @ x.T) ** 2, (1 + new @ x.T) ** 2
    curve = measure_learning_curve(K, cross, y, wanted, 0.01, sizes=(20, 60), repeats=2)
    mean, ridge = y.mean(), 0.01 * float(K.diagonal().mean())
    full = mean + cross @ torch.linalg.inv(K + ridge * torch.eye(60).double()) @ (y - mean)
    torch.testing.assert_close(curve.losses[1, 0], (full - wanted).square().sum(1), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(curve.losses[1, 0], curve.losses[1, 1])
    assert float(curve.risk[0]) > float(curve.risk[1])


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="at least 20"):
        measure_learning_curve(torch.eye(5), torch.ones(2, 5), torch.ones(5, 1), torch.ones(2, 1), 0.1)


def test_a_power_law_is_a_function_of_n():
    assert RiskLaw(0.1, 2.0, 1.0)(4) == pytest.approx(0.6)
