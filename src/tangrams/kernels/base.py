"""The role of a kernel: two hooks below, two calls above, GPyTorch beside.

A member writes ``_gram(x, y)`` and ``_diag(x)``. Learners and lens call :meth:`Kernel.gram` and
:meth:`Kernel.diag`, the same two names that feature maps and stores have;
GPyTorch calls :meth:`Kernel.forward`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import gpytorch
import torch
from jaxtyping import Float
from torch import Tensor

from tangrams.data.labelled import Labelled

_PAIRED_BLOCK = 32
"""Samples per block where GPyTorch asks for k(x_i, y_i) alone and the hooks can only give whole blocks."""


def _leaves(x: Any) -> Iterator[Tensor]:
    """The tensors of what a model is called with.

    Yields:
        Each tensor, in the order of the structure.
    """
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (tuple, list)):
        for part in x:
            yield from _leaves(part)
    elif isinstance(x, dict):
        for part in x.values():
            yield from _leaves(part)
    else:
        raise TypeError(f"expected a tensor, or a tuple or dict of tensors, got {type(x).__name__}")


def _structure(x: Any) -> Any:
    """What two inputs must share: kinds, event shapes and dtypes."""
    if isinstance(x, Tensor):
        return tuple(x.shape[1:]), x.dtype
    if isinstance(x, dict):
        return {name: _structure(part) for name, part in x.items()}
    return [_structure(part) for part in x]


class Kernel(gpytorch.kernels.Kernel):
    r"""A positive semi-definite function k(x, x′) of two samples, whatever a sample is.

    A member writes two hooks: ``_gram(x, y)`` → ``(n·r, m·r)`` (``y is x`` when one argument was given) and
    ``_diag(x)`` → ``(n·r,)``, where r is :attr:`outputs_per_input` and rows are sample-major, ``i * r + c``.
    Inputs reach the hooks validated; answers come back in the dtype of the (floating) inputs, differentiable
    in them wherever the member is.

    Class attributes that a member may set:

    * ``vector_inputs``: samples are vectors. Events of any shape are flattened to ``(n, d)``, and the hooks
      take leading batch dimensions themselves, so that hyper-parameters may have a ``batch_shape``. Otherwise
      the hooks see one batch at a time.
    * ``takes_targets``: :class:`~tangrams.data.Labelled` inputs reach the hooks whole. Otherwise targets are
      dropped.

    Args:
        event_shape: the shape of one sample. GPyTorch hands over ``(…, n, d)``; with it the adapter
            un-flattens to ``(…, n, *event_shape)``.
        **kwargs: GPyTorch's own: ``batch_shape``, ``active_dims``, ``lengthscale_prior``, …

    Shape:
        ``gram``: n and m samples → ``(n·r, m·r)``; ``diag``: ``(n·r,)``.

    Raises:
        ValueError: if ``event_shape`` has a dimension below one.
    """

    outputs_per_input: int = 1
    vector_inputs: bool = False
    takes_targets: bool = False

    def __init__(self, *, event_shape: Sequence[int] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if event_shape is not None and any(size < 1 for size in event_shape):
            raise ValueError(f"{type(self).__name__} needs an event_shape of sizes ≥ 1, got {tuple(event_shape)}")
        self.event_shape = None if event_shape is None else tuple(int(size) for size in event_shape)
        # Follows .double() and .to(): GPyTorch asks kernels without parameters for a dtype and a device too.
        self._anchor = torch.empty(0)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the hyper-parameters, or where there are none the one the kernel was cast to."""
        return next((parameter.dtype for parameter in self.parameters()), self._anchor.dtype)

    @property
    def device(self) -> torch.device:
        """The device of the hyper-parameters, or where there are none the one the kernel was moved to."""
        return next((parameter.device for parameter in self.parameters()), self._anchor.device)

    def _apply(self, fn: Any, recurse: bool = True) -> Kernel:
        self._anchor = fn(self._anchor)
        return super()._apply(fn, recurse)

    def _gram(self, x: Any, y: Any) -> Tensor:
        """Hook: the block k(x_i, y_j)."""
        raise NotImplementedError(f"{type(self).__name__} does not write the hook _gram")

    def _diag(self, x: Any) -> Tensor:
        """Hook: k(x_i, x_i), exactly."""
        raise NotImplementedError(f"{type(self).__name__} does not write the hook _diag")

    def gram(self, x: Any, y: Any | None = None) -> Float[Tensor, "*batch n m"]:
        """The Gram matrix ``k(x_i, y_j)``, with ``y = x`` when absent.

        A ``TypeError`` answers inputs of another kind, and an x and y of different kinds or dtypes; a
        ``ValueError`` tensors without a sample axis, with a NaN or an infinity, and event shapes that differ.

        Args:
            x: n samples: a tensor of any event shape, a tuple or dict of tensors, or ``Labelled``.
            y: m samples of the same kind.

        Shape:
            ``(n·r, m·r)``, after the ``batch_shape`` of hyper-parameters that have one.
        """
        dtype = self._answer_dtype(x)
        x = self._validated(x, "x")
        if y is None:
            return self._gram(x, x).to(dtype)
        y = self._validated(y, "y")
        self._check_pair(x, y)
        return self._gram(x, y).to(dtype)

    def diag(self, x: Any) -> Float[Tensor, "*batch n"]:
        """The diagonal ``k(x_i, x_i)`` without the matrix: ``(n·r,)``; takes what :meth:`gram` takes."""
        return self._diag(self._validated(x, "x")).to(self._answer_dtype(x))

    def num_outputs_per_input(self, x1: Tensor, x2: Tensor) -> int:
        """Rows per sample, for GPyTorch."""
        return self.outputs_per_input

    def forward(
        self, x1: Tensor, x2: Tensor, diag: bool = False, last_dim_is_batch: bool = False, **params: Any
    ) -> Tensor:
        """The adapter to GPyTorch.

        Args:
            x1: ``(…, n, d)``.
            x2: ``(…, m, d)``; batch dimensions broadcast.
            diag: k(x1_i, x2_i) alone; GPyTorch asks for it with x1 ≠ x2 too.
            last_dim_is_batch: each input dimension is a batch of its own.
            **params: ignored.

        Shape:
            ``(…, n·r, m·r)``, or ``(…, n·r)`` with ``diag``.
        """
        if last_dim_is_batch:
            x1, x2 = x1.mT.unsqueeze(-1), x2.mT.unsqueeze(-1)
        same = x1 is x2 or (not (x1.requires_grad or x2.requires_grad) and torch.equal(x1, x2))
        if self.vector_inputs:
            if not diag:
                return self._gram(x1, x1 if same else x2).to(self._answer_dtype(x1))
            return (self._diag(x1) if same else self._paired(x1, x2, -2)).to(self._answer_dtype(x1))

        batch = torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2])
        lefts = self._unflatten(x1.expand(*batch, *x1.shape[-2:]))
        rights = lefts if same else self._unflatten(x2.expand(*batch, *x2.shape[-2:]))
        if diag and same:
            answers = [self._diag(left) for left in lefts]
        else:
            pairs = zip(lefts, rights, strict=True)
            answers = [self._paired(*pair, 0) if diag else self._gram(*pair) for pair in pairs]
        out = torch.stack([answer.to(self._answer_dtype(x1)) for answer in answers])
        return out.reshape(*batch, *out.shape[1:])

    def _unflatten(self, x: Tensor) -> list[Tensor]:
        """``(…, n, d)`` → the samples of every batch, in the events' own shape."""
        event = x.shape[-1:] if self.event_shape is None else self.event_shape
        if math.prod(event) != x.shape[-1]:
            raise ValueError(
                f"{type(self).__name__} has event_shape {tuple(event)}, but GPyTorch handed over vectors of "
                f"{x.shape[-1]}: flatten the samples, x.flatten(1)"
            )
        return list(x.reshape(-1, x.shape[-2], *event))

    def _paired(self, x: Tensor, y: Tensor, axis: int) -> Tensor:
        """``k(x_i, y_i)`` (and c = c′), with samples on ``axis``: ``(…, n·r)``."""
        blocks = zip(x.split(_PAIRED_BLOCK, axis), y.split(_PAIRED_BLOCK, axis), strict=True)
        return torch.cat([self._gram(left, right).diagonal(dim1=-2, dim2=-1) for left, right in blocks], -1)

    def _validated(self, x: Any, name: str) -> Any:
        """``x`` as the hooks take it; kernels that take more than tensors override this."""
        who = type(self).__name__
        if isinstance(x, Labelled):
            inputs = self._validated(x.inputs, name)
            return Labelled(inputs, x.targets) if self.takes_targets else inputs
        try:
            leaves = list(_leaves(x))
        except TypeError as error:
            raise TypeError(f"{who}: {name}: {error}") from None
        if not leaves:
            raise TypeError(f"{who}: {name} holds no tensor")
        for leaf in leaves:
            if leaf.ndim == 0:
                raise ValueError(f"{who}: {name} has a tensor without a sample axis: pass (n, …), x[None] for one")
            if len(leaf) != len(leaves[0]):
                raise ValueError(f"{who}: the tensors of {name} have {len(leaves[0])} and {len(leaf)} samples")
            if leaf.is_complex():
                raise TypeError(f"{who}: {name} is complex: pass real and imaginary parts as features")
            if leaf.is_floating_point() and not torch.isfinite(leaf).all():
                bad = int((~torch.isfinite(leaf.reshape(len(leaf), -1))).any(-1).nonzero()[0])
                raise ValueError(f"{who}: {name} has a NaN or an infinity at sample {bad}: clean the data")
        if not self.vector_inputs:
            return x
        if not isinstance(x, Tensor):
            raise TypeError(f"{who} takes vectors: {name} must be one tensor, got {type(x).__name__}")
        x = x.reshape(len(x), math.prod(x.shape[1:]))
        x = x if x.is_floating_point() else x.to(self.dtype)
        return x if self.active_dims is None else x.index_select(-1, self.active_dims)

    def _check_pair(self, x: Any, y: Any) -> None:
        """Whether x and y may meet."""
        if isinstance(x, Labelled) and isinstance(y, Labelled):
            x, y = x.inputs, y.inputs
        left, right = _structure(x), _structure(y)
        if left == right:
            return
        who = type(self).__name__
        if isinstance(x, Tensor) and isinstance(y, Tensor) and x.dtype == y.dtype:
            raise ValueError(f"{who}: samples of x have shape {left[0]}, those of y {right[0]}")
        raise TypeError(f"{who}: x and y differ in kind or dtype ({left}, {right}): cast one")

    def _answer_dtype(self, x: Any) -> torch.dtype:
        """The dtype of the first floating tensor of x, or the kernel's own."""
        inputs = x.inputs if isinstance(x, Labelled) else x
        try:
            return next((leaf.dtype for leaf in _leaves(inputs) if leaf.is_floating_point()), self.dtype)
        except TypeError:
            return self.dtype
