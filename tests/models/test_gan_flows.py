"""Discriminators of infinite width against trained networks, and the flows that they drive."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from tangrams.kernels import FullyConnectedNTK
from tangrams.kernels.ntk import RBF as RBFActivation
from tangrams.kernels.ntk import AnalyticNNGP, Dense, ReLU, Serial
from tangrams.lens import squared_mmd
from tangrams.models.gan import (
    AttractionDiscriminator,
    FiniteDiscriminator,
    GeneratorFlow,
    HingeLoss,
    IPMDiscriminator,
    IPMLoss,
    LambertDiscriminator,
    LSGANDiscriminator,
    LSGANLoss,
    ParticleFlow,
    VanillaDiscriminator,
    VanillaLoss,
)
from tangrams.nn import Antisymmetric, NTKLinear
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite

NTK = FullyConnectedNTK(2, ReLU(), W_std=1.0, b_std=1.0)
INFINITE = [IPMDiscriminator, AttractionDiscriminator, LSGANDiscriminator, VanillaDiscriminator, LambertDiscriminator]


def trained_apart():
    torch.manual_seed(0)
    module = Antisymmetric(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))).double()
    for parameter in module.negative.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module


TestAntisymmetric = conformance(
    ModuleSuite,
    Case(
        trained_apart,
        inputs=normal(3),
        reference=lambda module, x: (module.positive(x) - module.negative(x)) / math.sqrt(2),
    ),
)


class Diagonal:
    """A kernel under which samples do not see one another."""

    def gram(self, x, y=None):
        y = x if y is None else y
        return 0.7 * (torch.cdist(x, y) < 1e-9).to(x)

    def diag(self, x):
        return x.new_full((len(x),), 0.7)


def groups(n=6, m=4, d=2):
    g = torch.Generator().manual_seed(1)
    fake = torch.randn(n, d, generator=g, dtype=torch.float64)
    return fake, torch.randn(m, d, generator=g, dtype=torch.float64) + 1.5


def by_small_steps(gram, fake, real, loss, time, steps=20_000):
    """Gradient flow in function space by Euler's method on the loss itself."""
    n = len(fake)
    f = torch.zeros(n + len(real), dtype=torch.float64)
    for _ in range(steps):
        f = f.detach().requires_grad_(True)
        (slope,) = torch.autograd.grad(loss.discriminator(f[:n], f[n:]), f)
        f = f - time / steps * gram @ slope
    return f.detach()


@pytest.mark.parametrize(
    ("kind", "loss"),
    [(IPMDiscriminator, IPMLoss()), (LSGANDiscriminator, LSGANLoss()), (VanillaDiscriminator, VanillaLoss())],
    ids=["ipm", "lsgan", "vanilla"],
)
def test_closed_forms_are_the_gradient_flow_of_their_loss(kind, loss):
    fake, real = groups()
    both = torch.cat([fake, real])
    expected = by_small_steps(NTK.gram(both), fake, real, loss, 3.0)
    torch.testing.assert_close(kind(NTK, 3.0).fit(fake, real)(both), expected, rtol=1e-3, atol=1e-4)


def test_the_gradient_of_an_ipm_moves_the_squared_mmd():
    fake, real = groups()
    fake.requires_grad_(True)
    (mmd,) = torch.autograd.grad(squared_mmd(NTK, fake, real), fake)
    discriminator = IPMDiscriminator(NTK, 2.5).fit(fake, real)
    (flow,) = torch.autograd.grad(discriminator.generator_loss(fake).mean(), fake)
    torch.testing.assert_close(flow, 2.5 / 2 * mmd, rtol=1e-9, atol=1e-12)


def test_least_squares_reach_their_labels():
    fake, real = groups()
    values = LSGANDiscriminator(NTK, 1e7).fit(fake, real)(torch.cat([fake, real]))
    torch.testing.assert_close(values, torch.tensor([-1.0] * 6 + [1.0] * 4, dtype=torch.float64), rtol=0, atol=1e-4)


def test_least_squares_start_as_twice_the_ipm():
    fake, real = groups()
    x = torch.randn(5, 2, dtype=torch.float64)
    early = LSGANDiscriminator(NTK, 1e-6).fit(fake, real)(x)
    torch.testing.assert_close(early, 2 * IPMDiscriminator(NTK, 1e-6).fit(fake, real)(x), rtol=1e-4, atol=1e-15)


@pytest.mark.parametrize("time", [0.01, 3.0, 5000.0])
def test_lamberts_form_is_exact_for_a_diagonal_kernel(time):
    fake, real = groups()
    both = torch.cat([fake, real])
    exact = VanillaDiscriminator(Diagonal(), time).fit(fake, real)(both)
    form = LambertDiscriminator(Diagonal(), time).fit(fake, real)(both)
    torch.testing.assert_close(form, exact, rtol=1e-4, atol=1e-6)


def test_half_of_the_ipm_does_not_see_the_fakes():
    fake, real = groups()
    x = torch.randn(5, 2, dtype=torch.float64)
    first = AttractionDiscriminator(NTK).fit(fake, real)(x)
    torch.testing.assert_close(AttractionDiscriminator(NTK).fit(fake + 3, real)(x), first, rtol=1e-12, atol=0)
    torch.testing.assert_close(first, NTK.gram(x, real).mean(1), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", INFINITE)
def test_gradients_are_those_of_differences(kind):
    fake, real = groups()
    discriminator = kind(NTK, 2.0).fit(fake, real)
    x = torch.tensor([[0.0, 0.0], [0.3, -0.7], *real[:1].tolist()], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(discriminator.generator_loss, (x,), eps=1e-6, atol=1e-5)


def test_rotations_rotate_the_gradient():
    fake, real = groups()
    angle = 0.7
    R = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    moved = []
    for rotation in (torch.eye(2, dtype=torch.float64), R):
        flow = ParticleFlow(IPMDiscriminator(NTK), 0.5)
        moved.append(flow.run(fake @ rotation.mT, real @ rotation.mT, 3).particles[-1])
    torch.testing.assert_close(moved[1], moved[0] @ R.mT, rtol=1e-10, atol=1e-12)


def test_equal_groups_do_not_move():
    fake, _ = groups()
    flow = ParticleFlow(IPMDiscriminator(NTK), 1.0).run(fake, fake.flip(0), 2)
    torch.testing.assert_close(flow.particles[-1], fake, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", [NTK, AnalyticNNGP(Serial(Dense(), RBFActivation(0.5)))], ids=["relu", "rbf"])
def test_small_steps_never_increase_the_mmd(kernel):
    fake, real = groups(12, 9)
    start = fake.clone()
    found = ParticleFlow(IPMDiscriminator(kernel), 0.2).run(fake, real, 40, keep=1)
    distances = [float(squared_mmd(kernel, x, real)) for x in found.particles]
    assert (np.diff(distances) <= 1e-12).all()
    assert distances[-1] < 0.5 * distances[0]
    assert torch.equal(fake, start)
    assert found.steps == tuple(range(41))


def wide(width, seed=0):
    g = torch.Generator().manual_seed(seed)
    layers = NTKLinear(2, width, 1.0, 1.0, generator=g), nn.ReLU(), NTKLinear(width, 1, 1.0, 1.0, generator=g)
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("kind", "loss"), [(IPMDiscriminator, IPMLoss()), (LSGANDiscriminator, LSGANLoss())], ids=["ipm", "lsgan"]
)
def test_wide_networks_come_close_to_infinite_ones(kind, loss):
    fake, real = groups()
    x = torch.randn(20, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    limit = kind(NTK, 1.0).fit(fake, real)(x)
    errors = []
    for width in (64, 4096):
        found = []
        for seed in range(3):
            network = FiniteDiscriminator(lambda w=width, s=seed: wide(w, s), loss, steps=100, learning_rate=0.01)
            found.append(float((network.fit(fake, real)(x).detach() - limit).abs().max() / limit.abs().max()))
        errors.append(sum(found) / 3)
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.08


@pytest.mark.parametrize(
    "loss", [HingeLoss(), VanillaLoss(), LSGANLoss(1.0), IPMLoss()], ids=lambda loss: type(loss).__name__
)
def test_a_network_learns_which_is_which_under_each_loss(loss):
    fake, real = groups()
    discriminator = FiniteDiscriminator(lambda: wide(64), loss, steps=200, learning_rate=0.05).fit(fake, real - 4)
    assert discriminator(real - 4).mean() > discriminator(fake).mean() + 0.5


def test_a_network_is_trained_also_where_gradients_are_off():
    fake, real = groups()
    discriminator = FiniteDiscriminator(lambda: wide(16), IPMLoss(), steps=2, learning_rate=0.05)
    with torch.no_grad():
        assert discriminator.fit(fake, real)(real).mean() > 0


def test_a_reset_forgets_and_the_start_is_zero():
    fake, real = groups()
    kept = FiniteDiscriminator(lambda: wide(16), IPMLoss(), steps=5, learning_rate=0.05)
    fresh = FiniteDiscriminator(lambda: wide(16), IPMLoss(), steps=5, learning_rate=0.05, reset=True)
    for discriminator in (kept, fresh):
        discriminator.fit(fake, real)
    first = fresh(real).clone()
    torch.testing.assert_close(kept(real), first)
    kept.fit(fake, real)
    fresh.fit(fake, real)
    torch.testing.assert_close(fresh(real), first)
    assert (kept(real).mean() > first.mean()).item()
    assert (Antisymmetric(wide(16))(real.float()) == 0).all()


def test_a_generator_comes_closer_to_the_data():
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 2)).double()
    flow = GeneratorFlow(generator, IPMDiscriminator(NTK), torch.optim.Adam(generator.parameters(), lr=0.02))
    real = groups(4, 30)[1]
    latent = torch.randn(30, 3, dtype=torch.float64)
    before = float(squared_mmd(NTK, generator(latent), real))
    for _ in range(30):
        flow.step(latent, real)
    assert float(squared_mmd(NTK, generator(latent), real)) < 0.3 * before


def test_impossible_arguments_are_refused():
    fake, real = groups()
    with pytest.raises(ValueError, match="time"):
        IPMDiscriminator(NTK, 0.0)
    with pytest.raises(ValueError, match="one shape"):
        IPMDiscriminator(NTK).fit(fake, real[:0])
    with pytest.raises(RuntimeError, match="not fitted"):
        IPMDiscriminator(NTK)(fake)
    with pytest.raises(RuntimeError, match="not fitted"):
        FiniteDiscriminator(lambda: wide(4), IPMLoss(), steps=1, learning_rate=1.0)(fake)
    with pytest.raises(ValueError, match="steps"):
        FiniteDiscriminator(lambda: wide(4), IPMLoss(), steps=0, learning_rate=1.0)
    with pytest.raises(ValueError, match="rate"):
        ParticleFlow(IPMDiscriminator(NTK), -1.0)
    with pytest.raises(ValueError, match="keep"):
        ParticleFlow(IPMDiscriminator(NTK), 1.0).run(fake, real, 1, keep=0)
    with pytest.raises(FloatingPointError, match="lower the rate"):
        ParticleFlow(IPMDiscriminator(NTK), 1e308).run(fake, real, 2)
