"""Duplicates and subsets."""

import pytest
import torch

from tangrams.learners.kernel_ridge import KernelRidge
from tangrams.lens.redundancy import (
    exact_duplicates,
    k_centre_order,
    near_duplicates,
    subset_curve,
    subset_predictions,
)
from tangrams.operators.ridge import GramSpectrum


def samples(n=80, d=6, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_equal_inputs_are_grouped_and_almost_equal_ones_are_not():
    x = samples(10)
    x[4], x[9], x[6] = x[1], x[1], x[2] + 1e-12
    x[8] = x[0]
    assert exact_duplicates(x) == [[0, 8], [1, 4, 9]]


def test_all_inputs_of_a_sample_must_be_equal():
    x, ids = samples(4), torch.tensor([0, 1, 2, 3])
    x[2] = x[0]
    assert exact_duplicates(x, ids) == []
    assert exact_duplicates(x, ids % 2) == [[0, 2]]


def test_views_and_bool_inputs_are_hashed_by_value():
    x = samples(6).T.contiguous().T
    x[5] = x[3]
    assert exact_duplicates(x) == [[3, 5]]
    assert exact_duplicates(torch.tensor([[True], [False], [True]])) == [[0, 2]]


def test_inputs_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="same number"):
        exact_duplicates(samples(4), samples(5))


def test_a_near_copy_stands_out_by_the_cosine_of_hat_rows():
    x = samples(150, 40)
    x[149] = x[10] + 0.02 * samples(1, 40, seed=1)[0]
    spectrum = GramSpectrum.of(x @ x.T)
    found = near_duplicates(spectrum, 0.5, quantile=0.999)
    assert found.pairs.tolist() == [[10, 149]]
    H = spectrum.hat(0.5)
    slow = float(torch.nn.functional.cosine_similarity(H[10], H[149], dim=0))
    assert float(found.similarity[0]) == pytest.approx(slow, abs=1e-10)
    assert found.threshold == pytest.approx((1 + found.quantile_value) / 2)


def test_exact_copies_are_left_out_of_the_near_ones():
    x = samples(150, 40)
    x[149] = x[10]
    found = near_duplicates(GramSpectrum.of(x @ x.T), 0.5, quantile=0.999, exclude=[[10, 149]])
    assert len(found.pairs) == 0


def test_without_near_copies_none_are_reported():
    x = samples(200, 50)
    assert len(near_duplicates(GramSpectrum.of(x @ x.T), 0.5).pairs) == 0


def test_every_next_centre_is_the_farthest_from_those_before():
    x = samples(30)
    order = k_centre_order(x @ x.T).tolist()
    assert sorted(order) == list(range(30))
    assert order[0] == int((x - x.mean(0)).norm(dim=1).argmin())
    for position in range(1, 30):
        distance = torch.cdist(x, x[order[:position]]).min(1).values
        assert float(distance[order[position]]) == pytest.approx(float(distance.max()), abs=1e-9)


def test_samples_to_come_last_do():
    x = samples(30)
    last = torch.zeros(30, dtype=torch.bool)
    last[[3, 17, 29]] = True
    assert set(k_centre_order(x @ x.T, last=last)[-3:].tolist()) == {3, 17, 29}


def test_a_subset_model_is_the_estimator_on_these_samples():
    x, new = samples(40), samples(9, seed=1)
    y = samples(40, 2, seed=2)
    index = torch.tensor([5, 1, 30, 22, 8, 9])
    model = KernelRidge(delta=0.3).fit(x[index], y[index])
    found = subset_predictions(x @ x.T, new @ x.T, y, index, 0.3)
    torch.testing.assert_close(found, torch.from_numpy(model.predict(new)), rtol=1e-9, atol=1e-9)


def test_the_curve_ends_at_the_full_model_and_follows_the_order():
    x, new = samples(60), samples(20, seed=1)
    y = x[:, :1]
    order = torch.arange(60).flip(0)

    def score(outputs):
        return -float((outputs - new[:, :1]).square().mean())

    curve = subset_curve(x @ x.T, new @ x.T, y, score, order, 0.1, fractions=(0.1, 0.5, 1.0), repeats=3)
    full = score(subset_predictions(x @ x.T, new @ x.T, y, torch.arange(60), 0.1))
    assert curve.full == pytest.approx(full)
    assert float(curve.chosen[-1]) == pytest.approx(full, rel=1e-6)
    prefix = score(subset_predictions(x @ x.T, new @ x.T, y, order[:6], 0.1))
    assert float(curve.chosen[0]) == pytest.approx(prefix, rel=1e-6)
    assert curve.random.shape == (3, 3)
    again = subset_curve(x @ x.T, new @ x.T, y, score, order, 0.1, fractions=(0.1, 0.5, 1.0), repeats=3)
    torch.testing.assert_close(curve.random, again.random)


def test_grams_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square"):
        k_centre_order(torch.ones(3, 2))
    with pytest.raises(ValueError, match="three samples"):
        near_duplicates(GramSpectrum.of(torch.eye(2)), 1.0)
