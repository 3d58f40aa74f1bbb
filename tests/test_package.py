import importlib
import importlib.util
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tangrams
from tangrams.claims import catalogue, claims

ROOT = Path(__file__).parents[1]


def test_torchvision_is_absent():
    assert importlib.util.find_spec("torchvision") is None


def test_importing_tangrams_imports_no_room_and_costs_nothing_beside_torch():
    code = (
        "import torch, time, sys, json; t = time.process_time(); import tangrams; t = time.process_time() - t;"
        "print(json.dumps([t, [m for m in sys.modules if m.startswith('tangrams.')]]))"
    )
    seconds, rooms = json.loads(subprocess.check_output([sys.executable, "-c", code]))
    assert rooms == []
    assert seconds < 1.0


def test_every_room_is_reached_from_the_package_and_lists_its_members():
    for name in tangrams._ROOMS:
        room = getattr(tangrams, name)
        assert room.__doc__
        exported = getattr(room, "__all__", [])
        for member in exported:
            assert hasattr(room, member), f"{name}.__all__ names {member}, which does not exist"


def test_an_unknown_room_names_the_rooms():
    with pytest.raises(AttributeError, match="the rooms are"):
        _ = tangrams.kernel


def test_the_catalogue_has_all_119_papers_once():
    rows = catalogue()
    assert [row.number for row in rows] == list(range(1, 120))
    assert len({row.slug for row in rows}) == 119
    assert {row.status for row in rows} <= {"planned", "works"}
    assert {row.room for row in rows} <= set(tangrams._ROOMS)


@pytest.mark.parametrize("paper", [row for row in catalogue() if row.status == "works"], ids=lambda row: row.slug)
def test_a_paper_that_works_has_symbols_that_cite_it_a_claim_and_tests(paper):
    assert paper.symbols
    cited = [symbol for symbol, found in paper.resolve().items() if f"[{paper.number:03d}" in _docs(found)]
    assert cited, f"no symbol of {paper.slug} cites [{paper.number:03d}]"
    assert claims()[paper.slug].number == paper.number
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    untested = [s for s in paper.symbols if not re.search(rf"\b{s.rpartition('.')[2]}\b", tests)]
    assert not untested, f"no test mentions {untested}"


def test_a_claim_belongs_to_a_paper_that_works_and_has_both_presets():
    numbers = {row.slug: row for row in catalogue()}
    for slug, claim in claims().items():
        assert numbers[slug].status == "works"
        assert numbers[slug].number == claim.number
        assert {"quick", "full"} <= set(claim.presets)
        assert claim.baselines
        assert claim.statement


def test_docstrings_cite_papers_of_the_catalogue_only():
    for path in (ROOT / "src").rglob("*.py"):
        for number in re.findall(r"\[(\d{3})(?:[,\]])", path.read_text()):
            assert 1 <= int(number) <= 119, f"{path.name} cites [{number}]"


def test_no_module_is_longer_than_the_house_allows():
    long = {
        str(path.relative_to(ROOT)): lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long, f"files that may hold two things: {long}"


def test_public_callables_are_typed_and_documented():
    faults = []
    for name in tangrams._ROOMS:
        room = getattr(tangrams, name)
        for member in getattr(room, "__all__", []):
            found = getattr(room, member)
            if not (inspect.isclass(found) or inspect.isfunction(found)):
                continue
            if not inspect.getdoc(found):
                faults.append(f"{name}.{member}: no docstring")
            if inspect.isfunction(found):
                faults += [
                    f"{name}.{member}: {p.name} has no type"
                    for p in inspect.signature(found).parameters.values()
                    if p.annotation is inspect.Parameter.empty
                ]
    assert not faults


def test_every_module_imports():
    for module in pkgutil.walk_packages(tangrams.__path__, "tangrams."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _docs(found: object) -> str:
    module = inspect.getmodule(found)
    return (inspect.getdoc(found) or "") + ((module.__doc__ or "") if module else "")
