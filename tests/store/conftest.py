import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny():
    """The module ``tiny.py`` beside this file."""
    name = "tangrams_tests_store_tiny"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("tiny.py"))
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(autouse=True)
def unflushed(tiny):
    """No test waits for the disk; that the store does is a test of its own."""
    with tiny.interfering(tiny.plain):
        yield


@pytest.fixture(scope="session")
def unbroken(tiny, tmp_path_factory):
    """The files of a store that was written without interruption."""
    path = tmp_path_factory.mktemp("unbroken") / "features.zarr"
    tiny.run(path)
    return tiny.contents(path)
