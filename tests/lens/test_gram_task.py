"""What one sample says of its task: against the truth, against refitting, and against the plug-in estimate."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from tangrams.lens import EigenTask, GramTask, measure_exponents, optimal_ridge, projected_predictions, ridge_risk
from tangrams.operators import GramSpectrum


def gaussian(task, n, generator):
    """Rows whose Gram is that of a Gaussian design with the task's spectrum, and noisy targets."""
    x = torch.randn(n, len(task.eigenvalues), generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64) * task.noise_variance**0.5
    return x * task.eigenvalues.sqrt(), (x @ task.coefficients + noise)[:, None]


TASK = EigenTask.power_law(1.4, 1.8, 3000, noise_variance=0.1)


@pytest.fixture(scope="module")
def samples():
    generator = torch.Generator().manual_seed(0)
    drawn = [gaussian(TASK, 250, generator) for _ in range(6)]
    return [(x @ x.mT, y, GramTask.of(GramSpectrum.of(x @ x.mT), y)) for x, y in drawn]


@pytest.mark.parametrize("n", [25, 60, 125, 250])
@pytest.mark.parametrize("delta", [1e-4, 0.1, 1.0])
def test_risks_up_to_the_samples_own_size_are_those_of_the_true_spectrum(samples, n, delta):
    truth = ridge_risk(TASK, n, delta).test
    found = np.array([ridge_risk(task, n, delta).test for _, _, task in samples])
    error = found.std(ddof=1) / len(found) ** 0.5
    assert abs(found.mean() - truth) < 4 * error + 0.03 * truth


@pytest.mark.parametrize("k", [30, 120, 600])
def test_risks_on_random_features_are_those_of_the_true_spectrum(samples, k):
    truth = ridge_risk(TASK, 200, 0.1, k=k).test
    found = np.array([ridge_risk(task, 200, 0.1, k=k).test for _, _, task in samples])
    error = found.std(ddof=1) / len(found) ** 0.5
    assert abs(found.mean() - truth) < 4 * error + 0.05 * truth


def test_four_times_the_sample_is_predicted_by_its_laws(samples):
    truth = optimal_ridge(TASK, 1000)[1].test
    found = np.mean([optimal_ridge(task, 1000)[1].test for _, _, task in samples])
    assert found == pytest.approx(truth, rel=0.1)


def test_taking_the_samples_eigensystem_for_the_truth_promises_far_too_much(samples):
    """The plug-in estimate at the sample's own size: it is why GramTask exists."""
    truth = ridge_risk(TASK, 250, 0.01).test
    plugged = np.mean([ridge_risk(EigenTask.from_gram(K, y), 250, 0.01).test for K, y, _ in samples])
    assert plugged < 0.3 * truth


def test_at_the_samples_own_size_the_risk_is_the_leave_one_out_error(samples):
    K, y, task = samples[0]
    spectrum = GramSpectrum.of(K)
    for delta in (0.05, 0.3, 3.0):
        ridge = delta * spectrum.unit
        assert ridge_risk(task, 250, ridge).test == pytest.approx(spectrum.loo_error(y, delta), rel=2e-3)


def test_curves_are_measured_where_they_can_be_and_join_without_a_kink(samples):
    task = samples[0][2]
    edge = float(task._measured[0, 0])
    (z0, q0), (z1, q1) = task.degrees(edge * (1 - 1e-6)), task.degrees(edge * (1 + 1e-6))
    assert z0 == pytest.approx(0.9 * 250, rel=1e-4)
    assert (z0, q0) == pytest.approx((z1, q1), rel=1e-4)
    assert task.errors(edge * (1 - 1e-6)) == pytest.approx(task.errors(edge * (1 + 1e-6)), rel=1e-4)
    # q = z + κ dz/dκ holds on both sides of it.
    for kappa in (edge / 30, edge / 2, edge * 2, edge * 30):
        h = 1e-3
        (low, _), (here, q), (high, _) = (task.degrees(kappa * s) for s in (1 - h, 1, 1 + h))
        assert q == pytest.approx(here + (high - low) / (2 * h), rel=0.02)
    # b₂ = b₁ − κ db₁/dκ below the edge, where b₁ is an integral of b₂.
    for kappa in (edge / 300, edge / 3):
        h = 1e-3
        (low, _), (first, second), (high, _) = (task.errors(kappa * s) for s in (1 - h, 1, 1 + h))
        assert second == pytest.approx(first - (high - low) / (2 * h), rel=0.03)


def test_nothing_is_learned_at_coarse_resolutions(samples):
    _, y, task = samples[0]
    z, q = task.degrees(1e9 * task.trace)
    assert z == pytest.approx(1e-9, rel=0.01)
    assert q < 1e-15
    assert task.errors(1e9 * task.trace)[1] == pytest.approx(float(y.var()), rel=0.02)


def test_a_spectrum_that_ends_needs_no_law():
    task = EigenTask(torch.linspace(2, 1, 20).double(), torch.ones(20).double(), noise_variance=1.0)
    generator = torch.Generator().manual_seed(0)
    drawn = [gaussian(task, 200, generator) for _ in range(8)]
    tasks = [GramTask.of(GramSpectrum.of(x @ x.mT), y) for x, y in drawn]
    x, y = drawn[0]
    assert all((found.rank, found.law, len(found.spread())) == (20, None, 1) for found in tasks)
    assert tasks[0].degrees(0.0) == (20, 20)
    for n in (100, 200, 5000):
        risks = np.array([ridge_risk(found, n, 0.0).test for found in tasks])
        assert abs(risks.mean() - ridge_risk(task, n, 0.0).test) < 4 * risks.std(ddof=1) / len(risks) ** 0.5
    with pytest.raises(ValueError, match="K has rank 20 of 200"):
        measure_exponents(x @ x.mT, y)


def test_exponents_of_a_power_law_are_found_with_a_spread_that_holds_them():
    generator = torch.Generator().manual_seed(3)
    task = EigenTask.power_law(2.0, 1.8, 5000)  # a smaller α would show where it was cut
    found = []
    for _ in range(4):
        x, y = gaussian(task, 300, generator)
        found.append(measure_exponents(x @ x.mT, y[:, 0]))
    assert np.mean([f.alpha.exponent for f in found]) == pytest.approx(2.0, abs=0.05)
    assert np.mean([f.beta.exponent for f in found]) == pytest.approx(1.8, abs=0.15)
    assert all(f.beta.low <= f.beta.exponent <= f.beta.high for f in found)


def test_noise_flattens_beta_until_it_is_subtracted():
    x, y = gaussian(TASK, 300, torch.Generator().manual_seed(5))
    K = x @ x.mT
    raw, clean = measure_exponents(K, y), measure_exponents(K, y, noise_variance=0.08)
    assert raw.beta.exponent < clean.beta.exponent - 0.1
    with pytest.raises(ValueError, match="more than is left"):
        measure_exponents(K, y, noise_variance=5.0)


def test_a_quarter_of_the_digits_foretells_the_error_on_all():
    """What was 35 to 45 % too low, and worse, by the plug-in estimate."""
    images, labels = load_digits(return_X_y=True)
    x = torch.from_numpy(images) / 16
    y = torch.nn.functional.one_hot(torch.from_numpy(labels), 10).double()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    x, y = x[order], y[order]
    K = torch.exp(-torch.cdist(x, x) / 4)
    part, n, new = slice(0, 300), 1200, slice(1200, None)
    task = GramTask.of(GramSpectrum.of(K[part, part]), y[part])
    ridge = 0.05
    A = K[:n, :n] + ridge * torch.eye(n).double()
    mean = y[:n].mean(0)
    fitted = mean + K[new, :n] @ torch.cholesky_solve(y[:n] - mean, torch.linalg.cholesky(A))
    measured = float((fitted - y[new]).square().sum(1).mean())
    assert ridge_risk(task, n, ridge).test == pytest.approx(measured, rel=0.15)
    assert ridge_risk(EigenTask.from_gram(K[part, part], y[part] - y[part].mean(0)), n, ridge).test < 0.1 * measured


def test_too_few_samples_and_wrong_targets_are_refused():
    with pytest.raises(ValueError, match="20 or more samples"):
        GramTask.of(GramSpectrum.of(torch.eye(10)), torch.ones(10, 1))
    with pytest.raises(ValueError, match="columns of targets"):
        GramTask.of(GramSpectrum.of(torch.eye(30)), torch.ones(30).reshape(15, 2))


def test_mixtures_drawn_from_inner_products_have_the_risk_of_mixed_features():
    generator = torch.Generator().manual_seed(0)
    x, new = (torch.randn(n, 30, generator=generator, dtype=torch.float64) for n in (60, 200))
    y, wanted = x[:, :2] ** 2, new[:, :2] ** 2
    spectrum, cross, own = GramSpectrum.of(x @ x.mT), new @ x.mT, new.square().sum(1)
    K, k, delta, ours, theirs = x @ x.mT, 12, 3.0, [], []
    for seed in range(200):
        drawn = projected_predictions(spectrum, cross, own, y, {k: delta}, seed=seed)[k]
        ours.append(float((drawn - wanted).square().mean()))
        G = torch.randn(30, k, generator=generator, dtype=torch.float64) / k**0.5
        F = x @ G
        fitted = (new @ G) @ torch.linalg.inv(F.mT @ F + delta * torch.eye(k).double()) @ F.mT @ (y - y.mean(0))
        theirs.append(float((fitted + y.mean(0) - wanted).square().mean()))
    z = (np.mean(ours) - np.mean(theirs)) / np.hypot(np.std(ours), np.std(theirs)) * 200**0.5
    assert abs(z) < 4
    # New samples that a rank of 30 of 60 explains wholly have nothing of their own left.
    wide = projected_predictions(spectrum, cross, own, y, {4000: delta})[4000]
    whole = y.mean(0) + cross @ torch.linalg.inv(K + delta * torch.eye(60).double()) @ (y - y.mean(0))
    assert float((wide - whole).square().mean()) < 0.01 * float(whole.var())


def test_the_first_mixtures_of_many_are_those_of_few():
    x = torch.randn(40, 60, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum, y = GramSpectrum.of(x[:30] @ x[:30].mT), x[:30, :1]
    arguments = (spectrum, x[30:] @ x[:30].mT, x[30:].square().sum(1), y)
    both = projected_predictions(*arguments, {5: 1.0, 20: 0.5})
    assert both.keys() == {5, 20}
    assert not torch.equal(both[5], both[20])
    for wrong in ({0: 1.0}, {5: 0.0}):
        with pytest.raises(ValueError, match="projected_predictions needs"):
            projected_predictions(*arguments, wrong)
