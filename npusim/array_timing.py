"""Cycles of a tile on an array with latencies of its own (`hardware.ArrayTiming`), in closed form.

With the default timing these are the forms of `npusim.array`. R, C: rows and columns; folds, length, sum_columns and
last_columns as there. Counted from the command to the last result, both ends included:

    output stationary   start [+ R of initial sums] + length
                        + (R - 1) + (columns - 1)      skew of the operands down to the last PE
                        + mac                          its last sum
                        + (R or C or 0) - 1            results leave down their columns, across their rows, or at once
                        + output
    operand held        start [+ R - 1 of preload + gap] + length + mac * R + columns - 1 + output

Serial folds repeat all but the start. Overlapped folds repeat only the length, or what else keeps them apart: R cycles
of drain or preload; R + C when results leave across, since no row shifts before the last PE is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npusim import array as ideal
from npusim.array import Int

if TYPE_CHECKING:
    from npusim.npu import Array

DATAFLOWS = ("OS", "WS", "IS")


def output_interval(length: Int, array: Array) -> Int:
    """Cycles from one overlapped output-stationary fold to the next."""
    busy = {"down": array.rows, "across": array.rows + array.cols, "none": 1}[array.timing.drain]
    return np.maximum(_filled(length, array), busy)


def held_interval(length: Int, array: Array) -> Int:
    """Cycles from one overlapped fold with a held operand to the next."""
    return np.maximum(_filled(length, array), array.rows)


def output_stationary(folds: Int, length: Int, sum_columns: Int, last_columns: Int, array: Array) -> Int:
    """Cycles of the folds of a tile whose PEs accumulate in place; 0 for no folds."""
    timing, rows = array.timing, array.rows
    sum_columns, last_columns = _columns(folds, sum_columns, last_columns, array)
    leaving = {"down": rows, "across": array.cols, "none": 0}[timing.drain]
    tail = rows + leaving - 3 + timing.mac_cycles + timing.output_cycles
    initial = rows if timing.accumulator_preload else 0
    one = _filled(length, array)
    if not array.fold_overlap:
        return np.where(np.asarray(folds) > 0, timing.start_cycles + folds * (initial + one + tail) + sum_columns, 0)
    # The last drain waits for the one before it, so a short last fold still costs R when it is not alone.
    streamed = np.where(np.asarray(folds) == 1, one, folds * output_interval(length, array))
    return np.where(np.asarray(folds) > 0, timing.start_cycles + initial + streamed + tail + last_columns, 0)


def operand_stationary(folds: Int, length: Int, sum_columns: Int, last_columns: Int, array: Array) -> Int:
    """Cycles of folds that hold one operand while `length` vectors of the other stream; 0 for no folds."""
    timing = array.timing
    sum_columns, last_columns = _columns(folds, sum_columns, last_columns, array)
    preload = array.rows - 1 + timing.preload_gap_cycles
    tail = timing.mac_cycles * array.rows - 1 + timing.output_cycles
    last = _last_filled(length, array)
    first = preload if timing.first_preload else 0
    if not array.fold_overlap:
        every = folds * (preload + last + tail) + sum_columns - (preload - first)
        return np.where(np.asarray(folds) > 0, timing.start_cycles + every, 0)
    streamed = (folds - 1) * held_interval(length, array) + last
    return np.where(np.asarray(folds) > 0, timing.start_cycles + first + streamed + tail + last_columns, 0)


def gemm(dataflow: str, m: int, k: int, n: int, array: Array) -> int:
    """Cycles of C[m x n] = A[m x k] B[k x n] with both operands in the buffers, all of it one tile.

    | dataflow | rows hold | columns hold | streams |
    |----------|-----------|--------------|---------|
    | OS       | m         | n            | k       |
    | WS       | k         | n (B held)   | m       |
    | IS       | k         | m (A held)   | n       |
    """
    on_rows, on_columns, length = {"OS": (m, n, k), "WS": (k, n, m), "IS": (k, m, n)}[dataflow]
    row_folds = -(-on_rows // array.rows)
    folds = row_folds * -(-on_columns // array.cols)
    form, interval = (output_stationary, output_interval) if dataflow == "OS" else (operand_stationary, held_interval)
    last = ideal.dense_tail_columns(on_columns, interval(length, array), 0, array.cols)
    return int(form(folds, length, row_folds * on_columns, last, array))


def _filled(length: Int, array: Array) -> Int:
    command = array.timing.command_vectors
    return -(-length // command) * command


def _last_filled(length: Int, array: Array) -> Int:
    """Only the last command of the last fold may be short: no operand is shifted in behind it."""
    before = (length - 1) // array.timing.command_vectors * array.timing.command_vectors
    return before + np.maximum(length - before, array.timing.least_vectors)


def _columns(folds: Int, sum_columns: Int, last_columns: Int, array: Array) -> tuple[Int, Int]:
    return (sum_columns, last_columns) if array.timing.live_columns_only else (folds * array.cols, array.cols)
