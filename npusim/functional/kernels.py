"""Tiles of selective grad_weight executed on numbers, one kernel per schedule. Arrays and scalars only.

bits   uint8 [K, C/G*taps], the mask; dy float32 [K, T]; x float32 [C*taps, T], im2col of the input
span   rows of one group: column `col` of row `row` meets x[row // span * C/G*taps + col]
where  (row_start, row_size, column_start, column_size) of the tile; pixels int64[], the tile's columns of dy and x
sums   float32 [K, C*taps], the accumulators; tally int64 [K, C*taps], terms summed into each
Every kernel returns (MACs done, MAC slots gated) of the tile and touches only sums of selected elements.
"""

from __future__ import annotations

import numpy as np

from npusim.gather_kernels import block_parts, gather_fold_end
from npusim.jit import njit
from npusim.reduction_kernels import group_end, live_columns
from npusim.wgc_kernels import live_lines, window_plan


@njit
def live_rows(bits, where):
    """Rows of the tile with a selected element, in order."""
    row_start, row_size, col_start, col_size = where
    found = np.empty(row_size, np.int64)
    n = 0
    for row in range(row_start, row_start + row_size):
        if bits[row, col_start : col_start + col_size].any():
            found[n] = row
            n += 1
    return found[:n]


@njit
def _dot(dy, words, row, pixels, first, end):
    """Terms in pixel order in single precision, as a PE accumulates them; `words` is the row of x that it meets."""
    total = np.float32(0)
    for i in range(first, end):
        total += dy[row, pixels[i]] * words[pixels[i]]
    return total


@njit
def fold(bits, dy, x, rows, columns, pixels, sums, tally, span):
    """One output-stationary fold: every PE sums its element over all pixels; PEs of unselected elements are gated.

    `columns` are rows of x. A PE whose column is of another group than its row is idle.
    """
    done, met = np.int64(0), np.int64(0)
    width = bits.shape[1]
    for row in rows:
        for column in columns:
            group, col = divmod(column, width)
            if group != row // span:
                continue
            met += 1
            if bits[row, col]:
                sums[row, col] += _dot(dy, x[column], row, pixels, 0, pixels.size)
                tally[row, col] += pixels.size
                done += 1
    return done * pixels.size, (met - done) * pixels.size


@njit
def packed_rows(bits, dy, x, where, pixels, sums, tally, span, rows, width):
    """Group by group, column blocks of `width`; for each, the rows with a selected element there, `rows` at a time."""
    row_start, row_size, col_start, col_size = where
    done, gated = np.int64(0), np.int64(0)
    row, end = row_start, row_start + row_size
    while row < end:
        stop = group_end(row, end, span)
        base = row // span * bits.shape[1]
        for col in range(col_start, col_start + col_size, width):
            size = min(width, col_start + col_size - col)
            live = live_rows(bits, (row, stop - row, col, size))
            columns = np.arange(base + col, base + col + size)
            for first in range(0, live.size, rows):
                one = fold(bits, dy, x, live[first : first + rows], columns, pixels, sums, tally, span)
                done += one[0]
                gated += one[1]
        row = stop
    return done, gated


@njit
def packed_columns(bits, dy, x, where, pixels, sums, tally, span, rows, columns, taps):
    """Row blocks of `rows`; for each, the columns of channels of `taps` columns with a selected element, packed."""
    row_start, row_size, col_start, col_size = where
    done, gated = np.int64(0), np.int64(0)
    live = np.empty(rows * col_size, np.int64)
    any_bit = np.empty(col_size, np.uint8)
    for row in range(row_start, row_start + row_size, rows):
        end = min(row + rows, row_start + row_size)
        n, begin = 0, row
        while begin < end:
            stop = group_end(begin, end, span)
            live_columns(bits, begin, stop, col_start, col_size, taps, any_bit)
            for col in range(col_size):
                if any_bit[col]:
                    live[n] = begin // span * bits.shape[1] + col_start + col
                    n += 1
            begin = stop
        for first in range(0, n, columns):
            packed = live[first : min(first + columns, n)]
            one = fold(bits, dy, x, np.arange(row, end), packed, pixels, sums, tally, span)
            done += one[0]
            gated += one[1]
    return done, gated


@njit
def gathered(bits, dy, x, where, pixels, sums, tally, span, array):
    """Folds of the gather array: PE j of a row takes the row's j-th selected column of the fold from the bus."""
    live = live_rows(bits, where)
    first, width = where[2], where[3]
    counts, banks = np.empty(array.rows, np.int64), np.empty(array.banks, np.int64)
    index = np.empty(array.columns, np.int64)
    done = np.int64(0)
    for block in range(0, live.size, array.rows):
        rows = live[block : block + array.rows]
        parts, position = block_parts(rows, span), 0
        while position < (parts.size - 1) * width:
            begin = position
            position, taken = gather_fold_end(bits, rows, parts, first, width, begin, array, counts, banks)
            if taken == 0:
                break
            for group in range(parts.size - 1):
                for k in range(parts[group], parts[group + 1]):
                    row, n = rows[k], 0
                    for place in range(max(begin, group * width), min(position, (group + 1) * width)):
                        if bits[row, first + place - group * width]:
                            index[n] = first + place - group * width
                            n += 1
                    for j in range(n):
                        words = x[row // span * bits.shape[1] + index[j]]
                        sums[row, index[j]] += _dot(dy, words, row, pixels, 0, pixels.size)
                        tally[row, index[j]] += pixels.size
                    done += n
    return done * pixels.size, np.int64(0)


@njit
def held_dy(bits, dy, x, where, pixels, sums, tally, span, rows, columns):
    """dY of `columns` live rows x `rows` pixels is held, the union of their columns streams, group after group."""
    live = live_rows(bits, where)
    done, gated = np.int64(0), np.int64(0)
    for block in range(0, live.size, columns):
        parts = block_parts(live[block : block + columns], span)
        for first in range(0, pixels.size, rows):
            last = min(first + rows, pixels.size)
            for group in range(parts.size - 1):
                held = live[block + parts[group] : block + parts[group + 1]]
                for col in range(where[2], where[2] + where[3]):
                    words = x[held[0] // span * bits.shape[1] + col]
                    wanted = np.int64(0)
                    for row in held:
                        if bits[row, col]:
                            sums[row, col] += _dot(dy, words, row, pixels, first, last)
                            tally[row, col] += last - first
                            wanted += 1
                    if wanted:
                        done += wanted * (last - first)
                        gated += (held.size - wanted) * (last - first)
    return done, gated


@njit
def _tree(values, size):
    """Sum of values[:size] by a binary adder tree over a power of two of leaves; missing leaves are absent."""
    width = 1
    while width < size:
        width *= 2
    for i in range(size, width):
        values[i] = np.float32(0)
    while width > 1:
        width //= 2
        for i in range(width):
            values[i] = values[2 * i] + values[2 * i + 1]
    return values[0]


@njit
def reduced(bits, dy, x, where, pixels, sums, tally, span, group, registers):
    """Reduction-spatial: blocks of live rows, chunks of `group` pixels, one tree sum per selected element and chunk."""
    live = live_rows(bits, where)
    products = np.empty(2 * group, np.float32)
    done = np.int64(0)
    for block in range(0, live.size, registers):
        parts = block_parts(live[block : block + registers], span)
        for first in range(0, pixels.size, group):
            last = min(first + group, pixels.size)
            for owner in range(parts.size - 1):
                rows = live[block + parts[owner] : block + parts[owner + 1]]
                base = rows[0] // span * bits.shape[1]
                for col in range(where[2], where[2] + where[3]):
                    for row in rows:
                        if bits[row, col]:
                            for i in range(first, last):
                                products[i - first] = dy[row, pixels[i]] * x[base + col, pixels[i]]
                            sums[row, col] += _tree(products, last - first)
                            tally[row, col] += last - first
                            done += last - first
    return done, np.int64(0)


@njit
def line_steps(lines, dilation_over_stride):
    """For each tap: how many pixels its word lies to the right of the one that its PE holds.

    A PE holds the word of the middle tap of a line (of two, the right one). `dilation_over_stride` gives each tap's
    whole steps from the left end of the kernel row.
    """
    shift = np.zeros(lines.size, np.int64)
    reference = np.zeros(lines.size, np.int64)
    for tap in range(lines.size):
        n, rank = 0, 0
        for other in range(lines.size):
            if lines[other] == lines[tap]:
                rank += other < tap
                n += 1
        middle, seen = n // 2, 0
        for other in range(lines.size):
            if lines[other] == lines[tap]:
                if seen == middle:
                    reference[tap] = other
                seen += 1
        shift[tap] = dilation_over_stride[tap] - dilation_over_stride[reference[tap]]
    return shift, reference


@njit
def _window_word(x, channel, tap, pixels, i, chunk, shift, reference, image_row):
    """What PE i of a chunk multiplies for `tap`: its own X word or the one of a neighbour `shift` pixels to the right.

    `channel` is the row of x where the channel begins.

    Beyond the end of an image row: zero. Beyond the end of the chunk, within the image row: the edge register.
    """
    first, last = chunk
    here, there = pixels[i], pixels[i] + shift[tap]
    if there < 0 or there // image_row != here // image_row:
        return np.float32(0)
    other = i + shift[tap]
    if first <= other < last and pixels[other] == there:
        return x[channel + reference[tap], there]
    return x[channel + tap, here]


@njit
def _window_chunk(bits, dy, x, rows_of, blocks, where, pixels, chunk, window, sums, tally):
    """One chunk of pixels: row blocks in order, lines in order, in each line its taps, one tree sum per element."""
    taps, lines, shift, reference, image_row, span = window
    first, last = chunk
    products = np.empty(2 * pixels.size, np.float32)
    done = np.int64(0)
    for block in range(blocks.size - 1):
        parts = block_parts(rows_of[blocks[block] : blocks[block + 1]], span)
        for owner in range(parts.size - 1):
            rows = rows_of[blocks[block] + parts[owner] : blocks[block] + parts[owner + 1]]
            base = rows[0] // span * bits.shape[1]
            for channel in range(where[2], where[2] + where[3], taps):
                # Taps line by line.
                for step in range(taps * (lines.max() + 1)):
                    line, tap = divmod(step, taps)
                    if lines[tap] != line:
                        continue
                    for row in rows:
                        if bits[row, channel + tap]:
                            for i in range(first, last):
                                words = (x, base + channel, tap, pixels, i, chunk, shift, reference, image_row)
                                products[i - first] = dy[row, pixels[i]] * _window_word(*words)
                            sums[row, channel + tap] += _tree(products, last - first)
                            tally[row, channel + tap] += last - first
                            done += last - first
    return done


@njit
def windowed(bits, dy, x, where, pixels, sums, tally, span, taps, lines, halo, steps, image_row, array):
    """Reduction-window: the chunks of `window_plan`, dY in blocks of live rows, X words from neighbouring PEs."""
    row_start, row_size, col_start, col_size = where
    tile = live_lines(bits, row_start, row_size, col_start, col_size, taps, lines, array.registers, span)
    sizes = tile.rows
    if sizes.size == 0:
        return np.int64(0), np.int64(0)
    scratch = np.zeros((2, 64, 15), np.int64)
    plan = window_plan(tile, pixels.size, taps, lines.max() + 1, halo, array, scratch[0], scratch[1])
    blocks = np.zeros(sizes.size + 1, np.int64)
    blocks[1:] = np.cumsum(sizes)
    rows_of = live_rows(bits, where)
    shift, reference = line_steps(lines, steps)
    window = (taps, lines, shift, reference, image_row, span)
    done, first = np.int64(0), np.int64(0)
    for level in range(plan.shape[0]):
        for _ in range(plan[level, 2]):
            chunk = (first, first + plan[level, 0])
            done += _window_chunk(bits, dy, x, rows_of, blocks, where, pixels, chunk, window, sums, tally)
            first += plan[level, 0]
        if plan[level, 3]:
            chunk = (first, np.int64(pixels.size))
            done += _window_chunk(bits, dy, x, rows_of, blocks, where, pixels, chunk, window, sums, tally)
            first = np.int64(pixels.size)
    return done, np.int64(0)
