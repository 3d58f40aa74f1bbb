"""Tangent classifiers, compositions and forgetting."""

import copy

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from torch import nn

from tangrams.data import class_tasks, data_shards
from tangrams.features import ModelRef, TangentFeatures
from tangrams.learners import (
    ShardedTangentClassifier,
    TangentClassifier,
    TangentComposition,
    TangentRidgeClassifier,
    norm_penalty,
    square_penalty,
)
from tangrams.nn.losses import rescaled_square_loss
from tangrams.nn.tangent import BasePointMismatchError, EmptyCompositionError, TangentSum
from tangrams.testing.conformance import Case
from tangrams.testing.restoration import Snapshot
from tangrams.testing.suites.estimator import estimator_conformance

TRAINED = {"check_stored_rows_are_never_held_whole": "columns that are repeated meet other random weights"}
FAST = {"epochs": 8, "learning_rate": 0.3, "milestones": (6,)}

TestTangentLearners = estimator_conformance(
    Case(lambda: TangentClassifier(**FAST), excuses=TRAINED),
    Case(lambda: TangentRidgeClassifier(weight_decay=1e-4), excuses=TRAINED),
    Case(lambda: ShardedTangentClassifier(TangentClassifier(**FAST), n_shards=2), excuses=TRAINED),
)


def backbone() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh()).double()


def blobs(n: int = 60, centers: int = 3, seed: int = 0):
    X, y = make_blobs(n, 4, centers=centers, random_state=seed)
    return torch.from_numpy(X / 5), y


def test_the_loss_is_the_mean_squared_distance_from_the_scaled_one_hot():
    logits = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 15.0]])
    assert float(rescaled_square_loss(logits, torch.tensor([1, 2]))) == pytest.approx((1 + 13**2 + 9) / 6)


def test_the_gradient_of_the_loss_in_the_direction_is_the_transposed_jacobian_times_the_residual():
    X, y = blobs()
    model = TangentClassifier(backbone(), epochs=1, learning_rate=1e-2).fit(X, y)
    lin, labels = model.linearized_, torch.from_numpy(y)
    logits = lin(X)
    found = torch.autograd.grad(rescaled_square_loss(logits, labels), list(lin.parameters()))
    residual = 2 / logits.numel() * (logits - 15 * nn.functional.one_hot(labels, 3)).detach()
    J = TangentFeatures(lin.base, params=list(lin.names)).matrix(X).to_dense()
    got = torch.cat([g.reshape(-1) for g in found])
    torch.testing.assert_close(got, J.mT @ residual.reshape(-1), rtol=1e-10, atol=1e-12)


def test_training_lowers_a_convex_loss_and_leaves_the_backbone_alone():
    X, y = blobs()
    net = backbone()
    before = Snapshot(net, X)
    model = TangentClassifier(net, epochs=20, learning_rate=0.1).fit(X, y)
    assert before.differences() == []
    assert model.loss_curve_[-1] < 0.3 * model.loss_curve_[0]
    assert model.score(X, y) > 0.9


def test_only_chosen_parameters_carry_tangents_and_a_shared_backbone_is_not_copied():
    X, y = blobs()
    ref = ModelRef(backbone())
    model = TangentClassifier(ref, trainable=["2.weight", "2.bias"], epochs=1).fit(X, y)
    assert list(model.tangent_) == ["2.weight", "2.bias"]
    assert model.linearized_.base[0] is ref.model


@pytest.mark.parametrize("penalty", [norm_penalty, square_penalty])
def test_a_heavier_penalty_gives_a_shorter_direction(penalty):
    X, y = blobs()
    norms = [
        TangentClassifier(backbone(), weight_decay=d, penalty=penalty, epochs=10, learning_rate=0.05).fit(X, y).tangent_
        for d in (0.0, 10.0)
    ]
    assert norms[1].norm() < norms[0].norm()


def test_the_gradient_of_the_objective_vanishes_at_the_closed_form():
    X, y = blobs()
    model = TangentRidgeClassifier(backbone(), weight_decay=1e-3).fit(X, y)
    lin, tangents = model.linearized_, list(model.linearized_.parameters())
    objective = rescaled_square_loss(lin(X), torch.from_numpy(y)) + 1e-3 * square_penalty(tangents)
    for g, t in zip(torch.autograd.grad(objective, tangents), tangents, strict=True):
        assert float(g.abs().max()) < 1e-8 * float(t.abs().max().clamp(min=1))


def test_forgetting_samples_in_closed_form_is_a_fit_without_them():
    X, y = blobs()
    gone = [0, 7, 31]
    keep = np.setdiff1d(np.arange(60), gone)
    forgot = TangentRidgeClassifier(backbone(), classes=range(3)).fit(X, y).forget(gone)
    never = TangentRidgeClassifier(backbone(), classes=range(3)).fit(X[keep], y[keep])
    assert (forgot.tangent_ - never.tangent_).norm() < 1e-7 * never.tangent_.norm()
    assert len(forgot._x) == 57
    with pytest.raises(ValueError, match="57 samples left"):
        forgot.forget([57])
    with pytest.raises(ValueError, match="no sample left"):
        forgot.forget(range(57))


def components(n: int = 3) -> list[TangentClassifier]:
    X, y = blobs()
    shards = data_shards(60, n, seed=1)
    return [
        TangentClassifier(backbone(), classes=range(3), epochs=3, learning_rate=0.1).fit(X[s], y[s.numpy()])
        for s in shards
    ]


def test_a_composition_whose_weights_sum_to_one_gives_the_mean_of_the_logits():
    X, _ = blobs(seed=5)
    parts = components()
    both = TangentComposition(parts[0])
    weights = [0.5, 0.2, 0.3]
    for i, part in enumerate(parts):
        both.add(str(i), part.tangent_, weights[i])
    expected = sum(w * part.logits(X) for w, part in zip(weights, parts, strict=True))
    np.testing.assert_allclose(both.logits(X), expected, rtol=0, atol=1e-12)
    assert both.weights == pytest.approx({"0": 0.5, "1": 0.2, "2": 0.3})


def test_weights_that_do_not_sum_to_one_count_the_base_once():
    X, _ = blobs(seed=5)
    parts = components(2)
    both = TangentComposition(parts[0], total=None)
    for i, part in enumerate(parts):
        both.add(str(i), part.tangent_, 1.0)
    base = parts[0].linearized_.base.eval()(X).detach().numpy()
    expected = base + sum(part.logits(X) - base for part in parts)
    np.testing.assert_allclose(both.logits(X), expected, rtol=0, atol=1e-12)


def test_a_removed_component_leaves_the_bits_of_one_never_added():
    parts = components()
    with_it, without = TangentComposition(parts[0]), TangentComposition(parts[0])
    for i, part in enumerate(parts):
        with_it.add(str(i), part.tangent_)
        if i != 1:
            without.add(str(i), part.tangent_)
    with_it.remove("1")
    assert with_it.vector() == without.vector()
    assert with_it.weights == {"0": 0.5, "2": 0.5}
    assert with_it.as_module().vector() == without.vector()


def test_nothing_of_a_removed_component_stays_in_memory():
    X, _ = blobs()
    parts = components(2)
    both = TangentComposition(parts[0])
    for i, part in enumerate(parts):
        both.add(str(i), part.tangent_)
    both.logits(X)
    both.remove("0")
    both.remove("1")
    assert both._module.vector().norm() == 0


def test_one_forward_pass_serves_any_number_of_components():
    X, _ = blobs()
    parts = components(3)
    both = TangentComposition(parts[0])
    passes = []
    parts[0].linearized_.base[0][0].register_forward_hook(lambda m, a, out: passes.append(None))
    for count in (1, 3, 30):
        while len(both) < count:
            both.add(str(len(both)), parts[len(both) % 3].tangent_)
        passes.clear()
        both.logits(X)
        assert len(passes) == 1


def test_prediction_within_the_classes_of_a_task():
    X, y = blobs()
    model = TangentClassifier(backbone(), epochs=3).fit(X, y)
    one = TangentComposition(model)
    one.add("all", model.tangent_)
    assert set(one.predict(X, classes=[0, 2])) <= {0, 2}
    assert np.array_equal(one.predict(X), model.predict(X))
    with pytest.raises(ValueError, match="knows the classes"):
        one.predict(X, classes=[0, 9])


def test_components_of_another_base_point_or_twice_the_same_name_are_refused():
    X, y = blobs()
    a = TangentClassifier(backbone(), epochs=1).fit(X, y)
    b = TangentClassifier(backbone(), epochs=1, random_state=1).fit(X, y)
    both = TangentComposition(a)
    both.add("a", a.tangent_)
    with pytest.raises(BasePointMismatchError):
        both.add("b", b.tangent_)
    with pytest.raises(ValueError, match="'a' already"):
        both.add("a", a.tangent_)
    with pytest.raises(KeyError, match="no component 'c'"):
        both.remove("c")
    both.remove("a")
    with pytest.raises(EmptyCompositionError, match="no components left"):
        both.logits(X)


def test_a_saved_composition_comes_back_and_forgets_without_the_network(tmp_path):
    vectors = [part.tangent_ for part in components()]
    total = TangentSum()
    for i, vector in enumerate(vectors):
        total.add(f"part {i}", vector, i + 1.0)
    total.save(tmp_path / "all.safetensors")
    back = TangentSum.load(tmp_path / "all.safetensors")
    assert back.vector() == total.vector()
    assert back.weights == total.weights
    back.remove("part 1")
    back.save(tmp_path / "all.safetensors")
    assert list(TangentSum.load(tmp_path / "all.safetensors").components) == ["part 0", "part 2"]
    vectors[0].save(tmp_path / "one.safetensors")
    with pytest.raises(ValueError, match="no composition"):
        TangentSum.load(tmp_path / "one.safetensors")
    opposed = TangentSum()
    opposed.add("a", vectors[0], 1.0)
    opposed.add("b", vectors[1], -1.0)
    with pytest.raises(ValueError, match="sum to zero"):
        opposed.vector()


def sharded(**options) -> ShardedTangentClassifier:
    return ShardedTangentClassifier(TangentClassifier(backbone(), epochs=3, learning_rate=0.1), **options)


def test_a_forgotten_shard_is_one_that_was_never_trained():
    X, y = blobs()
    all_of_them = sharded(n_shards=4).fit(X, y)
    kept = TangentComposition(all_of_them._shards["0"].model)
    for i, shard in enumerate(data_shards(60, 4)):
        if i != 2:
            part = TangentClassifier(backbone(), epochs=3, learning_rate=0.1, classes=range(3))
            kept.add(str(i), part.fit(X[shard], y[shard.numpy()]).tangent_)
    all_of_them.forget_shard(2)
    assert all_of_them.composition_.vector() == kept.vector()
    with pytest.raises(ValueError, match="no shard 2"):
        all_of_them.forget_shard(2)
    for i in (0, 1, 3):
        all_of_them.forget_shard(i)
    with pytest.raises(EmptyCompositionError):
        all_of_them.predict(X)


@pytest.mark.parametrize("solved", [False, True])
def test_forgotten_samples_leave_their_shard_as_trained_without_them(solved):
    X, y = blobs()
    estimator = TangentClassifier(backbone(), epochs=3, learning_rate=0.1)
    if solved:
        estimator = TangentRidgeClassifier(backbone())
    model = ShardedTangentClassifier(estimator, n_shards=3).fit(X, y)
    before = model.composition_.components
    shard = data_shards(60, 3)[1].numpy()
    gone = shard[[0, 4]]
    model.forget_samples(gone)
    after = model.composition_.components
    assert after["0"] == before["0"]
    kept = shard[~np.isin(shard, gone)]
    fresh = copy.deepcopy(estimator).set_params(classes=range(3)).fit(X[kept], y[kept]).tangent_
    assert (after["1"] - fresh).norm() <= 1e-7 * fresh.norm()
    with pytest.raises(ValueError, match="does not hold"):
        model.forget_samples(gone[:1])
    model.forget_samples(kept)
    assert list(model.composition_.components) == ["0", "2"]


def test_tasks_of_a_stream_add_components_over_all_classes():
    X, y = blobs(100, 5)
    estimator = TangentClassifier(backbone(), epochs=10, learning_rate=0.1)
    model = ShardedTangentClassifier(estimator)
    tasks = class_tasks(y, 2)
    for task in tasks:
        model.partial_fit(X[task], y[task.numpy()], classes=range(5))
    assert list(model.composition_.components) == ["0", "1"]
    assert model.score(X, y) > 0.6
    known = [model.predict(X[task], classes=np.unique(y[task.numpy()])) for task in tasks]
    right = np.concatenate([k == y[task.numpy()] for k, task in zip(known, tasks, strict=True)])
    assert right.mean() >= model.score(X, y)
    with pytest.raises(ValueError, match="first call had"):
        model.partial_fit(X, y, classes=range(6))
    with pytest.raises(ValueError, match="needs classes"):
        ShardedTangentClassifier(estimator).partial_fit(X, y)


def test_class_tasks_are_runs_of_classes_and_the_first_get_the_remainder():
    y = torch.tensor([4, 0, 1, 2, 3, 4, 0])
    assert [sorted(set(y[t].tolist())) for t in class_tasks(y, 2)] == [[0, 1, 2], [3, 4]]
    with pytest.raises(ValueError, match="5 classes"):
        class_tasks(y, 6)


def test_shards_are_a_partition_of_nearly_equal_parts():
    shards = data_shards(11, 3, seed=2)
    assert sorted(torch.cat(shards).tolist()) == list(range(11))
    assert [len(s) for s in shards] == [4, 4, 3]
    with pytest.raises(ValueError, match="n_shards"):
        data_shards(2, 3)


@pytest.mark.parametrize("solved", [True, False])
def test_a_mask_is_no_list_of_positions(solved):
    X, y = blobs()
    single = TangentRidgeClassifier(backbone())
    model = (single if solved else ShardedTangentClassifier(single)).fit(X, y)
    forget = model.forget if solved else model.forget_samples
    with pytest.raises(ValueError, match="by their positions, got bool"):
        forget(np.arange(len(y)) == 7)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"classes": [0, 1]}, "outside classes"),
    ],
)
def test_impossible_arguments_are_refused(options, says):
    X, y = blobs()
    with pytest.raises(ValueError, match=says):
        TangentClassifier(backbone(), **options).fit(X, y)
