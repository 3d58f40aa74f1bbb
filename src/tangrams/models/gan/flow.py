"""What a discriminator moves: free particles, or a network that makes them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tangrams.models.gan.base import Discriminator


@dataclass(frozen=True)
class Trajectory:
    """Where particles were.

    Attributes:
        steps: at which they were kept, the start and the end included.
        particles: then, ``(kept, n, …)``.
    """

    steps: tuple[int, ...]
    particles: Tensor


class ParticleFlow:
    r"""Free particles that follow the gradient of a discriminator fitted anew at every step [042].

    .. math:: x_i ← x_i - η\, ∇_{x} c(x_i)

    with c the generator's loss of a particle; its mean over n particles has a gradient n times smaller.

    Args:
        discriminator: fitted to the particles and the real samples before each step.
        learning_rate: η > 0, per particle.

    Raises:
        ValueError: if the rate is not positive.
    """

    def __init__(self, discriminator: Discriminator, learning_rate: float) -> None:
        if not learning_rate > 0:
            raise ValueError(f"ParticleFlow needs a rate > 0, got {learning_rate}")
        self.discriminator = discriminator
        self.learning_rate = learning_rate

    def run(self, particles: Tensor, real: Tensor, steps: int, *, keep: int = 100) -> Trajectory:
        """Move the particles.

        Args:
            particles: where they start, ``(n, …)``; not changed.
            real: ``(m, …)``.
            steps: how many.
            keep: they are kept every so many steps.

        Raises:
            ValueError: if ``steps`` or ``keep`` is below one.
            FloatingPointError: if a particle leaves the finite numbers: take a smaller rate.
        """
        if steps < 1 or keep < 1:
            raise ValueError(f"ParticleFlow needs steps and keep ≥ 1, got {steps} and {keep}")
        x = particles.detach().clone()
        kept, moments = [x.clone()], [0]
        for step in range(1, steps + 1):
            self.discriminator.fit(x, real)
            x.requires_grad_(True)
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(self.discriminator.generator_loss(x).sum(), x)
            x = (x - self.learning_rate * gradient).detach()
            if not bool(torch.isfinite(x).all()):
                raise FloatingPointError(
                    f"ParticleFlow: particles left the finite numbers at step {step}: lower the rate"
                )
            if step % keep == 0 or step == steps:
                kept.append(x.clone())
                moments.append(step)
        return Trajectory(tuple(moments), torch.stack(kept))


class GeneratorFlow:
    """A network that makes samples and follows the gradient of a discriminator fitted anew at every step [042].

    Args:
        generator: latent samples → samples.
        discriminator: fitted to the samples made and the real ones before each step.
        optimizer: of the generator's parameters.
    """

    def __init__(self, generator: nn.Module, discriminator: Discriminator, optimizer: torch.optim.Optimizer) -> None:
        self.generator, self.discriminator, self.optimizer = generator, discriminator, optimizer

    def step(self, latent: Tensor, real: Tensor) -> float:
        """One step of the generator; its mean loss before it.

        Args:
            latent: what the generator is called with.
            real: the real samples.
        """
        fake = self.generator(latent)
        self.discriminator.fit(fake.detach(), real)
        loss = self.discriminator.generator_loss(fake).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())
