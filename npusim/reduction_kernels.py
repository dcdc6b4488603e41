"""Cycles and counts of selective grad_weight tiles, from the mask itself.

dW[K, C*R*S] = dY[K, T] . im2col(X)^T[T, C*R*S]. `bits` is the mask, uint8 [K, C*R*S] of 0 and 1: rows are the
output channels, columns are channel-major (c, r, s). A tile is a range of rows x a range of columns;
one call evaluates every tile of a grid for every reduction length in `terms`, and returns
int64 [row tiles, column tiles, terms, fields]. A tile with no selected element is all zeros, except for `scan_bits`.

Groups of a convolution: `span` rows make a group (0: all rows do), and the columns of a row are those of its own group.

`reduction_grid` is the reduction-spatial array (adder tree), the others are the output-stationary array; rtl/README.md
describes both machines and tests/rtl holds these kernels to their RTL, cycle by cycle.

Index lists (live rows, live columns) are taken as given when a tile starts: they are built while the mask arrives.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim._mask_kernels import find_live_rows
from npusim.jit import njit


class ReductionArray(NamedTuple):
    """The reduction-spatial array: `groups` adder trees of `group` PEs (a power of two) with `registers` dY words each.

    Port A loads dY, port B loads X; widths in bytes per cycle. Only the ratios of the last three matter: for operands
    that are not whole bytes, give all three in bits.
    """

    group: int
    groups: int
    registers: int
    operand_bytes: int
    port_a_bytes: int
    port_b_bytes: int


# One column per field of reduction_grid. cycles = preload + load_wait + walk + latency.
REDUCTION_FIELDS = (
    "cycles",
    "preload_cycles",  # dY into the register files, nothing else runs
    "load_wait_cycles",  # groups wait for X: the first batch of a pass, then what a walk does not hide
    "walk_cycles",  # sum over batches of the largest number of selected elements in one group
    "latency_cycles",  # multiplier + adder tree + accumulator, drained once per pass
    "passes",  # (block of F live rows, chunk of g terms) pairs
    "dy_words",  # read from buffer A
    "x_words",  # read from buffer B
    "mask_bits",  # mask words fetched by the groups, one per live column and pass
    "scan_bits",  # the tile's mask, read once to list live rows and columns
    "decoded_indices",  # priority encodings: selected elements times chunks; also accumulator read-modify-writes
    "macs",  # selected elements times terms
    "tree_adds",  # adders with two live operands
    "selected",  # elements of dW that are computed: result writes
)

# One column per field of the output-stationary grids.
FOLD_FIELDS = (
    "folds",
    "sum_rows",  # live array rows, summed over folds; times terms: dY words read
    "sum_columns",  # live array columns, summed over folds; times terms: X words read
    "last_columns",  # as array.output_stationary wants it with overlap: see array.tail_columns
    "mac_slots",  # PE cycles with two operands: sum of rows * columns over folds, times terms
    "macs",  # of these, for selected elements
    "selected",  # result writes
    "scan_bits",  # mask bits read to decide what is live
    "idle_slots",  # PE cycles with operands of two groups: neither summed nor in mac_slots
)


@njit
def group_end(row, end, span):
    """The row after the last of `row`'s group, at most `end`."""
    return min(end, (row // span + 1) * span) if span else end


@njit
def _batch_steps(counts, live, groups, steps):
    """Batches of `groups` of the `live` counts: how many; `steps` (may be `counts`) gets each batch's largest."""
    batches = (live + groups - 1) // groups
    for batch in range(batches):
        largest = counts[batch * groups]
        for i in range(batch * groups + 1, min(live, (batch + 1) * groups)):
            largest = max(largest, counts[i])
        steps[batch] = largest
    return batches


@njit
def _column_counts(bits, rows, first, width, span, scratch, counts):
    """Selected elements of the live columns of `rows`, group after group, into `counts`.

    (live columns, selected elements, mask bits: live columns of each group times its rows)
    """
    live, selected, fetched = 0, 0, 0
    begin = 0
    while begin < rows.size:
        end = rows.size if span == 0 else begin + 1
        while end < rows.size and rows[end] // span == rows[begin] // span:
            end += 1
        scratch[:width] = 0
        for k in range(begin, end):
            row = bits[rows[k]]
            for col in range(width):
                scratch[col] += row[first + col]
        before = live
        for col in range(width):
            # Without a branch: about half of the columns of a sparse block are live, in no order.
            counts[live] = scratch[col]
            selected += scratch[col]
            live += scratch[col] > 0
        fetched += (live - before) * (end - begin)
        begin = end
    return live, selected, fetched


@njit
def log2(value):
    bits = 0
    while value > 1:
        value >>= 1
        bits += 1
    return bits


@njit
def _add_passes(out, times, chunk, block_rows, live, selected, fetched, steps, batches, array):
    """Add `times` equal passes of one block over chunks of `chunk` terms to `out`."""
    preload = (block_rows * chunk * array.operand_bytes + array.port_a_bytes - 1) // array.port_a_bytes
    full = (array.groups * chunk * array.operand_bytes + array.port_b_bytes - 1) // array.port_b_bytes
    tail = live - (batches - 1) * array.groups
    last = (tail * chunk * array.operand_bytes + array.port_b_bytes - 1) // array.port_b_bytes
    wait = full if batches > 1 else last
    walk = 0
    for batch in range(batches):
        walk += steps[batch]
        if batch + 1 < batches:
            load = full if batch + 2 < batches else last
            wait += max(0, load - steps[batch])
    latency = 2 + log2(array.group)
    out[0] += times * (preload + wait + walk + latency)
    out[1] += times * preload
    out[2] += times * wait
    out[3] += times * walk
    out[4] += times * latency
    out[5] += times
    out[6] += times * block_rows * chunk
    out[7] += times * live * chunk
    out[8] += times * fetched
    out[10] += times * selected
    out[11] += times * selected * chunk
    out[12] += times * selected * (chunk - 1)


@njit
def reduction_grids(bits, row_start, row_size, col_start, col_size, terms, arrays, span=0):
    """Tiles on reduction-spatial arrays: int64 [arrays, row tiles, column tiles, terms, REDUCTION_FIELDS].

    `arrays`: ways to group the PEs of one machine, with the same registers, each with a multiple of the groups of the
    one before. The tile's live rows are cut into blocks of
    `registers`; every block makes one pass per chunk of `group` terms. A pass preloads dY, then takes the block's live
    columns (of a grouped convolution: those of all its groups, each met by its own group's rows) `groups` at a time:
    while the groups walk the selected elements of one batch, the X words of the next are loaded.
    """
    out = np.zeros((len(arrays), row_start.size, col_start.size, terms.size, 14), np.int64)
    live_rows = np.empty(bits.shape[0], np.int64)
    registers = arrays[0].registers
    longest = bits.shape[1] * (min(registers, bits.shape[0] // span) if span else 1)
    scratch = np.empty(bits.shape[1], np.int16)
    counts = np.empty(longest + 1, np.int16)
    for i in range(row_start.size):
        for j in range(col_start.size):
            first, width = col_start[j], col_size[j]
            found = find_live_rows(bits, row_start[i], row_size[i], first, width, live_rows)
            out[:, i, j, :, 9] = row_size[i] * width
            for block in range(0, found, registers):
                rows = live_rows[block : min(block + registers, found)]
                live, selected, fetched = _column_counts(bits, rows, first, width, span, scratch, counts)
                batches, joined = live, 1
                for a in range(len(arrays)):
                    array = arrays[a]
                    # Batches of the array before are put together: this one has a multiple of its groups.
                    batches = _batch_steps(counts, batches, array.groups // joined, counts)
                    joined = array.groups
                    for t in range(terms.size):
                        chunks, rest = divmod(terms[t], array.group)
                        cell, size = out[a, i, j, t], rows.size
                        cell[13] += selected
                        if chunks:
                            _add_passes(
                                cell, chunks, array.group, size, live, selected, fetched, counts, batches, array
                            )
                        if rest:
                            _add_passes(cell, 1, rest, size, live, selected, fetched, counts, batches, array)
    return out


@njit
def reduction_grid(bits, row_start, row_size, col_start, col_size, terms, array, span=0):
    """`reduction_grids` of one array: int64 [row tiles, column tiles, terms, REDUCTION_FIELDS]."""
    return reduction_grids(bits, row_start, row_size, col_start, col_size, terms, (array,), span)[0]


@njit
def _add_folds(cell, folds, block_rows, width, last_width, terms, rows):
    """Append `folds` folds of `block_rows` live rows to a tile: all `width` columns wide but the last of them."""
    interval = max(terms, rows)
    cell[0] += folds
    cell[1] += folds * block_rows
    cell[2] += (folds - 1) * width + last_width
    cell[4] += block_rows * ((folds - 1) * width + last_width) * terms
    if folds > 1:
        cell[3] = max(width, cell[3] - (folds - 1) * interval)
    cell[3] = max(last_width, cell[3] - interval)


@njit
def _count(bits, row_start, row_size, col_start, col_size):
    total = np.int64(0)
    for row in range(row_start, row_start + row_size):
        part = np.int64(0)
        for col in range(col_start, col_start + col_size):
            part += bits[row, col]
        total += part
    return total


@njit
def _finish_tile(cells, selected, scan_bits, terms):
    for t in range(terms.size):
        cells[t, 5] = selected * terms[t]
        cells[t, 6] = selected
        cells[t, 7] = scan_bits


@njit
def tile_skip_grid(bits, row_start, row_size, col_start, col_size, terms, rows, columns):
    """Output stationary, skipping R x C blocks without a selected element: int64 [.., .., terms, FOLD_FIELDS].

    Row blocks outer, column blocks inner. An all-ones mask gives the dense tile.
    """
    out = np.zeros((row_start.size, col_start.size, terms.size, len(FOLD_FIELDS)), np.int64)
    for i in range(row_start.size):
        for j in range(col_start.size):
            selected = 0
            for row in range(row_start[i], row_start[i] + row_size[i], rows):
                block_rows = min(rows, row_start[i] + row_size[i] - row)
                for col in range(col_start[j], col_start[j] + col_size[j], columns):
                    width = min(columns, col_start[j] + col_size[j] - col)
                    count = _count(bits, row, block_rows, col, width)
                    selected += count
                    if count:
                        for t in range(terms.size):
                            _add_folds(out[i, j, t], 1, block_rows, width, width, terms[t], rows)
            _finish_tile(out[i, j], selected, row_size[i] * col_size[j], terms)
    return out


@njit
def row_compaction_grid(bits, row_start, row_size, col_start, col_size, terms, rows, columns, span=0):
    """Output stationary with compacted rows (selective-row): int64 [row tiles, column tiles, terms, FOLD_FIELDS].

    For each block of `columns` columns of a group, the rows of the tile with a selected element there are packed into
    ceil(live / rows) folds.
    """
    out = np.zeros((row_start.size, col_start.size, terms.size, len(FOLD_FIELDS)), np.int64)
    live_rows = np.empty(bits.shape[0], np.int64)
    for i in range(row_start.size):
        for j in range(col_start.size):
            row, end = row_start[i], row_start[i] + row_size[i]
            while row < end:
                stop = group_end(row, end, span)
                for col in range(col_start[j], col_start[j] + col_size[j], columns):
                    width = min(columns, col_start[j] + col_size[j] - col)
                    live = find_live_rows(bits, row, stop - row, col, width, live_rows)
                    full, rest = divmod(live, rows)
                    for t in range(terms.size):
                        if full:
                            _add_folds(out[i, j, t], full, rows, width, width, terms[t], rows)
                        if rest:
                            _add_folds(out[i, j, t], 1, rest, width, width, terms[t], rows)
                row = stop
            selected = _count(bits, row_start[i], row_size[i], col_start[j], col_size[j])
            _finish_tile(out[i, j], selected, row_size[i] * col_size[j], terms)
    return out


@njit
def live_columns(bits, row, end, first, width, taps, any_bit):
    """Marks in `any_bit` the columns of channels of `taps` columns with a selected element in the rows; how many.

    Channels are counted from column 0 of `bits`; columns first..first + width that cut a channel hold a part of it.
    """
    any_bit[:width] = 0
    for k in range(row, end):
        for col in range(width):
            any_bit[col] |= bits[k, first + col]
    live = 0
    col = 0
    while col < width:
        stop = min(width, ((first + col) // taps + 1) * taps - first)
        if any_bit[col:stop].any():
            any_bit[col:stop] = 1
            live += stop - col
        col = stop
    return live


@njit
def channel_compaction_grid(bits, row_start, row_size, col_start, col_size, terms, rows, columns, taps, span=0):
    """Output stationary with compacted columns (channel-skip): int64 [row tiles, column tiles, terms, FOLD_FIELDS].

    For each block of `rows` rows, an input channel is live when any of its `taps` columns has a selected element in
    those rows; the columns of live channels are packed into ceil(live columns / columns) folds. Channels are
    counted from column 0 of `bits`; a tile that cuts a channel holds only a part of its columns. A block of rows of
    several groups packs the columns of all of them, each of which only the rows of its group want.
    """
    out = np.zeros((row_start.size, col_start.size, terms.size, len(FOLD_FIELDS)), np.int64)
    any_bit = np.empty(bits.shape[1], np.uint8)
    for i in range(row_start.size):
        for j in range(col_start.size):
            first, width = col_start[j], col_size[j]
            for row in range(row_start[i], row_start[i] + row_size[i], rows):
                block_rows = min(rows, row_start[i] + row_size[i] - row)
                live, wanted, begin = 0, 0, row
                while begin < row + block_rows:
                    end = group_end(begin, row + block_rows, span)
                    found = live_columns(bits, begin, end, first, width, taps, any_bit)
                    live += found
                    wanted += found * (end - begin)
                    begin = end
                if live:
                    folds = (live + columns - 1) // columns
                    last = live - (folds - 1) * columns
                    for t in range(terms.size):
                        _add_folds(out[i, j, t], folds, block_rows, columns, last, terms[t], rows)
                        idle = (block_rows * live - wanted) * terms[t]
                        out[i, j, t, 4] -= idle
                        out[i, j, t, 8] += idle
            selected = _count(bits, row_start[i], row_size[i], first, width)
            _finish_tile(out[i, j], selected, row_size[i] * width, terms)
    return out
