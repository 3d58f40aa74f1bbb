"""Linear systems and log-determinants to a stated accuracy: the only place of the library that solves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from linear_operator.operators import DenseLinearOperator, LinearOperator
from torch import Tensor
from torch.autograd.function import once_differentiable

from tangrams.operators.errors import ConvergenceError
from tangrams.operators.krylov import fixed_generator, lanczos_log_quadratic
from tangrams.operators.opaque import fold, unfold
from tangrams.operators.routes import Direct, Iterative, direct_route, iterative_route
from tangrams.operators.structure import MEMORY_BUDGET, read_structure

_REFINEMENTS = 4


def solve(
    A: Tensor | LinearOperator,
    b: Tensor,
    *,
    rtol: float = 1e-8,
    memory_budget: int = MEMORY_BUDGET,
    max_iterations: int = 1000,
    generator: torch.Generator | None = None,
) -> Tensor:
    r"""``x`` with ``A x = b``, every column to ``‖b − A x‖ ≤ rtol ‖b‖``, or a :class:`ConvergenceError`.

    Works in float64 and measures the residual it returns with. What A is made of picks the route: Woodbury where
    ``A = s Φ Φᵀ + D`` with d ≤ n features (or ``s Φᵀ Φ + δ I`` with n < d rows), a factorisation of the dense matrix
    where it fits the budget, and conjugate gradients with a Nyström preconditioner beyond. A stored feature matrix
    is read a fixed number of times in all but the last, which reads it twice per iteration.
    Differentiable in ``b`` and in the tensors A is made of.

    Args:
        A: a tensor, ``Φ @ Φ.mT + δ I``, or any ``LinearOperator``, ``(n, n)``; iterations need it positive definite.
        b: one right-hand side ``(n,)``, or columns ``(n, c)`` with any batch dimensions before.
        rtol: the relative residual asked for.
        memory_budget: bytes that may be held beyond the inputs.
        max_iterations: the most steps of conjugate gradients, per refinement.
        generator: draws the preconditioner; a fixed seed by default. The global stream is never touched.

    Returns:
        x, of the shape of ``b`` and the wider dtype of the two; in float32 it is rounded after the check.

    Raises:
        ValueError: if shapes do not fit or an entry is not finite.

    Example:
        >>> from tangrams.operators import FeatureMatrix
        >>> phi = FeatureMatrix(rows=torch.tensor([[1.0], [2.0]]))
        >>> solve((phi @ phi.mT).add_jitter(1.0), torch.tensor([1.0, 2.0]))
        tensor([0.1667, 0.3333])
    """
    if not (isinstance(b, Tensor) and b.is_floating_point()):
        raise ValueError("solve needs a floating-point right-hand side")
    columns = b.unsqueeze(-1) if b.dim() == 1 else b
    if A.dim() != 2 or A.shape[0] != A.shape[1] or columns.dim() < 2 or A.shape[0] != columns.shape[-2]:
        raise ValueError(f"solve needs A (n, n) and b (n,) or (…, n, c), got {tuple(A.shape)} and {tuple(b.shape)}")
    if not bool(b.isfinite().all()):
        raise ValueError(f"solve: b has a non-finite entry at {(~b.isfinite()).nonzero()[0].tolist()}")
    operator = DenseLinearOperator(A) if isinstance(A, Tensor) else A.evaluate_kernel()
    options = _Options(rtol, memory_budget, max_iterations, generator)
    x = _Solve.apply(operator.representation_tree(), options, fold(columns), *operator.representation())
    x = unfold(x, columns)
    return x.squeeze(-1) if b.dim() == 1 else x


@dataclass(frozen=True)
class _Options:
    rtol: float
    memory_budget: int
    max_iterations: int
    generator: torch.Generator | None


def _solve_columns(operator: LinearOperator, b: Float[Tensor, "n c"], options: _Options) -> Float[Tensor, "n c"]:
    """Solve, then refine on the measured residual until it is small enough."""
    structure = read_structure(operator)
    target = options.rtol * b.norm(dim=0)
    route: Direct | Iterative | None = direct_route(structure, options.memory_budget)
    if route is None:
        route = iterative_route(structure, options.memory_budget, fixed_generator(options.generator))
    iterations = 0
    best, best_residual = torch.zeros_like(b), b.clone()
    for _ in range(_REFINEMENTS):
        if bool((best_residual.norm(dim=0) <= target).all()):
            return best
        step, taken = route.inverse(best_residual, options.rtol / 2, options.max_iterations)
        iterations += taken
        x = best + step
        residual = b - route.product(x)
        better = residual.norm(dim=0) < best_residual.norm(dim=0)  # False where not a number
        if not bool(better.any()):
            break
        best = torch.where(better, x, best)
        best_residual = torch.where(better, residual, best_residual)
    if bool((best_residual.norm(dim=0) <= target).all()):
        return best
    reached = float((best_residual.norm(dim=0) / b.norm(dim=0)).nan_to_num(0.0).max())
    raise ConvergenceError("solve", reached, options.rtol, iterations, route.remedy)


class _Solve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tree: Any, options: _Options, b: Tensor, *args: Tensor) -> Tensor:
        operator = tree(*args)
        dtype = torch.promote_types(operator.dtype, b.dtype)
        x = _solve_columns(operator, b.to(torch.float64), options).to(dtype)
        ctx.tree, ctx.options, ctx.dtype = tree, options, b.dtype
        ctx.save_for_backward(x, *args)
        return x

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        x, *args = ctx.saved_tensors
        operator = ctx.tree(*args)
        adjoint = _solve_columns(operator.mT, grad.to(torch.float64), ctx.options).to(operator.dtype)
        arg_grads: tuple[Any, ...] = (None,) * len(args)
        if any(ctx.needs_input_grad[3:]):
            arg_grads = operator._bilinear_derivative(-adjoint, x.to(operator.dtype))
        return None, None, adjoint.to(ctx.dtype), *arg_grads


class LogDeterminant(NamedTuple):
    """A log-determinant and how sure it is.

    Attributes:
        value: ``log det A``.
        standard_error: of the value over random probes; 0 where it was computed exactly.
    """

    value: Tensor
    standard_error: Tensor


def logdet(
    A: Tensor | LinearOperator,
    *,
    rtol: float = 1e-3,
    memory_budget: int = MEMORY_BUDGET,
    probes: int = 32,
    max_iterations: int = 200,
    generator: torch.Generator | None = None,
) -> LogDeterminant:
    r"""``log det A`` of a positive definite matrix, with its standard error.

    Exact by the routes of :func:`solve` that factorise. Beyond the budget, by stochastic Lanczos quadrature of the
    preconditioned matrix: ``log det A = log det D + log det P + tr log(P^-½ D^-½ A D^-½ P^-½)``, the trace by
    Rademacher probes (Ubaru, Chen and Saad, 2017). Not differentiable.

    Args:
        A: a tensor, ``Φ @ Φ.mT + δ I``, or any ``LinearOperator``, ``(n, n)``.
        rtol: accuracy of the quadrature, relative to the trace term; not of the probes, whose error is returned.
        memory_budget: bytes that may be held beyond the inputs.
        probes: random vectors, at least two, if it comes to that.
        max_iterations: the most Lanczos steps.
        generator: draws preconditioner and probes; a fixed seed by default.

    Returns:
        ``(value, standard_error)`` in the dtype of A, the error 0 where exact.

    Raises:
        ConvergenceError: if the quadrature does not settle.
        ValueError: if A is not positive definite, or not square.

    Example:
        >>> logdet(2 * torch.eye(3)).value
        tensor(2.0794)
    """
    if probes < 2:
        raise ValueError(f"logdet needs at least 2 probes for a standard error, got {probes}")
    with torch.no_grad():
        structure = read_structure(A if isinstance(A, Tensor) else A.evaluate_kernel())
        route = direct_route(structure, memory_budget)
        if route:
            if route.logdet is None or not bool(route.logdet.isfinite()):
                raise ValueError("logdet needs a positive definite matrix: symmetrise it and add a ridge")
            return LogDeterminant(route.logdet.to(A.dtype), torch.zeros_like(route.logdet, dtype=A.dtype))
        generator = fixed_generator(generator)
        loop = iterative_route(structure, memory_budget, generator)
        n = len(structure.diagonal)
        signs = torch.randint(0, 2, (n, probes), generator=generator).to(loop.root) * 2 - 1
        forms, change, steps = lanczos_log_quadratic(loop.whitened_product, signs, rtol, max_iterations)
    if not change <= rtol:
        raise ConvergenceError("logdet", change, rtol, steps, "raise max_iterations or the ridge")
    value = 2 * loop.root.log().sum() + loop.preconditioner.log_determinant() + forms.mean()
    return LogDeterminant(value.to(A.dtype), (forms.std() / probes**0.5).to(A.dtype))
