"""Weight-stationary selective: dY stays in the array, only columns of X that some held output channel selects stream.

grad_weight. The array holds R pixels x C output channels of dY; the im2col columns (input channel, tap) that any
of the C channels selects stream through, and partial sums leave at the bottom. Mechanism: the stream is taken by an
index list, one per block of C output channels. Streamed columns are the union over C channels: 1-(1-d)^C of all for an
unstructured mask, nothing saved at C = 16 unless d is below 0.05; exactly 1/d when the C channels share their columns.
Each fold still needs R cycles to exchange dY, so a column set smaller than R saves nothing more.

The C channels may belong to several groups of a convolution: then the columns of one group after another stream, and
PEs of other groups' channels pass them on. In a depthwise layer a streamed column serves one of the C channels.

Overheads, simulated: union, short streams, an accumulator read-modify-write for every selected element and R pixels,
mask scan. Sums of selected elements only are kept, by rank.
"""

from dataclasses import replace

import numpy as np

from npusim.dataflow import Dataflow, TileCost
from npusim.folding import joined_groups, live_channels, live_rows, operand_stationary, passed_bytes
from npusim.gather_kernels import UNION_FIELDS, union_grid


def cost(grid, hardware):
    if grid.mask is None:
        joined = joined_groups(grid, hardware.array.cols)
        union = 1 - (1 - min(grid.density, 0.999)) ** np.minimum(grid.m, hardware.array.cols)
        live = np.ceil(joined.columns * union).astype(np.int64)
        return operand_stationary(replace(joined, c=live, taps=1), hardware, hold_a=True)
    mask = grid.mask
    cells = union_grid(
        *mask.where, grid.t.ravel(),
        hardware.array.rows, hardware.array.cols, hardware.array.fold_overlap, mask.span,
    )  # fmt: skip
    cell = mask.fields(cells, UNION_FIELDS)
    return TileCost(
        cycles=cell["cycles"],
        macs_done=cell["macs"],
        macs_gated=cell["mac_slots"] - cell["macs"],
        a_words=cell["a_words"],
        b_words=cell["b_words"],
        updates=cell["updates"],
        outputs=cell["selected"][..., :1],
        mask_bits=np.where(cell["cycles"] > 0, cell["scan_bits"], 0),
        register_bytes=passed_bytes(grid, cell["idle_slots"]),
        live_rows=live_rows(mask),
        live_channels=live_channels(mask, grid.taps),
    )


DATAFLOW = Dataflow(
    name="ws-selective",
    summary="weight (dY) stationary, columns of X that no held output channel selects do not stream (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("output_channel", "input_channel", "column_set", "tap", "layer"),
    fallback="dense-os",
    compact_outputs=True,
)
