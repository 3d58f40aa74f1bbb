"""Vision transformers, and their linearisation in one pass."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from tangrams.nn.tangent import linearize
from tangrams.nn.transformer import (
    CosineAttention,
    DotAttention,
    FreshToken,
    TransformerBlock,
    VisionTransformer,
    with_fresh_blocks,
    with_fresh_token,
)
from tangrams.testing.conformance import Case, conformance, normal
from tangrams.testing.suites.module import ModuleSuite


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def heads_by_hand(module, x, score):
    dim = x.shape[-1]
    outputs = []
    q, k, v = module.qkv(x).split(dim, -1)
    width = dim // module.heads
    for h in range(module.heads):
        part = slice(h * width, (h + 1) * width)
        outputs.append(torch.softmax(score(q[..., part], k[..., part], h), -1) @ v[..., part])
    return module.out(torch.cat(outputs, -1))


def dot_by_hand(module, x):
    return heads_by_hand(module, x, lambda q, k, h: q @ k.mT / math.sqrt(q.shape[-1]))


def cosine_by_hand(module, x):
    def score(q, k, h):
        cosines = (q / q.norm(dim=-1, keepdim=True)) @ (k / k.norm(dim=-1, keepdim=True)).mT
        return cosines * module.log_scale[h].exp()

    return heads_by_hand(module, x, score)


def vit(**options) -> VisionTransformer:
    return VisionTransformer(6, 3, 2, 8, 2, 2, 3, mlp_ratio=2.0, generator=generator(), **options)


def loud(module: nn.Module) -> nn.Module:
    """Weights large enough for attention to matter."""
    g = generator()
    with torch.no_grad():
        for p in module.parameters():
            p += 0.3 * torch.randn(p.shape, generator=g)
    return module


FUSED = {
    "check_jvp_is_the_directional_derivative": "fused attention has no forward mode; linearize has a rule for it",
}

TestTransformers = conformance(
    ModuleSuite,
    Case(
        lambda: loud(DotAttention(6, 2, generator=generator())),
        inputs=normal(4, 6),
        reference=dot_by_hand,
        excuses=FUSED,
    ),
    Case(lambda: loud(CosineAttention(6, 2, generator=generator())), inputs=normal(4, 6), reference=cosine_by_hand),
    Case(
        lambda: loud(TransformerBlock(6, 2, 2.0, layer_scale=0.5, generator=generator())),
        inputs=normal(4, 6),
        excuses=FUSED,
    ),
    Case(lambda: loud(vit()), inputs=normal(2, 6, 6), excuses=FUSED),
    Case(lambda: FreshToken(4, generator=generator()), inputs=normal(3, 4)),
)


def by_func(lin, x):
    base = lin.base.eval()
    weights = {name: p.detach() for name, p in base.named_parameters() if name in lin.names}
    with sdpa_kernel(SDPBackend.MATH):
        return jvp(lambda w: functional_call(base, w, (x,)), (weights,), (dict(lin.tangents()),))


def moved(lin):
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for t in lin.parameters():
            t.copy_(torch.randn(t.shape, generator=g, dtype=t.dtype))
    return lin


def images(n: int = 3) -> torch.Tensor:
    return torch.randn(n, 2, 6, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("attention", [DotAttention, CosineAttention])
@pytest.mark.parametrize("layer_scale", [None, 0.1])
@pytest.mark.parametrize("trainable", [None, "blocks.1.attention.qkv.weight", "token"])
def test_a_linearised_transformer_is_the_jvp_of_the_plain_one(attention, layer_scale, trainable):
    model = loud(vit(attention=attention, layer_scale=layer_scale)).double()
    lin = moved(linearize(model, trainable=trainable))
    value, tangent = by_func(lin, images())
    found = lin.dual(images())
    torch.testing.assert_close(found.value, value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.tangent, tangent, rtol=1e-10, atol=1e-10)


def test_the_vision_transformer_of_transformers_is_linearised():
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=6,
        patch_size=3,
        num_channels=2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.ViTForImageClassification(config).double()
    lin = moved(linearize(loud(model)))
    base = lin.base.eval()
    weights = {name: p.detach() for name, p in base.named_parameters()}
    with sdpa_kernel(SDPBackend.MATH):
        value, tangent = jvp(
            lambda w: functional_call(base, w, (images(),)).logits, (weights,), (dict(lin.tangents()),)
        )
    found = lin.dual(images())
    torch.testing.assert_close(found.value.logits, value, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.tangent.logits, tangent, rtol=1e-10, atol=1e-10)


def test_fresh_blocks_and_tokens_change_copies_alone():
    model = vit()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    fresh = with_fresh_blocks(model, -1, generator=torch.Generator().manual_seed(9))
    assert torch.equal(fresh.blocks[0].up.weight, model.blocks[0].up.weight)
    assert not torch.equal(fresh.blocks[1].up.weight, model.blocks[1].up.weight)
    token = with_fresh_token(model, 1, generator=torch.Generator().manual_seed(9))
    assert float(token.blocks[1][0].token.detach().abs().max()) < 1e-5
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    with pytest.raises(TypeError, match="TransformerBlock"):
        with_fresh_blocks(token, 1)


def test_fresh_blocks_have_fresh_temperatures():
    model = vit(attention=CosineAttention)
    scales = [block.attention.log_scale for block in model.blocks]
    with torch.no_grad():
        for scale in scales:
            scale.zero_()
    fresh = with_fresh_blocks(model, -1, generator=generator())
    assert not fresh.blocks[0].attention.log_scale.any()
    assert torch.equal(fresh.blocks[1].attention.log_scale, torch.full((2, 1, 1), math.log(10.0)))
    assert not scales[1].any(), "those of the model stay"


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: DotAttention(6, 4), "heads that divide"),
        (lambda: CosineAttention(0, 1), "heads that divide"),
        (lambda: VisionTransformer(7, 3, 1, 4, 1, 1), "patches that divide"),
    ],
)
def test_impossible_sizes_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
