"""Element-gather: every row of an output-stationary array computes its own selected columns.

grad_weight. Row k keeps its selected elements packed in its C PEs; PE (k, j) holds the index of its element for the
whole fold and takes its word of X from a bus of WIDTH words that is passed down the rows instead of one word per
column. A fold takes live columns of the tile in order until a row would need more than C PEs or the bus more than
WIDTH words, so a mask of density d runs at up to min(1/d, WIDTH/C) of dense speed, less what rows differ.

Rows of one fold may belong to several groups of a convolution: the bus carries the columns of all of them, and every
row picks its own. A depthwise layer keeps all R rows busy in this way, where the dense dataflow keeps one.

The gather network: WIDTH X words are registered in every row (a plain array registers C), every PE has a
WIDTH:1 multiplexer (log2 WIDTH stages of 2:1) and an index register of log2 WIDTH bits, double-buffered.
Index decode: one decoder per row finds one element per cycle, while the former fold runs; the first fold waits for it.
Bank conflicts: column i of im2col(X) lies in bank i mod banks of buffer B, one access gives a bank word of consecutive
pixels; when one bank holds more of a fold's columns than a bank word has pixels, the stream is stretched.
Rows that end with fewer elements than the others idle (packing loss). Sums of selected elements only are kept, by rank.
"""

from dataclasses import replace

import numpy as np

from npusim.dataflow import Dataflow, Network, TileCost
from npusim.folding import joined_groups, live_channels, live_rows, output_stationary
from npusim.gather_kernels import GATHER_FIELDS, GatherArray, gather_grid

WIDTH = 64


def array_of(hardware, b_bits):
    buffer = hardware.buffers.b
    bank_words = max(1, buffer.bytes_per_cycle * 8 // (buffer.banks * b_bits))
    width = max(hardware.array.cols, WIDTH)
    return GatherArray(
        hardware.array.rows, hardware.array.cols, width, buffer.banks, bank_words, hardware.array.fold_overlap
    )


def network(hardware):
    """Per PE a WIDTH:1 multiplexer and two index registers; per row a register for every word of the bus."""
    bits, array = hardware.precision.activation_bits, hardware.array
    width, pes = max(array.cols, WIDTH), array.rows * array.cols
    index = 2 * pes * (width - 1).bit_length()
    return Network(pes * (width - 1) * bits, index + array.rows * (width - array.cols) * bits)


def cost(grid, hardware):
    array = array_of(hardware, grid.b_bits)
    if grid.mask is None:
        joined = joined_groups(grid, array.rows)
        # Columns that one row needs, or that the bus must carry for all rows of a block, in array columns.
        on_bus = joined.columns * np.minimum(1.0, grid.density * np.minimum(grid.m, array.rows)) / array.width
        live = np.maximum(grid.columns * min(1.0, 1.3 * grid.density), on_bus * array.columns)
        return output_stationary(replace(joined, c=np.ceil(live).astype(np.int64), taps=1), hardware)
    mask = grid.mask
    cells = gather_grid(*mask.where, grid.t.ravel(), array, mask.span)
    cell = mask.fields(cells, GATHER_FIELDS)
    return TileCost(
        cycles=cell["cycles"],
        macs_done=cell["macs"],
        macs_gated=0,
        a_words=cell["a_words"],
        b_words=cell["b_words"],
        updates=cell["selected"],
        outputs=cell["selected"][..., :1],
        mask_bits=np.where(cell["cycles"] > 0, cell["scan_bits"], 0),
        decodes=cell["selected"],
        mux_words=cell["macs"] * (array.width - 1).bit_length(),
        register_bytes=cell["bus_words"] * grid.b_bits // 8,
        live_rows=live_rows(mask),
        live_channels=live_channels(mask, grid.taps),
    )


DATAFLOW = Dataflow(
    name="element-gather",
    summary="output stationary, every row gathers its own X columns from a wide bus (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("element", "kernel", "output_channel", "input_channel", "tap", "column_set", "n_m", "layer"),
    fallback="dense-os",
    compact_outputs=True,
    network=network,
)
