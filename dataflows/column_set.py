"""Column sets: columns of dW (input channel and tap) that no row of a block needs are left out, the rest are packed.

grad_weight on the output-stationary array. For each block of R rows (output channels) of a tile, the columns with a
selected element in those rows are packed into ceil(columns/C) folds. Mechanism: the column feeders take im2col
columns of X by an index list, one index per fold and array column; X still enters at the top and is forwarded
down, dY still enters at the left: the array is unchanged. When the R rows of a block share one column set, every PE
slot is wanted and cycles are exactly ceil(live columns / C) folds: 1/d of dense but for the ragged fold. This is the
array-aware mask. An unstructured mask leaves (1-d)^R of the columns dead: nothing at R = 16.

Overheads, simulated: ragged folds, fill and drain, slots computed for nobody (gated), mask scan. Sums of selected
elements only are kept, by rank.
"""

from dataclasses import replace

import numpy as np

from npusim.dataflow import Dataflow
from npusim.folding import compacted_output_stationary, output_stationary
from npusim.reduction_kernels import channel_compaction_grid


def cost(grid, hardware):
    if grid.mask is None:
        live = np.ceil(grid.columns * grid.density).astype(np.int64)
        return output_stationary(replace(grid, c=live, taps=1), hardware)
    mask = grid.mask
    folds = channel_compaction_grid(
        mask.bits, mask.row_start, mask.row_size, mask.column_start, mask.column_size, grid.t.ravel(),
        hardware.array.rows, hardware.array.cols, 1,
    )  # fmt: skip
    return compacted_output_stationary(grid, hardware, folds, skips="channels")


DATAFLOW = Dataflow(
    name="column-set",
    summary="output stationary, columns of dW that no row of a block needs are left out (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("column_set", "input_channel", "tap", "layer"),
    fallback="dense-os",
    grouped=False,
    compact_outputs=True,
)
