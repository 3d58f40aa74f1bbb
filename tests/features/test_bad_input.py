"""Bad input to the feature maps: one clear exception that says who, what, where and the way out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tangrams.data import Labelled
from tangrams.features import Chain, Stack, TangentFeatures
from tangrams.operators import CountSketch
from tangrams.testing.restoration import Snapshot

ERRORS = (TypeError, ValueError)


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def samples(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets, reduction="none")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        ("net", {}, "Module"),
        (lambda x: x, {}, "Module"),
        (net(), {"output": "every"}, "every.*all.*sum.*trace"),
        (net(), {"output": 3}, "output"),
        (net(), {"params": ["0.wieght"]}, r"0\.wieght.*0\.weight"),
        (net(), {"params": []}, "nothing to differentiate"),
        (net(), {"params": nn.Linear(2, 2)}, "Linear.*not part of"),
        (net(), {"params": 7}, "params"),
        (net(), {"params": lambda name, p: False}, "nothing to differentiate"),
        (net().requires_grad_(False), {}, "requires grad"),
        (net().requires_grad_(False), {"params": ["0.weight"]}, r"0\.weight.*frozen"),
        (net(), {"batch_size": 0}, "batch_size"),
        (net(), {"batch_size": -3}, "batch_size"),
        (net(), {"memory_budget": 0}, "memory_budget"),
        (net(), {"memory_budget": "a lot"}, "a lot"),
        (net(), {"memory_budget": "3 parsec"}, "parsec"),
        (net(), {"check": "none"}, "check"),
    ],
)
def test_a_bad_argument_of_the_map_is_named(model, options, message):
    with pytest.raises(ERRORS, match=message):
        TangentFeatures(model, **options)


def dataset() -> TensorDataset:
    return TensorDataset(samples(), torch.zeros(5, dtype=torch.long))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (None, "NoneType"),
        ("text", "str"),
        (3, "int"),
        (np.zeros((5, 4)), "torch.from_numpy"),
        ([], "no tensor"),
        ({}, "no tensor"),
        (torch.tensor(1.0), "sample"),
        ((samples(5), samples(3)), r"3, 5"),
        (Labelled(samples(5), torch.zeros(4)), "5 samples"),
        (Labelled(samples(5), torch.tensor(0.0)), "5 samples"),
        (Labelled(samples(5), [0, 1, 2, 0, 1]), "list|targets"),
        (DataLoader(dataset(), batch_size=2, shuffle=True), "shuffle"),
        (DataLoader(TensorDataset(torch.zeros(0, 4)), batch_size=2), "empty"),
        (dataset(), "TensorDataset"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_no_network_is_called_with_is_refused(x, message):
    phi = TangentFeatures(net())
    for question in (phi, phi.gram, phi.diag, phi.matrix, phi.plan, phi.outputs):
        with pytest.raises(ERRORS, match=message):
            question(x)


def test_samples_of_another_shape_raise_the_networks_own_error_and_leave_it_as_it_was():
    model = net()
    before = Snapshot(model)
    for question in (TangentFeatures(model), TangentFeatures(model).gram, TangentFeatures(model).diag):
        with pytest.raises(RuntimeError, match=r"5x3|shape|size"):
            question(torch.zeros(5, 3, dtype=torch.float64))
    assert before.differences() == []


def test_samples_of_another_dtype_raise_and_leave_the_network_as_it_was():
    model = net()
    before = Snapshot(model)
    for question in (TangentFeatures(model), TangentFeatures(model).gram):
        with pytest.raises(RuntimeError, match=r"dtype|type"):
            question(samples().float())
    assert before.differences() == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_that_is_not_finite_is_named_by_its_number(bad):
    x = samples()
    x[3, 1] = bad
    phi = TangentFeatures(net())
    for question in (phi, phi.gram, phi.diag, lambda x: phi.matrix(x).to_dense()):
        with pytest.raises(RuntimeError, match=r"\b3\b"):
            question(x)
    with pytest.raises(RuntimeError, match=r"\b3\b"):
        phi.gram(samples(), x)


def test_a_sample_that_is_not_finite_is_named_in_a_late_batch_too():
    x = samples(70)
    x[61, 0] = float("nan")
    with pytest.raises(RuntimeError, match=r"\b61\b"):
        TangentFeatures(net(), batch_size=8).gram(x)


def test_a_loss_needs_targets_in_range_and_of_its_type():
    phi = TangentFeatures(net(), loss)
    with pytest.raises(ERRORS, match="Labelled"):
        phi.gram(samples())
    for targets, message in (
        (torch.tensor([0, 1, 2, 3, 0]), "range|bounds|3"),
        (torch.zeros(5, dtype=torch.int32), ""),
    ):
        with pytest.raises((*ERRORS, IndexError, RuntimeError), match=message):
            phi.gram(Labelled(samples(), targets))


def test_an_output_function_with_a_wrong_shape_or_dtype_is_refused():
    for output, message in (
        (lambda returned: returned.sum(), "sample"),
        (lambda returned: returned[:2], "sample"),
        (lambda returned: returned.argmax(1), "int64"),
        (lambda returned: "logits", "str"),
        (lambda returned: returned.to(torch.complex128), "complex"),
    ):
        with pytest.raises(ERRORS, match=message):
            TangentFeatures(net(), output).gram(samples())


def test_products_with_a_wrong_size_are_refused():
    matrix = TangentFeatures(net()).matrix(samples())
    rows, columns = matrix.shape
    with pytest.raises((*ERRORS, RuntimeError)):
        matrix @ torch.zeros(columns + 1, 2, dtype=torch.float64)
    with pytest.raises((*ERRORS, RuntimeError)):
        matrix.mT @ torch.zeros(rows - 1, 2, dtype=torch.float64)
    with pytest.raises(IndexError):
        matrix[[rows]].to_dense()


def test_grams_of_samples_that_disagree_are_refused():
    phi = TangentFeatures(net())
    with pytest.raises(RuntimeError, match=r"shape|size"):
        phi.gram(samples(), torch.zeros(5, 3, dtype=torch.float64))


def test_chains_and_stacks_say_what_they_are_made_of():
    phi = TangentFeatures(net())
    with pytest.raises(TypeError, match="Linear"):
        phi >> nn.Linear(3, 2)
    with pytest.raises(TypeError, match=r"CountSketch|starts with"):
        Chain(CountSketch(3), phi)
    with pytest.raises(TypeError, match="CountSketch"):
        Stack(phi, CountSketch(3))
    both = phi | TangentFeatures(net(), "sum")
    with pytest.raises(ValueError, match="rows"):
        both.gram(samples())
    with pytest.raises(ValueError, match="num_features"):
        phi >> CountSketch(0)


def test_moving_the_map_says_to_move_the_model():
    with pytest.raises(RuntimeError, match="model"):
        TangentFeatures(net()).to(torch.float32)


def test_a_loader_that_does_not_shuffle_gives_what_its_tensor_gives():
    phi, x = TangentFeatures(net()), samples(7)
    loader = DataLoader(TensorDataset(x), batch_size=3)
    state = torch.get_rng_state()
    assert torch.equal(phi.gram(loader), phi.gram(x))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loader_that_gives_other_samples_the_second_time_is_refused():
    class Noisy(torch.utils.data.Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            return (torch.randn(4, dtype=torch.float64),)

    with pytest.raises(ValueError, match=r"twice|different"):
        TangentFeatures(net()).gram(DataLoader(Noisy(), batch_size=2))
