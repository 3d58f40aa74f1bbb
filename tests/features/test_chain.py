import copy
import pickle

import pytest
import torch
from torch import nn

from tangrams.features import Chain, TangentError, TangentFeatures
from tangrams.operators.sketches import CountSketch, KroneckerSketch, RademacherSketch


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


@pytest.fixture
def x():
    return torch.randn(9, 4, dtype=torch.float64)


def test_a_sketch_of_the_rows_is_the_sketch_of_the_dense_rows(model, x):
    phi = TangentFeatures(model, batch_size=2)
    chain = phi >> CountSketch(32, seed=3)
    dense = phi.rows(x).dense()
    expected = CountSketch(32, seed=3).bind(phi.columns).project(dense)
    torch.testing.assert_close(chain(x), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(chain.matrix(x).to_dense(), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(chain.gram(x), expected @ expected.mT, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(chain.gram(x, x[:2]), expected @ expected[:6].mT, rtol=1e-10, atol=1e-12)
    assert chain.num_features == 32
    assert chain.rows_per_sample == 3


def test_side_by_side_rows_are_sketched_by_their_own_columns(model, x):
    phi = TangentFeatures(model, "trace")
    dense = phi.rows(x).dense()
    chain = phi >> RademacherSketch(64, seed=1)
    expected = RademacherSketch(64, seed=1).bind(phi.columns).project(dense)
    torch.testing.assert_close(chain(x), expected, rtol=1e-10, atol=1e-12)


def test_wrong_factors_of_a_layer_are_noticed(model, x, monkeypatch):
    from tangrams.features.tangent.consumers.linear import Linear

    right = Linear.outer
    chain = TangentFeatures(model, "sum") >> KroneckerSketch(16)
    chain(x)

    def wrong(self, slot, gradient):
        factors = right(self, slot, gradient)
        return None if factors is None else (factors[0] * 1.01, factors[1])

    monkeypatch.setattr(Linear, "outer", wrong)
    with pytest.raises(TangentError, match="do not add up"):
        chain(x)


def test_brackets_do_not_change_a_chain(model, x):
    phi = TangentFeatures(model, "sum")
    left = (phi >> CountSketch(32)) >> CountSketch(8)
    right = Chain(phi, CountSketch(32), CountSketch(8))
    assert list(left.state_dict()) == list(right.state_dict())
    assert left.describe() == right.describe()
    assert torch.equal(left(x), right(x))


def test_the_network_is_no_part_of_a_chain(model):
    chain = TangentFeatures(model, "sum") >> CountSketch(8)
    assert not list(chain.parameters())
    assert not chain.state_dict()
    chain.train()
    chain.train(False)
    assert model.training


def test_a_chain_survives_pickle_and_deepcopy(model, x):
    chain = TangentFeatures(model, "sum") >> CountSketch(8)
    expected = chain(x)
    assert torch.equal(pickle.loads(pickle.dumps(chain))(x), expected)
    clone = copy.deepcopy(chain)
    assert torch.equal(clone(x), expected)
    assert clone.first.model is model


def test_a_layer_is_no_feature_map(model):
    with pytest.raises(TypeError, match="Linear"):
        TangentFeatures(model) >> nn.Linear(3, 2)
    with pytest.raises(TypeError, match="CountSketch"):
        Chain(CountSketch(3), TangentFeatures(model))
