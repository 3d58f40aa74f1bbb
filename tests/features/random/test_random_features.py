"""Units of a random layer as features."""

import copy
import math
import pickle
from functools import partial

import pytest
import torch
from torch.nn import functional as F

from tangrams.features import RandomFeatures
from tangrams.features.random import columnwise, stream
from tangrams.operators import CountSketch, FeatureMatrix
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.feature_map import FeatureMapSuite


def by_hand(phi, x):
    W, b = phi.weights(0, phi.num_features, x)
    return phi.activation(x.flatten(1) @ W.mT + b) / math.sqrt(phi.num_features)


TestRandomFeatures = conformance(
    FeatureMapSuite,
    Case(lambda: RandomFeatures(4, 300, torch.tanh, weight_std=1.5, bias_std=0.5, seed=3), normal(4), by_hand),
    Case(lambda: RandomFeatures(6, 7), normal(1, 2, 3), by_hand, name="RandomFeatures-of-images"),
)


def samples(n, d, seed=0, dtype=torch.float64):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_the_gram_tends_to_the_arc_cosine_kernel_at_the_rate_of_monte_carlo():
    x = samples(6, 5)
    norms = x.norm(dim=1)
    cos = (x @ x.mT / (norms[:, None] * norms)).clamp(-1, 1)
    theta = torch.arccos(cos)
    exact = norms[:, None] * norms * (theta.sin() + (math.pi - theta) * cos) / (2 * math.pi) / 5
    grams = torch.stack([RandomFeatures(5, 2000, seed=seed).gram(x) for seed in range(30)])
    z = (grams.mean(0) - exact) / (grams.std(0) / math.sqrt(30))
    assert float(z.abs().max()) < 4.5
    assert float(z.square().mean()) < 2


def test_scales_of_weight_and_bias_are_those_of_the_formula():
    W, b = RandomFeatures(50, 4000, weight_std=3.0, bias_std=0.5).weights(0, 4000, torch.empty(0))
    assert abs(float(W.std()) * math.sqrt(50) / 3 - 1) < 4 / math.sqrt(2 * W.numel())
    assert abs(float(b.std()) / 0.5 - 1) < 4 / math.sqrt(2 * b.numel())


def test_a_column_does_not_depend_on_how_many_there_are_nor_on_where_a_panel_starts():
    x = samples(3, 4)
    wide, narrow = RandomFeatures(4, 1000, torch.tanh, seed=1), RandomFeatures(4, 10, torch.tanh, seed=1)
    torch.testing.assert_close(narrow(x), wide(x)[:, :10] * 10, rtol=1e-12, atol=0)
    torch.testing.assert_close(wide.panel((x,), 250, 700), wide(x)[:, 250:700], rtol=1e-12, atol=1e-15)


def test_no_product_holds_all_weights_when_they_do_not_fit(monkeypatch):
    x, y = samples(5, 4), samples(3, 4, 1)
    expected = RandomFeatures(4, 3000, torch.tanh)(x)
    other = RandomFeatures(4, 3000, torch.tanh)(y)
    monkeypatch.setattr(stream, "PANEL_BYTES", 1)
    monkeypatch.setattr(columnwise, "PANEL_BYTES", 1 << 12)
    drawn = []
    dense = stream.WeightStream._dense

    def counted(self, start, stop, like):
        drawn.append(stop - start)
        return dense(self, start, stop, like)

    monkeypatch.setattr(stream.WeightStream, "_dense", counted)
    phi = RandomFeatures(4, 3000, torch.tanh)
    v, u = samples(3000, 2), samples(5, 2)
    matrix = phi.matrix(x)
    assert isinstance(matrix, FeatureMatrix)
    torch.testing.assert_close(matrix @ v, expected @ v, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(matrix.mT @ u, expected.mT @ u, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi.gram(x, y), expected @ other.mT, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(phi.diag(x), expected.square().sum(1), rtol=1e-10, atol=1e-12)
    sketch = CountSketch(8, seed=0)
    torch.testing.assert_close((phi >> sketch)(x), sketch.bind(3000).project(expected), rtol=1e-10, atol=1e-12)
    assert len(drawn) > 20
    assert max(drawn) == 256


def test_features_are_differentiable_in_the_samples():
    phi, x = RandomFeatures(3, 11, torch.tanh, bias_std=1.0), samples(2, 3).requires_grad_()
    assert torch.autograd.gradcheck(phi, (x,))


@pytest.mark.parametrize("activation", [torch.tanh, torch.relu, F.softplus, torch.cos], ids=lambda f: f.__name__)
def test_input_jacobian_and_its_product_are_those_of_autograd(activation):
    phi, z = RandomFeatures(4, 600, activation, weight_std=2.0, bias_std=0.3), samples(5, 4)
    theta = samples(1, 600)[0]
    J = phi.input_jacobian(z)
    expected = torch.stack([torch.autograd.functional.jacobian(phi, row[None])[0, :, 0].mT for row in z])
    torch.testing.assert_close(J, expected, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(phi.input_vjp(z, theta), J @ theta, rtol=1e-10, atol=1e-12)


def test_a_linear_layer_has_the_constant_jacobian():
    phi, z = RandomFeatures(3, 5, lambda u: 0 * u + 1), samples(2, 3)
    assert not phi.input_jacobian(z).any()


def test_low_precision_is_computed_in_float32_and_returned_as_it_came():
    phi, x = RandomFeatures(4, 64, torch.tanh), samples(3, 4).half()
    assert phi(x).dtype == phi.gram(x).dtype == torch.float16
    torch.testing.assert_close(phi(x), phi(x.float()).half())


def test_weights_do_not_depend_on_the_default_dtype():
    x = samples(3, 4)
    expected = RandomFeatures(4, 20, bias_std=1.0)(x)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(RandomFeatures(4, 20, bias_std=1.0)(x), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_copies_and_pickles_draw_the_same_weights_and_carry_none():
    phi, x = RandomFeatures(4, 5000, torch.tanh, seed=2), samples(3, 4)
    phi(x)
    assert len(pickle.dumps(phi)) < 5000
    assert torch.equal(pickle.loads(pickle.dumps(phi))(x), phi(x))
    assert torch.equal(copy.deepcopy(phi)(x), phi(x))
    assert not phi.state_dict()


def test_weights_drawn_in_inference_mode_serve_autograd_later():
    phi, x = RandomFeatures(4, 9, torch.tanh), samples(3, 4)
    with torch.inference_mode():
        phi(x)
    phi(x.requires_grad_()).sum().backward()
    assert x.grad is not None


def test_weights_drawn_inside_a_transform_serve_outside():
    x = samples(3, 4)
    expected = RandomFeatures(4, 9, torch.tanh).input_vjp(x, torch.ones(9))
    for transform in (torch.func.grad, torch.func.jacrev, partial(torch.func.jacfwd, randomness="same")):
        phi = RandomFeatures(4, 9, torch.tanh)
        torch.testing.assert_close(transform(lambda z, phi=phi: phi(z).sum())(x), expected)
        assert torch.equal(phi(x), RandomFeatures(4, 9, torch.tanh)(x))
        assert torch.equal(copy.deepcopy(phi)(x), phi(x))


def test_descriptions_tell_activations_apart():
    same = [RandomFeatures(2, 3, f).describe() for f in (lambda u: u.square(), lambda u: u.sin())]
    assert same[0] != same[1]


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (torch.zeros(3, 5), ValueError, "samples of 4 entries"),
        (torch.zeros(4), ValueError, "samples of 4 entries"),
        (torch.zeros(3, 4, dtype=torch.int64), TypeError, "floating-point"),
        ([[0.0] * 4], TypeError, "list"),
        (torch.tensor([[0.0] * 4, [0.0, math.nan, 0.0, 0.0]]), ValueError, "sample 1"),
    ],
    ids=["width", "one sample", "integers", "list", "nan"],
)
def test_bad_samples_are_refused_by_name(x, error, message):
    with pytest.raises(error, match=f"RandomFeatures.*{message}"):
        RandomFeatures(4, 3)(x)


IMPOSSIBLE = [{"in_features": 0}, {"num_features": 0}, {"weight_std": -1.0}, {"bias_std": math.nan}]


@pytest.mark.parametrize("options", IMPOSSIBLE, ids=lambda options: next(iter(options)))
def test_impossible_options_are_refused(options):
    with pytest.raises(ValueError, match="RandomFeatures needs"):
        RandomFeatures(**{"in_features": 2, "num_features": 2, **options})
