"""Every kernel of a network through the conformance suite."""

import torch
from torch import nn

from tangrams.data import Labelled
from tangrams.features import TangentFeatures
from tangrams.kernels import (
    ConjugateKernel,
    CosineKernel,
    EmbeddingKernel,
    EmpiricalNTK,
    FeatureKernel,
    LabelledPseudoNTK,
    LaplaceKernel,
    ProjectedNTK,
)
from tangrams.operators import GaussianSketch
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.kernel import KernelSuite


def network():
    """Positive at two places, so that no sample is dead, and in train mode, as it comes from a user."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(48, 8),
        nn.GELU(),
        nn.Linear(8, 3),
    ).double()


NETWORK = network()


def tokens():
    torch.manual_seed(0)
    return nn.Sequential(nn.Embedding(11, 4), nn.Flatten(), nn.Tanh(), nn.Linear(20, 2)).double()


TOKENS = tokens()


def third_logit(outputs):
    return outputs[:, 2]


def rows(x, output="all"):
    """(n, C, p) by one backward pass per sample and output."""
    network = NETWORK.eval() if isinstance(x, torch.Tensor) else None
    found = []
    for sample in x:
        per_output = []
        for value in network(sample[None])[0]:
            gradients = torch.autograd.grad(value, list(network.parameters()), retain_graph=True)
            per_output.append(torch.cat([g.flatten() for g in gradients]))
        found.append(torch.stack(per_output))
    NETWORK.train()
    return torch.stack(found)


def full(x, y):
    return rows(x).flatten(0, 1) @ rows(y).flatten(0, 1).mT


def pseudo(x, y):
    return rows(x).sum(1) @ rows(y).sum(1).mT / 3


def trace(x, y):
    return torch.einsum("icp,jcp->ij", rows(x), rows(y)) / 3


def cosine_of_trace(x, y):
    left, right = (trace(z, z).diagonal().sqrt() for z in (x, y))
    return trace(x, y) / left[:, None] / right


def labelled(n, generator):
    return Labelled(normal(1, 4, 4)(n, generator), torch.randint(3, (n,), generator=generator))


def signed(x, y):
    def features(z):
        signs = 2 * nn.functional.one_hot(z.targets, 3).double() - 1
        return torch.einsum("ic,icp->ip", signs, rows(z.inputs)) / 3**0.5

    return features(x) @ features(y).mT


def hidden(x, y):
    below = NETWORK.eval()[:-1]
    value = below(x) @ below(y).mT
    NETWORK.train()
    return value


def all_layers(x, y):
    total = 0
    NETWORK.eval()
    for layer in NETWORK:
        x, y = layer(x), layer(y)
        total = total + x.flatten(1) @ y.flatten(1).mT
    NETWORK.train()
    return total


def integers(n, generator):
    return torch.randint(11, (n, 5), generator=generator)


def met(kernel, sample=None):
    """A kernel that has seen a sample, and so knows how many rows each has."""
    kernel.diag(torch.zeros(1, 1, 4, 4, dtype=torch.float64) if sample is None else sample)
    return kernel


NOT_DIFFERENTIABLE = {
    "check_gradient_is_finite_with_duplicated_rows": "the Gram of a network's features is not differentiable: phi(x) is"
}
PAIRS = NOT_DIFFERENTIABLE | {
    "check_trains_one_step_in_gpytorch": "samples are labelled pairs, which a GPyTorch model cannot pass",
    "check_gpytorch_calls_give_the_gram": "samples are labelled pairs",
    "check_gpytorch_batches_are_stacked": "samples are labelled pairs",
}
IMAGE = {"event_shape": (1, 4, 4)}

TestKernels = conformance(
    KernelSuite,
    Case(lambda: met(EmpiricalNTK(NETWORK, **IMAGE)), normal(1, 4, 4), full, NOT_DIFFERENTIABLE),
    Case(
        lambda: EmpiricalNTK(NETWORK, "sum", **IMAGE), normal(1, 4, 4), pseudo, NOT_DIFFERENTIABLE, "EmpiricalNTK-sum"
    ),
    Case(
        lambda: EmpiricalNTK(NETWORK, "trace", **IMAGE),
        normal(1, 4, 4),
        trace,
        NOT_DIFFERENTIABLE,
        "EmpiricalNTK-trace",
    ),
    Case(
        lambda: met(EmpiricalNTK(NETWORK, third_logit, **IMAGE)),
        normal(1, 4, 4),
        lambda x, y: rows(x)[:, 2] @ rows(y)[:, 2].mT,
        NOT_DIFFERENTIABLE,
        "EmpiricalNTK-single",
    ),
    Case(lambda: EmpiricalNTK(TOKENS, "trace").double(), integers, None, NOT_DIFFERENTIABLE, "EmpiricalNTK-tokens"),
    Case(lambda: FeatureKernel(TangentFeatures(NETWORK, "sum"), **IMAGE), normal(1, 4, 4), pseudo, NOT_DIFFERENTIABLE),
    Case(lambda: met(LabelledPseudoNTK(NETWORK), labelled(1, torch.Generator())), labelled, signed, PAIRS),
    Case(lambda: ProjectedNTK(NETWORK, GaussianSketch(64, seed=0), **IMAGE), normal(1, 4, 4), None, NOT_DIFFERENTIABLE),
    Case(lambda: ConjugateKernel(NETWORK, **IMAGE), normal(1, 4, 4), hidden, NOT_DIFFERENTIABLE),
    Case(lambda: EmbeddingKernel(NETWORK, **IMAGE), normal(1, 4, 4), all_layers, NOT_DIFFERENTIABLE),
    Case(
        lambda: CosineKernel(EmpiricalNTK(NETWORK, "trace", **IMAGE)),
        normal(1, 4, 4),
        cosine_of_trace,
        NOT_DIFFERENTIABLE,
    ),
    Case(lambda: CosineKernel(LaplaceKernel()), normal(4), name="CosineKernel-analytic"),
)
