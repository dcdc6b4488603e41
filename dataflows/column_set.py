"""Column sets: columns of dW (input channel and tap) that no row of a block needs are left out, the rest are packed.

grad_weight on the output-stationary array. For each block of R rows (output channels) of a tile, the columns with a
selected element in those rows are packed into ceil(columns/C) folds. Mechanism: the column feeders take im2col
columns of X by an index list, one index per fold and array column; X still enters at the top and is forwarded
down, dY still enters at the left: the array is unchanged. When the R rows of a block share one column set, every PE
slot is wanted and cycles are exactly ceil(live columns / C) folds: 1/d of dense but for the ragged fold. This is the
array-aware mask. An unstructured mask leaves (1-d)^R of the columns dead: nothing at R = 16.

Grouped convolutions: R consecutive rows may belong to several groups (R of them in a depthwise layer). Their columns
are packed together; a PE whose row and column belong to different groups passes both operands on and sums nothing. A
depthwise 3x3 layer of 16 channels takes 9 folds of 16 columns in this way even if everything is selected, and
dense-os 16 folds of 9 columns; with few taps selected it takes one or two.

Overheads, simulated: ragged folds, fill and drain, slots computed for nobody (gated), mask scan. Sums of selected
elements only are kept, by rank.
"""

from dataclasses import replace

import numpy as np

from npusim.dataflow import Dataflow, Network
from npusim.folding import compacted_output_stationary, joined_groups, output_stationary
from npusim.reduction_kernels import channel_compaction_grid

INDEX_BITS = 16


def network(hardware):
    """Two index registers per array column, for this fold and the next."""
    return Network(register_bits=2 * INDEX_BITS * hardware.array.cols)


def cost(grid, hardware):
    if grid.mask is None:
        joined = joined_groups(grid, hardware.array.rows)
        live = np.ceil(joined.columns * grid.density).astype(np.int64)
        return output_stationary(replace(joined, c=live, taps=1), hardware)
    mask = grid.mask
    folds = channel_compaction_grid(*mask.where, grid.t.ravel(), hardware.array.rows, hardware.array.cols, 1, mask.span)
    return compacted_output_stationary(grid, hardware, folds, skips="channels")


DATAFLOW = Dataflow(
    name="column-set",
    summary="output stationary, columns of dW that no row of a block needs are left out (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("column_set", "input_channel", "tap", "layer"),
    fallback="dense-os",
    compact_outputs=True,
    network=network,
)
