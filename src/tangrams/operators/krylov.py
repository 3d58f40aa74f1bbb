"""Conjugate gradients, Lanczos and the Nyström preconditioner, as functions of a product ``v → A v``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Product = Callable[[Tensor], Tensor]


def fixed_generator(generator: torch.Generator | None) -> torch.Generator:
    """The caller's generator, or a fresh CPU one with a fixed seed: the global stream is never touched."""
    return generator if generator is not None else torch.Generator().manual_seed(0)


@dataclass(frozen=True)
class Preconditioner:
    r"""``P = U ((Λ + μ)/(λ_r + μ)) Uᵀ + (I − U Uᵀ)``, which flattens the top of ``K + μ I``.

    Attributes:
        vectors: U, orthonormal columns, ``(n, r)``.
        values: Λ, descending, ``(r,)``.
        shift: μ > 0.
    """

    vectors: Tensor
    values: Tensor
    shift: float

    def _ratios(self) -> Tensor:
        return (self.values + self.shift) / (self.values[-1] + self.shift)

    def apply(self, v: Tensor, power: float) -> Tensor:
        """``P^power v``."""
        inner = self.vectors.mT @ v
        return v + self.vectors @ ((self._ratios() ** power - 1)[:, None] * inner)

    def log_determinant(self) -> Tensor:
        """``log det P``."""
        return self._ratios().log().sum()


def nystrom_preconditioner(
    product: Product, n: int, rank: int, shift: float, generator: torch.Generator, device: torch.device
) -> Preconditioner:
    """A randomised Nyström approximation of a positive semi-definite K, from one block product.

    Frangella, Tropp and Udell, "Randomized Nyström preconditioning" (2023).

    Args:
        product: ``v → K v``, without the ridge.
        n: size of K.
        rank: r, how many directions are caught.
        shift: μ, the ridge.
        generator: draws the test matrix.
        device: where the product works.
    """
    test = torch.randn(n, rank, generator=generator, dtype=torch.float64).to(device)
    test = torch.linalg.qr(test).Q
    image = product(test)
    jitter = torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(image)
    image = image + jitter * test
    core = test.mT @ image
    factor, info = torch.linalg.cholesky_ex((core + core.mT) / 2)
    if int(info) != 0:  # K is zero or indefinite: precondition with nothing
        return Preconditioner(test[:, :1], test.new_zeros(1), shift)
    root = torch.linalg.solve_triangular(factor, image.mT, upper=False).mT
    u, s, _ = torch.linalg.svd(root, full_matrices=False)
    return Preconditioner(u, (s.square() - jitter).clamp_min(0), shift)


def conjugate_gradients(
    product: Product,
    b: Float[Tensor, "n c"],
    precondition: Product,
    rtol: float,
    max_iterations: int,
) -> tuple[Float[Tensor, "n c"], int]:
    """Solve ``A x = b`` for positive definite A, all columns at once; each stops moving when it is done.

    Args:
        product: ``v → A v``.
        b: right-hand sides.
        precondition: ``v → P⁻¹ v``.
        rtol: stop when every recurred residual is at most ``rtol ‖b‖``.
        max_iterations: the most products with A.

    Returns:
        The iterate, and the number of products taken; whether it converged is for the caller to measure.
    """
    x = torch.zeros_like(b)
    target = rtol * b.norm(dim=0)
    r = b.clone()
    z = precondition(r)
    direction = z.clone()
    rho = (r * z).sum(0)
    steps = 0
    while steps < max_iterations:
        active = r.norm(dim=0) > target
        if not active.any():
            break
        image = product(direction)
        curvature = (direction * image).sum(0)
        alpha = torch.where(active & (curvature > 0), rho / curvature, 0.0)
        x += alpha * direction
        r -= alpha * image
        z = precondition(r)
        rho, previous = (r * z).sum(0), rho
        beta = torch.where(previous > 0, rho / previous, 0.0)
        direction = z + beta * direction
        steps += 1
    return x, steps


def lanczos_log_quadratic(
    product: Product, probes: Float[Tensor, "n c"], rtol: float, max_steps: int
) -> tuple[Float[Tensor, "c"], float, int]:
    """``zᵀ log(A) z`` of each probe by Gauss quadrature, Lanczos with full reorthogonalisation.

    Golub and Meurant, "Matrices, Moments and Quadrature" (2010).

    Args:
        product: ``v → A v``, A positive definite.
        probes: z, one per column.
        rtol: stop when five more steps change the sum by less than this share.
        max_steps: the most products with A.

    Returns:
        The quadratic forms, the last relative change (0 where the Krylov space is exhausted), and the products taken.
    """
    norms = probes.norm(dim=0)
    basis = [probes / norms]
    alphas: list[Tensor] = []
    betas: list[Tensor] = []
    before, change = torch.full_like(norms, torch.inf), torch.inf
    limit = min(max_steps, probes.shape[0])
    for step in range(1, limit + 1):
        w = product(basis[-1])
        alphas.append((w * basis[-1]).sum(0))
        stacked = torch.stack(basis)
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            w = w - (stacked * (stacked * w).sum(1, keepdim=True)).sum(0)
        beta = w.norm(dim=0)
        exhausted = step == probes.shape[0] or bool((beta < 1e-13 * torch.stack(alphas).abs().amax(0)).all())
        if exhausted or step % 5 == 0 or step == limit:
            forms = norms.square() * _gauss_log(torch.stack(alphas, -1), torch.stack([*betas, beta], -1)[:, :-1])
            change = 0.0 if exhausted else float((forms - before).sum().abs() / forms.sum().abs())
            before = forms
            if change <= rtol:
                break
        betas.append(beta)
        basis.append(w / beta.clamp_min(1e-300))
    return before, change, step


def _gauss_log(alphas: Float[Tensor, "c m"], betas: Float[Tensor, "c l"]) -> Float[Tensor, "c"]:
    tridiagonal = torch.diag_embed(alphas) + torch.diag_embed(betas, offset=1) + torch.diag_embed(betas, offset=-1)
    nodes, vectors = torch.linalg.eigh(tridiagonal)
    weights = vectors[:, 0].square()
    # Past a breakdown the recurrence adds nodes of no weight, which may be anything; others are values of A.
    if bool(((nodes <= 0) & (weights > 1e-12)).any()):
        raise ValueError("the matrix is not positive definite: its quadratic forms reach zero or below")
    return torch.where(nodes > 0, weights * nodes.clamp_min(torch.finfo(nodes.dtype).tiny).log(), 0.0).sum(-1)
