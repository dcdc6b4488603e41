"""Statistics of a mask over tiles, in one pass over its bits. Arrays and scalars only."""

from __future__ import annotations

import numpy as np

from npusim.jit import njit

# Columns of the result.
ELEMENTS, SELECTED, LIVE_ROWS, LIVE_COLUMNS, FULLEST_ROW, FIELDS = range(6)


@njit
def tile_statistics(bits, rows, columns):
    """Counts of every tile of `rows` x `columns`, ragged at the ends, of a 0/1 matrix uint8 [K, N].

    Returns int64 [tiles, FIELDS]: elements, selected ones, rows and columns that have one, the fullest row's count; and
    how many runs of selected columns all rows have.
    """
    height, width = bits.shape
    across = (width + columns - 1) // columns
    found = np.zeros(((height + rows - 1) // rows * across, FIELDS), np.int64)
    live = np.zeros(width, np.uint8)
    runs = np.int64(0)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        live[:] = 0
        for row in range(top, bottom):
            line = bits[row]
            starts = np.int64(line[0])
            for column in range(1, width):
                starts += line[column] & (line[column - 1] ^ 1)
            runs += starts
            for column in range(width):
                live[column] |= line[column]
            for tile in range(across):
                count = np.int64(0)
                for column in range(tile * columns, min((tile + 1) * columns, width)):
                    count += line[column]
                cell = found[top // rows * across + tile]
                cell[SELECTED] += count
                cell[LIVE_ROWS] += count > 0
                cell[FULLEST_ROW] = max(cell[FULLEST_ROW], count)
        for tile in range(across):
            cell = found[top // rows * across + tile]
            left, right = tile * columns, min((tile + 1) * columns, width)
            cell[ELEMENTS] = (bottom - top) * (right - left)
            for column in range(left, right):
                cell[LIVE_COLUMNS] += live[column]
    return found, runs


@njit
def find_live_rows(bits, row_start, row_size, col_start, col_size, live):
    """Fill `live` with the rows that have a selected element in the columns; their number."""
    found = 0
    for row in range(row_start, row_start + row_size):
        any_bit = np.uint8(0)
        for col in range(col_start, col_start + col_size):
            any_bit |= bits[row, col]
        if any_bit:
            live[found] = row
            found += 1
    return found
