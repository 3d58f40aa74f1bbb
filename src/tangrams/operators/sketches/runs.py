"""Runs of columns read as matrices, for the sketches that use the shape of a weight."""

from __future__ import annotations

from collections.abc import Iterator

from tangrams.operators.sketches.base import BLOCK, Column


def column_runs(columns: tuple[Column, ...] | None, start: int, stop: int) -> Iterator[tuple[int, Column, int, int]]:
    """Cut the columns ``start … stop`` at the borders of the runs, and into pieces of at most one block.

    Yields:
        ``(number, column, low, high)``: the run, and the part of it that is covered, counted within the run.
    """
    for number, column in enumerate(columns or ()):
        low, high = max(start, column.start) - column.start, min(stop, column.stop) - column.start
        for first in range(low, high, BLOCK):
            yield number, column, first, min(first + BLOCK, high)


def matrix_shape(column: Column) -> tuple[int, int]:
    """A run as a matrix ``(o, i)``: the first axis against the rest; a vector is one row."""
    size = column.stop - column.start
    if len(column.shape) < 2 or size == 0:
        return 1, size
    return column.shape[0], size // column.shape[0]


def run_at(columns: tuple[Column, ...] | None, start: int, shape: tuple[int, int]) -> tuple[int, Column] | None:
    """The run that begins at ``start`` and has the matrix shape ``shape``, with its number; None if there is none."""
    for number, column in enumerate(columns or ()):
        if column.start == start and matrix_shape(column) == shape:
            return number, column
    return None


def rectangles(low: int, high: int, width: int) -> list[tuple[int, int, int, int]]:
    """``low … high`` of a flattened (o, width) as rectangles ``(row, count, first, last)``: head, whole rows, tail."""
    pieces = []
    while low < high:
        row, first = divmod(low, width)
        if first == 0 and high - low >= width:
            count, last = (high - low) // width, width
        else:
            count, last = 1, min(width, first + high - low)
        pieces.append((row, count, first, last))
        low += count * (last - first)
    return pieces
