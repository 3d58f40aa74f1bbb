"""Every feature map joins its role's suite."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from tangrams.data import Labelled
from tangrams.features import Chain, Stack, TangentFeatures
from tangrams.operators import CountSketch, GaussianSketch, RademacherSketch
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.reference import reference_rows
from tangrams.testing.suites.feature_map import FeatureMapSuite


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().double()


def mlp():
    return seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)))


def conv():
    return seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)
        )
    )


class Tokens(nn.Module):
    """Called with keywords; returns a dict."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, *, tokens, scale):
        return {"logits": self.out(torch.tanh(self.embed(tokens) * scale[:, None, None]).mean(1))}


def token_batch(n, generator):
    scale = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
    return {"tokens": torch.randint(7, (n, 5), generator=generator), "scale": scale}


def labelled(n, generator):
    targets = torch.randint(3, (n,), generator=generator)
    return Labelled(torch.randn(n, 4, generator=generator, dtype=torch.float64), targets)


def loss(outputs, targets):
    return F.cross_entropy(outputs, targets, reduction="none")


def margins(outputs):
    return outputs[:, :2] - outputs[:, 2:]


def dense(output="all"):
    return lambda phi, x: reference_rows(phi.model, x, output)


def sketched(phi, x):
    network, sketch = phi.parts[0].model, phi.parts[-1]
    J = reference_rows(network, x)
    return sketch.bind(J.shape[1]).project(J)


def side_by_side(phi, x):
    return torch.cat([reference_rows(phi.parts[0].model, x, "sum"), reference_rows(phi.parts[1].model, x, "sum")], 1)


TestFeatureMaps = conformance(
    FeatureMapSuite,
    Case(lambda: TangentFeatures(mlp()), normal(4), dense()),
    Case(lambda: TangentFeatures(mlp(), "sum"), normal(4), dense("sum"), name="TangentFeatures-sum"),
    Case(lambda: TangentFeatures(mlp(), "trace"), normal(4), dense("trace"), name="TangentFeatures-trace"),
    Case(lambda: TangentFeatures(mlp(), margins), normal(4), dense(margins), name="TangentFeatures-margins"),
    Case(lambda: TangentFeatures(mlp(), loss), labelled, dense(loss), name="TangentFeatures-loss"),
    Case(lambda: TangentFeatures(conv()), normal(1, 6, 6), dense(), name="TangentFeatures-conv"),
    Case(lambda: TangentFeatures(seeded(Tokens)), token_batch, dense(), name="TangentFeatures-keywords"),
    Case(
        lambda: TangentFeatures(mlp(), params=["2.weight"]),
        normal(4),
        lambda phi, x: reference_rows(phi.model, x, params=["2.weight"]),
        name="TangentFeatures-one-parameter",
    ),
    Case(lambda: TangentFeatures(mlp(), batch_size=2, check="full"), normal(4), dense(), name="TangentFeatures-small"),
    Case(lambda: TangentFeatures(mlp()) >> CountSketch(16, seed=0), normal(4), sketched),
    Case(lambda: TangentFeatures(conv()) >> GaussianSketch(8, seed=1), normal(1, 6, 6), sketched, name="Chain-conv"),
    Case(
        lambda: Chain(TangentFeatures(mlp(), "trace"), CountSketch(20, seed=0), RademacherSketch(7, seed=1)),
        normal(4),
        name="Chain-of-two",
    ),
    Case(lambda: Stack(TangentFeatures(mlp(), "sum"), TangentFeatures(mlp(), "sum")), normal(4), side_by_side),
    Case(
        lambda: TangentFeatures(mlp()) | TangentFeatures(mlp()) >> CountSketch(5, seed=3),
        normal(4),
        name="Stack-of-a-chain",
    ),
)
