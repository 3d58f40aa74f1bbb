"""Any feature map as a kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tangrams.data.labelled import Labelled
from tangrams.features.base import FeatureMap
from tangrams.kernels.base import Kernel


class FeatureKernel(Kernel):
    r"""The inner products of a feature map's rows, :math:`k(x, x') = \langle\phi(x), \phi(x')\rangle`.

    Args:
        phi: the map: tangent, random, stored, or a chain of them.
        event_shape: the shape of one sample, for GPyTorch, which hands over flat vectors.
        **kwargs: GPyTorch's own.

    Shape:
        n and m samples → ``(n·r, m·r)`` with r the map's rows per sample, sample-major.

    Example:
        >>> from tangrams.features import TangentFeatures
        >>> k = FeatureKernel(TangentFeatures(torch.nn.Linear(3, 2), output="sum"))
        >>> k.gram(torch.eye(3), torch.ones(1, 3)).shape
        torch.Size([3, 1])
    """

    takes_targets = True

    def __init__(self, phi: FeatureMap, *, event_shape: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(event_shape=event_shape, **kwargs)
        self.phi = phi

    @property
    def outputs_per_input(self) -> int:  # type: ignore[override]
        """The map's rows per sample; of a network known once it was called."""
        return self.phi.rows_per_sample

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """Rows per sample, for GPyTorch, which asks before it evaluates: one sample is looked at if need be."""
        try:
            return self.outputs_per_input
        except RuntimeError:
            one = self._unflatten(x1.reshape(-1, *x1.shape[-2:])[:1, :1])[0]
            return len(self.phi.diag(one))

    def _gram(self, x: Any, y: Any) -> Tensor:
        left = self._readable(x)
        return self.phi.gram(left) if y is x else self.phi.gram(left, self._readable(y))

    def _diag(self, x: Any) -> Tensor:
        return self.phi.diag(self._readable(x))

    def _readable(self, x: Any) -> Any:
        """The samples in the precision that the map computes in; base.py answers in that of the samples."""
        dtype = self._features_dtype()
        return x if dtype is None or isinstance(x, DataLoader) else in_dtype(x, dtype)

    def _validated(self, x: Any, name: str) -> Any:
        return x if isinstance(x, DataLoader) else super()._validated(x, name)

    def _check_pair(self, x: Any, y: Any) -> None:
        if not isinstance(x, DataLoader) and not isinstance(y, DataLoader):
            super()._check_pair(_inputs(x), _inputs(y))

    def _answer_dtype(self, x: Any) -> torch.dtype:
        # Features of token ids or of a loader's batches have the dtype of what computes them, not of the ids.
        if isinstance(x, DataLoader) or not any_floating(x):
            return self._features_dtype() or self.dtype
        return super()._answer_dtype(x)

    def _features_dtype(self) -> torch.dtype | None:
        """That of the network's or the map's parameters, if there are any."""
        first = getattr(self.phi, "first", self.phi)
        model = getattr(first, "model", first)
        return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def _inputs(x: Any) -> Any:
    return x.inputs if isinstance(x, Labelled) else x


def any_floating(x: Any) -> bool:
    """Whether samples hold a floating tensor.

    Args:
        x: tensors in tuples, dicts and ``Labelled``, whose targets do not count.
    """
    x = _inputs(x)
    if isinstance(x, Tensor):
        return x.is_floating_point()
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, tuple | list) else ()
    return any(any_floating(part) for part in parts)


def in_dtype(x: Any, dtype: torch.dtype) -> Any:
    """The floating tensors of tensors in tuples, dicts and ``Labelled`` in another dtype.

    Args:
        x: samples.
        dtype: of the network that will read them.
    """
    if isinstance(x, Labelled):
        return Labelled(in_dtype(x.inputs, dtype), x.targets)
    if isinstance(x, Tensor):
        return x.to(dtype) if x.is_floating_point() else x
    if isinstance(x, dict):
        return {name: in_dtype(part, dtype) for name, part in x.items()}
    return type(x)(in_dtype(part, dtype) for part in x)
