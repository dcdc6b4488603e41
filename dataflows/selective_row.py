"""Selective rows: output channels without a selected element are left out, the rest are packed together.

grad_weight on the output-stationary array. For each block of C columns (input channels x taps), the output
channels that have a selected element there are gathered into ceil(live/R) folds. Mechanism: the row feeders
take dY rows by an index list, so the array itself is unchanged. Saves cycles for output-channel masks:
ceil(K/R) becomes ceil(dK/R). An unstructured mask leaves hardly any row dead: unselected elements of live
rows are computed with gated MACs and not written back. A grouped convolution is packed group by group: of a depthwise
one, channels without a selected element are left out, and every other one takes a fold with one busy row, as in the
dense dataflow.
"""

from npusim.dataflow import Dataflow
from npusim.folding import compacted_output_stationary, output_stationary
from npusim.reduction_kernels import row_compaction_grid


def cost(grid, hardware):
    if grid.mask is None:
        return output_stationary(grid, hardware)
    mask = grid.mask
    folds = row_compaction_grid(*mask.where, grid.t.ravel(), hardware.array.rows, hardware.array.cols, mask.span)
    return compacted_output_stationary(grid, hardware, folds, skips="rows")


DATAFLOW = Dataflow(
    name="selective-row",
    summary="output stationary, dead output channels are left out (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("output_channel", "layer"),
    fallback="dense-os",
)
