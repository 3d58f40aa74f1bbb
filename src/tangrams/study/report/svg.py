"""Small charts as inline SVG: drawn in user units, coloured by the style sheet, so that they follow the theme."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

from tangrams.study.report.words import SPACE, Number, setting, superscript

WIDTH, HEIGHT = 440, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 46


def tag(name: str, *content: str, **attributes: object) -> Markup:
    """An element; attribute names swap ``_`` for ``-`` and lose a trailing one; None leaves an attribute out."""
    written = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, Markup("").join(content))


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value


class Scale(ABC):
    """Where a value lies on an axis, 0 at its start and 1 at its end, and which ticks it carries."""

    low: Number
    high: Number

    @abstractmethod
    def place(self, value: Number) -> float:
        """The position of ``value``."""

    @abstractmethod
    def ticks(self) -> list[tuple[Number, str]]:
        """Values and their texts."""


@dataclass(frozen=True)
class Linear(Scale):
    """Even steps.

    Args:
        low: the value at the start.
        high: the value at the end.
        form: how a tick reads.
    """

    low: Number
    high: Number
    form: Callable[[Number], str] = setting

    def place(self, value: Number) -> float:
        """``(v − low) / (high − low)``."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[Number, str]]:
        """Four to six round values."""
        raw = (self.high - self.low) / 4.5
        power = 10.0 ** math.floor(math.log10(raw))
        step = min((m * power for m in (1, 2, 2.5, 5, 10)), key=lambda s: abs(s - raw))
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [(i * step, self.form(round(i * step, 12))) for i in range(first, last + 1)]


@dataclass(frozen=True)
class Log(Scale):
    """Even steps of the logarithm.

    Args:
        low: the value at the start, positive.
        high: the value at the end.
        form: how a tick reads; powers of ten by default.
        at: the ticks, when powers of ten will not do.
    """

    low: Number
    high: Number
    form: Callable[[Number], str] | None = None
    at: tuple[Number, ...] | None = None

    def place(self, value: Number) -> float:
        """``log(v / low) / log(high / low)``."""
        return math.log(max(value, self.low * 1e-6) / self.low) / math.log(self.high / self.low)

    def ticks(self) -> list[tuple[Number, str]]:
        """Powers of ten, and 2 and 5 times them where there are few."""
        if self.at is not None:
            return [(v, (self.form or setting)(v)) for v in self.at]
        first, last = math.floor(math.log10(self.low) + 1e-9), math.ceil(math.log10(self.high) - 1e-9)
        every = max(1, round((last - first) / 6))
        factors = (1,) if last - first > 2 else (1, 2, 5) if last - first < 2 else (1, 3)
        values = [f * 10.0**e for e in range(first, last + 1, every) for f in factors]
        kept = [v for v in values if self.low * 0.999 <= v <= self.high * 1.001]
        return [(v, self.form(v) if self.form else _power(v)) for v in kept]


def _power(value: Number) -> str:
    exponent = round(math.log10(value))
    if math.isclose(value, 10.0**exponent) and not -2 < exponent < 4:
        return f"10{superscript(exponent)}"
    return setting(value)


@dataclass
class Chart:
    """A chart with two axes, filled by its methods and read by :meth:`render`.

    Args:
        x: the scale of the abscissa.
        y: the scale of the ordinate.
        title: what it shows, read out where it cannot be seen.
        x_label: quantity and unit below.
        y_label: quantity and unit, written level at the top left.
    """

    x: Scale
    y: Scale
    title: str
    x_label: str
    y_label: str
    parts: list[Markup] = field(default_factory=list)
    notes: list[Markup] = field(default_factory=list)

    def at(self, x: Number, y: Number) -> tuple[Number, Number]:
        """User units of a data point, kept within the frame."""
        left = LEFT + (WIDTH - LEFT - RIGHT) * min(1.0, max(0.0, self.x.place(x)))
        top = TOP + 16 + (HEIGHT - TOP - 16 - BOTTOM) * (1 - min(1.0, max(0.0, self.y.place(y))))
        return left, top

    def line(self, xs: Sequence[Number], ys: Sequence[Number], style: str) -> None:
        """A line through the points; ``style`` is a class of the style sheet."""
        path = "M" + "L".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in zip(xs, ys, strict=True))
        self.parts.append(tag("path", d=path, class_=f"line {style}"))

    def band(self, xs: Sequence[Number], intervals: Sequence[Sequence[Number]], style: str) -> None:
        """The area between the lower and the upper ends of intervals."""
        lows, highs = [i[0] for i in intervals], [i[1] for i in intervals]
        outline = [*zip(xs, lows, strict=True), *reversed(list(zip(xs, highs, strict=True)))]
        path = "M" + "L".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in outline) + "Z"
        self.parts.append(tag("path", d=path, class_=f"band {style}"))

    def point(self, x: Number, y: Number, style: str, tip: str, shape: str = "circle") -> None:
        """A marker with a tip; the shape tells what the colour tells."""
        self.parts.append(marker(*self.at(x, y), style, tip, shape))

    def whisker(self, x: Number, interval: Sequence[Number], style: str) -> None:
        """A vertical interval."""
        (left, bottom), (_, top) = self.at(x, interval[0]), self.at(x, interval[1])
        d = f"M{left:.1f},{bottom:.1f}V{top:.1f}M{left - 4:.1f},{bottom:.1f}h8M{left - 4:.1f},{top:.1f}h8"
        self.parts.append(tag("path", d=d, class_=f"whisker {style}"))

    def column(self, x0: Number, x1: Number, y0: Number, y1: Number, style: str, tip: str) -> None:
        """A bar from ``y0`` to ``y1`` over ``[x0, x1]``."""
        (left, bottom), (right, top) = self.at(x0, y0), self.at(x1, y1)
        width = max(0.5, right - left - 1)
        box = {"x": left + 0.5, "y": top, "width": width, "height": max(0.0, bottom - top)}
        self.parts.append(tag("rect", **box, class_=f"column {style}", data_tip=tip))

    def rule(self, x: Number, style: str, text: str) -> None:
        """A vertical line with a word at its top."""
        left, bottom = self.at(x, self.y.low)
        _, top = self.at(x, self.y.high)
        self.parts.append(tag("path", d=f"M{left:.1f},{bottom:.1f}V{top:.1f}", class_=f"rule {style}"))
        anchor = "start" if left < WIDTH * 0.6 else "end"
        shift = 5 if anchor == "start" else -5
        self.notes.append(tag("text", escape(text), x=left + shift, y=top + 11, class_="note", text_anchor=anchor))

    def render(self) -> Markup:
        """The ``<svg>`` element."""
        return tag(
            "svg",
            *self._axes(),
            *self.parts,
            *self.notes,  # on top of what they would otherwise be struck through by
            class_="chart",
            viewBox=f"0 0 {WIDTH} {HEIGHT}",
            role="img",
            aria_label=self.title,
        )

    def _axes(self) -> list[Markup]:
        _, floor = self.at(self.x.low, self.y.low)
        drawn = [tag("text", escape(self.y_label), x=2, y=TOP, class_="axis-label")]
        for value, text in self.y.ticks():
            _, top = self.at(self.x.low, value)
            drawn.append(tag("path", d=f"M{LEFT},{top:.1f}H{WIDTH - RIGHT}", class_="grid"))
            drawn.append(tag("text", escape(text), x=LEFT - 8, y=top + 4.5, class_="tick", text_anchor="end"))
        for value, text in self.x.ticks():
            left, _ = self.at(value, self.y.low)
            drawn.append(tag("path", d=f"M{left:.1f},{floor:.1f}v4", class_="grid"))
            drawn.append(tag("text", escape(text), x=left, y=floor + 18, class_="tick", text_anchor="middle"))
        drawn.append(tag("path", d=f"M{LEFT},{floor:.1f}H{WIDTH - RIGHT}", class_="frame"))
        middle = (LEFT + WIDTH - RIGHT) / 2
        drawn.append(
            tag("text", escape(self.x_label), x=middle, y=HEIGHT - 6, class_="axis-label", text_anchor="middle")
        )
        return drawn


def marker(left: Number, top: Number, style: str, tip: str, shape: str = "circle") -> Markup:
    """A marker at user units: circle, square, triangle or cross."""
    common = {"class_": f"mark {style}", "data_tip": tip}
    if shape == "circle":
        return tag("circle", cx=left, cy=top, r=4.5, **common)
    if shape == "square":
        return tag("rect", x=left - 4, y=top - 4, width=8, height=8, **common)
    if shape == "triangle":
        return tag("path", d=f"M{left:.1f},{top - 5.5:.1f}l5.2,9h-10.4z", **common)
    return tag("path", d=f"M{left - 4:.1f},{top - 4:.1f}l8,8m0,-8l-8,8", **common)


def legend(*entries: tuple[str, str, str]) -> Markup:
    """What lines and markers mean: (text, class of the style sheet, shape or "line" or "band")."""
    items = []
    for text, style, shape in entries:
        if shape == "band":
            key = tag("rect", x=1, y=2, width=24, height=10, class_=f"band {style}")
        elif shape == "column":
            key = tag("rect", x=6, y=1, width=12, height=12, class_=f"column {style}")
        elif shape == "line":
            key = tag("path", d="M1,7H25", class_=f"line {style}")
        else:
            key = tag("path", d="M1,7H25", class_=f"line {style}") + marker(13, 7, style, text, shape)
        swatch = tag("svg", key, viewBox="0 0 26 14", class_="swatch", aria_hidden="true")
        items.append(tag("li", swatch, escape(text)))
    return tag("ul", *items, class_="legend")


def padded(values: Sequence[Number]) -> tuple[float, float]:
    """Ends of an axis from zero up that holds the values: no narrower than ticks of four figures can tell apart."""
    low, high = min(values), max(values)
    pad = max(0.08 * (high - low), 0.02 * abs(high)) or 0.08
    return max(0.0, low - pad), high + pad


def whole_percent(share: Number) -> str:
    """A tick of a percentage axis."""
    return f"{100 * share:.4g}{SPACE}%"


def dot_in_band(value: Number, band: tuple[Number, Number], scale: Scale, *, unusual: bool, tip: str) -> Markup:
    """One value on a strip with the healthy band drawn: a dot inside, a diamond outside."""
    width, height = 160.0, 26.0

    def at(v: float) -> float:
        return 8 + (width - 16) * min(1.0, max(0.0, scale.place(v)))

    low, high = at(band[0]), at(band[1])
    parts = [
        tag("path", d=f"M4,13H{width - 4:.0f}", class_="frame"),
        tag("rect", x=low, y=4.0, width=max(2.0, high - low), height=18.0, rx=3, class_="band healthy"),
    ]
    x = at(value)
    if unusual:
        parts.append(tag("path", d=f"M{x:.1f},5l7,8l-7,8l-7,-8z", class_="mark unusual", data_tip=tip))
    else:
        parts.append(tag("circle", cx=x, cy=13.0, r=5.5, class_="mark usual", data_tip=tip))
    return tag("svg", *parts, class_="strip", viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=tip)
