"""The adjusted gradient, groups of neighbours and their representatives."""

import itertools
import math
import warnings

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev

from tangrams.nn import (
    SIREN,
    Centre,
    GroupPartition,
    InductiveGradientAdjustment,
    LargestError,
    RandomMember,
)
from tangrams.operators import spectral_transform

F64 = torch.float64


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def problem(n=24, outputs=2):
    x = torch.linspace(-1, 1, n, dtype=F64)[:, None]
    net = SIREN(1, 8, 2, outputs, omega=6.0, generator=seeded()).double()
    y = torch.cat([torch.sin((3 + k) * x) for k in range(outputs)], 1)
    return net, x, y


def jacobian(net, x):
    """J of all outputs: (n, c, p)."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    found = jacrev(lambda values: functional_call(net, values, (x,)))(parameters)
    return torch.cat([part.reshape(*net(x).shape, -1) for part in found.values()], -1)


def pseudo_kernel(net, x):
    J = jacobian(net, x).sum(1) / math.sqrt(net.out_features)
    return J @ J.mT


def gradient(net):
    return torch.cat([p.grad.flatten() for p in net.parameters()])


def adjusted(net, x, y, **kwargs):
    """Loss, and gradient, of one call."""
    net.zero_grad()
    adjustment = InductiveGradientAdjustment(net, **kwargs)
    loss = adjustment.loss(x, net(x), y)
    loss.backward()
    return adjustment, loss.detach(), gradient(net)


def test_the_gradient_is_the_jacobian_times_the_mixed_residual():
    net, x, y = problem()
    groups = GroupPartition.sequence(24, 3)
    adjustment, loss, found = adjusted(net, x, y, groups=groups, end=4, representatives=Centre())
    points = groups.index[:, 1]
    K = pseudo_kernel(net, x[points])
    torch.testing.assert_close(adjustment.kernel, K, rtol=1e-9, atol=1e-10)
    S = spectral_transform(K, 4)
    residual = (net(x) - y).detach()
    mixed = torch.zeros_like(residual)
    for i, p in itertools.product(range(8), range(3)):
        mixed[groups.index[i, p]] = sum(S[i, j] * residual[groups.index[j, p]] for j in range(8))
    expected = 2 / residual.numel() * torch.einsum("ncp,nc->p", jacobian(net, x), mixed)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(loss, residual.square().mean())


def test_an_identity_gives_the_gradient_of_the_mean_square_error():
    net, x, y = problem()
    _, loss, found = adjusted(net, x, y, groups=GroupPartition.sequence(24, 3), end=4, pivot=3, start=3)
    net.zero_grad()
    plain = nn.functional.mse_loss(net(x), y)
    plain.backward()
    torch.testing.assert_close(found, gradient(net), rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(loss, plain.detach())


def test_any_loss_of_the_predictions_is_adjusted_where_its_gradient_meets_the_network():
    net, x, _ = problem()
    groups = GroupPartition.sequence(24, 3)
    weights = torch.randn(6, 24, generator=seeded(), dtype=F64)

    def mixture(prediction):  # not a sum over points
        return (weights @ prediction).sigmoid().log().square().sum()

    adjustment = InductiveGradientAdjustment(net, groups, end=4, representatives=Centre())
    prediction = net(x)
    loss = adjustment.adjust(x, prediction, mixture(prediction))
    loss.backward()
    torch.testing.assert_close(loss.detach(), mixture(net(x)).detach())
    at = net(x).detach().requires_grad_()
    (g,) = torch.autograd.grad(mixture(at), at)
    mixed = groups.apply(spectral_transform(pseudo_kernel(net, x[groups.index[:, 1]]), 4), g)
    expected = torch.einsum("ncp,nc->p", jacobian(net, x), mixed)
    torch.testing.assert_close(gradient(net), expected, rtol=1e-8, atol=1e-9)


def test_groups_of_one_are_the_adjustment_of_all_points():
    net, x, y = problem(outputs=1)
    _, _, found = adjusted(net, x, y, groups=GroupPartition.sequence(24, 1), end=6)
    J = jacobian(net, x)[:, 0]
    expected = 2 / 24 * J.mT @ spectral_transform(J @ J.mT, 6) @ (net(x) - y).detach()[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_the_order_of_the_groups_does_not_matter():
    net, x, y = problem()
    groups = GroupPartition.sequence(24, 4)
    shuffled = GroupPartition(groups.index[torch.randperm(6, generator=seeded(2))], 24)
    _, _, one = adjusted(net, x, y, groups=groups, end=3)
    _, _, two = adjusted(net, x, y, groups=shuffled, end=3)
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("pivot", [None, 0])
def test_gradient_descent_of_a_linear_model_moves_the_block_at_one_rate(pivot):
    x = torch.randn(12, 20, generator=seeded(), dtype=F64)
    net = nn.Linear(20, 1, bias=False).double()
    y = torch.randn(12, 1, generator=seeded(1), dtype=F64)
    values, vectors = torch.linalg.eigh(x @ x.mT)
    values, vectors = values.flip(0), vectors.flip(1)
    before = vectors.mT @ (net(x) - y).detach()
    adjustment = InductiveGradientAdjustment(net, GroupPartition.sequence(12, 1), end=5, pivot=pivot)
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    adjustment.loss(x, net(x), y).backward()
    optimizer.step()
    after = vectors.mT @ (net(x) - y).detach()
    rates = values.clone()
    rates[:5] = values[5 if pivot is None else pivot]
    torch.testing.assert_close((after / before)[:, 0], 1 - 2e-3 / 12 * rates, rtol=1e-9, atol=1e-10)


def test_the_transform_is_kept_for_as_many_losses_as_asked():
    net, x, y = problem()
    adjustment = InductiveGradientAdjustment(net, GroupPartition.sequence(24, 3), end=2, refresh=3)
    seen = []
    for _ in range(6):
        adjustment.loss(x, net(x), y)
        seen.append(adjustment.transform)
        with torch.no_grad():
            net.layers[0].weight.add_(0.05)
    assert seen[0] is seen[1] is seen[2]
    assert seen[3] is seen[4] is seen[5]
    assert not torch.equal(seen[0], seen[3])


def test_the_network_is_left_as_it_was():
    net, x, y = problem()
    net.train()
    net.layers[0].weight.grad = torch.ones_like(net.layers[0].weight)
    state = torch.get_rng_state()
    adjustment = InductiveGradientAdjustment(
        net, GroupPartition.sequence(24, 3), end=2, representatives=RandomMember(1)
    )
    adjustment.loss(x, net(x), y)
    assert net.training
    assert (net.layers[0].weight.grad == 1).all()
    assert torch.equal(state, torch.get_rng_state())


def test_frozen_parameters_are_no_part_of_the_kernel():
    net, x, y = problem()
    net.layers[2].requires_grad_(False)
    adjustment = InductiveGradientAdjustment(net, GroupPartition.sequence(24, 3), end=2, representatives=Centre())
    adjustment.loss(x, net(x), y)
    J = jacobian(net, x[1::3]).sum(1) / math.sqrt(2)
    J = J[:, : -sum(p.numel() for p in net.layers[2].parameters())]
    torch.testing.assert_close(adjustment.kernel, J @ J.mT, rtol=1e-9, atol=1e-10)


def test_a_failed_eigendecomposition_leaves_the_gradient_as_it_is(monkeypatch):
    import tangrams.nn.gradient_adjustment.adjustment as module

    def fails(*args, **kwargs):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(module, "spectral_transform", fails)
    net, x, y = problem()
    with pytest.warns(UserWarning, match="S is the identity"):
        adjustment, _, found = adjusted(net, x, y, groups=GroupPartition.sequence(24, 3), end=2)
    assert adjustment.failures == 1
    net.zero_grad()
    nn.functional.mse_loss(net(x), y).backward()
    torch.testing.assert_close(found, gradient(net), rtol=1e-9, atol=1e-11)


def test_a_kernel_that_is_not_finite_is_an_error():
    net, x, y = problem()
    nn.init.constant_(net.layers[0].weight, torch.nan)
    adjustment = InductiveGradientAdjustment(net, GroupPartition.sequence(24, 3), end=2)
    with warnings.catch_warnings(), pytest.raises((FloatingPointError, RuntimeError)):
        adjustment.loss(x, net(x), y)


def test_patches_hold_the_pixels_of_their_square():
    groups = GroupPartition.image(4, 6, 2)
    pixels = torch.arange(24).reshape(4, 6)
    assert groups.index.shape == (6, 4)
    for k, members in enumerate(groups.index):
        i, j = divmod(k, 3)
        assert members.tolist() == pixels[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].flatten().tolist()


def test_patches_at_the_rim_are_smaller_and_hold_every_pixel_once():
    groups = GroupPartition.image(5, 7, 3)
    members = groups.index[groups.index >= 0]
    assert sorted(members.tolist()) == list(range(35))
    assert (groups.index >= 0).sum(1).tolist() == [9, 9, 3, 6, 6, 2]
    assert len(groups.complete()) == 2


def test_volumes_are_cut_in_the_order_of_storage():
    assert torch.equal(GroupPartition.volume((2, 3, 4), 5).index, GroupPartition.sequence(24, 5).index)


def test_missing_members_count_as_zero_and_points_in_no_group_are_kept():
    S = torch.tensor([[2.0, 1.0, 0.5], [0.0, 1.0, 1.0], [3.0, 0.0, 1.0]])
    values = torch.arange(1.0, 8.0)[:, None]
    groups = GroupPartition.sequence(7, 3)
    expected = [2 * 1 + 4 + 0.5 * 7, 2 * 2 + 5, 2 * 3 + 6, 4 + 7, 5, 6, 3 * 1 + 7]
    assert groups.apply(S, values)[:, 0].tolist() == expected
    complete = groups.complete()
    assert complete.apply(S[:2, :2], values)[:, 0].tolist() == [2 + 4, 4 + 5, 6 + 6, 4, 5, 6, 7]


def test_each_group_is_represented_by_its_own_member():
    index = GroupPartition.sequence(7, 3).index
    error = torch.tensor([0.1, 0.9, 0.2, 0.3, 0.0, 0.8, 0.05])
    assert LargestError()(index, error).tolist() == [1, 5, 6]
    assert LargestError()(index, torch.zeros(7)).tolist() == [0, 3, 6]
    assert Centre()(index, error).tolist() == [1, 4, 6]
    assert Centre()(torch.tensor([[-1, 4, 5]]), error).tolist() == [5]


def test_members_are_drawn_equally_often_and_reproducibly():
    index = GroupPartition.sequence(8, 3).index
    draw = RandomMember(3)
    chosen = torch.stack([draw(index, torch.zeros(8)) for _ in range(1200)])
    assert torch.equal(chosen[0], RandomMember(3)(index, torch.zeros(8)))
    counts = torch.stack([(chosen == point).sum() for point in range(8)]).double()
    expected = torch.tensor([400.0] * 6 + [600.0] * 2)
    # Groups of 3, 3 and 2: chi-square with 2 + 2 + 1 degrees of freedom.
    assert float(((counts - expected) ** 2 / expected).sum()) < 20.5  # the 0.1 % point


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GroupPartition.sequence(0, 2), "≥ 1"),
        (lambda: GroupPartition.image(4, 4, 0), "≥ 1"),
        (lambda: GroupPartition(torch.tensor([[0, 1], [1, 2]]), 3), "one group at most"),
        (lambda: GroupPartition(torch.tensor([[0, 3]]), 3), "one group at most"),
        (lambda: GroupPartition(torch.tensor([[0], [-1]]), 3), "at least one member"),
        (lambda: InductiveGradientAdjustment(nn.Linear(1, 1), GroupPartition.sequence(6, 2), end=3), "levels modes"),
        (lambda: InductiveGradientAdjustment(nn.Linear(1, 1), GroupPartition.sequence(6, 2), 2, refresh=0), "refresh"),
        (
            lambda: InductiveGradientAdjustment(nn.Linear(1, 1), GroupPartition.sequence(6, 2), 2).loss(
                torch.zeros(5, 1), torch.zeros(5, 1), torch.zeros(5, 1)
            ),
            "6 points",
        ),
        (
            lambda: InductiveGradientAdjustment(nn.Linear(1, 1), GroupPartition.sequence(6, 2), 2).loss(
                torch.zeros(6, 1), torch.zeros(6, 1), torch.zeros(6, 2)
            ),
            "shape",
        ),
    ],
    ids=["empty", "patch", "twice", "beyond", "no-member", "modes", "refresh", "points", "targets"],
)
def test_impossible_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
