"""The suites of kernels and layers fail what they are there to fail."""

import pytest
import torch
from torch import nn

from tangrams.kernels import Kernel
from tangrams.testing.conformance import Case, normal
from tangrams.testing.suites.kernel import KernelSuite
from tangrams.testing.suites.module import ModuleSuite


class Linear(Kernel):
    def _gram(self, x, y):
        return x @ y.mT

    def _diag(self, x):
        return x.square().sum(1)


class Asymmetric(Linear):
    def _gram(self, x, y):
        return x @ y.mT + torch.arange(len(x), dtype=x.dtype)[:, None]


class Negative(Linear):
    def _gram(self, x, y):
        return -x @ y.mT


class WrongDiagonal(Linear):
    def _diag(self, x):
        return x.square().sum(1) + 1e-6


class Centred(Linear):
    """Depends on the other samples."""

    def _gram(self, x, y):
        return (x - x.mean(0)) @ (y - y.mean(0)).mT

    def _diag(self, x):
        return (x - x.mean(0)).square().sum(1)


class Widening(Linear):
    def gram(self, x, y=None):
        return super().gram(x, y).double()


class Rough(Linear):
    """Its gradient is infinite where samples coincide."""

    def _gram(self, x, y):
        return torch.exp(-(x[:, None] - y[None]).square().sum(-1).sqrt())

    def _diag(self, x):
        return x.new_ones(len(x))


class Leaking(Linear):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(3, 3)


class Random(Linear):
    def _gram(self, x, y):
        torch.rand(1)
        return x @ y.mT


class Trusting(Linear):
    def _validated(self, x, name):
        return x


class NoEventShape(Linear):
    def _gram(self, x, y):
        return x.flatten(1) @ y.flatten(1).mT * x.ndim

    def _diag(self, x):
        return x.flatten(1).square().sum(1) * x.ndim


@pytest.mark.parametrize(
    ("kernel", "check"),
    [
        (Asymmetric, "is_symmetric"),
        (Negative, "is_positive_semidefinite"),
        (WrongDiagonal, "diag_is_the_diagonal"),
        (Centred, "cross_gram_is_a_block"),
        (Widening, "dtype_and_device_are_kept"),
        (Rough, "gradient_is_finite_with_duplicated_rows"),
        (Leaking, "parameters_are_hyperparameters"),
        (Random, "global_state_is_untouched"),
        (Trusting, "bad_inputs_are_refused"),
    ],
)
def test_a_broken_kernel_fails_its_check(kernel, check):
    case = Case(kernel, inputs=normal(3))
    with pytest.raises((AssertionError, pytest.fail.Exception, RuntimeError)):
        getattr(KernelSuite, f"check_{check}")(case)


@pytest.mark.parametrize("check", ["gpytorch_calls_give_the_gram", "gpytorch_batches_are_stacked"])
def test_an_image_kernel_without_its_event_shape_fails_in_gpytorch(check):
    with pytest.raises(AssertionError):
        getattr(KernelSuite, f"check_{check}")(Case(NoEventShape, inputs=normal(2, 3)))


@pytest.mark.parametrize("check", [name for name in KernelSuite.checks() if name != "check_equals_reference"])
def test_a_linear_kernel_passes_every_check(check):
    getattr(KernelSuite, check)(Case(Linear, inputs=normal(3)))


class Coupled(nn.Linear):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class WrongBackward(nn.Linear):
    class Function(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x**2

        @staticmethod
        def backward(ctx, gradient):
            return gradient

    def forward(self, x):
        return self.Function.apply(super().forward(x))


class Branching(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y if float(y.sum()) > 0 else 2 * y


class Forgetful(nn.Module):
    """Its weight is in no state dict."""

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(3, 2, dtype=torch.float64)
        self.bias = nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return x @ self.weight + self.bias


@pytest.mark.parametrize(
    ("make", "check"),
    [
        (lambda: Coupled(3, 2), "samples_are_independent_in_eval"),
        (lambda: Coupled(3, 2), "tangent_gram_equals_dense_jacobian"),
        (lambda: WrongBackward(3, 2), "gradients_are_right"),
        (lambda: Branching(3, 2), "compiles_as_one_graph"),
        (lambda: Branching(3, 2), "vmap_of_grad_gives_each_samples_gradient"),
        (lambda: WrongBackward(3, 2), "jvp_is_the_directional_derivative"),
        (Forgetful, "state_dict_and_deepcopy_round_trip"),
    ],
)
def test_a_broken_layer_fails_its_check(make, check):
    with pytest.raises(Exception, match=r"\w"):
        getattr(ModuleSuite, f"check_{check}")(Case(make, inputs=normal(3)))


@pytest.mark.parametrize("check", [name for name in ModuleSuite.checks() if name != "check_equals_reference"])
def test_a_linear_layer_passes_every_check(check):
    getattr(ModuleSuite, check)(Case(lambda: nn.Linear(3, 2), inputs=normal(3)))
