"""Every public class of a role joins its role's suite."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
import sys
from pathlib import Path

import pytest
import torch
from linear_operator import LinearOperator
from sklearn.base import BaseEstimator
from torch import nn

import tangrams.testing.suites
from tangrams.features import FeatureMap
from tangrams.kernels.base import Kernel
from tangrams.operators.sketches import Sketch
from tangrams.testing.conformance import MEMBERS, Suite

TESTS = Path(__file__).parent
ROLES = [BaseEstimator, FeatureMap, Kernel, LinearOperator, Sketch, nn.Module, torch.optim.Optimizer]
for package, name in (("geoopt", "Manifold"), ("torchmetrics", "Metric")):
    if importlib.util.find_spec(package):
        ROLES.append(getattr(importlib.import_module(package), name))
ROOMS = ("operators", "manifolds", "features", "kernels", "nn", "learners", "lens", "models", "data", "store")


def suites() -> list[type[Suite]]:
    """All suites that are shipped."""
    for module in pkgutil.iter_modules(tangrams.testing.suites.__path__):
        importlib.import_module(f"tangrams.testing.suites.{module.name}")
    return sorted(Suite.__subclasses__(), key=lambda suite: suite.__name__)


def public_classes() -> list[type]:
    """Classes of a role that a room exports, but for the roles and other abstract bases themselves."""
    found = set()
    for room in ROOMS:
        for package in subpackages(importlib.import_module(f"tangrams.{room}")):
            for name in getattr(package, "__all__", ()):
                member = getattr(package, name)
                if inspect.isclass(member) and member.__module__.startswith("tangrams.") and not is_base(member):
                    found.add(member)
    return sorted((cls for cls in found if issubclass(cls, tuple(ROLES))), key=lambda cls: cls.__name__)


def subpackages(package):
    """The room, and the packages in it."""
    yield package
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.ispkg:
            yield importlib.import_module(module.name)


def is_base(member: type) -> bool:
    return inspect.isabstract(member) or member in ROLES or member.__module__.endswith(".base")


def suite_of(member: type) -> type[Suite] | None:
    """The suite of the most specific role that the class has."""
    fitting = [suite for suite in suites() if issubclass(member, suite.role)]
    return max(fitting, key=lambda suite: len(suite.role.__mro__), default=None)


@pytest.fixture(scope="module")
def members() -> dict[type[Suite], set[type]]:
    """Suite → classes with a case, by running the modules that make cases, whichever of them this session collects."""
    for path in sorted(TESTS.rglob("test_*.py")):
        if path != Path(__file__) and "conformance(" in path.read_text():
            name = "conformance_" + "_".join(path.relative_to(TESTS).with_suffix("").parts)
            if name not in sys.modules:
                spec = importlib.util.spec_from_file_location(name, path)
                assert spec is not None
                assert spec.loader is not None
                sys.modules[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules[name])
    return MEMBERS


@pytest.mark.parametrize("member", public_classes(), ids=lambda cls: f"{cls.__module__}.{cls.__name__}")
def test_a_public_class_has_a_case_in_the_suite_of_its_role(member, members):
    suite = suite_of(member)
    assert suite is not None, f"no suite is written for the role of {member.__name__}"
    if member not in members.get(suite, set()):
        pytest.fail(
            f"{member.__name__} has no case in {suite.__name__}: add a line to the conformance test of its room"
        )


def test_there_is_a_suite_for_each_role_that_a_room_exports():
    roles = {suite.role for suite in suites()}
    assert {FeatureMap, LinearOperator, Kernel, nn.Module, BaseEstimator, Sketch} <= roles


def test_a_class_without_a_case_would_be_noticed():
    class Newcomer(FeatureMap):
        pass

    assert suite_of(Newcomer) is not None
    assert Newcomer not in MEMBERS.get(suite_of(Newcomer), set())
    assert len(public_classes()) >= 10
