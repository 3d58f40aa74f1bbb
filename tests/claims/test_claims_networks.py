"""The networks that several claims train: many at once as one by one, and the parametrisations."""

import pytest
import torch
from torch import nn

from tangrams.claims._many import train_many
from tangrams.claims._networks import ntk_mlp, samples_of, standard_mlp, train


def problem(E=3, n=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(E, n, 6, generator=generator), torch.randint(10, (E, n), generator=generator)


def test_many_networks_train_as_torchs_sgd_does():
    """Full batches, from the same start: the weights after three epochs are those of ``torch.optim.SGD``."""
    x, y = problem()
    settings = {"hidden": 5, "batch_size": 20}
    start = train_many(x, y, epochs=0, generator=torch.Generator().manual_seed(7), **settings)
    many = train_many(x, y, epochs=3, generator=torch.Generator().manual_seed(7), **settings)
    for e in range(3):
        network = start.network(e)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
        difficulty = torch.zeros(20)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(x[e]), y[e]).backward()
            optimizer.step()
            difficulty += (network(x[e]).softmax(1) - nn.functional.one_hot(y[e], 10)).norm(dim=1).detach()
        torch.testing.assert_close(many.logits(x[0])[e], network(x[0]).detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(many.network(e)(x[0]).detach(), network(x[0]).detach(), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(many.difficulty[e], difficulty, rtol=1e-4, atol=1e-4)


def test_mini_batches_visit_every_sample_once_an_epoch():
    """With one sample a batch and a rate of zero nothing moves; with a rate, the networks do learn."""
    x, y = problem(E=2)
    trained = train_many(x, y, hidden=32, epochs=60, batch_size=4, lr=0.05, generator=torch.Generator().manual_seed(0))
    for e in range(2):
        assert float((trained.network(e)(x[e]).argmax(1) == y[e]).float().mean()) == 1.0


@pytest.mark.parametrize("build", [lambda g: ntk_mlp([6, 4096, 3], g), lambda g: standard_mlp([6, 4096, 3], g)])
def test_outputs_have_the_variance_of_their_parametrisation(build):
    """Both keep E f² = ‖x‖² / fan-in: the gain 2 of a layer undoes the half that a ReLU takes away."""
    x = torch.randn(1, 6, generator=torch.Generator().manual_seed(0))
    draws = torch.cat([build(torch.Generator().manual_seed(s))(x).detach().flatten() for s in range(300)])
    expected = float(x.square().mean())
    # Over 900 draws the variance has a relative s.e. of √(2/900) = 0.047; He's first layer has gain 2 at fan-in 6.
    assert float(draws.square().mean()) == pytest.approx(expected, rel=0.2)


def test_training_fits_and_leaves_the_network_in_eval_mode():
    data, _ = samples_of(None, 200, 0)
    network = standard_mlp([64, 32, 10], torch.Generator().manual_seed(0))
    seen = []
    train(
        network,
        data.inputs,
        data.targets,
        epochs=60,
        lr=5e-3,
        generator=torch.Generator().manual_seed(0),
        after_epoch=seen.append,
    )
    assert seen == list(range(60))
    assert not network.training
    assert float((network(data.inputs).argmax(1) == data.targets).float().mean()) > 0.95


def test_samples_are_disjoint_seeded_and_counted():
    data, test = samples_of(None, 100, 3)
    again, _ = samples_of(None, 100, 3)
    assert data.inputs.shape == (100, 1, 8, 8)
    assert len(test.targets) == 450
    assert torch.equal(data.inputs, again.inputs)
    same = (data.inputs.flatten(1)[:, None] == test.inputs.flatten(1)).all(2)
    assert int(same.sum()) <= 1  # the data set itself repeats hardly any image
