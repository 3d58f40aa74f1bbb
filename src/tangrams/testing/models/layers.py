"""Layers one by one: linear, convolutions, norms, embeddings and the rest of what has weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tangrams.testing.models.base import NastyModel, floats, ints, several


class MeanOverPositions(nn.Module):
    """The mean over all axes but the first and the given one, then a linear head that mixes the channels."""

    def __init__(self, body: nn.Module, channels: int, outputs: int = 3, axis: int = -1) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(channels, outputs)
        self.axis = axis

    def forward(self, *x: Tensor) -> Tensor:
        """``(n, outputs)``."""
        h = torch.tanh(self.body(*x)).movedim(self.axis, -1)
        return self.head(h.flatten(1, -2).mean(1) if h.ndim > 2 else h)


def _positions(body: Callable[[], nn.Module], channels: int, axis: int = -1) -> Callable[[], nn.Module]:
    return lambda: MeanOverPositions(body(), channels, axis=axis)


class TwoInputs(nn.Module):
    """``nn.Bilinear`` under an activation and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Bilinear(4, 3, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """``(n, 3)``, the mean over positions if there are any."""
        h = self.head(torch.tanh(self.mix(a, b)))
        return h.flatten(1, -2).mean(1) if h.ndim > 2 else h


class WeightedBag(nn.Module):
    """An embedding bag whose per-sample weights are themselves computed."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Embedding(9, 1)
        self.bag = nn.EmbeddingBag(9, 4, mode="sum")
        self.head = nn.Linear(4, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, 3)``."""
        weights = torch.sigmoid(self.score(tokens)).squeeze(-1)
        return self.head(torch.tanh(self.bag(tokens, per_sample_weights=weights)))


def channels_last() -> nn.Module:
    """A convolution whose weight lies in memory channel by channel."""
    model = _conv(lambda: nn.Conv2d(3, 4, 3), 4)()
    return model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def _conv(layer: Callable[[], nn.Module], channels: int) -> Callable[[], nn.Module]:
    return _positions(layer, channels, axis=1)


def _embed(layer: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return _positions(layer, 4)


LINEAR = (
    NastyModel(
        "mlp",
        lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3)),
        floats(5),
        "the plain case",
    ),
    NastyModel("linear-alone", lambda: nn.Linear(5, 3), floats(5), "the last layer is the first: features are inputs"),
    NastyModel(
        "no-bias",
        lambda: nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3, bias=False)),
        floats(5),
        "mm instead of addmm in the graph",
    ),
    NastyModel(
        "positions", _positions(lambda: nn.Linear(5, 7), 7), floats(4, 5), "a linear layer on (n, T, d) sums over T"
    ),
    NastyModel(
        "positions-equal-samples",
        _positions(lambda: nn.Linear(5, 7), 7),
        floats(6, 5),
        "T = n: the sample axis cannot be told by its length",
    ),
    NastyModel("positions-4d", _positions(lambda: nn.Linear(5, 7), 7), floats(2, 3, 5), "two axes of positions"),
    NastyModel(
        "positions-no-bias",
        _positions(lambda: nn.Linear(5, 7, bias=False), 7),
        floats(4, 5),
        "bmm or mm over merged axes",
    ),
    NastyModel(
        "dense-output",
        lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)),
        floats(3, 5),
        "(n, T, C) outputs: every position is an output",
    ),
    NastyModel("bilinear", TwoInputs, several(floats(4), floats(3)), "a weight with two inputs"),
    NastyModel("bilinear-positions", TwoInputs, several(floats(2, 4), floats(2, 3)), "and summed over positions"),
    NastyModel(
        "prelu",
        lambda: nn.Sequential(nn.Linear(5, 6), nn.PReLU(), nn.Linear(6, 3)),
        floats(5),
        "vmap over PReLU's backward fails inside torch",
    ),
    NastyModel(
        "prelu-per-channel",
        _conv(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.PReLU(3)), 3),
        floats(2, 5, 5),
        "one slope per channel, summed over positions",
    ),
    NastyModel(
        "flatten-views",
        lambda: nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Linear(4, 3), nn.Flatten(), nn.Tanh(), nn.Linear(6, 3)),
        floats(8),
        "reshapes between the layers",
    ),
)

CONVOLUTIONS = (
    NastyModel("conv1d", _conv(lambda: nn.Conv1d(2, 4, 3), 4), floats(2, 7), "one axis"),
    NastyModel("conv2d", _conv(lambda: nn.Conv2d(2, 4, 3), 4), floats(2, 6, 5), "two axes, not square"),
    NastyModel("conv3d", _conv(lambda: nn.Conv3d(2, 3, 2), 3), floats(2, 3, 4, 3), "three axes"),
    NastyModel("conv-no-bias", _conv(lambda: nn.Conv2d(2, 4, 3, bias=False), 4), floats(2, 5, 5), "no bias"),
    NastyModel("conv-1x1", _conv(lambda: nn.Conv2d(3, 4, 1), 4), floats(3, 3, 3), "a linear layer in disguise"),
    NastyModel(
        "conv-stride",
        _conv(lambda: nn.Conv2d(2, 4, 3, stride=2, padding=1), 4),
        floats(2, 6, 7),
        "a stride that leaves pixels over",
    ),
    NastyModel(
        "conv-dilation",
        _conv(lambda: nn.Conv2d(2, 4, (2, 3), dilation=(2, 1), padding=(1, 2)), 4),
        floats(2, 6, 6),
        "dilation, with a kernel and padding that are not square",
    ),
    NastyModel(
        "conv-groups",
        _conv(lambda: nn.Conv2d(4, 6, 3, groups=2), 6),
        floats(4, 5, 5),
        "groups: nngeometry is off by 19 %",
    ),
    NastyModel(
        "conv-depthwise",
        _conv(lambda: nn.Conv2d(3, 6, 3, groups=3, padding=1), 6),
        floats(3, 4, 4),
        "as many groups as channels, two outputs each",
    ),
    NastyModel(
        "conv-same",
        _conv(lambda: nn.Conv2d(2, 4, (4, 3), padding="same"), 4),
        floats(2, 5, 5),
        "same padding of an even kernel pads one side more",
    ),
    *(
        NastyModel(
            f"conv-{mode}",
            _conv(lambda mode=mode: nn.Conv2d(2, 4, 3, padding=1, padding_mode=mode), 4),
            floats(2, 5, 5),
            "padded by another operation before: two peers are off by 4.7 %",
        )
        for mode in ("circular", "reflect", "replicate")
    ),
    NastyModel(
        "conv-transposed-1d",
        _conv(lambda: nn.ConvTranspose1d(2, 4, 3, stride=2), 4),
        floats(2, 5),
        "weights are (in, out, k)",
    ),
    NastyModel(
        "conv-transposed-2d",
        _conv(lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), 6),
        floats(4, 3, 4),
        "with groups and output padding",
    ),
    NastyModel(
        "conv-transposed-3d",
        _conv(lambda: nn.ConvTranspose3d(2, 3, 2, dilation=2), 3),
        floats(2, 2, 3, 2),
        "with dilation",
    ),
    NastyModel(
        "conv-channels-last",
        channels_last,
        lambda n, g: floats(3, 5, 5)(n, g).to(memory_format=torch.channels_last),
        "weights and inputs that are not contiguous",
    ),
    NastyModel(
        "conv-net",
        lambda: nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 5, 2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(20, 6),
            nn.ReLU(),
            nn.Linear(6, 3),
        ),
        floats(1, 8, 8),
        "the network of the benchmarks, small",
    ),
    NastyModel(
        "image-to-image",
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.Conv2d(3, 2, 3, padding=1)),
        floats(1, 3, 4),
        "dense outputs: (n, 2, 3, 4) is 24 outputs a sample",
    ),
    NastyModel(
        "pixel-shuffle",
        _conv(lambda: nn.Sequential(nn.Conv2d(2, 8, 3), nn.PixelShuffle(2), nn.Upsample(scale_factor=2)), 2),
        floats(2, 4, 4),
        "positions move between channels and space",
    ),
)

NORMS = (
    NastyModel(
        "batch-norm-1d",
        lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 3)),
        floats(5),
        "left in train mode: taken in eval mode, and left in train mode",
    ),
    NastyModel(
        "batch-norm-2d",
        _conv(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), 4),
        floats(2, 5, 5),
        "one scale per channel, summed over positions",
    ),
    NastyModel(
        "batch-norm-3d",
        _conv(lambda: nn.Sequential(nn.Conv3d(2, 3, 2), nn.BatchNorm3d(3)), 3),
        floats(2, 3, 3, 3),
        "in three dimensions",
    ),
    NastyModel(
        "batch-norm-no-affine",
        lambda: nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6, affine=False), nn.Tanh(), nn.Linear(6, 3)),
        floats(5),
        "nothing to differentiate inside",
    ),
    NastyModel(
        "batch-norm-first",
        lambda: nn.Sequential(nn.BatchNorm1d(5), nn.Linear(5, 3)),
        floats(5),
        "its input needs no gradient",
    ),
    NastyModel(
        "layer-norm",
        _positions(lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6)), 6),
        floats(4, 5),
        "over the last axis, positions kept",
    ),
    NastyModel(
        "layer-norm-2d",
        lambda: nn.Sequential(nn.LayerNorm([3, 4]), nn.Flatten(), nn.Tanh(), nn.Linear(12, 3)),
        floats(3, 4),
        "over two axes",
    ),
    NastyModel(
        "layer-norm-no-bias",
        lambda: nn.Sequential(nn.LayerNorm(5, bias=False), nn.Tanh(), nn.Linear(5, 3)),
        floats(5),
        "a scale without a shift",
    ),
    NastyModel(
        "group-norm",
        _conv(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4)), 4),
        floats(2, 5, 5),
        "statistics per sample and group, scale per channel",
    ),
    NastyModel(
        "instance-norm",
        _conv(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4, affine=True), nn.ReLU()), 4),
        floats(2, 5, 5),
        "torch computes it as a batch norm with n and C merged",
    ),
    NastyModel(
        "instance-norm-running",
        _conv(
            lambda: nn.Sequential(
                nn.Conv1d(2, 4, 3), nn.InstanceNorm1d(4, affine=True, track_running_stats=True), nn.ReLU()
            ),
            4,
        ),
        floats(2, 6),
        "running statistics, repeated n times in its forward",
    ),
    NastyModel(
        "rms-norm",
        _positions(lambda: nn.Sequential(nn.Linear(5, 6), nn.RMSNorm(6)), 6),
        floats(4, 5),
        "a composite of elementwise operations",
    ),
    NastyModel(
        "local-response-norm",
        _conv(lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.LocalResponseNorm(2)), 4),
        floats(2, 5, 5),
        "no weights, couples channels",
    ),
)

EMBEDDINGS = (
    NastyModel("embedding", _embed(lambda: nn.Embedding(9, 4)), ints(9, 5), "whole-number inputs, repeated tokens"),
    NastyModel(
        "embedding-padding",
        _embed(lambda: nn.Embedding(9, 4, padding_idx=0)),
        ints(9, 5),
        "the padding row has no gradient",
    ),
    NastyModel("embedding-sparse", _embed(lambda: nn.Embedding(9, 4, sparse=True)), ints(9, 5), "sparse gradients"),
    NastyModel(
        "embedding-one-token",
        lambda: nn.Sequential(nn.Embedding(9, 4), nn.Tanh(), nn.Linear(4, 3)),
        ints(9),
        "inputs of shape (n,)",
    ),
    NastyModel("embedding-large", _embed(lambda: nn.Embedding(4000, 4)), ints(4000, 5), "many more rows than tokens"),
    *(
        NastyModel(
            f"bag-{mode}",
            _positions(lambda mode=mode: nn.EmbeddingBag(9, 4, mode=mode), 4),
            ints(9, 5),
            "an embedding bag",
        )
        for mode in ("sum", "mean", "max")
    ),
    NastyModel("bag-weighted", WeightedBag, ints(9, 5), "per-sample weights that need gradients of their own"),
)

LAYERS = LINEAR + CONVOLUTIONS + NORMS + EMBEDDINGS
