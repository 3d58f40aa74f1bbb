"""Numbers as a reader meets them: three figures at most, a unit, and the uncertainty or the word that there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

Number = int | float
SPACE = "\u202f"  # narrow no-break space: between a number and its unit, and every three digits
BLANK = "\u00a0"  # no-break space: between a number and a word


def number(value: Number, figures: int = 3) -> str:
    """``value`` to so many significant figures; large ones grouped, very small and large ones as powers of ten."""
    if value == 0:
        return "0"
    size = math.floor(math.log10(abs(value)))
    if size >= 6 or size < -4:
        mantissa, exponent = f"{value:.{figures - 1}e}".split("e")
        return minus(f"{mantissa}{SPACE}×{SPACE}10{superscript(int(exponent))}")
    return minus(grouped(f"{value:.{max(0, figures - 1 - size)}f}"))


def count(value: Number) -> str:
    """A whole number, grouped."""
    return minus(grouped(str(round(value))))


def setting(value: Number) -> str:
    """A value that somebody chose (a ridge, a threshold): no figures that it does not need."""
    return minus(f"{value:.4g}")


def rough_percent(share: Number) -> str:
    """A share as a whole percentage, for what is not known better; :func:`percent` where that would read 0 or 100."""
    text = f"{100 * share:.0f}"
    return f"{text}{SPACE}%" if text not in ("0", "100") or share in (0, 1) else percent(share)


def percent(share: Number) -> str:
    """A share as a percentage: one decimal, more only where less would read 0 or 100."""
    value = 100 * share
    for decimals in (1, 2, 3):
        text = f"{value:.{decimals}f}"
        if value in (0, 100) or float(text) not in (0.0, 100.0):
            break
    else:
        text = "< 0.001" if value < 50 else "> 99.999"
    return minus(f"{text.removesuffix('.0') if value in (0, 100) else text}{SPACE}%")


def share(fraction: Number) -> str:
    """A fraction that somebody chose, as a percentage with no more figures than it needs."""
    return f"{100 * fraction:.3g}{SPACE}%"


def points(difference: Number) -> str:
    """A difference of two shares in percentage points, signed."""
    value = f"{100 * difference:+.1f}"
    return f"{minus(value)}{BLANK}{'point' if value in ('+1.0', '-1.0') else 'points'}"


def duration(seconds: Number) -> str:
    """Seconds as a person says them."""
    if seconds < 10:
        return f"{seconds:.1f}{SPACE}s"
    if seconds < 120:
        return f"{seconds:.0f}{SPACE}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}{SPACE}min {rest}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def memory(mebibytes: Number) -> str:
    """MiB, or GiB from a thousand on."""
    return f"{mebibytes / 1024:.1f}{SPACE}GiB" if mebibytes >= 1000 else f"{mebibytes:.0f}{SPACE}MiB"


def plural(n: Number, one: str, many: str | None = None) -> str:
    """``n`` with its noun in the right number."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def listing(items: Sequence[str], word: str = "and") -> str:
    """``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}" if items else ""


def interval(estimate: dict[str, Any], form: Callable[[Number], str] = number) -> str:
    """The interval alone: ``low to high``, the unit once; one number where both read alike; empty without one."""
    if estimate["interval"] is None:
        return ""
    low, high = (form(bound) for bound in estimate["interval"])
    if low == high:
        return high
    unit = re.search(rf"(?<=\d)[{SPACE}{BLANK}]\D.*$", high)
    return f"{low.removesuffix(unit[0]) if unit else low} to {high}"


def about(estimate: dict[str, Any], form: Callable[[Number], str] = number) -> str:
    """An estimate in a sentence: the value, and its interval in brackets where it has one."""
    form = _fitting(estimate, form)
    bounds, text = interval(estimate, form), form(estimate["value"])
    same = estimate["interval"] is not None and {form(bound) for bound in estimate["interval"]} == {text}
    return text if same or not bounds else f"{text} ({bounds})"


def value(estimate: dict[str, Any], form: Callable[[Number], str] = number) -> str:
    """The value alone, with no more figures than its interval allows."""
    return _fitting(estimate, form)(estimate["value"])


def _fitting(estimate: dict[str, Any], form: Callable[[Number], str]) -> Callable[[Number], str]:
    """Whole percentages where the interval is wider than four points: a decimal would say more than is known."""
    bounds = estimate["interval"]
    return rough_percent if form is percent and bounds and bounds[1] - bounds[0] > 0.04 else form


def provenance(estimate: dict[str, Any], form: Callable[[Number], str] = number) -> str:
    """How sure an estimate is: its interval and what that is, or why there is none."""
    bounds = interval(estimate, _fitting(estimate, form))
    return f"{bounds}, {estimate['how']}" if bounds else estimate["how"]


def metric(study: dict[str, Any]) -> Callable[[Number], str]:
    """How this study's accuracies read: a percentage, or a plain R² in a regression."""
    return number if study["task"] == "regression" else percent


def metric_name(study: dict[str, Any]) -> str:
    """Accuracy, or R² in a regression."""
    return "R²" if study["task"] == "regression" else "accuracy"


def label(study: dict[str, Any], value: Number | None) -> str:
    """A label or target by its name; classes outside the list by their index."""
    if value is None:
        return "unknown"
    classes = study["data"]["classes"]
    if study["task"] == "regression":
        return number(value)
    index = int(value)
    name = classes[index] if 0 <= index < len(classes) else ""
    return name if name.strip() else f"class {index}"


def sample_name(study: dict[str, Any], identifier: str) -> str:
    """The user's own id of a sample where there is one, else its place in the split."""
    split, _, position = identifier.partition("/")
    name = study["samples"].get(identifier, {}).get("name")
    return name or f"{split} {position}"


def grouped(digits: str) -> str:
    """A narrow space at every third digit before the point."""
    sign, digits = ("-", digits[1:]) if digits.startswith("-") else ("", digits)
    whole, mark, rest = digits.partition(".")
    if len(whole) > 4:
        whole = f"{int(whole):,}".replace(",", SPACE)
    return sign + whole + mark + rest


def superscript(exponent: int) -> str:
    """A whole number in superscript figures."""
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def minus(text: str) -> str:
    """A hyphen before a number is a minus sign."""
    return text.replace("-", "−")
