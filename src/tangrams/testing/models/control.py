"""What forward does besides algebra: checkpoints, custom functions, in-place writes, branches, hooks, wrappers."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from tangrams.testing.models.base import NastyModel, floats


class Checkpointed(nn.Module):
    """Activation checkpointing: the first layers are run again in backward."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first = nn.Linear(5, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
        self.head = nn.Linear(6, 3)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(checkpoint(self.body, torch.tanh(self.first(x)), use_reentrant=self.reentrant))


class _Square(torch.autograd.Function):
    """``x²`` in the old style: no ``setup_context``, so that ``torch.func`` refuses it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * grads[0]


class _OwnLinear(torch.autograd.Function):
    """``x Wᵀ`` with a backward of its own for the weight, differentiable only once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.T

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        x, weight = ctx.saved_tensors
        return grads[0] @ weight, grads[0].T @ x


class Custom(nn.Module):
    """Custom autograd functions of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5))
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return self.head(_Square.apply(_OwnLinear.apply(x, self.weight)))


class Inplace(nn.Module):
    """``y += x``, slice writes and an in-place activation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5)
        self.second = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        y = torch.tanh(self.first(x))
        z = self.second(y)
        z += x
        z[:, :2] = y[:, 3:]
        z[:, 2] *= 2.0
        return self.head(nn.functional.relu_(z))


class Branching(nn.Module):
    """Each sample chooses its layer by its own values, in a Python loop."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Linear(5, 3)
        self.right = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        return torch.stack([torch.tanh((self.left if row.sum() > 0 else self.right)(row)) for row in x])


class Routed(nn.Module):
    """Experts: the samples of each expert are gathered, so that a layer sees a part of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(5, 2)
        self.experts = nn.ModuleList(nn.Linear(5, 3) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        scores = self.gate(x)
        out = x.new_zeros(len(x), 3)
        for e, expert in enumerate(self.experts):
            mine = (scores.argmax(1) == e).nonzero().squeeze(1)
            out = out.index_add(0, mine, torch.tanh(expert(x[mine])) * scores.softmax(1)[mine, e : e + 1])
        return out


def _doubled(module: nn.Module, args: Any, out: Tensor) -> Tensor:
    return 2 * out


class Hooked(nn.Module):
    """A layer with the user's own forward hook, and a tensor hook that scales the gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)
        self.first.register_forward_hook(_doubled)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = torch.tanh(self.first(x))
        if h.requires_grad:
            h.register_hook(lambda grad: 3 * grad)
        return self.head(h)


class Detached(nn.Module):
    """A path under ``no_grad`` and a straight-through rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 4)
        self.side = nn.Linear(5, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        with torch.no_grad():
            side = torch.tanh(self.side(x))
        h = self.first(x)
        return self.head((h + (h.round() - h).detach()) * side + torch.tanh(h))


class NeedsGradInside(nn.Module):
    """A forward that differentiates: the output is the gradient of an energy in the input."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(3, 6), nn.Softplus(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``, minus the gradient of the energy."""
        x = x.detach().requires_grad_()
        return -torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


class Counting(nn.Module):
    """Buffers changed by forward: one in place, one replaced, one cache; none of them touches the output."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("seen", torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        self.calls += 1
        self.seen = 0.9 * self.seen + 0.1 * x.detach().mean(0)
        return torch.tanh(self.body(x))


class Autocast(nn.Module):
    """bfloat16 inside, by autocast; the weights are float32."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.body(x).float()


class Dropouts(nn.Module):
    """Every dropout, left in train mode."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 6), nn.Dropout(0.5), nn.Tanh(), nn.AlphaDropout(0.3))
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3)``."""
        h = nn.functional.dropout(self.body(x), 0.5, training=self.training)
        return self.head(nn.functional.rrelu(h, training=self.training))


def _mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def _compiled(backend: str) -> Callable[[], nn.Module]:
    return lambda: torch.compile(_mlp(), backend=backend)  # pyright: ignore[reportReturnType]


def scripted() -> nn.Module:
    """A TorchScript module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(_mlp())  # pyright: ignore[reportReturnType]


def quantised() -> nn.Module:
    """Dynamic quantisation: packed weights that are no parameters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(_mlp().float(), {nn.Linear})


def max_norm() -> nn.Module:
    """An embedding that renormalises its weight in forward."""
    return nn.Sequential(nn.Embedding(9, 4, max_norm=1.0), nn.Flatten(), nn.Tanh(), nn.Linear(20, 3))


def mixed_modes() -> nn.Module:
    """Some parts in eval, some in train mode: each has to come back as it was."""
    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.BatchNorm1d(6), nn.Linear(6, 3))
    model[1].eval()
    return model


CONTROL = (
    NastyModel("checkpoint", lambda: Checkpointed(False), floats(5), "saved tensors are recomputed in backward"),
    NastyModel(
        "checkpoint-reentrant",
        lambda: Checkpointed(True),
        floats(5),
        "its weights are in no graph: torch refuses autograd.grad through it",
        plain=lambda: Checkpointed(False),
    ),
    NastyModel("custom-function", Custom, floats(5), "autograd.Function without setup_context, once differentiable"),
    NastyModel(
        "inplace-relu",
        lambda: nn.Sequential(nn.Linear(5, 6), nn.ReLU(inplace=True), nn.Linear(6, 3)),
        floats(5),
        "a module hook sees the gradient after the ReLU",
    ),
    NastyModel("inplace-residual", Inplace, floats(5), "+=, slice writes, relu_: saved tensors and views"),
    NastyModel("branching", Branching, floats(5), "data-dependent branches, one sample at a time"),
    NastyModel("experts", Routed, floats(5), "a layer's rows are some of the samples, in another order"),
    NastyModel("hooked", Hooked, floats(5), "the user's own hooks count and stay"),
    NastyModel("detached", Detached, floats(5), "paths without gradient, straight-through estimates"),
    NastyModel("gradient-inside", NeedsGradInside, floats(3), "double backward: weights are used in a backward graph"),
    NastyModel("counting", Counting, floats(5), "buffers change in forward: put back"),
    NastyModel("dropout", Dropouts, floats(5), "left in train mode: taken in eval mode"),
    NastyModel("mixed-modes", mixed_modes, floats(5), "train and eval parts: each comes back as it was"),
    NastyModel("data-parallel", lambda: nn.DataParallel(_mlp()), floats(5), "torch.func refuses the wrapper"),
    NastyModel("compiled", _compiled("eager"), floats(5), "torch.compile's wrapper"),
    NastyModel("compiled-aot", _compiled("aot_eager"), floats(5), "the graph is one compiled node"),
    NastyModel("scripted", scripted, floats(5), "TorchScript", expect="refused", names=("TorchScript",)),
    NastyModel("traced-fx", lambda: torch.fx.symbolic_trace(_mlp()), floats(5), "an fx GraphModule"),
    NastyModel("autocast", Autocast, floats(5), "bfloat16 inside", dtype=torch.float32, precision=torch.bfloat16),
    NastyModel(
        "embedding-max-norm",
        max_norm,
        lambda n, g: torch.randint(9, (n, 5), generator=g),
        "its forward rewrites the weight: features of a moving target",
        expect="refused",
        names=("Embedding", "max_norm|changes"),
    ),
    NastyModel(
        "quantised",
        quantised,
        floats(5),
        "packed weights are no parameters",
        dtype=torch.float32,
        expect="refused",
        names=("Sequential", "parameter"),
    ),
)
