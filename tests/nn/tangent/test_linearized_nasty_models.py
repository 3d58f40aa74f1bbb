"""Every network of the table of nasty models is linearised right, or refused by name."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from tangrams.features import ModelRef, TangentError
from tangrams.features.inputs import Inputs, as_inputs
from tangrams.features.outputs import logits_of
from tangrams.nn.tangent import LinearizedModule, linearize
from tangrams.testing.models import NASTY_MODELS, NastyModel
from tangrams.testing.restoration import Snapshot

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
BY_NAME = {nasty.name: nasty for nasty in NASTY_MODELS}

REFUSED = {
    "frozen-all": "Sequential",
    "no-parameters": "Sequential",
    "quantised": "Sequential",
    "complex": "'filter' is complex",
    "scripted": "TorchScript",
    "embedding-max-norm": "Embedding.*max_norm",
    "meta": "'0.weight' is on the meta device",
    "half-meta": "'2.weight' is on the meta device",
    "lazy": "'0.weight' is not initialised",
    "graphless": "Graphless.*depends on its trained parameters",
    "argmax": "Returning.*depends on its trained parameters",
    "returns-none": "Returning.*depends on its trained parameters",
    "batch-norm-batch": r"1 \(BatchNorm1d\) of Sequential.*statistics of the batch",
    "batch-norm-functional": r"TrainNorm.*statistics of the batch",
    "spatial-transformer": r"Spatial.*grid_sampler_2d",
    "checkpoint-reentrant": r"Checkpointed.*jvp",
    "custom-function": r"Custom.*jvp",
}
"""Networks without a derivative in forward mode, and who and what the error must name."""

WITHOUT_REFERENCE = {
    "dict-ambiguous": "which tensor of the output is meant",
    "returns-half": "it returns fewer samples than it is given, which only a derivative can tell",
    "drifting": "two calls differ",
    "random-noise": "two calls differ",
    "random-dropout": "two calls differ",
    "random-shuffle": "two calls differ",
}
"""Networks that are linearised, but cannot be compared."""

NOT_BY_JVP = {
    "embedding-padding": "torch.func.jvp moves the row of the padding, which is a constant to reverse mode and to us",
    "bert": "the same",
    "bert-padded": "the same",
    "detached": "torch.func.jvp moves what runs under no_grad, which is a constant to reverse mode and to us",
    "two-names": "functional_call cannot move two parameters over one storage together",
    "overlapping": "the same",
    "expanded": "the same",
    "weight-norm": "torch's kernel has no forward mode",
    "weight-norm-conv": "the same",
    "twice-weight-norm": "the same",
    "bag-sum": "torch's kernel has no forward mode",
    "bag-mean": "the same",
    "bag-max": "the same",
    "bag-weighted": "the same",
    "lstm-packed": "torch.func.jvp does not take a packed sequence",
    "head-weight": "functional_call's weights are no nn.Parameter",
    "gradient-inside": "torch.func.jvp loses the graph of autograd.grad",
    "counting": "functional_call would change the buffers",
}
"""Networks that torch.func.jvp has another answer to, or none; compared with the dense Jacobian."""

NOT_BY_ROWS = {"hooked": "a hook that scales gradients is no derivative: torch.func.jvp does not see it either"}
"""Networks whose gradients by reverse mode are not those of the function."""

LINEARISED = [nasty for nasty in NASTY_MODELS if nasty.name not in REFUSED | WITHOUT_REFERENCE.keys()]


def available(name: str) -> NastyModel:
    nasty = BY_NAME[name]
    if not nasty.available:
        pytest.skip(f"needs {', '.join(nasty.needs)}")
    return nasty


def linearized(nasty: NastyModel) -> LinearizedModule:
    """At a random direction."""
    lin = linearize(nasty.make())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for tangent in lin.tangents().values():
            tangent.copy_(torch.randn(tangent.shape, generator=generator, dtype=torch.float64))
    return lin


def tensor(nasty: NastyModel, returned: Any) -> Tensor:
    return nasty.output(returned) if callable(nasty.output) else logits_of(returned)


@cache
def rows(name: str) -> Tensor:
    return BY_NAME[name].reference()


def close(got: Tensor, expected: Tensor, tolerance: float) -> bool:
    assert got.shape == expected.shape
    if not got.numel():
        return True
    scale = float(expected.abs().nan_to_num().max().clamp(min=1.0))
    return torch.allclose(got, expected, rtol=0, atol=tolerance * scale, equal_nan=True)


def has_rows(nasty: NastyModel) -> bool:
    return nasty.expect == "exact" and nasty.output == "all" and nasty.name not in NOT_BY_ROWS


@pytest.mark.parametrize("name", [nasty.name for nasty in LINEARISED if has_rows(nasty)])
def test_products_with_the_jacobian_and_its_transpose_are_right_and_the_network_is_left_alone(name):
    nasty = available(name)
    lin, inputs = linearized(nasty), as_inputs(nasty.inputs())
    with torch.no_grad():
        got = logits_of(lin.dual(*inputs.args, **inputs.kwargs).tangent)
    expected = rows(name).double() @ lin.vector().flat().double()
    assert close(got.reshape(-1).double(), expected, nasty.tolerance)
    if name == "checkpoint":  # cannot be trained: a test of its own
        return
    before = Snapshot(lin.base, inputs.args)
    value = logits_of(lin(*inputs.args, **inputs.kwargs)).reshape(-1)
    assert before.differences() == []
    r = torch.randn(value.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = torch.autograd.grad((value.double() * r).sum(), list(lin.tangents().values()), materialize_grads=True)
    got = torch.cat([g.to_dense().reshape(-1) for g in found]).double()
    assert close(got, rows(name).double().mT @ r, nasty.tolerance)


def by_jvp(nasty: NastyModel, lin: LinearizedModule, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Value and tangent by ``torch.func.jvp``."""
    model = ModelRef(nasty._make(nasty.plain or nasty.factory)).model.eval()
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    direction = {name: lin.vector()[name] for name in lin.names}

    def function(moving: dict[str, Tensor]) -> Tensor:
        return tensor(nasty, functional_call(model, moving, inputs.args, inputs.kwargs))

    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # neither it nor fused attention has tangents
    try:
        with sdpa_kernel(SDPBackend.MATH):
            return jvp(function, ({name: parameters[name] for name in direction},), (direction,))
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@pytest.mark.parametrize("name", [nasty.name for nasty in LINEARISED if nasty.name not in NOT_BY_JVP])
def test_value_and_tangent_are_those_of_torch_func_jvp(name):
    nasty = available(name)
    lin, inputs = linearized(nasty), as_inputs(nasty.inputs())
    with torch.no_grad():
        dual = lin.dual(*inputs.args, **inputs.kwargs)
        total = lin(*inputs.args, **inputs.kwargs)
    value, tangent = by_jvp(nasty, lin, inputs)
    tolerance = max(nasty.tolerance, 1e-10)
    assert close(tensor(nasty, dual.value), value, tolerance)
    if not callable(nasty.output):
        assert close(logits_of(dual.tangent), tangent, tolerance)
        assert close(logits_of(total), value + tangent, tolerance)


@pytest.mark.parametrize("name", REFUSED)
def test_a_network_without_forward_mode_is_refused_and_named_and_left_as_it_was(name):
    nasty = available(name)
    model, x = nasty.make(), nasty.inputs()
    inputs = as_inputs(x)
    before = Snapshot(model, x)
    with pytest.raises((TangentError, ValueError, TypeError)) as caught:
        linearize(model)(*inputs.args, **inputs.kwargs)
    assert re.search(REFUSED[name], str(caught.value)), str(caught.value)
    assert before.differences() == []


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_a_network_that_cannot_be_compared_is_linearised_all_the_same(name):
    nasty = available(name)
    lin, inputs = linearized(nasty), as_inputs(nasty.inputs())
    lin(*inputs.args, **inputs.kwargs)


def test_checkpointing_is_refused_in_training_and_right_in_inference():
    nasty = BY_NAME["checkpoint"]
    lin, inputs = linearized(nasty), as_inputs(nasty.inputs())
    with pytest.raises(TangentError, match=r"Checkpointed.*checkpointing"):
        lin(*inputs.args)
