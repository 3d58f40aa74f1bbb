"""Gustavson's row-wise product, compiled; imported only where numba is installed."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
from numba import njit, prange  # type: ignore[import-not-found]


def _count_columns(a_crow: Any, a_col: Any, b_crow: Any, b_col: Any, m: int, borders: Any) -> Any:
    """Distinct columns of every row."""
    counts = np.zeros(len(a_crow), np.int64)
    for token in prange(len(borders) - 1):
        seen = np.full(m, -1, np.int64)
        for i in range(borders[token], borders[token + 1]):
            found = 0
            for e in range(a_crow[i], a_crow[i + 1]):
                k = a_col[e]
                for f in range(b_crow[k], b_crow[k + 1]):
                    j = b_col[f]
                    if seen[j] != i:
                        seen[j] = i
                        found += 1
            counts[i + 1] = found
    return counts


def _fill_rows(
    a_crow: Any,
    a_col: Any,
    a_values: Any,
    b_crow: Any,
    b_col: Any,
    b_values: Any,
    crow: Any,
    m: int,
    borders: Any,
    col: Any,
    values: Any,
) -> None:
    """Columns in ascending order, and sums."""
    for token in prange(len(borders) - 1):
        seen = np.full(m, -1, np.int64)
        sums = np.zeros(m, a_values.dtype)
        for i in range(borders[token], borders[token + 1]):
            start, end = crow[i], crow[i]
            for e in range(a_crow[i], a_crow[i + 1]):
                k, scale = a_col[e], a_values[e]
                for f in range(b_crow[k], b_crow[k + 1]):
                    j = b_col[f]
                    if seen[j] != i:
                        seen[j] = i
                        sums[j] = scale * b_values[f]
                        col[end] = j
                        end += 1
                    else:
                        sums[j] += scale * b_values[f]
            if (end - start) * 16 > m:  # a pass over all columns is cheaper than sorting
                end = start
                for j in range(m):
                    if seen[j] == i:
                        col[end] = j
                        end += 1
            elif end - start > 64:
                col[start:end].sort()
            else:  # few columns, in runs that are sorted already: insertion
                for p in range(start + 1, end):
                    j, q = col[p], p - 1
                    while q >= start and col[q] > j:
                        col[q + 1] = col[q]
                        q -= 1
                    col[q + 1] = j
            for p in range(start, end):
                values[p] = sums[col[p]]


_compiled = njit(cache=True, parallel=True, nogil=True)
# What checks types at run time, in tests, is wrapped around functions and cannot be compiled.
_count, _fill = _compiled(inspect.unwrap(_count_columns)), _compiled(inspect.unwrap(_fill_rows))


def product(left: list[Any], right: list[Any], m: int, borders: Any) -> tuple[Any, Any, Any]:
    """Row starts, columns and values of AB: entries are counted first, so that nothing is copied.

    Args:
        left: row starts, columns and values of A.
        right: the same of B.
        m: columns of B.
        borders: of the runs of rows that are handed to threads.
    """
    crow = _count(*left[:2], *right[:2], m, borders).cumsum()
    col, values = np.empty(crow[-1], np.int64), np.empty(crow[-1], left[2].dtype)
    _fill(*left, *right, crow, m, borders, col, values)
    return crow, col, values
