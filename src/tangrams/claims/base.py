"""What a claim is, and what measuring it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from matplotlib.figure import Figure

Verdict = Literal["holds", "holds in part", "does not hold", "skipped: data"]


@dataclass(frozen=True)
class Evidence:
    """What measuring a claim gave.

    Attributes:
        verdict: whether the claim's direction came out here.
        sentence: one sentence that says what was measured, with the numbers.
        numbers: every figure behind the sentence: name → number, or list of numbers over seeds or sizes; JSON data.
        figure: the picture, drawn without a display.
    """

    verdict: Verdict
    sentence: str
    numbers: Mapping[str, Any]
    figure: Figure | None = None


@dataclass(frozen=True)
class Claim:
    """A paper's central claim, and how it is measured here.

    Attributes:
        number: the paper's number in the catalogue.
        slug: its slug.
        statement: what the paper claims, in one sentence.
        baselines: the strongest simple things it is compared with.
        measure: called with the settings of a preset.
        presets: preset name → keyword arguments of ``measure``; ``quick`` (≤ 30 s on two cores) and ``full`` always,
            ``gpu`` where it makes sense.
        data: names for ``tangrams.data.load`` that a preset needs; missing ones give ``skipped: data``.
    """

    number: int
    slug: str
    statement: str
    baselines: tuple[str, ...]
    measure: Callable[..., Evidence]
    presets: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
