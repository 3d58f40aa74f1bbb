"""Linear networks of infinite width against wide finite ones, step by step."""

import math

import pytest
import torch
from torch import nn

from tangrams.nn.infinite_width import CBOW, InfiniteLinearNetwork, LinearNetwork, negative_sampling_loss
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def by_hand(module, x):
    h = module.input_weight @ x.mT
    if module.b is not None:
        h = h + module.input_bias * module.b[:, None]
    for weight in module.hidden_weights:
        h = weight @ h
    f = module.alpha * module.output_weight @ h
    return (f if module.c is None else f + module.output_bias * module.c[:, None]).mT


def scores_by_hand(module, contexts, candidates):
    rows = []
    for context, candidate in zip(contexts.tolist(), candidates.tolist(), strict=True):
        words = [i for i in context if i >= 0]
        mean = torch.stack([module.input[i] for i in words]).mean(0) if words else torch.zeros_like(module.input[0])
        rows.append(torch.stack([module.output[j] @ mean for j in candidate]))
    return torch.stack(rows)


def words(n, generator):
    contexts = torch.randint(-1, 7, (n, 4), generator=generator)
    return contexts, torch.randint(0, 7, (n, 3), generator=generator)


def moved(module):
    """Away from the structured start, where many gradients vanish."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=seeded(), dtype=parameter.dtype))
    return module


INTEGERS = "its inputs are integers, which gradcheck cannot perturb"
TestInfiniteWidth = conformance(
    ModuleSuite,
    Case(
        lambda: moved(InfiniteLinearNetwork(3, 2, 2, horizon=2, input_bias=0.5, output_bias=2.0)),
        inputs=normal(3),
        reference=by_hand,
    ),
    Case(
        lambda: moved(InfiniteLinearNetwork(3, 2, 1, alpha=0.7).sample(6, generator=seeded())),
        inputs=normal(3),
        reference=by_hand,
    ),
    Case(lambda: moved(CBOW(7, 3)), inputs=words, reference=scores_by_hand),
)

D, C = 3, 2


def problem(seed=0):
    generator = seeded(seed)
    x, y = (torch.randn(6, size, generator=generator, dtype=torch.float64) for size in (D, C))
    return x, y, torch.randn(5, D, generator=generator, dtype=torch.float64)


def trained(model, steps, lr=0.1):
    x, y, x_test = problem()
    optimiser = torch.optim.SGD(model.parameters(), lr, momentum=0.5, weight_decay=0.01)
    outputs = [model(x_test).detach()]
    for _ in range(steps):
        optimiser.zero_grad()
        ((model(x) - y) ** 2).sum(1).mean().backward()
        optimiser.step()
        outputs.append(model(x_test).detach())
    return torch.stack(outputs)


def limit(layers, horizon, **options):
    options = {"sigma_w": 1.2, "sigma_v": 0.5, "input_bias": 0.5, **options}
    return InfiniteLinearNetwork(D, C, layers, horizon=horizon, dtype=torch.float64, **options)


@pytest.mark.parametrize(("layers", "steps"), [(1, 6), (2, 4), (3, 3)])
def test_a_longer_horizon_changes_nothing_within_a_shorter_one(layers, steps):
    """Exact to rounding up to the horizon, so the words kept are all that training forms; beyond it they are missed."""
    short, long = trained(limit(layers, steps), steps + 1), trained(limit(layers, steps + 2), steps + 1)
    torch.testing.assert_close(short[: steps + 1], long[: steps + 1], rtol=1e-12, atol=1e-12)
    if layers > 1:
        assert not torch.allclose(trained(limit(layers, steps - 2), steps), long[: steps + 1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("layers", "widths"), [(1, (100, 2500)), (2, (64, 576)), (3, (64, 576))])
def test_finite_networks_approach_the_limit_as_the_root_of_the_width(layers, widths):
    """The mean error over seeds at two widths; its slope in log width is −1/2 within what the seeds leave open."""
    steps = 3 if layers > 1 else 6
    lr = 0.1 if layers < 3 else 0.05
    reference = trained(limit(layers, steps), steps, lr)
    errors = []
    for width in widths:
        runs = [trained(limit(layers, steps).sample(width, generator=seeded(s)), steps, lr) for s in range(8)]
        errors.append(torch.stack([(run - reference).square().mean().sqrt() for run in runs]).mean())
    slope = float((errors[1] / errors[0]).log()) / math.log(widths[1] / widths[0])
    assert -0.75 < slope < -0.3, (slope, errors)
    assert float(errors[1]) < 0.15 * float(reference.square().mean().sqrt())
    assert float((reference[-1] - reference[0]).norm()) > 0.3


def test_a_trained_limit_is_sampled_as_it_is():
    model = limit(2, 4, output_bias=0.3)
    trained(model, 4)
    _, _, x = problem()
    errors = [
        torch.stack([(model.sample(n, generator=seeded(s))(x) - model(x)).norm() for s in range(6)]).mean()
        for n in (64, 1024)
    ]
    assert float(errors[1]) < 0.5 * float(errors[0])
    assert float(errors[1]) < 0.2 * float(model(x).norm())


def test_the_weights_of_a_sample_have_the_variances_of_maximal_update():
    sample = limit(2, 2).sample(400, generator=seeded())
    for weight, sigma in ((sample.input_weight, 1.0), (sample.hidden_weights[0], 1.2), (sample.output_weight, 0.5)):
        expected = sigma / math.sqrt(400)
        assert float(weight.detach().std()) == pytest.approx(expected, rel=5 * (2 * weight.numel()) ** -0.5)


def test_one_hidden_layer_is_the_network_of_inputs_and_outputs():
    model = InfiniteLinearNetwork(D, C, sigma_u=2.0, sigma_v=3.0)
    assert torch.equal(model.input_weight, torch.cat([2 * torch.eye(D), torch.zeros(C, D)]))
    assert torch.equal(model.output_weight, torch.cat([torch.zeros(C, D), 3 * torch.eye(C)], 1))
    assert InfiniteLinearNetwork(D, C, sigma_v=0.0).input_weight.shape == (D, D)


def test_wide_word_vectors_approach_their_limit():
    """Both from v = 0 at the same rate, on the same batches."""
    contexts, candidates = words(40, seeded())
    runs = {}
    for width in (16, 256, 4096, math.inf):
        finals = []
        for seed in range(6 if width < math.inf else 1):
            model = CBOW.infinite(7) if width == math.inf else CBOW(7, int(width), generator=seeded(seed))
            optimiser = torch.optim.SGD(model.parameters(), lr=2.0)
            for _ in range(10):
                optimiser.zero_grad()
                negative_sampling_loss(model(contexts, candidates)).backward()
                optimiser.step()
            finals.append(model(contexts, candidates).detach())
        runs[width] = torch.stack(finals)
    errors = [float((runs[n] - runs[math.inf]).norm(dim=(1, 2)).mean()) for n in (16, 256, 4096)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.05 * float(runs[math.inf].norm())
    assert CBOW(7, 3).word_vectors().shape == (7, 3)


def test_sparse_gradients_train_the_same_limit_and_touch_the_rows_at_hand():
    contexts, candidates = words(6, seeded())
    contexts, candidates = contexts.clamp_max(4), candidates.clamp_max(5)
    runs = []
    for sparse in (True, False):
        model = CBOW.infinite(7, sparse=sparse)
        optimiser = torch.optim.SGD(model.parameters(), lr=2.0)
        for _ in range(5):
            optimiser.zero_grad()
            negative_sampling_loss(model(contexts, candidates)).backward()
            optimiser.step()
        runs.append((model.input.detach(), model.output.detach()))
        assert model.input.grad.is_sparse == sparse
    for a, b in zip(*runs, strict=True):
        torch.testing.assert_close(a, b)
    gradient = CBOW.infinite(7)
    negative_sampling_loss(gradient(contexts, candidates)).backward()
    touched = (gradient.input.grad, contexts.clamp_min(0)), (gradient.output.grad, candidates)
    for grad, seen in touched:
        assert set(grad.coalesce().indices()[0].tolist()) == set(seen.flatten().tolist())


def test_the_loss_of_negative_sampling_is_the_logistic_one():
    scores = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])
    expected = nn.functional.binary_cross_entropy_with_logits(scores, torch.tensor([[1.0, 0, 0]] * 2), reduction="sum")
    torch.testing.assert_close(negative_sampling_loss(scores), expected / 2)


def test_bad_sizes_are_refused():
    for bad in ({"hidden_layers": 0}, {"horizon": 0}, {"sigma_v": -1.0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            InfiniteLinearNetwork(3, 1, **bad)
    with pytest.raises(ValueError, match="width ≥ 1"):
        InfiniteLinearNetwork(3, 1).sample(0)
    with pytest.raises(ValueError, match="no chain"):
        LinearNetwork(torch.zeros(4, 3), [torch.zeros(4, 5)], torch.zeros(1, 4))
    with pytest.raises(ValueError, match="sizes ≥ 1"):
        CBOW(0, 3)
    with pytest.raises(ValueError, match="needs a word"):
        CBOW.infinite(0)


def test_sampling_leaves_the_global_stream_alone():
    state = torch.get_rng_state()
    InfiniteLinearNetwork(3, 1, 2, horizon=2).sample(10)
    CBOW(4, 3)
    assert torch.equal(state, torch.get_rng_state())
