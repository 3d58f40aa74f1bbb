"""Which frequencies a kernel favours and a network has learned: on spheres, in signals, in images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.quadrature import gauss_legendre

_NOISE = 1e-10
"""Eigenvalues below this share of the largest are rounding of the quadrature."""


def gegenbauer(t: Float[Tensor, "*s"], dim: int, max_degree: int) -> Float[Tensor, "degrees *s"]:
    r"""Gegenbauer polynomials of degrees 0 … L on the sphere in ``dim`` dimensions, one at t = 1.

    .. math:: (l + d - 2)\, P_{l+1}(t) = (2l + d - 2)\, t P_l(t) - l P_{l-1}(t)

    On the circle they are Chebyshev's, on S² Legendre's.

    Args:
        t: cosines.
        dim: d ≥ 2.
        max_degree: L.

    Raises:
        ValueError: if ``dim < 2`` or ``max_degree < 0``.
    """
    if dim < 2:
        raise ValueError(f"gegenbauer needs dim ≥ 2, got {dim}: there is no sphere in fewer dimensions")
    if max_degree < 0:
        raise ValueError(f"gegenbauer needs max_degree ≥ 0, got {max_degree}")
    found = [torch.ones_like(t), t]
    for degree in range(1, max_degree):
        found.append(((2 * degree + dim - 2) * t * found[-1] - degree * found[-2]) / (degree + dim - 2))
    return torch.stack(found[: max_degree + 1])


def harmonics(dim: int, max_degree: int) -> Tensor:
    """How many spherical harmonics of each degree 0 … L there are in ``dim`` dimensions: ``(L + 1,)``, float64.

    Raises:
        ValueError: if ``dim < 2`` or ``max_degree < 0``.
    """
    if dim < 2 or max_degree < 0:
        raise ValueError(f"harmonics needs dim ≥ 2 and max_degree ≥ 0, got {dim} and {max_degree}")
    counts = [1.0]
    for degree in range(1, max_degree + 1):
        lower = math.comb(degree + dim - 3, dim - 1) if degree > 1 else 0
        counts.append(float(math.comb(degree + dim - 1, dim - 1) - lower))
    return torch.tensor(counts, dtype=torch.float64)


def zonal_spectrum(
    profile: Callable[[Tensor], Tensor], dim: int, max_degree: int, *, nodes: int = 2048
) -> Float[Tensor, "degrees"]:
    r"""The eigenvalues of a rotation-invariant kernel under the uniform measure on a sphere, by Funk and Hecke [012].

    .. math:: μ_l = \frac{Γ(d/2)}{\sqrt π\, Γ((d-1)/2)} \int_0^π κ(\cos a)\, P_l(\cos a) \sin^{d-2} a \; da

    each with the multiplicity that :func:`harmonics` gives; :math:`\sum_l N(d, l) μ_l = κ(1)`. Under gradient flow the
    part of degree l of a residual decays at a rate in proportion to μ_l. The integral is Gauss–Legendre's in the angle,
    in which kernels with a kink at equal points are smooth; values below 1e-10 of the largest are rounding and zero.

    Args:
        profile: κ, the kernel as a function of the cosine; :func:`~tangrams.lens.zonal` makes it from a kernel.
        dim: d ≥ 2, the dimension of the space around the sphere.
        max_degree: L.
        nodes: of the quadrature.

    Shape:
        ``(L + 1,)``, float64.

    Raises:
        ValueError: if ``dim < 2``, ``max_degree < 0`` or there are fewer nodes than degrees.

    Example:
        >>> zonal_spectrum(lambda t: t, dim=3, max_degree=2)
        tensor([0.0000, 0.3333, 0.0000], dtype=torch.float64)
    """
    if nodes <= max_degree:
        raise ValueError(f"zonal_spectrum needs more nodes than degrees, got {nodes} for degree {max_degree}")
    points, weights = gauss_legendre(nodes)
    angle = (points + 1) * math.pi / 2
    density = weights * math.pi / 2 * angle.sin() ** (dim - 2)
    polynomials = gegenbauer(angle.cos(), dim, max_degree)
    values = profile(angle.cos()).detach().to(torch.float64)
    constant = math.exp(math.lgamma(dim / 2) - math.lgamma((dim - 1) / 2)) / math.sqrt(math.pi)
    spectrum = constant * (polynomials @ (values * density))
    return torch.where(spectrum.abs() < _NOISE * spectrum.abs().max(), 0.0, spectrum)


def degree_energy(
    points: Float[Tensor, "n d"], weights: Float[Tensor, "w"], values: Float[Tensor, "v"], max_degree: int
) -> Float[Tensor, "degrees"]:
    r"""How much of a function on the sphere lies in each degree of harmonics [012].

    .. math:: ‖Π_l f‖^2 = N(d, l) \sum_{ij} w_i w_j f_i f_j P_l(x_i^⊤ x_j)

    Exact where the quadrature is for products of the degrees involved; see
    :func:`~tangrams.data.sphere_quadrature`. The energies of all degrees add up to the mean square of f.

    Args:
        points: on the unit sphere.
        weights: of a quadrature, with sum one.
        values: f at the points.
        max_degree: L.

    Raises:
        ValueError: if the shapes differ or a point is not of unit length.
    """
    n, dim = points.shape
    if weights.shape != (n,) or values.shape != (n,):
        raise ValueError(f"degree_energy needs a weight and a value per point, got {len(weights)} and {len(values)}")
    if not torch.allclose(points.norm(dim=1), torch.ones_like(weights), atol=1e-6):
        raise ValueError("degree_energy needs points of unit length: normalise them")
    weighted = weights * values
    gram = (points @ points.mT).clamp(-1, 1)
    energies = torch.einsum("i,lij,j->l", weighted, gegenbauer(gram, dim, max_degree), weighted)
    return (harmonics(dim, max_degree).to(energies) * energies).clamp_min(0)


def frequency_error(
    prediction: Float[Tensor, "..."], target: Float[Tensor, "*batch n"], frequencies: Sequence[int]
) -> Float[Tensor, "*batch f"]:
    """The relative error of a signal's Fourier coefficients at some frequencies, along the last axis.

    Args:
        prediction: samples at equal distances over one period.
        target: likewise; its coefficients must not vanish there.
        frequencies: in periods per signal.

    Raises:
        ValueError: if the shapes differ, a frequency is beyond n/2, or the target has nothing there.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"frequency_error got shapes {tuple(prediction.shape)} and {tuple(target.shape)}")
    n = target.shape[-1]
    if not all(0 <= frequency <= n // 2 for frequency in frequencies):
        raise ValueError(f"frequency_error: {n} samples tell frequencies up to {n // 2}, got {list(frequencies)}")
    chosen = torch.tensor(list(frequencies), device=target.device)
    wanted = torch.fft.rfft(target)[..., chosen]
    if bool((wanted.abs() <= torch.finfo(target.dtype).eps * n * target.abs().max()).any()):
        raise ValueError(f"frequency_error: the target has nothing at some of {list(frequencies)}")
    return (torch.fft.rfft(prediction)[..., chosen] - wanted).abs() / wanted.abs()


def radial_power(image: Float[Tensor, "*batch h w"], bands: int) -> Float[Tensor, "*batch bands"]:
    """The mean square of an image within rings of spatial frequency, from low to high; they add up to the whole.

    Args:
        image: one channel each.
        bands: rings of equal width, up to the corner of the spectrum.

    Raises:
        ValueError: if ``bands < 1``.
    """
    if bands < 1:
        raise ValueError(f"radial_power needs bands ≥ 1, got {bands}")
    height, width = image.shape[-2:]
    power = torch.fft.fft2(image).abs().square() / (height * width) ** 2
    radius = (torch.fft.fftfreq(height)[:, None].square() + torch.fft.fftfreq(width).square()).sqrt()
    ring = (radius / radius.max() * bands).long().clamp_max(bands - 1).to(image.device)
    found = power.new_zeros(*image.shape[:-2], bands)
    return found.index_add_(-1, ring.flatten(), power.flatten(-2))


def band_psnr(
    prediction: Float[Tensor, "..."], target: Float[Tensor, "*batch h w"], bands: int
) -> Float[Tensor, "*batch bands"]:
    """Peak signal-to-noise ratio within rings of spatial frequency, in decibels for a peak of one.

    Args:
        prediction: an image.
        target: the image that it should be.
        bands: as in :func:`radial_power`.

    Raises:
        ValueError: if the shapes differ.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"band_psnr got shapes {tuple(prediction.shape)} and {tuple(target.shape)}")
    return -10 * radial_power(prediction - target, bands).log10()
