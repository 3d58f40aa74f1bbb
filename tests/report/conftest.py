"""Example studies, and a Chromium to look at them with."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tangrams.study.report import render

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


def _example() -> Any:
    path = Path(__file__).with_name("example.py")
    spec = importlib.util.spec_from_file_location("tests_report_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = _example()


@pytest.fixture(params=sorted(EXAMPLE.STUDIES))
def any_study(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each of the example studies in turn."""
    return EXAMPLE.STUDIES[request.param]()


@pytest.fixture
def example() -> Any:
    """The module that makes the example studies."""
    return EXAMPLE


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Name of an example study → its report, drawn once."""
    folder = tmp_path_factory.mktemp("reports")

    def draw(name: str) -> Path:
        path = folder / f"{name}.html"
        return path if path.exists() else render(EXAMPLE.STUDIES[name](), path)

    return draw


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium, or a skip that says what is missing."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install 'tangrams[dev]'")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next((found for name in names if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on this machine: install the system's chromium package")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield found
        found.close()


class Watched:
    """A page and everything that it said, asked for or broke."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.problems: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))


@pytest.fixture
def visit(browser: Any, drawn: Callable[[str], Path]) -> Iterator[Callable[..., Watched]]:
    """Open the report of an example study in a fresh window."""
    contexts = []

    def go(name: str = "classification", fragment: str = "", **options: Any) -> Watched:
        options.setdefault("viewport", {"width": 1200, "height": 900})
        context = browser.new_context(**options)
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.goto(drawn(name).as_uri() + fragment)
        return watched

    yield go
    for context in contexts:
        context.close()
