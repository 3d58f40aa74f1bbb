r"""A network's first-order expansion in its weights, as a module whose parameters are the direction."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from tangrams.features.model_ref import ModelRef
from tangrams.features.parameters import Parameters, Selection, select_parameters
from tangrams.features.tangent.guards import refuse_rewriting
from tangrams.nn.tangent.borrow import Borrowed
from tangrams.nn.tangent.dual import Dual, make_dual
from tangrams.nn.tangent.errors import BasePointMismatchError
from tangrams.nn.tangent.forward_mode import dual_numbers
from tangrams.nn.tangent.places import naming_the_layer
from tangrams.nn.tangent.returned import Returned, changed, tensors_of
from tangrams.nn.tangent.vector import TangentVector


class LinearizedModule(nn.Module):
    r"""A network linearised in its weights, in one pass with the network itself.

    .. math:: f_{\mathrm{lin}}(x) = f(x; w_0) + J(x)\, \dot w

    f the network in eval mode at its weights w₀, J its Jacobian. The direction ẇ is this module's parameter, zero at
    first, so that training starts at the network as it is; the gradient of a loss of :math:`f_{\mathrm{lin}}` is
    :math:`J^\top r`, and the loss is convex in ẇ where it is convex in the outputs. Value and tangent go through the
    network together as dual numbers; layers below the first trained parameter run plainly.

    The network is held by reference: it is not a submodule, its weights are not trained, moved or saved with this
    module, and it must not change. A tangent per piece of weight memory, under the first of its names.

    Args:
        module: the network.
        trainable: which parameters carry tangents, as for :class:`~tangrams.features.TangentFeatures`: None for all
            that require grad; names, modules, or a predicate ``(name, parameter)``.

    Shape:
        Takes and returns what the network does.

    Raises:
        TypeError: if ``module`` is no module.
        ValueError: for unknown names, frozen parameters asked for, or an unreadable network.

    Example:
        >>> import torch
        >>> lin = LinearizedModule(torch.nn.Linear(3, 2))
        >>> lin(torch.ones(4, 3)).shape
        torch.Size([4, 2])

    [004] Tangent Model Composition, [009] Tangent Transformers.
    """

    def __init__(self, module: nn.Module | ModelRef, *, trainable: Selection = None) -> None:
        super().__init__()
        self._ref = module if isinstance(module, ModelRef) else ModelRef(module)
        refuse_rewriting(self._ref.model)
        self._parameters_of_base: Parameters = select_parameters(self._ref.model, trainable)
        self.tangent = _Tree()
        known = self._ref.known.parameters
        self._leaves: dict[str, tuple[_Tree, str]] = {}
        for block in self._parameters_of_base.blocks:
            like = known[block.members[0]]
            zeros = torch.zeros(block.shape, dtype=like.dtype, device=like.device)
            self._leaves[block.name] = self.tangent.grow(block.name, nn.Parameter(zeros))
        self.fingerprint: str = self._ref.fingerprint()
        self._token = Borrowed(self._ref.model).versions()
        self._trained = self._where_trained()

    @property
    def base(self) -> nn.Module:
        """The network at w₀."""
        return self._ref.model

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters that carry tangents, in the order of the network's."""
        return tuple(self._leaves)

    def tangents(self) -> dict[str, Tensor]:
        """ẇ by name: the trainable parameters of this module."""
        return {name: self._tangent(name) for name in self._leaves}

    def vector(self) -> TangentVector:
        """A copy of ẇ."""
        return TangentVector({name: t.detach().clone() for name, t in self.tangents().items()}, self.fingerprint)

    def set_vector(self, vector: TangentVector) -> None:
        """Take over ẇ; one of another base point, or of other parameters, is a ``BasePointMismatchError``."""
        self.vector_like().require_same_base(vector)
        with torch.no_grad():
            for name, tangent in self.tangents().items():
                tangent.copy_(vector[name])

    def vector_like(self) -> TangentVector:
        """ẇ without copying: a view of the parameters."""
        return TangentVector({name: t.detach() for name, t in self.tangents().items()}, self.fingerprint)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network returns, linearised: its floating-point tensors at ẇ, all else as it is."""
        return self._run(args, kwargs).sum()

    def dual(self, *args: Any, **kwargs: Any) -> Dual:
        """What the network returns at w₀, and J ẇ in the same structure.

        Differentiable in ẇ and in floating-point inputs while gradients are enabled. The tangent of a tensor of
        whole numbers is zero.

        A network whose weights changed since is a ``BasePointMismatchError``, an operation without a derivative in
        forward mode an ``UnsupportedLayerError`` that names it, and one whose outputs do not depend on the trained
        parameters a ``TangentError``.
        """
        return self._run(args, kwargs).dual()

    def _run(self, args: Any, kwargs: Any) -> Returned:
        if torch._C._functorch.maybe_current_level() is not None:  # pyright: ignore
            return self._inside_torch_func(args, kwargs)
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False), torch.no_grad():
                return self._run(*changed((args, kwargs), torch.clone))
        borrowed = Borrowed(self._ref.model)
        self._require_same_weights(borrowed)
        train = torch.is_grad_enabled()
        if not train:
            args, kwargs = changed((args, kwargs), torch.detach)
        with (
            naming_the_layer(borrowed.model),
            dual_numbers(train) as forward_mode,
            borrowed.with_parameters(lambda p: self._dual_weight(p, train)) as model,
        ):
            with forward_mode:
                returned = model(*args, **kwargs)
            found = Returned.read(returned, type(model).__name__)
        self._token = borrowed.versions()
        return found

    def _where_trained(self) -> dict[int, tuple[str, Tensor | None]]:
        """By the id of a parameter of the network: which run of ẇ it takes, and where in it, None if it is the run."""
        known = dict(self._ref.model.named_parameters(remove_duplicate=False))
        return {
            id(known[name]): (block.name, position)
            for block in self._parameters_of_base.blocks
            for name, position in zip(block.members, block.positions, strict=True)
        }

    def _tangent(self, name: str) -> Tensor:
        node, leaf = self._leaves[name]
        return node._parameters[leaf]  # type: ignore[return-value]

    def _weight(self, p: nn.Parameter) -> Dual:
        """A parameter of the network and its part of ẇ."""
        if id(p) not in self._trained:
            return Dual(p.detach(), None)
        name, position = self._trained[id(p)]
        run = self._tangent(name)
        if position is None:
            return Dual(p.detach(), run)
        return Dual(p.detach().contiguous(), run.reshape(-1)[position.to(run.device)].reshape(p.shape))

    def _dual_weight(self, p: nn.Parameter, train: bool) -> Tensor:
        value, tangent = self._weight(p)
        return value if tangent is None else make_dual(value, tangent if train else tangent.detach())

    def _inside_torch_func(self, args: Any, kwargs: Any) -> Returned:
        """Under a transform of ``torch.func``, by its own forward mode, which nests in all the others."""
        self._trained = self._where_trained()
        with self._ref.session() as model, sdpa_kernel(SDPBackend.MATH):

            def function(values: dict[str, Tensor]) -> tuple[Tensor, ...]:
                nonlocal returned
                returned = functional_call(model, values, args, kwargs)
                return tuple(tensors_of(returned))

            returned = None
            weights = {name: self._weight(p) for name, p in model.named_parameters() if id(p) in self._trained}
            values = {name: weight.value for name, weight in weights.items()}
            pair = jvp(function, (values,), ({name: weight.tangent for name, weight in weights.items()},))
            return Returned(returned, *pair)

    def _require_same_weights(self, borrowed: Borrowed) -> None:
        token = borrowed.versions()
        if token == self._token:
            return
        if self._ref.fingerprint() != self.fingerprint:
            raise BasePointMismatchError(
                f"{type(self.base).__name__} changed since it was linearised: linearise a copy of it, "
                "or linearise it again"
            )
        self._token, self._trained = token, self._where_trained()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> LinearizedModule:
        self._ref.refuse_move(type(self).__name__, fn)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        """Network and p."""
        return f"{type(self.base).__name__}, p={self._parameters_of_base.numel}"


def linearize(
    module: nn.Module, *, trainable: Selection = None, vector: TangentVector | None = None
) -> LinearizedModule:
    """A network linearised in its weights, at zero or at a tangent vector.

    Args:
        module: the network; held by reference.
        trainable: which parameters carry tangents; those of ``vector`` by default where there is one, else all that
            require grad.
        vector: where the direction starts; one of another base point is a ``BasePointMismatchError``.
    """
    if vector is not None and trainable is None:
        trainable = list(vector)
    linearized = LinearizedModule(module, trainable=trainable)
    if vector is not None:
        linearized.set_vector(vector)
    return linearized


class _Tree(nn.Module):
    """Parameters under dotted names."""

    def grow(self, name: str, parameter: nn.Parameter) -> tuple[_Tree, str]:
        """Add one, and say where it is."""
        *path, leaf = name.split(".")
        node = self
        for part in path:
            if part not in node._modules:
                node.add_module(part, _Tree())
            node = node._modules[part]
            assert isinstance(node, _Tree)
        node.register_parameter(leaf, parameter)
        return node, leaf
