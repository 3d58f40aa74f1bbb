"""Facts of sheet 072 about the kernels of surrogates: cosine, projected, conjugate, embedding."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tangrams.features import TangentFeatures
from tangrams.kernels import (
    ConjugateKernel,
    CosineKernel,
    EmbeddingKernel,
    EmpiricalNTK,
    FeatureKernel,
    ProjectedNTK,
    ZeroGradientError,
)
from tangrams.operators import GaussianSketch, RademacherSketch


def network(C=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 6), nn.Tanh(), nn.Linear(6, C)).double()


def vectors(n, seed=0):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_cosines_are_one_on_the_diagonal_at_most_one_and_positive_semidefinite():
    K = CosineKernel(EmpiricalNTK(network(), "trace")).gram(vectors(12))
    torch.testing.assert_close(K.diagonal(), torch.ones(12, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(K.abs().max()) <= 1 + 1e-12
    assert float(torch.linalg.eigvalsh(K)[0]) > -1e-12


def test_cross_cosines_use_both_diagonals():
    kernel, x, y = EmpiricalNTK(network(), "trace"), vectors(4), vectors(3, seed=1)
    expected = kernel.gram(x, y) / kernel.diag(x).sqrt()[:, None] / kernel.diag(y).sqrt()
    torch.testing.assert_close(CosineKernel(kernel).gram(x, y), expected, rtol=1e-12, atol=1e-12)


def test_samples_without_a_gradient_are_named():
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.Tanh(), nn.Linear(3, 1, bias=False))
    x = torch.tensor([[1.0, 2.0], [0.0, 0.0], [2.0, -1.0], [0.0, 0.0]])
    kernel = CosineKernel(EmpiricalNTK(net))
    with pytest.raises(ZeroGradientError, match="2 zero feature rows in x, at 1, 3") as caught:
        kernel.gram(x)
    assert caught.value.indices == [1, 3]
    with pytest.raises(ZeroGradientError, match="in y, at 0"):
        kernel.gram(x[:1], x[1:2])
    with pytest.raises(ZeroGradientError):
        kernel.diag(x)


def test_one_output_makes_trace_and_pseudo_coincide():
    net, x = network(C=1), vectors(5)
    grams = [CosineKernel(EmpiricalNTK(net, output)).gram(x) for output in ("trace", "sum")]
    torch.testing.assert_close(*grams, rtol=1e-12, atol=1e-12)


def test_order_of_samples_only_permutes():
    kernel, x = CosineKernel(EmpiricalNTK(network(), "trace")), vectors(6)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(kernel.gram(x[order]), kernel.gram(x)[order][:, order], rtol=1e-12, atol=1e-12)


def test_projected_features_give_the_sum_over_classes():
    net, x = network(), vectors(5)
    sketch = RademacherSketch(16, seed=3)
    kernel = ProjectedNTK(net, sketch)
    projected = (TangentFeatures(net, "all") >> sketch)(x).reshape(5, 3, 16)
    expected = sum(projected[:, c] @ projected[:, c].mT for c in range(3)) / 3
    torch.testing.assert_close(kernel.gram(x), expected, rtol=1e-12, atol=1e-12)
    F_ = kernel.features(x)
    assert F_.shape == (5, 48)
    torch.testing.assert_close(F_ @ F_.mT, expected, rtol=1e-12, atol=1e-12)


def test_train_and_test_are_projected_alike():
    kernel, x = ProjectedNTK(network(), RademacherSketch(16, seed=3)), vectors(6)
    torch.testing.assert_close(kernel.gram(x[:4], x[3:]), kernel.gram(x)[:4, 3:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sketch", [RademacherSketch, GaussianSketch])
def test_projection_is_unbiased_with_a_variance_of_one_over_k(sketch):
    """z-scores of every entry over seeds; the variance falls by 4 from k = 32 to 128 (log-ratio within 3 s.e.)."""
    net, x, seeds = network(), vectors(3), 400
    exact = EmpiricalNTK(net, "trace").gram(x)
    rows = TangentFeatures(net, "all")(x).detach()
    variances = {}
    for k in (32, 128):
        found = []
        for seed in range(seeds):
            projected = sketch(k, seed=seed).bind(rows.shape[1]).project(rows).reshape(3, -1)
            found.append(projected @ projected.mT / 3)
        draws = torch.stack(found)
        z = (draws.mean(0) - exact) / (draws.std(0) / seeds**0.5)
        assert float(z.abs().max()) < 4.5
        variances[k] = draws.var(0)
    ratio = (variances[32] / variances[128]).log().mean()
    assert abs(float(ratio) - 1.386) < 0.25  # log 4; each log-variance has s.e. √(2/400) = 0.07, correlated entries
    kernel = ProjectedNTK(net, sketch(32, seed=5))
    projected = sketch(32, seed=5).bind(rows.shape[1]).project(rows).reshape(3, -1)
    torch.testing.assert_close(kernel.gram(x), projected @ projected.mT / 3, rtol=1e-10, atol=1e-12)


def test_the_projected_pseudo_kernel_is_a_chain():
    net, x = network(), vectors(4)
    sketch = GaussianSketch(8, seed=0)
    rows = TangentFeatures(net, "sum")(x).detach()
    projected = sketch.bind(rows.shape[1]).project(rows)
    gram = FeatureKernel(TangentFeatures(net, "sum") >> sketch).gram(x)
    torch.testing.assert_close(gram, projected @ projected.mT, rtol=1e-10, atol=1e-12)


def test_the_conjugate_kernel_is_of_the_readouts_input_and_of_any_layer_named():
    net, x, y = network(), vectors(4), vectors(3, seed=1)
    h, g = net[:4](x), net[:4](y)
    torch.testing.assert_close(ConjugateKernel(net).gram(x, y), h @ g.mT, rtol=1e-12, atol=1e-12)
    h, g = net[:3](x), net[:3](y)
    torch.testing.assert_close(ConjugateKernel(net, "2").gram(x, y), h @ g.mT, rtol=1e-12, atol=1e-12)
    assert ConjugateKernel(net).features(x).shape == (4, 6)
    with pytest.raises(ValueError, match="no module 'head'"):
        ConjugateKernel(net, "head")


def test_the_tangent_kernel_of_a_readout_without_bias_is_the_conjugate_kernel():
    net, x = network(), vectors(4)
    tangent = EmpiricalNTK(net, "trace", params=["4.weight"]).gram(x)
    torch.testing.assert_close(ConjugateKernel(net).gram(x), tangent, rtol=1e-10, atol=1e-12)


def test_the_embedding_kernel_sums_over_layers_though_they_work_in_place():
    net, x = network(), vectors(4)
    total, a = torch.zeros(4, 4, dtype=torch.float64), x
    for layer in net:
        a = F.relu(a) if isinstance(layer, nn.ReLU) else layer(a)
        total += a @ a.mT
    torch.testing.assert_close(EmbeddingKernel(net).gram(x), total, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(EmbeddingKernel(net, batch_size=3).gram(x), total, rtol=1e-12, atol=1e-12)
    first = net[0](x)
    torch.testing.assert_close(EmbeddingKernel(net, ["0"]).gram(x), first @ first.mT, rtol=1e-12, atol=1e-12)


def test_a_layer_without_a_sample_axis_is_named_and_no_hook_stays():
    class Sums(nn.Module):
        def forward(self, x):
            return x.sum()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.sums = nn.Linear(5, 2), Sums()

        def forward(self, x):
            return self.layer(x) * self.sums(x)

    net = Net().double()
    with pytest.raises(ValueError, match="'sums' gave shape"):
        EmbeddingKernel(net).gram(vectors(3))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
