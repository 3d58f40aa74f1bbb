import pytest
import torch
from torch import nn

from tangrams.features import Stack, TangentFeatures
from tangrams.operators.sketches import CountSketch


@pytest.fixture
def models():
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, h), nn.Tanh(), nn.Linear(h, 3)).double() for h in (5, 6)]


@pytest.fixture
def x():
    return torch.randn(7, 4, dtype=torch.float64)


def test_columns_stand_side_by_side_and_grams_add(models, x):
    a, b = (TangentFeatures(model) for model in models)
    both = a | b
    dense = torch.cat([a.rows(x).dense(), b.rows(x).dense()], 1)
    torch.testing.assert_close(both.rows(x).dense(), dense, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(both.gram(x), dense @ dense.mT, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both.gram(x, x[:3]), dense @ dense[:9].mT, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both.diag(x), dense.square().sum(1), rtol=1e-10, atol=1e-12)
    assert both.num_features == dense.shape[1]
    assert both.columns[-1].stop == dense.shape[1]
    assert [c.name.split(".")[0] for c in both.columns] == ["0"] * 4 + ["1"] * 4


def test_products_with_stacked_rows_are_those_with_the_dense_rows(models, x):
    both = TangentFeatures(models[0]) | TangentFeatures(models[1])
    dense = both.rows(x).dense()
    v, u = torch.randn(dense.shape[1], 2, dtype=torch.float64), torch.randn(len(dense), 2, dtype=torch.float64)
    torch.testing.assert_close(both.matrix(x) @ v, dense @ v, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both.matrix(x).mT @ u, dense.mT @ u, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(both.rows(x).take(torch.tensor([4, 0])).dense(), dense[[4, 0]])


def test_a_sketch_of_a_stack_reads_each_part_by_its_own_columns(models, x):
    both = TangentFeatures(models[0]) | TangentFeatures(models[1])
    sketched = (both >> CountSketch(32, seed=2))(x)
    expected = CountSketch(32, seed=2).bind(both.columns).project(both.rows(x).dense())
    torch.testing.assert_close(sketched, expected, rtol=1e-10, atol=1e-12)


def test_stacks_are_flattened(models):
    a, b = (TangentFeatures(model) for model in models)
    assert len((a | b | a).parts) == len((a | (b | a)).parts) == 3
    with pytest.raises(TypeError, match="Linear"):
        Stack(a, nn.Linear(2, 2))


def test_parts_must_have_as_many_rows_per_sample(models, x):
    both = TangentFeatures(models[0]) | TangentFeatures(models[1], "sum")
    with pytest.raises(ValueError, match="number"):
        both.rows(x)
