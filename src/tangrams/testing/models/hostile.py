"""Networks with no right answer: coupled samples, random outputs, infinite gradients, missing weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tangrams.testing.models.base import NastyModel, floats


class Then(nn.Module):
    """A small network with an operation in the middle."""

    def __init__(self, middle: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.middle = middle
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(self.middle(torch.tanh(self.first(x))))


class TrainNorm(nn.Module):
    """Batch statistics even in eval mode, by the functional."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.weight = nn.Parameter(torch.ones(4))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = nn.functional.batch_norm(self.first(x), None, None, self.weight, training=True)
        return self.head(torch.tanh(h))


class Drifting(nn.Module):
    """A buffer that changes in forward and scales the output: two calls differ."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.register_buffer("calls", torch.ones(()))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        self.calls += 1
        return self.head(torch.tanh(self.first(x))) / self.calls


class BatchBranch(nn.Module):
    """A branch on the whole batch: which layer runs depends on the company."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return (self.left if x.mean() > 0 else self.right)(x)


class Roots(nn.Module):
    """A square root whose argument is zero for an input of zeros: its gradient there is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(self.first(x).abs().sqrt())


class Graphless(nn.Module):
    """A forward under ``no_grad``: nothing depends on the weights, as far as autograd can see."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``, without a graph."""
        return self.body(x)


def _at(i: int, value: float) -> Callable[[int, torch.Generator], Tensor]:
    """Normal samples, one of them overwritten."""

    def events(n: int, generator: torch.Generator) -> Tensor:
        x = floats(5)(n, generator)
        x[i : i + 1] = value
        return x

    return events


def _one_nan(n: int, generator: torch.Generator) -> Tensor:
    x = floats(5)(n, generator)
    x[2, 3] = float("nan")
    return x


def _nan_weight() -> nn.Module:
    head = nn.Linear(4, 3)
    with torch.no_grad():
        head.weight[1, 1] = float("nan")
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), head)


def _meta() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).to("meta")


def _half_meta() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    model[2].to("meta")
    return model


def _coupled(name: str, middle: Callable[[Tensor], Tensor], why: str) -> NastyModel:
    return NastyModel(
        name, lambda: Then(middle), floats(5), why, expect="refused", names=("Then", "independent|depend|mix|sample")
    )


def _random(name: str, middle: Callable[[Tensor], Tensor], why: str) -> NastyModel:
    return NastyModel(
        name, lambda: Then(middle), floats(5), why, expect="refused", names=("Then", "random|determin|twice|differ")
    )


HOSTILE = (
    _coupled("batch-mean", lambda h: h - h.mean(0), "every output depends on every sample"),
    _coupled("batch-mean-weak", lambda h: h + 1e-3 * h.mean(0), "weakly"),
    _coupled("batch-softmax", lambda h: h.softmax(0), "a softmax over the wrong axis"),
    _coupled("batch-cumulative", lambda h: h.cumsum(0) / 3, "later samples see earlier ones"),
    _coupled("batch-rolled", lambda h: h.roll(1, 0), "output i belongs to sample i − 1"),
    _coupled("batch-reversed", lambda h: h.flip(0), "the samples come back in another order"),
    _coupled("batch-attention", lambda h: (h @ h.T).softmax(1) @ h, "attention over the batch"),
    _coupled("batch-max", lambda h: h / h.abs().max(), "a scale set by one sample"),
    _coupled("batch-detached", lambda h: h * h.detach().mean(), "coupled through values alone, not through gradients"),
    _random("random-noise", lambda h: h + torch.randn_like(h), "noise in eval mode"),
    _random("random-dropout", lambda h: nn.functional.dropout(h, 0.5, training=True), "dropout that eval leaves on"),
    _random("random-shuffle", lambda h: h[torch.randperm(len(h))], "shuffles the batch"),
    NastyModel(
        "batch-norm-batch",
        lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)),
        floats(5),
        "batch statistics even in eval mode",
        expect="refused",
        names=("BatchNorm1d|Sequential", "independent|depend|mix|sample"),
    ),
    NastyModel(
        "batch-norm-functional",
        TrainNorm,
        floats(5),
        "a functional that eval() cannot reach",
        expect="refused",
        names=("TrainNorm", "independent|depend|mix|sample"),
    ),
    NastyModel(
        "batch-branch",
        BatchBranch,
        floats(5),
        "a branch on the batch: no graph shows it",
        expect="refused",
        names=("BatchBranch", "independent|depend|mix|sample|alone"),
    ),
    NastyModel(
        "drifting",
        Drifting,
        floats(5),
        "a buffer that scales the output changes",
        expect="refused",
        names=("Drifting", "random|determin|twice|differ|calls"),
    ),
    NastyModel(
        "nan-input",
        lambda: Then(torch.tanh),
        _one_nan,
        "NaN in one sample must name it",
        expect="refused",
        names=(r"samples? \[?2",),
    ),
    NastyModel(
        "inf-input",
        lambda: Then(torch.tanh),
        _at(4, float("inf")),
        "an infinite sample",
        expect="refused",
        names=(r"samples? \[?4",),
    ),
    NastyModel(
        "infinite-gradient",
        Roots,
        _at(1, 0.0),
        "a finite output with an infinite gradient",
        expect="refused",
        names=(r"samples? \[?1", "first"),
    ),
    NastyModel(
        "nan-weight",
        _nan_weight,
        floats(5),
        "a NaN in a weight: every sample is lost",
        expect="refused",
        names=(r"samples? \[?0|weight", "Sequential|2"),
    ),
    NastyModel("meta", _meta, floats(5), "weights without numbers", expect="refused", names=("meta", r"0\.weight")),
    NastyModel(
        "half-meta", _half_meta, floats(5), "one layer without numbers", expect="refused", names=("meta", r"2\.weight")
    ),
    NastyModel(
        "lazy",
        lambda: nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 3)),
        floats(5),
        "weights without shapes",
        expect="refused",
        names=("[Ll]azy|initiali[sz]ed", r"0\.weight|0"),
    ),
    NastyModel(
        "graphless",
        Graphless,
        floats(5),
        "trainable weights and an output without a graph",
        expect="refused",
        names=("Graphless", "gradient|grad|graph"),
    ),
)
