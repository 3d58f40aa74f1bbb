"""The rows of a tangent feature matrix: computed when asked for, never held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from tangrams.features.errors import TangentError
from tangrams.features.inputs import Inputs
from tangrams.features.tangent import engine
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
        self.r = engine.outputs_per_sample(spec, self.inputs)
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

    def _panels(self) -> Iterator[tuple[int, int, Tensor]]:
        """Dense rows of all samples in batches: ``(first row, last row + 1, rows)``."""
        self._unchanged()
        start = 0
        for block in engine.dense_batches(self.spec, self.inputs):
            b, r, p = block.shape
            rows = block.reshape(b, r * p) / math.sqrt(max(r, 1)) if self._folds else block.reshape(b * r, p)
            yield start, start + len(rows), rows
            start += len(rows)

    def matmul(self, v: Float[Tensor, "d k"]) -> Float[Tensor, "N k"]:
        """``Φ v``."""
        out = torch.empty(self._all_rows, v.shape[1], dtype=self.spec.ref.dtype, device=self.spec.ref.device)
        v = v.to(out)
        for start, stop, rows in self._panels():
            out[start:stop] = rows @ v
        return self._answer(self._pick(out))

    def t_matmul(self, u: Float[Tensor, "N k"]) -> Float[Tensor, "d k"]:
        """``Φᵀ u``."""
        u = u.to(dtype=self.spec.ref.dtype, device=self.spec.ref.device)
        if self._index is not None:
            u = u.new_zeros(self._all_rows, u.shape[1]).index_add_(0, self._index.to(u.device), u)
        out = u.new_zeros(self.shape[1], u.shape[1])
        for start, stop, rows in self._panels():
            out += rows.mT @ u[start:stop]
        return self._answer(out)

    def dense(self) -> Float[Tensor, "N d"]:
        """All rows."""
        out = torch.empty(self._all_rows, self.shape[1], dtype=self.spec.ref.dtype, device=self.spec.ref.device)
        for start, stop, rows in self._panels():
            out[start:stop] = rows
        return self._answer(self._pick(out))

    def diag(self) -> Float[Tensor, "N"]:
        """Squared norms of the rows."""
        out = torch.empty(self._all_rows, dtype=self.spec.ref.dtype, device=self.spec.ref.device)
        for start, stop, rows in self._panels():
            out[start:stop] = torch.linalg.vecdot(rows, rows)
        return self._answer(self._pick(out))

    def gram(self, other: Rows) -> Float[Tensor, "N M"]:
        """``Φ Ψᵀ``."""
        return self.dense() @ other.dense().to(dtype=self._dtype, device=self._device).mT

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
        """``Φ Sᵀ``, a batch of rows at a time."""
        out = torch.zeros(self._all_rows, sketch.num_features, dtype=self.spec.ref.dtype, device=self.spec.ref.device)
        for start, stop, rows in self._panels():
            sketch.accumulate(rows, 0, out[start:stop])
        return self._answer(self._pick(out))

    def __repr__(self) -> str:
        return f"TangentRows({tuple(self.shape)}, {self._dtype}, {type(self.spec.ref.model).__name__})"
