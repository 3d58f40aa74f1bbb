"""The parametrizations on networks of every kind: what they scale and refuse, and what they promise of widths."""

import copy
import math

import pytest
import torch
from torch import nn

from tangrams.features import TangentFeatures
from tangrams.nn.parametrizations import (
    ABC,
    AlreadyParametrizedError,
    BaseShapeError,
    FanError,
    MaximalUpdate,
    MeanField,
    NeuralTangent,
    Spectral,
    Standard,
    bias_fans,
    gain_fans,
    lookup_fans,
    matrix_fans,
    spectral_gaussian_,
    spectral_normalized_,
    spectral_orthogonal_,
)

WITH_BASE = [Standard(), NeuralTangent(), MaximalUpdate(), Spectral()]


def names(rule):
    return type(rule).__name__


def mlp(width, seed=0, d=8, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(d, width),
        nn.LayerNorm(width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )


def convolutional(width):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3),
        nn.BatchNorm2d(width),
        nn.PReLU(width),
        nn.Conv2d(width, width, 3, groups=width),
        nn.Conv2d(width, 2 * width, 2, groups=2),
        nn.ConvTranspose2d(2 * width, width, 2),
        nn.Flatten(),
    )


def recurrent(width):
    torch.manual_seed(0)
    return nn.LSTM(width, width)


class Tied(nn.Module):
    def __init__(self, width, vocabulary=11):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(vocabulary, width)
        self.hidden = nn.Linear(width, width)
        self.readout = nn.Linear(width, vocabulary, bias=False)
        self.readout.weight = self.table.weight

    def forward(self, index):
        return self.readout(self.hidden(self.table(index)).tanh())


class Sequence(nn.Module):
    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.positions = nn.Parameter(torch.randn(5, width))
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.recurrent = nn.LSTM(width, width, batch_first=True)

    def forward(self, x):
        x = x + self.positions
        return self.recurrent(self.attention(x, x, x, need_weights=False)[0])[0]


def trained(model, groups, x, y, steps=3, optimizer=torch.optim.SGD):
    optimizer = optimizer(groups, lr=1.0)
    outputs = []
    for _ in range(steps):
        optimizer.zero_grad()
        f = model(x)
        ((f - y) ** 2).mean().backward()
        optimizer.step()
        outputs.append(f.detach())
    return torch.stack(outputs)


# -- the base is left as it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", WITH_BASE, ids=names)
@pytest.mark.parametrize("make", [mlp, convolutional, Tied, recurrent], ids=["mlp", "conv", "tied", "lstm"])
def test_at_the_base_width_nothing_changes_by_a_bit(rule, make):
    model, plain = make(6), make(6)
    plan = rule.apply(model, make(6))
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), plain.parameters(), strict=True))
    for groups in (plan.sgd(0.1, weight_decay=0.01), plan.adam(0.1, weight_decay=0.01)):
        assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.1, 0.01)]
        assert {id(p) for p in groups[0]["params"]} == {id(p) for p in model.parameters()}


def test_a_base_on_the_meta_device_is_enough():
    with torch.device("meta"):
        base = mlp(4)
    plan = MaximalUpdate().apply(mlp(8), base)
    assert plan["3.weight"].scaling.adam == 0.5


# -- the tables -------------------------------------------------------------------------------------------------


def factors(plan, name):
    scaling = plan[name].scaling
    return (scaling.std, scaling.multiplier, scaling.sgd, scaling.adam)


def test_maximal_update_has_the_rates_of_its_table():
    plan = MaximalUpdate().plan(mlp(32), mlp(8))  # m = 4
    for vector in ("0.weight", "0.bias", "1.weight", "1.bias", "3.bias"):
        assert factors(plan, vector) == (1, 1, 4, 1)
    assert factors(plan, "3.weight") == (0.5, 1, 1, 0.25)
    assert factors(plan, "5.weight") == (1, 0.25, 4, 1)
    assert factors(plan, "5.bias") == (1, 1, 1, 1)
    folded = plan["5.weight"].scaling.folded()
    assert (folded.std, folded.multiplier, folded.sgd, folded.adam) == (0.25, 1, 0.25, 0.25)


def test_the_spectral_rule_is_maximal_update_without_a_multiplier():
    ours, theirs = Spectral().plan(mlp(32), mlp(8)), MaximalUpdate().plan(mlp(32), mlp(8))
    for row in ours.rows:
        assert row.scaling == theirs[row.name].scaling.folded(), row.name


def test_the_spectral_rule_has_the_constants_of_its_formulas():
    plan = Spectral(sigma=2.0).plan(mlp(32, d=8, outputs=2))
    assert factors(plan, "0.weight") == pytest.approx((2 / math.sqrt(8), 1, 4, 1 / 8))
    assert factors(plan, "3.weight") == pytest.approx((2 / math.sqrt(32), 1, 1, 1 / 32))
    assert factors(plan, "5.weight") == pytest.approx((2 * math.sqrt(2) / 32, 1, 2 / 32, 1 / 32))
    assert factors(plan, "3.bias")[2:] == (32, 1)
    assert factors(plan, "1.weight")[2:] == (32, 1)


def test_initial_variances_are_those_of_the_law():
    """Of torch's own draws, rescaled, and of fresh ones; n entries give a deviation to a relative (2n)^-1/2."""
    for rule, expected in (
        (
            MaximalUpdate(),
            {"3.weight": 1 / math.sqrt(3 * 256), "5.weight": 1 / math.sqrt(3 * 16), "3.bias": 1 / math.sqrt(3 * 16)},
        ),
        (Spectral(), {"3.weight": 1 / math.sqrt(3 * 256), "5.weight": 1 / math.sqrt(3 * 16) / 16}),
        (NeuralTangent(), {"3.weight": 1 / math.sqrt(3 * 16), "5.weight": 1 / math.sqrt(3 * 16)}),
    ):
        plan = rule.apply(mlp(256, outputs=16), mlp(16, outputs=16))
        for name, std in expected.items():
            value = plan[name].parameter.detach()
            assert float(value.std()) == pytest.approx(std, rel=5 * (2 * value.numel()) ** -0.5), (rule, name)
    plan = Spectral().apply(mlp(256))
    weight = plan["3.weight"].parameter.detach()
    assert float(weight.std()) == pytest.approx(1 / 16, rel=5 * (2 * weight.numel()) ** -0.5)
    assert not plan["3.bias"].parameter.any()
    assert (plan["1.weight"].parameter == 1).all()


def test_grouped_transposed_and_elementwise_layers_have_the_fans_of_what_they_do():
    plan = MaximalUpdate().plan(convolutional(16), convolutional(4))
    assert factors(plan, "0.weight") == (1, 1, 4, 1)
    assert factors(plan, "1.weight") == (1, 1, 4, 1)
    assert factors(plan, "2.weight") == (1, 1, 4, 1)
    assert factors(plan, "3.weight") == (1, 1, 4, 1), "depthwise: a window per channel"
    assert factors(plan, "4.weight") == (0.5, 1, 1, 0.25), "each of two groups is a hidden matrix"
    assert factors(plan, "5.weight") == (0.5, 1, 1, 0.25)
    for row in plan.rows:
        assert math.prod(row.fans.view) == row.parameter.numel()


def test_a_depthwise_layer_moves_its_features_at_every_width_by_the_same():
    """One SGD step with the loss's gradient spread over all channels, as a layer above would spread it."""
    moved = []
    for width in (16, 64, 256):
        torch.manual_seed(0)
        layer = nn.Conv1d(width, width, 3, groups=width, bias=False)
        plan = Spectral().apply(layer)
        x = torch.randn(1, width, 3)
        before = layer(x)
        (before * torch.randn(before.shape)).sum().div(width).backward()
        torch.optim.SGD(plan.sgd(0.1)).step()
        moved.append(float((layer(x) - before).square().mean().sqrt()))
    assert max(moved) / min(moved) < 1.5


def test_recurrent_and_attention_layers_are_read_with_a_rule_for_the_rest():
    fans = {"positions": lookup_fans}
    plan = MaximalUpdate().plan(Sequence(16), Sequence(4), fans=fans)
    assert factors(plan, "positions") == (1, 1, 4, 1)
    for name in (
        "attention.in_proj_weight",
        "attention.out_proj.weight",
        "recurrent.weight_hh_l0",
        "recurrent.weight_ih_l0",
    ):
        assert factors(plan, name) == (0.5, 1, 1, 0.25), name
    assert factors(plan, "recurrent.bias_hh_l0") == (1, 1, 4, 1)
    model = Sequence(16)
    MaximalUpdate().apply(model, Sequence(4), fans=fans)
    assert model(torch.randn(2, 5, 16)).isfinite().all()


def test_the_extra_key_of_attention_starts_as_wide_as_at_the_base():
    """Torch draws it with a deviation that falls with the width; a bias in μP keeps that of the base."""
    wide, base = (nn.MultiheadAttention(n, 2, add_bias_kv=True) for n in (1024, 16))
    MaximalUpdate().apply(wide, base)
    for extra in (wide.bias_k, wide.bias_v):
        assert extra is not None
        assert float(extra.detach().std()) == pytest.approx(1 / 4, rel=5 * (2 * 1024) ** -0.5)


def test_separate_maps_of_attention_start_as_wide_as_torch_draws_them():
    """By Glorot's rule, over keys of a fixed size and the width; a key's map is an input weight in μP."""
    torch.manual_seed(0)
    wide, base = (nn.MultiheadAttention(n, 2, kdim=12, vdim=12) for n in (512, 16))
    expected = (2 / (16 + 12)) ** 0.5
    MaximalUpdate().apply(wide, base)
    for weight in (wide.k_proj_weight, wide.v_proj_weight):
        assert float(weight.detach().std()) == pytest.approx(expected, rel=5 * (2 * weight.numel()) ** -0.5)


@pytest.mark.parametrize("rule", [Spectral(), NeuralTangent(), Standard()], ids=lambda rule: type(rule).__name__)
def test_slopes_and_empty_rows_stay_where_torch_starts_them(rule):
    model = nn.Sequential(nn.Embedding(5, 4, padding_idx=2), nn.Linear(4, 4), nn.PReLU(), nn.LayerNorm(4))
    rule.apply(model)
    assert float(model[2].weight) == 0.25
    assert torch.equal(model[3].weight, torch.ones(4))
    assert (model[0].weight == 0).all(1).tolist() == [False, False, True, False, False]


def test_a_tied_readout_gets_a_multiplier_and_stays_tied():
    model = Tied(44)
    plain = copy.deepcopy(model)
    plan = MaximalUpdate().apply(model, Tied(11))
    assert plan["table.weight"].scaling.multiplier == 1
    assert plan["readout.weight"].scaling.multiplier == 0.25
    assert factors(plan, "table.weight")[2:] == (4, 1)
    assert len(list(model.parameters())) == len(list(plain.parameters()))
    h = torch.randn(5, 44)
    torch.testing.assert_close(model.readout(h), h @ model.table.weight.mT / 4)
    assert torch.equal(model.table.weight, plain.table.weight)
    assert sum(len(g["params"]) for g in plan.sgd(1.0)) == 3
    assert Standard().plan(Tied(44), Tied(11))["readout.weight"].scaling.multiplier == 1


def test_a_layer_used_twice_is_scaled_once():
    def build(width):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, width))
        model[2].weight = model[1].weight
        return model

    model, plain = build(16), build(16)
    NeuralTangent().apply(model, build(4))
    stored = model[1].parametrizations.weight.original
    assert stored is model[2].parametrizations.weight.original
    torch.testing.assert_close(stored, 2 * plain[1].weight)
    torch.testing.assert_close(model[2].weight, plain[2].weight)


def test_a_recurrent_layer_computes_with_what_was_scaled():
    """It reads a list of its own weights, so a multiplier is folded into them."""
    model, plain = recurrent(16), recurrent(16)
    plan = NeuralTangent().apply(model, recurrent(4))
    assert factors(plan, "weight_hh_l0") == (0.5, 1, 0.25, 1 / 8)
    x = torch.randn(3, 2, 16)
    with torch.no_grad():
        for name, value in plain.named_parameters():
            value.mul_(plan[name].initial)
    assert torch.equal(model(x)[0], plain(x)[0])


# -- what training does ------------------------------------------------------------------------------------------


def test_shifted_scalings_train_the_same_network():
    """(σ θ, c / θ, θ² η): the same outputs after three steps, in float64."""
    x, y = torch.randn(6, 8, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    runs = []
    for rule in (MaximalUpdate(), Spectral()):  # one with a multiplier, one with it folded into the weights
        model = mlp(32).double()
        plan = rule.apply(model, mlp(8).double())
        runs.append(trained(model, plan.sgd(0.05), x, y))
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("theta", [0.5, -0.25])
def test_shifting_abc_exponents_leaves_the_training_as_it_is(theta):
    def build():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Linear(4, 16, bias=False),
            nn.Tanh(),
            nn.Linear(16, 16, bias=False),
            nn.Tanh(),
            nn.Linear(16, 2, bias=False),
        ).double()

    x, y = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    runs = []
    for parametrization in (ABC.mup(2), ABC.mup(2).shift(theta)):
        model = build()
        plan = parametrization.apply(model, generator=torch.Generator().manual_seed(3))
        runs.append(trained(model, plan.sgd(0.1), x, y))
    assert float((runs[0][-1] - runs[0][0]).norm()) > 0.01
    torch.testing.assert_close(runs[0], runs[1], rtol=1e-10, atol=1e-10)


def test_decay_does_not_depend_on_the_width():
    plan = MaximalUpdate().plan(mlp(32), mlp(8))
    for groups in (plan.sgd(0.1, weight_decay=0.02), plan.adam(0.1, weight_decay=0.02)):
        assert {round(g["lr"] * g["weight_decay"], 12) for g in groups} == {0.002}


def test_schedulers_multiply_every_rate():
    plan = MaximalUpdate().plan(mlp(32), mlp(8))
    optimizer = torch.optim.AdamW(plan.adam(0.1))
    before = [g["lr"] for g in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    optimizer.step()
    schedule.step()
    assert [g["lr"] for g in optimizer.param_groups] == [0.5 * lr for lr in before]


def test_groups_of_the_users_own_are_divided_further():
    model = mlp(32)
    plan = MaximalUpdate().apply(model, mlp(8))
    groups = plan.adam(
        0.1, params=[{"params": [model[3].weight], "lr": 0.4, "betas": (0.8, 0.9)}, {"params": model[0].weight}]
    )
    assert [(g["lr"], g.get("betas")) for g in groups] == [(0.1, (0.8, 0.9)), (0.1, None)]
    with pytest.raises(ValueError, match="does not know"):
        plan.adam(0.1, params=[nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match="positive"):
        plan.sgd(0.0)
    model[0].weight.requires_grad_(False)
    assert all(p is not model[0].weight for g in plan.sgd(0.1) for p in g["params"])


def test_the_lazy_rates_move_outputs_by_one_and_features_by_the_root_of_the_width():
    """One step of SGD or Adam in NTK parametrisation, for each layer alone: |Δf| flat in width, |Δh| ~ n^-1/2."""
    widths = (64, 1024)
    for kind in ("sgd", "adam"):
        for layer in (0, 2, 4):
            moved = []
            for width in widths:
                per_seed = []
                for seed in range(6):
                    torch.manual_seed(seed)
                    model = nn.Sequential(
                        nn.Linear(8, width, bias=False),
                        nn.Tanh(),
                        nn.Linear(width, width, bias=False),
                        nn.Tanh(),
                        nn.Linear(width, 1, bias=False),
                    )
                    plan = NeuralTangent().apply(model, generator=torch.Generator().manual_seed(seed))
                    x = torch.randn(1, 8, generator=torch.Generator().manual_seed(seed))
                    (f := model(x)).sum().backward()
                    h = model[:3](x).detach()
                    groups = getattr(plan, kind)(0.1, params=[plan[f"{layer}.weight"].parameter])
                    (torch.optim.SGD if kind == "sgd" else torch.optim.Adam)(groups).step()
                    per_seed.append((abs(float(model(x) - f)), float((model[:3](x) - h).square().mean().sqrt())))
                moved.append(torch.tensor(per_seed).mean(0))
            slope = (moved[1] / moved[0]).log() / math.log(widths[1] / widths[0])
            assert abs(float(slope[0])) < 0.2, (kind, layer, slope)
            if layer < 4:
                assert -0.75 < float(slope[1]) < -0.25, (kind, layer, slope)


# -- the theorem -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 5])
def test_the_theorem_sorts_the_known_parametrizations(depth):
    assert ABC.ntk(depth).classify().kernel
    assert ABC.ntk(depth).r == 0.5
    assert ABC.standard(depth, c=1.0).classify().kernel
    unstable = ABC.standard(depth).classify()
    assert not unstable.stable
    assert any("2 a" in words for words in unstable.failing)
    mup = ABC.mup(depth).classify()
    assert (mup.feature_learning, mup.kernel, mup.zero_start, mup.r) == (True, False, True, 0)
    trivial = ABC(ABC.mup(depth).a, ABC.mup(depth).b, 1.0).classify()
    assert trivial.stable
    assert not trivial.nontrivial
    assert not (trivial.kernel)
    assert not (trivial.feature_learning)


def test_mean_field_is_maximal_update_shifted():
    assert ABC.mean_field().classify().feature_learning
    shifted = ABC.mup(1).shift(0.5)
    assert (shifted.a, shifted.b, shifted.c) == (ABC.mean_field().a, ABC.mean_field().b, ABC.mean_field().c)


@pytest.mark.parametrize("theta", [-1.0, 0.3])
def test_verdicts_do_not_depend_on_the_shift(theta):
    for abc in (ABC.mup(3), ABC.ntk(2), ABC.standard(2), ABC.standard(4, 1.0), ABC.mean_field()):
        ours, theirs = abc.classify(), abc.shift(theta).classify()
        assert ours.r == pytest.approx(theirs.r)
        assert (ours.stable, ours.nontrivial, ours.feature_learning, ours.kernel) == (
            theirs.stable,
            theirs.nontrivial,
            theirs.feature_learning,
            theirs.kernel,
        )


def test_abc_scales_the_layers_of_a_perceptron():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 256, bias=False), nn.ReLU(), nn.Linear(256, 3, bias=False))
    plan = ABC.mup(1).apply(model)
    assert factors(plan, "0.weight") == (1 / 16, 16, 1, None)
    assert factors(plan, "2.weight") == (1 / 16, 1 / 16, 1, None)
    assert float(model[0].weight.std()) == pytest.approx(1, rel=0.1)
    with pytest.raises(ValueError, match="SGD alone"):
        plan.adam(0.1)
    relative = ABC.mup(1).plan(
        nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 3, bias=False)),
        nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 3, bias=False)),
    )
    assert factors(relative, "0.weight")[:2] == (0.5, 2)


def test_an_unstable_abc_warns_with_the_inequality():
    model = nn.Sequential(nn.Linear(4, 8, bias=False), nn.Linear(8, 3, bias=False))
    with pytest.warns(UserWarning, match=r"2 a_2 \+ c ≥ 1, got 0"):
        ABC.standard(1).apply(model)


def test_abc_refuses_what_it_is_not_for():
    with pytest.raises(ValueError, match="as many a as b"):
        ABC([0, 0], [0], 0)
    with pytest.raises(ValueError, match="hidden layer"):
        ABC([0], [0], 0)
    with pytest.raises(FanError, match="no biases"):
        ABC.mup(2).plan(mlp(8))


# -- refusals ----------------------------------------------------------------------------------------------------


def test_a_parameter_without_a_rule_is_refused_by_name_and_nothing_is_touched():
    model = Sequence(8)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(FanError, match=r"'positions'.*fans="):
        MaximalUpdate().apply(model, Sequence(4))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    class Own(nn.Linear):
        def forward(self, x):
            return super().forward(x) / 3

    with pytest.raises(FanError, match=r"'0\.weight' of Own"):
        Spectral().plan(nn.Sequential(Own(3, 4)))
    with pytest.raises(FanError, match="does not have"):
        Spectral().plan(mlp(4), fans={"nothing": bias_fans})
    Spectral().plan(nn.Sequential(Own(3, 4)), fans={"0.weight": matrix_fans, "0.bias": bias_fans})
    with pytest.raises(FanError, match="two or more axes"):
        matrix_fans(torch.Size([4]))
    with pytest.raises(FanError, match="table"):
        lookup_fans(torch.Size([4]))
    assert gain_fans(torch.Size([4])).view == (4, 1, 1)


def test_a_second_parametrization_is_refused_also_in_a_larger_model():
    model = mlp(8)
    MaximalUpdate().apply(model, mlp(4))
    weights = [p.clone() for p in model.parameters()]
    for again in (model, nn.Sequential(model), copy.deepcopy(model)):
        with pytest.raises(AlreadyParametrizedError, match="MaximalUpdate already"):
            Spectral().apply(again)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))


def test_loading_a_checkpoint_does_not_scale():
    model = mlp(8)
    plan = MaximalUpdate().apply(model, mlp(4))
    torch.optim.SGD(plan.sgd(0.1)).step()
    again = mlp(8, seed=5)
    MaximalUpdate().apply(again, mlp(4))
    again.load_state_dict(model.state_dict())
    x = torch.randn(2, 8)
    assert torch.equal(model(x), again(x))


def test_a_base_is_asked_for_where_it_is_needed_and_must_fit():
    with pytest.raises(BaseShapeError, match="base="):
        MaximalUpdate().apply(mlp(8))
    with pytest.raises(BaseShapeError, match="one function of the width"):
        MaximalUpdate().apply(mlp(8), nn.Linear(3, 3))
    with pytest.raises(FanError, match="one hidden layer"):
        MeanField().plan(mlp(8), mlp(4))
    one = MeanField().plan(
        nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 2)), nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    )
    assert factors(one, "1.weight") == (1, 0.25, 4, 1)
    with pytest.raises(ValueError, match="sigma > 0"):
        Spectral(0.0)
    with pytest.raises(KeyError, match="no parameter 'x'"):
        one["x"]


# -- initialisations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(300, 300), (1024, 256), (256, 1024), (256, 32, 3, 3)], ids=str)
def test_spectral_initialisations_have_their_norm(shape):
    fan_out, fan_in = shape[0], math.prod(shape[1:])
    target = 1.5 * math.sqrt(fan_out / fan_in)

    def norm(w):
        return float(torch.linalg.matrix_norm(w.flatten(1), ord=2))

    assert norm(spectral_normalized_(torch.empty(shape), 1.5)) == pytest.approx(target, rel=1e-5)
    assert norm(spectral_orthogonal_(torch.empty(shape), 1.5)) == pytest.approx(target, rel=1e-5)
    values = torch.linalg.svdvals(spectral_orthogonal_(torch.empty(shape), 1.5).flatten(1))
    assert float(values.min()) == pytest.approx(target, rel=1e-4)
    std = 1.5 * fan_in**-0.5 * min(1, math.sqrt(fan_out / fan_in))
    expected = std * (math.sqrt(fan_out) + math.sqrt(fan_in))
    assert norm(spectral_gaussian_(torch.empty(shape), 1.5)) == pytest.approx(expected, rel=0.1)


def test_initialisations_refuse_vectors_and_leave_the_global_stream_alone():
    state = torch.get_rng_state()
    for fill in (spectral_gaussian_, spectral_orthogonal_, spectral_normalized_):
        fill(torch.empty(4, 3))
        with pytest.raises(FanError, match="two or more axes"):
            fill(torch.empty(4))
        with pytest.raises(ValueError, match="sigma > 0"):
            fill(torch.empty(4, 3), -1.0)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("rule", [NeuralTangent(), Spectral()], ids=names)
def test_tangent_features_see_through_a_parametrization(rule):
    """The gradient in w of a weight c w is c times that in the weight, for every layer."""
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    rule.apply(model)
    x = torch.randn(5, 4, dtype=torch.float64)
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    jacobians = torch.func.jacrev(lambda p: torch.func.functional_call(model, p, (x,)))(parameters)
    J = torch.cat([part.reshape(10, -1) for part in jacobians.values()], 1)
    torch.testing.assert_close(TangentFeatures(model, output="all").gram(x), J @ J.mT, rtol=1e-10, atol=1e-10)
