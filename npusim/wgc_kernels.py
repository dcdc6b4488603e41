"""Cycles and counts of selective grad_weight tiles on the reduction-window array.

Masks, tiles and results as in `npusim.reduction_kernels`: `bits` uint8 [K, C*taps], ranges of rows and columns,
reduction lengths in `terms`, `span` rows per group; every call returns
int64 [row tiles, column tiles, terms, fields]. What the machine does is written in `dataflows/reduction_window.py`;
`npusim.functional` executes the same schedule on numbers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim._mask_kernels import find_live_rows
from npusim.jit import njit
from npusim.reduction_kernels import log2


class WindowArray(NamedTuple):
    """The reduction-window array: `pes` (a power of two) in groups of `smallest` PEs or more, `registers` dY words.

    Port A loads dY, port B loads X, bytes per cycle; `max_sharing` groups at most take the same X words.
    """

    pes: int
    smallest: int
    max_sharing: int
    registers: int
    operand_bytes: int
    port_a_bytes: int
    port_b_bytes: int


# One column per field of window_grid. cycles = preload + load_wait + walk + imbalance + latency.
WINDOW_FIELDS = (
    "cycles",
    "preload_cycles",  # dY into the register files
    "load_wait_cycles",  # the busiest group waits for X words
    "walk_cycles",  # selected elements over groups, rounded down
    "imbalance_cycles",  # the busiest group has more elements than that
    "latency_cycles",  # multiplier + adder tree + accumulator, once per pass
    "passes",
    "dy_words",  # read from buffer A
    "x_words",  # read from buffer B
    "mask_bits",  # mask words fetched by the groups
    "scan_bits",  # the tile's mask, read once to list live rows and lines
    "decoded_indices",  # selected elements times chunks; also accumulator read-modify-writes
    "macs",
    "tree_adds",
    "selected",
)
WINDOW = len(WINDOW_FIELDS)


class BlockLines(NamedTuple):
    """A tile's selected elements, by block of live rows and line.

    work     int32 [blocks, lines]: selected elements; lines of one group follow those of the group before
    rows     int64 [blocks]: live rows
    members  int64 [blocks, groups]: live rows of each group, which are those that meet its lines
    bounds   int64 [blocks, 2]: first line of the block's groups, and the one after the last
    totals   int64 [blocks, 2]: selected elements, and lines with one
    """

    work: np.ndarray
    rows: np.ndarray
    members: np.ndarray
    bounds: np.ndarray
    totals: np.ndarray


@njit
def live_lines(bits, row_start, row_size, col_start, col_size, taps, lines, registers, span=0):
    """The BlockLines of a tile.

    Live rows are dealt in order to the fewest blocks of at most `registers` rows, sizes as equal as can be. Column
    ranges start at a channel; line `lines[tap]` of a channel follows those of the channel before.
    """
    live = np.empty(row_size, np.int64)
    found = find_live_rows(bits, row_start, row_size, col_start, col_size, live)
    blocks = (found + registers - 1) // registers
    channels, per_channel = col_size // taps, lines.max() + 1
    per_group = channels * per_channel
    before = row_start // span if span else 0
    groups = (row_start + row_size - 1) // span - before + 1 if span else 1
    work = np.zeros((blocks, groups * per_group), np.int32)
    rows = np.zeros(blocks, np.int64)
    members = np.zeros((blocks, groups), np.int64)
    bounds = np.zeros((blocks, 2), np.int64)
    totals = np.zeros((blocks, 2), np.int64)
    for block in range(blocks):
        first, end = block * found // blocks, (block + 1) * found // blocks
        rows[block] = end - first
        for k in range(first, end):
            group = live[k] // span - before if span else 0
            members[block, group] += 1
            bounds[block, 1] = (group + 1) * per_group
            if k == first:
                bounds[block, 0] = group * per_group
            row, counts = bits[live[k]], work[block, group * per_group : (group + 1) * per_group]
            for tap in range(taps):
                line = lines[tap]
                for channel in range(channels):
                    counts[channel * per_channel + line] += row[col_start + channel * taps + tap]
        for line in range(bounds[block, 0], bounds[block, 1]):
            totals[block, 0] += work[block, line]
            totals[block, 1] += work[block, line] > 0
    return BlockLines(work, rows, members, bounds, totals)


@njit
def window_pass(tile, first, sharing, columns, words, preload, array, cell):
    """Add one pass over all lines to `cell` (without latency); rows that meet loaded lines, summed over those lines.

    Row blocks first..first+sharing-1 share X; `columns` such sets of groups take the lines in order, each line going to
    the set whose X register was freed first (of equals, whose other one is free first). A line is `words` X words. A
    group walks its selected elements of a line, one per cycle, while its set's other X register is refilled through
    the port.
    """
    finish = np.full((columns, sharing), preload, np.int64)
    free = np.zeros((columns, 2), np.int64)
    total = np.zeros((columns, sharing), np.int64)
    port = np.int64(0)
    loaded, met = np.int64(0), np.int64(0)
    work, per_group = tile.work, tile.work.shape[1] // tile.members.shape[1]
    for line in range(tile.bounds[first, 0], tile.bounds[first + sharing - 1, 1]):
        live = np.int64(0)
        for i in range(sharing):
            live += work[first + i, line]
        if live == 0:
            continue
        taken = 0
        for c in range(1, columns):
            earlier = free[c, 0] < free[taken, 0]
            if earlier or (free[c, 0] == free[taken, 0] and free[c, 1] < free[taken, 1]):
                taken = c
        port = max(port, free[taken, 0] * array.port_b_bytes) + words * array.operand_bytes
        arrived = (port + array.port_b_bytes - 1) // array.port_b_bytes
        released = np.int64(0)
        for i in range(sharing):
            finish[taken, i] = max(finish[taken, i], arrived) + work[first + i, line]
            released = max(released, finish[taken, i])
            total[taken, i] += work[first + i, line]
        free[taken, 0] = free[taken, 1]
        free[taken, 1] = released
        loaded += 1
        for i in range(sharing):
            met += tile.members[first + i, line // per_group]
    end, busiest = finish.max(), total.max()
    mean = total.sum() // total.size
    cell[0] += end
    cell[1] += preload
    cell[2] += end - preload - busiest
    cell[3] += mean
    cell[4] += busiest - mean
    cell[6] += 1
    cell[8] += loaded * words
    return met


@njit
def _chunk(tile, group, sharing, terms, taps, per_channel, halo, array, cell):
    """Fill `cell` with the passes of all blocks over one chunk of `terms` pixels in groups of `group` PEs."""
    cell[:] = 0
    columns = array.pes // (group * sharing)
    for first in range(0, tile.rows.size, sharing):
        joined = min(sharing, tile.rows.size - first)
        held = tile.rows[first : first + joined].sum()
        preload = (held * terms * array.operand_bytes + array.port_a_bytes - 1) // array.port_a_bytes
        met = window_pass(tile, first, joined, columns, terms + halo, preload, array, cell)
        latency = 2 + log2(group)
        cell[0] += latency
        cell[5] += latency
        cell[7] += held * terms
        cell[9] += met * taps // per_channel
    selected = tile.totals[:, 0].sum()
    cell[11] = selected
    cell[12] = selected * terms
    cell[13] = selected * (terms - 1)


@njit
def _least_cycles(tile, group, sharing, terms, halo, array):
    """Cycles that `_chunk` cannot stay below: dY, then the fullest block's elements over its groups; or X words."""
    columns = array.pes // (group * sharing)
    cycles = np.int64(0)
    for first in range(0, tile.rows.size, sharing):
        held, elements, lines = np.int64(0), np.int64(0), np.int64(0)
        for block in range(first, min(first + sharing, tile.rows.size)):
            held += tile.rows[block]
            elements = max(elements, tile.totals[block, 0])
            lines = max(lines, tile.totals[block, 1])
        preload = (held * terms * array.operand_bytes + array.port_a_bytes - 1) // array.port_a_bytes
        x_bytes = lines * (terms + halo) * array.operand_bytes
        walk = preload + (elements + columns - 1) // columns
        cycles += max(walk, (x_bytes + array.port_b_bytes - 1) // array.port_b_bytes) + 2 + log2(group)
    return cycles


@njit
def _best_chunk(tile, group, terms, taps, per_channel, halo, array, limit, best, other):
    """As _chunk, with the number of groups that share X which takes the fewest cycles; that number.

    Ways that cannot take `limit` cycles or fewer are not tried (limit < 0: no limit); 0 when none is left.
    """
    chosen, sharing = 0, 1
    while sharing == 1 or (sharing <= min(array.pes // group, array.max_sharing) and sharing < 2 * tile.rows.size):
        least = _least_cycles(tile, group, sharing, terms, halo, array)
        if (limit < 0 or least <= limit) and (chosen == 0 or least < best[0]):
            _chunk(tile, group, sharing, terms, taps, per_channel, halo, array, other)
            if chosen == 0 or other[0] < best[0]:
                best[:] = other
                chosen = sharing
        sharing *= 2
    return chosen


@njit
def window_plan(tile, terms, taps, per_channel, halo, array, full, part):
    """How T = `terms` is cut into chunks: int64 [levels, 4] of (group, sharing, chunks, sharing of the partial chunk).

    Level l has groups of pes >> l PEs. `full` [levels, fields] gets the cost of a whole chunk and `part` that of the
    last, partial one (terms mod group). Rows with chunks = 0 and sharing of the partial chunk = 0 are not used.
    Of all ways that take whole chunks of falling size and at most one partial chunk at the end, the one with the
    fewest cycles.
    """
    levels = 1
    while array.pes >> levels >= array.smallest:
        levels += 1
    plan = np.zeros((levels, 4), np.int64)
    rest_cycles = np.zeros(levels + 1, np.int64)
    ends = np.zeros(levels, np.bool_)
    other = np.empty(WINDOW, np.int64)
    for level in range(levels - 1, -1, -1):
        group = array.pes >> level
        plan[level, 0] = group
        rest = terms % group
        if rest == 0:
            continue
        # What the levels below make of the same rest: a whole chunk of half the size if it fits, then their own rest.
        below = np.int64(-1)
        if level + 1 < levels:
            below = rest_cycles[level + 1]
            if rest >= group >> 1:
                if plan[level + 1, 1] == 0:
                    half = group >> 1
                    plan[level + 1, 1] = _best_chunk(
                        tile, half, half, taps, per_channel, halo, array, -1, full[level + 1], other
                    )
                below += full[level + 1, 0]
        plan[level, 3] = _best_chunk(tile, group, rest, taps, per_channel, halo, array, below, part[level], other)
        ends[level] = plan[level, 3] > 0 and (below < 0 or part[level, 0] <= below)
        rest_cycles[level] = part[level, 0] if ends[level] else below
    start, cheapest = -1, np.int64(-1)
    for level in range(levels):
        group = array.pes >> level
        chunks = terms // group
        if chunks and plan[level, 1] == 0:
            limit = (cheapest - rest_cycles[level]) // chunks if start >= 0 else np.int64(-1)
            if start >= 0 and limit < 0:
                continue
            plan[level, 1] = _best_chunk(tile, group, group, taps, per_channel, halo, array, limit, full[level], other)
            if plan[level, 1] == 0:
                continue
        cycles = chunks * full[level, 0] + rest_cycles[level]
        if start < 0 or cycles < cheapest:
            start, cheapest = level, cycles
    left = terms
    for level in range(levels):
        group = array.pes >> level
        if level < start or left == 0:
            plan[level, 2] = plan[level, 3] = 0
            continue
        plan[level, 2] = left // group
        left %= group
        if left and ends[level]:
            left = 0
        else:
            plan[level, 3] = 0
    return plan


@njit
def window_grid(bits, row_start, row_size, col_start, col_size, terms, taps, lines, halo, array, span=0):
    """Tiles on the reduction-window array: int64 [row tiles, column tiles, terms, WINDOW_FIELDS]."""
    out = np.zeros((row_start.size, col_start.size, terms.size, WINDOW), np.int64)
    full = np.zeros((64, WINDOW), np.int64)
    part = np.zeros((64, WINDOW), np.int64)
    per_channel = lines.max() + 1
    for i in range(row_start.size):
        for j in range(col_start.size):
            tile = live_lines(
                bits, row_start[i], row_size[i], col_start[j], col_size[j], taps, lines, array.registers, span
            )
            out[i, j, :, 10] = row_size[i] * col_size[j]
            if tile.rows.size == 0:
                continue
            for t in range(terms.size):
                cell = out[i, j, t]
                scan = cell[10]
                full[:] = 0
                part[:] = 0
                plan = window_plan(tile, terms[t], taps, per_channel, halo, array, full, part)
                for level in range(plan.shape[0]):
                    if plan[level, 2]:
                        cell += plan[level, 2] * full[level]
                    if plan[level, 3]:
                        cell += part[level]
                cell[10] = scan
                cell[14] = tile.totals[:, 0].sum()
    return out
