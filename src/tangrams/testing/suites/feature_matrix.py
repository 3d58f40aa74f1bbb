"""What every feature matrix promises, whatever its rows stand on."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from linear_operator.operators import LinearOperator
from sklearn.model_selection import train_test_split
from torch import Tensor

from tangrams.operators import (
    CountSketch,
    FeatureMatrix,
    GramMatrix,
    NormalMatrix,
    eigsh,
    logdet,
    solve,
    trace,
)
from tangrams.testing.conformance import Case, Suite
from tangrams.testing.counting_rows import CountingRows


class FeatureMatrixSuite(Suite):
    """Checks of a :class:`~tangrams.operators.FeatureMatrix` over any source of rows.

    A case's ``make()`` gives the matrix, ``reference()`` the same numbers as a dense tensor; at least four rows and
    three columns. Identities hold to 1e-10 in float64, to 1e-4 in float32.
    """

    role = FeatureMatrix

    @staticmethod
    def check_shape_dtype_and_repr(case: Case) -> None:
        """It is the size of its dense form, 2-D, and says what it stands on."""
        phi, dense = both(case)
        assert phi.shape == dense.shape
        assert (phi.dim(), len(phi)) == (2, len(dense))
        assert (phi.dtype, phi.device) == (dense.dtype, dense.device)
        assert type(phi.rows).__name__ in repr(phi)
        close(phi.to_dense(), dense)

    @staticmethod
    def check_products_with_vectors_and_columns(case: Case) -> None:
        """``Φ v``, ``v Φ``, ``Φᵀ u`` for vectors, columns and no columns at all."""
        phi, dense = both(case)
        v, u = vectors(dense, 1, 3), vectors(dense, 0, 2)
        close(phi @ v, dense @ v)
        close(phi @ v[:, 0], dense @ v[:, 0])
        close(phi @ v[:, :0], dense @ v[:, :0])
        close(torch.matmul(phi, v), dense @ v)  # type: ignore[arg-type]
        close(phi.mT @ u, dense.mT @ u)
        close(phi.T @ u[:, 0], dense.mT @ u[:, 0])
        close(u[:, 0] @ phi, u[:, 0] @ dense)
        close(u.mT @ phi, u.mT @ dense)

    @staticmethod
    def check_products_with_batches(case: Case) -> None:
        """Right-hand sides may have batch dimensions."""
        phi, dense = both(case)
        v = vectors(dense, 1, 6).reshape(-1, 3, 2).movedim(0, 1).reshape(3, 1, -1, 2)
        close(phi @ v, dense @ v)
        u = vectors(dense, 0, 6).reshape(-1, 3, 2).movedim(0, 1)
        close(phi.mT @ u, dense.mT @ u)
        close((phi @ phi.mT) @ u, dense @ (dense.mT @ u))

    @staticmethod
    def check_transpose_is_the_adjoint(case: Case) -> None:
        """``⟨Φ v, u⟩ = ⟨v, Φᵀ u⟩``, and transposing twice gives the matrix back."""
        phi, dense = both(case)
        v, u = vectors(dense, 1, 1)[:, 0], vectors(dense, 0, 1)[:, 0]
        close((phi @ v) @ u, v @ (phi.mT @ u))
        close(phi.mT.to_dense(), dense.mT)
        assert isinstance(phi.mT.mT, FeatureMatrix)

    @staticmethod
    def check_dense_form_is_not_kept(case: Case) -> None:
        """``to_dense`` leaves nothing of size (N, d) on the operator."""
        phi, _ = both(case)
        phi.to_dense()
        held = [value for value in vars(phi).values() if isinstance(value, Tensor)]
        assert not held
        assert not getattr(phi, "_memoize_cache", {})

    @staticmethod
    def check_rows_by_every_kind_of_index(case: Case) -> None:
        """Ints, slices, lists, arrays, tensors and masks choose rows as they do of a tensor."""
        phi, dense = both(case)
        n = len(dense)
        mask = torch.arange(n) % 2 == 0
        whole = [slice(1, 3), slice(None, None, 2), slice(None, None, -1), slice(n, None), [2, 0, 2], range(3)]
        whole += [
            np.array([3, 1]),
            np.arange(n) % 2 == 1,
            torch.tensor([-1, 0]),
            mask,
            torch.tensor([], dtype=torch.int64),
        ]
        for index in whole:
            chosen = phi[index]
            assert isinstance(chosen, FeatureMatrix), index
            plain = list(range(n))[index] if isinstance(index, slice) else index
            plain = plain if isinstance(plain, Tensor) else torch.as_tensor(np.asarray(plain))
            close(chosen.to_dense(), dense[plain.long() if plain.dtype != torch.bool else plain])
        for one in (0, -1, np.int64(2), torch.tensor(1)):
            close(phi[one], dense[int(one)])
        close(phi[mask] @ vectors(dense, 1, 2), dense[mask] @ vectors(dense, 1, 2))
        close(torch.stack(list(phi)), dense)

    @staticmethod
    def check_columns_and_entries(case: Case) -> None:
        """Columns are lazy too; paired indices give entries."""
        phi, dense = both(case)
        some = [2, 0]
        close(phi[:, 1:3].to_dense(), dense[:, 1:3])
        close(phi[1:, some].to_dense(), dense[1:, some])
        close(phi[1:, some] @ vectors(dense[:, some], 1, 2), dense[1:, some] @ vectors(dense[:, some], 1, 2))
        close(phi[:, some].mT @ vectors(dense, 0, 2), dense[:, some].mT @ vectors(dense, 0, 2))
        close((phi[:, some] @ phi[:, some].mT).to_dense(), dense[:, some] @ dense[:, some].mT)
        close(phi[..., 2], dense[..., 2])
        close(phi[3, 1], dense[3, 1])
        close(phi[[3, 0, 3], [1, 2, 1]], dense[[3, 0, 3], [1, 2, 1]])

    @staticmethod
    def check_bad_indices_name_what_is_out_of_range(case: Case) -> None:
        """Out of range, wrong masks, floats and new axes are an IndexError."""
        phi, dense = both(case)
        n, d = dense.shape
        for index in (n, -n - 1, [0, n], torch.ones(n + 1, dtype=torch.bool), (0, d), [0.5], None, (0, 0, 0), "a"):
            with pytest.raises(IndexError):
                phi[index]

    @staticmethod
    def check_gram_matrix(case: Case) -> None:
        """``Φ Φᵀ``: dense form, products, diagonal, trace, blocks and entries."""
        phi, dense = both(case)
        gram, expected = phi @ phi.mT, dense @ dense.mT
        assert isinstance(gram, GramMatrix)
        assert gram.is_symmetric
        close(gram.to_dense(), expected)
        u = vectors(dense, 0, 2)
        close(gram @ u, expected @ u)
        close(gram.mT @ u, expected @ u)
        close(gram.diagonal(), expected.diagonal())
        close(phi.diag_gram(), expected.diagonal())
        close(trace(gram), expected.diagonal().sum())
        close(gram[1:3, [0, 2]].to_dense(), expected[1:3][:, [0, 2]])
        close(gram[[0, 1], [2, 1]], expected[[0, 1], [2, 1]])
        assert gram[1:3, 1:3].is_symmetric

    @staticmethod
    def check_gram_matrix_of_two(case: Case) -> None:
        """``Φ Ψᵀ`` of different rows, and a clear refusal of different features."""
        phi, dense = both(case)
        left, right = phi[:3], phi[1:]
        cross = left @ right.mT
        assert not cross.is_symmetric
        close(cross.to_dense(), dense[:3] @ dense[1:].mT)
        close(cross @ vectors(dense[1:], 0, 2), dense[:3] @ (dense[1:].mT @ vectors(dense[1:], 0, 2)))
        close((left @ FeatureMatrix(rows=dense[1:]).mT).to_dense(), dense[:3] @ dense[1:].mT)
        with pytest.raises(ValueError, match="equal columns"):
            _ = left @ phi[:, 1:].mT

    @staticmethod
    def check_normal_matrix(case: Case) -> None:
        """``Φᵀ Φ``: dense form, products, diagonal, blocks."""
        phi, dense = both(case)
        normal, expected = phi.mT @ phi, dense.mT @ dense
        assert isinstance(normal, NormalMatrix)
        close(normal.to_dense(), expected)
        close(normal @ vectors(dense, 1, 2), expected @ vectors(dense, 1, 2))
        close(normal.diagonal(), expected.diagonal())
        close(normal[1:3, [0, 2]].to_dense(), expected[1:3][:, [0, 2]])
        close(normal[[0, 1], [2, 1]], expected[[0, 1], [2, 1]])

    @staticmethod
    def check_sketch_projects_rows(case: Case) -> None:
        """``Φ Sᵀ`` of a bound sketch is the product with its matrix."""
        phi, dense = both(case)
        sketch = CountSketch(5, seed=1).bind(phi.shape[1])
        matrix = sketch.matrix(dtype=dense.dtype)
        close(phi @ sketch.mT, dense @ matrix.to_dense().mT)

    @staticmethod
    def check_sums_and_means(case: Case) -> None:
        """Sums and means over rows, over columns and of everything."""
        phi, dense = both(case)
        for dim in (0, 1, -1):
            close(phi.sum(dim), dense.sum(dim))
            close(phi.mean(dim), dense.mean(dim))
        close(phi.mean(), dense.mean())

    @staticmethod
    def check_scaled_and_added(case: Case) -> None:
        """Multiples, sums with tensors and added diagonals are operators of the right value."""
        phi, dense = both(case)
        v = vectors(dense, 1, 2)
        close((2.5 * phi) @ v, 2.5 * dense @ v)
        close((phi / 2).mT.to_dense(), dense.mT / 2)
        close((phi + dense).to_dense(), 2 * dense)
        gram = (phi @ phi.mT).add_jitter(0.5)
        close(gram.to_dense(), dense @ dense.mT + 0.5 * torch.eye(len(dense), dtype=dense.dtype))

    @staticmethod
    def check_batch_operations_are_refused(case: Case) -> None:
        """A feature matrix is 2-D: none of the reshapes may answer with a wrong shape."""
        phi, dense = both(case)
        refused: list[Callable[[], Any]] = [
            lambda: phi.unsqueeze(0),
            lambda: phi.expand(2, *dense.shape),
            lambda: phi.repeat(2, 1, 1),
            lambda: (phi @ phi.mT).unsqueeze(0),
        ]
        for call in refused:
            with pytest.raises(ValueError, match="2-D"):
                call()

    @staticmethod
    def check_wrong_right_hand_sides_are_refused(case: Case) -> None:
        """A wrong length or dtype is an error, never a broadcast."""
        phi, dense = both(case)
        with pytest.raises((ValueError, RuntimeError)):
            _ = phi @ torch.ones(dense.shape[1] + 1, 2, dtype=dense.dtype)
        other = torch.float32 if dense.dtype == torch.float64 else torch.float64
        with pytest.raises(ValueError, match="cast"):
            _ = phi @ torch.ones(dense.shape[1], 2, dtype=other)

    @staticmethod
    def check_pickle_and_deepcopy(case: Case) -> None:
        """Copies answer as the original; a symmetric Gram stays symmetric."""
        phi, dense = both(case)
        for twin in (pickle.loads(pickle.dumps(phi)), copy.deepcopy(phi), phi.clone(), phi.detach()):
            close(twin.to_dense(), dense)
            assert isinstance(twin, FeatureMatrix)
        gram = pickle.loads(pickle.dumps(phi @ phi.mT))
        assert gram.is_symmetric
        close(gram.to_dense(), dense @ dense.mT)

    @staticmethod
    def check_casts(case: Case) -> None:
        """``to``, ``float``, ``double``, ``half`` change the dtype of every answer, of Gram matrices too."""
        phi, dense = both(case)
        for cast, dtype in ((phi.float(), torch.float32), (phi.double(), torch.float64), (phi.half(), torch.float16)):
            assert cast.dtype == dtype
            assert cast.to_dense().dtype == dtype
            assert (cast @ torch.ones(dense.shape[1], dtype=dtype)).dtype == dtype
        assert (phi.to(torch.float64).to("cpu") @ phi.double().mT).to_dense().dtype == torch.float64
        assert (phi @ phi.mT).float().to_dense().dtype == torch.float32
        close(phi.float().to_dense(), dense.float(), 1e-4)

    @staticmethod
    def check_no_gradient_inside_and_the_right_one_outside(case: Case) -> None:
        """It holds no graph; right-hand sides, scales and ridges around it get exact gradients."""
        phi, dense = both(case)
        assert not phi.requires_grad
        assert not phi.to_dense().requires_grad
        with pytest.raises(ValueError, match="phi"):
            phi.requires_grad_(True)
        leaves = [
            torch.tensor(1.3, dtype=dense.dtype),
            torch.tensor(0.7, dtype=dense.dtype),
            vectors(dense, 0, 1)[:, 0],
        ]
        eye = torch.eye(len(dense), dtype=dense.dtype)

        def lazy(scale: Tensor, ridge: Tensor, u: Tensor) -> Tensor:
            product = ((phi @ phi.mT) * scale).add_diagonal(ridge) @ u
            assert isinstance(product, Tensor)
            return product.square().sum()

        def plain(scale: Tensor, ridge: Tensor, u: Tensor) -> Tensor:
            return ((scale * dense @ dense.mT + ridge * eye) @ u).square().sum()

        for ours, theirs in zip(gradients(lazy, leaves), gradients(plain, leaves), strict=True):
            close(ours, theirs)

    @staticmethod
    def check_solve_logdet_and_spectrum(case: Case) -> None:
        """Ridge systems, their log-determinant and the top of the spectrum agree with dense algebra."""
        phi, dense = doubled(case)
        ridge = float(dense.square().sum() / len(dense))
        gram = (phi @ phi.mT).add_jitter(ridge)
        expected = dense @ dense.mT + ridge * torch.eye(len(dense), dtype=torch.float64)
        b = vectors(dense, 0, 2)
        tolerance = max(1e-8, 10 * tolerance_of(case))
        x = solve(gram, b, rtol=tolerance)
        assert float((expected @ x - b).norm() / b.norm()) < 2 * tolerance
        weights = solve((phi.mT @ phi).add_jitter(ridge), dense.mT @ b, rtol=tolerance)
        close(weights, dense.mT @ x, 100 * tolerance)
        value, error = logdet(gram)
        close(value, torch.linalg.slogdet(expected).logabsdet, tolerance)
        assert float(error) == 0
        values, _ = eigsh(phi @ phi.mT, 2)
        close(values, torch.linalg.eigvalsh(dense @ dense.mT).flip(0)[:2], tolerance)

    @staticmethod
    def check_solves_read_the_rows_a_fixed_number_of_times(case: Case) -> None:
        """A solve forms what it needs once, whichever side is smaller: no pass over the rows per iteration."""
        phi, dense = doubled(case)
        ridge = float(dense.square().sum() / len(dense))
        counted = CountingRows(phi.rows)
        watched = FeatureMatrix(rows=counted)
        tolerance = max(1e-8, 10 * tolerance_of(case))
        for system, b in (
            ((watched @ watched.mT).add_jitter(ridge), vectors(dense, 0, 2)),
            ((watched.mT @ watched).add_jitter(ridge), dense.mT @ vectors(dense, 0, 2)),
        ):
            counted.reset()
            solve(system, b, rtol=tolerance)
            assert counted.passes <= 20, f"{counted.passes:.1f} passes over the rows"

    @staticmethod
    def check_numpy_and_scikit_learn_read_it(case: Case) -> None:
        """``numpy.asarray`` is the dense array; ``train_test_split`` gives feature matrices."""
        phi, dense = both(case)
        assert np.asarray(phi).shape == tuple(dense.shape)
        close(torch.from_numpy(np.asarray(phi)).to(dense.dtype), dense)
        assert np.asarray(phi, dtype=np.float32).dtype == np.float32
        train, test, rows, _ = train_test_split(phi, np.arange(len(dense)), test_size=2, random_state=0)
        assert isinstance(train, FeatureMatrix)
        assert len(test) == 2
        close(train.to_dense(), dense[rows])

    @staticmethod
    def check_global_state_is_left_alone(case: Case) -> None:
        """No product, Gram or solve moves the global random stream, the default dtype or the grad mode."""
        phi, dense = both(case)
        before = (torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled())
        _ = phi @ vectors(dense, 1, 1)
        gram = (phi @ phi.mT).double()
        gram.to_dense()
        solve(gram.add_jitter(float(gram.diagonal().mean())), torch.ones(len(dense), dtype=torch.float64), rtol=1e-4)
        after = (torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled())
        assert torch.equal(before[0], after[0])
        assert before[1:] == after[1:]


def both(case: Case) -> tuple[FeatureMatrix, Tensor]:
    """The feature matrix of a case and its dense reference."""
    if case.reference is None:
        raise ValueError("a case of FeatureMatrixSuite needs reference=: a function that returns the dense matrix")
    return case.make(), case.reference().detach()


def doubled(case: Case) -> tuple[FeatureMatrix, Tensor]:
    """:func:`both` in float64."""
    phi, dense = both(case)
    return phi.double(), dense.double()


def tolerance_of(case: Case) -> float:
    """What rounding allows: 1e-10 in float64, 1e-4 in float32."""
    return tolerance(case.make().dtype)


def tolerance(dtype: torch.dtype | None) -> float:
    """What rounding allows in a dtype, relative to the largest entry."""
    return 1e-10 if dtype == torch.float64 else 1e-4 if dtype == torch.float32 else 2e-2


def close(actual: Tensor | LinearOperator, expected: Tensor, rtol: float | None = None) -> None:
    """Equal shape, dtype and, relative to the largest expected entry, values."""
    assert isinstance(actual, Tensor), f"expected a tensor, got {type(actual).__name__}"
    assert actual.shape == expected.shape, f"shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    assert actual.dtype == expected.dtype, f"{actual.dtype}, expected {expected.dtype}"
    if not expected.numel():
        return
    rtol = tolerance(expected.dtype) if rtol is None else rtol
    error = float((actual - expected).abs().max())
    assert error <= rtol * float(expected.abs().max()), f"off by {error:.2e} at {float(expected.abs().max()):.2e}"


def vectors(dense: Tensor, dim: int, count: int) -> Tensor:
    """Fixed normal columns that fit one side of a matrix."""
    generator = torch.Generator().manual_seed(dense.shape[dim] + count)
    return torch.randn(dense.shape[dim], count, generator=generator, dtype=torch.float64).to(dense.dtype)


def gradients(function: Callable[..., Tensor], leaves: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of a scalar function at fresh copies of the leaves."""
    fresh = [leaf.detach().clone().requires_grad_(True) for leaf in leaves]
    return torch.autograd.grad(function(*fresh), fresh)
