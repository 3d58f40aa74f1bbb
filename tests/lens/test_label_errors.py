"""Label errors: margins by refitting, calibration against a known mixture, baselines."""

import pytest
import torch
from scipy.stats import binomtest

from tangrams.learners.kernel_ridge import one_hot
from tangrams.lens.label_errors import (
    ErrorCount,
    LabelCalibration,
    calibrate_label_errors,
    count_errors,
    find_label_errors,
    find_target_errors,
    flipped_margins,
    label_margins,
    neighbour_votes,
    wilson_interval,
)
from tangrams.operators.ridge import GramSpectrum


def blobs(n=240, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    x = torch.randn(n, 12, generator=generator, dtype=torch.float64)
    x[torch.arange(n), labels] += 3
    wrong = torch.randperm(n, generator=generator)[: n // 20]
    given = labels.clone()
    given[wrong] = (labels[wrong] + 1) % classes
    return x, labels, given, wrong


def test_scores_are_the_margins_of_models_that_did_not_see_the_label():
    x, _, given, _ = blobs(45)
    K = x @ x.T + 1
    errors = find_label_errors(GramSpectrum.of(K), given, 3, delta=0.2)
    ridge = 0.2 * float(K.diagonal().mean())
    for i in (0, 7, 44):
        keep = torch.arange(45) != i
        Y = one_hot(given[keep], 3)
        dual = torch.linalg.inv(K[keep][:, keep] + ridge * torch.eye(44).double()) @ (Y - Y.mean(0))
        scores = Y.mean(0) + K[i, keep] @ dual
        own = float(scores[given[i]])
        rival = max(float(s) for c, s in enumerate(scores) if c != int(given[i]))
        assert float(errors.score[i]) == pytest.approx(own - rival, abs=1e-9)
        assert int(errors.suggested[i]) == int(scores.argmax())


def test_planted_errors_come_first_and_get_their_label_back():
    x, labels, given, wrong = blobs()
    errors = find_label_errors(GramSpectrum.of(x @ x.T), given, 3)
    first = set(errors.order[: len(wrong)].tolist())
    assert len(first & set(wrong.tolist())) >= len(wrong) - 2
    assert float((errors.suggested[wrong] == labels[wrong]).double().mean()) > 0.9
    assert errors.count == int((errors.score < 0).sum())


def test_a_flagged_label_is_one_where_another_class_is_preferred():
    x, _, given, _ = blobs()
    errors = find_label_errors(GramSpectrum.of(x @ x.T), given, 3)
    torch.testing.assert_close(errors.flagged, errors.suggested != given)


def test_margins_of_a_table_done_by_hand():
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.5, 0.2]], dtype=torch.float64)
    found = label_margins(scores, torch.tensor([0, 2]))
    torch.testing.assert_close(found, torch.tensor([0.5, -0.3], dtype=torch.float64))


def test_outlying_targets_of_a_regression_are_flagged_whatever_their_unit():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(150, 5, generator=generator, dtype=torch.float64)
    y = x @ torch.randn(5, 1, generator=generator, dtype=torch.float64)
    y += 0.1 * torch.randn(150, 1, generator=generator, dtype=torch.float64)
    y[[3, 80]] += 5
    spectrum = GramSpectrum.of(x @ x.T)
    errors = find_target_errors(spectrum, y)
    assert set(errors.order[:2].tolist()) == {3, 80}
    assert set(torch.nonzero(errors.flagged)[:, 0].tolist()) == {3, 80}
    scaled = find_target_errors(spectrum, 1000 * y, delta=errors.delta)
    torch.testing.assert_close(scaled.score, errors.score, rtol=1e-9, atol=1e-9)


def draw(n, centre, generator):
    return centre + 0.5 * torch.randn(n, generator=generator, dtype=torch.float64)


def test_the_number_of_errors_is_unbiased_and_its_interval_covers_it():
    """100 of 2000 wrong, one in twenty of the right ones suspect as well: z-score over 60 draws."""
    counts, covered = [], 0
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        margins = torch.cat([draw(100, -0.6, generator), draw(1900, 0.8, generator)])
        count = ErrorCount(margins, draw(300, -0.6, generator), draw(600, 0.8, generator))
        counts.append(count.num_errors())
        low, high = count.bootstrap(seed=seed).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
        covered += bool(low <= 100 <= high)
    counts = torch.tensor(counts)
    assert abs(float(counts.mean()) - 100) < 3 * float(counts.std()) / 60**0.5
    assert covered >= 51  # of 57 expected, three standard deviations below


def test_precision_is_the_number_of_errors_found_over_the_number_of_suspects():
    generator = torch.Generator().manual_seed(0)
    wrong, right = draw(100, -0.6, generator), draw(1900, 0.8, generator)
    margins = torch.cat([wrong, right])
    count = ErrorCount(margins, draw(3000, -0.6, generator), draw(3000, 0.8, generator))
    calibration = LabelCalibration(margins.sort().values, count.flipped.sort().values, count)
    flagged = int((margins < 0).sum())
    counts = torch.tensor([flagged, 400])
    threshold = margins.sort().values[counts - 1]
    true = torch.tensor([float((wrong <= t).double().sum()) / int(k) for t, k in zip(threshold, counts, strict=True)])
    low, high = calibration.intervals(counts).unbind(1)
    assert bool(((low <= true) & (true <= high)).all())
    torch.testing.assert_close(calibration.precision(counts).float(), true, atol=0.1, rtol=0)
    assert float(calibration.recall(counts)[0]) == pytest.approx(float((count.flipped < 0).double().mean()), abs=0.01)


def test_nothing_is_counted_where_flips_are_no_more_suspect_than_right_labels():
    margins = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    count = ErrorCount(margins, margins, margins)
    assert count.num_errors() == 0
    assert count.false_alarms == 0.5


def test_errors_among_blobs_are_counted_by_a_kernel_without_labels():
    x, _, given, wrong = blobs(300)
    held_out, labels, *_ = blobs(300, seed=1)
    spectrum = GramSpectrum.of(x @ x.T)
    count = count_errors(spectrum, held_out @ x.T, given, labels, 3)
    assert count.num_errors() == pytest.approx(len(wrong), abs=10)
    errors = find_label_errors(spectrum, given, 3)
    calibration = calibrate_label_errors(spectrum, given, 3, errors, count)
    assert float(calibration.recall(torch.tensor([errors.count]))) > 0.9


def test_flips_are_as_many_as_asked_for_and_the_same_for_the_same_seed():
    x, _, given, _ = blobs(300)
    spectrum = GramSpectrum.of(x @ x.T)
    errors = find_label_errors(spectrum, given, 3)
    first, again, other = (flipped_margins(spectrum, given, 3, errors, repeats=5, seed=s) for s in (0, 0, 1))
    assert len(first) == 15
    torch.testing.assert_close(first, again)
    assert not torch.equal(first, other)
    assert float((first < 0).double().mean()) > 0.9


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (10, 10), (450, 1000)])
def test_wilson_intervals_agree_with_scipy(k, n):
    low, high = wilson_interval(k, n)
    want = binomtest(k, n).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((want.low, want.high), abs=1e-6)


def test_wilson_without_observations_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_neighbour_votes_agree_with_a_loop():
    x, _, given, _ = blobs(50)
    votes = neighbour_votes(x, given, num_neighbours=4)
    for i in range(50):
        distance = (x - x[i]).norm(dim=1)
        distance[i] = torch.inf
        nearest = distance.argsort()[:4]
        assert float(votes[i]) == pytest.approx(float((given[nearest] == given[i]).double().mean()))


@pytest.mark.parametrize(
    ("labels", "classes", "match"),
    [
        (torch.zeros(5, dtype=torch.int64), 3, "one label per sample"),
        (torch.zeros(45, dtype=torch.int64), 1, "two classes"),
        (torch.full((45,), 3), 3, r"\[0, 3\)"),
        (torch.full((45,), -1), 3, r"\[0, 3\)"),
    ],
)
def test_labels_that_do_not_fit_are_named(labels, classes, match):
    x, *_ = blobs(45)
    with pytest.raises(ValueError, match=match):
        find_label_errors(GramSpectrum.of(x @ x.T), labels, classes)


def test_targets_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r"targets \(4, k\)"):
        find_target_errors(GramSpectrum.of(torch.eye(4)), torch.zeros(3, 1))
