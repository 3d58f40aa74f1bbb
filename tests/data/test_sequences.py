"""Functions of a query and a set of keys."""

from functools import partial

import pytest
import torch

from tangrams.data import correlation_cosine, correlation_power, key_power, spherical_sequences


def test_points_are_uniform_on_the_sphere_and_the_seed_fixes_them():
    split = spherical_sequences(key_power, 2000, 10, dim=5, num_keys=3, seed=1)
    query, keys = split.train.inputs
    torch.testing.assert_close(keys.norm(dim=2), torch.ones(2000, 3, dtype=torch.float64))
    points = torch.cat([query, keys.flatten(0, 1)])
    second = points.mT @ points / len(points) * 5
    assert float((second - torch.eye(5)).abs().max()) < 0.1
    again = spherical_sequences(key_power, 2000, 10, dim=5, num_keys=3, seed=1)
    assert torch.equal(again.test.targets, split.test.targets)


def test_functions_are_means_over_keys_of_their_formulas():
    query, keys = torch.tensor([[1.0, 0.0]]), torch.tensor([[[0.5, 2.0], [-1.0, 1.0]]])
    beta = torch.tensor([0.0, 1.0])
    assert float(key_power(query, keys, beta, power=3)) == pytest.approx((8 + 1) / 2)
    assert float(correlation_power(query, keys, beta, power=2)) == pytest.approx((0.25 * 2 + 1) / 2)
    expected = (torch.cos(torch.tensor(1.0)) + torch.cos(torch.tensor(-2.0))) / 2
    assert float(correlation_cosine(query, keys, beta, frequency=2.0)) == pytest.approx(float(expected))


def test_noise_is_on_training_targets_alone():
    make = partial(spherical_sequences, correlation_power, 500, 20, dim=4, num_keys=3)
    noisy, clean = make(noise=0.5), make()
    assert torch.equal(noisy.test.targets, clean.test.targets)
    assert abs(float((noisy.train.targets - clean.train.targets).std()) / 0.5 - 1) < 0.15


@pytest.mark.parametrize("options", [{"dim": 0}, {"num_keys": 0}, {"noise": -1.0}], ids=lambda o: next(iter(o)))
def test_impossible_problems_are_refused(options):
    with pytest.raises(ValueError, match="spherical_sequences needs"):
        spherical_sequences(key_power, 5, 5, **options)
