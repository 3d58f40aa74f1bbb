"""Which of torch's functions each rule stands for: the arguments of the function, read as dual numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tangrams.features.errors import TangentError
from tangrams.nn.tangent import rules
from tangrams.nn.tangent.dual import Dual, read_dual

_ABSENT = Dual(None, None)


class Pass(Exception):
    """The rule does not apply to these arguments: the call is left to torch."""


class Still(Exception):
    """Nothing among the arguments moves: the plain function will do."""


def read(x: Any) -> Dual:
    """A tensor and its tangent; raises :class:`Pass` where the value is itself differentiated in reverse mode.

    A reverse-mode graph through a rule would not carry the tangents of what it saves; torch's own functions do.
    """
    if x is None:
        return _ABSENT
    if not isinstance(x, Tensor):
        raise Pass
    dual = read_dual(x)
    if dual.value.requires_grad:
        raise Pass
    return dual


def _moving(*operands: Dual) -> Any:
    """The operands, one of which has a tangent at least."""
    if all(operand.tangent is None for operand in operands):
        raise Still
    return operands


def _linear(input: Any, weight: Any, bias: Any = None) -> Dual:
    if weight.ndim != 2:
        raise Pass
    return rules.linear(*_moving(read(input), read(weight), read(bias)))


def _convolution(function: Callable[..., Tensor]) -> Callable[..., Dual]:
    def apply(input: Any, weight: Any, bias: Any = None, *args: Any, **kwargs: Any) -> Dual:
        x, W, b = _moving(read(input), read(weight), read(bias))
        return rules.convolution(lambda x, W, b: function(x, W, b, *args, **kwargs), x, W, b)

    return apply


def _product(input: Any, other: Any) -> Dual:
    left, right = _moving(read(input), read(other))
    if left.value.dtype != right.value.dtype:
        raise Pass
    return rules.product(left, right)


def _reflected_product(other: Any, input: Any) -> Dual:
    return _product(input, other)


def _quotient(input: Any, other: Any, *, rounding_mode: str | None = None) -> Dual:
    if rounding_mode is not None or not isinstance(other, int | float):
        raise Pass
    if not isinstance(input, Tensor) or not input.is_floating_point():
        raise Pass
    return rules.quotient(*_moving(read(input)), divisor=other)


def _relu(input: Any, inplace: bool = False) -> Dual:
    return _elementwise(rules.relu, input, inplace)


def _silu(input: Any, inplace: bool = False) -> Dual:
    return _elementwise(rules.silu, input, inplace)


def _gelu(input: Any, *, approximate: str = "none") -> Dual:
    return rules.gelu(*_moving(read(input)), approximate=approximate)


def _elementwise(rule: Callable[[Dual], Dual], input: Any, inplace: bool = False) -> Dual:
    if inplace:
        raise Pass
    return rule(*_moving(read(input)))


def _softmax(input: Any, dim: Any = None, _stacklevel: Any = 3, dtype: torch.dtype | None = None) -> Dual:
    if not isinstance(dim, int) or dtype is not None or isinstance(_stacklevel, torch.dtype):
        raise Pass  # torch.softmax takes the dtype third, where F.softmax takes its stack level
    return rules.softmax(*_moving(read(input)), dim=dim)


def _glu(input: Any, dim: int = -1) -> Dual:
    return rules.glu(*_moving(read(input)), dim=dim)


def _embedding(
    input: Tensor,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Dual:
    if max_norm is not None:
        raise TangentError("max_norm rewrites the table in forward: renormalise it once and set max_norm=None")
    return rules.embedding(input, *_moving(read(weight)), padding_idx=padding_idx)


def _embedding_bag(
    input: Tensor,
    weight: Any,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Dual:
    if max_norm is not None:
        raise TangentError("max_norm rewrites the table in forward: renormalise it once and set max_norm=None")
    options = {"offsets": offsets, "include_last_offset": include_last_offset, "padding_idx": padding_idx}
    table, scale = _moving(read(weight), read(per_sample_weights))
    return rules.embedding_bag(input, table, scale, mode, options)


def _batch_norm(
    input: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Dual:
    if training or running_mean is None or running_var is None:
        raise TangentError(
            "batch normalisation by the statistics of the batch couples the samples of a linearised network: keep "
            "running statistics and leave it in eval mode"
        )
    x, gamma, beta = _moving(read(input), read(weight), read(bias))
    if x.value.dtype != running_mean.dtype:
        raise Pass
    return rules.batch_norm(x, running_mean, running_var, gamma, beta, eps)


def _layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Dual:
    x, gamma, beta = _moving(read(input), read(weight), read(bias))
    if gamma.value is not None and gamma.value.dtype != x.value.dtype:
        raise Pass
    return rules.layer_norm(x, list(normalized_shape), gamma, beta, eps)


def _normalize(input: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Dual:
    if p != 2.0 or out is not None or not isinstance(dim, int):
        raise Pass
    return rules.normalize(*_moving(read(input)), dim=dim, eps=eps)


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Dual:
    q, k, v = _moving(read(query), read(key), read(value))
    if dropout_p or enable_gqa or (attn_mask is not None and (is_causal or read(attn_mask).tangent is not None)):
        raise Pass  # a mask beside is_causal is torch's to refuse
    if is_causal:
        shape = (q.value.shape[-2], k.value.shape[-2])
        attn_mask = torch.ones(shape, dtype=torch.bool, device=q.value.device).tril()
    return rules.dot_attention(q, k, v, attn_mask, scale)


RULES: dict[Callable[..., Any], Callable[..., Dual]] = {
    F.linear: _linear,
    F.conv1d: _convolution(F.conv1d),
    F.conv2d: _convolution(F.conv2d),
    F.conv3d: _convolution(F.conv3d),
    F.conv_transpose1d: _convolution(F.conv_transpose1d),
    F.conv_transpose2d: _convolution(F.conv_transpose2d),
    F.conv_transpose3d: _convolution(F.conv_transpose3d),
    Tensor.__truediv__: _quotient,
    Tensor.div: _quotient,
    torch.matmul: _product,
    Tensor.matmul: _product,
    Tensor.__matmul__: _product,
    Tensor.__rmatmul__: _reflected_product,
    F.relu: _relu,
    torch.relu: _relu,
    Tensor.relu: _relu,
    F.silu: _silu,
    F.gelu: _gelu,
    torch.tanh: partial(_elementwise, rules.tanh),
    Tensor.tanh: partial(_elementwise, rules.tanh),
    torch.sigmoid: partial(_elementwise, rules.sigmoid),
    Tensor.sigmoid: partial(_elementwise, rules.sigmoid),
    F.softmax: _softmax,
    torch.softmax: _softmax,
    Tensor.softmax: _softmax,
    F.glu: _glu,
    F.embedding: _embedding,
    F.embedding_bag: _embedding_bag,
    F.batch_norm: _batch_norm,
    F.layer_norm: _layer_norm,
    F.normalize: _normalize,
    F.scaled_dot_product_attention: _attention,
}
"""torch function → rule on its arguments."""


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    axes = [axis for axis in range(v.ndim) if axis != dim % v.ndim] if dim != -1 else list(range(v.ndim))
    return v * (g / torch.linalg.vector_norm(v, dim=axes, keepdim=True))


COMPOSED: dict[Callable[..., Any], Callable[..., Tensor]] = {torch._weight_norm: _weight_norm}
"""torch function whose kernel has no tangents → the same out of functions that have."""
