import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tangrams.data import Labelled, plant
from tangrams.features.inputs import as_inputs
from tangrams.study.default import SmallCNN
from tangrams.study.main import study
from tangrams.study.material import Truth
from tangrams.study.progress import Steps
from tangrams.study.training import train_classifier


class Trained:
    """A small network that has memorised 240 digits, 12 of them wrongly labelled, and 60 test digits."""

    def __init__(self):
        images, labels = load_digits(return_X_y=True)
        x = torch.from_numpy(images).float().div(16).reshape(-1, 1, 8, 8)
        y = torch.from_numpy(labels)
        self.planted = plant(x[:240], y[:240], label_noise=0.05, duplicates=6, seed=0)
        self.test = Labelled(x[300:360], y[300:360])
        self.pool = x[400:450]
        self.model = SmallCNN(seed=0)
        self.initial = {k: v.clone() for k, v in self.model.state_dict().items()}
        self.fit(self.model, torch.arange(len(self.planted)), 30)

    def fit(self, model, index, epochs):
        return train_classifier(
            model, as_inputs(self.planted.inputs[index]), self.planted.labels[index], epochs=epochs, seed=0
        )

    def retrain(self, index):
        model = SmallCNN(seed=0)
        return self.fit(model, index, 3)

    @property
    def truth(self):
        p = self.planted
        return Truth(p.wrong, p.original_labels, p.duplicate_pairs)


@pytest.fixture(scope="session")
def trained():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = Trained()
    torch.set_num_threads(threads)
    return made


@pytest.fixture(scope="session")
def studied(trained, tmp_path_factory):
    """A study of it with everything that one can be given."""
    out = tmp_path_factory.mktemp("study")
    return study(
        trained.model,
        trained.planted.dataset(),
        trained.test,
        pool=trained.pool,
        initial_weights=trained.initial,
        out=out,
        truth=trained.truth,
        retrain=trained.retrain,
        name="some digits",
        steps=Steps(quiet=True),
    )


@pytest.fixture
def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3))
