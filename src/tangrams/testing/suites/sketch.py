"""What every sketch promises: unbiased, within its stated variance, the same however it is fed."""

from __future__ import annotations

import copy
import json
import math
import pickle
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tangrams.operators import Column, FeatureMatrix, Sketch
from tangrams.testing.conformance import Case, Suite
from tangrams.testing.suites.feature_matrix import close

_SEEDS = 400
"""Draws behind each statistic."""

_Z = 5.0
"""Standard errors that a mean may be off: about one false alarm in two million."""


class SketchSuite(Suite):
    """Checks of a :class:`~tangrams.operators.Sketch`.

    A case's ``make()`` gives an unbound sketch; the suite binds it to columns of its own and draws it anew by its
    ``seed``.
    """

    role = Sketch

    @staticmethod
    def check_same_for_any_chunking(case: Case) -> None:
        """Columns may come in any pieces, across the borders of runs and of the random stream."""
        for columns, cuts in ((mixed_columns(), (0, 7, 300, 301, 715)), (wide_column(), (0, 65_535, 65_536, 66_000))):
            sketch = case.make().bind(columns)
            features = normal_rows(3, sketch.in_features)
            whole = sketch.project(features)
            out = torch.zeros_like(whole)
            borders = [*cuts, sketch.in_features]
            for start, stop in pairwise(borders):
                sketch.accumulate(features[:, start:stop], start, out)
            close(out, whole)

    @staticmethod
    def check_parts_add_up(case: Case) -> None:
        """Shares of the columns, each a sketch of its own, add up to the whole and keep its adjoint."""
        sketch = case.make().bind(mixed_columns())
        features, u = normal_rows(3, 715), normal_rows(2, sketch.num_features)
        borders = tuple(pairwise((0, 260, 261, 261, 715)))
        parts = [sketch.part(start, stop) for start, stop in borders]
        shares = [part.project(features[:, slice(*border)]) for part, border in zip(parts, borders, strict=True)]
        close(torch.stack(shares).sum(0), sketch.project(features))
        close(parts[3].lift(u), sketch.lift(u)[:, 261:])
        with pytest.raises(ValueError, match="715"):
            sketch.part(5, 716)

    @staticmethod
    def check_linear_in_rows(case: Case) -> None:
        """A row's sketch does not depend on the rows beside it, and sums go through."""
        sketch = case.make().bind(mixed_columns())
        features = normal_rows(20, sketch.in_features)
        whole = sketch.project(features)
        close(sketch.project(features[7:9]), whole[7:9])
        close(sketch.project(features[:1] - 2 * features[1:2]), whole[:1] - 2 * whole[1:2])
        assert sketch.project(features[:0]).shape == (0, sketch.num_features)

    @staticmethod
    def check_transpose_is_the_adjoint(case: Case) -> None:
        """``⟨Sx, u⟩ = ⟨x, Sᵀu⟩``, as functions and as operators, in blocks too."""
        for columns in (mixed_columns(), wide_column()):
            sketch = case.make().bind(columns)
            x, u = normal_rows(2, sketch.in_features), normal_rows(2, sketch.num_features)
            close((sketch.project(x) * u).sum(), (x * sketch.lift(u)).sum())
            stop = min(sketch.in_features, 66_001)
            close(sketch.lift_block(u, 37, stop), sketch.lift(u)[:, 37:stop])
            assert sketch.lift_block(u, 37, 37).shape == (2, 0)
            S = sketch.matrix(dtype=torch.float64)
            assert S.shape == (sketch.num_features, sketch.in_features)
            close(S @ x.mT, sketch.project(x).mT)
            close(S.mT @ u.mT, sketch.lift(u).mT)

    @staticmethod
    def check_features_times_transpose(case: Case) -> None:
        """``Φ @ S.mT`` is ``Φ Sᵀ``, and S has the entries of its dense form."""
        sketch = case.make().bind(mixed_columns())
        features = normal_rows(3, sketch.in_features)
        S = sketch.matrix(dtype=torch.float64)
        dense = S.to_dense()
        close(FeatureMatrix(rows=features) @ sketch.mT, features @ dense.mT)
        close(S[[0, 0], [3, 714]], dense[[0, 0], [3, 714]])
        close(S[:, 5:9].to_dense(), dense[:, 5:9])
        close(S.mT.to_dense(), dense.mT)

    @staticmethod
    def check_outer_products(case: Case) -> None:
        """The sketch of a layer's weight gradients needs no gradients: with and without positions, aligned or not."""
        sketch = case.make().bind(mixed_columns())
        dense = sketch.matrix(dtype=torch.float64).to_dense()
        generator = torch.Generator().manual_seed(3)
        for positions, start in ((1, 0), (3, 0), (2, 100)):
            left = torch.randn(4, positions, 20, generator=generator, dtype=torch.float64)
            right = torch.randn(4, positions, 13, generator=generator, dtype=torch.float64)
            out = torch.zeros(4, sketch.num_features, dtype=torch.float64)
            sketch.accumulate_outer(left, right, start, out)
            close(out, torch.einsum("nto,nti->noi", left, right).flatten(1) @ dense[:, start : start + 260].mT)

    @staticmethod
    def check_gradients_and_vmap_pass_through(case: Case) -> None:
        """The gradient of ``⟨Sx, u⟩`` in x is ``Sᵀu``, and the gradient of ``⟨Sᵀu, x⟩`` in u is ``Sx``; vmap agrees."""
        sketch = case.make().bind(mixed_columns())
        x, u = normal_rows(2, 715), normal_rows(2, sketch.num_features)
        x.requires_grad_(True)
        u.requires_grad_(True)
        close(torch.autograd.grad((sketch.project(x) * u).sum(), x)[0], sketch.lift(u).detach())
        close(torch.autograd.grad((sketch.lift(u) * x).sum(), u)[0], sketch.project(x).detach())
        batch = torch.stack([x, 2 * x, -x]).detach()
        close(
            torch.vmap(sketch.project, randomness="same")(batch), torch.stack([sketch.project(rows) for rows in batch])
        )

    @staticmethod
    def check_same_for_any_dtype_and_threads(case: Case) -> None:
        """The draws are those of float64 in every dtype; threads change nothing."""
        sketch = case.make().bind(mixed_columns())
        features = normal_rows(3, sketch.in_features).float()
        whole = sketch.project(features.double())
        close(sketch.project(features), whole.float(), 1e-5)
        close(sketch.project(features.bfloat16()), sketch.project(features.bfloat16().double()).bfloat16(), 1e-2)
        threads = torch.get_num_threads()
        try:
            torch.set_num_threads(threads + 1)
            close(sketch.project(features.double()), whole, 1e-14)
        finally:
            torch.set_num_threads(threads)

    @staticmethod
    def check_state_is_seed_size_and_columns(case: Case) -> None:
        """The same seed draws the same sketch, another one another; copies and pickles agree; the global RNG stands."""
        columns = mixed_columns()
        features = normal_rows(2, columns[-1].stop)
        before = torch.get_rng_state()
        first = case.make().bind(columns)
        whole = first.project(features)
        assert torch.equal(before, torch.get_rng_state())
        for twin in (case.make().bind(columns), pickle.loads(pickle.dumps(first)), copy.deepcopy(first)):
            assert torch.equal(twin.project(features), whole)
        assert not torch.equal(seeded(case, 12_345).bind(columns).project(features), whole)
        assert not [value for value in vars(first).values() if isinstance(value, Tensor)]
        described = json.loads(json.dumps(first.describe()))
        assert described["class"] == type(first).__name__
        assert type(first).__name__ in repr(first)

    @staticmethod
    def check_bad_input(case: Case) -> None:
        """Unbound use, wrong columns and no features are clear errors."""
        sketch = case.make()
        with pytest.raises(ValueError, match="not bound"):
            sketch.project(normal_rows(2, 5))
        with pytest.raises(ValueError, match="bound to 715"):
            sketch.bind(mixed_columns()).project(normal_rows(2, 5))
        with pytest.raises(ValueError, match="features, got"):
            sketch.bind(mixed_columns()).lift(normal_rows(2, sketch.num_features + 1))
        with pytest.raises(ValueError, match="follow one another"):
            sketch.bind((Column("a", (3,), 1, 4),))
        with pytest.raises(ValueError, match="num_features"):
            type(sketch)(0)

    @staticmethod
    def check_unbiased_within_the_stated_variance(case: Case) -> None:
        """Over seeds the mean of ``⟨Sx, Sy⟩`` is ``⟨x, y⟩``, and its mean squared error at most ``variance(ρ)``."""
        sketch = case.make().bind(mixed_columns())
        for rho, errors in draws(case, pairs(), mixed_columns()):
            mean, spread = float(errors.mean()), float(errors.std()) / math.sqrt(len(errors))
            assert abs(mean) <= _Z * spread + 1e-9, (
                f"cosine {rho:.2f}: biased by {mean:.4f}, standard error {spread:.4f}"
            )
            squares = errors.square()
            mean, spread = float(squares.mean()), float(squares.std()) / math.sqrt(len(squares))
            bound = sketch.variance(rho)
            assert mean <= bound + _Z * spread, f"cosine {rho:.2f}: variance {mean:.5f}, stated {bound:.5f}"
            assert abs(sketch.standard_error(rho) - math.sqrt(bound)) < 1e-12

    @staticmethod
    def check_sparse_inputs_with_in_features_equal_k(case: Case) -> None:
        """Gradients of few inputs of a layer as wide as the sketch, which break folding without a shift."""
        k = case.make().num_features
        columns = (Column("weight", (12, k), 0, 12 * k),)
        generator = torch.Generator().manual_seed(5)
        hot = torch.randperm(k, generator=generator)[: max(1, k // 16)]
        inputs = torch.zeros(2, k, dtype=torch.float64)
        inputs[:, hot] = torch.rand(2, len(hot), generator=generator, dtype=torch.float64)
        outputs = torch.randn(2, 12, generator=generator, dtype=torch.float64)
        rows = torch.einsum("no,ni->noi", outputs, inputs).flatten(1)
        rows = rows / rows.norm(dim=1, keepdim=True)
        ((rho, errors),) = draws(case, [rows], columns)
        squares = errors.square()
        spread = float(squares.std()) / math.sqrt(len(squares))
        assert float(squares.mean()) <= case.make().bind(columns).variance(rho) + _Z * spread

    @staticmethod
    def check_never_holds_its_matrix(case: Case) -> None:
        """No tensor of the size of S, or near it, is made on the way."""
        rows, width = 2, 3 << 16
        sketch = case.make().bind((Column("weight", (3 << 8, 1 << 8), 0, width),))
        features = normal_rows(rows, width).float()
        with LargestTensor() as seen:
            sketch.project(features)
        assert seen.numel <= max(4 * features.numel(), width * sketch.num_features // 16), f"{seen.numel} entries"


class LargestTensor(TorchDispatchMode):
    """Notes the size of the largest storage that any operation inside makes."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.numel = max(self.numel, result.untyped_storage().nbytes() // result.dtype.itemsize)
        return result


def mixed_columns() -> tuple[Column, ...]:
    """A small network's worth of runs: a weight, a bias, a convolution, an embedding: 715 columns."""
    shapes = {"linear.weight": (20, 13), "linear.bias": (20,), "conv.weight": (5, 3, 3, 3), "embedding": (3, 100)}
    columns, start = [], 0
    for name, shape in shapes.items():
        columns.append(Column(name, shape, start, start + math.prod(shape)))
        start = columns[-1].stop
    return tuple(columns)


def wide_column() -> tuple[Column, ...]:
    """One weight that crosses a border of the random stream."""
    return (Column("weight", (280, 250), 0, 70_000),)


def normal_rows(n: int, width: int) -> Tensor:
    """Fixed normal rows."""
    return torch.randn(n, width, generator=torch.Generator().manual_seed(width), dtype=torch.float64)


def pairs() -> list[Tensor]:
    """Pairs of unit rows over :func:`mixed_columns`: independent, correlated, equal, in one layer, on few columns."""
    a, b, c, d = normal_rows(4, 715)
    layer = torch.zeros(715, dtype=torch.float64)
    layer[:260] = 1
    few = torch.zeros(715, dtype=torch.float64)
    few[[3, 16, 30, 270, 700]] = 1
    outer = torch.cat([torch.outer(a[:20], a[20:33]).flatten(), a.new_zeros(455)])
    twin = torch.cat([torch.outer(a[:20] + b[:20], a[20:33] - c[20:33]).flatten(), a.new_zeros(455)])
    found = [(a, b), (a, a + b), (c, c), (c * layer, (c + d) * layer), (a * few, (a + b) * few), (outer, twin)]
    return [torch.stack([x / x.norm(), y / y.norm()]) for x, y in found]


def seeded(case: Case, seed: int) -> Sketch:
    """The case's sketch with another seed."""
    return case.make().with_seed(seed)


def draws(case: Case, pairs: list[Tensor], columns: tuple[Column, ...]) -> list[tuple[float, Tensor]]:
    """For each pair of unit rows, its cosine and the error of ``⟨Sx, Sy⟩`` for each of many seeds."""
    rows = torch.cat(pairs)
    sketched = [seeded(case, seed).bind(columns).project(rows) for seed in range(_SEEDS)]
    products = torch.stack([torch.linalg.vecdot(s[0::2], s[1::2]) for s in sketched], 1)
    cosines = torch.linalg.vecdot(rows[0::2], rows[1::2])
    return [(float(rho), of_pair - rho) for rho, of_pair in zip(cosines, products, strict=True)]
