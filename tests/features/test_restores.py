"""Whatever is asked of a network, and whether or not it fails, everything is left as it was."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import nn

from tangrams.data import Labelled
from tangrams.features import TangentFeatures, preflight
from tangrams.operators import CountSketch
from tangrams.testing.models import NASTY_MODELS
from tangrams.testing.restoration import Snapshot

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
BY_NAME = {nasty.name: nasty for nasty in NASTY_MODELS}


def products(phi: TangentFeatures, x: Any) -> None:
    matrix = phi.matrix(x)
    _ = matrix @ torch.ones(matrix.shape[1], 1, dtype=matrix.dtype)
    _ = matrix.mT @ torch.ones(matrix.shape[0], 1, dtype=matrix.dtype)


QUESTIONS = (
    lambda phi, x: phi(x),
    lambda phi, x: phi.gram(x),
    products,
    lambda phi, x: (phi >> CountSketch(4, seed=0))(x),
)
MORE = (
    lambda phi, x: preflight(phi.model, x, output=phi.output),
    lambda phi, x: phi.diag(x),
    lambda phi, x: phi.gram(x, x),
    lambda phi, x: phi.plan(x),
    lambda phi, x: phi.outputs(x),
    lambda phi, x: phi.describe(),
    lambda phi, x: phi.explain(x),
)


def ask(questions: Any, model: nn.Module, x: Any, output: Any = "all") -> list[Exception]:
    """Every question in turn; what they raised."""
    raised = []
    for question in questions:
        try:
            question(TangentFeatures(model, output), x)
        except Exception as error:
            raised.append(error)
    return raised


@pytest.mark.parametrize("name", BY_NAME)
def test_a_nasty_model_is_left_as_it_was(name):
    nasty = BY_NAME[name]
    if not nasty.available:
        pytest.skip(f"needs {', '.join(nasty.needs)}")
    model, x = nasty.make(), nasty.inputs()
    with contextlib.suppress(Exception):  # what a first call makes, such as a compiled graph or a cache, is the user's
        ask(QUESTIONS, model, x, nasty.output)
    before = Snapshot(model, x)
    ask(QUESTIONS, model, x, nasty.output)
    assert before.differences() == []


@pytest.mark.parametrize("name", ["mlp", "conv-net", "encoder-layer", "lstm", "counting", "inplace-residual"])
def test_a_model_is_left_as_it_was_whatever_is_asked(name):
    nasty = BY_NAME[name]
    model, x = nasty.make(), nasty.inputs()
    before = Snapshot(model, x)
    assert ask(QUESTIONS + MORE, model, x) == []
    assert before.differences() == []


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Tanh(), nn.Linear(6, 3)).double()
    model[1].eval()
    model[4].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[0].register_forward_hook(lambda module, args, out: None)
    model[0].weight.register_hook(lambda grad: None)
    return model


def samples(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Broken(RuntimeError):
    pass


@pytest.mark.parametrize("at", range(1, 8))
def test_a_forward_that_fails_at_its_kth_call_leaves_everything_as_it_was(at):
    model, x, calls = net(), samples(), [0]

    def fail(module: nn.Module, args: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            torch.rand(3)
            raise Broken("out of luck")

    model[3].register_forward_pre_hook(fail)
    before = Snapshot(model, x)
    for question in (
        lambda phi: phi.gram(x),
        lambda phi: phi(x),
        lambda phi: phi.matrix(x).mT @ torch.ones(18, 1, dtype=torch.float64),
    ):
        calls[0] = 0
        with contextlib.suppress(Exception):
            question(TangentFeatures(model, batch_size=2))
        assert before.differences() == []


@pytest.mark.parametrize("at", range(1, 5))
def test_a_backward_that_fails_leaves_everything_as_it_was(at):
    class Fails(torch.autograd.Function):
        count = 0

        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            Fails.count += 1
            if Fails.count >= at:
                raise Broken("out of luck")
            return grad

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net()

        def forward(self, x):
            return Fails.apply(self.body(x))

    model, x = Net(), samples()
    before = Snapshot(model, x)
    for question in (lambda phi: phi.gram(x), lambda phi: phi(x), lambda phi: phi.diag(x)):
        Fails.count = 0
        with pytest.raises(RuntimeError):
            question(TangentFeatures(model))
        assert before.differences() == []


def test_a_failing_output_function_leaves_everything_as_it_was_and_its_error_is_seen():
    model, x = net(), samples()

    def output(returned):
        raise Broken("no such output")

    before = Snapshot(model, x)
    with pytest.raises(RuntimeError, match="no such output"):
        TangentFeatures(model, output).gram(x)
    assert before.differences() == []


def test_the_users_error_in_forward_comes_through():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(4, 3).double()

        def forward(self, x):
            return self.body(x) + x.new_zeros(7, 7)

    for question in ("gram", "diag", "__call__"):
        with pytest.raises(RuntimeError, match="size of tensor"):
            getattr(TangentFeatures(Net()), question)(samples())


def test_an_interrupt_leaves_everything_as_it_was():
    model, x = net(), samples()

    def interrupt(module: nn.Module, args: Any) -> None:
        raise KeyboardInterrupt

    handle = model[3].register_forward_pre_hook(interrupt)
    before = Snapshot(model, x)
    with pytest.raises(KeyboardInterrupt):
        TangentFeatures(model).gram(x)
    assert before.differences() == []
    handle.remove()


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, torch.enable_grad, lambda: torch.autograd.set_detect_anomaly(True)],
    ids=["no-grad", "inference", "grad", "anomaly"],
)
def test_the_callers_gradient_mode_does_not_change_the_answer_and_is_kept(context):
    model, x = net(), samples()
    expected = TangentFeatures(model).gram(x)
    with context():
        before = Snapshot(model, x)
        got = TangentFeatures(model).gram(x)
        assert before.differences() == []
    assert torch.equal(got, expected)
    assert not got.requires_grad


def test_the_default_dtype_and_device_context_of_the_caller_do_not_change_the_answer():
    model, x = net(), samples()
    expected = TangentFeatures(model).gram(x)
    torch.set_default_dtype(torch.float16)
    try:
        assert torch.equal(TangentFeatures(model).gram(x), expected)
        assert torch.get_default_dtype() == torch.float16
    finally:
        torch.set_default_dtype(torch.float32)


def test_answers_do_not_depend_on_the_mode_the_model_was_left_in():
    model, x = net(), samples()
    answers = []
    for mode in (True, False):
        model.train(mode)
        answers.append(TangentFeatures(model).gram(x))
        assert all(module.training is mode for module in model.modules())
    assert torch.equal(*answers)


def test_gradients_that_the_user_has_stay_and_training_goes_on():
    model, x = net().train(), samples()
    model(x).sum().backward()
    before = Snapshot(model, x)
    TangentFeatures(model).gram(x)
    assert before.differences() == []
    loss = lambda outputs, targets: nn.functional.cross_entropy(outputs, targets, reduction="none")  # noqa: E731
    TangentFeatures(model, loss).gram(Labelled(x, torch.tensor([0, 1, 2, 0, 1, 2])))
    assert before.differences() == []
    model(x).sum().backward()


def test_rows_made_before_the_weights_changed_refuse_to_answer():
    model, x = net(), samples()
    matrix = TangentFeatures(model).matrix(x)
    with torch.no_grad():
        model[0].weight += 1
    with pytest.raises(RuntimeError, match="changed"):
        matrix.to_dense()
