import numpy as np
import pytest
import torch

from tangrams.data import CONFUSABLE_DIGITS, digits, nearest_classes, plant


def samples(n=200, classes=4):
    generator = torch.Generator().manual_seed(3)
    return torch.randn(n, 3, generator=generator), torch.arange(n) % classes


def test_digits_has_the_studys_sizes():
    data = digits(duplicates=20, seed=1)
    assert data.train.inputs.shape == (1367, 1, 8, 8)
    assert data.test.inputs.shape == (450, 1, 8, 8)
    assert data.train.inputs.dtype == torch.float32
    assert float(data.train.inputs.max()) == 1.0
    assert float(data.train.inputs.min()) == 0.0
    assert int(data.train.wrong.sum()) == round(0.05 * 1347)
    assert data.class_names == tuple("0123456789")
    assert len(data.test_dataset()) == 450


def test_digits_split_is_stratified_and_disjoint():
    data = digits(label_noise=0.0, duplicates=0)
    share = torch.bincount(data.train.original_labels).double() / 1347
    assert (share - torch.bincount(data.test.targets).double() / 450).abs().max() < 0.002
    both = torch.cat([data.train.inputs, data.test.inputs]).flatten(1)
    assert len(torch.unique(both, dim=0)) == 1797


def test_the_same_seed_plants_the_same_and_another_seed_another():
    one, two, other = digits(seed=5), digits(seed=5), digits(seed=6)
    assert torch.equal(one.train.inputs, two.train.inputs)
    assert torch.equal(one.train.labels, two.train.labels)
    assert torch.equal(one.train.duplicate_of, two.train.duplicate_of)
    assert not torch.equal(one.train.inputs, other.train.inputs)


def test_wrong_marks_exactly_the_changed_labels():
    x, y = samples()
    planted = plant(x, y, label_noise=0.1, duplicates=7, seed=2)
    assert torch.equal(planted.wrong, planted.labels != planted.original_labels)
    assert int(planted.wrong.sum()) == 20
    assert torch.equal(planted.original_labels[:200], y)
    assert torch.equal(planted.inputs[:200], x)


def test_copies_are_bitwise_copies_of_distinct_rightly_labelled_originals():
    x, y = samples()
    planted = plant(x, y, label_noise=0.2, duplicates=30, seed=2)
    pairs = planted.duplicate_pairs
    assert pairs.shape == (30, 2)
    assert len(torch.unique(pairs[:, 0])) == 30
    assert torch.equal(pairs[:, 1], torch.arange(200, 230))
    assert torch.equal(planted.inputs[pairs[:, 0]], planted.inputs[pairs[:, 1]])
    assert torch.equal(planted.labels[pairs[:, 0]], planted.labels[pairs[:, 1]])
    assert not planted.wrong[pairs].any()
    assert planted.duplicate.sum() == 30


def test_uniform_flips_reach_every_other_class_about_equally():
    x, y = samples(40_000)
    planted = plant(x, y, label_noise=0.5, duplicates=0)
    wrong = planted.wrong
    shift = (planted.labels - planted.original_labels)[wrong] % 4
    counts = torch.bincount(shift, minlength=4).double()
    assert counts[0] == 0
    expected, deviation = 20_000 / 3, (20_000 * (1 / 3) * (2 / 3)) ** 0.5
    assert ((counts[1:] - expected).abs() / deviation).max() < 4


def test_confusable_flips_go_only_where_the_mapping_says():
    data = digits(confusable=CONFUSABLE_DIGITS)
    wrong = data.train.wrong
    expected = [CONFUSABLE_DIGITS[int(c)] for c in data.train.original_labels[wrong]]
    assert data.train.labels[wrong].tolist() == expected
    assert all(CONFUSABLE_DIGITS[c] != c for c in range(10))


def test_a_class_may_be_mistaken_for_one_of_several():
    x, y = samples(4000)
    planted = plant(x, y, label_noise=0.5, duplicates=0, confusable={0: (1, 2), 1: 0, 2: [3], 3: (2, 0)})
    wrong = planted.wrong
    flips = torch.stack([planted.original_labels, planted.labels], dim=1)[wrong]
    seen = {tuple(pair) for pair in flips.tolist()}
    assert seen == {(0, 1), (0, 2), (1, 0), (2, 3), (3, 2), (3, 0)}


def test_more_copies_leave_the_wrong_labels_where_they_were():
    x, y = samples()
    few, many = plant(x, y, duplicates=1), plant(x, y, duplicates=50)
    assert torch.equal(few.labels[:200], many.labels[:200])
    assert torch.equal(few.duplicate_of, many.duplicate_of[:201])


def test_planting_changes_nothing_of_the_callers():
    x, y = samples()
    x_before, y_before = x.clone(), y.clone()
    state = torch.get_rng_state()
    planted = plant(x.numpy(), y.numpy(), label_noise=0.3)
    planted.inputs.zero_()
    planted.labels.zero_()
    assert torch.equal(x, x_before)
    assert torch.equal(y, y_before)
    assert torch.equal(state, torch.get_rng_state())


def test_nearest_classes_names_the_class_with_the_closest_mean():
    x = torch.tensor([[0.0], [1.0], [10.0], [12.0]])
    assert nearest_classes(x, torch.arange(4)) == {0: 1, 1: 0, 2: 3, 3: 2}


def test_views_for_training_carry_the_given_labels():
    x, y = samples(10)
    planted = plant(x, y, label_noise=0.5, duplicates=0)
    assert torch.equal(planted.labelled().targets, planted.labels)
    assert planted.dataset()[3][1] == planted.labels[3]
    assert len(planted) == 10


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.zeros(3, 2), torch.tensor([0, 1]), {}, "a label for every sample"),
        (torch.zeros(2, 2), torch.tensor([0.0, 1.0]), {}, "class indices"),
        (torch.zeros(2, 2), torch.tensor([0, -1]), {}, "-1 at sample 1"),
        (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), {}, "no samples"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), {"label_noise": 1.0}, "label_noise in"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), {"label_noise": float("nan")}, "label_noise in"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), {"duplicates": -1}, "duplicates ≥ 0"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), {"duplicates": 3}, "cannot copy 3"),
        (torch.zeros(2, 2), torch.tensor([1, 1]), {}, "two classes"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), {"confusable": {0: 1}}, "class 1"),
        (torch.zeros(2, 2), torch.tensor([0, 1]), {"confusable": {0: 1, 1: 1}}, "class 1"),
    ],
)
def test_bad_input_is_refused_by_name(x, y, options, message):
    with pytest.raises(ValueError, match=message):
        plant(x, y, **{"duplicates": 0} | options)


def test_numpy_in_float64_stays_float64():
    planted = plant(np.ones((4, 2)), np.array([0, 1, 0, 1], dtype=np.uint8), duplicates=0, label_noise=0.5)
    assert planted.inputs.dtype == torch.float64
    assert planted.labels.dtype == torch.int64
