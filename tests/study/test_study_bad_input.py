"""What does not fit is refused with one clear exception."""

import pytest
import torch
from torch import nn

import tangrams as tg
from tangrams.data import Labelled
from tangrams.study.progress import Steps

X, Y = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 3
NAN = X.clone()
NAN[7, 2] = torch.nan


class Broken(nn.Linear):
    def forward(self, x):
        return super().forward(x) * torch.where(x[:, :1] == X[3, 0], torch.nan, 1.0)


@pytest.mark.parametrize(
    ("model", "train", "match"),
    [
        (nn.Linear(6, 3), Labelled(X[:0], Y[:0]), "no train samples"),
        (nn.Linear(6, 3), Labelled(X, Y[:30]), "disagree"),
        (nn.Linear(6, 3), X, "targets in train"),
        (nn.Linear(6, 3), Labelled(X, Y + 1), r"train label 3 at sample 2 is outside \[0, 3\)"),
        (nn.Linear(6, 3), Labelled(X, Y - 1), r"train label -1 at sample 0 is outside"),
        (nn.Linear(6, 3), Labelled(X, torch.zeros(40, dtype=torch.int64)), "two classes"),
        (nn.Linear(6, 3), Labelled(NAN, Y), "NaN or infinity in the inputs of train sample 7"),
        (nn.Linear(5, 3), Labelled(X, Y), r"cannot be called on the train inputs \(\(40, 6\)"),
        (nn.Linear(6, 3), Labelled(X, X[:, :2]), "targets like the network's 3 outputs"),
        (nn.Linear(6, 1), Labelled(X, torch.ones(40)), "all the same"),
        (nn.Linear(6, 1), Labelled(X, NAN[:, 2]), "target of train sample 7"),
        (Broken(6, 3), Labelled(X, Y), "output for train sample 3 is NaN"),
        (nn.Sequential(nn.Linear(6, 3), nn.Flatten(0)), Labelled(X, Y), "one row of outputs per sample"),
    ],
)
def test_data_that_do_not_fit_are_named(model, train, match):
    with pytest.raises(ValueError, match=match):
        tg.study(model, train, Labelled(X, Y), steps=Steps(quiet=True))


def test_a_model_that_is_none_is_refused():
    with pytest.raises(TypeError, match="Module"):
        tg.study(lambda x: x, Labelled(X, Y), Labelled(X, Y))


def test_data_that_cannot_be_read_by_index_are_refused():
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y))
    with pytest.raises(TypeError, match="dataset"):
        tg.study(nn.Linear(6, 3), loader, Labelled(X, Y))


def test_weights_that_do_not_fit_are_refused_and_the_network_left_alone():
    model = nn.Linear(6, 3)
    before = model.weight.clone()
    with pytest.raises(ValueError, match="do not fit the network"):
        tg.study(model, Labelled(X, Y), Labelled(X, Y), initial_weights=nn.Linear(6, 4).state_dict())
    assert torch.equal(model.weight, before)


def test_class_names_must_be_as_many_as_outputs():
    with pytest.raises(ValueError, match="2 class names for a network with 3"):
        tg.study(nn.Linear(6, 3), Labelled(X, Y), Labelled(X, Y), classes=["a", "b"])


def test_a_truth_about_other_samples_is_refused():
    truth = tg.study.Truth(
        torch.zeros(9, dtype=torch.bool), torch.zeros(9, dtype=torch.int64), torch.zeros(0, 2).long()
    )
    with pytest.raises(ValueError, match="truth speaks of 9"):
        tg.study(nn.Linear(6, 3), Labelled(X, Y), Labelled(X, Y), truth=truth)
