"""What tangent features are taken of, and how much memory may be used."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tangrams.features.model_ref import ModelRef
from tangrams.features.outputs import Output, as_output
from tangrams.features.parameters import Parameters, Selection, select_parameters
from tangrams.features.tangent.workspace import Workspace
from tangrams.operators.sketches.base import Column

Check = Literal["sample", "full"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_bytes(value: int | float | str) -> int:
    """``"1GiB"`` → 1073741824.

    Raises:
        ValueError: for anything that is not a positive number of bytes.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", value)
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(f'memory_budget={value!r} is not a size: write bytes or e.g. "1GiB"')
        value = float(match[1]) * _UNITS[match[2].lower()]
    if not value > 0:
        raise ValueError(f"memory_budget must be positive, got {value}")
    return int(value)


class TangentSpec:
    """The network, the outputs and the parameters of a tangent feature map, with its limits.

    Attributes:
        ref: the network.
        output: which functions of it are differentiated.
        parameters: with respect to what.
        batch_size: samples per forward pass; None lets the plan choose.
        memory_budget: bytes that a product may hold beyond its result.
        check: how much of each result is verified against plain autograd.
        num_outputs: r, the functions per sample; None until the network was first called.
        recipes: how products are computed, by kind of inputs.
        verified: the recipe whose rows were verified, by kind of inputs and weights.
        no_forward_mode: kinds of inputs for which forward mode was found missing or wrong.
        workspace: memory that is used again.
    """

    def __init__(
        self,
        ref: ModelRef,
        output: str | Callable[..., Tensor] | Output,
        params: Selection,
        batch_size: int | None,
        memory_budget: int | str,
        check: Check,
    ) -> None:
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if check not in {"sample", "full"}:
            raise ValueError(f'check must be "sample" or "full", got {check!r}')
        self.ref = ref
        self.output = as_output(output)
        self.parameters: Parameters = select_parameters(ref.model, params)
        self.batch_size = batch_size
        self.memory_budget = parse_bytes(memory_budget)
        self.check: Check = check
        self.num_outputs: int | None = None
        self.recipes: dict[Any, Any] = {}
        self.verified: dict[Any, Any] = {}
        self.no_forward_mode: set[Any] = set()
        self.workspace = Workspace()

    def __deepcopy__(self, memo: dict[int, Any]) -> TangentSpec:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "recipes": {}, "verified": {}, "workspace": Workspace()}

    @property
    def dtype(self) -> torch.dtype:
        """What inner products are summed in: at least float32."""
        return self.ref.known.summed

    def weights(self) -> dict[str, nn.Parameter]:
        """The selected parameters, by name."""
        return self.parameters.among(self.ref.known.parameters)

    def meet(self, num_outputs: int) -> None:
        """Remember r from a call of the network."""
        self.num_outputs = num_outputs

    def _outputs_known(self) -> int:
        if self.num_outputs is None:
            raise RuntimeError(
                f"the number of functions of output={self.output.name!r} is known once the network was called: "
                "use rows, matrix, gram or the map itself on some x first"
            )
        return self.num_outputs

    @property
    def rows_per_sample(self) -> int:
        """Feature rows of one sample."""
        return 1 if self.output.folds or self.output.name == "sum" else self._outputs_known()

    @property
    def columns(self) -> tuple[Column, ...]:
        """The parameters' columns; once per function, prefixed by its number, where functions share a row."""
        columns = self.parameters.columns
        if not self.output.folds:
            return columns
        p = self.parameters.numel
        return tuple(
            Column(f"{c}.{column.name}", column.shape, c * p + column.start, c * p + column.stop)
            for c in range(self._outputs_known())
            for column in columns
        )

    def describe(self) -> dict[str, Any]:
        """What defines the features, as JSON data."""
        return {
            **self.output.describe(),
            "parameters": [
                {"name": b.name, "shape": list(b.shape), "members": list(b.members)} for b in self.parameters.blocks
            ],
            "model": {"class": type(self.ref.model).__qualname__, "fingerprint": self.ref.fingerprint()},
        }
