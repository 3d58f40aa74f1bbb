import hashlib

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from tangrams.data import Labelled, as_dataset, fingerprint, split_item, stack_samples
from tangrams.data.samples import hash_sample

X, Y = torch.arange(6.0).reshape(3, 2), torch.tensor([0, 1, 0])


def digest(item):
    h = hashlib.sha256()
    hash_sample(item, h)
    return h.hexdigest()


@pytest.mark.parametrize(
    ("item", "inputs", "target"),
    [
        (X[0], X[0], None),
        ((X[0],), X[0], None),
        ((X[0], 1), X[0], 1),
        ((X[0], X[1], 1), (X[0], X[1]), 1),
        (Labelled(X[0], Y[0]), X[0], Y[0]),
        ({"a": 1, "b": 2}, {"a": 1, "b": 2}, None),
        ({"a": 1, "y": 2}, {"a": 1}, 2),
        ({"a": 1, "y": 2, "labels": 3}, {"a": 1, "y": 2}, 3),
    ],
)
def test_an_item_splits_into_inputs_and_target(item, inputs, target):
    got = split_item(item)
    assert repr(got) == repr((inputs, target))


@pytest.mark.parametrize("item", [(), {"labels": 1}])
def test_an_item_without_inputs_is_refused(item):
    with pytest.raises(ValueError, match="item"):
        split_item(item)


def test_stacking_keeps_tuples_and_dicts():
    samples = [{"a": X[i], "b": (i, float(i), np.float32(i))} for i in range(3)]
    batch = stack_samples(samples)
    assert torch.equal(batch["a"], X)
    assert [t.dtype for t in batch["b"]] == [torch.int64, torch.float64, torch.float32]
    assert batch["b"][0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("samples", "error", "message"),
    [
        ([], ValueError, "no samples"),
        ([torch.zeros(2), torch.zeros(3)], ValueError, "sample 1 .*pad them"),
        ([torch.zeros(2), torch.zeros(2).double()], ValueError, "float64"),
        ([{"a": 1}, {"b": 1}], ValueError, "keys"),
        ([(1, 2), (1,)], ValueError, "tuple of 2"),
        ([object()], TypeError, "object"),
        (["text"], TypeError, "str"),
    ],
)
def test_samples_that_do_not_stack_are_refused(samples, error, message):
    with pytest.raises(error, match=message):
        stack_samples(samples)


def test_tensors_labelled_and_dicts_become_datasets_of_samples():
    assert torch.equal(as_dataset(X)[1], X[1])
    labelled = as_dataset(Labelled({"a": X, "b": (X, Y)}, Y))
    assert len(labelled) == 3
    item = labelled[1]
    assert isinstance(item, Labelled)
    assert item.inputs["b"][1] == 1
    assert item.targets == 1
    assert as_dataset({"a": X})[2]["a"].tolist() == [4.0, 5.0]
    assert as_dataset(dataset := TensorDataset(X, Y)) is dataset
    with pytest.raises(IndexError):
        labelled[3]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(X)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (DataLoader(TensorDataset(X)), TypeError, "dataset"),
        (Stream(), TypeError, "IterableDataset"),
        ((X, Y), TypeError, "Labelled"),
        (3, TypeError, "int"),
        ("abc", TypeError, "str"),
        (Labelled(X, Y[:2]), ValueError, "number of samples"),
    ],
)
def test_what_is_no_map_style_dataset_is_refused(data, error, message):
    with pytest.raises(error, match=message):
        as_dataset(data)


def test_fingerprints_see_value_dtype_shape_structure_and_order():
    base = TensorDataset(X, Y)
    changed = X.clone()
    changed[2, 1] += 1e-6 * changed[2, 1]
    others = [
        TensorDataset(changed, Y),
        TensorDataset(X.double(), Y),
        TensorDataset(X.reshape(3, 1, 2), Y),
        TensorDataset(X, Y.flip(0).roll(1)),
        TensorDataset(X),
        TensorDataset(X.flip(0), Y.flip(0)),
        TensorDataset(X[:2], Y[:2]),
        [{"x": X[i], "y": Y[i]} for i in range(3)],
    ]
    prints = [fingerprint(data) for data in [base, *others]]
    assert len(set(prints)) == len(prints)
    assert fingerprint([(x, y) for x, y in zip(X, Y, strict=True)]) == prints[0]
    assert fingerprint(TensorDataset(X.mT.contiguous().mT, Y)) == prints[0]


def test_items_do_not_run_into_each_other():
    assert digest(("ab", "c")) != digest(("a", "bc"))
    assert digest((X[0], X[1])) != digest(torch.cat([X[0], X[1]]))
    assert digest(torch.zeros(0, 3)) != digest(torch.zeros(3, 0))
    assert digest(None) != digest("None")
    assert digest(torch.tensor([True])) != digest(torch.tensor([1], dtype=torch.uint8))
    assert digest(torch.zeros(2, dtype=torch.bfloat16)) != digest(torch.zeros(2, dtype=torch.float16))
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


def test_arrays_of_any_layout_are_leaves():
    base = np.arange(6.0).reshape(2, 3)
    frozen = base.copy()
    frozen.flags.writeable = False
    for array in (base[:, ::-1][:, ::-1], np.asfortranarray(base), base.astype(">f8"), frozen, torch.from_numpy(base)):
        assert digest(array) == digest(base)
    assert stack_samples([np.float64(1), np.float64(2)]).tolist() == [1.0, 2.0]
