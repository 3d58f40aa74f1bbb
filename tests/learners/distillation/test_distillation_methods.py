"""How the quadratics of distillation are solved, and how rates are found."""

import math

import pytest
import torch

from tangrams.learners.distillation import (
    AdamMethod,
    ConjugateGradients,
    Frozen,
    ImplicitGradient,
    InnerDivergenceError,
    StepSize,
    adam_quadratic_solve,
)
from tangrams.learners.distillation.step_size import score


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_clipping_never_lets_the_implicit_part_outgrow_the_direct_one():
    direct, implicit = {"a": draw(5), "b": draw(5, seed=1)}, {"a": 100 * draw(5, seed=2), "b": 0.01 * draw(5, seed=3)}
    clipped = ImplicitGradient(0.0, direct, implicit, []).clipped()
    added = {name: clipped[name] - direct[name] for name in direct}
    assert float(added["a"].norm()) == pytest.approx(float(direct["a"].norm()))
    torch.testing.assert_close(added["b"], implicit["b"])
    for bad in (torch.zeros(5), torch.full((5,), math.nan), torch.full((5,), math.inf)):
        assert ImplicitGradient(0.0, {"a": direct["a"]}, {"a": bad.double()}, []).clipped()["a"].equal(direct["a"])


def quadratic(condition=30.0):
    scale = torch.logspace(0, math.log10(condition), 12, dtype=torch.float64)
    b = draw(12)

    def value_and_gradient(omega):
        w = omega["w"]
        return 0.5 * (scale * w**2).sum() - (b * w).sum(), {"w": scale * w - b}

    return Frozen(value_and_gradient, lambda omega, v: {"w": scale * v["w"]}), {"w": b / scale}


def test_conjugate_gradients_end_at_the_minimum_and_trace_the_quadratic():
    frozen, best = quadratic()
    found, losses = ConjugateGradients().minimise(frozen, {"w": torch.zeros(12).double()}, 12)
    torch.testing.assert_close(found["w"], best["w"], rtol=1e-7, atol=1e-9)
    assert losses[1] < losses[0] == 0
    g = {"w": draw(12, seed=7)}
    hvp = lambda v: frozen.hessian_product(g, v)  # noqa: E731
    v, trace = ConjugateGradients().invert(hvp, g, 12)
    torch.testing.assert_close(hvp(v)["w"], g["w"], rtol=1e-5, atol=1e-7)
    assert trace == sorted(trace, reverse=True)
    few, _ = ConjugateGradients().invert(hvp, g, 5)
    value = lambda u: float((u["w"] * (hvp(u)["w"] - 2 * g["w"])).sum())  # noqa: E731
    assert trace[5] == pytest.approx(value(few))
    # Where the curvature is not positive there is no minimum to go to.
    stopped, _ = ConjugateGradients().invert(lambda v: {"w": -v["w"]}, g, 5)
    assert float(stopped["w"].abs().max()) == 0


def test_adam_traces_the_quadratic_and_comes_closer():
    frozen, _ = quadratic()
    g = {"w": draw(12, seed=7)}
    hvp = lambda v: frozen.hessian_product(g, v)  # noqa: E731
    v, trace = adam_quadratic_solve(hvp, g, 300, 0.02)
    assert trace[0] == 0
    assert trace[:20] == sorted(trace[:20], reverse=True)
    torch.testing.assert_close(hvp(v)["w"], g["w"], rtol=0.1, atol=0.05)


def test_adams_rates_are_raised_until_a_run_stops_falling():
    frozen, _ = quadratic()
    method = AdamMethod(inner_lr=1e-4, hessian_lr=1e-4)
    method.prepare(frozen, {"w": torch.zeros(12).double()}, {"w": draw(12, seed=7)}, 20, 20)
    for rate in (method.inner.value, method.hessian.value):
        assert 1e-3 < rate < 10
        grown = math.log(rate / 0.7 / 1e-4, 1.2)
        assert grown == pytest.approx(round(grown), abs=1e-6)
    fixed = AdamMethod(inner_lr=0.02, tune=False)
    fixed.prepare(frozen, {"w": torch.zeros(12).double()}, {"w": draw(12)}, 20, 20)
    assert fixed.inner.value == 0.02


def test_a_run_that_runs_away_is_tried_at_half_the_rate_and_then_given_up():
    wild = Frozen(lambda w: ((-w["w"].square()).exp().sum().log().neg() + 1, {"w": 2 * w["w"] - 9}), lambda w, v: v)
    method = AdamMethod(inner_lr=1e6, tune=False)
    _, losses = method.minimise(quadratic()[0], {"w": torch.zeros(12).double() + 1e-3}, 0)
    assert losses == []
    with pytest.raises(InnerDivergenceError, match="raise ridge_rate"):
        AdamMethod(inner_lr=1e6, tune=False).minimise(wild, {"w": torch.zeros(3).double()}, 20)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([3, 2, 1], 1), ([3, 4, 2], 0), ([3, 2, 3.5], -1), ([3.0], 0), ([], 0), ([3, math.nan], -1)],
)
def test_runs_are_scored(losses, expected):
    assert score(losses) == expected


def test_the_rate_follows_the_shares_of_scores():
    bad, good, mixed = [1.0, 2.0], [2.0, 1.0], [2.0, 3.0, 1.0]
    for runs, factor in (([bad] * 3 + [mixed] * 7, 0.9), ([good] * 7 + [mixed] * 3, 1.05), ([mixed] * 10, 1.0)):
        rate = StepSize(1.0, interval=10)
        for run in runs[:-1]:
            rate.record(run)
        assert rate.value == 1.0
        rate.record(runs[-1])
        assert rate.value == pytest.approx(factor)
    still = StepSize(1.0, interval=1, adapts=False)
    still.record(bad)
    assert still.value == 1.0
