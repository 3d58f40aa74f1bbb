"""Says which layer of a network failed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from torch import nn

from tangrams.features.errors import TangentError
from tangrams.nn.tangent.errors import UnsupportedLayerError
from tangrams.nn.tangent.forward_mode import CHECKPOINT

_SIGNS = ("forward AD", "forward mode AD", "forward-mode AD", "jvp", "forward gradient")


@contextmanager
def naming_the_layer(model: nn.Module) -> Iterator[None]:
    """Turn torch's "no forward mode" into an error that names the layer, and name it in our own refusals.

    Yields:
        Nothing.

    Raises:
        UnsupportedLayerError: if an operation inside has no derivative in forward mode.
    """
    try:
        yield
    except TangentError as error:
        raise type(error)(f"{_place(model, error.__traceback__)}: {error}") from error
    except RuntimeError as error:  # NotImplementedError is one
        said = str(error).strip().partition("\n")[0]
        if any(sign in said for sign in _SIGNS):
            said = f"{said.rstrip('.')}. Give it a derivative in forward mode (jvp, in a custom autograd function)"
        elif CHECKPOINT not in said:
            raise
        raise UnsupportedLayerError(f"{_place(model, error.__traceback__)} cannot be linearised: {said}") from error


def _place(model: nn.Module, traceback: TracebackType | None) -> str:
    """The innermost layer of the network that was running."""
    paths = {id(module): path for path, module in model.named_modules()}
    found: nn.Module = model
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        if isinstance(owner, nn.Module) and id(owner) in paths:
            found = owner
        traceback = traceback.tb_next
    path = paths[id(found)]
    inside = f" of {type(model).__name__}" if path else ""
    return f"{path or 'the model'} ({type(found).__name__}){inside}"
