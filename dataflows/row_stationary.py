"""Row stationary (Eyeriss): a PE convolves one filter row with one input row; forward only.

Source: Chen et al., "Eyeriss", ISSCC 2016 and JSSC 2017. R PEs in a column make a *strip*: each keeps a filter row,
input rows run along diagonals, partial sums go up the strip, so a strip makes one row of outputs of one filter from one
channel. floor(rows/R)*cols strips fit the array; e of them make e output rows, and what is left holds further sets
for other filters and channels. Inside a PE up to Q channels x F filters take turns, limited by its scratch
pads: Q*S input words, F*Q*S filter words, F partial sums.

A *pass* computes n images x F filters x Q channels x e rows on every set: n*F*Q*S*q cycles after the filters have been
loaded through the port of buffer A (multicast, no PE computes meanwhile). Passes are strictly serial. Not modelled:
filling of input pads, the pipeline of the networks on chip, gating of zero inputs (it saves energy, not time).
"""

from functools import reduce

import numpy as np

from npusim.dataflow import Dataflow, TileCost
from npusim.folding import ceil_div

INPUT_WORDS, FILTER_WORDS, SUM_WORDS = 12, 224, 24
MOST_PARTS = 16


def cost(grid, hardware):
    rows, cols = hardware.array.rows, hardware.array.cols
    taps_r, taps_s = grid.window
    n, p, q = grid.extents
    folded = ceil_div(taps_r, rows)
    strips = rows // min(taps_r, rows) * cols
    channels = np.minimum(grid.c, max(1, INPUT_WORDS // taps_s))
    filters = np.minimum(np.minimum(grid.m, SUM_WORDS), np.maximum(1, FILTER_WORDS // (channels * taps_s)))
    filter_groups, channel_groups = ceil_div(grid.m, filters), ceil_div(grid.c, channels)
    filters, channels = ceil_div(grid.m, filter_groups), ceil_div(grid.c, channel_groups)
    found = []
    for parts in range(1, MOST_PARTS + 1):
        out_rows = np.minimum(ceil_div(p, parts), strips)
        sets = strips // out_rows
        by_filter = np.minimum(sets, filter_groups)
        by_channel = np.minimum(sets // by_filter, channel_groups)
        row_tiles = ceil_div(p, out_rows)
        passes = row_tiles * ceil_div(filter_groups, by_filter) * ceil_div(channel_groups, by_channel)
        weights = by_filter * by_channel * filters * channels * taps_r * taps_s
        load = ceil_div(weights * grid.a_bits, 8 * hardware.buffers.a.bytes_per_cycle)
        cycles = grid.g * folded * passes * (load + n * filters * channels * taps_s * q)
        in_rows = row_tiles * ((out_rows - 1) * grid.stride[0] + taps_r)
        in_columns = (q - 1) * grid.stride[1] + taps_s
        images = grid.g * n * grid.c * ceil_div(filter_groups, by_filter) * in_rows * in_columns
        updates = grid.g * folded * grid.m * n * p * q * ceil_div(channel_groups, by_channel)
        found.append(np.stack(np.broadcast_arrays(cycles, grid.g * passes * weights, images, updates)))
    best = reduce(lambda best, other: np.where(other[0] < best[0], other, best), found)
    return TileCost(best[0], grid.macs, 0, best[1], best[2], best[3], grid.g * grid.m * grid.t)


DATAFLOW = Dataflow(
    name="row-stationary",
    summary="Eyeriss: filter rows stay in PEs, input rows run along diagonals (forward)",
    cost=cost,
    phases=("forward",),
    fallback="dense-os",
)
