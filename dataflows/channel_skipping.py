"""Channel skipping: input channels without a selected element are left out, the rest are packed together.

grad_weight on the output-stationary array. For each block of R rows (output channels), the input channels
with a selected element in those rows are gathered, and their channels x taps columns are packed into
ceil(columns/C) folds. Mechanism: the column feeders take im2col columns of X by a channel list. Dead input
channels are not loaded from DRAM at all; this is the only structure that also shrinks saved activations.
An unstructured mask leaves hardly any channel dead. Groups of a convolution as in column-set.
"""

from npusim.dataflow import Dataflow
from npusim.folding import compacted_output_stationary, joined_groups, output_stationary
from npusim.reduction_kernels import channel_compaction_grid


def cost(grid, hardware):
    if grid.mask is None:
        return output_stationary(joined_groups(grid, hardware.array.rows), hardware)
    mask = grid.mask
    folds = channel_compaction_grid(
        *mask.where, grid.t.ravel(), hardware.array.rows, hardware.array.cols, grid.taps, mask.span
    )
    return compacted_output_stationary(grid, hardware, folds, skips="channels")


DATAFLOW = Dataflow(
    name="channel-skipping",
    summary="output stationary, dead input channels are left out (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("input_channel", "layer"),
    fallback="dense-os",
)
