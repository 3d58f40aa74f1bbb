"""Every analytic and stationary kernel through the conformance suite."""

import torch
from sklearn.gaussian_process.kernels import Matern

from tangrams.kernels import (
    AnalyticNNGP,
    AnalyticNTK,
    FullyConnectedNNGP,
    FullyConnectedNTK,
    GammaExponential,
    LaplaceKernel,
    NormalizedReLUNTK,
    PosteriorKernel,
    ProductKernel,
    ScaledKernel,
    SumKernel,
)
from tangrams.kernels.ntk import CCPNTK, GELU, NCPNTK, AvgPool, Conv, Dense, Flatten, ProductNTK, ReLU, Serial
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.kernel import KernelSuite

CONVOLUTIONAL = Serial(
    Conv(3, 1.4, 0.1), ReLU(), AvgPool(2), Conv(3, 1.4, 0.1, padding="circular"), ReLU(), Flatten(), Dense()
)


def exact(kernel, **hyperparameters):
    """In float64 before the hyper-parameters are set, so that they are not rounded."""
    kernel = kernel.double()
    kernel.initialize(**hyperparameters)
    return kernel


def laplace_by_sklearn(x, y):
    return torch.from_numpy(Matern(1.3, nu=0.5)(x.numpy(), y.numpy()))


def gamma_by_loops(x, y):
    return torch.stack([torch.stack([torch.exp(-(((a - b).norm() / 0.7) ** 1.5)) for b in y]) for a in x])


LABELLED = torch.randn(5, 4, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


def posterior_by_inverse(x, y):
    inverse = torch.linalg.inv(laplace_by_sklearn(LABELLED, LABELLED) + 0.09 * torch.eye(5, dtype=torch.float64))
    return laplace_by_sklearn(x, y) - laplace_by_sklearn(x, LABELLED) @ inverse @ laplace_by_sklearn(LABELLED, y)


def relu_ntk_by_loops(x, y):
    """One hidden layer, from the definition with acos."""

    def entry(a, b):
        cosine = (a @ b / (a.norm() * b.norm())).clamp(-1, 1)
        angle = torch.pi - cosine.acos()
        first = (cosine * angle + (1 - cosine**2).sqrt()) * a.norm() * b.norm() / torch.pi
        kernel = (a @ b + 0.2**2) * angle / torch.pi + first + 0.2**2
        return kernel / (2 * (0.2**2 + 1))

    return torch.stack([torch.stack([entry(a, b) for b in y]) for a in x])


def coupled_by_hand(K):
    """Three linear factors, the second and third with one added, read out by one layer."""
    return K * (K + 1) ** 2 + K * (K + 1) ** 2 + 2 * K * K * (K + 1)


TestKernels = conformance(
    KernelSuite,
    Case(lambda: exact(LaplaceKernel(), lengthscale=1.3), inputs=normal(4), reference=laplace_by_sklearn),
    Case(
        lambda: exact(LaplaceKernel(ard_num_dims=4), lengthscale=1.3),
        inputs=normal(4),
        reference=laplace_by_sklearn,
        name="LaplaceARD",
    ),
    Case(lambda: exact(GammaExponential(1.5), lengthscale=0.7), inputs=normal(4), reference=gamma_by_loops),
    Case(lambda: GammaExponential(0.5), inputs=normal(4), name="GammaExponential-rough"),
    Case(lambda: exact(NormalizedReLUNTK(1), bias=0.2), inputs=normal(4), reference=relu_ntk_by_loops),
    Case(lambda: NormalizedReLUNTK(3, 0.5), inputs=normal(2, 3), name="NormalizedReLUNTK-deep"),
    Case(lambda: FullyConnectedNTK(3, ReLU(), b_std=0.1), inputs=normal(4)),
    Case(lambda: FullyConnectedNTK(2, GELU()), inputs=normal(4), name="FullyConnectedNTK-gelu"),
    Case(lambda: FullyConnectedNNGP(3, ReLU(), b_std=0.1), inputs=normal(4)),
    Case(lambda: ProductNTK(Serial(Dense(2**0.5), ReLU()), Dense()), inputs=normal(4)),
    Case(lambda: CCPNTK(3), inputs=normal(4), reference=lambda x, y: coupled_by_hand(x @ y.mT / 4)),
    Case(lambda: NCPNTK(3, ReLU()), inputs=normal(4)),
    Case(lambda: AnalyticNTK(CONVOLUTIONAL, event_shape=(2, 4, 4)), inputs=normal(2, 4, 4)),
    Case(lambda: AnalyticNNGP(CONVOLUTIONAL, event_shape=(2, 4, 4)), inputs=normal(2, 4, 4)),
    Case(
        lambda: AnalyticNTK(CONVOLUTIONAL, event_shape=(2, 4, 4), block_bytes=8 * 6 * 256 * 9),
        inputs=normal(2, 4, 4),
        reference=lambda x, y: AnalyticNTK(CONVOLUTIONAL).gram(x, y),
        name="AnalyticNTK-blocks",
    ),
    Case(
        lambda: SumKernel(exact(LaplaceKernel(), lengthscale=1.3), FullyConnectedNTK(2)),
        inputs=normal(4),
        reference=lambda x, y: laplace_by_sklearn(x, y) + FullyConnectedNTK(2).gram(x, y),
    ),
    Case(
        lambda: ProductKernel(exact(LaplaceKernel(), lengthscale=1.3), FullyConnectedNTK(2)),
        inputs=normal(4),
        reference=lambda x, y: laplace_by_sklearn(x, y) * FullyConnectedNTK(2).gram(x, y),
    ),
    Case(
        lambda: ScaledKernel(exact(LaplaceKernel(), lengthscale=1.3), 2.5),
        inputs=normal(4),
        reference=lambda x, y: 2.5 * laplace_by_sklearn(x, y),
    ),
    Case(
        lambda: PosteriorKernel(exact(LaplaceKernel(), lengthscale=1.3), LABELLED, noise=0.3),
        inputs=normal(4),
        reference=posterior_by_inverse,
    ),
)
