"""The catalogue: which paper is which symbol, and where it stands."""

from __future__ import annotations

import importlib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

Status = Literal["planned", "works"]


@dataclass(frozen=True)
class Paper:
    """A row of the catalogue.

    Attributes:
        number: the number by which docstrings cite it, ``[NNN]``.
        slug: its short name, as in ``tangrams claim SLUG``.
        title: the paper's title.
        area: the field it belongs to.
        room: the room that holds its main symbol.
        status: ``works`` when code, tests and a measured claim exist, ``planned`` until then.
        symbols: its public names, as ``room.Name``.
        finding: where what was measured here disagrees with the paper; empty where it agrees.
    """

    number: int
    slug: str
    title: str
    area: str
    room: str
    status: Status
    symbols: tuple[str, ...] = ()
    finding: str = ""

    def resolve(self) -> dict[str, Any]:
        """Its symbols, imported: ``room.Name`` → object."""
        found = {}
        for symbol in self.symbols:
            room, _, name = symbol.rpartition(".")
            found[symbol] = getattr(importlib.import_module(f"tangrams.{room}"), name)
        return found


@cache
def catalogue() -> tuple[Paper, ...]:
    """All papers, in the order of their numbers."""
    rows = tomllib.loads(files("tangrams").joinpath("catalogue.toml").read_text("utf-8"))["paper"]
    return tuple(Paper(**{**row, "symbols": tuple(row.get("symbols", ()))}) for row in rows)


def paper(name: str | int) -> Paper:
    """The paper of a slug or a number.

    Raises:
        KeyError: if there is none; the message names the nearest slugs.
    """
    for row in catalogue():
        if name == row.slug or str(name).lstrip("0") == str(row.number):
            return row
    import difflib

    near = difflib.get_close_matches(str(name), [row.slug for row in catalogue()], n=3, cutoff=0.4)
    raise KeyError(f"no paper {name!r} in the catalogue" + (f": did you mean {', '.join(near)}?" if near else ""))
