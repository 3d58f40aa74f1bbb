"""Weights as matrices, and the spectra of a layer beside those of a fresh one."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tangrams.features.model_ref import ModelRef

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_FEW = 200_000  # entries up to which a fresh spectrum is averaged over several draws


def as_matrix(weight: Float[Tensor, "..."], *, transposed: bool = False) -> Float[Tensor, "out in"]:
    """A weight of two or more axes as outputs × inputs.

    Args:
        weight: ``(out, in, …)``; kernel positions count as inputs.
        transposed: the first two axes are ``(in, out)``, as in a transposed convolution.

    Raises:
        ValueError: if it has fewer than two axes, is empty or not finite.
    """
    if weight.ndim < 2 or weight.numel() == 0:
        raise ValueError(f"a weight matrix needs two axes with entries, got shape {tuple(weight.shape)}")
    matrix = weight.detach().transpose(0, 1) if transposed else weight.detach()
    matrix = matrix.reshape(matrix.shape[0], -1).to(torch.float64)
    if not bool(matrix.isfinite().all()):
        raise ValueError(f"a weight of shape {tuple(weight.shape)} is not finite")
    return matrix


def weight_spectrum(matrix: Float[Tensor, "out in"]) -> Float[Tensor, "k"]:
    """Squared singular values, descending: the eigenvalues of the smaller of ``W Wᵀ`` and ``Wᵀ W`` [043].

    Args:
        matrix: a weight as outputs × inputs.
    """
    return torch.linalg.svdvals(matrix.to(torch.float64)).square()


def fresh_spectrum(
    module: nn.Module, parameter: str, *, seed: int = 0, draws: int = 5
) -> Float[Tensor, "draws k"] | None:
    """Spectra of the same weight as a module of this kind and shape has it when made anew.

    The module is copied and its own ``reset_parameters`` is run; a parametrized weight is drawn as PyTorch's linear
    and convolution layers draw theirs. None where the module does not say how it is initialised.

    Args:
        module: the layer; it is not changed, and the global random state is left as it was.
        parameter: name of the weight within the module.
        seed: fixes the draws.
        draws: how many to make; one for large weights, whose spectra hardly vary.
    """
    with ModelRef(module).session():  # reading a parametrized weight may move buffers
        shape = getattr(module, parameter).shape
    transposed = isinstance(module, _TRANSPOSED)
    draws = draws if shape.numel() <= _FEW else 1
    parametrized = hasattr(module, "parametrizations") or any(
        hasattr(module, f"{parameter}_{suffix}") for suffix in ("orig", "g")
    )
    if not parametrized and _initialiser(module) is None:
        return None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would touch other devices too
        spectra = []
        for _ in range(draws):
            fresh = _drawn(shape) if parametrized else _reset(module, parameter)
            spectra.append(weight_spectrum(as_matrix(fresh, transposed=transposed)))
    return torch.stack(spectra)


def _drawn(shape: torch.Size) -> Tensor:
    fresh = torch.empty(shape)
    nn.init.kaiming_uniform_(fresh, a=math.sqrt(5))
    return fresh


def _reset(module: nn.Module, parameter: str) -> Tensor:
    """The weight of a copy that was initialised again, without hooks or children of the original."""
    twin = copy.copy(module)
    twin.__dict__ = dict(module.__dict__)
    twin._parameters = {
        name: None if p is None else nn.Parameter(torch.empty(p.shape), requires_grad=False)
        for name, p in module._parameters.items()
    }
    twin._buffers = {name: None if b is None else b.detach().clone().cpu() for name, b in module._buffers.items()}
    twin._modules = {name: copy.deepcopy(child) for name, child in module._modules.items()}
    initialise = _initialiser(twin)
    if initialise is not None:
        initialise()
    return getattr(twin, parameter).detach()


def _initialiser(module: nn.Module) -> Callable[[], object] | None:
    """What draws a module's weights anew, where it says so."""
    found = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    return found if callable(found) else None
