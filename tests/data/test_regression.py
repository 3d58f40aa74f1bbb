import math

import numpy as np
import pytest
import torch

from tangrams.data import (
    Split,
    ackley,
    franke,
    friedman1,
    friedman2,
    friedman3,
    nonpolynomial,
    parametric_curve,
    skewed_spiral,
    unit_circle,
)

GENERATORS = [parametric_curve, ackley, franke, nonpolynomial, friedman1, friedman2, friedman3]


def both(split):
    return torch.cat([split.train.inputs, split.test.inputs]), torch.cat([split.train.targets, split.test.targets])


def curve(x):
    radius = x.norm(dim=1)
    return (radius - 1).clamp_min(0).sqrt()  # |z|: the sign is on the angle


def ackley_reference(x):
    a, b = x[:, 0], x[:, 1]
    inner = 0.5 * (torch.cos(2 * math.pi * a) + torch.cos(2 * math.pi * b))
    return -20 * torch.exp(-0.2 * torch.sqrt(0.5 * (a * a + b * b))) - torch.exp(inner) + math.e + 20


def franke_reference(x):
    total = 0
    for w, g in [
        (0.75, lambda u, v: (9 * u - 2) ** 2 / 4 + (9 * v - 2) ** 2 / 4),
        (0.75, lambda u, v: (9 * u + 1) ** 2 / 49 + (9 * v + 1) / 10),
        (0.5, lambda u, v: (9 * u - 7) ** 2 / 4 + (9 * v - 3) ** 2 / 4),
        (0.2, lambda u, v: (9 * u - 4) ** 2 + (9 * v - 7) ** 2),
    ]:
        total = total + w * torch.exp(-g(x[:, 0], x[:, 1]))
    return total


def nonpolynomial_reference(x):
    return ((30 + 5 * x[:, 0] * torch.sin(5 * x[:, 0])) * (4 + torch.exp(-5 * x[:, 1])) - 100) / 6


def friedman1_reference(x):
    x1, x2, x3, x4, x5 = x[:, :5].unbind(1)
    return 10 * torch.sin(math.pi * x1 * x2) + 20 * (x3 - 0.5) ** 2 + 10 * x4 + 5 * x5


def friedman2_reference(x):
    a, b, c, d = x.unbind(1)
    return (a**2 + (b * c - 1 / (b * d)) ** 2).sqrt()


def friedman3_reference(x):
    a, b, c, d = x.unbind(1)
    return torch.atan((b * c - 1 / (b * d)) / a)


REFERENCES = {
    ackley: ackley_reference,
    franke: franke_reference,
    nonpolynomial: nonpolynomial_reference,
    friedman1: friedman1_reference,
    friedman2: friedman2_reference,
    friedman3: friedman3_reference,
}


@pytest.mark.parametrize("generator", REFERENCES, ids=lambda g: g.__name__)
def test_targets_without_noise_are_the_function(generator):
    x, y = both(generator(40, 30, noise=0.0))
    torch.testing.assert_close(y, REFERENCES[generator](x), rtol=1e-12, atol=1e-12)


def test_the_curve_winds_with_its_height():
    x, y = both(parametric_curve(50, 50, noise=0.0))
    torch.testing.assert_close(y.abs(), curve(x), rtol=1e-6, atol=1e-6)
    t = math.pi * y  # z in [−2, 2] goes with t in [−2π, 2π]
    torch.testing.assert_close(x, ((y**2 + 1)[:, None] * torch.stack([t.sin(), t.cos()], 1)), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(y.sort().values, torch.linspace(-2, 2, 100, dtype=torch.float64))


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: g.__name__)
def test_noise_has_the_stated_deviation_on_both_parts(generator):
    clean, noisy = generator(2000, 2000, noise=0.0, seed=3), generator(2000, 2000, noise=2.0, seed=3)
    for part in ("train", "test"):
        one, other = getattr(clean, part), getattr(noisy, part)
        torch.testing.assert_close(one.inputs, other.inputs)
        z = (other.targets - one.targets) / 2
        assert abs(float(z.mean())) * 2000**0.5 < 4
        assert abs(float(z.var()) - 1) * (2000 / 2) ** 0.5 < 4


@pytest.mark.parametrize("generator", [*GENERATORS, skewed_spiral, unit_circle], ids=lambda g: g.__name__)
def test_a_seed_fixes_everything_and_shapes_are_as_said(generator):
    one, two, other = generator(20, 10, seed=1), generator(20, 10, seed=1), generator(20, 10, seed=2)
    assert isinstance(one, Split)
    assert one.train.inputs.shape[0] == len(one.train.targets) == 20
    assert len(one.test.targets) == 10
    assert one.train.inputs.dtype == one.train.targets.dtype == torch.float64
    assert torch.equal(one.train.inputs, two.train.inputs)
    assert torch.equal(one.test.targets, two.test.targets)
    assert not torch.equal(one.train.inputs, other.train.inputs)


@pytest.mark.parametrize(
    ("generator", "low", "high"),
    [(ackley, 1, 7), (franke, -0.5, 1), (nonpolynomial, 0, 2)],
    ids=["ackley", "franke", "nonpolynomial"],
)
def test_each_part_is_a_latin_hypercube_of_its_square(generator, low, high):
    split = generator(50, 30)
    for part, num in ((split.train, 50), (split.test, 30)):
        slices = np.floor((part.inputs.numpy() - low) / (high - low) * num).astype(int)
        assert [sorted(column) for column in slices.T] == [list(range(num))] * 2


def test_the_circle_has_the_product_of_its_coordinates():
    split = unit_circle(7, 100)
    x, y = both(split)
    torch.testing.assert_close(x.norm(dim=1), torch.ones(107, dtype=torch.float64))
    torch.testing.assert_close(y, x[:, 0] * x[:, 1])
    angle = torch.atan2(split.test.inputs[:, 1], split.test.inputs[:, 0])
    torch.testing.assert_close(angle[1:].diff(), torch.full((98,), 2 * math.pi / 100, dtype=torch.float64))


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: g.__name__)
@pytest.mark.parametrize("options", [{"num_train": 0}, {"num_test": -1}, {"noise": -1.0}, {"noise": float("nan")}])
def test_what_is_no_problem_is_refused(generator, options):
    with pytest.raises(ValueError, match=r"both parts|deviation"):
        generator(**options)
