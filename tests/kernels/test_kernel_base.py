"""The base of kernels: what reaches the hooks, and what GPyTorch gets."""

import gpytorch
import pytest
import torch

from tangrams.data import Labelled
from tangrams.kernels import FullyConnectedNTK, Kernel, LaplaceKernel, NormalizedReLUNTK


class PairKernel(Kernel):
    """Of tuples (a, b): ⟨a, a′⟩ times whether the ids b are equal; two rows per sample."""

    outputs_per_input = 2

    def _gram(self, x, y):
        (a, i), (b, j) = x, y
        one = a.flatten(1) @ b.flatten(1).T * (i[:, None] == j[None])
        return torch.kron(one, torch.eye(2, dtype=one.dtype))

    def _diag(self, x):
        return x[0].flatten(1).square().sum(1).repeat_interleave(2)


class ImageKernel(Kernel):
    """Inner products of images, weighted by position so that the shape matters."""

    outputs_per_input = 2

    def _gram(self, x, y):
        weights = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype)
        one = (x * weights).flatten(1) @ (y * weights).flatten(1).T
        return torch.kron(one, torch.tensor([[1.0, 0.5], [0.5, 2.0]], dtype=x.dtype))

    def _diag(self, x):
        return self._gram(x, x).diagonal()


class TargetKernel(Kernel):
    takes_targets = True

    def _gram(self, x, y):
        return x.targets[:, None] * y.targets[None]

    def _diag(self, x):
        return x.targets.square()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_tuples_and_integers_reach_the_hooks():
    x = draw(4, 3), torch.tensor([0, 1, 0, 2])
    gram = PairKernel().gram(x)
    assert gram.shape == (8, 8)
    assert gram.dtype == torch.float64
    torch.testing.assert_close(gram.diagonal(), PairKernel().diag(x))
    assert gram[0, 2] == 0
    assert float(gram[0, 4]) == pytest.approx(float(x[0][0] @ x[0][2]))


def test_targets_reach_only_the_kernels_that_take_them():
    x, targets = draw(5, 3), draw(5, seed=1)
    labelled = Labelled(x, targets)
    torch.testing.assert_close(TargetKernel().gram(labelled), targets[:, None] * targets)
    torch.testing.assert_close(FullyConnectedNTK(2).gram(labelled), FullyConnectedNTK(2).gram(x))
    torch.testing.assert_close(FullyConnectedNTK(2).gram(labelled, x[:2]), FullyConnectedNTK(2).gram(x, x[:2]))


def test_active_dimensions_count_in_gram_as_in_gpytorch():
    kernel = LaplaceKernel(active_dims=(0, 2)).double()
    x = draw(5, 3)
    torch.testing.assert_close(kernel.gram(x), kernel(x).to_dense())
    torch.testing.assert_close(kernel.gram(x), LaplaceKernel().double().gram(x[:, [0, 2]]))


def test_vector_kernels_flatten_images():
    images = draw(4, 2, 3, 3)
    for kernel in (LaplaceKernel().double(), FullyConnectedNTK(3), NormalizedReLUNTK().double()):
        torch.testing.assert_close(kernel.gram(images), kernel.gram(images.flatten(1)))


def test_integers_are_read_in_the_kernels_dtype():
    ids = torch.tensor([[0, 1], [2, 3]])
    assert LaplaceKernel().double().gram(ids).dtype == torch.float64
    torch.testing.assert_close(LaplaceKernel().double().gram(ids), LaplaceKernel().double().gram(ids.double()))
    assert LaplaceKernel()(ids).to_dense().dtype == torch.float32


def test_laplace_is_gpytorchs_matern_one_half():
    x, y = draw(6, 3), draw(4, 3, seed=1)
    matern = gpytorch.kernels.MaternKernel(nu=0.5).double()
    laplace = LaplaceKernel().double()
    for kernel in (matern, laplace):
        kernel.lengthscale = torch.tensor(0.8, dtype=torch.float64)
    torch.testing.assert_close(laplace.gram(x, y), matern(x, y).to_dense(), rtol=1e-10, atol=1e-12)


def test_event_shapes_are_restored_for_gpytorch_and_rows_are_sample_major():
    kernel = ImageKernel(event_shape=(2, 3)).double()
    x, y = draw(4, 2, 3), draw(3, 2, 3, seed=1)
    lazy = kernel(x.flatten(1), y.flatten(1))
    assert lazy.shape == (8, 6)
    torch.testing.assert_close(lazy.to_dense(), kernel.gram(x, y))
    torch.testing.assert_close(
        kernel(x.flatten(1), y.flatten(1), diag=False)[2:4, :2].to_dense(), kernel.gram(x, y)[2:4, :2]
    )
    torch.testing.assert_close(kernel(x.flatten(1), diag=True), kernel.diag(x))
    torch.testing.assert_close(kernel(x[:3].flatten(1), y.flatten(1), diag=True), kernel.gram(x[:3], y).diagonal())
    with pytest.raises(ValueError, match="event_shape"):
        kernel(draw(4, 5)).to_dense()


def test_each_dimension_may_be_a_batch_of_its_own():
    x = draw(5, 3)
    for kernel in (LaplaceKernel().double(), FullyConnectedNTK(2)):
        with pytest.warns(DeprecationWarning, match="last_dim_is_batch"):
            dense = kernel(x, last_dim_is_batch=True).to_dense()
        torch.testing.assert_close(dense, torch.stack([kernel.gram(x[:, d : d + 1]) for d in range(3)]))


def test_batched_hyperparameters_give_a_batch_of_grams():
    kernel = LaplaceKernel(batch_shape=torch.Size([2])).double()
    kernel.lengthscale = torch.tensor([0.5, 2.0], dtype=torch.float64).view(2, 1, 1)
    x, y = draw(40, 3), draw(40, 3, seed=1)
    for index, lengthscale in enumerate((0.5, 2.0)):
        alone = LaplaceKernel().double()
        alone.initialize(lengthscale=lengthscale)
        torch.testing.assert_close(kernel.gram(x, y)[index], alone.gram(x, y))
        torch.testing.assert_close(kernel(x, y, diag=True)[index], alone.gram(x, y).diagonal())
        torch.testing.assert_close(kernel[index].gram(x, y), alone.gram(x, y))


def test_equal_inputs_that_both_want_gradients_each_get_their_own():
    x = draw(4, 3)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    FullyConnectedNTK(2)(one, two).to_dense().sum().backward()
    torch.testing.assert_close(one.grad, two.grad)
    assert float(one.grad.norm()) > 0


def test_a_kernel_without_parameters_follows_casts_and_works_in_a_double_model():
    kernel = FullyConnectedNTK(2)
    assert kernel.dtype == torch.float32
    assert kernel.double().dtype == torch.float64
    x = draw(4, 3)
    rows, columns = [0, 1], [2, 3]
    torch.testing.assert_close(kernel(x)[rows, columns], kernel.gram(x)[rows, columns])


def test_posteriors_of_gpytorch_equal_dense_algebra():
    x, y, new = draw(8, 3), draw(8, seed=1), draw(3, 3, seed=2)
    kernel = FullyConnectedNTK(3, b_std=0.1).double()

    class Model(gpytorch.models.ExactGP):
        def __init__(self):
            likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
            likelihood.noise = 0.1
            super().__init__(x, y, likelihood)
            self.mean_module, self.covar_module = gpytorch.means.ZeroMean(), kernel

        def forward(self, inputs):
            return gpytorch.distributions.MultivariateNormal(self.mean_module(inputs), self.covar_module(inputs))

    model = Model().eval()
    with torch.no_grad():
        posterior = model(new)
    noisy = kernel.gram(x) + model.likelihood.noise.detach() * torch.eye(8, dtype=torch.float64)
    weights = torch.linalg.lstsq(noisy, kernel.gram(x, new)).solution
    torch.testing.assert_close(posterior.mean, weights.T @ y, rtol=1e-6, atol=1e-8)
    expected = kernel.gram(new) - weights.T @ kernel.gram(x, new)
    torch.testing.assert_close(posterior.covariance_matrix, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((draw(3, 2), draw(3, 2).float()), TypeError, "differ in kind or dtype"),
        ((draw(3, 2), draw(3, 4)), ValueError, "samples of x have shape"),
        ((draw(3, 2).to(torch.complex64),), TypeError, "complex"),
        ((draw(()),), ValueError, "sample axis"),
        (((draw(3, 2), draw(3, 2)),), TypeError, "one tensor"),
        ((draw(3, 2).numpy(),), TypeError, "ndarray"),
        (([],), TypeError, "no tensor"),
        ((torch.tensor([[1.0], [float("nan")], [2.0]]),), ValueError, "sample 1"),
    ],
    ids=range(8),
)
def test_bad_inputs_are_named(arguments, error, message):
    with pytest.raises(error, match=f"LaplaceKernel.*{message}"):
        LaplaceKernel().gram(*arguments)


def test_tuples_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match="4 and 3 samples"):
        PairKernel().gram((draw(4, 2), torch.tensor([0, 1, 2])))
