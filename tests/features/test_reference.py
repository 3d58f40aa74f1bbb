"""The dense reference itself, against closed forms and torch's own jacrev."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from tangrams.data import Labelled
from tangrams.testing.reference import parameter_memory, reference_rows


def samples(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def test_the_rows_of_a_linear_model_are_its_inputs():
    x = samples()
    J = reference_rows(nn.Linear(3, 2).double(), x)
    for i in range(5):
        for c in range(2):
            expected = torch.zeros(8, dtype=torch.float64)
            expected[3 * c : 3 * c + 3], expected[6 + c] = x[i], 1.0
            assert torch.equal(J[2 * i + c], expected)


def test_rows_are_those_of_jacrev_over_the_whole_batch():
    model, x = net(), samples()
    weights = dict(model.named_parameters())
    blocks = jacrev(lambda w: functional_call(model, w, (x,)))(weights)
    expected = torch.cat([block.flatten(2) for block in blocks.values()], 2).flatten(0, 1)
    assert torch.allclose(reference_rows(model, x), expected, rtol=1e-12, atol=1e-14)


def test_sum_and_trace_are_made_of_the_rows_of_all_outputs():
    model, x = net(), samples()
    J = reference_rows(model, x).view(5, 2, -1)
    assert torch.allclose(reference_rows(model, x, "sum"), J.sum(1) / 2**0.5, atol=1e-14)
    T = reference_rows(model, x, "trace")
    assert torch.allclose(T @ T.mT, torch.einsum("icp,jcp->ij", J, J) / 2, atol=1e-13)


def test_a_loss_has_the_gradient_of_its_residual():
    model, x = net(), samples()
    targets = torch.tensor([0, 1, 0, 1, 1])

    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    J = reference_rows(model, x).view(5, 2, -1)
    residual = model(x).softmax(1) - nn.functional.one_hot(targets, 2)
    got = reference_rows(model, Labelled(x, targets), loss)
    assert torch.allclose(got, torch.einsum("ic,icp->ip", residual, J), atol=1e-13)


def test_a_nan_stays_in_the_rows_of_its_sample():
    model, x = net(), samples()
    clean = reference_rows(model, x)
    x[2, 1] = float("nan")
    J = reference_rows(model, x)
    assert J[4:6].isnan().any(1).all()
    assert torch.equal(torch.cat([J[:4], J[6:]]), torch.cat([clean[:4], clean[6:]]))


def test_parameters_over_one_memory_have_one_run_of_columns():
    first, second = nn.Linear(3, 3, bias=False).double(), nn.Linear(3, 3, bias=False).double()
    second.weight = nn.Parameter(first.weight.data)
    (memory,) = parameter_memory(nn.Sequential(first, second))
    assert (len(memory.leaves), memory.numel) == (2, 9)
    x = samples()
    tied = nn.Sequential(first, first)
    assert torch.allclose(reference_rows(nn.Sequential(first, second), x), reference_rows(tied, x), atol=1e-14)


def test_an_expanded_weight_has_a_column_per_element_of_memory():
    layer = nn.Linear(3, 2, bias=False)
    layer.weight = nn.Parameter(torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64).expand(2, 3))
    x = samples()
    assert torch.equal(reference_rows(layer, x, "sum"), 2 * x / 2**0.5)


def test_named_parameters_alone_and_no_samples():
    model = net()
    x = samples()
    assert torch.equal(reference_rows(model, x, params=["2.bias"]), torch.eye(2, dtype=torch.float64).repeat(5, 1))
    assert reference_rows(model, x[:0]).shape == (0, 26)


def test_modes_buffers_and_the_random_state_come_back():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).double().train()
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    reference_rows(model, samples())
    assert model.training
    assert model[2].training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_an_unknown_output_is_refused():
    with pytest.raises(ValueError, match="mean"):
        reference_rows(net(), samples(), "mean")
    with pytest.raises(TypeError, match="cannot tell"):
        reference_rows(Two(), samples())


class Two(nn.Module):
    """Two tensors that could be meant."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(3, 2).double()

    def forward(self, x):
        return {"a": self.body(x), "b": self.body(x)}
