"""Check a study against the schema that the package ships, without a dependency."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any

_TYPES: dict[str, Callable[[Any], bool]] = {
    "object": lambda x: isinstance(x, dict),
    "array": lambda x: isinstance(x, list),
    "string": lambda x: isinstance(x, str),
    "boolean": lambda x: isinstance(x, bool),
    "null": lambda x: x is None,
    "integer": lambda x: isinstance(x, int) and not isinstance(x, bool),
    "number": lambda x: isinstance(x, (int, float)) and not isinstance(x, bool) and math.isfinite(x),
}


@cache
def schema() -> dict[str, Any]:
    """The JSON schema of study.json."""
    return json.loads((files("tangrams.study") / "schema.json").read_text(encoding="utf-8"))


def validate(study: Any) -> None:
    """Check that ``study`` is what :func:`~tangrams.study.report.render` can draw.

    Reads the part of JSON Schema 2020-12 that schema.json uses. NaN and infinity are refused.

    Raises:
        ValueError: naming the first place that does not fit and what was expected there.
    """
    if not isinstance(study, dict):
        raise ValueError(f"study.json should hold an object, found {_kind(study)}")
    version, expected = study.get("version"), schema()["properties"]["version"]["const"]
    if version != expected:
        raise ValueError(
            f"study.json has version {version!r}, this tangrams draws version {expected!r}: "
            "run the study again, or draw it with the tangrams that wrote it"
        )
    problem = _problem(study, schema(), "study")
    if problem:
        raise ValueError(f"study.json does not fit its schema: {problem}")


def _problem(value: Any, rule: dict[str, Any], where: str) -> str | None:
    """The first misfit of ``value``, or None."""
    if "$ref" in rule:
        return _problem(value, schema()["$defs"][rule["$ref"].rpartition("/")[2]], where)
    if "anyOf" in rule:
        return _problem_of_any(value, rule["anyOf"], where)
    if "const" in rule and value != rule["const"]:
        return f"{where} should be {rule['const']!r}, found {value!r}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{where} should be one of {rule['enum']}, found {value!r}"
    kinds = rule.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind](value) for kind in kinds):
        return f"{where} should be {' or '.join(kinds)}, found {_kind(value)}"
    if isinstance(value, dict):
        return _problem_of_object(value, rule, where)
    if isinstance(value, list):
        return _problem_of_array(value, rule, where)
    if isinstance(value, str):
        return _problem_of_string(value, rule, where)
    return _problem_of_number(value, rule, where)


def _problem_of_any(value: Any, rules: list[dict[str, Any]], where: str) -> str | None:
    problems = [_problem(value, rule, where) for rule in rules]
    if None in problems:
        return None
    # The branch that the value means: the one whose constants it carries, else the last one (null comes first).
    for rule, problem in zip(rules, problems, strict=True):
        constants = {k: v["const"] for k, v in rule.get("properties", {}).items() if "const" in v}
        if isinstance(value, dict) and constants and all(value.get(k) == v for k, v in constants.items()):
            return problem
    return problems[-1]


def _problem_of_object(value: dict[str, Any], rule: dict[str, Any], where: str) -> str | None:
    properties, extra = rule.get("properties", {}), rule.get("additionalProperties", {})
    for key in rule.get("required", []):
        if key not in value:
            return f"{where} lacks {key!r}"
    names = rule.get("propertyNames", {}).get("pattern")
    for key, item in value.items():
        if names and not re.search(names, key):
            return f"{where} has a key {key!r} that does not match {names}"
        if key not in properties and extra is False:
            return f"{where} has an unknown key {key!r}"
        problem = _problem(item, properties.get(key, extra or {}), f"{where}.{key}")
        if problem:
            return problem
    return None


def _problem_of_array(value: list[Any], rule: dict[str, Any], where: str) -> str | None:
    low, high = rule.get("minItems", 0), rule.get("maxItems", math.inf)
    if not low <= len(value) <= high:
        bounds = f"{low}" if low == high else f"at least {low}" if high == math.inf else f"{low} to {high}"
        return f"{where} should have {bounds} items, found {len(value)}"
    for i, item in enumerate(value):
        problem = _problem(item, rule.get("items", {}), f"{where}[{i}]")
        if problem:
            return problem
    return None


def _problem_of_string(value: str, rule: dict[str, Any], where: str) -> str | None:
    if len(value) < rule.get("minLength", 0):
        return f"{where} should not be empty"
    if "pattern" in rule and not re.search(rule["pattern"], value):
        return f"{where} should match {rule['pattern']}, found {value[:60]!r}"
    return None


def _problem_of_number(value: Any, rule: dict[str, Any], where: str) -> str | None:
    for key, sign, ok in (
        ("minimum", "≥", lambda x, b: x >= b),
        ("maximum", "≤", lambda x, b: x <= b),
        ("exclusiveMinimum", ">", lambda x, b: x > b),
    ):
        if key in rule and isinstance(value, (int, float)) and not ok(value, rule[key]):
            return f"{where} should be {sign} {rule[key]}, found {value!r}"
    return None


def _kind(value: Any) -> str:
    for name in ("null", "boolean", "integer", "number", "string", "array", "object"):
        if _TYPES[name](value):
            return f"the {name} {value!r}" if name not in ("array", "object", "string") else f"a {name}"
    return repr(value)
