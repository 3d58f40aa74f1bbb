"""The whole of RCIG at toy size: what it learns, what it keeps, what it refuses; and the parts around it."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from tangrams.data import Labelled
from tangrams.learners.distillation import (
    RCIG,
    ZCA,
    AdamMethod,
    ConjugateGradients,
    DistilledSet,
    ImageAugmentation,
    ModelPool,
    NonlinearRidge,
    PlainNetwork,
    RCIGConfig,
    centred_labels,
    kernel_herding,
    outer_loss,
)
from tangrams.nn import ConvNet

C = 3


def stripes(n=120, seed=0, noise=0.7):
    """Three classes of 4 × 4 images: bright rows, columns or corners, under noise."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(n) % C
    patterns = torch.zeros(C, 1, 4, 4)
    patterns[0, 0, 1::2], patterns[1, 0, :, 1::2], patterns[2, 0, 0, 0], patterns[2, 0, 3, 3] = 1, 1, 2, 2
    return Labelled(patterns[targets] + noise * torch.randn(n, 1, 4, 4, generator=generator), targets)


def network():
    return ConvNet(1, C, 4, width=4, depth=1, activation=nn.Softplus(beta=10))


SMALL = {"batch_size": 60, "pool_size": 3, "image_lr": 0.03, "inner_steps": 5, "hessian_steps": 5, "mirrored": False}


def distil(steps=25, per_class=1, seed=0, **options):
    learner = RCIG(network, per_class, C, steps=steps, config=RCIGConfig(**{**SMALL, **options}), random_state=seed)
    return learner, learner.fit(stripes())


def test_it_teaches_networks_more_than_the_digits_it_started_from():
    data, test = samples_of_digits()

    def small():
        return ConvNet(1, 10, 8, width=8, depth=2, activation=nn.Softplus(beta=60))

    whitening = ZCA.fit(data.inputs)
    config = RCIGConfig(**{**SMALL, "batch_size": 200, "method": ConjugateGradients})
    learner = RCIG(small, 1, 10, steps=50, whitening=whitening, config=config)
    found = learner.fit(data)
    early, late = (
        np.mean([row["outer_accuracy"] for row in part]) for part in (learner.history_[:5], learner.history_[-5:])
    )
    assert late > early + 0.2
    order = torch.randperm(len(data.targets), generator=torch.Generator().manual_seed(0))  # as RCIG starts
    index = torch.cat([order[data.targets[order] == c][:1] for c in range(10)])
    start = DistilledSet.of_samples(Labelled(data.inputs[index], data.targets[index]), 10, whitening=whitening)
    options = {"repeats": 2, "lr": 2e-3, "updates": 80}
    better, before = found.evaluate(small, test, **options), start.evaluate(small, test, **options)
    assert float(better.mean()) > float(before.mean()) + 0.1
    assert found.pictures().shape == (10, 1, 8, 8)


def samples_of_digits():
    images, labels = load_digits(return_X_y=True)
    x, y = torch.from_numpy(images).float().reshape(-1, 1, 8, 8) / 16, torch.from_numpy(labels)
    return Labelled(x[:1000], y[:1000]), Labelled(x[1000:], y[1000:])


@pytest.mark.parametrize("inner", [NonlinearRidge, PlainNetwork])
def test_the_problems_it_is_compared_with_run_through_the_same_loop(inner):
    learner, found = distil(steps=3, inner=inner)
    assert bool(found.ema_images.isfinite().all())
    assert all(row["inner_last"] < row["inner_first"] for row in learner.history_)


def test_the_same_seed_gives_the_same_set_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    (_, first), (_, again), (_, other) = (distil(steps=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.ema_images, again.ema_images)
    assert not torch.equal(first.ema_images, other.ema_images)


def test_the_average_is_corrected_for_its_short_memory():
    """After one step it is the set itself, and of a set that does not move it is that set."""
    _, once = distil(steps=1)
    torch.testing.assert_close(once.ema_images, once.images)
    _, still = distil(steps=5, image_lr=0.0)
    torch.testing.assert_close(still.ema_images, still.images)
    torch.testing.assert_close(still.ema_labels, centred_labels(torch.arange(C), C))


def test_labels_stay_where_they_are_not_learned_and_a_part_of_the_images_may_carry_the_gradient():
    _, fixed = distil(steps=4, learn_labels=False)
    torch.testing.assert_close(fixed.labels, centred_labels(torch.arange(C), C))
    _, learned = distil(steps=4)
    assert not torch.allclose(learned.labels, fixed.labels)
    # The implicit part reads the whole set; without it only the chosen images move.
    learner, partly = distil(steps=1, per_class=2, backprop_images=2, hessian_steps=0)
    _, start = distil(steps=1, per_class=2, backprop_images=2, hessian_steps=0, image_lr=0.0)
    moved = (partly.images - start.images).flatten(1).abs().amax(1) > 0
    assert int(moved.sum()) == 2
    assert len(learner.history_) == 1


def test_mirrored_sets_are_evaluated_with_their_mirrors():
    _, found = distil(steps=2, mirrored=True)
    assert found.mirrored
    assert found.images.shape[0] == C  # the mirrors are made when needed


def test_old_networks_are_replaced_and_drawn_networks_are_seeded():
    pool = ModelPool(network, 2, max_age=5, lr=1e-2)
    again = ModelPool(network, 2, max_age=5, lr=1e-2)
    for a, b in zip(pool.members, again.members, strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.network.parameters(), b.network.parameters(), strict=True))
    first, data = pool.members[0], stripes(9)
    labels = centred_labels(data.targets, C)
    error = lambda: float((first.network(data.inputs) - labels).detach().square().mean())  # noqa: E731
    before = error()
    pool.train(0, data.inputs, labels, 4)
    assert (pool.members[0] is first, first.age, first.network.training) == (True, 4, False)
    assert error() < before
    assert all(p.grad is None for p in first.network.parameters())
    pool.train(0, data.inputs, labels, 1)
    assert pool.members[0] is not first
    assert pool.members[0].age == 0
    assert {pool.draw() for _ in range(50)} == {0, 1}
    with pytest.raises(ValueError, match="size ≥ 1"):
        ModelPool(network, 0)


def test_the_margin_counts_up_to_half_a_class():
    f, y, zero = torch.zeros(4, C), torch.arange(4) % C, torch.zeros(())
    base = math.log(C)
    for labels, margin in (([[0.5, 0.2, -0.7]], 1 / 6), ([[0.5, 0.45, 0.0]], 0.05), ([[0.3, 0.3, -0.6]], 0.0)):
        assert float(outer_loss(f, y, torch.tensor(labels), zero)) == pytest.approx(base - margin, abs=1e-6)
    logits = torch.eye(C)[y]
    sharp, soft = (float(outer_loss(logits, y, torch.zeros(1, C), torch.tensor(t))) for t in (2.0, 0.0))
    assert sharp < soft


def test_whitening_makes_covariance_one_where_it_is_large_and_is_undone():
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(500, 1, 4, 4, generator=generator).cumsum(-1)
    for sample in (images, images[:10]):  # more and fewer samples than pixels
        zca = ZCA.fit(sample, regularization=0.1)
        rows = sample.flatten(1).double()
        rows = rows - rows.mean(1, keepdim=True)
        rows = rows / rows.square().mean(1, keepdim=True).sqrt()
        cov = torch.cov(rows.mT, correction=0)
        lam = 0.1 * float(cov.trace()) / 16
        values, U = torch.linalg.eigh(cov + lam * torch.eye(16).double())
        expected = (rows - rows.mean(0)) @ (U / values.sqrt()) @ U.mT
        whitened = zca.whiten(sample)
        assert whitened.dtype == sample.dtype
        torch.testing.assert_close(whitened.flatten(1).double(), expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(zca.restore(whitened).flatten(1).double(), rows, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="regularization > 0"):
        ZCA.fit(images, regularization=0.0)


def test_augmentation_changes_every_image_by_itself_and_nothing_when_it_may_not():
    images = stripes(6).inputs
    none = ImageAugmentation(flip=False, brightness=0, contrast=0, crop=0, rotate=0, translate=0, cutout=0)
    torch.testing.assert_close(none(images, torch.Generator().manual_seed(0)), images, rtol=1e-4, atol=1e-4)
    flipped = ImageAugmentation(brightness=0, contrast=0, crop=0, rotate=0, translate=0, cutout=0)
    many = images[:1].expand(200, -1, -1, -1)
    out = flipped(many, torch.Generator().manual_seed(0))
    mirrored = (out - many.flip(-1)).abs().amax((1, 2, 3)) < 1e-4
    same = (out - many).abs().amax((1, 2, 3)) < 1e-4
    assert bool((mirrored | same).all())
    assert abs(int(mirrored.sum()) - 100) < 4 * 50**0.5
    everything = ImageAugmentation()
    a, b = (everything(many, torch.Generator().manual_seed(s)) for s in (0, 0))
    assert torch.equal(a, b)
    assert float((a[0] - a[1]).abs().max()) > 0.1
    blank = ImageAugmentation(flip=False, brightness=0, contrast=0, crop=0, rotate=0, translate=0, cutout=0.5)
    gone = (blank(many + 5, torch.Generator().manual_seed(0)) == 0).double().mean((1, 2, 3))
    assert float(gone.max()) == 0.25
    assert float(gone.min()) > 0


def test_networks_may_be_tested_on_augmented_training():
    data, test = stripes(30, noise=0.3), stripes(90, seed=4, noise=0.3)
    found = DistilledSet.of_samples(data, C, mirrored=True)
    plain = found.evaluate(network, test, repeats=2, lr=1e-2, updates=30, batch_size=20)
    changed = found.evaluate(network, test, repeats=2, lr=1e-2, updates=30, augment=ImageAugmentation(flip=False))
    assert plain.shape == changed.shape == (2,)
    assert float(plain.mean()) > 0.6
    assert not torch.equal(plain, changed)


def test_herding_keeps_the_mean_where_random_choices_do_not():
    x = torch.randn(80, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1
    K = x @ x.mT
    chosen = kernel_herding(K, 6)
    assert len(set(chosen.tolist())) == 6
    assert int(chosen[0]) == int(K.mean(1).argmax())
    chosen, generator = kernel_herding(K, 20), torch.Generator().manual_seed(1)
    gap = float((x[chosen].mean(0) - x.mean(0)).norm())
    draws = [torch.randperm(80, generator=generator)[:20] for _ in range(50)]
    random = [float((x[draw].mean(0) - x.mean(0)).norm()) for draw in draws]
    assert gap < np.quantile(random, 0.1)
    assert sorted(kernel_herding(K, 80).tolist()) == list(range(80))
    for k in (0, 81):
        with pytest.raises(ValueError, match="between 1 and 80"):
            kernel_herding(K, k)


def test_what_cannot_be_distilled_is_refused():
    with pytest.raises(ValueError, match="two classes or more"):
        RCIG(network, 1, 1)
    for images, steps in ((0, 5), (1, 0)):
        with pytest.raises(ValueError, match="images and steps"):
            RCIG(network, images, C, steps=steps)
    with pytest.raises(ValueError, match="of 50 samples or more"):
        RCIG(network, 50, C, steps=1).fit(stripes())
    with pytest.raises(ValueError, match="classes 0 … 1"):
        RCIG(network, 1, 2, steps=1).fit(stripes())
    with pytest.raises(ValueError, match="linear head"):
        RCIG(
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, C), nn.ReLU()),
            1,
            C,
            steps=1,
            config=RCIGConfig(pool_size=1),
        ).fit(stripes())


def test_progress_is_told_and_adam_ends_with_its_rates():
    seen = []
    learner = RCIG(network, 1, C, steps=3, config=RCIGConfig(**SMALL))
    learner.fit(stripes(), progress=seen.append)
    assert seen == [1, 2, 3]
    assert isinstance(learner.method_, AdamMethod)
    assert learner.method_.inner.value > 1e-5
