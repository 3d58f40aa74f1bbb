"""Every form of data and of output that a study promises to take."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import tangrams as tg
from tangrams.data import Labelled
from tangrams.study.progress import Steps


def quiet(model, train, test, **options):
    return tg.study(model, train, test, steps=Steps(quiet=True), **options)


@pytest.fixture
def table():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 6, generator=generator)
    return x, x[:, :3].argmax(1)


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(2, 8)
        self.out = nn.Linear(8, 3)

    def forward(self, a, b):
        return self.out(torch.tanh(self.a(a) + self.b(b))), None


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(20, 8), nn.Linear(8, 3)

    def forward(self, input_ids, mask):
        hidden = (self.embedding(input_ids) * mask[..., None]).sum(1)
        return SimpleNamespace(logits=self.out(torch.tanh(hidden)), hidden=hidden)


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


def test_two_positional_inputs_and_a_tuple_of_outputs(table):
    x, y = table
    data = TensorDataset(x[:, :4], x[:, 4:], y)
    train, test = torch.utils.data.Subset(data, range(110)), torch.utils.data.Subset(data, range(110, 150))
    found = quiet(Two(), train, test)
    assert found["data"]["train"] == 110
    assert found["labels"]["state"] == "measured"
    assert found["samples"]["test/0"]["values"][0]["value"] == pytest.approx(float(x[110, 0]))


def test_dicts_of_tokens_and_an_object_with_logits():
    generator = torch.Generator().manual_seed(0)
    items = [
        {"input_ids": torch.randint(20, (5,), generator=generator), "mask": torch.ones(5), "labels": i % 3}
        for i in range(140)
    ]
    found = quiet(Tokens(), Items(items[:110]), Items(items[110:]))
    ids = items[110]["input_ids"].tolist()
    assert found["samples"]["test/0"]["text"] == " ".join(map(str, ids))
    assert found["fragility"]["state"] == "absent"
    assert found["labels"]["of"] == 110


def test_one_logit_for_two_classes(table):
    x, y = table
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))
    found = quiet(model, Labelled(x[:110], (y > 0).long()[:110]), Labelled(x[110:], (y > 0).long()[110:]))
    row = found["explanations"]["samples"][0]
    with torch.no_grad():
        p = torch.sigmoid(model(x[110 + int(row["id"].split("/")[1])][None])).item()
    assert row["probabilities"] == pytest.approx([1 - p, p], abs=1e-5)
    assert found["fragility"]["state"] == "measured"


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_regression_says_which_sections_do_not_apply(table, outputs):
    x, _ = table
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, outputs))
    y = torch.stack([40 + 3 * x[:, 0], x[:, 1] - 7], 1)[:, :outputs]
    y[5] += 30
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(400):
        optimizer.zero_grad()
        (model(x[:110]) - y[:110]).square().mean().backward()
        optimizer.step()
    found = quiet(model, Labelled(x[:110], y[:110]), Labelled(x[110:], y[110:]), target="price, €", pool=x[:20] + 0.1)
    assert found["task"] == "regression"
    assert found["data"]["target"] == "price, €"
    assert found["data"]["classes"] == []
    assert found["fragility"] == {"state": "absent", "reason": "a regression has no decision boundary"}
    assert found["labels"]["suspects"][0]["id"] == "train/5"
    assert found["labels"]["suspects"][0]["given"] == pytest.approx(float(y[5, 0]), rel=1e-5)
    assert found["surrogates"]["mimic"]["agreement"]["value"] > 0.9
    for row in found["explanations"]["samples"]:
        parts = row["base"] + row["others_for"] + row["others_against"]
        parts += sum(w["weight"] for w in row["supporters"] + row["opposers"])
        assert parts == pytest.approx(row["output"], abs=1e-6)
        assert row["label"] == pytest.approx(float(y[110 + int(row["id"].split("/")[1]), 0]), rel=1e-5)
    assert len(found["next"]["batch"]) == 10


def test_integers_can_be_values_when_told_so(table):
    x, y = table
    model = nn.Linear(6, 1)
    found = quiet(model, Labelled(x[:110], y[:110]), Labelled(x[110:], y[110:]), task="regression")
    assert found["task"] == "regression"


def test_inputs_in_another_precision_are_brought_to_the_networks(table):
    x, y = table
    found = quiet(nn.Linear(6, 3), Labelled(x[:110].double(), y[:110]), Labelled(x[110:].double(), y[110:]))
    assert found["data"]["test"] == 40


def test_colour_images_and_large_ones_become_small_pictures():
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(120, 3, 64, 64, generator=generator)
    model = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 2))
    y = torch.arange(120) % 2
    found = quiet(model, Labelled(x[:100], y[:100]), Labelled(x[100:], y[100:]))
    assert found["samples"]["test/0"]["image"].startswith("data:image/png;base64,")
    assert "perturbed" in found["fragility"]["closest"][0]


def test_very_small_data_are_studied_as_far_as_they_go(table):
    x, y = table
    found = quiet(nn.Linear(6, 3), Labelled(x[:12], y[:12]), Labelled(x[12:18], y[12:18]))
    assert found["richness"]["state"] == "absent"
    assert found["labels"]["state"] == "measured"


def test_no_precision_is_claimed_where_right_labels_look_wrong_as_well():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(150, 6, generator=generator), torch.randint(3, (150,), generator=generator)
    found = quiet(nn.Linear(6, 3), Labelled(x[:110], y[:110]), Labelled(x[110:], y[110:]))
    assert found["labels"]["count"] > 20
    assert found["labels"]["precision"] == []


def test_a_kernel_of_low_rank_has_no_power_law(table, tmp_path):
    x, y = table
    x = torch.cat([x, x + 1])
    y = torch.cat([y, y])
    found = quiet(nn.Linear(6, 3), Labelled(x[:240], y[:240]), Labelled(x[240:], y[240:]), out=tmp_path)
    assert found["richness"]["exponent"] is None
    assert found["richness"]["windows"] == []
    assert "7 eigenvalues above rounding" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_network_that_has_died_is_studied(table, tmp_path):
    x, y = table
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
    found = quiet(model, Labelled(x[:110], y[:110]), Labelled(x[110:], y[110:]), out=tmp_path)
    assert found["richness"]["exponent"] is None
    assert next(row["dead"]["share"] for row in found["layers"]["layers"] if row["dead"]) == 1.0


def test_no_precision_is_claimed_where_the_test_labels_are_worse_than_the_training_labels():
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(150) % 3
    x = 4 * nn.functional.one_hot(y, 6).float() + 0.3 * torch.randn(150, 6, generator=generator)
    given = y.clone()
    given[[4, 9]] += 1  # two wrong ones in train, ten in test
    given[110:120] = (given[110:120] + 1) % 3
    found = quiet(nn.Linear(6, 3), Labelled(x[:110], given[:110] % 3), Labelled(x[110:], given[110:]))
    assert found["labels"]["count"] == 2
    assert found["labels"]["precision"] == []
