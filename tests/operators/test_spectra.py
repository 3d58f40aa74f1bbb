"""Numbers that describe a spectrum against their definitions and known laws."""

import math

import pytest
import torch

from tangrams.operators import FeatureMatrix
from tangrams.operators.spectra import (
    effective_rank,
    fit_power_law,
    gram_spectrum,
    hill_alpha,
    participation_ratio,
    spectral_entropy,
    stable_rank,
)


def test_hill_follows_its_formula():
    values = torch.rand(31, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ascending = values.sort().values.tolist()
    for tail in (0.5, 0.25, 1.0):
        i = math.floor(31 * (1 - tail))
        n = 31 - i
        expected = 1 + n / (sum(math.log(v) for v in ascending[i:]) - n * math.log(ascending[i]))
        assert hill_alpha(values, tail=tail) == pytest.approx(expected, rel=1e-12)


def test_hill_recovers_the_exponent_of_pareto_samples():
    generator = torch.Generator().manual_seed(1)
    scores = []
    for _ in range(50):
        uniform = torch.rand(2000, generator=generator, dtype=torch.float64)
        pareto = uniform ** (-1 / (2.5 - 1))  # density exponent 2.5
        scores.append((hill_alpha(pareto, tail=0.5) - 2.5) / (1.5 / 1000**0.5))
    scores = torch.tensor(scores)
    assert abs(float(scores.mean())) < 4 / 50**0.5
    assert 0.7 < float(scores.std()) < 1.4


def test_hill_ignores_scale_order_and_zeros():
    values = torch.rand(40, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.1
    alpha = hill_alpha(values)
    assert hill_alpha(7 * values.flip(0)) == pytest.approx(alpha, rel=1e-12)
    assert hill_alpha(torch.cat([values, torch.zeros(9), torch.full((3,), 1e-9)])) == pytest.approx(alpha, rel=1e-12)


def test_random_matrices_have_the_exponent_of_the_sheet():
    W = torch.randn(256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert hill_alpha(torch.linalg.svdvals(W).square()) == pytest.approx(2.12, abs=0.1)
    W = torch.randn(256, 1024, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert hill_alpha(torch.linalg.svdvals(W).square()) == pytest.approx(3.48, abs=0.15)


def test_power_laws_are_recovered_in_their_window():
    ranks = torch.arange(1, 201, dtype=torch.float64)
    values = torch.where(ranks <= 20, 3 * ranks**-0.5, 3 * 20**1.5 * ranks**-2.0)
    assert fit_power_law(values.flip(0), 1, 20).exponent == pytest.approx(0.5, abs=1e-12)
    assert fit_power_law(values, 25, 200).exponent == pytest.approx(2.0, abs=1e-12)
    law = fit_power_law(values, 1, 20)
    assert law.scale == pytest.approx(3)
    assert law.r_squared == pytest.approx(1)
    assert fit_power_law(values).r_squared < 1
    assert fit_power_law(torch.cat([values, torch.zeros(5)])) == fit_power_law(values)


def test_ranks_of_known_spectra():
    flat = torch.tensor([2.0, 2, 2, 2, 0, 0], dtype=torch.float64)
    assert effective_rank(flat) == pytest.approx(4)
    assert stable_rank(flat) == pytest.approx(4)
    assert participation_ratio(flat) == pytest.approx(4)
    assert spectral_entropy(flat) == pytest.approx(math.log(4))
    one = torch.tensor([1.0, -1e-18], dtype=torch.float64)
    assert effective_rank(one) == stable_rank(one) == participation_ratio(one) == 1
    values = torch.tensor([3.0, 1.0])
    assert spectral_entropy(values) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), rel=1e-6)
    assert participation_ratio(values) == pytest.approx(16 / 10)
    assert stable_rank(values) == pytest.approx(4 / 3)


def test_the_gram_spectrum_is_descending_and_not_negative():
    F = torch.randn(9, 4, dtype=torch.float64)
    phi = FeatureMatrix(rows=F)
    values = gram_spectrum(phi @ phi.mT)
    torch.testing.assert_close(values[:4], torch.linalg.svdvals(F).square())
    assert float(values[4:].max()) < 1e-12 * float(values[0])
    assert float(values.min()) >= 0
    assert gram_spectrum(F @ F.mT, 2).shape == (2,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hill_alpha(torch.tensor([1.0])), "two positive"),
        (lambda: hill_alpha(torch.tensor([1.0, torch.nan])), "eigenvalue 1 is not finite"),
        (lambda: hill_alpha(torch.ones(5)), "equal"),
        (lambda: hill_alpha(torch.rand(5), tail=0.0), "tail"),
        (lambda: fit_power_law(torch.rand(5), 3, 3), "first < last"),
        (lambda: fit_power_law(torch.rand(5), 1, 9), "first < last"),
        (lambda: fit_power_law(torch.tensor([1.0, 0.5, 0.0]), 1, 3), "not positive"),
        (lambda: effective_rank(torch.zeros(3)), "zero"),
        (lambda: stable_rank(torch.zeros(3)), "zero"),
        (lambda: participation_ratio(torch.zeros(3)), "zero"),
        (lambda: spectral_entropy(torch.zeros(0)), "vector"),
    ],
)
def test_bad_spectra_are_clear_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()
