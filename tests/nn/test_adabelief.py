"""AdaBelief: the suite of optimisers, and what its name says."""

import pytest
import torch
from torch import nn

from tangrams.nn.optim import AdaBelief
from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.optimizer import OptimizerSuite


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in ((5, 3), (4,), (2, 2, 3))]


def by_hand(initial, gradients, lr=0.1, b1=0.8, b2=0.95, eps=1e-6, root=1e-9, decay=0.0):
    values = [v.clone() for v in initial]
    for value, *steps in zip(values, *gradients, strict=True):
        m, s = torch.zeros_like(value), torch.zeros_like(value)
        for t, g in enumerate(steps, start=1):
            m = b1 * m + (1 - b1) * g
            s = b2 * s + (1 - b2) * (g - m) ** 2 + root
            value -= lr * decay * value
            value -= lr * (m / (1 - b1**t)) / ((s / (1 - b2**t)) ** 0.5 + eps)
    return values


OPTIONS = {"lr": 0.1, "betas": (0.8, 0.95), "eps": 1e-6, "eps_root": 1e-9}

TestAdaBelief = conformance(OptimizerSuite, Case(lambda: AdaBelief(parameters(), **OPTIONS), reference=by_hand))


def test_weight_decay_is_decoupled():
    ours, theirs = parameters(), [p.detach().clone() for p in parameters()]
    optimizer = AdaBelief(ours, **OPTIONS, weight_decay=0.3)
    gradients = [[torch.ones_like(p) * t for p in ours] for t in (1.0, 2.0, -1.0)]
    for gradient in gradients:
        for p, g in zip(ours, gradient, strict=True):
            p.grad = g
        optimizer.step()
    for p, expected in zip(ours, by_hand(theirs, gradients, decay=0.3), strict=True):
        torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-10)


def test_surprise_costs_more_than_it_does_in_adam():
    ratios = {}
    for kind in (AdaBelief, torch.optim.Adam):
        steady, noisy = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        optimizer = kind([steady, noisy], lr=0.01)
        for t in range(50):
            steady.grad, noisy.grad = torch.ones(1), torch.ones(1) * (1.0 + 2.0 * (-1) ** t)
            optimizer.step()
        ratios[kind] = steady.item() / noisy.item()
    assert ratios[AdaBelief] > 1.5 * ratios[torch.optim.Adam] > 1.5


@pytest.mark.parametrize(
    "options", [{"lr": -1.0}, {"eps": -1.0}, {"eps_root": -1e-3}, {"weight_decay": -0.1}, {"betas": (0.9, 1.0)}]
)
def test_settings_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match="AdaBelief needs"):
        AdaBelief(parameters(), **options)
