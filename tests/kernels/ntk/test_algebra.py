"""Networks as values: how layers combine, what they refuse, and what their kernels are known to be."""

import math
from itertools import pairwise

import pytest
import torch

from tangrams.kernels import AnalyticNNGP, AnalyticNTK, FullyConnectedNNGP, FullyConnectedNTK, NormalizedReLUNTK
from tangrams.kernels.ntk import (
    GELU,
    AvgPool,
    Conv,
    Dense,
    Erf,
    Flatten,
    GlobalAvgPool,
    Identity,
    LayerNorm,
    ParallelProduct,
    ParallelSum,
    ReLU,
    Serial,
)


@pytest.fixture
def x():
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def images():
    return torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_a_linear_network_of_depth_L_has_L_times_the_linear_kernel(x):
    for depth in (1, 2, 5):
        net = Serial(*[Dense()] * depth)
        torch.testing.assert_close(AnalyticNTK(net).gram(x), depth * x @ x.T / 5, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(AnalyticNNGP(net).gram(x), x @ x.T / 5, rtol=1e-12, atol=1e-14)


def test_kernels_of_fully_connected_networks_are_rotation_invariant(x):
    Q = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    for kernel in (FullyConnectedNTK(4, b_std=0.3), FullyConnectedNNGP(3, GELU(), b_std=0.3)):
        torch.testing.assert_close(kernel.gram(x @ Q.T), kernel.gram(x), rtol=1e-7, atol=1e-9)


def test_relu_kernels_without_bias_are_homogeneous_of_degree_two(x):
    kernel = FullyConnectedNTK(4)
    torch.testing.assert_close(kernel.gram(3 * x), 9 * kernel.gram(x), rtol=1e-12, atol=1e-14)


def test_the_normalized_kernel_follows_from_the_general_algebra(x):
    """σ_w² = 2 on inputs scaled by √d/√2, no bias in the covariance, β² after each tangent step."""
    depth, bias = 3, 0.4
    kernel = NormalizedReLUNTK(depth).double()
    kernel.initialize(bias=bias)
    covariances = []
    for layers in range(depth + 1):
        net = Serial(Dense(math.sqrt(5)), *[ReLU(), Dense(math.sqrt(2))] * layers)
        covariances.append(AnalyticNNGP(net).gram(x))
    tangent = covariances[0] + bias**2
    norms = covariances[0].diagonal()
    p, q = norms[:, None], norms[None]
    for before, after in pairwise(covariances):
        tangent = tangent * 2 * ReLU().Tdot(p, q, before) + after + bias**2
    expected = tangent / ((depth + 1) * (bias**2 + 1))
    torch.testing.assert_close(kernel.gram(x).detach(), expected, rtol=1e-7, atol=1e-9)


def test_the_normalized_kernel_is_one_on_the_spheres_diagonal(x):
    unit = torch.nn.functional.normalize(x, dim=1)
    for depth in (1, 2, 10):
        kernel = NormalizedReLUNTK(depth, 0.7).double()
        torch.testing.assert_close(kernel.diag(unit).detach(), torch.ones(6).double(), rtol=1e-12, atol=0)


def test_the_normalized_kernel_without_bias_is_homogeneous(x):
    kernel = NormalizedReLUNTK(2, 0.0).double()
    torch.testing.assert_close(kernel.gram(2 * x), 4 * kernel.gram(x), rtol=1e-12, atol=1e-14)


def test_the_gradient_in_the_log_bias_is_the_closed_form(x):
    depth, bias = 3, 0.6
    kernel = NormalizedReLUNTK(depth).double()
    kernel.initialize(bias=bias)
    K = kernel.gram(x[:3], x[3:])
    weights = torch.randn(3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (gradient,) = torch.autograd.grad((K * weights).sum(), kernel.raw_bias)
    softplus_slope = 1 - math.exp(-bias)  # dβ/draw of the constraint

    slopes, r = [], x[:3] @ x[3:].T
    p, q = x[:3].square().sum(1)[:, None], x[3:].square().sum(1)[None]
    for _ in range(depth):
        slopes.append(2 * ReLU().Tdot(p, q, r))
        r = 2 * ReLU().T(p, q, r)
    product, partial, total = torch.ones_like(r), torch.ones_like(r), torch.ones_like(r)
    for slope in slopes:
        product = product * slope
    for slope in slopes:
        partial = partial * slope
        total = total + 1 / partial
    by_log = 2 * bias**2 * product * total / ((depth + 1) * (bias**2 + 1)) - 2 * bias**2 / (bias**2 + 1) * K.detach()
    expected = (by_log * weights).sum() / bias * softplus_slope
    torch.testing.assert_close(gradient.squeeze(), expected, rtol=1e-10, atol=1e-12)


def convolution_by_patches(x, y, W_std, b_std):
    """One 3 × 3 convolution, ReLU, flatten, dense, from inner products of zero-padded patches."""
    a, b = (torch.nn.functional.unfold(part, 3, padding=1) for part in (x, y))  # (n, 18, P)
    r = W_std**2 * torch.einsum("icp,jcp->ijp", a, b) / 18 + b_std**2
    p = W_std**2 * a.square().sum(1)[:, None] / 18 + b_std**2
    q = W_std**2 * b.square().sum(1)[None] / 18 + b_std**2
    theta = torch.acos((r / (p * q).sqrt()).clamp(-1, 1))
    T = (p * q).sqrt() / (2 * torch.pi) * (theta.sin() + (torch.pi - theta) * theta.cos())
    nngp = T.mean(-1)
    return nngp, nngp + (r * (torch.pi - theta) / (2 * torch.pi)).mean(-1)


def test_one_convolution_equals_its_patches(images):
    x, y = images[:2], images[1:] + 0.1
    net = Serial(Conv(3, 1.3, 0.2), ReLU(), Flatten(), Dense())
    nngp, ntk = convolution_by_patches(x, y, 1.3, 0.2)
    torch.testing.assert_close(AnalyticNNGP(net).gram(x, y), nngp, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(AnalyticNTK(net).gram(x, y), ntk, rtol=1e-10, atol=1e-12)


def test_padding_by_numbers_is_that_of_torch(images):
    """A strided convolution of an even length pads both sides in torch, one side with "same"."""
    even = torch.randn(2, 2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    explicit = AnalyticNNGP(Serial(Conv(3, stride=2, padding=1), Flatten())).gram(even)
    scaled = torch.nn.functional.pad(even, (1, 1)).unfold(2, 3, 2)  # (n, C, P, 3)
    expected = torch.einsum("icpk,jcpk->ij", scaled, scaled) / (2 * 3 * 3)
    torch.testing.assert_close(explicit, expected, rtol=1e-12, atol=1e-14)
    same = AnalyticNNGP(Serial(Conv(3, stride=2), Flatten())).gram(even)
    assert not torch.allclose(explicit, same)


def test_pooling_over_everything_in_steps_equals_global_pooling(images):
    square = images[:, :, :4]
    body = [Conv(3, 1.4, 0.1), ReLU()]
    whole = AnalyticNTK(Serial(*body, GlobalAvgPool(), Dense()))
    steps = AnalyticNTK(Serial(*body, AvgPool(2), AvgPool(2), Flatten(), Dense()))
    torch.testing.assert_close(steps.gram(square), whole.gram(square), rtol=1e-12, atol=1e-14)


def test_kernels_with_circular_padding_and_global_pooling_ignore_shifts(images):
    net = Serial(Conv(3, 1.4, 0.1, padding="circular"), Erf(), Conv(3, padding="circular"), GlobalAvgPool(), Dense())
    kernel = AnalyticNTK(net)
    shifted = images.roll((2, 1), (2, 3))
    torch.testing.assert_close(kernel.gram(shifted, images), kernel.gram(images), rtol=1e-9, atol=1e-12)


def test_images_without_pooling_keep_equal_positions_only(images):
    net = Serial(Conv(3), ReLU(), Conv(3), ReLU(), Flatten(), Dense())
    assert not net.needs_pairs(False)
    assert Serial(Conv(3), AvgPool(2), Flatten()).needs_pairs(False)
    assert not Serial(Flatten(), Dense()).needs_pairs(False)
    assert ParallelSum(Conv(3), Serial(Conv(3), AvgPool(3, 1, "same"))).needs_pairs(False)


def test_dropping_pairs_of_positions_early_changes_nothing(images):
    head = [AvgPool(2), Conv(3, padding="same"), ReLU(), Flatten(), Dense()]
    dropped = AnalyticNTK(Serial(Conv(3), ReLU(), *head)).gram(images)
    # A pool of one pixel at the end is the identity, but has every layer before it keep all pairs.
    kept = AnalyticNTK(Serial(Conv(3), ReLU(), *head[:-2], AvgPool(1), *head[-2:])).gram(images)
    torch.testing.assert_close(dropped, kept, rtol=1e-12, atol=1e-14)


def test_a_dense_layer_over_positions_is_a_convolution_of_one_pixel(images):
    torch.testing.assert_close(
        AnalyticNTK(Serial(Dense(1.2, 0.3), ReLU(), Flatten())).gram(images),
        AnalyticNTK(Serial(Conv(1, 1.2, 0.3), ReLU(), Flatten())).gram(images),
        rtol=1e-12,
        atol=1e-14,
    )


def test_a_product_of_relu_branches_has_the_closed_form_on_the_sphere(x):
    unit = torch.nn.functional.normalize(x, dim=1)
    t = (unit @ unit.T).clamp(-1, 1)
    angle = torch.pi - t.acos()
    kappa0, kappa1 = angle / torch.pi, (t * angle + (1 - t**2).clamp_min(0).sqrt()) / torch.pi
    branch = Serial(Dense(math.sqrt(5)), ReLU())
    net = Serial(ParallelProduct(branch, Serial(Dense(math.sqrt(5)), ReLU())), Dense(2.0))
    expected = kappa1**2 + 2 * t * kappa0 * kappa1
    torch.testing.assert_close(AnalyticNTK(net).gram(unit), expected, rtol=1e-6, atol=1e-6)


def test_nested_serials_are_one_and_networks_are_values():
    assert Serial(Serial(Dense(), ReLU()), Dense()) == Serial(Dense(), ReLU(), Dense())
    assert hash(Serial(Dense(), ReLU())) == hash(Serial(Dense(), ReLU()))
    assert Serial(Dense(1.0), ReLU()) != Serial(Dense(2.0), ReLU())
    assert ParallelSum(Dense(), Identity()) != ParallelProduct(Dense(), Identity())
    assert repr(Serial(Dense(), ReLU())) == "Serial(Dense(W_std=1.0, b_std=0.0), ReLU())"


def test_blocks_of_samples_change_nothing(images):
    net = Serial(Conv(3, 1.4, 0.1), ReLU(), AvgPool(2), Flatten(), Dense())
    whole, parts = AnalyticNTK(net), AnalyticNTK(net, block_bytes=8 * 6 * 400 * 4)
    torch.testing.assert_close(parts.gram(images), whole.gram(images), rtol=1e-13, atol=0)
    torch.testing.assert_close(parts.gram(images, images[:2]), whole.gram(images, images[:2]), rtol=1e-13, atol=0)
    torch.testing.assert_close(parts.diag(images), whole.diag(images), rtol=1e-13, atol=0)


def test_gradients_in_the_inputs_are_the_numerical_ones(x, images):
    y = torch.randn(2, 5, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    fully = FullyConnectedNTK(3, b_std=0.2)
    assert torch.autograd.gradcheck(lambda a: fully.gram(a, y), x[:2].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda a: fully.diag(a), x[:2].clone().requires_grad_())
    conv = AnalyticNTK(Serial(Conv(2, 1.4, 0.1), GELU(), AvgPool(2), Flatten(), Dense()))
    assert torch.autograd.gradcheck(lambda a: conv.gram(a, images[2:]), images[:1].clone().requires_grad_())


def test_gradients_of_a_smooth_kernel_are_right_at_coinciding_samples(x):
    kernel = FullyConnectedNTK(3, GELU(), b_std=0.2)
    both = torch.cat([x[:2], x[:1]]).requires_grad_()
    assert torch.autograd.gradcheck(lambda a: kernel.gram(a), both)


def test_near_duplicates_keep_their_digits_in_float32():
    x = torch.tensor([[1.0, 2.0, 3.0]])
    pair = torch.cat([x, x * (1 + 1e-6)])
    exact = FullyConnectedNTK(6).gram(pair.double())
    assert FullyConnectedNTK(6).gram(pair).dtype == torch.float32
    torch.testing.assert_close(FullyConnectedNTK(6).gram(pair).double(), exact, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Serial(ReLU(), Dense()), "Gaussian units"),
        (Serial(Dense(), ReLU(), ReLU()), "Gaussian units"),
        (Serial(Conv(3), Flatten(), ReLU(), Dense()), "Gaussian units"),
        (Serial(Dense(), ReLU(), LayerNorm()), "centred"),
        (Serial(Dense(), ParallelSum(Identity(), Identity())), "share units"),
        (Serial(Dense(), ParallelSum(ReLU(), Identity())), "share units"),
        (Serial(Dense(), ReLU(), ParallelSum(Serial(Dense(), ReLU()), Identity())), "cross term"),
        (ParallelSum(Conv(3), Serial(Conv(3, stride=2), Conv(1))), "different positions"),
        (Serial(Conv(3), ReLU()), "ends at"),
        (Serial(Flatten(), GlobalAvgPool()), "needs positions"),
        (Serial(Flatten(), Conv(3)), "with positions"),
        (Serial(Conv((3, 3, 3)), Flatten()), "position axes"),
        (Serial(Conv(9, padding="valid"), Flatten()), "does not fit"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_networks_without_a_kernel_are_refused(net, message, images):
    with pytest.raises(ValueError, match=message):
        AnalyticNTK(net).gram(images)


def test_an_odd_activation_may_be_added_to_units_with_a_mean(x):
    net = Serial(Dense(), ReLU(), ParallelSum(Serial(Dense(), Erf()), Identity()), Dense())
    assert torch.isfinite(AnalyticNTK(net).gram(x)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(-1.0), "W_std ≥ 0"),
        (lambda: Dense(1.0, math.nan), "b_std"),
        (lambda: Conv(0), "window ≥ 1"),
        (lambda: Conv(3, stride=0), "stride ≥ 1"),
        (lambda: Conv(3, padding="reflect"), "paddings"),
        (lambda: Conv(3, padding=-1), "padding ≥ 0"),
        (lambda: LayerNorm(-1.0), "eps ≥ 0"),
        (lambda: ParallelSum(Dense()), "at least two"),
        (lambda: FullyConnectedNTK(0), "depth ≥ 1"),
        (lambda: FullyConnectedNTK(2, b_std=-0.1), "b_std ≥ 0"),
        (lambda: NormalizedReLUNTK(0), "depth ≥ 1"),
        (lambda: NormalizedReLUNTK(1, -0.1), "bias ≥ 0"),
        (lambda: AnalyticNTK(Dense(), block_bytes=0), "block_bytes"),
        (lambda: AnalyticNTK(Dense(), event_shape=(0,)), "event_shape"),
    ],
)
def test_impossible_layers_and_kernels_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
