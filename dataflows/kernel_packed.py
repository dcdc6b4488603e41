"""Kernel-packed: for every few input channels, the output channels whose kernels are selected are packed together.

grad_weight on the output-stationary array. A fold holds the R*S columns of w input channels; its rows are the output
channels with a selected kernel (k, c) among those channels, gathered into ceil(live/R) folds. Mechanism: the row
feeders take dY rows by an index list that changes with the channels; X columns are taken in order. With w = 1 and a
kernel mask every running row is wanted, so folds follow the mask exactly, but only R*S of the C array columns
are used (9 of 16 for a 3x3 kernel); a larger w uses more columns and computes the union of its channels' rows.
w is chosen per tile for the fewest cycles; all C columns, cutting kernels, is one of the choices. For 1x1 kernels w = 1
would use one column: kernels are single elements then, and packing gives way to the union.
A grouped convolution is packed group by group; a depthwise one keeps one busy row per fold and loses dead channels.

Overheads, simulated: unused columns, union of rows, ragged folds, fill and drain, mask scan. Sums of selected elements
only are kept, by rank.
"""

from functools import reduce

import numpy as np

from npusim import array
from npusim.dataflow import Dataflow
from npusim.folding import compacted_output_stationary, output_stationary
from npusim.reduction_kernels import row_compaction_grid


def widths(taps, columns):
    """Array columns that a fold may use: those of 1, 2, ... whole kernels, or all."""
    return sorted({*range(taps, columns + 1, taps), columns})


def cost(grid, hardware):
    if grid.mask is None:
        return output_stationary(grid, hardware)
    mask, rows = grid.mask, hardware.array.rows
    where = (*mask.where, grid.t.ravel())
    options = [row_compaction_grid(*where, rows, width, mask.span) for width in widths(grid.taps, hardware.array.cols)]
    # grid.t is [1, 1, 1, t]; folds are [row ranges, c, t, fields].
    grid_t = grid.t.reshape(1, 1, -1)

    def total(folds):
        overlap = hardware.array.fold_overlap
        cycles = array.output_stationary(folds[..., 0], grid_t, folds[..., 2], folds[..., 3], rows, overlap)
        return np.asarray(cycles)[..., None]

    folds = reduce(lambda best, other: np.where(total(other) < total(best), other, best), options)
    return compacted_output_stationary(grid, hardware, folds, skips="rows")


DATAFLOW = Dataflow(
    name="kernel-packed",
    summary="output stationary, output channels gathered for every few input channels (grad_weight)",
    cost=cost,
    phases=("grad_weight",),
    structures=("kernel", "output_channel", "layer"),
    fallback="dense-os",
    compact_outputs=True,
)
