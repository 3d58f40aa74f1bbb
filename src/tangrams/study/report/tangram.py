"""The seven pieces: one for each of the sections 2 to 8."""

from __future__ import annotations

from dataclasses import dataclass

Point = tuple[int | float, int | float]

# The square of side 4, cut as always; in the order of the sections.
PIECES: tuple[tuple[Point, ...], ...] = (
    ((0, 0), (4, 0), (2, 2)),  # large triangle
    ((0, 0), (2, 2), (0, 4)),  # large triangle
    ((4, 2), (4, 4), (2, 4)),  # medium triangle
    ((3, 1), (4, 2), (3, 3), (2, 2)),  # square
    ((0, 4), (1, 3), (3, 3), (2, 4)),  # parallelogram
    ((4, 0), (4, 2), (3, 1)),  # small triangle
    ((2, 2), (3, 3), (1, 3)),  # small triangle
)
SIDE, GAP = 100.0, 3.0


@dataclass(frozen=True)
class Tan:
    """One piece, ready to be drawn.

    Attributes:
        points: its corners in a square of side 100.
        apart: the same, moved out from the middle of the square, so that the cuts show.
        box: the view box that frames ``points``.
    """

    points: str
    apart: str
    box: str


def tans() -> list[Tan]:
    """The seven pieces in the order of the sections."""
    return [_tan(piece) for piece in PIECES]


def _tan(piece: tuple[Point, ...]) -> Tan:
    scaled = [(x * SIDE / 4, y * SIDE / 4) for x, y in piece]
    centre = [sum(axis) / len(piece) for axis in zip(*scaled, strict=True)]
    shift = [GAP * (c - SIDE / 2) / (SIDE / 2) * 2 for c in centre]
    low = [min(axis) for axis in zip(*scaled, strict=True)]
    size = [max(axis) - least for axis, least in zip(zip(*scaled, strict=True), low, strict=True)]
    return Tan(
        _written(scaled),
        _written([(x + shift[0], y + shift[1]) for x, y in scaled]),
        f"{low[0] - 2:.4g} {low[1] - 2:.4g} {size[0] + 4:.4g} {size[1] + 4:.4g}",
    )


def _written(points: list[Point]) -> str:
    return " ".join(f"{x:.4g},{y:.4g}" for x, y in points)
