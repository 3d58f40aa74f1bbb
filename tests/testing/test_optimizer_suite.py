"""The suite of optimisers passes torch's own, and notices what is wrong with others."""

import pytest
import torch

from tangrams.testing.conformance import Case, conformance
from tangrams.testing.suites.optimizer import OptimizerSuite


def parameters():
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((4, 3), (5,))]


def sgd(initial, gradients):
    values, buffers = [v.clone() for v in initial], [torch.zeros_like(v) for v in initial]
    for step in gradients:
        for value, buffer, gradient in zip(values, buffers, step, strict=True):
            buffer.mul_(0.9).add_(gradient)
            value -= 0.1 * buffer
    return values


def adam(initial, gradients):
    values = [v.clone() for v in initial]
    for i, value in enumerate(values):
        m, v = torch.zeros_like(value), torch.zeros_like(value)
        for t, step in enumerate(gradients, 1):
            m, v = 0.9 * m + 0.1 * step[i], 0.999 * v + 0.001 * step[i] ** 2
            value -= 0.01 * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
    return values


TestTorch = conformance(
    OptimizerSuite,
    Case(lambda: torch.optim.SGD(parameters(), lr=0.1, momentum=0.9), reference=sgd),
    Case(lambda: torch.optim.Adam(parameters(), lr=0.01), reference=adam),
)


class Drifting(torch.optim.SGD):
    """Moves without a gradient, and forgets its momentum in a state dict."""

    def step(self, closure=None):
        loss = super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p.add_(1e-3)
        return loss

    def state_dict(self):
        return {**super().state_dict(), "state": {}}


@pytest.mark.parametrize(
    "check",
    [
        "first_steps_equal_the_formula",
        "state_dict_resumes_to_the_bit",
        "a_zero_gradient_moves_nothing",
        "a_missing_gradient_is_skipped",
        "each_group_has_its_rate",
    ],
)
def test_the_suite_notices_a_faulty_optimiser(check):
    case = Case(lambda: Drifting(parameters(), lr=0.1, momentum=0.9), reference=sgd)
    with pytest.raises(AssertionError):
        getattr(OptimizerSuite, f"check_{check}")(case)
