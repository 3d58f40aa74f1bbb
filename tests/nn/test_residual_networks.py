"""Residual networks with scaled branches."""

import math

import pytest
import torch

from tangrams.nn import ResidualConvNet, ResidualGPT, ResidualMLP, ResidualViT
from tangrams.nn.parametrizations import MaximalUpdate, NeuralTangent, Spectral, lookup_fans
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def seeded(make):
    torch.manual_seed(0)
    return make()


def tokens(n, generator):
    return torch.randint(0, 7, (n, 3), generator=generator)


def mlp_by_hand(module, x):
    h = x @ module.embed.weight.T
    for block in module.blocks:
        branch = h
        for layer in block:
            branch = layer.weight @ branch.relu().mT if hasattr(layer, "weight") else branch
            branch = branch.mT if hasattr(layer, "weight") else branch
        h = module.skip * h + branch / module.depth**module.branch_exponent
    return h.relu() @ module.readout.weight.T


def gpt_by_hand(module, x):
    """Position by position over a growing prefix, one head after the other."""
    outputs = []
    for t in range(1, x.shape[1] + 1):
        h = module.tokens.weight[x[:, :t]] + module.positions[:t]
        for index, block in enumerate(module.blocks):
            u = torch.nn.functional.layer_norm(h, h.shape[-1:]) * block.norm.weight + block.norm.bias
            if index % 2:
                branch = torch.nn.functional.gelu(u @ block.inner.weight.T) @ block.outer.weight.T
            else:
                q, k, v = (u @ layer.weight.T for layer in (block.query, block.key, block.value))
                size = q.shape[-1] // block.heads
                heads = []
                for part in range(block.heads):
                    own = slice(part * size, (part + 1) * size)
                    scores = q[..., own] @ k[..., own].mT / size
                    scores = scores + torch.full_like(scores, -torch.inf).triu(1)
                    heads.append(scores.softmax(-1) @ v[..., own])
                branch = torch.cat(heads, -1) @ block.out.weight.T
            h = h + branch / module.depth**module.branch_exponent
        u = torch.nn.functional.layer_norm(h, h.shape[-1:]) * module.norm.weight + module.norm.bias
        outputs.append(u[:, -1] @ module.readout.weight.T)
    return torch.stack(outputs, 1)


TestResidual = conformance(
    ModuleSuite,
    Case(
        lambda: seeded(lambda: ResidualMLP(4, 6, 3, 2, block_depth=2, skip=0.9)),
        inputs=normal(4),
        reference=mlp_by_hand,
    ),
    Case(lambda: seeded(lambda: ResidualConvNet(2, 3, 2, 2)), inputs=normal(2, 4, 4)),
    Case(lambda: seeded(lambda: ResidualGPT(7, 4, 4, 1, heads=2)), inputs=tokens, reference=gpt_by_hand),
    Case(lambda: seeded(lambda: ResidualViT(2, 4, 2, 4, 1, 2, heads=2)), inputs=normal(2, 4, 4)),
)


def test_the_lazy_family_is_that_of_the_paper():
    """N(0, 1) weights under 1/√fan-in, and branches under L^-α."""
    model = ResidualMLP(5, 16, 4, 3, branch_exponent=0.5).double()
    NeuralTangent().apply(model, generator=torch.Generator().manual_seed(0))
    w = {name.removesuffix(".parametrizations.weight.original"): p for name, p in model.named_parameters()}
    x = torch.randn(2, 5, dtype=torch.float64)
    h = x @ w["embed"].T / math.sqrt(5)
    for l in range(4):
        h = h + h.relu() @ w[f"blocks.{l}.1"].T / math.sqrt(16) / 2
    torch.testing.assert_close(model(x), h.relu() @ w["readout"].T / math.sqrt(16))
    assert float(torch.cat([p.flatten() for p in w.values()]).std()) == pytest.approx(1, rel=0.1)


def test_maximal_update_in_the_papers_convention_trains_the_same_network():
    """γ = √N and the rate η γ² on N(0, 1) weights, by hand, against the spectral rule."""
    n, d, c, eta = 32, 5, 2, 0.02
    x, y = torch.randn(8, d, dtype=torch.float64), torch.randn(8, c, dtype=torch.float64)
    model = ResidualMLP(d, n, 2, c).double()
    plan = Spectral().apply(model, generator=torch.Generator().manual_seed(0))
    ours = torch.optim.SGD(plan.sgd(eta))
    # W = w / √fan-in, and a readout w / (γ √N): the values that give the same function.
    scale = {"embed.weight": d**-0.5, "readout.weight": 1 / n}
    weights = {name: (p.detach() / scale.get(name, n**-0.5)).requires_grad_() for name, p in model.named_parameters()}
    # One rate η N d for all is this rule up to constants: those of the input (1) and of the readout (c → 1).
    rate = {"embed.weight": eta * n, "readout.weight": eta * n * c}
    for _ in range(3):
        ours.zero_grad()
        f = model(x)
        ((f - y) ** 2).mean().backward()
        h = x @ weights["embed.weight"].T * d**-0.5
        for l in range(2):
            h = h + (h.relu() @ weights[f"blocks.{l}.1.weight"].T) * n**-0.5 * 2**-0.5
        g = h.relu() @ weights["readout.weight"].T / n
        torch.testing.assert_close(f, g, rtol=1e-10, atol=1e-12)
        gradients = torch.autograd.grad(((g - y) ** 2).mean(), list(weights.values()))
        ours.step()
        with torch.no_grad():
            for (name, w), gradient in zip(weights.items(), gradients, strict=True):
                w.sub_(rate.get(name, eta * n) * gradient)


def moved_by(depth, adam, exponent=0.5):
    torch.manual_seed(0)
    model = ResidualMLP(8, 128, depth, 1, branch_exponent=exponent)
    plan = MaximalUpdate().apply(model, ResidualMLP(8, 16, depth, 1))
    x, y = torch.randn(16, 8), torch.randn(16, 1)
    if adam:
        branch = {"params": model.branch_parameters(), "lr": 0.01 * depth**-exponent}
        optimizer = torch.optim.Adam(plan.adam(0.01, params=[branch, {"params": model.outer_parameters()}]))
    else:
        optimizer = torch.optim.SGD(plan.sgd(0.1))

    def features():
        with torch.no_grad():
            return model._run(model.embed(x))

    before = features()
    for _ in range(3):
        optimizer.zero_grad()
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()
    return float((features() - before).norm() / before.norm())


@pytest.mark.parametrize("adam", [False, True])
def test_features_move_by_the_same_at_every_depth(adam):
    shallow, deep = moved_by(4, adam), moved_by(64, adam)
    assert 0.6 < deep / shallow < 1.6


def test_without_the_scale_of_branches_they_blow_up():
    torch.manual_seed(0)
    x = torch.randn(4, 8)
    sizes = {}
    for exponent in (0.0, 0.5):
        model = ResidualMLP(8, 64, 32, 1, branch_exponent=exponent)
        Spectral().apply(model)
        sizes[exponent] = float(model._run(model.embed(x)).detach().norm())
    assert sizes[0.0] > 100 * sizes[0.5]


def test_transformers_are_parametrised_with_a_rule_for_their_positions():
    for make in (lambda n: ResidualGPT(7, 4, n, 1), lambda n: ResidualViT(3, 8, 4, n, 1, 2)):
        model = make(16)
        plan = MaximalUpdate().apply(model, make(8), fans={"positions": lookup_fans})
        assert plan["blocks.0.query.weight"].scaling.adam == 0.5
        assert plan["readout.weight"].scaling.multiplier == 0.5
        assert len(model.branch_parameters()) + len(model.outer_parameters()) == len(list(model.parameters()))


def test_bad_sizes_are_refused():
    for make, word in (
        (lambda: ResidualMLP(3, 4, 0, 1), "depth ≥ 1"),
        (lambda: ResidualMLP(3, 4, 1, 1, block_depth=0), "block_depth"),
        (lambda: ResidualConvNet(3, 4, 1, 1, branch_exponent=-1.0), "branch_exponent"),
        (lambda: ResidualGPT(7, 4, 5, 1, heads=2), "heads divide"),
        (lambda: ResidualViT(3, 7, 2, 4, 1, 1), "divide the image"),
    ):
        with pytest.raises(ValueError, match=word):
            make()
