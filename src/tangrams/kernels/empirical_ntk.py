"""The empirical neural tangent kernel of a network, in all its variants."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tangrams.features import ModelRef, TangentFeatures
from tangrams.features.outputs import Output
from tangrams.features.parameters import Selection
from tangrams.features.tangent.spec import Check
from tangrams.kernels.feature_kernel import FeatureKernel
from tangrams.kernels.memo import GramMemo, content


class EmpiricalNTK(FeatureKernel):
    r"""Inner products of a network's gradients, :math:`\Theta(x, x') = J(x) J(x')^\top` [033].

    ============================  =====================================================  ==================
    ``output``                    kernel, with C outputs                                 size
    ============================  =====================================================  ==================
    ``"all"``                     Θ, the full one                                        ``(n·C, m·C)``
    ``"sum"``                     1ᵀ Θ 1 / C, the pseudo-NTK [033]                       ``(n, m)``
    ``"trace"``                   tr Θ / C [072]                                         ``(n, m)``
    ``lambda f: f[:, 3]``         Θ₃₃, of a single logit                                 ``(n, m)``
    ============================  =====================================================  ==================

    A scalar kernel κ stands for :math:`\kappa \otimes I`. Gradients are those of the network in eval mode; it is held
    by reference and left as it was. Gram matrices are not differentiable in the weights. The last few answers are
    kept, by the contents of samples and weights, as GPyTorch asks for the same ones again and again.

    Args:
        model: the network.
        output: what is differentiated, as :class:`~tangrams.features.TangentFeatures` takes it.
        params: with respect to what: None for all that require grad, names, modules, or a predicate.
        batch_size: samples per forward pass; chosen from the budget when None.
        memory_budget: what a Gram may hold beyond its result.
        check: how much of each result is verified against plain autograd.
        event_shape: the shape of one sample, for GPyTorch.
        **kwargs: GPyTorch's own.

    Shape:
        n and m samples → ``(n·r, m·r)``, sample-major and output-minor, r = C for ``"all"`` and 1 for the others.

    Example:
        >>> import torch
        >>> k = EmpiricalNTK(torch.nn.Linear(3, 2), output="trace")
        >>> k.gram(torch.eye(3)).diagonal().round()
        tensor([2., 2., 2.])
    """

    phi: TangentFeatures

    def __init__(
        self,
        model: nn.Module | ModelRef,
        output: str | Callable[..., Tensor] | Output = "all",
        params: Selection = None,
        *,
        batch_size: int | None = None,
        memory_budget: int | str = "1GiB",
        check: Check = "sample",
        event_shape: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        ref = model if isinstance(model, ModelRef) else ModelRef(model)
        phi = TangentFeatures(ref, output, params, batch_size=batch_size, memory_budget=memory_budget, check=check)
        super().__init__(phi, event_shape=event_shape, **kwargs)
        self.ref = ref
        self._memo = GramMemo()

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.ref.model

    def blocks(self, x: Any, y: Any | None = None) -> Float[Tensor, "n m r r2"]:
        """The Gram matrix as one r × r block per pair of samples.

        Args:
            x: n samples.
            y: m samples; x when absent.
        """
        K = self.gram(x, y)
        r = self.outputs_per_input
        return K.reshape(K.shape[0] // r, r, K.shape[1] // r, r).transpose(1, 2)

    def _gram(self, x: Any, y: Any) -> Tensor:
        compute = super()._gram
        if isinstance(x, DataLoader) or isinstance(y, DataLoader):
            return compute(x, y)
        left = content(x)
        return self._memo((*self._state(), left, left if y is x else content(y)), lambda: compute(x, y))

    def _diag(self, x: Any) -> Tensor:
        compute = super()._diag
        if isinstance(x, DataLoader):
            return compute(x)
        return self._memo((*self._state(), content(x)), lambda: compute(x))

    def _state(self) -> tuple[Hashable, ...]:
        """What a Gram depends on besides its samples: weights, buffers, and which of them are trained."""
        return self.ref.fingerprint(), tuple(p.requires_grad for p in self.model.parameters())
