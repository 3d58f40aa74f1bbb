"""The algebra of infinitely wide networks: layers as maps of kernel states, and how they combine.

A network is a value built of these: ``Serial(Dense(2**0.5), ReLU(), Dense())``. Nothing here has parameters; what a
layer does to the kernel of its inputs is all that is left of it at infinite width [055].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from tangrams.kernels.ntk.state import KernelState


class Layer(ABC):
    """One layer of an infinitely wide network, as a map of kernel states."""

    @abstractmethod
    def __call__(self, state: KernelState) -> KernelState:
        """The kernels of this layer's outputs from those of its inputs."""

    def needs_pairs(self, wanted: bool) -> bool:
        """Whether all pairs of positions of the input are needed, given whether those of the output are wanted."""
        return wanted


def check_std(who: str, W_std: float, b_std: float) -> None:
    """Refuse standard deviations that are none."""
    if not (math.isfinite(W_std) and math.isfinite(b_std) and W_std >= 0 and b_std >= 0):
        raise ValueError(f"{who} needs W_std ≥ 0 and b_std ≥ 0, got {W_std} and {b_std}")


@dataclass(frozen=True)
class Identity(Layer):
    """The skip connection: nothing happens."""

    def __call__(self, state: KernelState) -> KernelState:
        """The state itself."""
        return state


@dataclass(frozen=True)
class Dense(Layer):
    r"""A fully connected layer in NTK parametrisation [055].

    .. math:: h = \frac{\sigma_w}{\sqrt{d}} W a + \sigma_b b, \qquad
              K ← σ_w^2 K + σ_b^2, \qquad Θ ← σ_w^2 K + σ_b^2 + σ_w^2 Θ

    At positions (images) it acts on the channels of each: a 1 × 1 convolution.

    Args:
        W_std: σ_w.
        b_std: σ_b.

    Raises:
        ValueError: if a standard deviation is negative or not finite.
    """

    W_std: float = 1.0
    b_std: float = 0.0

    def __post_init__(self) -> None:
        check_std("Dense", self.W_std, self.b_std)

    def __call__(self, state: KernelState) -> KernelState:
        """A weight layer over the channels at each position."""
        return weigh(state, self.W_std, self.b_std)


def weigh(state: KernelState, W_std: float, b_std: float) -> KernelState:
    """What independent weights with variance σ_w² / fan-in and biases with σ_b² do, after any sum over fan-in."""
    scale, shift = W_std**2, b_std**2
    covariances = state.covariances(lambda cov: scale * cov + shift)
    ntk = None if state.ntk is None else covariances["nngp"] + scale * state.ntk
    return replace(state, **covariances, ntk=ntk, gaussian=True, centred=True, weighted=True)


@dataclass(frozen=True)
class Offset(Layer):
    r"""A constant added to every unit, as where a product keeps one of its factors [012].

    .. math:: h ← h + c, \qquad K ← K + c^2, \qquad Θ ← Θ

    Args:
        value: c.
    """

    value: float = 1.0

    def __call__(self, state: KernelState) -> KernelState:
        """The square of the constant joins the covariances; cross terms vanish for centred units."""
        if not state.centred:
            raise ValueError("Offset needs units of mean zero, as behind a Dense: their mean is not known here")
        shift = self.value**2
        return replace(state, **state.covariances(lambda cov: cov + shift), gaussian=False, centred=shift == 0)


@dataclass(frozen=True)
class Flatten(Layer):
    """All positions and channels become features: the mean of the kernel over equal positions."""

    def __call__(self, state: KernelState) -> KernelState:
        """The mean over p = p′."""
        axes = tuple(range(2, 2 + len(state.spatial)))
        if not axes:
            return state
        flat = _collapse(state, lambda cov: state.at_equal_positions(cov).mean(axes))
        # Units of different positions have different variances: no activation may follow on their mean.
        return replace(flat, gaussian=False)

    def needs_pairs(self, wanted: bool) -> bool:
        """Equal positions are all it reads."""
        return False


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """The mean over all positions: the mean of the kernel over all pairs of positions."""

    def __call__(self, state: KernelState) -> KernelState:
        """The mean over p and p′."""
        if not state.spatial:
            raise ValueError("GlobalAvgPool needs positions to average over; its input is (n, d)")
        axes = tuple(range(2, 2 + 2 * len(state.spatial)))
        return _collapse(state, lambda cov: cov.mean(axes))

    def needs_pairs(self, wanted: bool) -> bool:
        """Every pair of positions counts."""
        return True


def _collapse(state: KernelState, mean: Callable[[Tensor], Tensor]) -> KernelState:
    ntk = None if state.ntk is None else mean(state.ntk)
    return replace(state, **state.covariances(mean), ntk=ntk, spatial=(), pairs=False)


@dataclass(frozen=True)
class LayerNorm(Layer):
    r"""Normalisation over the channels at each position, without scale and shift.

    .. math:: K(x, x') ← \frac{K(x, x')}{\sqrt{(K(x, x) + ε)(K(x', x') + ε)}}, \quad Θ likewise

    The mean over infinitely many centred units is zero, so that only the division is left.

    Args:
        eps: ε.

    Raises:
        ValueError: if ``eps < 0``.
    """

    eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.eps < 0:
            raise ValueError(f"LayerNorm needs eps ≥ 0, got {self.eps}")

    def __call__(self, state: KernelState) -> KernelState:
        """Division by both standard deviations."""
        if not state.centred:
            raise ValueError("LayerNorm subtracts a mean that is only zero for centred units: put a Dense before it")
        first = self._inverse_std(state.at_equal_positions(state.self1))
        second = self._inverse_std(state.at_equal_positions(state.self2))

        def scale(cov: Tensor, one: Tensor, two: Tensor) -> Tensor:
            return cov * state.left(one) * state.right(two)

        return replace(
            state,
            nngp=scale(state.nngp, first, second),
            ntk=None if state.ntk is None else scale(state.ntk, first, second),
            self1=scale(state.self1, first, first),
            self2=scale(state.self2, second, second),
        )

    def _inverse_std(self, variance: Tensor) -> Tensor:
        shifted = variance + self.eps
        return torch.where(shifted > 0, shifted.clamp_min(torch.finfo(shifted.dtype).tiny), 1.0).rsqrt()


class Serial(Layer):
    """Layers one after the other.

    Args:
        *layers: in the order of the data's way; nested serials are flattened.

    Raises:
        TypeError: if something is not a layer.
    """

    def __init__(self, *layers: Layer) -> None:
        _check_layers("Serial", layers)
        flat: list[Layer] = []
        for layer in layers:
            flat.extend(layer.layers if isinstance(layer, Serial) else (layer,))
        self.layers = tuple(flat)

    def __call__(self, state: KernelState) -> KernelState:
        """Each layer in turn."""
        for layer in self.layers:
            state = layer(state)
        return state

    def run(self, state: KernelState) -> KernelState:
        """As the outermost network: pairs of positions go as soon as no layer ahead needs them."""
        for index, layer in enumerate(self.layers):
            state = layer(state)
            if state.pairs and not _needs_pairs(self.layers[index + 1 :], False):
                state = at_equal_positions(state)
        return state

    def needs_pairs(self, wanted: bool) -> bool:
        """From the last layer to the first."""
        return _needs_pairs(self.layers, wanted)

    def __repr__(self) -> str:
        return f"Serial({', '.join(map(repr, self.layers))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Serial) and self.layers == other.layers

    def __hash__(self) -> int:
        return hash(("Serial", self.layers))


class _Parallel(Layer):
    """Branches side by side, over one input; no two may share units, so at most one is without weights."""

    def __init__(self, *branches: Layer) -> None:
        name = type(self).__name__
        _check_layers(name, branches)
        if len(branches) < 2:
            raise ValueError(f"{name} needs at least two branches, got {len(branches)}")
        self.branches = branches

    def needs_pairs(self, wanted: bool) -> bool:
        """If any branch does."""
        return any(branch.needs_pairs(wanted) for branch in self.branches)

    def _states(self, state: KernelState) -> list[KernelState]:
        name = type(self).__name__
        states = [branch(replace(state, weighted=False)) for branch in self.branches]
        if sum(not branch.weighted for branch in states) > 1:
            raise ValueError(f"{name}: two branches without weights share units: give all but one a weight layer")
        if len({(branch.spatial, branch.pairs) for branch in states}) > 1:
            shapes = [branch.spatial for branch in states]
            raise ValueError(f"{name}: the branches end at different positions {shapes}: match strides and paddings")
        return states

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.branches))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Parallel) and type(self) is type(other) and self.branches == other.branches

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.branches))


class ParallelSum(_Parallel):
    r"""The sum of branches; with :class:`Identity` a residual block.

    .. math:: K = \sum_b K_b, \qquad Θ = \sum_b Θ_b

    Holds where cross terms vanish: at most one branch shares units with the input, and at most one has units with a
    mean other than zero.

    Args:
        *branches: two or more layers that end at the same positions.

    Raises:
        ValueError: if there are fewer than two branches.
    """

    def __call__(self, state: KernelState) -> KernelState:
        """Both kernels add."""
        states = self._states(state)
        if sum(not branch.centred for branch in states) > 1:
            raise ValueError(
                "ParallelSum: two branches have units with a mean (they end in an activation or are the raw input), "
                "so their cross term does not vanish: end all but one in a weight layer"
            )
        return replace(
            states[0],
            nngp=_total([branch.nngp for branch in states]),
            ntk=None if state.ntk is None else _total([branch.ntk for branch in states if branch.ntk is not None]),
            self1=_total([branch.self1 for branch in states]),
            self2=_total([branch.self2 for branch in states]),
            gaussian=all(branch.gaussian for branch in states),
            centred=all(branch.centred for branch in states),
            weighted=state.weighted or all(branch.weighted for branch in states),
        )


class ParallelProduct(_Parallel):
    r"""The elementwise product of branches of equal width, as in polynomial networks [055].

    .. math:: K = \prod_b K_b, \qquad Θ = \sum_b Θ_b \prod_{b' \neq b} K_{b'}

    Args:
        *branches: two or more layers that end at the same positions.

    Raises:
        ValueError: if there are fewer than two branches.
    """

    def __call__(self, state: KernelState) -> KernelState:
        """The NNGP multiplies, the NTK follows the product rule."""
        states = self._states(state)
        ntk = None
        if state.ntk is not None:
            terms = []
            for index, branch in enumerate(states):
                others = [other.nngp for position, other in enumerate(states) if position != index]
                terms.append(_product([branch.ntk, *others]))
            ntk = _total(terms)
        return replace(
            states[0],
            nngp=_product([branch.nngp for branch in states]),
            ntk=ntk,
            self1=_product([branch.self1 for branch in states]),
            self2=_product([branch.self2 for branch in states]),
            gaussian=False,
            centred=any(branch.centred for branch in states),
            weighted=state.weighted or all(branch.weighted for branch in states),
        )


def _total(terms: Sequence[Tensor]) -> Tensor:
    return reduce(torch.add, terms)


def _product(factors: Sequence[Tensor | None]) -> Tensor:
    return reduce(torch.mul, [factor for factor in factors if factor is not None])


def _needs_pairs(layers: Sequence[Layer], wanted: bool) -> bool:
    for layer in reversed(layers):
        wanted = layer.needs_pairs(wanted)
    return wanted


def at_equal_positions(state: KernelState) -> KernelState:
    """The state without pairs of different positions."""
    ntk = None if state.ntk is None else state.at_equal_positions(state.ntk)
    return replace(state, **state.covariances(state.at_equal_positions), ntk=ntk, pairs=False)


def _check_layers(who: str, layers: Sequence[Layer]) -> None:
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"{who} combines layers of tangrams.kernels.ntk, got {type(layer).__name__}")
