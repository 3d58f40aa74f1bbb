"""One sample, two, many; other shapes and other branches after the first call; weights that move on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tangrams.features import TangentError, TangentFeatures
from tangrams.testing.models import NASTY_MODELS
from tangrams.testing.models.base import floats
from tangrams.testing.reference import reference_rows

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
BY_NAME = {nasty.name: nasty for nasty in NASTY_MODELS}
EXACT = [nasty.name for nasty in NASTY_MODELS if nasty.expect == "exact" and nasty.n > 1]
MANY = [
    "mlp", "positions", "dense-output", "bilinear", "prelu-per-channel", "conv-net", "conv-groups", "conv-circular",
    "image-to-image", "batch-norm-2d", "group-norm", "instance-norm", "rms-norm", "embedding", "bag-mean",
    "attention-sequence-first", "encoder-layer", "encoder-padding", "lstm", "lstm-packed", "positions-table", "bare",
    "twice", "used-without-input", "tied-embedding", "two-names", "weight-norm", "lora", "views-repeated", "windows",
    "sorted", "chunks", "hypernetwork", "checkpoint", "custom-function", "inplace-residual", "branching", "experts",
    "scalar-output", "dict", "keywords",
]  # fmt: skip


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """What ``torch.empty`` gives is NaN here, so that reading what nobody wrote cannot pass by luck."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def error(got: torch.Tensor, expected: torch.Tensor) -> float:
    assert got.shape == expected.shape
    return float((got.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_a_gram_of_one_sample_and_of_two_is_right(name, n):
    nasty = BY_NAME[name]
    if not nasty.available:
        pytest.skip(f"needs {', '.join(nasty.needs)}")
    x = nasty.inputs(n, seed=5)
    J = nasty.reference(x)
    phi = TangentFeatures(nasty.make(), nasty.output)
    expected = J @ J.mT
    if expected.abs().max() > 0:
        assert error(phi.gram(x), expected) < nasty.tolerance
        assert error(phi.diag(x), expected.diagonal()) < nasty.tolerance
    else:
        assert not phi.gram(x).any()


@pytest.mark.parametrize("name", MANY)
def test_a_gram_of_many_samples_in_small_batches_is_right(name):
    nasty = BY_NAME[name]
    x = nasty.inputs(37, seed=6)
    J = nasty.reference(x)
    K = J @ J.mT
    assert error(TangentFeatures(nasty.make(), nasty.output).gram(x), K) < 1e-10
    small = TangentFeatures(nasty.make(), nasty.output, batch_size=5, memory_budget="20KiB")
    assert error(small.gram(x), K) < 1e-10
    assert error(small.diag(x), K.diagonal()) < 1e-10
    u = torch.randn(len(J), 2, generator=torch.Generator().manual_seed(0), dtype=J.dtype)
    assert error(small.matrix(x).mT @ u, J.mT @ u) < 1e-10


@pytest.mark.parametrize("name", EXACT)
def test_a_batch_as_large_as_the_number_of_outputs_is_right(name):
    """There torch's vmap takes one axis for the other in the backward of PReLU, without an error."""
    nasty = BY_NAME[name]
    if not nasty.available:
        pytest.skip(f"needs {', '.join(nasty.needs)}")
    x = nasty.inputs(7, seed=8)
    J = nasty.reference(x)
    K = J @ J.mT
    phi = TangentFeatures(nasty.make(), nasty.output, batch_size=len(J) // 7)
    if K.abs().max() > 0:
        assert error(phi.gram(x), K) < nasty.tolerance
        assert error(phi.diag(x), K.diagonal()) < nasty.tolerance
        assert error(phi.matrix(x).to_dense(), J) < nasty.tolerance


@pytest.mark.parametrize("seed", range(12))
def test_prelu_in_batches_as_large_as_the_number_of_outputs_is_right_for_unverified_samples_too(seed):
    nasty = BY_NAME["prelu-time-first"]
    x = nasty.inputs(7, seed=seed)
    J = nasty.reference(x)
    phi = TangentFeatures(nasty.make(), batch_size=3)
    assert error(phi.gram(x), J @ J.mT) < 1e-10
    assert error(phi.diag(x), J.square().sum(1)) < 1e-10
    assert error(phi(x[:3]), J[:9]) < 1e-10


@pytest.mark.parametrize("name", ["encoder-layer", "attention-sequence-first", "lstm", "positions", "rms-norm"])
def test_other_lengths_after_the_first_call_are_right(name):
    nasty = BY_NAME[name]
    model = nasty.make()
    phi = TangentFeatures(model)
    width = nasty.inputs().shape[-1]
    first = None
    for length, n in ((5, 6), (3, 6), (6, 6), (1, 4), (5, 1)):
        x = floats(length, width)(n, torch.Generator().manual_seed(length)).double()
        J = reference_rows(model, x)
        assert error(phi.gram(x), J @ J.mT) < 1e-10
        if first is not None:
            assert error(phi.gram(x, first[0]), J @ first[1].mT) < 1e-10
        first = first or (x, J)


@pytest.mark.parametrize("name", ["branching", "experts"])
@pytest.mark.parametrize("check", ["sample", "full"])
def test_branches_that_the_first_samples_never_took_are_right_or_refused(name, check):
    nasty = BY_NAME[name]
    model = nasty.make()
    x = nasty.inputs(60, seed=1)
    with torch.no_grad():
        side = x.sum(1) > 0 if name == "branching" else model.gate(x).argmax(1) == 0
    x = torch.cat([x[side], x[~side]])  # the first 16 and more take one branch, the last the other
    assert 16 < int(side.sum()) < 44
    J = reference_rows(model, x)
    for batch_size in (None, 4, 20):
        phi = TangentFeatures(model, batch_size=batch_size, check=check)
        u = torch.randn(len(J), 2, generator=torch.Generator().manual_seed(0), dtype=J.dtype)
        for got, expected in (
            (phi.gram, J @ J.mT),
            (phi.diag, J.square().sum(1)),
            (phi, J),
            (lambda x, phi=phi: phi.matrix(x).to_dense(), J),
            (lambda x, phi=phi, u=u: phi.matrix(x).mT @ u, J.mT @ u),
            (lambda x, phi=phi: phi.matrix(x) @ J.mT, J @ J.mT),
        ):
            try:
                answer = got(x)
            except TangentError:
                continue
            assert error(answer, expected) < 1e-10


def test_the_map_follows_the_weights_as_they_are_trained():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    x = floats(4)(8, torch.Generator().manual_seed(0)).double()
    phi = TangentFeatures(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    for _ in range(3):
        J = reference_rows(model, x)
        assert error(phi.gram(x), J @ J.mT) < 1e-10
        model.train()
        model(x).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_a_parameter_frozen_or_replaced_after_the_map_was_made_is_refused_or_followed():
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    x = floats(4)(5, torch.Generator().manual_seed(0)).double()
    phi = TangentFeatures(model)
    phi.gram(x)
    model[2] = nn.Linear(6, 3).double()
    J = reference_rows(model, x)
    assert error(phi.gram(x), J @ J.mT) < 1e-10
    model[0].weight.requires_grad_(False)
    wanted = J[:, : J.shape[1]]
    try:
        got = phi.gram(x)
    except (TangentError, ValueError):
        return
    assert error(got, wanted @ wanted.mT) < 1e-10


def test_coupling_is_noticed_whatever_the_batch_size():
    for name in ("batch-mean", "batch-branch", "batch-rolled"):
        nasty = BY_NAME[name]
        for batch_size in (2, 3, 100):
            with pytest.raises(TangentError):
                TangentFeatures(nasty.make(), batch_size=batch_size).gram(nasty.inputs(7))


def test_selected_parameters_give_their_columns_alone():
    for name in ("conv-net", "encoder-layer", "tied-embedding", "twice", "bare", "positions-table", "shared-weight"):
        nasty = BY_NAME[name]
        model, x = nasty.make(), nasty.inputs()
        for parameter, _ in model.named_parameters():
            J = reference_rows(model, x, params=[parameter])
            phi = TangentFeatures(model, params=[parameter])
            assert error(phi.gram(x), J @ J.mT) < 1e-10
            assert error(phi(x), J) < 1e-10
