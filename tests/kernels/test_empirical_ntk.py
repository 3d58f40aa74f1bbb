"""Facts of sheet 033 about the empirical kernels of a network."""

import copy

import gpytorch
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tangrams.data import Labelled
from tangrams.features import TangentFeatures
from tangrams.kernels import CosineKernel, EmpiricalNTK, FeatureKernel
from tangrams.kernels.memo import GramMemo
from tangrams.lens import ntk_relative_error


def network(C=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, C)
    ).double()


def images(n, seed=0):
    return torch.randn(n, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobian_by_torch_func(net, x):
    """The tutorial's way: jacrev of the functional network, one sample at a time."""
    net = copy.deepcopy(net).eval()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    buffers = dict(net.named_buffers())

    def forward(parameters, sample):
        return torch.func.functional_call(net, (parameters, buffers), (sample[None],))[0]

    rows = torch.func.vmap(torch.func.jacrev(forward), (None, 0))(parameters, x)
    return torch.cat([block.flatten(2) for block in rows.values()], dim=2)  # (n, C, p)


@pytest.fixture(scope="module")
def setting():
    net = network()
    x, y = images(5), images(4, seed=1)
    return net, x, y, jacobian_by_torch_func(net, x), jacobian_by_torch_func(net, y)


def test_the_full_kernel_is_sample_major_and_equals_jacrev(setting):
    net, x, y, J, Q = setting
    expected = torch.einsum("icp,jdp->icjd", J, Q).reshape(15, 12)
    torch.testing.assert_close(EmpiricalNTK(net).gram(x, y), expected, rtol=1e-10, atol=1e-10)


def test_the_scalar_kernels_are_contractions_of_the_full_one(setting):
    net, x, y, J, Q = setting
    blocks = torch.einsum("icp,jdp->ijcd", J, Q)
    torch.testing.assert_close(EmpiricalNTK(net).blocks(x, y), blocks, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(EmpiricalNTK(net, "sum").gram(x, y), blocks.sum((2, 3)) / 3, rtol=1e-10, atol=1e-10)
    trace = blocks.diagonal(dim1=2, dim2=3)
    torch.testing.assert_close(EmpiricalNTK(net, "trace").gram(x, y), trace.mean(2), rtol=1e-10, atol=1e-10)
    single = EmpiricalNTK(net, lambda f: f[:, 1]).gram(x, y)
    torch.testing.assert_close(single, trace[:, :, 1], rtol=1e-10, atol=1e-10)


def test_a_single_output_makes_all_variants_coincide():
    net, x = network(C=1), images(4)
    full = EmpiricalNTK(net).gram(x)
    for output in ("sum", "trace", lambda f: f[:, 0]):
        torch.testing.assert_close(EmpiricalNTK(net, output).gram(x), full, rtol=1e-12, atol=1e-12)


def test_a_network_that_returns_vectors_has_one_output():
    net = nn.Sequential(network(C=1), nn.Flatten(0))
    assert EmpiricalNTK(net).gram(images(4)).shape == (4, 4)


def test_training_the_readout_alone_makes_the_pseudo_kernel_exact():
    net, x = network(), images(5)
    h = net[:-1].eval()(x)
    kappa = h @ h.mT + 1
    net.train()
    full = EmpiricalNTK(net, params=[net[-1]]).gram(x)
    torch.testing.assert_close(full, torch.kron(kappa, torch.eye(3, dtype=torch.float64)), rtol=1e-10, atol=1e-10)
    pseudo = EmpiricalNTK(net, "sum", params=[net[-1]]).gram(x)
    torch.testing.assert_close(pseudo, kappa, rtol=1e-10, atol=1e-10)
    assert ntk_relative_error(full, pseudo) < 1e-12


def test_groups_of_parameters_add_up():
    net, x = network(), images(4)
    whole = EmpiricalNTK(net).gram(x)
    parts = EmpiricalNTK(net, params=[net[0], net[1]]).gram(x) + EmpiricalNTK(net, params=[net[5]]).gram(x)
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-10)


def test_scaling_outputs_scales_the_kernel_by_its_square_and_leaves_the_cosine():
    class Times(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return 3 * self.inner(x)

    net, x = network(), images(4)
    plain, scaled = EmpiricalNTK(net, "trace"), EmpiricalNTK(Times(net), "trace")
    torch.testing.assert_close(scaled.gram(x), 9 * plain.gram(x), rtol=1e-10, atol=1e-10)
    cosines = CosineKernel(scaled).gram(x), CosineKernel(plain).gram(x)
    torch.testing.assert_close(*cosines, rtol=1e-12, atol=1e-12)


def test_relative_error_falls_with_the_square_root_of_width():
    """NTK parametrisation: slope −1/2 in log width (band of the sheet, mean over 6 seeds)."""
    from tangrams.claims._networks import ntk_mlp

    widths, errors = (64, 256, 1024), []
    x = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    for width in widths:
        per_seed = []
        for seed in range(6):
            net = ntk_mlp([8, width, 5], torch.Generator().manual_seed(seed))
            per_seed.append(ntk_relative_error(EmpiricalNTK(net).gram(x), EmpiricalNTK(net, "sum").gram(x)))
        errors.append(sum(per_seed) / 6)
    log = torch.tensor(errors).log()
    slope = float((log[-1] - log[0]) / torch.log(torch.tensor(widths[-1] / widths[0])))
    assert -0.65 < slope < -0.35


def test_the_network_is_left_as_it_was():
    net, x = network().train(), images(4)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    kernel = CosineKernel(EmpiricalNTK(net, "trace"))
    kernel.gram(x)
    kernel.train()
    kernel.float()
    assert all(module.training for module in net.modules())
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert torch.equal(torch.get_rng_state(), random)
    assert not list(kernel.parameters())
    assert copy.deepcopy(kernel).base_kernel.model is net


def test_a_loader_gives_the_gram_of_its_samples_and_a_shuffling_one_is_refused():
    net, x = network(), images(5)
    data = TensorDataset(x, torch.zeros(5))
    kernel = EmpiricalNTK(net, "sum")
    loader = DataLoader(list(x), batch_size=2)
    torch.testing.assert_close(kernel.gram(loader), kernel.gram(x), rtol=1e-10, atol=1e-10)
    with pytest.raises(ValueError, match="shuffle"):
        kernel.gram(DataLoader(data, batch_size=2, shuffle=True))


def test_targets_reach_a_callable_of_outputs_and_targets():
    net, x = network(), images(5)
    y = torch.tensor([0, 1, 2, 0, 1])

    def loss(outputs, targets):
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    kernel = EmpiricalNTK(net, loss)
    J = jacobian_by_torch_func(net, x)
    error = net.eval()(x).softmax(1) - nn.functional.one_hot(y, 3)
    rows = torch.einsum("ic,icp->ip", error, J)
    torch.testing.assert_close(kernel.gram(Labelled(x, y)), rows @ rows.mT, rtol=1e-9, atol=1e-9)


def test_a_multitask_posterior_equals_dense_algebra():
    net = network(C=2)
    x, y = images(6), images(3, seed=1)
    kernel = EmpiricalNTK(net, event_shape=(1, 6, 6)).double()
    targets = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    class Model(gpytorch.models.ExactGP):
        def __init__(self, likelihood):
            super().__init__(x.flatten(1), targets, likelihood)
            self.covar_module = kernel

        def forward(self, z):
            K = self.covar_module(z)
            return gpytorch.distributions.MultivariateNormal(z.new_zeros(K.shape[-1]), K)

    likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
    likelihood.noise = 0.3
    model = Model(likelihood).double().eval()
    with torch.no_grad():
        mean = model(y.flatten(1)).mean
    K = kernel.gram(x) + 0.3 * torch.eye(12, dtype=torch.float64)
    expected = kernel.gram(y, x) @ torch.cholesky_solve(targets[:, None], torch.linalg.cholesky(K))
    torch.testing.assert_close(mean, expected[:, 0], rtol=1e-6, atol=1e-6)
    assert net.training  # as it came, though the model was put in eval mode


def counted(kernel):
    calls = []
    original = kernel.phi.rows

    def rows(x):
        calls.append(1)
        return original(x)

    object.__setattr__(kernel.phi, "rows", rows)
    return calls


def test_the_same_gram_is_not_computed_twice():
    net, x = network(), images(4)
    kernel = EmpiricalNTK(net, "sum")
    calls = counted(kernel)
    first = kernel.gram(x)
    first.zero_()  # what is handed out is a copy
    assert float(kernel.gram(x.clone()).abs().sum()) > 0
    assert len(calls) == 1


def test_a_write_through_data_is_seen_by_the_memo():
    net, x = network(), images(4)
    kernel = EmpiricalNTK(net, "sum")
    before = kernel.gram(x)
    net[5].weight.data.mul_(2)  # bumps no version counter
    assert not torch.allclose(kernel.gram(x), before)
    expected = EmpiricalNTK(net, "sum").gram(x)
    torch.testing.assert_close(kernel.gram(x), expected, rtol=0, atol=0)
    net[1].running_mean.add_(1)
    torch.testing.assert_close(kernel.gram(x), EmpiricalNTK(net, "sum").gram(x), rtol=0, atol=0)
    x.data[0] += 1
    torch.testing.assert_close(kernel.gram(x), EmpiricalNTK(net, "sum").gram(x), rtol=0, atol=0)


def test_the_memo_forgets_the_oldest_and_is_not_copied():
    memo, computed = GramMemo(size=2), []

    def ask(key):
        return memo(key, lambda: computed.append(key) or torch.tensor([float(ord(key))]))

    for key in "abab":
        ask(key)
    assert computed == ["a", "b"]
    ask("c")
    ask("a")
    assert computed == ["a", "b", "c", "a"]
    assert not copy.deepcopy(memo)._kept


def test_any_feature_map_is_a_kernel():
    net, x = network(), images(4)
    kernel = FeatureKernel(TangentFeatures(net, "sum") | TangentFeatures(net, lambda f: f[:, 0]))
    expected = EmpiricalNTK(net, "sum").gram(x) + EmpiricalNTK(net, lambda f: f[:, 0]).gram(x)
    torch.testing.assert_close(kernel.gram(x), expected, rtol=1e-10, atol=1e-10)
