"""Linear layers that keep a compressed input: what is exact, what is shared, what is held."""

import copy
import gc
import math
import pickle

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from tangrams.lens import ActivationMemoryMeter
from tangrams.nn import PAMM, CompressedLinear, RandomProjection, UniformRows, compress_activations_
from tangrams.operators import block_generator, pamm_compress
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite

F64 = torch.float64


def make(*sizes, compression=None, seed=0, **kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CompressedLinear(*sizes, compression=compression, **kwargs)


TestCompressedLinear = conformance(
    ModuleSuite,
    Case(
        lambda: make(5, 3, compression=PAMM(1 / 4)),
        inputs=normal(5),
        reference=lambda module, x: x @ module.weight.T + module.bias,
    ),
    Case(lambda: make(5, 3, False, compression=UniformRows(0.5)), inputs=normal(2, 5), name="no-bias-sequence"),
)


def twins(shape, *, bias=True, compression=None, dtype=torch.float32):
    """The layer and nn.Linear with the same weights, and two leaves with the same input."""
    layer = make(shape[-1], 7, bias, compression=compression or PAMM(1 / 8), dtype=dtype)
    plain = nn.Linear(shape[-1], 7, bias, dtype=dtype)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)
    return layer, plain, x.clone().requires_grad_(), x.clone().requires_grad_()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(6,), (32, 6), (4, 16, 6), (2, 3, 8, 6)])
def test_output_and_gradients_of_input_and_bias_are_those_of_nn_linear(shape, bias):
    layer, plain, x, y = twins(shape, bias=bias)
    dZ = torch.randn(*shape[:-1], 7, generator=torch.Generator().manual_seed(2))
    out, expected = layer(x), plain(y)
    assert torch.equal(out, expected)
    out.backward(dZ)
    expected.backward(dZ)
    assert torch.equal(x.grad, y.grad)
    if bias:
        assert torch.equal(layer.bias.grad, plain.bias.grad)


@pytest.mark.parametrize("compression", [PAMM(1.0), UniformRows(1.0)], ids=["pamm", "rows"])
def test_all_rows_give_the_exact_weight_gradient(compression):
    layer, _, x, _ = twins((4, 16, 6), compression=compression, dtype=F64)
    assert torch.autograd.gradcheck(
        lambda v, w, b: torch.func.functional_call(layer, {"weight": w, "bias": b}, v),
        (x, layer.weight.detach().clone().requires_grad_(), layer.bias.detach().clone().requires_grad_()),
    )


@pytest.mark.parametrize(
    "compression", [UniformRows(0.25, seed=3), RandomProjection(4, seed=3)], ids=["rows", "projection"]
)
def test_the_baselines_are_unbiased(compression):
    layer, plain, x, y = twins((24, 6), compression=compression, dtype=F64)
    dZ = torch.randn(24, 7, generator=torch.Generator().manual_seed(2), dtype=F64)
    plain(y).backward(dZ)
    gradients = []
    for _ in range(1500):
        layer.weight.grad = None
        layer(x.detach() + 0).backward(dZ)
        gradients.append(layer.weight.grad)
    gradients = torch.stack(gradients)
    z = (gradients.mean(0) - plain.weight.grad) / (gradients.std(0) / math.sqrt(len(gradients)))
    assert float(z.abs().max()) < 4.5  # of 42 entries


def test_the_weight_gradient_is_the_product_with_what_was_kept():
    layer, _, x, _ = twins((4, 16, 6), dtype=F64)
    dZ = torch.randn(4, 16, 7, generator=torch.Generator().manual_seed(2), dtype=F64)
    out = layer(x)
    kept = layer.compression(x)
    C, assign, scale = kept.tensors
    out.backward(dZ)
    dense = scale[:, None] * C[assign.long()]
    torch.testing.assert_close(layer.weight.grad, dZ.reshape(-1, 7).mT @ dense, rtol=1e-12, atol=1e-12)


def test_a_finite_radius_multiplies_the_gradient_by_beta():
    layer, _, x, _ = twins((64, 6), compression=PAMM(1 / 8, epsilon=0.4, seed=5), dtype=F64)
    layer(x).sum().backward()
    rows = pamm_compress(x, 8, epsilon=0.4, generator=block_generator(5, 0))
    assert rows.beta > 1
    expected = rows.beta * rows.to_dense().sum(0).expand(7, 6)
    torch.testing.assert_close(layer.weight.grad, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("state", ["eval", "no_grad", "frozen", "empty"])
def test_nothing_is_compressed_where_the_weight_needs_no_gradient(state, monkeypatch):
    layer, plain, x, y = twins((16, 6))
    monkeypatch.setattr(layer.compression, "_compress", lambda *_: pytest.fail("compressed"))
    if state == "eval":
        layer.eval()
    if state == "frozen":
        layer.weight.requires_grad_(False)
    if state == "empty":
        x = y = torch.zeros(0, 6, requires_grad=True)
    with torch.set_grad_enabled(state != "no_grad"):
        assert torch.equal(layer(x), plain(y))
    if state == "eval":
        layer(x).sum().backward()
        plain(y).sum().backward()
        assert torch.equal(layer.weight.grad, plain.weight.grad)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_held_bytes_are_those_of_the_formula(dtype):
    b, n, m, ratio = 512, 64, 32, 1 / 32
    layer = make(n, m, compression=PAMM(ratio)).to(dtype)
    x = torch.randn(4, b // 4, n, dtype=dtype)
    with ActivationMemoryMeter(exclude=layer.parameters()) as meter:
        out = layer(x)
        held = meter.held_bytes
        out.sum().backward()
    size, k = dtype.itemsize, round(ratio * b)
    assert held == k * n * size + b * size + b * 2
    assert meter.peak_bytes >= held
    assert meter.held_bytes == 0


@pytest.mark.parametrize(
    ("compression", "expected"),
    [(UniformRows(1 / 32), 16 * 64 * 4 + 16 * 4), (RandomProjection(3), 512 * 3 * 4), (None, 512 * 64 * 4)],
    ids=["rows", "projection", "exact"],
)
def test_held_bytes_of_the_baselines(compression, expected):
    layer = nn.Linear(64, 32) if compression is None else make(64, 32, compression=compression)
    x = torch.randn(512, 64)
    with ActivationMemoryMeter(exclude=layer.parameters()) as meter:
        out = layer(x)
        assert meter.held_bytes == expected
        del out


def test_queries_keys_and_values_hold_their_input_once():
    shared = PAMM(1 / 16)
    layers = [make(32, size, compression=shared) for size in (32, 8, 8)]
    weights = [p for layer in layers for p in layer.parameters()]
    x = torch.randn(256, 32)
    with ActivationMemoryMeter(exclude=weights) as meter:
        outputs = [layer(x) for layer in layers]
        assert meter.held_bytes == 16 * 32 * 4 + 256 * (4 + 2)
        del outputs
    assert shared.draws == 1


def test_a_changed_or_another_input_is_a_new_draw():
    shared = PAMM(1 / 4)
    x = torch.randn(16, 3)
    first = shared(x)
    assert shared(x) is first
    x.add_(1)
    second = shared(x)
    assert second is not first
    assert not torch.equal(first.tensors[0], second.tensors[0])
    assert shared(x.clone()) is not second
    assert shared.draws == 3


def test_what_was_kept_goes_with_the_input():
    shared = PAMM(1 / 4)
    x = torch.randn(16, 3)
    shared(x)
    assert shared._last is not None
    del x
    gc.collect()
    assert shared._last is None


def test_draws_depend_on_seed_and_rank_and_not_on_the_global_state(monkeypatch):
    x = torch.randn(64, 3)
    state = torch.get_rng_state()

    def drawn(seed):
        return PAMM(1 / 8, seed=seed)(x).tensors[0]

    assert torch.equal(drawn(0), drawn(0))
    assert not torch.equal(drawn(0), drawn(1))
    one = drawn(0)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 4)
    assert not torch.equal(one, drawn(0))
    assert torch.equal(state, torch.get_rng_state())


def test_gradients_accumulate():
    layer, _, x, _ = twins((64, 6), compression=PAMM(1.0), dtype=F64)
    layer(x).sum().backward()
    once = layer.weight.grad.clone()
    layer(x).sum().backward()
    torch.testing.assert_close(layer.weight.grad, 2 * once, rtol=1e-12, atol=0)


def test_a_second_derivative_is_refused():
    layer, _, x, _ = twins((16, 6), dtype=F64)
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_the_output_may_be_changed_in_place():
    layer, plain, x, y = twins((4, 16, 6), compression=PAMM(1.0), dtype=F64)
    F.relu(layer(x), inplace=True).sum().backward()
    F.relu(plain(y), inplace=True).sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-10, atol=1e-12)
    assert torch.equal(x.grad, y.grad)


def test_under_autocast_the_parameters_keep_their_dtype():
    layer, plain, x, y = twins((64, 6), compression=PAMM(1.0))
    with torch.autocast("cpu", torch.bfloat16):
        out, expected = layer(x), plain(y)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)
    out.float().sin().sum().backward()
    expected.float().sin().sum().backward()
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=2e-2, atol=2e-1)


def test_it_is_recomputed_under_checkpointing():
    layer, plain, x, y = twins((32, 6), compression=PAMM(1.0), dtype=F64)
    checkpoint(layer, x, use_reentrant=False).square().sum().backward()
    plain(y).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, plain.weight.grad, rtol=1e-10, atol=1e-12)


def test_copies_and_pickles_go_on_drawing_for_themselves():
    layer = make(6, 3, compression=PAMM(1 / 4))
    layer(torch.randn(16, 6))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other.compression is not layer.compression
        assert other.compression.draws == 1
        assert other.compression._last is None
    pair = nn.ModuleList([layer, make(6, 3, compression=layer.compression)])
    first, second = copy.deepcopy(pair)
    assert first.compression is second.compression


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        q, k, v = self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return self.o_proj(F.scaled_dot_product_attention(q, k, v))


def test_a_network_is_converted_in_place_with_its_own_parameters():
    model = nn.Sequential(Block(), Block())
    parameters = dict(model.named_parameters())
    x = torch.randn(3, 5, 6)
    expected = model(x)
    names = compress_activations_(model, {"q_proj", "k_proj", "v_proj"}, lambda: PAMM(1 / 4))
    assert names == [f"{i}.{name}_proj" for i in range(2) for name in "qkv"]
    assert all(dict(model.named_parameters())[name] is p for name, p in parameters.items())
    assert torch.equal(model(x), expected)
    first, second = model
    assert first.q_proj.compression is first.v_proj.compression
    assert first.q_proj.compression is not second.q_proj.compression
    assert type(first.o_proj) is nn.Linear
    model(x).sum().backward()
    assert all(p.grad is not None for p in parameters.values())


@pytest.mark.parametrize(
    ("change", "names", "message"),
    [
        (lambda b: None, {"q_proj", "query"}, "query"),
        (lambda b: None, set(), "no layer"),
        (lambda b: setattr(b, "k_proj", nn.Identity()), {"q_proj", "k_proj"}, "Identity"),
        (lambda b: b.k_proj.register_forward_hook(lambda *_: None), {"q_proj", "k_proj"}, "hooks"),
        (lambda b: setattr(b, "k_proj", make(6, 6)), {"q_proj", "k_proj"}, "CompressedLinear"),
    ],
    ids=["unknown", "none", "other-class", "hooks", "subclass"],
)
def test_a_conversion_that_fails_changes_nothing(change, names, message):
    block = Block()
    change(block)
    before = dict(block.named_children())
    with pytest.raises(ValueError, match=message):
        compress_activations_(block, names, PAMM)
    assert all(getattr(block, name) is child for name, child in before.items())


@pytest.mark.parametrize(
    "call",
    [
        lambda: PAMM(0.0),
        lambda: PAMM(1.1),
        lambda: PAMM(math.nan),
        lambda: PAMM(0.5, epsilon=-1.0),
        lambda: UniformRows(0.0),
        lambda: RandomProjection(0),
    ],
    ids=["zero", "above-one", "nan", "epsilon", "rows", "projection"],
)
def test_impossible_compressions_are_refused(call):
    with pytest.raises(ValueError, match=r"expects|needs"):
        call()
