"""Signals, solids and scenes for coordinate networks to learn: a function of position each, known everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def sine_mixture(
    n: int, frequencies: Sequence[int] = (5, 10, 15, 20, 25, 30)
) -> tuple[Float[Tensor, "n 1"], Float[Tensor, "n 1"]]:
    r"""A sum of sines of equal size on [−1, 1), :math:`\sum_k \sin 2πkx`; a one-dimensional signal of [016].

    Frequency k has 2k periods on the interval, which closes, so that :func:`~tangrams.lens.frequency_error` reads each
    from one Fourier coefficient.

    Args:
        n: points, at equal distances.
        frequencies: k, in periods per unit of length.

    Returns:
        Positions and values.

    Raises:
        ValueError: if there is no frequency, one is not positive, or ``n`` points cannot tell it from a lower one.
    """
    if not frequencies or min(frequencies) < 1 or n <= 4 * max(frequencies):
        raise ValueError(
            f"sine_mixture needs frequencies ≥ 1 and more than four points for each period of the highest, got {n} "
            f"points for {list(frequencies)}"
        )
    x = torch.arange(n, dtype=torch.float64) * (2 / n) - 1
    y = torch.stack([torch.sin(2 * math.pi * k * x) for k in frequencies]).sum(0)
    dtype = torch.get_default_dtype()
    return x.to(dtype)[:, None], y.to(dtype)[:, None]


def gyroid_solid(size: int, *, periods: float = 3.0, wall: float = 0.5) -> tuple[Tensor, Tensor]:
    r"""A ball of sponge, for networks of occupancy: fine walls inside a smooth hull.

    .. math:: |p| < 0.9, \quad |\sin a \cos b + \sin b \cos c + \sin c \cos a| < w, \qquad (a, b, c) = π k p

    Args:
        size: points along each side of the cube :math:`[-1, 1]^3`.
        periods: k, of the gyroid along a side.
        wall: w, 0 … 1.5; how thick the walls are.

    Returns:
        Positions ``(size³, 3)``, the last axis fastest, and ``(size³, 1)``, one inside and zero outside.

    Raises:
        ValueError: if there are fewer than two points to a side, or a number is not positive.
    """
    if size < 2 or not min(periods, wall) > 0:
        raise ValueError(f"gyroid_solid needs size ≥ 2, periods and wall > 0, got {size}, {periods} and {wall}")
    line = torch.linspace(-1, 1, size)
    p = torch.cartesian_prod(line, line, line)
    angle = math.pi * periods * p
    gyroid = (angle.sin() * angle.cos().roll(-1, 1)).sum(1)
    inside = (gyroid.abs() < wall) & (p.norm(dim=1) < 0.9)
    return p, inside.to(p.dtype)[:, None]


def striped_balls(p: Float[Tensor, "*batch 3"]) -> tuple[Float[Tensor, "*batch 3"], Float[Tensor, "*batch"]]:
    r"""The colour and the density of a scene at some positions: three balls with stripes, in :math:`[-1, 1]^3`.

    Args:
        p: positions.

    Returns:
        Red, green and blue in [0, 1], and how much light a unit of length takes away, as :func:`render_rays` has it.
    """
    centres = p.new_tensor([[0.35, 0.0, 0.1], [-0.35, 0.25, -0.1], [-0.1, -0.4, 0.15]])
    radii = p.new_tensor([0.4, 0.35, 0.3])
    inside = 1 - (p[..., None, :] - centres).norm(dim=-1) / radii
    share = torch.softmax(40 * inside, -1)
    base = p.new_tensor([[0.9, 0.3, 0.2], [0.2, 0.7, 0.3], [0.25, 0.35, 0.9]])
    stripes = 0.6 + 0.4 * torch.sin(p.new_tensor([20.0, 26.0, 32.0]) * p[..., 2:])
    colour = (share[..., None] * base).sum(-2) * (share * stripes).sum(-1, keepdim=True)
    return colour, 30 * torch.sigmoid(40 * inside).amax(-1)


def orbit_rays(views: int, size: int) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
    """Rays through the pixels of cameras that stand around the origin and look at it, at distance 3.

    They see the ball of radius 1 between depths 2 and 4.

    Args:
        views: cameras, at equal angles, by turns a little above and a little below.
        size: pixels of a side.

    Returns:
        Origins and unit directions, ``views * size²`` of them: view by view, row by row.

    Raises:
        ValueError: if a number is below one.
    """
    if min(views, size) < 1:
        raise ValueError(f"orbit_rays needs views and pixels ≥ 1, got {views} and {size}")
    turn = torch.arange(views) * (2 * math.pi / views)
    height = 0.3 * (1 - 2 * (torch.arange(views) % 2))
    forward = -torch.stack([turn.cos() * height.cos(), turn.sin() * height.cos(), height.sin()], 1)
    right = torch.stack([-turn.sin(), turn.cos(), torch.zeros(views)], 1)
    up = torch.linalg.cross(right, forward)
    line = ((torch.arange(size) + 0.5) / size * 2 - 1) * 0.36  # the ball of radius one fills the picture
    v, u = torch.meshgrid(-line, line, indexing="ij")
    u, v = u[None, ..., None], v[None, ..., None]
    directions = forward[:, None, None] + u * right[:, None, None] + v * up[:, None, None]
    directions = torch.nn.functional.normalize(directions, dim=-1)
    origins = (-3 * forward)[:, None, None].expand_as(directions)
    return origins.reshape(-1, 3), directions.reshape(-1, 3)


def render_rays(
    colour: Float[Tensor, "*batch s c"], density: Float[Tensor, "*batch s"], step: float
) -> Float[Tensor, "*batch c"]:
    r"""What rays see that sample a field at equal distances, before black.

    .. math:: C = \sum_i T_i (1 - e^{-σ_i δ}) c_i, \qquad T_i = e^{-\sum_{j < i} σ_j δ}

    Differentiable; the volume rendering of Mildenhall et al. (2020).

    Args:
        colour: c, from near to far.
        density: σ ≥ 0.
        step: δ.
    """
    depth = density * step
    seen = torch.exp(depth - depth.cumsum(-1)) * -torch.expm1(-depth)
    return (seen[..., None] * colour).sum(-2)
