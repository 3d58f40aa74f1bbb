"""Facts of sheet 008 about the generators."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtr
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from tangrams.data import ShortcutSamples, ShortcutTask, TwoObjectImages

N = 40_000


def test_each_latent_alone_is_as_predictive_as_it_says():
    task = ShortcutTask(0.7, 0.9)
    drawn = task.sample(N, seed=0)
    for which, rho in ((0, 0.7), (1, 0.9)):
        right = (drawn.latents[:, which] * drawn.targets > 0).double()
        assert abs(float(right.mean()) - rho) < 4 * math.sqrt(rho * (1 - rho) / N)
    np.testing.assert_allclose(ndtr(task.means.numpy()), [0.7, 0.9], atol=1e-12)


def test_classes_have_the_stated_mean_and_covariance():
    task = ShortcutTask(0.7, covariance=-0.3)
    drawn = task.sample(N, seed=1)
    for label in (-1, 1):
        z = drawn.latents[drawn.targets == label]
        assert float(((z.mean(0) - label * task.means) * len(z) ** 0.5).abs().max()) < 4
        centred = z - label * task.means
        products = centred[:, :, None] * centred[:, None, :]
        expected = torch.tensor([[1.0, -0.3], [-0.3, 1.0]], dtype=torch.float64)
        error = (products.mean(0) - expected) / (products.std(0) / len(z) ** 0.5)
        assert float(error.abs().max()) < 4


def test_classes_are_balanced_where_asked_and_drawn_else():
    task = ShortcutTask(0.8)
    assert isinstance(task.sample(4, seed=0), ShortcutSamples)
    assert float(task.sample(1000, seed=0).targets.sum()) == 0
    drawn = task.sample(1000, seed=0, balanced=False).targets
    assert 0 < abs(float(drawn.sum())) < 4 * 1000**0.5


def test_the_discriminant_of_embedded_samples_pulls_back_to_the_bayes_weights():
    task = ShortcutTask(0.85, alpha_s=3.0, seed=2)
    drawn = task.sample(N, seed=2)
    fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-9).fit(drawn.inputs.numpy(), drawn.targets.numpy())
    pulled = torch.from_numpy(fitted.coef_[0]) @ task.embed(torch.eye(2, dtype=torch.float64)).mT
    angle = torch.atan2(pulled[1], pulled[0]) - torch.atan2(task.bayes_weights[1], task.bayes_weights[0])
    assert abs(float(angle)) < 0.03
    right = (drawn.latents @ task.bayes_weights * drawn.targets > 0).double().mean()
    assert float(right) == pytest.approx(task.bayes_accuracy, abs=4 * 0.3 / N**0.5)


def test_a_weak_shortcut_behind_a_covariance_has_a_negative_bayes_weight():
    w_s, w_c = ShortcutTask(0.7).bayes_weights.tolist()
    assert w_s < 0 < w_c


def test_without_nesting_the_embedding_is_two_unit_directions_amplified():
    task = ShortcutTask(0.8, alpha_s=5.0, alpha_c=2.0, dim=30, seed=4)
    directions = task.embed(torch.eye(2, dtype=torch.float64))
    np.testing.assert_allclose(directions.norm(dim=1).numpy(), [5.0, 2.0], rtol=1e-12)
    z = task.probe(4)
    torch.testing.assert_close(task.embed(z), z @ directions)
    other = ShortcutTask(0.6, dim=30, seed=4)
    torch.testing.assert_close(other.embed(z), z @ (directions / torch.tensor([[5.0], [2.0]], dtype=torch.float64)))
    assert not torch.allclose(ShortcutTask(0.6, dim=30, seed=5).embed(z), other.embed(z))


def test_nesting_bends_one_latent_and_keeps_it_in_the_input():
    task = ShortcutTask(0.8, eta_c=2, seed=1)
    line = torch.linspace(-3, 3, 61, dtype=torch.float64)
    zero = torch.zeros_like(line)
    core = task.embed(torch.stack([zero, line], 1))
    shortcut = task.embed(torch.stack([line, zero], 1))
    assert float((core[0] + core[60]).abs().max()) < 1e-9  # odd, as tanh is
    steps = core.diff(dim=0).norm(dim=1)
    assert float(steps[30] / steps[0]) > 3  # saturates
    torch.testing.assert_close(shortcut[60], 2 * shortcut[50], rtol=0.51, atol=1e-9)
    assert min(task.recoverability()) > 0.99
    assert float(core.norm(dim=1).max()) <= 1


def test_a_latent_that_nesting_has_lost_is_warned_of(monkeypatch):
    monkeypatch.setattr(ShortcutTask, "recoverability", lambda self: (1.0, 0.4))
    with pytest.warns(UserWarning, match="the nested core explains 40%"):
        ShortcutTask(0.8, eta_c=9)


def test_probes_are_a_grid_over_three_means_without_zero():
    task = ShortcutTask(0.8)
    z = task.probe()
    assert z.shape == (900, 2)
    assert float(z.abs().min()) > 0
    torch.testing.assert_close(z.amax(0), 3 * task.means)
    torch.testing.assert_close(z.amin(0), -3 * task.means)
    assert len(z[:, 0].unique()) == 30
    with pytest.raises(ValueError, match="even"):
        task.probe(29)


def test_the_embedding_is_differentiable_in_the_latents():
    task = ShortcutTask(0.8, eta_s=1, dim=7)
    z = task.probe(2).requires_grad_()
    assert torch.autograd.gradcheck(task.embed, z)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"rho_s": 0.5}, "rho_s"),
        ({"rho_s": 0.8, "rho_c": 1.0}, "rho_c"),
        ({"rho_s": 0.8, "covariance": 1.0}, "covariance"),
        ({"rho_s": 0.8, "alpha_s": 0.0}, "alpha_s"),
        ({"rho_s": 0.8, "alpha_c": -1.0}, "alpha_c"),
        ({"rho_s": 0.8, "eta_s": -1}, "eta_s"),
        ({"rho_s": 0.8, "eta_c": -2}, "eta_c"),
        ({"rho_s": 0.8, "dim": 1}, "dim"),
    ],
    ids=lambda value: value if isinstance(value, str) else "options",
)
def test_impossible_tasks_are_refused_by_name(options, name):
    with pytest.raises(ValueError, match=name):
        ShortcutTask(**options)


def test_objects_have_their_footprints_and_brightness_and_lie_apart():
    images = TwoObjectImages(ShortcutTask(0.8, alpha_s=4.0))
    drawn = images.sample(60, seed=0)
    assert drawn.inputs.shape == (60, 1, 224, 224)
    assert drawn.inputs.dtype == torch.float32
    reach = images.task.means + 3
    bright = ((drawn.latents + reach) / (2 * reach)).clamp(0, 1).float()
    for image, (circle, square) in zip(drawn.inputs[:, 0], bright, strict=True):
        if min(circle, square) > 0 and circle != square:
            assert abs(int((image == circle).sum()) - 1600) < 60
            assert abs(int((image == square).sum()) - 400) <= 41
            assert int((image == 0).sum()) == 224**2 - int((image == circle).sum()) - int((image == square).sum())


def test_probe_images_have_the_base_footprint_and_seeds_fix_positions():
    images = TwoObjectImages(ShortcutTask(0.8, alpha_s=4.0))
    z = images.task.probe(2)[:1]
    image = images.render(z, seed=3, base=True)
    assert abs(int((image > 0).sum()) - 800) < 80
    assert torch.equal(image, images.render(z, seed=3, base=True))
    assert not torch.equal(image, images.render(z, seed=4, base=True))


def test_objects_that_do_not_fit_or_are_nested_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        TwoObjectImages(ShortcutTask(0.8, alpha_s=20.0))
    with pytest.raises(ValueError, match="nesting"):
        TwoObjectImages(ShortcutTask(0.8, eta_s=1))
    small = TwoObjectImages(ShortcutTask(0.8, alpha_s=0.1, alpha_c=0.1), side=32)
    with pytest.raises(ValueError, match="hardly fit"):
        small.render(torch.zeros(5, 2, dtype=torch.float64), seed=0, base=True)
