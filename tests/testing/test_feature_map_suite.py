"""The suite of feature maps catches what it is there to catch: each broken map fails the check that names its fault."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tangrams.features import FeatureMap, ModelRef
from tangrams.operators import Column, DenseRows
from tangrams.testing.conformance import Case, normal
from tangrams.testing.suites.feature_map import FeatureMapSuite


class Squares(FeatureMap):
    """Two rows per sample: the entries and their squares, with a learnt scale."""

    rows_per_sample = 2

    def __init__(self, model=None):
        super().__init__()
        self.scale = nn.Parameter(torch.full((3,), 2.0, dtype=torch.float64))
        self.ref = ModelRef(nn.Linear(3, 3).double() if model is None else model)

    @property
    def columns(self):
        return (Column("first", (1,), 0, 1), Column("rest", (2,), 1, 3))

    def forward(self, x):
        return (torch.stack([x, x.square()], 1) * self.scale).flatten(0, 1)

    def rows(self, x):
        return DenseRows(self.forward(x).detach())

    def describe(self):
        return {"class": type(self).__name__}


class WrongShape(Squares):
    rows_per_sample = 1


class GapInColumns(Squares):
    @property
    def columns(self):
        return (Column("first", (1,), 0, 1), Column("rest", (1,), 2, 3))


class SingleGram(Squares):
    def gram(self, x, y=None):
        return super().gram(x, y).float()


class Noisy(Squares):
    def forward(self, x):
        return super().forward(x) + 1e-12 * torch.randn(1, dtype=torch.float64)


class Centred(Squares):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Writes(Squares):
    def forward(self, x):
        return super().forward(x.mul_(1.0).add_(1e-3))


class NeverEmpty(Squares):
    def forward(self, x):
        return super().forward(x) if len(x) else torch.zeros(1, 3, dtype=torch.float64)


class WrongGram(Squares):
    def gram(self, x, y=None):
        return super().gram(x, y) * (1 + 1e-8)


class WrongRows(Squares):
    def rows(self, x):
        return DenseRows(self.forward(x).detach().roll(1, 0))


class Forgetful(Squares):
    def __init__(self):
        super().__init__()
        scale = self.scale.detach() * torch.rand(1, dtype=torch.float64)
        del self.scale
        self.scale = scale


class NotJson(Squares):
    def describe(self):
        return {"class": type(self).__name__, "scale": self.scale}


class Registers(Squares):
    def __init__(self):
        super().__init__()
        self.network = self.ref.model


class SwitchesMode(Squares):
    def forward(self, x):
        self.ref.model.train(not self.ref.model.training)
        return super().forward(x)


FAULTS = {
    WrongShape: "check_shape",
    GapInColumns: "check_columns",
    SingleGram: "check_dtype",
    Noisy: "check_determinism",
    Centred: "check_batch_independence",
    Writes: "check_inputs_are_left_alone",
    NeverEmpty: "check_empty_batch",
    WrongGram: "check_gram_is_the_product_of_rows",
    WrongRows: "check_matrix_is_the_rows",
    Forgetful: "check_state_round_trip",
    NotJson: "check_description",
    Registers: "check_the_network_stays_the_users",
    SwitchesMode: "check_the_network_stays_the_users",
}


def case(make):
    return Case(make, normal(3))


@pytest.mark.parametrize("check", FeatureMapSuite.checks())
def test_a_sound_map_passes(check):
    getattr(FeatureMapSuite, check)(case(Squares))


@pytest.mark.parametrize("broken", FAULTS, ids=lambda cls: cls.__name__)
def test_a_broken_map_fails_the_check_that_names_its_fault(broken):
    with pytest.raises((AssertionError, TypeError, RuntimeError)):
        getattr(FeatureMapSuite, FAULTS[broken])(case(broken))


def test_a_wrong_reference_is_noticed():
    right = Case(Squares, normal(3), lambda phi, x: phi(x) * (1 + 1e-12))
    FeatureMapSuite.check_reference(right)
    wrong = Case(Squares, normal(3), lambda phi, x: phi(x) * (1 + 1e-9))
    with pytest.raises(AssertionError):
        FeatureMapSuite.check_reference(wrong)
