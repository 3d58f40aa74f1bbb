"""Label errors: margins by refitting, calibration against a known mixture, baselines."""

import pytest
import torch
from scipy.stats import binomtest

from tangrams.learners.kernel_ridge import one_hot
from tangrams.lens.label_errors import (
    LabelCalibration,
    calibrate_label_errors,
    find_label_errors,
    find_target_errors,
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


def test_calibration_recovers_a_mixture_that_it_knows_the_parts_of():
    generator = torch.Generator().manual_seed(0)

    def draw(n, centre):
        return (centre + 0.4 * torch.randn(n, generator=generator, dtype=torch.float64)).sort().values

    wrong, right = draw(100, -0.6), draw(1900, 0.8)
    margins = torch.cat([wrong, right]).sort().values
    calibration = LabelCalibration(margins, draw(4000, -0.6), draw(4000, 0.8))
    assert calibration.num_errors() == pytest.approx(100, rel=0.1)
    flagged = int((margins < 0).sum())
    counts = torch.tensor([20, flagged])
    true = torch.tensor([float((wrong <= margins[k - 1]).sum()) / k for k in counts])
    torch.testing.assert_close(calibration.precision(counts).float(), true, atol=0.05, rtol=0)
    low, high = calibration.intervals(counts).unbind(1)
    assert bool(((low <= true) & (true <= high)).all())
    assert float(calibration.recall(counts)[1]) == pytest.approx(float((wrong < 0).double().mean()), abs=0.05)


def test_flips_are_found_where_classes_are_apart():
    x, _, given, _ = blobs(300)
    spectrum = GramSpectrum.of(x @ x.T)
    errors = find_label_errors(spectrum, given, 3)
    held_out, labels, *_ = blobs(300, seed=1)
    Y = one_hot(given, 3)
    scores = Y.mean(0) + held_out @ x.T @ spectrum.dual(Y, errors.delta)
    calibration = calibrate_label_errors(spectrum, given, 3, errors, label_margins(scores, labels), repeats=5)
    assert len(calibration.flipped) == 15
    assert float(calibration.recall(torch.tensor([errors.count]))) > 0.9
    again = calibrate_label_errors(spectrum, given, 3, errors, label_margins(scores, labels), repeats=5)
    torch.testing.assert_close(again.flipped, calibration.flipped)


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
