"""How a member joins its role's conformance suite: one line per member.

A suite is a class of ``check_*(case)`` functions for one base class. A :class:`Case` says how to make a member and what
it takes; excuses are data with reasons, and strict: a cured excuse fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch


@dataclass(frozen=True)
class Case:
    """One member under test.

    Attributes:
        make: a factory of fresh members (never an instance: suites mutate, move and cast what it returns).
        inputs: ``(n, generator) -> x``: n samples of what ``make()`` takes.
        reference: a slow, obvious implementation to compare with; what it takes and returns is the suite's to say.
        excuses: check name → why this member cannot pass it.
        name: shown in the test's id; the class of ``make()`` by default.
    """

    make: Callable[[], Any]
    inputs: Callable[[int, torch.Generator], Any] | None = None
    reference: Callable[..., Any] | None = None
    excuses: Mapping[str, str] = field(default_factory=dict)
    name: str | None = None


class Suite:
    """Base of the suites: its ``check_*`` static methods each take a case."""

    role: type

    @classmethod
    def checks(cls) -> list[str]:
        """Names of the checks, in alphabetical order."""
        return [name for name in sorted(dir(cls)) if name.startswith("check_")]


MEMBERS: dict[type, set[type]] = {}
"""Suite → classes that have a case; the completeness test compares it with the public classes of the role."""


def conformance(suite: type[Suite], *cases: Case) -> type:
    """A pytest class that runs every check of ``suite`` on every case.

    Bind the result to a name that starts with ``Test``.
    """
    members = [(case, type(case.make())) for case in cases]
    MEMBERS.setdefault(suite, set()).update(member for _, member in members)
    params = []
    for case, member in members:
        unknown = set(case.excuses) - set(suite.checks())
        if unknown:
            raise ValueError(f"{suite.__name__} has no checks {sorted(unknown)}, excused for {member.__name__}")
        for check in suite.checks():
            marks = [pytest.mark.xfail(reason=case.excuses[check], strict=True)] if check in case.excuses else []
            params.append(pytest.param(case, check, id=f"{case.name or member.__name__}-{check[6:]}", marks=marks))

    class TestConformance:
        @pytest.mark.parametrize(("case", "check"), params)
        def test(self, case: Case, check: str) -> None:
            getattr(suite, check)(case)

    TestConformance.__qualname__ = f"Test{suite.__name__}"
    return TestConformance


def normal(*shape: int, dtype: torch.dtype = torch.float64) -> Callable[[int, torch.Generator], torch.Tensor]:
    """Inputs for a case: n standard normal samples of the given event shape."""

    def inputs(n: int, generator: torch.Generator) -> torch.Tensor:
        return torch.randn(n, *shape, generator=generator, dtype=dtype)

    return inputs
