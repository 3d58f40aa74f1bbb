"""How weights are held: bare, shared, tied, reparametrised, frozen, adapted, strided, unused."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils import parametrizations, parametrize

from tangrams.testing.models.base import NastyModel, floats, ints


class Bare(nn.Module):
    """Weights without layers: a matrix product, a scale, a shift, a scalar, one in a list and one in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.listed = nn.ParameterList([torch.randn(4, 4)])
        self.keyed = nn.ParameterDict({"out": torch.randn(4, 3)})

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = torch.tanh(x @ self.weight * self.scale) * self.temperature
        return (h @ self.listed[0]).tanh() @ self.keyed["out"]


class Scaled(nn.Module):
    """A linear layer times a bare scale: the structured part is right and the scale is easily forgotten."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)
        self.scale = nn.Parameter(torch.full((3,), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.body(x) * self.scale


class Contracted(nn.Module):
    """Weights used in ``einsum`` and in a broadcast product over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(5, 4, 3))
        self.gate = nn.Parameter(torch.randn(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return torch.einsum("ntd,dhc,th->nc", x, self.mix, self.gate.expand(2, 4)).tanh()


class Twice(nn.Module):
    """One layer applied twice."""

    def __init__(self, layer: Callable[[], nn.Module] = lambda: nn.Linear(5, 5)) -> None:
        super().__init__()
        self.layer = layer()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = torch.tanh(self.layer(torch.tanh(self.layer(x))))
        return self.head(h.flatten(1) if h.ndim == 2 else h.flatten(2).mean(2))


class UsedOutside(nn.Module):
    """A layer whose weight is used again outside it, transposed, and once more without the input."""

    def __init__(self, alone: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 4)
        self.head = nn.Linear(5, 3)
        self.alone = alone

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = linear(torch.tanh(self.layer(x)), self.layer.weight.T)
        return self.head(h) + (self.layer.weight.square().sum() if self.alone else 0.0)


class SharedWeight(nn.Module):
    """Two layers that hold one weight; their biases are their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class TiedEmbedding(nn.Module):
    """A language model: the output weight is the embedding, so one gradient is sparse and one dense."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """``(n, 7)``."""
        return self.out(torch.tanh(self.body(self.tokens(tokens))).mean(1))


class TwoNames(nn.Module):
    """Two parameters over one storage: neither is the other, but they are the same numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5, bias=False)
        self.second = nn.Linear(5, 5, bias=False)
        self.second.weight = nn.Parameter(self.first.weight.data)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Overlapping(nn.Module):
    """Two parameters that are different, overlapping views of one storage."""

    def __init__(self) -> None:
        super().__init__()
        numbers = torch.randn(30)
        self.first = nn.Parameter(numbers[:20].view(5, 4))
        self.second = nn.Parameter(numbers[10:22].view(4, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return torch.tanh(x @ self.first) @ self.second


class Symmetric(nn.Module):
    """A parametrisation that makes a square matrix symmetric."""

    def forward(self, weight: Tensor) -> Tensor:
        """``W + Wᵀ``."""
        return weight + weight.mT


class LowRank(nn.Module):
    """LoRA: a frozen layer plus a trainable product of two thin matrices."""

    def __init__(self, base: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(rank, base.in_features))
        self.up = nn.Parameter(torch.randn(base.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """The base's output plus ``x Dᵀ Uᵀ``."""
        return self.base(x) + x @ self.down.T @ self.up.T


class Unused(nn.Module):
    """A layer that forward never calls, a parameter nobody reads and one without elements."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)
        self.idle = nn.Linear(5, 3)
        self.spare = nn.Parameter(torch.randn(4))
        self.empty = nn.Parameter(torch.zeros(0, 5))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return torch.tanh(self.body(x))


class Strided(nn.Module):
    """Weights that are transposed and sliced views."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.first.weight = nn.Parameter(torch.randn(5, 4).T)
        self.second = nn.Linear(4, 3)
        self.second.weight = nn.Parameter(torch.randn(6, 8)[::2, ::2])

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.second(torch.tanh(self.first(x)))


class Expanded(nn.Module):
    """A weight that is an expanded view: one row of memory read four times."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.first.weight = nn.Parameter(torch.randn(1, 5).expand(4, 5))
        self.second = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.second(torch.tanh(self.first(x)))


class Complex(nn.Module):
    """A complex weight: its gradient is a matter of convention."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = nn.Parameter(torch.randn(3, dtype=torch.complex128))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(torch.fft.irfft(torch.fft.rfft(x) * self.filter, n=4))


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 3))


def _frozen(*names: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = _mlp()
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        return model

    return make


def _parametrised(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(wrap(nn.Linear(5, 5)), nn.Tanh(), nn.Linear(5, 3))


def _symmetric(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Symmetric())


def _shared_parametrisation() -> nn.Module:
    return Twice(lambda: parametrizations.weight_norm(nn.Linear(5, 5)))


def _conv_weight_norm() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Conv2d(2, 3, 2)), nn.Flatten(), nn.Tanh(), nn.Linear(12, 3))


def lora() -> nn.Module:
    """LoRA of our own on the first layer; everything else frozen."""
    first, *rest = _mlp().requires_grad_(False)
    assert isinstance(first, nn.Linear)
    return nn.Sequential(LowRank(first), *rest)


def peft() -> nn.Module:
    """LoRA by the peft package on one layer, which freezes the rest and has dropout."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(_mlp(), LoraConfig(r=2, target_modules=["0"], lora_dropout=0.1))


SHARING = (
    NastyModel("bare", Bare, floats(5), "parameters without modules"),
    NastyModel("scaled", Scaled, floats(5), "a raw scale after a layer"),
    NastyModel("einsum", Contracted, floats(2, 5), "parameters in einsum, expanded"),
    NastyModel("twice", Twice, floats(5), "a layer called twice: a peer is 34 % off"),
    NastyModel(
        "twice-conv", lambda: Twice(lambda: nn.Conv1d(5, 5, 3, padding=1)), floats(5, 4), "a convolution called twice"
    ),
    NastyModel(
        "twice-other-lengths",
        lambda: nn.Sequential(layer := nn.Conv1d(1, 1, 3, stride=2), nn.Tanh(), layer, nn.Flatten(), nn.Linear(4, 3)),
        floats(1, 19),
        "called twice with different numbers of positions",
    ),
    NastyModel(
        "twice-prelu", lambda: Twice(lambda: nn.Sequential(nn.Linear(5, 5), nn.PReLU())), floats(5), "and PReLU"
    ),
    NastyModel("used-outside", UsedOutside, floats(5), "a weight that is also used outside its module"),
    NastyModel(
        "used-without-input",
        lambda: UsedOutside(alone=True),
        floats(5),
        "a term in the weight alone is the same for every sample and has no sample axis",
    ),
    NastyModel("shared-weight", SharedWeight, floats(5), "two modules, one weight: peers are 14–57 % off"),
    NastyModel("tied-embedding", TiedEmbedding, ints(7, 4), "embedding and output tied: peers are 57 and 81 % off"),
    NastyModel("two-names", TwoNames, floats(5), "two parameters over one storage: counted once, gradients summed"),
    NastyModel("overlapping", Overlapping, floats(5), "overlapping views: a column per element of memory"),
    NastyModel("weight-norm", _parametrised(parametrizations.weight_norm), floats(5), "a peer is 46 % off"),
    NastyModel("weight-norm-conv", _conv_weight_norm, floats(2, 3, 3), "of a convolution"),
    NastyModel("spectral-norm", _parametrised(parametrizations.spectral_norm), floats(5), "a peer is 74 % off"),
    NastyModel("orthogonal", _parametrised(parametrizations.orthogonal), floats(5), "through a matrix exponential"),
    NastyModel("symmetric", _parametrised(_symmetric), floats(5), "a parametrisation of the user's"),
    NastyModel("twice-weight-norm", _shared_parametrisation, floats(5), "parametrised and called twice"),
    NastyModel(
        "frozen-first", _frozen("0.weight", "0.bias"), floats(5), "the front is frozen: peers count it, 75 % off"
    ),
    NastyModel("frozen-middle", _frozen("2.weight", "2.bias"), floats(5), "gradients pass through frozen weights"),
    NastyModel("frozen-bias", _frozen("0.bias", "2.bias"), floats(5), "weights without their biases"),
    NastyModel("frozen-last", _frozen("4.weight", "4.bias"), floats(5), "the last layer is frozen"),
    NastyModel(
        "frozen-all",
        lambda: _mlp().requires_grad_(False),
        floats(5),
        "no trainable parameter",
        expect="refused",
        names=("Sequential", "requires grad"),
    ),
    NastyModel(
        "no-parameters",
        lambda: nn.Sequential(nn.Flatten(), nn.Tanh()),
        floats(3),
        "no parameter at all",
        expect="refused",
        names=("Sequential", "parameter"),
    ),
    NastyModel("unused", Unused, floats(5), "columns of zeros, one block empty"),
    NastyModel("lora", lora, floats(5), "only the adapter counts"),
    NastyModel("peft", peft, floats(5), "peft's wrapper: peers count the base, 16 and 32 % off", needs=("peft",)),
    NastyModel("strided", Strided, floats(5), "weights that are not contiguous"),
    NastyModel("expanded", Expanded, floats(5), "a weight with stride zero: four elements, one column"),
    NastyModel("complex", Complex, floats(4), "complex weights", expect="refused", names=("filter", "complex")),
)
