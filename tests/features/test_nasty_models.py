"""The table of nasty models against the dense reference: every model right or refused, none silently wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from tangrams.features import TangentError, TangentFeatures
from tangrams.operators import GaussianSketch, KroneckerSketch
from tangrams.testing.models import HOSTILE, NASTY_MODELS, NastyModel

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")

REFUSALS = (TangentError, ValueError, TypeError)
BY_NAME = {nasty.name: nasty for nasty in NASTY_MODELS}
EXACT = [nasty.name for nasty in NASTY_MODELS if nasty.expect == "exact"]
REFUSED = [nasty.name for nasty in NASTY_MODELS if nasty.expect == "refused"]


@pytest.fixture(autouse=True)
def unwritten_memory_is_nan():
    """What ``torch.empty`` gives is NaN here, so that reading what nobody wrote cannot pass by luck."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def features(nasty: NastyModel, output: Any = None, **options: Any) -> TangentFeatures:
    return TangentFeatures(nasty.make(), nasty.output if output is None else output, **options)


def others(nasty: NastyModel) -> Any:
    return nasty.inputs(4, seed=1)


@cache
def reference(name: str, output: str | None = None, other: bool = False) -> Tensor:
    nasty = BY_NAME[name]
    return nasty.reference(others(nasty) if other else None, output)


def random_matrix(rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def dense_rows(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty)(nasty.inputs())
    return got, reference(nasty.name)


def lazy_rows(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty).matrix(nasty.inputs()).to_dense()
    return got, reference(nasty.name)


def gram(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty).gram(nasty.inputs())
    J = reference(nasty.name)
    return got, J @ J.mT


def gram_checked_in_full(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty, check="full").gram(nasty.inputs())
    J = reference(nasty.name)
    return got, J @ J.mT


def gram_of_the_sum(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty, "sum").gram(nasty.inputs())
    J = reference(nasty.name, "sum")
    return got, J @ J.mT


def gram_of_the_trace(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty, "trace").gram(nasty.inputs())
    J = reference(nasty.name, "trace")
    return got, J @ J.mT


def cross_gram(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty).gram(nasty.inputs(), others(nasty))
    J, L = reference(nasty.name), reference(nasty.name, other=True)
    return got, J @ L.mT


def diagonal(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty).diag(nasty.inputs())
    return got, reference(nasty.name).square().sum(1)


def diagonal_of_the_trace(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    got = features(nasty, "trace").diag(nasty.inputs())
    return got, reference(nasty.name, "trace").square().sum(1)


def product(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    matrix = features(nasty).matrix(nasty.inputs())
    v = random_matrix(matrix.shape[1], 2)
    got = matrix @ v.to(matrix.dtype)
    return got, reference(nasty.name).double() @ v


def transposed_product(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    matrix = features(nasty).matrix(nasty.inputs())
    u = random_matrix(matrix.shape[0], 2)
    got = matrix.mT @ u.to(matrix.dtype)
    return got, reference(nasty.name).double().mT @ u


def projection(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    sketch = GaussianSketch(5, seed=0)
    phi = features(nasty)
    got = (phi >> sketch)(nasty.inputs())
    return got, sketch.bind(phi.columns).project(reference(nasty.name))


def projection_of_factors(nasty: NastyModel) -> tuple[Tensor, Tensor]:
    sketch = KroneckerSketch(6, seed=0)
    phi = features(nasty)
    got = (phi >> sketch)(nasty.inputs())
    return got, sketch.bind(phi.columns).project(reference(nasty.name))


NAMED_OUTPUT: list[Callable[[NastyModel], tuple[Tensor, Tensor]]] = [
    gram_of_the_sum,
    gram_of_the_trace,
    diagonal_of_the_trace,
]
ANY_OUTPUT: list[Callable[[NastyModel], tuple[Tensor, Tensor]]] = [
    dense_rows,
    lazy_rows,
    gram,
    gram_checked_in_full,
    cross_gram,
    diagonal,
    product,
    transposed_product,
    projection,
    projection_of_factors,
]


def relative_error(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape, f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
    if not got.numel():
        return 0.0
    difference = (got.double() - expected.double()).abs().max()
    return float(difference / expected.double().abs().max().clamp(min=1e-30)) if difference else 0.0


def model(name: str) -> NastyModel:
    nasty = BY_NAME[name]
    if not nasty.available:
        pytest.skip(f"needs {', '.join(nasty.needs)}")
    return nasty


def applies(nasty: NastyModel, quantity: Callable[..., Any]) -> bool:
    return not (callable(nasty.output) and quantity in NAMED_OUTPUT)


@pytest.mark.parametrize("quantity", ANY_OUTPUT + NAMED_OUTPUT, ids=lambda q: q.__name__)
@pytest.mark.parametrize("name", EXACT)
def test_features_of_a_nasty_model_equal_the_dense_reference(name, quantity):
    nasty = model(name)
    if not applies(nasty, quantity):
        pytest.skip("its output is a callable")
    got, expected = quantity(nasty)
    assert relative_error(got, expected) < nasty.tolerance


@pytest.mark.parametrize("quantity", ANY_OUTPUT + NAMED_OUTPUT, ids=lambda q: q.__name__)
@pytest.mark.parametrize("name", REFUSED)
def test_a_model_without_a_right_answer_is_refused_and_named(name, quantity):
    nasty = model(name)
    with pytest.raises(REFUSALS) as caught:
        quantity(nasty)
    for pattern in nasty.names:
        assert re.search(pattern, str(caught.value)), f"{pattern!r} is not in {str(caught.value)!r}"


def test_the_table_has_every_kind_of_the_reliability_notes_and_no_name_twice():
    assert len(BY_NAME) == len(NASTY_MODELS) >= 200
    assert {"exact", "refused"} == {nasty.expect for nasty in NASTY_MODELS}
    assert {nasty.expect for nasty in HOSTILE} == {"refused"}


@pytest.mark.parametrize("name", [nasty.name for nasty in NASTY_MODELS if nasty.dtype.itemsize == 2])
def test_half_precision_grams_come_back_in_their_dtype(name):
    nasty = model(name)
    assert features(nasty).gram(nasty.inputs()).dtype == nasty.dtype


def test_a_gram_beyond_the_range_of_half_precision_is_refused():
    net = torch.nn.Linear(5, 3).half()
    x = torch.full((4, 5), 200.0, dtype=torch.float16)
    with pytest.raises(REFUSALS, match="float16"):
        TangentFeatures(net).gram(x)


def test_samples_are_right_in_any_batch_size():
    nasty = BY_NAME["conv-net"]
    J = reference(nasty.name)
    for batch_size in (1, 2, 4, 5, 6, 100):
        assert relative_error(features(nasty, batch_size=batch_size).gram(nasty.inputs()), J @ J.mT) < 1e-10


def test_a_tiny_memory_budget_changes_no_value():
    for name in ("conv-net", "encoder-layer", "lstm", "bare", "tied-embedding"):
        J = reference(name)
        for output, L in (("all", J), ("sum", reference(name, "sum")), ("trace", reference(name, "trace"))):
            got = features(BY_NAME[name], output, memory_budget=4096).gram(BY_NAME[name].inputs())
            assert relative_error(got, L @ L.mT) < 1e-10
