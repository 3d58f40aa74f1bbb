"""Gradient descent on a function against wide networks, and meta-learning against loops."""

import copy
import math

import pytest
import torch
from torch import nn

from tangrams.kernels import FullyConnectedNNGP, FullyConnectedNTK
from tangrams.learners import MAML, FirstOrderMAML, FunctionalSGD, KernelMAML

D, C = 4, 2


def batches(steps=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(steps, 5, D, generator=generator, dtype=torch.float64)
    y = torch.randn(steps, 5, C, generator=generator, dtype=torch.float64)
    return x, y, torch.randn(6, D, generator=generator, dtype=torch.float64)


def functional(kernel, lr=0.2):
    x, y, x_test = batches()
    f = FunctionalSGD(kernel.double(), C, dtype=torch.float64)
    for xs, ys in zip(x, y, strict=True):
        f.step(xs, (f(xs) - ys) / len(xs), lr, weight_decay=0.1)
    return f(x_test)


class Wide(nn.Module):
    """One hidden layer of ReLUs in NTK parametrisation, minus its start: zero at first, as the kernel's function."""

    def __init__(self, width, seed, readout_only):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        u = torch.randn(width, D, generator=generator, dtype=torch.float64)
        v = torch.randn(C, width, generator=generator, dtype=torch.float64)
        self.u = nn.Parameter(u, requires_grad=not readout_only)
        self.v = nn.Parameter(v)
        self.start = u.clone(), v.clone()

    def features(self, u, x):
        return (x @ u.mT * math.sqrt(2 / D)).relu() / math.sqrt(len(u)) * math.sqrt(2)

    def forward(self, x):
        u, v = self.start
        return self.features(self.u, x) @ self.v.mT - self.features(u, x) @ v.mT


@pytest.mark.parametrize("readout_only", [True, False])
def test_it_is_the_limit_of_wide_networks_step_by_step(readout_only):
    """The NNGP: the readout is trained alone; the NTK: all weights are. Decay pulls to the start."""
    kernel = FullyConnectedNNGP(2) if readout_only else FullyConnectedNTK(2)
    expected = functional(kernel)
    x, y, x_test = batches()
    errors = []
    for width in (100, 10_000):
        runs = []
        for seed in range(4):
            model = Wide(width, seed, readout_only)
            for xs, ys in zip(x, y, strict=True):
                loss = ((model(xs) - ys) ** 2).sum(1).mean() / 2
                moving = [p for p in model.parameters() if p.requires_grad]
                gradients = torch.autograd.grad(loss, moving)
                starts = [s for s, p in zip(model.start, (model.u, model.v), strict=True) if p.requires_grad]
                with torch.no_grad():
                    for p, g, start in zip(moving, gradients, starts, strict=True):
                        p.sub_(0.2 * (g + 0.1 * (p - start)))
            runs.append(model(x_test).detach())
        errors.append(float(torch.stack([(run - expected).norm() for run in runs]).mean() / expected.norm()))
    assert errors[1] < 0.3 * errors[0], errors
    assert errors[1] < 0.05, errors


def test_a_long_gradient_is_shortened_in_the_kernels_norm():
    x, y, _ = batches()
    kernel = FullyConnectedNTK(2).double()
    f, g = (FunctionalSGD(kernel, C, dtype=torch.float64) for _ in range(2))
    norm = float((y[0] * (kernel.gram(x[0]) @ y[0])).sum().sqrt())
    f.step(x[0], y[0], 1.0, max_norm=norm / 4)
    g.step(x[0], y[0] / 4, 1.0)
    torch.testing.assert_close(f.coefficients, g.coefficients)
    g.step(x[0], y[0], 1.0, max_norm=2 * norm)
    torch.testing.assert_close(g.coefficients[5:], -y[0])


def test_copies_go_on_alone_and_states_restore():
    x, y, x_test = batches()
    f = FunctionalSGD(FullyConnectedNTK(2).double(), C, dtype=torch.float64)
    assert not f(x_test).any()
    f.step(x[0], y[0], 0.1)
    twin = copy.deepcopy(f)
    before = f(x_test)
    twin.step(x[1], y[1], 0.1)
    assert torch.equal(f(x_test), before)
    assert (len(f), len(twin)) == (5, 10)
    other = FunctionalSGD(f.kernel, C, dtype=torch.float64)
    other.load_state_dict(twin.state_dict())
    assert torch.equal(other(x_test), twin(x_test))
    assert torch.equal(other.samples, torch.cat([x[0], x[1]]))


def test_functional_sgd_refuses_by_name():
    f = FunctionalSGD(FullyConnectedNTK(2), C)
    with pytest.raises(ValueError, match="has not taken a step"):
        _ = f.samples
    with pytest.raises(ValueError, match="shape"):
        f.step(torch.zeros(3, D), torch.zeros(3, C + 1), 0.1)
    with pytest.raises(ValueError, match="not finite"):
        f.step(torch.zeros(3, D), torch.full((3, C), math.nan), 0.1)
    assert len(f) == 0
    f.step(torch.ones(3, D), torch.ones(3, C), 0.1)
    with pytest.raises(ValueError, match="holds samples"):
        f.step(torch.zeros(3, D + 1), torch.zeros(3, C), 0.1)
    with pytest.raises(ValueError, match="out_features"):
        FunctionalSGD(FullyConnectedNTK(2), 0)
    with pytest.raises(ValueError, match="coefficients"):
        f.load_state_dict({"samples": torch.zeros(2, D), "coefficients": torch.zeros(2, 5)})


# -- meta-learning -----------------------------------------------------------------------------------------------


def tasks(count=3):
    generator = torch.Generator().manual_seed(1)
    support = (
        torch.randn(count, 4, D, generator=generator, dtype=torch.float64),
        torch.randint(C, (count, 4), generator=generator),
    )
    query = (
        torch.randn(count, 6, D, generator=generator, dtype=torch.float64),
        torch.randint(C, (count, 6), generator=generator),
    )
    return support, query


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(D, 8), nn.Tanh(), nn.Linear(8, C)).double()


@pytest.mark.parametrize("method", [MAML, FirstOrderMAML])
def test_meta_gradients_are_those_of_a_loop_over_tasks(method):
    model = network()
    meta = method(model, inner_lr=0.3, inner_steps=2)
    (xs, ys), (xq, yq) = tasks()
    loss = meta.backward((xs, ys), (xq, yq))
    expected, losses, outputs = [], [], []
    for t in range(len(xs)):
        parameters = [p.detach().clone().requires_grad_() for p in model.parameters()]
        adapted = parameters
        for _ in range(2):
            inner = nn.functional.cross_entropy(run(adapted, xs[t]), ys[t])
            gradients = torch.autograd.grad(inner, adapted, create_graph=method is MAML)
            adapted = [p - 0.3 * g for p, g in zip(adapted, gradients, strict=True)]
        if method is FirstOrderMAML:
            parameters = adapted = [p.detach().requires_grad_() for p in adapted]
        outer = nn.functional.cross_entropy(run(adapted, xq[t]), yq[t])
        expected.append(torch.autograd.grad(outer, parameters))
        losses.append(float(outer))
        outputs.append(run(adapted, xq[t]).detach())
    assert loss == pytest.approx(sum(losses) / len(losses))
    for p, *gradients in zip(model.parameters(), *expected, strict=True):
        torch.testing.assert_close(p.grad, torch.stack(gradients).mean(0), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(meta.predict((xs, ys), xq), torch.stack(outputs), rtol=1e-9, atol=1e-12)


def run(parameters, x):
    W1, b1, W2, b2 = parameters
    return torch.tanh(x @ W1.mT + b1) @ W2.mT + b2


def test_kernels_meta_learn_as_copies_of_their_function_would():
    kernel = FullyConnectedNTK(2).double()
    function = FunctionalSGD(kernel, C, dtype=torch.float64)
    x, y, _ = batches()
    function.step(x[0], y[0], 0.1)
    meta = KernelMAML(function, inner_lr=0.3, inner_steps=2)
    (xs, ys), (xq, yq) = tasks()
    predicted = meta.predict((xs, ys), xq)
    coefficients = []
    for t in range(len(xs)):
        own = copy.deepcopy(function)
        for _ in range(2):
            own.step(xs[t], gradient(own(xs[t]), ys[t]), 0.3)
        torch.testing.assert_close(predicted[t], own(xq[t]), rtol=1e-9, atol=1e-12)
        coefficients.append(-0.7 * gradient(own(xq[t]), yq[t]) / len(xs))
    meta.step((xs, ys), (xq, yq), 0.7)
    torch.testing.assert_close(function.coefficients[5:], torch.cat(coefficients), rtol=1e-9, atol=1e-12)


def gradient(f, y):
    f = f.detach().requires_grad_()
    return torch.autograd.grad(nn.functional.cross_entropy(f, y), f)[0]


def test_meta_learning_refuses_steps_that_go_nowhere():
    for make in (lambda **o: MAML(network(), **o), lambda **o: KernelMAML(FunctionalSGD(FullyConnectedNTK(2), C), **o)):
        with pytest.raises(ValueError, match="inner_lr > 0"):
            make(inner_lr=0.0)
        with pytest.raises(ValueError, match="inner_steps ≥ 1"):
            make(inner_steps=0)
