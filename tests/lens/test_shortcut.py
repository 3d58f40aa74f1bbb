"""Facts of sheet 008 about reliance, bias, interventions and kernels."""

import math

import numpy as np
import pytest
import torch
from scipy.special import erfinv

from tangrams.data import ShortcutTask
from tangrams.kernels import FullyConnectedNTK
from tangrams.lens import (
    BiasReport,
    InterventionReport,
    KernelShortcutProbe,
    ShortcutMap,
    agreements,
    background_sensitivity,
    bayes_decision,
    blur,
    fade,
    grain,
    intervene,
    linear_discriminant,
    reliance,
    shortcut_bias,
    shortcut_map,
)

TASK = ShortcutTask(0.85, seed=1)


def directions(task):
    return task.embed(torch.eye(2, dtype=torch.float64))


def decide_by(task, weights):
    """The linear rule with these weights on the latents, read off the inputs."""
    back = torch.linalg.pinv(directions(task))
    return lambda x: x @ back @ torch.tensor(weights, dtype=torch.float64)


def test_reliance_is_one_on_the_shortcut_and_minus_one_on_the_core():
    z = TASK.probe()
    assert reliance(z[:, 0].sign(), z) == 1
    assert reliance(z[:, 1].sign(), z) == -1
    assert agreements(z[:, 0], z)[0] == 1
    even = ShortcutTask(0.9).probe()
    assert reliance(even.sum(1) + 1e-3 * (even[:, 0] - even[:, 1]), even) == pytest.approx(0, abs=0.1)


def test_swapping_the_latents_negates_reliance():
    z = ShortcutTask(0.9).probe()
    decisions = (z @ torch.tensor([0.3, 0.8], dtype=torch.float64)).sign()
    assert reliance(decisions, z.flip(1)) == pytest.approx(-reliance(decisions, z))


@pytest.mark.parametrize("u", [1.0, 0.5, 0.2])
def test_a_linear_rule_relies_on_the_shortcut_as_its_slope_says(u):
    task = ShortcutTask(0.8)
    m_s, m_c = task.means.tolist()
    z = task.probe(400)
    decisions = z @ torch.tensor([u / m_s, 1 / m_c], dtype=torch.float64)
    a_s, a_c = agreements(decisions, z)
    assert (a_s, a_c) == pytest.approx((u / 2, 1 - u / 2), abs=0.01)
    assert reliance(decisions, z) == pytest.approx(u - 1, abs=0.01)


def test_the_bayes_rule_has_no_bias_whatever_the_amplification():
    for alpha in (1.0, 7.0):
        task = ShortcutTask(0.85, alpha_s=alpha, seed=1)
        report = shortcut_bias(decide_by(task, task.bayes_weights.tolist()), task)
        assert report.bias == pytest.approx(0, abs=1e-12)
        w, m = task.bayes_weights, task.means
        assert report.optimal_reliance == pytest.approx(float(w[0] * m[0] / (w[1] * m[1])) - 1, abs=0.05)
        assert not report.degenerate


def test_bias_is_positive_for_a_rule_that_leans_on_the_shortcut():
    report = shortcut_bias(decide_by(TASK, [1.0, 1.0]), TASK)
    assert isinstance(report, BiasReport)
    assert report.bias > 0.2
    assert report.bias == pytest.approx(report.reliance - report.optimal_reliance)
    assert report.reliance == pytest.approx(report.a_s - report.a_c)


def test_a_constant_decision_is_degenerate_and_relies_on_nothing():
    report = shortcut_bias(lambda x: torch.ones(len(x)), TASK)
    assert report.degenerate
    assert report.reliance == pytest.approx(0, abs=1e-12)


def test_the_fitted_discriminant_stands_in_for_the_bayes_rule():
    drawn = TASK.sample(20_000, seed=3)
    by_bayes = shortcut_bias(decide_by(TASK, [1.0, 1.0]), TASK)
    by_lda = shortcut_bias(decide_by(TASK, [1.0, 1.0]), TASK, optimal=linear_discriminant(drawn))
    assert by_lda.optimal_reliance == pytest.approx(by_bayes.optimal_reliance, abs=0.06)
    z = TASK.probe(4)
    assert torch.equal(bayes_decision(TASK, z), z @ TASK.bayes_weights)


def test_what_is_no_decision_is_refused():
    z = TASK.probe(4)
    with pytest.raises(ValueError, match="probabilities"):
        reliance(torch.linspace(0, 1, 16), z)
    with pytest.raises(ValueError, match="diverge"):
        reliance(torch.full((16,), torch.nan), z)
    with pytest.raises(ValueError, match="one decision per probe"):
        reliance(torch.ones(3), z)


def test_the_linear_kernel_does_not_see_amplification():
    weights, biases = [], []
    for alpha in (1.0, 6.0):
        task = ShortcutTask(0.85, alpha_s=alpha, seed=2)
        probe = KernelShortcutProbe(FullyConnectedNTK(1), delta=1e-7).fit(task.sample(300, seed=2))
        slope = probe.sensitivities(task, task.probe(4))
        torch.testing.assert_close(slope, slope[:1].expand_as(slope))
        weights.append(slope[0])
        biases.append(shortcut_bias(probe, task).bias)
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-4, atol=1e-7)
    assert biases[0] == biases[1]


def test_kernel_models_do_not_see_rotations_of_the_embedding():
    task = ShortcutTask(0.85, alpha_s=3.0, seed=2)
    drawn = task.sample(150, seed=2)
    turn = torch.linalg.qr(torch.randn(100, 100, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q
    x = task.embed(task.probe(6))
    plain = KernelShortcutProbe(FullyConnectedNTK(3), delta=0.1).fit(drawn)
    turned = KernelShortcutProbe(FullyConnectedNTK(3), delta=0.1).fit(drawn._replace(inputs=drawn.inputs @ turn))
    np.testing.assert_allclose(turned(x @ turn), plain(x), atol=1e-9)


def test_sensitivities_are_the_slopes_of_the_scores():
    task = ShortcutTask(0.85, seed=2, eta_s=1)
    probe = KernelShortcutProbe(FullyConnectedNTK(2), delta=0.1).fit(task.sample(80, seed=2))
    z, step = task.probe(4), 1e-5
    slope = probe.sensitivities(task, z)
    for which in (0, 1):
        shift = torch.zeros(2, dtype=torch.float64)
        shift[which] = step
        numeric = (probe(task.embed(z + shift)) - probe(task.embed(z - shift))) / (2 * step)
        np.testing.assert_allclose(slope[:, which].numpy(), numeric, rtol=1e-5, atol=1e-7)


def test_deep_kernels_turn_to_the_amplified_feature_more_than_the_linear_one():
    def ratio(depth, alpha):
        found = []
        for seed in range(3):
            task = ShortcutTask(0.99, 0.99, alpha_s=alpha, seed=seed)
            drawn = task.sample(300, seed=seed)
            probe = KernelShortcutProbe(FullyConnectedNTK(depth), delta=0.1).fit(drawn)
            shortcut, core = probe.sensitivities(task, drawn.latents[:100]).mean(0).tolist()
            found.append(shortcut / core)
        return np.mean(found)

    rises = [ratio(depth, 5.0) - ratio(depth, 1.0) for depth in (1, 2, 3)]
    assert rises[0] < rises[1] < rises[2]


def test_equal_features_have_no_bias_on_average():
    biases = []
    for seed in range(12):
        task = ShortcutTask(0.9, 0.9, seed=seed)
        probe = KernelShortcutProbe(FullyConnectedNTK(2), delta=0.1).fit(task.sample(200, seed=seed))
        biases.append(shortcut_bias(probe, task).bias)
    assert abs(np.mean(biases)) < 4 * np.std(biases) / 12**0.5


def test_the_map_shares_embeddings_and_fills_its_axes():
    seen = []

    def train(samples, seed):
        seen.append((len(samples.inputs), seed))
        return lambda x: x.sum(1)

    found = shortcut_map(train, [0.7, 0.85], [1.0, 2.0, 5.0], seeds=2, num_samples=50, rho_c=0.8)
    assert isinstance(found, ShortcutMap)
    assert found.bias.shape == found.reliance.shape == (2, 3, 2)
    assert seen == [(50, seed) for _ in range(6) for seed in (0, 1)]
    task = ShortcutTask(0.85, 0.8, alpha_s=2.0, seed=1)
    assert found.bias[1, 1, 1] == shortcut_bias(lambda x: x.sum(1), task).bias


def test_interventions_tell_what_a_rule_goes_by():
    drawn = TASK.sample(4000, seed=5)
    core, shortcut = (intervene(decide_by(TASK, w), TASK, drawn) for w in ([0.0, 1.0], [1.0, 0.0]))
    assert (core.shortcut_flips, core.core_flips) == (0.0, 1.0)
    assert (shortcut.shortcut_flips, shortcut.core_flips) == (1.0, 0.0)
    assert (core.agreement_accuracy, core.conflict_accuracy) == (1.0, 1.0)
    assert (shortcut.agreement_accuracy, shortcut.conflict_accuracy) == (1.0, 0.0)
    both = intervene(decide_by(TASK, [1.0, 1.0]), TASK, drawn)
    assert isinstance(both, InterventionReport)
    assert 0 < both.shortcut_flips < 1
    assert 0 < both.conflict_accuracy < 1


def scenes(n=60):
    """A bright or dark patch, the core, before stripes that run along or across, the background."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % 2
    conflict = torch.rand(n, generator=generator) < 0.3
    along = torch.where(conflict, 1 - labels, labels).bool()
    stripes = (torch.arange(24) % 4 < 2).float() * 2 - 1
    background = torch.where(along[:, None, None], stripes[:, None].expand(24, 24), stripes.expand(24, 24))
    mask = torch.zeros(n, 1, 24, 24)
    mask[:, :, 8:16, 8:16] = 1
    core = (2.0 * labels - 1)[:, None, None, None]
    return mask * core + (1 - mask) * background[:, None], labels, mask, conflict


def by_stripes(weight):
    def decide(images):
        across = images.diff(dim=3).square().mean((1, 2, 3)) - images.diff(dim=2).square().mean((1, 2, 3))
        patch = images[:, 0, 10:14, 10:14].mean((1, 2))
        return (patch - weight * across > 0).long()

    return decide


def test_a_classifier_that_leans_on_the_background_gains_when_it_is_made_less_available():
    images, labels, mask, conflict = scenes()
    changes = {"blur": blur(3.0), "fade": fade(0.9), "none": fade(0.0)}
    leaning = background_sensitivity(by_stripes(5.0), images, labels, mask, conflict, changes)
    straight = background_sensitivity(by_stripes(0.0), images, labels, mask, conflict, changes)
    assert leaning["blur"] == leaning["fade"] == 1.0
    assert leaning["none"] == 0.0
    assert straight == {"blur": 0.0, "fade": 0.0, "none": 0.0}
    with pytest.raises(ValueError, match="another class"):
        background_sensitivity(by_stripes(0.0), images, labels, mask, torch.zeros(60), changes)


def test_changes_of_images_are_what_their_names_say():
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    smooth = blur(2.0)(images)
    assert smooth.shape == images.shape
    torch.testing.assert_close(blur(2.0)(torch.ones_like(images)), torch.ones_like(images))
    expected = 1 / (4 * math.pi * 4)  # variance of white noise behind a Gaussian of σ = 2: 1 / (4 π σ²)
    assert float(smooth[..., 8:-8, 8:-8].var()) == pytest.approx(expected, rel=0.2)
    torch.testing.assert_close(fade(0.25)(images).std(), torch.lerp(images, images.mean((2, 3), True), 0.25).std())
    torch.testing.assert_close(fade(1.0)(images), images.mean((2, 3), keepdim=True).expand_as(images))
    noise = grain(0.5, seed=3)(images) - images
    assert abs(float(noise.std()) / 0.5 - 1) < 0.05
    assert torch.equal(grain(0.5, seed=3)(images), grain(0.5, seed=3)(images))
    for bad in (lambda: blur(0.0), lambda: fade(1.5), lambda: grain(-1.0)):
        with pytest.raises(ValueError, match="needs"):
            bad()


def test_the_formula_of_the_mean_is_that_of_the_sheet():
    np.testing.assert_allclose(TASK.means.numpy(), math.sqrt(2) * erfinv(2 * np.array([0.85, 0.9]) - 1), rtol=1e-12)
