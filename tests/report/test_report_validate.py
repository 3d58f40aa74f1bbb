"""The built-in check of a study agrees with the JSON schema library, and names the place."""

from __future__ import annotations

import copy
import json
import math
import random
import re
from pathlib import Path

import jsonschema
import pytest

from tangrams.study.report import schema, validate

REFERENCE = jsonschema.Draft202012Validator(schema())


def accepted(study):
    try:
        validate(study)
    except ValueError:
        return False
    return True


def test_the_schema_is_a_schema_and_every_object_in_it_is_closed():
    jsonschema.Draft202012Validator.check_schema(schema())

    def walk(rule, path):
        if isinstance(rule, dict):
            if rule.get("type") == "object":
                assert "additionalProperties" in rule, path
                if rule["additionalProperties"] is False:
                    assert set(rule["required"]) <= set(rule["properties"]), path
            for key, value in rule.items():
                walk(value, f"{path}.{key}")
        elif isinstance(rule, list):
            for i, value in enumerate(rule):
                walk(value, f"{path}[{i}]")

    walk(schema(), "schema")


def test_the_check_knows_every_keyword_that_the_schema_uses():
    known = {
        "$schema", "$id", "$defs", "$ref", "title", "description", "type", "const", "enum", "anyOf", "properties",
        "required", "additionalProperties", "propertyNames", "items", "minItems", "maxItems", "minLength", "pattern",
        "minimum", "maximum", "exclusiveMinimum",
    }  # fmt: skip

    def walk(rule):
        if not isinstance(rule, dict):
            return
        assert set(rule) <= known
        for key in ("properties", "$defs"):
            for value in rule.get(key, {}).values():
                walk(value)
        for value in (rule.get("items"), rule.get("additionalProperties"), *rule.get("anyOf", [])):
            walk(value)

    walk(schema())


def test_the_example_studies_fit(any_study):
    REFERENCE.validate(any_study)
    validate(any_study)
    json.dumps(any_study, allow_nan=False)


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


def broken(study, rng):
    """The study with one thing replaced, removed or added."""
    study = copy.deepcopy(study)
    path = rng.choice([p for p in places(study) if p])
    owner = study
    for key in path[:-1]:
        owner = owner[key]
    action = rng.choice(["replace", "replace", "remove", "add"])
    if action == "remove":
        owner.pop(path[-1])
    elif action == "add" and isinstance(owner, dict):
        owner["surprise"] = 1
    else:
        owner[path[-1]] = rng.choice([None, -1, 0, 2.5, "x", "", True, [], {}, [1, 2], {"a": 1}, "train/3"])
    return study


def small(study):
    """The study with short lists, so that changes fall everywhere."""

    def cut(value):
        if isinstance(value, dict):
            return {k: cut(v) for k, v in value.items()}
        return [cut(v) for v in value[:2]] if isinstance(value, list) else value

    study = cut(study)
    study["samples"] = dict(list(study["samples"].items())[:3])
    return study


def test_the_check_agrees_with_the_library_on_broken_studies(any_study):
    rng, base = random.Random(0), small(any_study)
    refused = 0
    for _ in range(150):
        study = broken(base, rng)
        expected = REFERENCE.is_valid(study)
        assert accepted(study) == expected
        refused += not expected
    assert refused > 30


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(example, value):
    study = example.classification()
    study["fragility"]["closest"][3]["distance"] = value
    with pytest.raises(ValueError, match=r"study\.fragility\.closest\[3\]\.distance should be number"):
        validate(study)


def test_errors_name_the_place_and_what_was_expected(example):
    study = example.classification()
    study["labels"]["suspects"][1]["colour"] = "red"
    with pytest.raises(ValueError, match=r"study\.labels\.suspects\[1\] has an unknown key 'colour'"):
        validate(study)
    study = example.classification()
    del study["layers"]["layers"][0]["norm"]["band"]
    with pytest.raises(ValueError, match=r"study\.layers\.layers\[0\]\.norm lacks 'band'"):
        validate(study)
    study = example.classification()
    study["version"] = "9.9"
    with pytest.raises(ValueError, match="run the study again"):
        validate(study)
    with pytest.raises(ValueError, match="should hold an object"):
        validate([])


def test_the_page_about_study_json_names_every_key_and_the_version(example):
    page = (Path(__file__).parents[2] / "docs" / "study.md").read_text(encoding="utf-8")
    study = example.classification()
    assert {key for key in study if f"`{key}`" not in page} == set()
    assert f'`"{study["version"]}"`' in page
    block = re.search(r"```python\n(.*?)```", page, flags=re.S)
    code = block[1].replace('json.load(open("study/study.json"))', "given")
    names = {"given": study}
    exec(code, names)
    assert names["suspects"][0].startswith("train/")
    assert names["accuracy"]["interval"]
