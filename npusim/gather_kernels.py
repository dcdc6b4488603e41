"""Cycles and counts of selective grad_weight tiles: element-gather output stationary, and weight stationary by union.

Masks, tiles and results as in `npusim.reduction_kernels`: `bits` uint8 [K, C*taps], ranges of rows and columns,
reduction lengths in `terms`, `span` rows per group; every call returns int64 [row tiles, column tiles, terms, fields].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim._mask_kernels import find_live_rows
from npusim.jit import njit

# One column per field of gather_grid.
GATHER_FIELDS = (
    "cycles",
    "folds",
    "decode_cycles",  # index registers of the first fold; those of later folds are loaded while the array works
    "conflict_cycles",  # streaming stretched because one bank of buffer B holds too many of a fold's columns
    "a_words",
    "b_words",
    "bus_words",  # X words times the rows that they pass on the bus
    "macs",
    "selected",
    "scan_bits",
)


class GatherArray(NamedTuple):
    """Output-stationary rows x columns whose PEs pick one of `width` X words; `banks` of `bank_words` words each."""

    rows: int
    columns: int
    width: int
    banks: int
    bank_words: int
    overlap: bool


@njit
def block_parts(live, span):
    """Where the rows of each group begin in `live`, and where the last ends: int64 [groups + 1]."""
    parts = np.zeros(live.size + 1, np.int64)
    groups = 0
    for k in range(1, live.size + 1):
        if k == live.size or (span and live[k] // span != live[k - 1] // span):
            groups += 1
            parts[groups] = k
    return parts[: groups + 1]


@njit
def gather_fold_end(bits, live, parts, first, width, begin, array, counts, banks):
    """The position after the fold that begins at `begin`, and the live columns in it; fills `counts` and `banks`.

    Positions count the columns first..first + width of every group of the block (`parts` from block_parts), group
    after group. A fold takes them in order until a row would need more than `columns` PEs or the network more than
    `width` words.
    """
    counts[: live.size] = 0
    banks[:] = 0
    taken = 0
    end = (parts.size - 1) * width
    for position in range(begin, end):
        group, col = divmod(position, width)
        hit, full = False, False
        for k in range(parts[group], parts[group + 1]):
            if bits[live[k], first + col]:
                hit = True
                full = full or counts[k] == array.columns
        if full or (hit and taken == array.width):
            return position, taken
        if hit:
            for k in range(parts[group], parts[group + 1]):
                counts[k] += bits[live[k], first + col]
            banks[(first + position) % array.banks] += 1
            taken += 1
    return end, taken


@njit
def _gather_tile(bits, rows_live, first, width, terms, array, span, cell, counts, banks):
    """One tile: live rows taken array.rows at a time, columns first..first + width of their groups cut into folds."""
    tail, interval, folds = np.int64(0), np.int64(0), np.int64(0)
    for block in range(0, rows_live.size, array.rows):
        live = rows_live[block : block + array.rows]
        height, parts, position = live.size, block_parts(live, span), 0
        while position < (parts.size - 1) * width:
            position, taken = gather_fold_end(bits, live, parts, first, width, position, array, counts, banks)
            if taken == 0:
                break
            widest = counts[:height].max()
            load = banks.max()
            length = terms
            if load > array.bank_words:
                length = (terms + array.bank_words - 1) // array.bank_words * load
            if folds == 0:
                cell[0] += widest
                cell[2] += widest
            elif array.overlap:
                # The former fold has run by now: its interval also covers the decoding of this one.
                cell[0] += max(interval, widest) - interval
            cell[3] += length - terms
            if array.overlap:
                interval = max(length, array.rows)
                cell[0] += interval
                tail = max(widest, tail - interval)
            else:
                cell[0] += length + 2 * array.rows - 2 + widest
            folds += 1
            busy = np.int64(0)
            for k in range(height):
                busy += counts[k] > 0
            cell[4] += busy * terms
            cell[5] += taken * terms
            cell[6] += taken * height * terms
            cell[8] += counts[:height].sum()
            if array.overlap and folds == 1:
                single = length
    if array.overlap and folds:
        cell[0] += 2 * array.rows - 2 + tail
        if folds == 1:
            cell[0] += single - interval
    cell[1] += folds
    cell[7] = cell[8] * terms


@njit
def gather_grid(bits, row_start, row_size, col_start, col_size, terms, array, span=0):
    """Tiles on the element-gather array: int64 [row tiles, column tiles, terms, GATHER_FIELDS]."""
    out = np.zeros((row_start.size, col_start.size, terms.size, 10), np.int64)
    live = np.empty(bits.shape[0], np.int64)
    counts = np.empty(array.rows, np.int64)
    banks = np.empty(array.banks, np.int64)
    for i in range(row_start.size):
        for j in range(col_start.size):
            first, width = col_start[j], col_size[j]
            found = find_live_rows(bits, row_start[i], row_size[i], first, width, live)
            for t in range(terms.size):
                _gather_tile(bits, live[:found], first, width, terms[t], array, span, out[i, j, t], counts, banks)
            out[i, j, :, 9] = row_size[i] * col_size[j]
    return out


# One column per field of union_grid.
UNION_FIELDS = (
    "cycles", "folds", "a_words", "b_words", "mac_slots", "macs", "updates", "selected", "scan_bits", "idle_slots",
)  # fmt: skip


@njit
def union_grid(bits, row_start, row_size, col_start, col_size, terms, rows, columns, overlap, span=0):
    """dY held, live columns streamed: int64 [row tiles, column tiles, terms, UNION_FIELDS].

    The tile's live rows (output channels) are held `columns` at a time, `rows` pixels at a time; the columns that any
    of the held rows selects stream through, those of one group after those of another. Row blocks outer, pixel blocks
    inner. idle_slots: PE cycles with operands of two groups.
    """
    out = np.zeros((row_start.size, col_start.size, terms.size, len(UNION_FIELDS)), np.int64)
    live = np.empty(bits.shape[0], np.int64)
    for i in range(row_start.size):
        for j in range(col_start.size):
            first, width = col_start[j], col_size[j]
            found = find_live_rows(bits, row_start[i], row_size[i], first, width, live)
            tail = np.zeros(terms.size, np.int64)
            saved = np.zeros(terms.size, np.int64)
            for block in range(0, found, columns):
                held = min(columns, found - block)
                streamed, selected, wanted = np.int64(0), np.int64(0), np.int64(0)
                parts = block_parts(live[block : block + held], span)
                for group in range(parts.size - 1):
                    members = live[block + parts[group] : block + parts[group + 1]]
                    for col in range(first, first + width):
                        count = np.int64(0)
                        for row in members:
                            count += bits[row, col]
                        streamed += count > 0
                        wanted += (count > 0) * members.size
                        selected += count
                for t in range(terms.size):
                    cell, folds = out[i, j, t], (terms[t] + rows - 1) // rows
                    interval = max(streamed, rows)
                    if overlap:
                        cell[0] += folds * interval
                        tail[t] = max(held, tail[t] - folds * interval)
                        saved[t] = interval - streamed
                    else:
                        cell[0] += folds * (streamed + 2 * rows - 2 + held)
                    cell[1] += folds
                    cell[2] += held * terms[t]
                    cell[3] += streamed * terms[t]
                    cell[4] += wanted * terms[t]
                    cell[9] += (held * streamed - wanted) * terms[t]
                    cell[5] += selected * terms[t]
                    cell[6] += selected * folds
                    cell[7] += selected
            for t in range(terms.size):
                if overlap and found:
                    # The last fold ends with its own stream; no preload follows it.
                    out[i, j, t, 0] += 2 * rows - 2 + tail[t] - saved[t]
                out[i, j, t, 8] = row_size[i] * width
    return out
