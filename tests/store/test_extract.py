"""From a feature map and a dataset to a store."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tangrams.data import Labelled, fingerprint
from tangrams.features import TangentFeatures
from tangrams.operators import CountSketch
from tangrams.store import FeatureStore, StoredValueError, StoreMismatchError


class Items(Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.BatchNorm1d(3), nn.Linear(3, 2)).double()


@pytest.fixture
def x():
    return torch.randn(11, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("output", ["all", "sum", "trace"])
def test_stored_tangent_features_are_the_computed_ones(model, x, tmp_path, output):
    phi = TangentFeatures(model, output=output)
    y = torch.arange(11) % 2
    store = phi.extract(TensorDataset(x, y), tmp_path / "f.zarr", dtype="float64", block_size=3, batch_size=2)
    expected = phi(x).detach()
    torch.testing.assert_close(store.matrix().to_dense(), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(store.gram(), expected @ expected.mT, rtol=1e-10, atol=1e-10)
    if output != "trace":
        torch.testing.assert_close(store.gram(), phi.gram(x), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(store.outputs, model.eval()(x).detach())
    assert torch.equal(store.targets, y)
    assert store.columns == phi.columns
    assert store.rows_per_sample == phi.rows_per_sample
    assert len(store) == 11


def test_a_sketched_map_is_stored_without_its_wide_rows(model, x, tmp_path):
    phi = TangentFeatures(model) >> CountSketch(5, seed=3)
    store = phi.extract(x, tmp_path / "f.zarr", dtype="float64", block_size=4)
    assert store.shape == (22, 5)
    torch.testing.assert_close(store.matrix().to_dense(), phi(x).detach(), rtol=1e-10, atol=1e-10)
    with pytest.raises(StoreMismatchError, match="seed: 3 in the store, 4 now"):
        (TangentFeatures(model) >> CountSketch(5, seed=4)).extract(
            x, tmp_path / "f.zarr", dtype="float64", block_size=4
        )


@pytest.mark.parametrize("kind", ["tensor", "pair", "single", "labelled", "dict", "list", "numbers"])
def test_items_of_every_kind_give_the_same_features(tiny, tmp_path, kind):
    x, y = tiny.data().tensors
    dataset = {
        "tensor": lambda: x,
        "pair": lambda: TensorDataset(x, y),
        "single": lambda: TensorDataset(x),
        "labelled": lambda: Labelled(x, y),
        "dict": lambda: Items([{"x": a, "labels": int(b)} for a, b in zip(x, y, strict=True)]),
        "list": lambda: list(zip(x, y, strict=True)),
        "numbers": lambda: Items([(a.numpy(), int(b)) for a, b in zip(x, y, strict=True)]),
    }[kind]()
    phi = tiny.LinearMap()
    if kind == "dict":
        phi.forward = lambda batch: tiny.LinearMap.forward(phi, batch["x"])
        phi.outputs = lambda batch: None
    store = tiny.run(tmp_path / "f.zarr", phi=phi, dataset=dataset)
    by_blocks = torch.cat([tiny.LinearMap()(part) for part in x.split(tiny.BLOCK)])
    assert torch.equal(store.matrix().to_dense(), by_blocks)
    assert store.targets is None if kind in ("tensor", "single") else torch.equal(store.targets, y)


def test_a_map_that_needs_targets_gets_them(model, x, tmp_path):
    y = torch.arange(11) % 2
    phi = TangentFeatures(model, output=lambda out, target: nn.functional.cross_entropy(out, target, reduction="none"))
    assert phi.takes_targets
    store = phi.extract(TensorDataset(x, y), tmp_path / "f.zarr", dtype="float64", block_size=3)
    torch.testing.assert_close(store.matrix().to_dense(), phi(Labelled(x, y)).detach(), rtol=1e-10, atol=1e-12)
    with pytest.raises(ValueError, match="needs targets"):
        phi.extract(x, tmp_path / "g.zarr")


def test_the_header_says_exactly_what_it_is(model, x, tmp_path):
    phi = TangentFeatures(model)
    dataset = TensorDataset(x, torch.arange(11))
    header = phi.extract(dataset, tmp_path / "f.zarr", dtype="bfloat16", block_size=3, seed=7).header
    assert header["map"] == phi.describe()
    assert header["data"] == {"samples": 11, "sha256": fingerprint(dataset), "ids": None}
    assert header["options"] == {"batch_size": 3, "seed": 7}
    assert header["spec"]["dtype"] == "bfloat16"
    assert header["spec"]["block_size"] == 3
    assert set(header["environment"]) == {"threads", "device", "torch", "numpy", "numcodecs", "tangrams"}
    assert header["environment"]["torch"] == str(torch.__version__)
    assert header["columns"][0] == ["0.weight", [3, 4], 0, 12]


def test_another_weight_buffer_or_order_of_the_data_is_refused(model, x, tmp_path):
    path = tmp_path / "f.zarr"
    TangentFeatures(model).extract(x, path, dtype="float64")
    with torch.no_grad():
        model[3].bias[1] += 1e-12
    with pytest.raises(StoreMismatchError, match="fingerprint"):
        TangentFeatures(model).extract(x, path, dtype="float64")
    with torch.no_grad():
        model[3].bias[1] -= 1e-12
    with pytest.raises(StoreMismatchError, match=r"data\.sha256"):
        TangentFeatures(model).extract(x.flip(0), path, dtype="float64")


def test_the_model_and_torchs_state_are_left_as_they_were(model, x, tmp_path):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    threads, grad = torch.get_num_threads(), torch.is_grad_enabled()
    TangentFeatures(model).extract(x, tmp_path / "f.zarr", block_size=3)
    with pytest.raises(StoredValueError):
        TangentFeatures(model[0]).extract(x * 1e6, tmp_path / "g.zarr", block_size=3, dtype="float16")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), torch.is_grad_enabled()) == (threads, grad)


def test_a_map_that_draws_is_fixed_by_the_seed_block_by_block(tiny, tmp_path):
    class Drawing(tiny.LinearMap):
        def forward(self, x):
            return super().forward(x) + torch.randn(len(x) * 2, 1)

    one = tiny.run(tmp_path / "a.zarr", phi=Drawing(), seed=1)
    torch.randn(5)
    two = tiny.run(tmp_path / "b.zarr", phi=Drawing(), seed=1)
    other = tiny.run(tmp_path / "c.zarr", phi=Drawing(), seed=2)
    assert tiny.contents(tmp_path / "a.zarr") == tiny.contents(tmp_path / "b.zarr")
    assert not torch.equal(one.matrix().to_dense(), other.matrix().to_dense())
    noise = one.matrix().to_dense() - tiny.run(tmp_path / "d.zarr").matrix().to_dense()
    assert len(noise[:, 0].mul(1e4).round().unique()) == 22  # blocks draw from streams of their own
    (tmp_path / "b.zarr/features/c.2.0").unlink()
    tiny.run(tmp_path / "b.zarr", phi=Drawing(), seed=1)
    assert tiny.contents(tmp_path / "a.zarr") == tiny.contents(tmp_path / "b.zarr")
    assert torch.equal(two.matrix().to_dense(), one.matrix().to_dense())


def test_ids_are_numbers_or_texts_and_part_of_what_the_store_is(tiny, tmp_path):
    numbers = [10 * i - 3 for i in range(11)]
    store = tiny.run(tmp_path / "a.zarr", ids=numbers)
    assert store.ids.tolist() == numbers
    texts = [f"bild-{i}-ä" + "x" * i for i in range(11)]
    store = tiny.run(tmp_path / "b.zarr", ids=texts)
    assert store.ids == texts
    store.verify()
    with pytest.raises(StoreMismatchError, match=r"data\.ids"):
        tiny.run(tmp_path / "b.zarr", ids=texts[::-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ids": [1, 2]}, "2 ids for 11 samples"),
        ({"ids": [1] * 11}, "1 more than once"),
        ({"ids": [*range(10), "a"]}, "all integers or all texts"),
        ({"ids": [*"abcdefghij", "k\0"]}, "NUL"),
        ({"batch_size": 0}, "batch_size ≥ 1"),
        ({"block_size": -2}, "block_size ≥ 1"),
        ({"dtype": "int8"}, "features as float64"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_is_written(tiny, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tiny.run(tmp_path / "f.zarr", **options)
    assert not (tmp_path / "f.zarr").exists()


@pytest.mark.parametrize(
    ("dataset", "error", "message"),
    [
        (TensorDataset(torch.zeros(0, 4)), ValueError, "empty dataset"),
        (DataLoader(TensorDataset(torch.zeros(3, 4))), TypeError, "DataLoader"),
        ((torch.zeros(3, 4), torch.zeros(3)), TypeError, "Labelled"),
        (Items([torch.zeros(4), torch.zeros(5)]), ValueError, "pad them"),
        (Items([torch.zeros(4), (torch.zeros(4), 1)]), ValueError, "some have none"),
        (Items([(torch.zeros(4), (1, 2))]), ValueError, "not a tuple or dict"),
        (Items([object()]), TypeError, "object"),
        (Items([(torch.zeros(4), "cat")]), TypeError, "str"),
    ],
)
def test_data_that_cannot_be_read_are_refused(tiny, tmp_path, dataset, error, message):
    with pytest.raises(error, match=message):
        tiny.run(tmp_path / "f.zarr", dataset=dataset)


def test_data_that_change_between_readings_are_refused(tiny, tmp_path):
    class Augmented(Items):
        def __getitem__(self, index):
            return self.items[index] + torch.randn(4) * (index == 7)

    with pytest.raises(ValueError, match="samples 6 … 8 of the dataset changed between two readings"):
        tiny.run(tmp_path / "f.zarr", dataset=Augmented(tiny.data().tensors[0]))
    assert not FeatureStore.open(tmp_path / "f.zarr").complete


def test_samples_of_different_lengths_go_one_by_one(tiny, tmp_path):
    class Mean(tiny.LinearMap):
        def forward(self, x):
            return super().forward(x.mean(1))

    items = Items([torch.randn(3 + i, 4) for i in range(5)])
    with pytest.raises(ValueError, match="batches of one"):
        tiny.run(tmp_path / "f.zarr", phi=Mean(), dataset=items)
    store = tiny.run(tmp_path / "g.zarr", phi=Mean(), dataset=items, batch_size=1)
    expected = torch.cat([Mean()(item[None]) for item in items.items])
    assert torch.equal(store.matrix().to_dense(), expected)


def test_a_map_whose_rows_do_not_fit_is_refused(tiny, tmp_path):
    class Odd(tiny.LinearMap):
        def forward(self, x):
            return super().forward(x)[: 2 * len(x) - (len(x) > 1)]

    with pytest.raises(ValueError, match=r"features of shape \(5, 6\).*every sample needs as many rows"):
        tiny.run(tmp_path / "f.zarr", phi=Odd())


def test_a_feature_that_overflows_names_the_sample_of_the_dataset(tiny, tmp_path):
    x = tiny.data().tensors[0].clone()
    x[7] *= 1e6
    with pytest.raises(StoredValueError, match=r"sample 7 .*overflows float16") as caught:
        tiny.run(tmp_path / "f.zarr", dataset=TensorDataset(x), dtype="float16")
    assert caught.value.sample == 7
    store = tiny.run(tmp_path / "g.zarr", dataset=TensorDataset(x), dtype=torch.bfloat16)
    torch.testing.assert_close(store.matrix().to_dense(), tiny.LinearMap()(x).bfloat16().float(), rtol=0, atol=0)


def test_progress_counts_blocks_and_resumes_where_it_was(tiny, tmp_path):
    seen = []
    tiny.run(tmp_path / "f.zarr", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    seen.clear()
    tiny.run(tmp_path / "f.zarr", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 4)]


def test_a_block_size_that_is_not_asked_for_is_chosen_by_size(tiny, tmp_path):
    store = tiny.run(tmp_path / "f.zarr", block_size=None)
    assert store.spec.block_size == 11
    assert store.header["options"]["batch_size"] == 11
