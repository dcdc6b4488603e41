"""Cycles of one tile (a sequence of folds) on the PE array, in closed form.

R, C: physical rows and columns. A fold streams `length` operand vectors through the array; every fold of a
tile has the same length. All arguments may be int64 arrays that broadcast.

Output stationary: PE (r, c) accumulates in place, operands enter with a skew of one cycle per row and
column, results leave downwards, one row per cycle, through all R rows. Without overlap the next fold
waits for the drain; with overlap a flip signal follows the operands and lets a PE shift out its result
while it accumulates the next one, so a fold costs max(length, R).

Weight (and input) stationary: R cycles of preload, then `length` vectors stream and partial sums leave at
the bottom row. With overlap the preload of the next fold hides behind the stream of this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Int = np.ndarray | int


def output_stationary(folds: Int, length: Int, sum_columns: Int, last_columns: Int, rows: int, overlap: bool) -> Int:
    """Cycles from the first operand entering to the last result leaving; 0 for no folds.

    `sum_columns` is the number of live columns summed over folds, `last_columns` that of the last fold, or on
    arrays wider than the fold interval `tail_columns`. Serial: each fold costs length + 2R + columns - 2.
    """
    if not overlap:
        return folds * (length + 2 * rows - 2) + sum_columns
    # The last drain waits for the one before it, so a short last fold still costs R when it is not alone.
    interval = np.maximum(length, rows)
    streamed = np.where(np.asarray(folds) == 1, length, folds * interval)
    return np.where(np.asarray(folds) > 0, streamed + 2 * rows + last_columns - 2, 0)


def operand_stationary(folds: Int, length: Int, sum_columns: Int, last_columns: Int, rows: int, overlap: bool) -> Int:
    """Cycles from the first preloaded word to the last partial sum leaving; 0 for no folds."""
    if not overlap:
        return folds * (length + 2 * rows - 2) + sum_columns
    streamed = (folds - 1) * np.maximum(length, rows) + length
    return np.where(np.asarray(folds) > 0, streamed + 2 * rows + last_columns - 2, 0)


def tail_columns(columns: Sequence[int], length: int, rows: int) -> int:
    """What `last_columns` must be for overlapped folds with these live columns: the one that ends last decides.

    Results leave one cycle later per column, so a wide fold may still be leaving when a narrow last fold is done:
    fold i of n counts as columns[i] - (n - 1 - i) * max(length, rows) columns of the last.
    """
    interval = max(length, rows)
    last = len(columns) - 1
    return max((width - (last - i) * interval for i, width in enumerate(columns)), default=0)


def dense_tail_columns(size: Int, length: Int, rows: int, columns: int) -> Int:
    """`tail_columns` of a tile of `size` >= 1 columns cut into blocks of `columns`, the ragged one last."""
    ragged = (size - 1) % columns + 1
    return np.where(np.asarray(size) > columns, np.maximum(ragged, columns - np.maximum(length, rows)), ragged)
