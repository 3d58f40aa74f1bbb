"""What every structured matrix promises: it is its dense form, only cheaper."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from tangrams.operators import eigsh, logdet, solve, trace
from tangrams.operators.opaque import OpaqueOperator
from tangrams.testing.conformance import Case, Suite
from tangrams.testing.suites.feature_matrix import close, vectors


class OperatorSuite(Suite):
    """Checks of a ``LinearOperator``, parametric (made of tensors) or opaque.

    A case's ``make()`` gives the operator in float64, ``reference(operator)`` builds its dense form slowly from the
    tensors that it was made of, differentiably. Opaque operators may refuse batch reshapes; none may answer them wrong.
    """

    role = LinearOperator

    @staticmethod
    def check_dense_form(case: Case) -> None:
        """Shape, dtype and values of the dense form, transposed too."""
        operator, dense = both(case)
        close(operator.to_dense(), dense)
        close(operator.mT.to_dense(), dense.mT)
        assert operator.shape == dense.shape

    @staticmethod
    def check_products(case: Case) -> None:
        """Products with vectors, columns and batches, from both sides."""
        operator, dense = both(case)
        v, u = columns(dense, -1), columns(dense, -2)
        close(operator @ v, dense @ v)
        close(operator @ v[..., 0], dense @ v[..., 0])
        batch = torch.stack([v, -v]).reshape(2, *(1,) * (dense.dim() - 2), *v.shape)
        close(operator @ batch, dense @ batch)
        close(operator.mT @ u, dense.mT @ u)
        close(u.mT @ operator, u.mT @ dense)

    @staticmethod
    def check_transpose_is_the_adjoint(case: Case) -> None:
        """``⟨A v, u⟩ = ⟨v, Aᵀ u⟩``."""
        operator, dense = both(case)
        v, u = columns(dense, -1), columns(dense, -2)
        close((as_tensor(operator @ v) * u).sum(), (v * as_tensor(operator.mT @ u)).sum())

    @staticmethod
    def check_entries_rows_and_diagonal(case: Case) -> None:
        """Slices, rows, entries and the diagonal are those of the dense form."""
        operator, dense = both(case)
        part = operator[..., 1:, :2]
        close(part.to_dense() if isinstance(part, LinearOperator) else part, dense[..., 1:, :2])
        row, column = torch.tensor([0, 1, 0]), torch.tensor([1, 0, 0])
        if dense.dim() == 2:
            close(operator[row, column], dense[row, column])  # type: ignore[index]
            close(operator[1], dense[1])
        if dense.shape[-1] == dense.shape[-2]:
            close(operator.diagonal(dim1=-1, dim2=-2), dense.diagonal(dim1=-1, dim2=-2))
            close(trace(operator), dense.diagonal(dim1=-1, dim2=-2).sum(-1))

    @staticmethod
    def check_shapes_after_unsqueeze_expand_and_permute(case: Case) -> None:
        """A batch reshape has the shape and the values of the dense one; an opaque operator may refuse."""
        operator, dense = both(case)
        if isinstance(operator, OpaqueOperator):
            with pytest.raises(ValueError, match="2-D"):
                operator.unsqueeze(0)
            with pytest.raises(ValueError, match="2-D"):
                operator.expand(3, *operator.shape)
            return
        for reshaped, expected in (
            (operator.unsqueeze(0), dense.unsqueeze(0)),
            (operator.expand(3, *operator.shape), dense.expand(3, *dense.shape)),
            (operator.unsqueeze(0).expand(2, *operator.shape).mT, dense.expand(2, *dense.shape).mT),
        ):
            close(reshaped.to_dense(), expected)
            close(reshaped @ columns(expected, -1), expected @ columns(expected, -1))
        batched = operator.expand(2, 3, *operator.shape)
        order = (1, 0, *range(2, batched.dim()))
        assert batched.permute(*order).shape == dense.expand(2, 3, *dense.shape).permute(*order).shape
        close(batched.permute(*order).to_dense(), dense.expand(2, 3, *dense.shape).permute(*order))

    @staticmethod
    def check_gradients(case: Case) -> None:
        """The tensors it is made of, and right-hand sides, get the gradients of the dense form."""
        operator, dense = both(case)
        v = columns(dense, -1).requires_grad_(True)
        ours, theirs = (torch.autograd.grad(as_tensor(m @ v).square().sum(), v)[0] for m in (operator, dense))
        close(ours, theirs)
        if isinstance(operator, OpaqueOperator):
            return
        tensors = [t for t in operator.representation() if t.is_floating_point()]
        assert tensors, "a parametric operator is made of tensors"
        ours = gradients_at(case, lambda m: as_tensor(m @ v.detach()))
        theirs = gradients_at(case, lambda m: slow_form(case, m) @ v.detach())
        for a, b in zip(ours, theirs, strict=True):
            close(a, b)

    @staticmethod
    def check_solve(case: Case) -> None:
        """``operators.solve`` and ``logdet`` of ``A Aᵀ + I`` agree with dense algebra, gradients included."""
        operator, dense = both(case)
        if dense.dim() != 2:
            pytest.skip("operators.solve takes one matrix")
        system = as_operator(operator @ operator.mT).add_jitter(1.0)
        expected = dense @ dense.mT + torch.eye(dense.shape[0], dtype=dense.dtype)
        b = columns(dense, -2)
        close(solve(system, b), torch.cholesky_solve(b, torch.linalg.cholesky(expected)), 1e-7)
        close(logdet(system).value, torch.linalg.slogdet(expected).logabsdet, 1e-8)
        close(eigsh(operator @ operator.mT, 1).values, torch.linalg.eigvalsh(dense @ dense.mT)[-1:], 1e-8)
        if isinstance(operator, OpaqueOperator):
            return
        eye = torch.eye(dense.shape[0], dtype=dense.dtype)
        ours = gradients_at(case, lambda m: solve(as_operator(m @ m.mT).add_jitter(1.0), b))
        theirs = gradients_at(case, lambda m: torch.linalg.inv(slow_form(case, m) @ slow_form(case, m).mT + eye) @ b)
        for a, b_ in zip(ours, theirs, strict=True):
            close(a, b_, 1e-6)

    @staticmethod
    def check_copies_and_casts(case: Case) -> None:
        """Pickle, deepcopy and casts keep the values."""
        operator, dense = both(case)
        for twin in (pickle.loads(pickle.dumps(operator)), copy.deepcopy(operator)):
            close(twin.to_dense(), dense)
        single = operator.to(torch.float32)
        assert single.dtype == torch.float32
        close(single.to_dense(), dense.float(), 1e-5)

    @staticmethod
    def check_arithmetic(case: Case) -> None:
        """Multiples and sums are operators of the right value."""
        operator, dense = both(case)
        v = columns(dense, -1)
        close((operator * 2.5) @ v, 2.5 * dense @ v)
        close((operator + operator) @ v, 2 * dense @ v)
        close((operator @ operator.mT) @ columns(dense, -2), dense @ (dense.mT @ columns(dense, -2)))


def as_tensor(product: Tensor | LinearOperator) -> Tensor:
    """A product that must be a tensor."""
    assert isinstance(product, Tensor)
    return product


def as_operator(product: Tensor | LinearOperator) -> LinearOperator:
    """A product that must be an operator."""
    assert isinstance(product, LinearOperator)
    return product


def slow_form(case: Case, operator: LinearOperator) -> Tensor:
    """The case's reference, which there must be."""
    if case.reference is None:
        raise ValueError("a case of OperatorSuite needs reference=: (operator) → its dense form")
    return case.reference(operator)


def both(case: Case) -> tuple[LinearOperator, Tensor]:
    """The operator of a case and its dense reference."""
    operator = case.make()
    return operator, slow_form(case, operator).detach()


def columns(dense: Tensor, dim: int) -> Tensor:
    """Two fixed normal columns that fit one side of a matrix, without its batch dimensions."""
    matrix = dense.reshape(-1, *dense.shape[-2:])[0]
    return vectors(matrix, dim, 2)


def gradients_at(case: Case, function: Callable[[LinearOperator], Tensor]) -> tuple[Tensor, ...]:
    """Gradients of ``‖function(operator)‖²`` in the tensors of a fresh operator."""
    operator = case.make()
    leaves = [t for t in operator.representation() if t.is_floating_point()]
    fresh = [t.detach().clone().requires_grad_(True) for t in leaves]
    supply = iter(fresh)
    rebuilt = operator.representation_tree()(
        *(next(supply) if t.is_floating_point() else t for t in operator.representation())
    )
    return torch.autograd.grad(function(rebuilt).square().sum(), fresh)
