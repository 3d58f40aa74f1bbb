import math

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from tangrams.data import Labelled
from tangrams.lens.boundary import boundary_attack, boundary_distances


def linear(seed=0, classes=4, features=6):
    torch.manual_seed(seed)
    return nn.Linear(features, classes).double(), torch.randn(30, features, dtype=torch.float64)


def curved(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Linear(5, 32), nn.Tanh(), nn.Linear(32, 4)).double()
    with torch.no_grad():
        net[0].weight.mul_(2)
    return net, torch.randn(40, 5, dtype=torch.float64)


def slow_distance(model, x):
    """One sample, one class at a time, by autograd."""
    rows = []
    for sample in x:
        point = sample.clone().requires_grad_()
        logits = model(point[None])[0]
        own = int(logits.argmax())
        best = (math.inf, own)
        for j in range(len(logits)):
            if j != own:
                margin = logits[own] - logits[j]
                (gradient,) = torch.autograd.grad(margin, point, retain_graph=True)
                best = min(best, (float((margin / gradient.norm()).detach()), j))
        rows.append(best)
    return torch.tensor([d for d, _ in rows], dtype=x.dtype), torch.tensor([j for _, j in rows])


@pytest.mark.parametrize("make", [linear, curved])
def test_distances_equal_autograd_sample_by_sample(make):
    model, x = make()
    found = boundary_distances(model, x, batch_size=7)
    distance, toward = slow_distance(model, x)
    torch.testing.assert_close(found.distance, distance, rtol=1e-10, atol=1e-12)
    assert torch.equal(found.toward, toward)
    assert torch.equal(found.predicted, model(x).argmax(1))


def test_a_linear_classifier_has_its_exact_distances_and_the_attack_finds_them():
    model, x = linear()
    found, attack = boundary_distances(model, x), boundary_attack(model, x)
    assert bool(attack.crossed.all())
    assert torch.equal(attack.toward, found.toward)
    torch.testing.assert_close(attack.radius, found.distance, rtol=2e-3, atol=1e-8)
    assert bool((attack.radius >= found.distance * (1 - 1e-9)).all())


def test_the_change_crosses_and_a_slightly_smaller_one_does_not():
    model, x = curved()
    attack = boundary_attack(model, x)
    assert bool(attack.crossed.all())
    before = model(x).argmax(1)
    assert torch.equal(attack.predicted, before)
    after = model(x + attack.perturbation).argmax(1)
    assert torch.equal(after, attack.toward)
    assert bool((after != before).all())
    assert torch.equal(model(x + 0.99 * attack.perturbation).argmax(1), before)
    torch.testing.assert_close(attack.perturbation.norm(dim=1), attack.radius)


def test_sensitivity_is_the_input_norm_times_the_gradient_norm_of_the_margin():
    model, x = curved()
    found = boundary_distances(model, x)
    torch.testing.assert_close(found.sensitivity, x.norm(dim=1) * found.margin / found.distance)


def test_fewer_competitors_can_only_miss_a_nearer_boundary():
    model, x = curved()
    every, one = boundary_distances(model, x), boundary_distances(model, x, competitors=1)
    assert bool((one.distance >= every.distance).all())
    assert torch.equal(one.toward, model(x).topk(2).indices[:, 1])


def test_closest_lists_the_smallest_distances_in_order():
    model, x = curved()
    found = boundary_distances(model, x)
    closest = found.closest(5)
    assert torch.equal(found.distance[closest], found.distance.sort().values[:5])


def test_distances_rank_like_the_attack_on_a_network_that_has_memorised_digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    x, y = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16, torch.tensor(data.target)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    for _ in range(20):
        for index in torch.randperm(600).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[index]), y[index]).backward()
            optimizer.step()
    test = x[600:760]
    found, attack = boundary_distances(net, test), boundary_attack(net, test)
    assert float(attack.crossed.double().mean()) > 0.98
    both = attack.crossed & found.distance.isfinite()
    assert spearmanr(found.distance[both], attack.radius[both]).statistic >= 0.95
    ratio = (attack.radius / found.distance)[both].median()
    assert 0.8 < float(ratio) < 1.2


class TwoInputs(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.words = nn.Embedding(5, 3).double()
        self.head = nn.Linear(7, 3).double()

    def forward(self, image, token):
        logits = self.head(torch.cat([image.flatten(1), self.words(token)], 1))
        return {"tuple": (logits, image), "dict": {"logits": logits, "loss": logits.sum()}}[self.kind]


@pytest.mark.parametrize("kind", ["tuple", "dict"])
@pytest.mark.parametrize("by_name", [False, True])
def test_networks_with_several_inputs_and_boxed_outputs_are_read(kind, by_name):
    torch.manual_seed(0)
    model, image, token = TwoInputs(kind), torch.randn(9, 2, 2, dtype=torch.float64), torch.randint(0, 5, (9,))
    x = {"image": image, "token": token} if by_name else (image, token)
    found, attack = boundary_distances(model, x), boundary_attack(model, Labelled(x, torch.zeros(9)))
    assert attack.perturbation.shape == image.shape
    assert len(attack.perturbations) == 1
    torch.testing.assert_close(attack.radius, found.distance, rtol=2e-3, atol=1e-8)


def test_one_output_is_a_boundary_only_where_the_caller_says_so():
    model, x = linear(classes=1)
    with pytest.raises(ValueError, match="a regression has no decision boundary"):
        boundary_distances(model, x)
    found = boundary_distances(model, x, threshold=0.5)
    expected = (model(x)[:, 0] - 0.5).abs() / model.weight.norm()
    torch.testing.assert_close(found.distance, expected.detach())
    attack = boundary_attack(model, x, threshold=0.5)
    torch.testing.assert_close(attack.radius, expected.detach(), rtol=2e-3, atol=1e-8)


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([[0.0, 1.0, 2.0]], dtype=x.dtype).expand(len(x), -1) + 0 * x[:, :1]


def test_where_no_gradient_leads_to_a_boundary_the_distance_is_infinite_and_the_attack_says_so():
    x = torch.randn(4, 2, dtype=torch.float64)
    assert bool(boundary_distances(Constant(), x).distance.isinf().all())
    attack = boundary_attack(Constant(), x)
    assert not bool(attack.crossed.any())
    assert bool(attack.radius.isnan().all())
    assert bool((attack.perturbation == 0).all())
    assert torch.equal(attack.toward, attack.predicted)


class Spoilt(nn.Module):
    def forward(self, x):
        out = torch.stack([x[:, 0], x[:, 1]], 1)
        return torch.where(x[:, :1] > 1e6, torch.nan, out)


@pytest.mark.parametrize("measure", [boundary_distances, boundary_attack])
def test_bad_calls_name_what_is_wrong(measure):
    model, x = linear()
    with pytest.raises(ValueError, match="no samples"):
        measure(model, x[:0])
    with pytest.raises(ValueError, match="competitors"):
        measure(model, x, competitors=0)
    with pytest.raises(ValueError, match="batch_size"):
        measure(model, x, batch_size=0)
    with pytest.raises(ValueError, match="no floating-point input"):
        measure(nn.Sequential(nn.Embedding(4, 3), nn.Flatten()), torch.zeros(5, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="one row of logits per sample"):
        measure(nn.Identity(), torch.randn(3, 2, 4))
    bad = torch.zeros(6, 2, dtype=torch.float64)
    bad[5, 0] = 1e9
    with pytest.raises(ValueError, match="sample 5 is not finite"):
        measure(Spoilt(), bad, batch_size=4)


class Delicate(nn.Module):
    """Batch statistics, dropout, a counter, a hook, gradients and a frozen layer: much to leave alone."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(8, 3)
        self.register_buffer("calls", torch.zeros(()))
        self.first.weight.requires_grad_(False)

    def forward(self, x):
        self.calls += 1
        if float(x.abs().max()) > 1e5:
            raise RuntimeError("too large")
        return self.last(self.drop(torch.relu_(self.norm(self.first(x)))))


def state(model):
    return (
        {k: v.clone() for k, v in model.state_dict().items()},
        [m.training for m in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        [len(m._forward_hooks) + len(m._backward_hooks) for m in model.modules()],
        torch.get_rng_state(),
    )


def same(a, b):
    return (
        all(torch.equal(a[0][k], b[0][k]) for k in a[0])
        and a[1:3] == b[1:3]
        and all((x is None and y is None) or torch.equal(x, y) for x, y in zip(a[3], b[3], strict=True))
        and a[4] == b[4]
        and torch.equal(a[5], b[5])
    )


@pytest.mark.parametrize("measure", [boundary_distances, boundary_attack])
@pytest.mark.parametrize("breaks", [False, True])
def test_the_network_and_the_random_state_are_left_as_they_were(measure, breaks):
    torch.manual_seed(0)
    model, x = Delicate().train(), torch.randn(10, 4)
    model(x).sum().backward()
    model.drop.eval()
    x_before, before = x.clone(), state(model)
    if breaks:
        broken = x.clone()
        broken[7] = 1e6
        with pytest.raises(RuntimeError, match="too large"):
            measure(model, broken, batch_size=4)
    else:
        with torch.no_grad():
            measure(model, x, batch_size=4)
        with torch.inference_mode():
            measure(model, x, batch_size=4)
        assert torch.equal(x, x_before)
        assert not x.requires_grad
    assert same(before, state(model))
