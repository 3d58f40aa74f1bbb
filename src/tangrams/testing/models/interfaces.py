"""How a network is called, what it returns, and in which dtype."""

from __future__ import annotations

import dataclasses
from collections import UserDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tangrams.testing.models.base import NastyModel, floats, ints, named, several


class Returning(nn.Module):
    """A small network whose return value is put in a container."""

    def __init__(self, wrap: Callable[[Tensor], Any], outputs: int = 3) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, outputs))
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        """Whatever ``wrap`` makes of ``(n, outputs)``."""
        return self.wrap(self.body(x))


@dataclasses.dataclass
class Prediction:
    """A dataclass output with one tensor that can be differentiated and some that cannot."""

    scores: Tensor
    label: Tensor
    note: str = "a string beside the tensors"


class Pair(NamedTuple):
    """A named tuple with ``logits`` that does not come first."""

    hidden: Tensor
    logits: Tensor


class KeywordOnly(nn.Module):
    """forward takes keywords only, one of them optional, one no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 4)
        self.right = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, *, features: Tensor, tokens: Tensor | None = None, scale: float = 1.0) -> Tensor:
        """``(n, 3)``."""
        h = self.left(features)
        return self.head(torch.tanh(h if tokens is None else h + self.right(tokens))) * scale


class TwoArguments(nn.Module):
    """Two positional inputs of different kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 4)
        self.right = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, features: Tensor, tokens: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(torch.tanh(self.left(features) + self.right(tokens)))


class Nested(nn.Module):
    """One argument that is itself a dict with a tuple inside."""

    def __init__(self) -> None:
        super().__init__()
        self.body = TwoArguments()

    def forward(self, batch: Mapping[str, Any]) -> Tensor:
        """``(n, 3)``."""
        return self.body(batch["features"], batch["extra"][0])


class Mixed(nn.Module):
    """Weights of two dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4).float()
        self.head = nn.Linear(4, 3).double()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(torch.tanh(self.first(x.float())).double())


def scores_of(result: Any) -> Tensor:
    """The entry ``scores``."""
    return result["scores"]


def first_two(result: Tensor) -> Tensor:
    """Two of the outputs, one of them squared."""
    return torch.stack([result[:, 0], result[:, 1].square()], 1)


def log_sum(result: Tensor) -> Tensor:
    """One scalar a sample, ``(n,)``."""
    return result.logsumexp(1)


def _model_output(logits: Tensor) -> Any:
    from transformers.modeling_outputs import SequenceClassifierOutput

    return SequenceClassifierOutput(logits=logits, hidden_states=(logits.detach(),))


def _weighted_softmax(logits: Tensor) -> Tensor:
    return logits.softmax(1) * torch.tensor([1.0, 2.0, 3.0]).to(logits)


def _user_dict(n: int, generator: torch.Generator) -> UserDict:
    return UserDict(features=floats(5)(n, generator), tokens=ints(7)(n, generator))


def _nested(n: int, generator: torch.Generator) -> tuple[Mapping[str, Any]]:
    return ({"features": floats(5)(n, generator), "extra": (ints(7)(n, generator),)},)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def _returning(wrap: Callable[[Tensor], Any], outputs: int = 3) -> Callable[[], nn.Module]:
    return lambda: Returning(wrap, outputs)


def conv_sequence() -> nn.Module:
    """A convolution, a norm and a linear head: the dtypes are swept over it."""
    return nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 6), nn.Tanh(), nn.Linear(6, 3)
    )


OUTPUTS = (
    NastyModel("dict", _returning(lambda y: {"logits": y, "aux": y.detach()}), floats(5), "four peers crash"),
    NastyModel("tuple", _returning(lambda y: (y, y.argmax(1))), floats(5), "the first tensor is meant"),
    NastyModel("list", _returning(lambda y: [y]), floats(5), "a list with one tensor"),
    NastyModel("named-tuple", _returning(lambda y: Pair(y.square(), y)), floats(5), "logits by name, not by place"),
    NastyModel("dataclass", _returning(lambda y: Prediction(y, y.argmax(1))), floats(5), "its only float tensor"),
    NastyModel("model-output", _returning(_model_output), floats(5), "logits by attribute", needs=("transformers",)),
    NastyModel(
        "dict-picked",
        _returning(lambda y: {"scores": y.square(), "other": y}),
        floats(5),
        "a callable picks the entry",
        output=scores_of,
    ),
    NastyModel(
        "dict-ambiguous",
        _returning(lambda y: {"scores": y, "other": y.square()}),
        floats(5),
        "two tensors could be meant",
        expect="refused",
        names=("scores", "output"),
    ),
    NastyModel("output-callable", _mlp, floats(5), "two functions of the outputs", output=first_two),
    NastyModel("output-callable-scalar", _mlp, floats(5), "one function, (n,)", output=log_sum),
    NastyModel("scalar-output", _returning(lambda y: y.squeeze(1), 1), floats(5), "(n,) outputs"),
    NastyModel("one-output", lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1)), floats(5), "(n, 1)"),
    NastyModel("many-outputs", lambda: nn.Linear(3, 200), floats(3), "more outputs than inputs"),
    NastyModel("dense-tensor", _returning(lambda y: y.view(-1, 2, 1, 2), 4), floats(5), "(n, 2, 1, 2) outputs"),
    NastyModel(
        "constant-output",
        _returning(lambda y: torch.cat([y, torch.ones_like(y[:, :1])], 1)),
        floats(5),
        "one output does not depend on the weights: a row of zeros",
    ),
    NastyModel("output-is-weight", lambda: nn.Embedding(9, 3), ints(9), "the outputs are weights"),
    NastyModel("output-transposed", _returning(lambda y: y.t().contiguous().t()), floats(5), "strided outputs"),
    NastyModel("softmax", _returning(_weighted_softmax), floats(5), "outputs that sum to one: singular Gram"),
    NastyModel("dead", _returning(lambda y: torch.relu(y - 100)), floats(5), "dead ReLUs: a Gram of zeros"),
    NastyModel(
        "argmax",
        _returning(lambda y: y.argmax(1)),
        floats(5),
        "whole numbers have no gradient",
        expect="refused",
        names=("Returning", "int64|integer|floating"),
    ),
    NastyModel(
        "returns-none",
        _returning(lambda y: None),
        floats(5),
        "no output",
        expect="refused",
        names=("Returning", "NoneType|None"),
    ),
    NastyModel(
        "returns-loss",
        _returning(lambda y: y.square().mean()),
        floats(5),
        "a scalar has no sample axis",
        expect="refused",
        names=("Returning", "sample"),
    ),
    NastyModel(
        "returns-half",
        _returning(lambda y: y[: len(y) // 2]),
        floats(5),
        "fewer outputs than samples",
        expect="refused",
        names=("Returning", "sample"),
    ),
    NastyModel(
        "complex-output",
        _returning(lambda y: torch.complex(y, y.square())),
        floats(5),
        "complex outputs",
        expect="refused",
        names=("Returning", "complex"),
    ),
)

INPUTS = (
    NastyModel("two-arguments", TwoArguments, several(floats(5), ints(7)), "a tuple: positional arguments"),
    NastyModel("keywords", KeywordOnly, named(features=floats(5), tokens=ints(7)), "keyword-only forward"),
    NastyModel("keywords-optional", KeywordOnly, named(features=floats(5)), "an optional argument left out"),
    NastyModel("user-dict", KeywordOnly, _user_dict, "a UserDict, as tokenizers return"),
    NastyModel("nested", Nested, _nested, "a dict with a tuple inside, as one argument"),
    NastyModel("one-sample", _mlp, floats(5), "n = 1", n=1),
    NastyModel("no-samples", _mlp, floats(5), "n = 0: shape (0, p)", n=0),
    NastyModel("no-samples-conv", conv_sequence, floats(2, 6), "n = 0 through a convolution", n=0),
    NastyModel("one-feature", lambda: nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1)), floats(1), "d = 1"),
    NastyModel("duplicates", _mlp, lambda n, g: floats(5)(1, g).expand(n, 5), "equal samples, an expanded input"),
    NastyModel(
        "strided-input", _mlp, lambda n, g: torch.randn(5, n, generator=g).t(), "an input that is not contiguous"
    ),
    NastyModel(
        "input-requires-grad",
        _mlp,
        lambda n, g: floats(5)(n, g).requires_grad_(),
        "an input that requires a gradient: its .grad stays None",
    ),
    NastyModel("zeros", _mlp, lambda n, g: torch.zeros(n, 5), "inputs of zero: rows of zeros in the first weight"),
    NastyModel("large", _mlp, lambda n, g: 1e6 * floats(5)(n, g), "saturated units, large inputs"),
)

DTYPES = (
    *(
        NastyModel(
            f"{name}-{str(dtype)[6:]}", factory, events, f"{dtype} weights: sums in at least float32", dtype=dtype
        )
        for dtype in (torch.float32, torch.bfloat16, torch.float16)
        for name, factory, events in (
            ("mlp", _mlp, floats(5)),
            ("conv", conv_sequence, floats(2, 6)),
            ("embedding", lambda: nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(20, 3)), ints(9, 5)),
        )
    ),
    NastyModel("mixed-dtypes", Mixed, floats(5), "float32 and float64 weights in one network", dtype=torch.float32),
)

INTERFACES = OUTPUTS + INPUTS + DTYPES
