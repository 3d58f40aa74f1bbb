"""Smoother explanations: exact sums, and no support from a sample's own wrong label."""

import pytest
import torch

from tangrams.lens.smoother import smoother_explanations
from tangrams.operators.ridge import GramSpectrum


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 8, generator=generator, dtype=torch.float64)
    test = torch.randn(11, 8, generator=generator, dtype=torch.float64)
    targets = torch.nn.functional.one_hot(x[:, :3].argmax(1), 3).double()
    return GramSpectrum.of(x @ x.T), test @ x.T, targets


def test_parts_add_up_to_the_model_refitted_the_slow_way(model):
    spectrum, cross, targets = model
    found = smoother_explanations(spectrum, cross, targets, delta=0.7)
    K = spectrum.eigenvectors * spectrum.eigenvalues @ spectrum.eigenvectors.T
    mean = targets.mean(0)
    slow = mean + cross @ torch.linalg.inv(K + 0.7 * spectrum.unit * torch.eye(60).double()) @ (targets - mean)
    torch.testing.assert_close(found.base + found.contributions.sum(1), slow.max(1).values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.output, slow.max(1).values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.column, slow.argmax(1))
    assert float(found.gap().max()) < 1e-9


def test_supporters_and_opposers_are_the_extreme_contributions(model):
    found = smoother_explanations(*model)
    order = found.contributions.argsort(1, descending=True)
    torch.testing.assert_close(found.supporters(5), order[:, :5])
    torch.testing.assert_close(found.opposers(5), order.flip(1)[:, :5])
    assert found.supporters(1000).shape == (11, 60)


def test_chosen_columns_are_explained(model):
    spectrum, cross, targets = model
    columns = torch.arange(11) % 3
    found = smoother_explanations(spectrum, cross, targets, columns=columns)
    torch.testing.assert_close(found.column, columns)
    torch.testing.assert_close(found.base, targets.mean(0)[columns])


def test_weights_do_not_depend_on_the_labels(model):
    """Flipping one label changes that sample's contributions and, through the mean, nothing but a constant factor."""
    spectrum, cross, targets = model
    columns = torch.zeros(11, dtype=torch.int64)
    before = smoother_explanations(spectrum, cross, targets, columns=columns).contributions
    flipped = targets.clone()
    flipped[7] = flipped[7].roll(1)
    after = smoother_explanations(spectrum, cross, flipped, columns=columns).contributions
    weights = spectrum.weights(cross, 1.0)
    shift = (targets.mean(0) - flipped.mean(0))[0]
    others = torch.arange(60) != 7
    torch.testing.assert_close((after - before)[:, others], weights[:, others] * shift, rtol=1e-9, atol=1e-12)


def test_cancellation_is_one_where_all_parts_agree():
    spectrum = GramSpectrum.of(torch.eye(4).double())
    targets = torch.tensor([[1.0], [0.0], [0.0], [0.0]]).double()
    found = smoother_explanations(spectrum, torch.tensor([[1.0, 0, 0, 0]]).double(), targets)
    assert float(found.cancellation()) == pytest.approx(1.0)


def test_busiest_counts_the_most_frequent_supporter(model):
    found = smoother_explanations(*model)
    counts = torch.bincount(found.supporters(3).flatten(), minlength=60)
    assert found.busiest(3) == pytest.approx(int(counts.max()) / 11)


def test_shapes_that_do_not_belong_together_are_refused(model):
    spectrum, cross, targets = model
    with pytest.raises(ValueError, match=r"cross \(m, 60\)"):
        smoother_explanations(spectrum, cross[:, :50], targets)
    with pytest.raises(ValueError, match=r"targets \(60, C\)"):
        smoother_explanations(spectrum, cross, targets[:50])
