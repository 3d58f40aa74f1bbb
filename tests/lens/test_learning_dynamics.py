"""Facts of sheet 022 about how samples teach one another."""

import copy

import pytest
import torch
from torch import nn

from tangrams.data import Labelled
from tangrams.lens import (
    ForgettingTracker,
    Relation,
    error_l2_norm,
    learning_difficulty,
    predict_forgetting,
    prediction_change,
    relation,
    score_events,
)


def network(C=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, C)).double()


def samples(n, seed=0, C=4):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    return Labelled(x, torch.randint(C, (n,), generator=generator))


def stepped(net, step, lr):
    """A real gradient step on the mean cross-entropy."""
    net = copy.deepcopy(net)
    loss = nn.functional.cross_entropy(net(step.inputs), step.targets)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    with torch.no_grad():
        for p, g in zip(net.parameters(), gradients, strict=True):
            p.sub_(lr * g)
    return net


def test_the_error_of_the_predicted_change_is_of_second_order():
    net, observed, step = network(), samples(6).inputs, samples(3, seed=1)
    errors = []
    for lr in (0.04, 0.02, 0.01):
        real = stepped(net, step, lr)(observed).softmax(1) - net(observed).softmax(1)
        errors.append(float((real - prediction_change(net, observed, step, lr=lr)).detach().norm()))
    assert errors[0] / errors[1] == pytest.approx(4, abs=0.3)
    assert errors[1] / errors[2] == pytest.approx(4, abs=0.15)


def test_probabilities_change_by_zero_in_total_and_linearly_in_the_rate():
    net, observed, step = network(), samples(6).inputs, samples(3, seed=1)
    change = prediction_change(net, observed, step, lr=0.1)
    torch.testing.assert_close(change.sum(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(prediction_change(net, observed, step, lr=0.2), 2 * change, rtol=1e-10, atol=1e-12)


def test_a_step_of_the_readout_alone_is_predicted_with_its_parameters():
    net, observed, step = network(), samples(4).inputs, samples(3, seed=1)
    readout = copy.deepcopy(net)
    for p in readout[0].parameters():
        p.requires_grad_(False)
    expected = prediction_change(readout, observed, step, lr=0.1)
    change = prediction_change(net, observed, step, lr=0.1, params=[net[2]])
    torch.testing.assert_close(change, expected, rtol=1e-10, atol=1e-12)


def test_forgetting_is_predicted_for_small_steps():
    net, observed = network(), samples(400)
    observed = Labelled(observed.inputs, net(observed.inputs).argmax(1))  # all right now
    step = samples(8, seed=1)
    predicted = predict_forgetting(net, observed, step, lr=0.3)
    happened = stepped(net, step, 0.3)(observed.inputs).argmax(1) != observed.targets
    score = score_events(predicted, happened)
    assert score.happened > 10
    assert score.f1 > 0.8
    wrong = Labelled(observed.inputs, (observed.targets + 1) % 4)
    assert not predict_forgetting(net, wrong, step, lr=0.3).any()  # what is wrong now cannot be forgotten


def test_bad_classes_and_networks_are_refused():
    with pytest.raises(ValueError, match="0 … 3, got 7"):
        prediction_change(network(), samples(2).inputs, Labelled(samples(2).inputs, torch.tensor([0, 7])), lr=0.1)
    with pytest.raises(ValueError, match="two classes"):
        prediction_change(network(C=1), samples(2).inputs, samples(2), lr=0.1)
    with pytest.warns(UserWarning, match="logits"):
        prediction_change(nn.Sequential(network(), nn.Softmax(1)), samples(2).inputs, samples(2), lr=0.1)


def test_relations_follow_their_thresholds():
    rho = torch.tensor([-0.5, -0.1, 0.0, 0.1, 0.5, 0.9, 1.0])
    expected = [Relation.CONTRADICTORY] + [Relation.UNRELATED] * 3 + [Relation.RELATED] + [Relation.INTERCHANGEABLE] * 2
    assert relation(rho).tolist() == expected
    assert relation(rho, unrelated=0.0, interchangeable=1.0).tolist() == [-1, -1, 0, 2, 2, 2, 1]
    with pytest.raises(ValueError, match="CosineKernel"):
        relation(torch.tensor([1.5]))
    with pytest.raises(ValueError, match="unrelated"):
        relation(rho, unrelated=0.95)


def test_difficulty_is_the_area_under_the_error():
    p = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0)).softmax(2)
    y = torch.tensor([0, 1, 1, 0])
    expected = [sum(float((torch.eye(2)[y[i]] - p[t, i]).norm()) for t in range(3)) for i in range(4)]
    torch.testing.assert_close(learning_difficulty(p, y), torch.tensor(expected))
    torch.testing.assert_close(error_l2_norm(p[0], y), learning_difficulty(p[:1], y))
    with pytest.raises(ValueError, match="got 2 at sample 0"):
        learning_difficulty(p, torch.tensor([2, 0, 0, 0]))


def test_forgetting_events_are_counted_from_look_to_look():
    tracker = ForgettingTracker(4)
    assert tracker.update(torch.tensor([True, True]), torch.tensor([0, 2])).tolist() == []
    assert tracker.update(torch.tensor([False, False, True]), torch.tensor([0, 1, 2])).tolist() == [0]
    assert tracker.update(torch.tensor([True, False]), torch.tensor([0, 2])).tolist() == [2]
    assert tracker.update(torch.tensor([False]), torch.tensor([0])).tolist() == [0]
    assert tracker.events.tolist() == [2, 0, 1, 0]
    assert tracker.seen.tolist() == [4, 1, 3, 0]
    assert tracker.learned_at.tolist() == [1, 0, 1, 0]
    assert tracker.never_learned.tolist() == [False, True, False, True]


def test_a_bad_look_is_refused_and_changes_nothing():
    tracker = ForgettingTracker(3)
    for index in (torch.tensor([0, 0]), torch.tensor([0, 3]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match="0 … 2"):
            tracker.update(torch.tensor([True, True]), index)
    with pytest.raises(ValueError, match="2 answers for 3"):
        tracker.update(torch.tensor([True, True]))
    assert tracker.seen.tolist() == [0, 0, 0]
    with pytest.raises(ValueError, match="n ≥ 1"):
        ForgettingTracker(0)


def test_events_are_scored_by_definition():
    score = score_events([True, True, False, False], [True, False, True, False])
    assert (score.precision, score.recall, score.f1) == (0.5, 0.5, 0.5)
    nothing = score_events([False], [False])
    assert nothing.precision != nothing.precision
    assert nothing.f1 != nothing.f1
