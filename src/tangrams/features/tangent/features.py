r"""Tangent features: the gradients of a network's outputs with respect to its weights."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from tangrams.features.base import FeatureMap
from tangrams.features.inputs import as_inputs
from tangrams.features.model_ref import ModelRef
from tangrams.features.outputs import Output, logits_of
from tangrams.features.parameters import Selection
from tangrams.features.tangent import check, generic
from tangrams.features.tangent.plan import Plan, make_plan
from tangrams.features.tangent.recipe import recipe_for
from tangrams.features.tangent.rows import TangentRows
from tangrams.features.tangent.spec import Check, TangentSpec
from tangrams.operators.sketches.base import Column


class TangentFeatures(FeatureMap):
    r"""Gradients of a network's outputs, sample by sample: the features of the empirical neural tangent kernel.

    .. math:: \Phi_{iC + c} = \partial f_c(x_i) / \partial\theta, \qquad K = \Phi \Phi^\top

    f the network in eval mode, C its outputs, θ the parameters that require grad, each piece of memory counted once,
    in the order of ``model.parameters()``. Gram matrices, norms and products come without forming Φ where the layers'
    structure allows, and are checked against plain autograd. The network is held by reference: it is not a submodule
    and is not moved, cast or copied.

    Args:
        model: the network.
        output: ``"all"``: a row per sample and output. ``"sum"``: a row per sample, of :math:`\sum_c f_c/\sqrt C`,
            the pseudo-NTK [033]. ``"trace"``: a sample's rows side by side over √C, so that the Gram matrix is the
            mean over outputs [072]. A callable of what the network returned (and of the targets, with
            ``Labelled``) → ``(n,)`` or ``(n, m)``: a row per value.
        params: None for all that require grad; names, modules, or a predicate ``(name, parameter)``.
        batch_size: samples per forward pass; chosen from the budget when None.
        memory_budget: bytes, or e.g. ``"1GiB"``, that a product may hold beyond its result.
        check: ``"sample"`` verifies the first samples of every Gram matrix and diagonal, on each side: all of up to 4,
            else n // 12 of them, but at least 4 and at most 16; of dense rows as many, once for the weights as they
            are. ``"full"`` verifies all samples.

    Shape:
        n samples → ``(n * rows_per_sample, num_features)``, sample-major.

    Raises:
        TypeError: if ``model`` is no module or ``output`` neither a name nor a callable.
        ValueError: for unknown names, frozen parameters asked for, or an unreadable network.

    Example:
        >>> import torch
        >>> from tangrams.features import TangentFeatures
        >>> phi = TangentFeatures(torch.nn.Linear(3, 2), output="all")
        >>> phi.gram(torch.eye(3)).shape
        torch.Size([6, 6])

    [055] Neural Tangent Kernel.
    """

    def __init__(
        self,
        model: nn.Module | ModelRef,
        output: str | Callable[..., Tensor] | Output = "all",
        params: Selection = None,
        *,
        batch_size: int | None = None,
        memory_budget: int | str = "1GiB",
        check: Check = "sample",
    ) -> None:
        super().__init__()
        ref = model if isinstance(model, ModelRef) else ModelRef(model)
        self.spec = TangentSpec(ref, output, params, batch_size, memory_budget, check)

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.spec.ref.model

    @property
    def output(self) -> Output:
        """Which functions of the network are differentiated."""
        return self.spec.output

    @property
    def takes_targets(self) -> bool:
        """Whether the output needs ``Labelled`` samples."""
        return self.spec.output.takes_targets

    @property
    def rows_per_sample(self) -> int:  # type: ignore[override]
        """C for ``"all"``, m for a callable, else 1; known once the network was called."""
        return self.spec.rows_per_sample

    @property
    def columns(self) -> tuple[Column, ...]:
        """One run of columns per parameter (per output and parameter for ``"trace"``)."""
        return self.spec.columns

    def forward(self, x: Any) -> Tensor:
        """Dense rows; differentiable in ``x`` and the weights while gradients are enabled.

        Under ``torch.no_grad`` they come by the fast routes instead.
        """
        if not torch.is_grad_enabled():
            return self.rows(x).dense()
        inputs = as_inputs(x)
        if inputs.n == 0:
            return self.rows(x).dense()
        with self.spec.ref.session() as model:
            recipe = recipe_for(self.spec, model, inputs.detached())
            parameters = self.spec.weights()
            blocks = self.spec.parameters.blocks
            rows = None
            if not recipe.loops:
                with suppress(Exception):  # torch.func has no common base of "this network cannot be transformed"
                    rows = generic.rows_by_vmap(model, self.output, parameters, blocks, inputs)
            if rows is None:
                rows = generic.differentiable_rows(model, self.output, parameters, blocks, inputs)
        n, r, p = rows.shape
        self.spec.meet(r)
        if not bool(torch.isfinite(rows.detach()).all()):
            bad = (~torch.isfinite(rows.detach())).flatten(1).any(1).nonzero().flatten()
            check.refuse_not_finite(self.spec, inputs.detached(), bad)
        return rows.reshape(n, r * p) / max(r, 1) ** 0.5 if self.output.folds else rows.reshape(n * r, p)

    def rows(self, x: Any) -> TangentRows:
        """The rows of ``x``, computed when asked for."""
        return TangentRows(self.spec, as_inputs(x))

    def gram(self, x: Any, y: Any | None = None) -> Tensor:
        """``Φ(x) Φ(y)ᵀ`` (``y = x`` when absent): ``(n * r, m * r)``, without Φ where the layers allow."""
        with self.spec.ref.lookup():
            return super().gram(x, y)

    def outputs(self, x: Any) -> Tensor:
        """The network's output tensor at ``x``, flattened to ``(n, C)``, without a graph."""
        inputs = as_inputs(x).detached()
        with self.spec.ref.session() as model, torch.no_grad():
            return logits_of(inputs.call(model)).reshape(inputs.n, -1)

    def plan(self, x: Any) -> Plan:
        """Routes and memory of ``gram(x)``, without computing it."""
        inputs = as_inputs(x).detached()
        if inputs.n == 0:
            return Plan(0, self.spec.num_outputs or 1, 1, 0, 1, 0, self.spec.memory_budget, {}, {}, {}, False, ())
        with self.spec.ref.session() as model:
            return make_plan(self.spec, recipe_for(self.spec, model, inputs), inputs.n)

    def explain(self, x: Any) -> None:
        """Print what was found out about the network, the route of each parameter and the memory plan.

        :func:`~tangrams.features.preflight` returns the same as an object.
        """
        from tangrams.features.preflight import preflight

        report = preflight(
            self.model,
            x,
            output=self.output,
            params=list(self.spec.parameters.names),
            memory_budget=self.spec.memory_budget,
        )
        print(report)

    def describe(self) -> dict[str, Any]:
        """Class, output, parameters and the network's fingerprint, as JSON data."""
        return {"class": type(self).__name__, **self.spec.describe()}

    def to(self, *args: Any, **kwargs: Any) -> TangentFeatures:
        """Refused: the network is not ours to move.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("TangentFeatures holds its network by reference: move the model itself, model.to(...)")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> TangentFeatures:
        self.spec.ref.refuse_move(type(self).__name__, fn)
        return self

    def extra_repr(self) -> str:
        """Network, output and p."""
        return f"{type(self.model).__name__}, output={self.output.name!r}, p={self.spec.parameters.numel}"
