"""The abc-parametrizations of multilayer perceptrons, and the theorem that sorts them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from tangrams.nn.parametrizations.base import Parametrization, width_row
from tangrams.nn.parametrizations.errors import FanError, UnstableParametrizationWarning
from tangrams.nn.parametrizations.fans import Fans, Place, Role
from tangrams.nn.parametrizations.plan import Scaling, WidthPlan, WidthRow

_EPS = 1e-12


@dataclass(frozen=True)
class Verdict:
    """What an abc-parametrization does as the width goes to infinity.

    Attributes:
        stable: activations stay Θ(1), and outputs do not blow up, at the start and in training.
        nontrivial: the output moves at all.
        feature_learning: the last hidden features move by Θ(1); only if stable and nontrivial.
        kernel: the output follows kernel gradient descent; only if stable and nontrivial.
        zero_start: the output at the start goes to zero.
        r: features move as ``width ** -r``.
        failing: the inequalities of stability that do not hold, in words.
    """

    stable: bool
    nontrivial: bool
    feature_learning: bool
    kernel: bool
    zero_start: bool
    r: float
    failing: tuple[str, ...]


class ABC(Parametrization):
    r"""An abc-parametrization of a perceptron with L hidden layers of width n [017].

    .. math:: W^l = n^{-a_l} w^l, \qquad w^l_{ij} \sim N(0, n^{-2 b_l}), \qquad η = η_0 n^{-c}

    for SGD, without biases. A stable and nontrivial one either learns features or is a kernel machine at infinite
    width, never both: :meth:`classify` says which.

    Args:
        a: exponents of the multipliers, L + 1 of them.
        b: exponents of the initial standard deviations, as many.
        c: exponent of the learning rate.

    Raises:
        ValueError: if a and b differ in length, or there is no hidden layer.

    Example:
        >>> ABC.mup(3).classify().feature_learning, ABC.ntk(3).r
        (True, 0.5)
    """

    def __init__(self, a: Sequence[float], b: Sequence[float], c: float) -> None:
        if len(a) != len(b):
            raise ValueError(f"ABC needs as many a as b, got {len(a)} and {len(b)}")
        if len(a) < 2:
            raise ValueError(f"ABC needs at least one hidden layer, so two exponents a, got {len(a)}")
        self.a, self.b, self.c = tuple(map(float, a)), tuple(map(float, b)), float(c)

    @classmethod
    def standard(cls, hidden_layers: int, c: float = 0.0) -> ABC:
        """What torch does: a = 0, b = 0, 1/2, …, 1/2; stable only from c = 1 on."""
        return cls([0.0] * (hidden_layers + 1), [0.0] + [0.5] * hidden_layers, c)

    @classmethod
    def ntk(cls, hidden_layers: int) -> ABC:
        """The neural tangent parametrization: a = 0, 1/2, …, 1/2 and b = 0."""
        return cls([0.0] + [0.5] * hidden_layers, [0.0] * (hidden_layers + 1), 0.0)

    @classmethod
    def mean_field(cls) -> ABC:
        """The mean-field parametrization, of one hidden layer."""
        return cls([0.0, 1.0], [0.0, 0.0], -1.0)

    @classmethod
    def mup(cls, hidden_layers: int) -> ABC:
        """The maximal update parametrization: a = −1/2, 0, …, 0, 1/2 and b = 1/2."""
        return cls([-0.5] + [0.0] * (hidden_layers - 1) + [0.5], [0.5] * (hidden_layers + 1), 0.0)

    @property
    def r(self) -> float:
        """How slowly features move: as ``n^{-r}``."""
        a, b, c = self.a, self.b, self.c
        smallest = min(2 * value + (index == 0) for index, value in enumerate(a[:-1]))
        return min(a[-1] + b[-1], 2 * a[-1] + c) + c - 1 + smallest

    def classify(self) -> Verdict:
        """The verdict of the theorem of Yang and Hu."""
        a, b, c, r = self.a, self.b, self.c, self.r
        output = a[-1] + b[-1]
        conditions = {
            f"a_1 + b_1 = 0, got {a[0] + b[0]:g}": abs(a[0] + b[0]) < _EPS,
            **{
                f"a_{l} + b_{l} = 1/2, got {a[l - 1] + b[l - 1]:g}": abs(a[l - 1] + b[l - 1] - 0.5) < _EPS
                for l in range(2, len(a))
            },
            f"a_{len(a)} + b_{len(a)} ≥ 1/2, got {output:g}": output >= 0.5 - _EPS,
            f"r ≥ 0, got {r:g}": r >= -_EPS,
            f"2 a_{len(a)} + c ≥ 1, got {2 * a[-1] + c:g}": 2 * a[-1] + c >= 1 - _EPS,
            f"a_{len(a)} + b_{len(a)} + r ≥ 1, got {output + r:g}": output + r >= 1 - _EPS,
        }
        failing = tuple(words for words, holds in conditions.items() if not holds)
        moves = abs(2 * a[-1] + c - 1) < _EPS or abs(output + r - 1) < _EPS
        good = not failing and moves
        return Verdict(
            stable=not failing,
            nontrivial=moves,
            feature_learning=good and abs(r) < _EPS,
            kernel=good and r > _EPS,
            zero_start=output > 0.5 + _EPS,
            r=r,
            failing=failing,
        )

    def shift(self, theta: float) -> ABC:
        """The same training at every width: ``(a + θ, b − θ, c − 2 θ)``."""
        return ABC([a + theta for a in self.a], [b - theta for b in self.b], self.c - 2 * theta)

    def plan(self, model: nn.Module, base: nn.Module | None = None, **options: Any) -> WidthPlan:
        """As every parametrization's, with an ``UnstableParametrizationWarning`` that says which inequality fails."""
        plan = super().plan(model, base, **options)
        verdict = self.classify()
        if not verdict.stable:
            warnings.warn(
                f"{self!r} is not stable in width: it needs {'; '.join(verdict.failing)}",
                UnstableParametrizationWarning,
                stacklevel=2,
            )
        return plan

    def rows(self, uses: Sequence[Sequence[Place]], bases: Mapping[str, Fans] | None) -> Iterator[WidthRow]:
        """The exponents, layer by layer; with a base n is the ratio of the widths.

        Yields:
            A row per layer.

        Raises:
            FanError: if the model is not L + 1 weight matrices with L equal widths between, each used once.
        """
        places = [places[0] for places in uses]
        widths = {place.fans.out_features for place in places[:-1]} | {place.fans.fan_in for place in places[1:]}
        plain = all(len(places) == 1 and places[0].fans.role is Role.MATRIX for places in uses)
        if not plain or len(places) != len(self.a) or len(widths) != 1:
            raise FanError(
                f"ABC with {len(self.a)} layers is for a perceptron of as many weight matrices, no biases and one "
                f"width, got {[place.name for place in places]} of widths {sorted(widths)}"
            )
        n = float(widths.pop())
        if bases is not None:
            n /= bases[places[0].name].out_features
        for place, a, b in zip(places, self.a, self.b, strict=True):
            yield width_row(place, Scaling(n**-b, n**-a, n**-self.c, None), bases)

    def __repr__(self) -> str:
        return f"ABC(a={self.a}, b={self.b}, c={self.c:g})"
