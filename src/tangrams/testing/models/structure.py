"""How samples and weights meet: rows that are not one per sample, heads that are not the last step, weights as data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tangrams.testing.models.base import NastyModel, floats, ints


class Around(nn.Module):
    """A layer, something around it, and a head."""

    def __init__(self, layer: Callable[[], nn.Module], use: Callable[[nn.Module, Tensor], Tensor], width: int) -> None:
        super().__init__()
        self.layer = layer()
        self.use = use
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(torch.tanh(self.use(self.layer, x)))


class Head(nn.Module):
    """A body, a linear head, and what comes after the head."""

    def __init__(self, after: Callable[[nn.Module, Tensor], Tensor], outputs: int = 3) -> None:
        super().__init__()
        self.body = nn.Linear(5, 4)
        self.head = nn.Linear(4, outputs)
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        """``(n, …)``."""
        return self.after(self.head, torch.tanh(self.body(x)))


class Functional(nn.Module):
    """Bare weights in functional layers."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 4))
        self.kernel = nn.Parameter(torch.randn(3, 4, 2))
        self.gain = nn.Parameter(torch.randn(3))
        self.out = nn.Parameter(torch.randn(3, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = F.conv1d(F.embedding(tokens, self.table).transpose(1, 2), self.kernel, padding=1)
        h = F.layer_norm(h.transpose(1, 2), (3,), self.gain).tanh()
        return F.linear(h.mean(1), self.out)


class Gathered(nn.Module):
    """A table read by indexing, ``gather``, ``index_select`` and ``where``; each reads part of it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(7, 3))
        self.choice = nn.Parameter(torch.randn(7, 3))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, 3)``."""
        first = self.table[tokens[:, 0]]
        second = self.choice.gather(0, tokens[:, 1:2].expand(-1, 3))
        third = torch.where(tokens[:, 2:3] > 3, self.table[0], self.choice.index_select(0, tokens[:, 2]))
        return (first * second).tanh() + third


class Hyper(nn.Module):
    """A hypernetwork: each sample makes its own weights, used in ``bmm`` and in a convolution grouped by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.maker = nn.Linear(4, 12)
        self.kernel = nn.Parameter(torch.randn(2, 1, 3))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        n = len(x)
        h = torch.bmm(self.maker(x).view(n, 3, 4), x.unsqueeze(2)).squeeze(2).tanh()
        signal = torch.cat([x, h[:, :2]], 1).view(1, n, 6)
        h = F.conv1d(signal, self.kernel.repeat(n, 1, 1), groups=n).view(n, 8)
        return self.head(h.tanh())


class Fourier(nn.Module):
    """Real weights read as complex numbers, between a transform and its inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(4, 2))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = torch.fft.irfft(torch.fft.rfft(x) * torch.view_as_complex(self.filter), n=6)
        return self.head(h.tanh())


class Spatial(nn.Module):
    """A spatial transformer: where a sample is read depends on weights."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Linear(16, 6)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        theta = 0.3 * self.where(x.flatten(1)).view(-1, 2, 3)
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        return self.head(F.grid_sample(x, grid, align_corners=False).flatten(1).tanh())


class Unfolded(nn.Module):
    """Patches by ``unfold``, a linear layer on them, and ``fold`` back."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(4, 4)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        columns = F.unfold(x, 2).transpose(1, 2)
        h = F.fold(self.patches(columns).transpose(1, 2), (4, 4), 2)
        return self.head(h.flatten(1).tanh())


class TimeFirst(nn.Module):
    """A layer on ``(T, n, d)``: its graph at n = 1 is not the one at n > 1."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """``(n, T, …)``."""
        return self.layer(x.transpose(0, 1)).transpose(0, 1)


def prelu_before_time_first() -> nn.Module:
    """A PReLU below a layer that sends all parameters to the generic route."""
    return nn.Sequential(
        nn.Conv1d(7, 3, 3, stride=2),
        nn.PReLU(),
        nn.LayerNorm(2),
        TimeFirst(nn.Linear(2, 2)),
        nn.GELU(),
        nn.LayerNorm(2),
        nn.Conv1d(3, 3, 1),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(6, 3),
    )


class PenaltyOnly(nn.Module):
    """One weight enters through its norm alone, another through its mean, times something of the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.randn(4, 4))
        self.shift = nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.first(x) * self.scale.norm() + x.sum(1, keepdim=True) * self.shift.mean()


def _around(
    use: Callable[[nn.Module, Tensor], Tensor], width: int, layer: Callable[[], nn.Module] | None = None
) -> Callable[[], nn.Module]:
    return lambda: Around(layer or (lambda: nn.Linear(5, 4)), use, width)


def _head(after: Callable[[nn.Module, Tensor], Tensor], outputs: int = 3) -> Callable[[], nn.Module]:
    return lambda: Head(after, outputs)


def _interleaved(layer: nn.Module, x: Tensor) -> Tensor:
    views = x.repeat_interleave(3, 0) * torch.tensor([1.0, 0.5, -1.0]).repeat(len(x)).unsqueeze(1).to(x)
    return layer(views).tanh().view(len(x), 3, 4).mean(1)


def _repeated(layer: nn.Module, x: Tensor) -> Tensor:
    views = x.repeat(3, 1) * torch.tensor([1.0, 0.5, -1.0]).repeat_interleave(len(x)).unsqueeze(1).to(x)
    return layer(views).tanh().view(3, len(x), 4).mean(0)


def _windows(layer: nn.Module, x: Tensor) -> Tensor:
    n = len(x)
    rolled = x.roll(1, 1).view(n, 3, 2, 5).reshape(3 * n, 2, 5)
    return layer(rolled).tanh().mean(1).view(n, 12)


def _batch_and_flip(layer: nn.Module, x: Tensor) -> Tensor:
    both = layer(torch.cat([x, x.flip(1)], 0)).tanh()
    return both[: len(x)] * both[len(x) :]


def _chunks(layer: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([layer(part).tanh() for part in x.split(2)], 0)


def _sorted(layer: nn.Module, x: Tensor) -> Tensor:
    order = x[:, 0].argsort()
    return layer(x[order]).tanh()[order.argsort()]


def _flat_time_first(layer: nn.Module, x: Tensor) -> Tensor:
    h = layer(x.transpose(0, 1).reshape(-1, 5)).tanh()
    return h.view(x.shape[1], len(x), 4).mean(0)


def _glu(layer: nn.Module, x: Tensor) -> Tensor:
    return F.glu(layer(x), 1)


def _packed_norm(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(x.flatten(0, 1)).view(len(x), -1, 5).square().mean(1)


def _pad_batch(layer: nn.Module, x: Tensor) -> Tensor:
    return layer(torch.cat([x, x.new_ones(2, 5)], 0)).tanh()[: len(x)]


ROWS = (
    NastyModel("views-interleaved", _around(_interleaved, 4), floats(5), "three views a sample, next to each other"),
    NastyModel("views-repeated", _around(_repeated, 4), floats(5), "three views a sample, a batch apart"),
    NastyModel("windows", _around(_windows, 12), floats(6, 5), "windows join the batch axis; T = n"),
    NastyModel("batch-and-flip", _around(_batch_and_flip, 4), floats(5), "the batch and its mirror image in one call"),
    NastyModel("chunks", _around(_chunks, 4), floats(5), "the batch in chunks of two: a layer called several times"),
    NastyModel("sorted", _around(_sorted, 4), floats(5), "sorted inside and back: rows in another order"),
    NastyModel("flat-time-first", _around(_flat_time_first, 4), floats(6, 5), "(T·n, d) rows, T = n"),
    NastyModel("padded-batch", _around(_pad_batch, 4), floats(5), "two rows that belong to no sample"),
    NastyModel("gated", _around(_glu, 3, lambda: nn.Linear(5, 6)), floats(5), "gated linear units"),
    NastyModel(
        "batch-norm-tokens", _around(_packed_norm, 5, lambda: nn.BatchNorm1d(5)), floats(3, 5), "a norm over (n·T, d)"
    ),
    NastyModel(
        "embedding-time-first",
        _around(lambda layer, x: layer(x.t()).mean(0), 4, lambda: nn.Embedding(9, 4)),
        ints(9, 6),
        "tokens as (T, n), T = n",
    ),
)

HEADS = (
    NastyModel("head-scaled", _head(lambda head, h: 2.0 * head(h)), floats(5), "the outputs are twice the head's"),
    NastyModel("head-sliced", _head(lambda head, h: head(h)[:, 1:]), floats(5), "some of the head's outputs"),
    NastyModel("head-permuted", _head(lambda head, h: head(h)[:, [2, 0, 1]]), floats(5), "in another order"),
    NastyModel("head-twice", _head(lambda head, h: head(h) + head(h.square())), floats(5), "called twice and summed"),
    NastyModel(
        "head-used-inside",
        _head(lambda head, h: head(h + head(h).sum(1, keepdim=True))),
        floats(5),
        "its outputs feed its own inputs",
    ),
    NastyModel("head-added", _head(lambda head, h: head(h) + h[:, :3]), floats(5), "a skip connection past it"),
    NastyModel("head-inplace", _head(lambda head, h: head(h).add_(h[:, :3])), floats(5), "and in place"),
    NastyModel(
        "head-mean", _head(lambda head, h: head(h) - 0.5 * head(h).mean(1, keepdim=True)), floats(5), "half centred"
    ),
    NastyModel("head-positions", _head(lambda head, h: head(h).mT), floats(2, 5), "outputs (n, C, T) of (n, T, C)"),
    NastyModel("head-cat", _head(lambda head, h: torch.cat([head(h), h], 1)), floats(5), "beside hidden units"),
    NastyModel("head-view", _head(lambda head, h: head(h).view(-1, 2, 2), 4), floats(5), "a view of it"),
    NastyModel(
        "head-weight",
        _head(lambda head, h: head(h) * head.get_parameter("weight").sum()),
        floats(5),
        "times its own weights",
    ),
)

WEIGHTS = (
    NastyModel("functional", Functional, ints(7, 5), "bare weights in functional layers"),
    NastyModel("gathered", Gathered, ints(7, 3), "indexing, gather, where: parts of a table"),
    NastyModel("hypernetwork", Hyper, floats(4), "weights made by the samples; a convolution grouped by sample"),
    NastyModel("fourier", Fourier, floats(6), "real weights as complex numbers"),
    NastyModel("spatial-transformer", Spatial, floats(1, 4, 4), "grid_sample: where to read depends on weights"),
    NastyModel("unfold", Unfolded, floats(1, 4, 4), "fold and unfold around a linear layer"),
    NastyModel(
        "prelu-time-first",
        prelu_before_time_first,
        floats(7, 5),
        "with as many samples in a batch as outputs, vmap over PReLU's backward is wrong without an error",
    ),
    NastyModel("norms-of-weights", PenaltyOnly, floats(5), "weights that enter through their norm and mean"),
)

STRUCTURE = ROWS + HEADS + WEIGHTS
