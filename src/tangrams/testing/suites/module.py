"""What every layer must do to be trained, linearised, batched, compiled and studied by its tangents."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, jvp, vmap

from tangrams.features import TangentFeatures
from tangrams.testing.conformance import Case, Suite


def _module(case: Case) -> nn.Module:
    return case.make().double().eval()


def _inputs(case: Case, n: int = 4, seed: int = 0) -> tuple[Tensor, ...]:
    if case.inputs is None:
        raise ValueError("ModuleSuite needs a case with inputs")
    x = case.inputs(n, torch.Generator().manual_seed(seed))
    parts = x if isinstance(x, tuple) else (x,)
    return tuple(part.double() if part.is_floating_point() else part for part in parts)


def _parameters(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in module.named_parameters()}


def _call(module: nn.Module, parameters: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
    return functional_call(module, (parameters, dict(module.named_buffers())), inputs)


def _one(inputs: tuple[Tensor, ...], index: int) -> tuple[Tensor, ...]:
    return tuple(part[index : index + 1] for part in inputs)


class ModuleSuite(Suite):
    """Checks of a layer over samples on the first axis; inputs are a tensor, or a tuple of arguments.

    ``case.reference(module, *inputs)`` is a slow, obvious forward pass.
    """

    role = nn.Module

    @staticmethod
    def check_equals_reference(case: Case) -> None:
        """The slow reference gives the same."""
        if case.reference is None:
            pytest.skip("the case has no reference")
        module, inputs = _module(case), _inputs(case)
        torch.testing.assert_close(module(*inputs), case.reference(module, *inputs), rtol=1e-10, atol=1e-10)

    @staticmethod
    def check_gradients_are_right(case: Case) -> None:
        """The numerical gradient agrees in float64, in the inputs and in every parameter."""
        module, inputs = _module(case), _inputs(case, 2)
        parameters = _parameters(module)
        leaves = [*inputs, *parameters.values()]
        leaves = [leaf.clone().requires_grad_(leaf.is_floating_point()) for leaf in leaves]

        def forward(*values: Tensor) -> Any:
            named = dict(zip(parameters, values[len(inputs) :], strict=True))
            return _call(module, named, values[: len(inputs)])

        assert torch.autograd.gradcheck(forward, leaves)

    @staticmethod
    def check_samples_are_independent_in_eval(case: Case) -> None:
        """A sample's output does not depend on the others'."""
        module, inputs = _module(case), _inputs(case)
        together = module(*inputs)
        alone = torch.cat([module(*_one(inputs, index)) for index in range(len(together))])
        torch.testing.assert_close(together, alone, rtol=1e-10, atol=1e-10)

    @staticmethod
    def check_state_dict_and_deepcopy_round_trip(case: Case) -> None:
        """Another instance with the state, and a deep copy, compute the same bits."""
        module, inputs = _module(case), _inputs(case)
        output = module(*inputs)
        other = _module(case)
        other.load_state_dict(module.state_dict())
        assert torch.equal(other(*inputs), output), "another instance with the state dict computes something else"
        assert torch.equal(copy.deepcopy(module)(*inputs), output), "a deep copy computes something else"

    @staticmethod
    def check_vmap_of_grad_gives_each_samples_gradient(case: Case) -> None:
        """``vmap(grad)`` over samples equals a loop of backward passes."""
        module, inputs = _module(case), _inputs(case)
        parameters = _parameters(module)

        def loss(values: dict[str, Tensor], *sample: Tensor) -> Tensor:
            return _call(module, values, tuple(part.unsqueeze(0) for part in sample)).sin().sum()

        batched = vmap(grad(loss), in_dims=(None, *[0] * len(inputs)))(parameters, *inputs)
        for index in range(len(next(iter(batched.values())))):
            fresh = {name: value.clone().requires_grad_() for name, value in parameters.items()}
            _call(module, fresh, _one(inputs, index)).sin().sum().backward()
            for name, value in fresh.items():
                torch.testing.assert_close(batched[name][index], value.grad, rtol=1e-9, atol=1e-9)

    @staticmethod
    def check_jvp_is_the_directional_derivative(case: Case) -> None:
        """Forward mode in the parameters equals the Jacobian times the direction."""
        module, inputs = _module(case), _inputs(case)
        parameters = _parameters(module)
        generator = torch.Generator().manual_seed(1)
        direction = {
            name: torch.randn(value.shape, generator=generator, dtype=value.dtype) for name, value in parameters.items()
        }

        def forward(values: dict[str, Tensor]) -> Tensor:
            return _call(module, values, inputs)

        tangent = jvp(forward, (parameters,), (direction,))[1]
        expected = torch.zeros_like(tangent)
        for name, jacobian in jacrev(forward)(parameters).items():
            expected += torch.tensordot(jacobian, direction[name], direction[name].ndim)
        torch.testing.assert_close(tangent, expected, rtol=1e-9, atol=1e-9)

    @staticmethod
    def check_compiles_as_one_graph(case: Case) -> None:
        """``torch.compile(fullgraph=True)`` captures it without a break and computes the same."""
        module, inputs = _module(case), _inputs(case)
        torch._dynamo.reset()
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(*inputs), module(*inputs), rtol=1e-10, atol=1e-10)

    @staticmethod
    def check_tangent_gram_equals_dense_jacobian(case: Case) -> None:
        """``TangentFeatures(module).gram`` equals J Jᵀ by autograd to 1e-10."""
        module, inputs = _module(case), _inputs(case)
        parameters = _parameters(module)
        jacobians = jacrev(lambda values: _call(module, values, inputs))(parameters)
        outputs = module(*inputs)
        J = torch.cat([part.reshape(outputs.numel(), -1) for part in jacobians.values()], 1)
        x = inputs if len(inputs) != 1 else next(iter(inputs))
        expected = J @ J.mT
        gram = TangentFeatures(module, output="all").gram(x)
        torch.testing.assert_close(gram, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
