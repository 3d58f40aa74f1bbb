"""The rows of a tangent feature matrix: computed when asked for, never held."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.tangent import dense, gram, products, projection
from tangrams.features.tangent.recipe import recipe_for
from tangrams.features.tangent.spec import TangentSpec
from tangrams.operators.rows import Rows
from tangrams.operators.sketches.base import Sketch


class TangentRows:
    """Gradients of a network's outputs at some samples, as :class:`~tangrams.operators.rows.Rows`.

    Row ``i * r + c`` is the gradient of function c at sample i; with ``output="trace"`` row i holds all of them, each
    over √r. The weights are those at the time of the call; rows made before the network changed refuse to answer.

    Args:
        spec: the network, outputs and parameters.
        inputs: the samples.

    Shape:
        ``(N, d)``, N = n·r rows.
    """

    def __init__(self, spec: TangentSpec, inputs: Inputs) -> None:
        self.spec = spec
        self.inputs = inputs.detached()
        self.r = outputs_per_sample(spec, self.inputs)
        self._index: Tensor | None = None
        self._dtype = spec.ref.dtype
        self._device = spec.ref.device
        self._versions = spec.ref.versions()

    def __getstate__(self) -> dict[str, Any]:
        self._unchanged()
        return {**self.__dict__, "_versions": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._versions = self.spec.ref.versions()

    def __deepcopy__(self, memo: dict[int, Any]) -> TangentRows:
        return self

    def _unchanged(self) -> None:
        if self._versions != self.spec.ref.versions():
            raise TangentError(
                f"the weights of {type(self.spec.ref.model).__name__} changed since these rows were made: call "
                "matrix(x) or rows(x) again"
            )

    @property
    def _folds(self) -> bool:
        return self.spec.output.folds

    @property
    def _all_rows(self) -> int:
        return self.inputs.n * (1 if self._folds else self.r)

    @property
    def shape(self) -> torch.Size:
        """``(N, d)``."""
        n = self._all_rows if self._index is None else len(self._index)
        p = self.spec.parameters.numel
        return torch.Size((n, self.r * p if self._folds else p))

    @property
    def dtype(self) -> torch.dtype:
        """The parameters', unless :meth:`to` chose another."""
        return self._dtype

    @property
    def device(self) -> torch.device:
        """The network's, unless :meth:`to` chose another."""
        return self._device

    def _answer(self, result: Tensor) -> Tensor:
        return result.to(dtype=self._dtype, device=self._device)

    def _pick(self, result: Tensor) -> Tensor:
        return result if self._index is None else result[self._index.to(result.device)]

    def _empty(self, columns: int) -> Tensor:
        return torch.zeros(self._all_rows, columns, dtype=self.spec.dtype, device=self.spec.ref.device)

    def _visit_pieces(self, consume: Callable[[slice, int, Tensor], None]) -> None:
        """Dense pieces of rows in panels: ``consume(rows of the answer, first column, piece)``."""
        self._unchanged()
        p = self.spec.parameters.numel
        scale = 1 / math.sqrt(max(self.r, 1))

        def visit(where: slice, function: int, rows: Tensor) -> None:
            if self._folds:
                consume(where, function * p, rows * scale)
            else:
                consume(slice(where.start * self.r + function, where.stop * self.r, self.r), 0, rows)

        dense.visit_rows(self.spec, self.inputs, visit)

    def matmul(self, v: Float[Tensor, "d k"]) -> Float[Tensor, "N k"]:
        """``Φ v``: forward mode for few columns, panels of rows for many."""
        self._unchanged()
        v = v.detach().to(dtype=self.spec.dtype, device=self.spec.ref.device)
        if not self._folds and v.shape[1] <= self.r and self.inputs.n:
            pushed = products.forward_product(self.spec, self.inputs, v)
            if pushed is not None:
                return self._answer(self._pick(pushed.reshape(self._all_rows, v.shape[1])))
        out = self._empty(v.shape[1])

        def multiply(where: slice, start: int, rows: Tensor) -> None:
            out[where] += rows @ v[start : start + rows.shape[1]]

        self._visit_pieces(multiply)
        return self._answer(self._pick(out))

    def t_matmul(self, u: Float[Tensor, "N k"]) -> Float[Tensor, "d k"]:
        """``Φᵀ u``: reverse mode, one pass per column."""
        self._unchanged()
        u = u.detach().to(dtype=self.spec.dtype, device=self.spec.ref.device)
        if self._index is not None:
            u = u.new_zeros(self._all_rows, u.shape[1]).index_add_(0, self._index.to(u.device), u)
        if self.inputs.n == 0:
            return self._answer(u.new_zeros(self.shape[1], u.shape[1]))
        if self._folds:
            u = u[:, None, :].expand(-1, self.r, -1)
        return self._answer(products.transposed_product(self.spec, self.inputs, u.reshape(self.inputs.n, self.r, -1)))

    def dense(self) -> Float[Tensor, "N d"]:
        """All rows."""
        out = torch.empty(self._all_rows, self.shape[1], dtype=self._dtype, device=self._device)

        def write(where: slice, start: int, rows: Tensor) -> None:
            out[where, start : start + rows.shape[1]] = rows.to(out)

        self._visit_pieces(write)
        return self._pick(out)

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms of the rows."""
        self._unchanged()
        if self.inputs.n == 0:
            return self._answer(self._empty(1)[:, 0])
        norms = gram.diag(self.spec, self.inputs)
        return self._answer(self._pick(norms.mean(1) if self._folds else norms.reshape(-1)))

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ``, by the layers' structure where both sides are of one map."""
        self._unchanged()
        if isinstance(other, TangentRows) and other.spec is self.spec:
            same = other is self or (other.inputs is self.inputs)
            if other is not self:
                other._unchanged()
            result = gram.gram(self.spec, self.inputs, None if same else other.inputs)
            result = self._pick(result)
            if other._index is not None:
                result = result[:, other._index.to(result.device)]
            return self._answer(result)
        out = self._empty(other.shape[0])
        theirs = other.dense().to(out)

        def multiply(where: slice, start: int, rows: Tensor) -> None:
            out[where] += rows @ theirs[:, start : start + rows.shape[1]].mT

        self._visit_pieces(multiply)
        return self._answer(self._pick(out))

    def take(self, index: Int64[Tensor, "M"]) -> TangentRows:
        """Some rows, in that order; the network runs only on the samples they need."""
        chosen = index if self._index is None else self._index[index.to(self._index.device)]
        chosen = chosen.to("cpu")
        per = 1 if self._folds else self.r
        chosen = torch.where(chosen < 0, chosen + self._all_rows, chosen)
        if len(chosen) and not (int(chosen.min()) >= 0 and int(chosen.max()) < self._all_rows):
            raise IndexError(f"row index out of range for {self._all_rows} rows")
        samples, inverse = torch.unique(chosen // max(per, 1), return_inverse=True)
        taken = object.__new__(TangentRows)
        taken.__dict__.update(self.__dict__)
        taken.inputs = self.inputs.take(samples)
        rows = inverse * per + chosen % max(per, 1)
        whole = torch.equal(rows, torch.arange(taken._all_rows))
        taken._index = None if whole else rows
        return taken

    def to(self, dtype: torch.dtype | None = None, device: torch.device | None = None) -> TangentRows:
        """The same rows, answered in another dtype or on another device; the network stays where it is."""
        moved = object.__new__(TangentRows)
        moved.__dict__.update(self.__dict__)
        moved._dtype = dtype or self._dtype
        moved._device = device or self._device
        return moved

    def project(self, sketch: Sketch) -> Float[Tensor, "N k"]:
        """``Φ Sᵀ``, a few rows at a time: never N × d nor d × k in memory."""
        out = self._empty(sketch.num_features)
        if sketch.takes_outer and not self._folds and self.inputs.n:
            self._unchanged()

            def place(where: slice, function: int, piece: Tensor) -> None:
                out[where.start * self.r + function : where.stop * self.r : self.r] = piece

            projection.visit_projected(self.spec, self.inputs, sketch, place)
            return self._answer(self._pick(out))

        def sketch_piece(where: slice, start: int, rows: Tensor) -> None:
            piece = rows.new_zeros(len(rows), sketch.num_features)
            sketch.accumulate(rows, start, piece)
            out[where] += piece

        self._visit_pieces(sketch_piece)
        return self._answer(self._pick(out))

    def __repr__(self) -> str:
        return f"TangentRows({tuple(self.shape)}, {self._dtype}, {type(self.spec.ref.model).__name__})"


def outputs_per_sample(spec: TangentSpec, inputs: Inputs) -> int:
    """r, from the network's answer to a few samples; a network that cannot be used is refused here."""
    if inputs.n == 0:
        return spec.num_outputs or 1
    known = spec.recipes.get(inputs.signature())
    if known is not None:
        spec.meet(known.r)
        return known.r
    with spec.ref.session() as model:
        return recipe_for(spec, model, inputs).r
