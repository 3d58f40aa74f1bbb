"""The linearised module: an affine function of its direction, at a base point that stays."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn import functional as F

from tangrams.nn.tangent import BasePointMismatchError, LinearizedModule, linearize
from tangrams.nn.tangent.borrow import Borrowed
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv1d(2, 3, 3, padding=1), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4), nn.Tanh()
        ).double()


def moved(lin: LinearizedModule, seed: int = 0) -> LinearizedModule:
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tangent in lin.parameters():
            tangent.copy_(torch.randn(tangent.shape, generator=g, dtype=torch.float64))
    return lin


def by_func(module: LinearizedModule, x):
    base = module.base.eval()
    weights = {name: p.detach() for name, p in base.named_parameters() if name in module.names}
    value, tangent = jvp(lambda w: functional_call(base, w, (x,)), (weights,), (dict(module.tangents()),))
    return value + tangent


TestLinearizedModule = conformance(
    ModuleSuite,
    Case(
        lambda: moved(linearize(net())),
        inputs=normal(2, 4),
        reference=by_func,
        excuses={"check_compiles_as_one_graph": "it runs the user's network eagerly, in torch's forward mode"},
    ),
)


def samples(n: int = 5) -> torch.Tensor:
    return torch.randn(n, 2, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_at_zero_it_is_the_network():
    model = net().eval()
    assert torch.equal(linearize(model)(samples()), model(samples()))


def test_it_is_affine_in_the_direction():
    model, x = net(), samples()
    one, two = moved(linearize(model), 1), moved(linearize(model), 2)
    both = linearize(model, vector=one.vector() + two.vector())
    f0 = linearize(model)(x)
    torch.testing.assert_close(both(x) - f0, (one(x) - f0) + (two(x) - f0), rtol=0, atol=1e-12)


def test_only_the_chosen_parameters_move_and_lower_layers_carry_no_tangent():
    model, x = net(), samples()
    lin = moved(linearize(model, trainable=model[4]))
    assert lin.names == ("4.weight", "4.bias")
    torch.testing.assert_close(lin(x), by_func(lin, x), rtol=1e-10, atol=1e-10)
    seen = []
    handle = model[2].register_forward_hook(lambda m, a, out: seen.append(torch.autograd.forward_ad.unpack_dual(out)))
    lin(x)
    handle.remove()
    assert seen[0].tangent is None


@pytest.mark.parametrize("trainable", ["0.weight", ["0.weight", "4.bias"], lambda name, p: name.endswith("bias")])
def test_parameters_are_chosen_as_for_tangent_features(trainable):
    lin = moved(linearize(net(), trainable=trainable))
    torch.testing.assert_close(lin(samples()), by_func(lin, samples()), rtol=1e-10, atol=1e-10)


def test_a_squared_loss_is_convex_and_its_hessian_is_gauss_newton():
    lin, x = linearize(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()), samples()[:, 0, :3]
    tangents = lin.tangents()

    def loss(flat):
        pieces = flat.split([t.numel() for t in tangents.values()])
        named = {f"tangent.{n}": p.reshape(t.shape) for (n, t), p in zip(tangents.items(), pieces, strict=True)}
        return functional_call(lin, named, (x,)).square().sum()

    p = sum(t.numel() for t in tangents.values())
    hessian = torch.func.hessian(loss)(torch.zeros(p, dtype=torch.float64))
    from tangrams.features import TangentFeatures

    J = TangentFeatures(lin.base).matrix(x).to_dense()
    torch.testing.assert_close(hessian, 2 * J.mT @ J, rtol=1e-9, atol=1e-9)


def test_gradients_in_the_inputs_are_those_of_the_linearised_function():
    lin, x = moved(linearize(net())), samples(2).requires_grad_()
    assert torch.autograd.gradcheck(lin, (x,))


def test_a_network_that_changed_is_refused_until_it_is_put_back():
    model, x = net(), samples()
    lin = linearize(model)
    weight = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1
    with pytest.raises(BasePointMismatchError, match="Sequential changed since"):
        lin(x)
    with torch.no_grad():
        model[0].weight.copy_(weight)
    assert torch.equal(lin(x), model.eval()(x))


def test_its_state_is_the_direction_alone_and_the_network_is_shared():
    lin = moved(linearize(net()))
    assert all(key.startswith("tangent.") for key in lin.state_dict())
    assert copy.deepcopy(lin).base is lin.base


def test_training_moves_nothing_but_the_direction():
    model, x = net(), samples()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    lin = linearize(model)
    optimizer = torch.optim.Adam(lin.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (lin(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert model.training


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_gradient_mode_changes_no_value(context):
    lin, x = moved(linearize(net())), samples()
    expected = lin(x).detach()
    with context():
        assert torch.equal(lin(x), expected)


def test_the_value_is_the_networks_to_the_last_bit_in_single_precision_too():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
        x = torch.randn(4, 64, 64)
    lin, double = moved(linearize(model)), linearize(copy.deepcopy(model).double())
    double.load_state_dict(lin.state_dict())
    with torch.no_grad():
        value, tangent = lin.dual(x)
        exact = double.dual(x.double()).tangent
    assert torch.equal(value, model(x))
    torch.testing.assert_close(tangent.double(), exact, rtol=0, atol=1e-6 * float(exact.abs().max()))


def test_only_the_random_states_of_the_devices_of_the_network_are_read(monkeypatch):
    borrowed, seen = Borrowed(net()), []
    borrowed.tensors = [SimpleNamespace(is_cuda=True, device=torch.device("cuda", 1))]
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: seen.append(("read", device)))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: seen.append(("written", device)))
    state = torch.get_rng_state()
    with borrowed.with_parameters(lambda p: p.detach()):
        torch.rand(1)
    assert seen == [("read", torch.device("cuda", 1)), ("written", torch.device("cuda", 1))]
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_have_tangents_in_single_precision_too(make):
    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = make(3, 4, batch_first=True)

        def forward(self, x):
            return self.body(x)[0][:, -1]

    model = Last()
    x = torch.randn(2, 5, 3)
    lin = moved(linearize(model))
    double = linearize(copy.deepcopy(model).double())
    with torch.no_grad():
        for name, tangent in double.tangents().items():
            tangent.copy_(lin.tangents()[name])
    torch.testing.assert_close(lin(x).double(), double(x.double()), rtol=1e-4, atol=1e-4)


def test_a_network_that_leaves_gradients_off_leaves_nothing_off_for_others():
    class Careless(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 2)

        def forward(self, x):
            y = self.body(x)
            torch.set_grad_enabled(False)
            return y

    lin = linearize(Careless())
    lin(torch.ones(1, 3))
    assert torch.is_grad_enabled()
    assert torch._C._is_fwd_grad_enabled()


@pytest.mark.parametrize("context", [torch.no_grad, torch.enable_grad])
def test_a_network_may_map_over_its_samples_itself(context):
    class Mapping(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.LayerNorm(4), nn.Linear(4, 2))

        def forward(self, x):
            return torch.func.vmap(self.layers)(x)

    lin = moved(linearize(Mapping().double()))
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with context():
        torch.testing.assert_close(lin(x), by_func(lin, x), rtol=1e-10, atol=1e-10)


def test_attention_is_linearised_under_the_transforms_of_torch_func():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Linear(3, 3)

        def forward(self, x):
            return nn.functional.scaled_dot_product_attention(self.body(x), x, x)

    lin = moved(linearize(Attending().double()))
    x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    tangents = {name: t.detach() for name, t in lin.named_parameters()}
    got = torch.func.grad(lambda t: functional_call(lin, t, (x,)).square().sum())(tangents)
    expected = torch.autograd.grad(lin(x).square().sum(), list(lin.parameters()))
    for g, e in zip(got.values(), expected, strict=True):
        torch.testing.assert_close(g, e, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(2, 4, 3, groups=2),
        nn.Conv1d(2, 4, 3, 2, 1, 1, 2),
        nn.Conv1d(2, 4, 3, dilation=1, stride=2),
        nn.ConvTranspose1d(2, 4, 3, 2),
        nn.ConvTranspose1d(2, 4, 3, groups=2),
    ],
    ids=["grouped", "grouped-by-position", "strided", "transposed", "transposed-grouped"],
)
def test_convolutions_behind_a_layer_whose_weights_move(layer):
    lin = moved(linearize(nn.Sequential(nn.Conv1d(2, 2, 1), nn.Tanh(), layer).double()))
    torch.testing.assert_close(lin(samples()), by_func(lin, samples()), rtol=1e-10, atol=1e-10)
    one = samples()[0]
    torch.testing.assert_close(lin(one), by_func(lin, one), rtol=1e-10, atol=1e-10)


class Masked(nn.Module):
    """Attention to earlier tokens alone, of which the first has none."""

    def __init__(self, additive: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.seen = torch.ones(3, 3, dtype=torch.bool).tril(-1)
        if additive:
            self.seen = torch.zeros(3, 3, dtype=torch.float64).masked_fill(~self.seen, -torch.inf)

    def forward(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.seen)


@pytest.mark.parametrize("additive", [False, True])
def test_a_query_that_sees_no_key_gets_zero_as_in_the_network(additive):
    model = Masked(additive).double()
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    lin = moved(linearize(model))
    value, tangent = lin.dual(x)
    torch.testing.assert_close(value, model(x), rtol=1e-10, atol=1e-10)
    assert not tangent[:, 0].any()
    # Rows that see something do not depend on the one that does not: let it see itself, where torch has a derivative.
    open_mask = model.seen.clone()
    open_mask[0, 0] = 0.0 if additive else True
    blind, model.seen = model.seen, open_mask
    expected = by_func(lin, x)
    model.seen = blind
    torch.testing.assert_close((value + tangent)[:, 1:], expected[:, 1:], rtol=1e-10, atol=1e-10)
    lin(x).square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) and bool(p.grad.any()) for p in lin.parameters())


def test_a_mask_beside_a_causal_one_is_refused_as_by_torch():
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            y, seen = self.layer(x), torch.ones(3, 3, dtype=torch.bool)
            return F.scaled_dot_product_attention(y, y, y, attn_mask=seen, is_causal=True)

    for model in (Both(), linearize(Both())):
        with pytest.raises(RuntimeError, match="is_causal"):
            model(torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(6)))


@pytest.mark.parametrize(
    "call",
    [
        lambda y: y.div(2, rounding_mode=None) + y.div(other=3),
        lambda y: y + torch.arange(4).div(2, rounding_mode="floor"),
        lambda y: torch.matmul(y, other=y.mT),
        lambda y: torch.softmax(y, -1, torch.float64),
        lambda y: y.softmax(-1, torch.float64),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_functions_with_rules_take_every_argument_that_torch_takes(call, dtype):
    class Calls(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return call(self.layer(x))

    lin = linearize(Calls().to(dtype))
    with torch.no_grad():
        for tangent in lin.parameters():
            tangent.fill_(0.5)
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(5)).to(dtype)
    found = lin(x)
    assert found.dtype == lin.base(x).dtype
    torch.testing.assert_close(found, by_func(lin, x))
