r"""One pass of a network on dual numbers.

The dual numbers are those of torch's forward mode, so that every function, view and in-place write carries tangents.
The hot functions are taken over by rules of ours (:data:`~tangrams.nn.tangent.table.RULES`), which do less work: none
for a tangent that is zero, one kernel where torch composes many, and attention in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from tangrams.nn.tangent.dual import make_dual
from tangrams.nn.tangent.table import COMPOSED, RULES, Pass, Still

CHECKPOINT = "activation checkpointing runs layers again in backward, where their tangents are gone: turn it off"
"""Said where a network checkpoints while its tangents are trained."""

_ATTENTION = {F.scaled_dot_product_attention, F.multi_head_attention_forward}
_RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}


class ForwardMode(TorchFunctionMode):
    """Hands torch's functions to the rules, and keeps tangents out of where the network switches gradients off."""

    def __enter__(self) -> ForwardMode:
        self._before = torch._C._is_fwd_grad_enabled()
        torch._C._set_fwd_grad_enabled(True)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        torch._C._set_fwd_grad_enabled(self._before)  # also where the network has left gradients off

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch._C._set_grad_enabled:
            # torch's forward mode ignores no_grad; what reverse mode does not see has no tangent either.
            func(*args, **kwargs)
            torch._C._set_fwd_grad_enabled(torch.is_grad_enabled())
            return None
        rule = RULES.get(func)
        if rule is not None and _rules_apply():
            try:
                dual = rule(*args, **kwargs)
            except Still:
                return func(*args, **kwargs)
            except Pass:
                pass
            else:
                return make_dual(dual.value, dual.tangent)
        if func in _ATTENTION:  # fused attention has no tangents
            with sdpa_kernel(SDPBackend.MATH):
                return func(*args, **kwargs)
        if func in _RECURRENT:
            return _by_torch_alone(func, args, kwargs)
        composed = COMPOSED.get(func) or func
        return composed(*args, **kwargs)


def _rules_apply() -> bool:
    """Not where the network switches gradients off or casts, nor inside a transform of its own such as ``vmap``."""
    inside = torch._C._functorch.maybe_current_level() is not None  # pyright: ignore
    return torch._C._is_fwd_grad_enabled() and not torch._C._is_any_autocast_enabled() and not inside


def _by_torch_alone(func: Any, args: Any, kwargs: Any) -> Any:
    """Recurrent kernels of other libraries have no tangents."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # torch.backends.mkldnn.flags warns of its other flags
    try:
        with torch.backends.cudnn.flags(enabled=False):
            return func(*args, **kwargs)
    finally:
        torch._C._set_mkldnn_enabled(before)


@contextmanager
def dual_numbers(train: bool) -> Iterator[ForwardMode]:
    """Inside, tensors may carry tangents, and torch's functions carry them on.

    Args:
        train: whether what comes out will be differentiated in reverse mode.

    Yields:
        What to run the network in.
    """
    no_checkpoint: Any = nullcontext()
    if train and torch._C._autograd._top_saved_tensors_default_hooks(False) is None:  # pyright: ignore
        no_checkpoint = torch.autograd.graph.disable_saved_tensors_hooks(CHECKPOINT)
    with forward_ad.dual_level(), no_checkpoint:
        yield ForwardMode()
