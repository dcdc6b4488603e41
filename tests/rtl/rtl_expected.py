"""What npusim simulates for a tile of the RTL benches, in the benches' terms."""

from __future__ import annotations

import numpy as np
from rtl_points import Tile
from rtl_simulator import Measured

from npusim import array
from npusim.reduction_kernels import (
    FOLD_FIELDS,
    REDUCTION_FIELDS,
    ReductionArray,
    channel_compaction_grid,
    reduction_grid,
    row_compaction_grid,
    tile_skip_grid,
)

KERNELS = {
    "dense": tile_skip_grid,
    "skip": tile_skip_grid,
    "rows": row_compaction_grid,
    "channels": channel_compaction_grid,
}


def _whole(tile: Tile) -> tuple[np.ndarray, ...]:
    """The tile as a grid of one."""
    zero = np.zeros(1, np.int64)
    return tile.mask, zero, np.array(tile.mask.shape[:1]), zero, np.array(tile.mask.shape[1:])


def stationary(tile: Tile, rows: int, columns: int) -> Measured:
    """Operand stationary: R x C blocks of the K x N operand stay, T vectors stream through each."""
    (height, length), width = tile.left.shape, tile.right.shape[0]
    row_blocks, column_blocks = -(-height // rows), -(-width // columns)
    last = int(array.dense_tail_columns(width, length, rows, columns))
    cycles = array.operand_stationary(row_blocks * column_blocks, length, row_blocks * width, last, rows, tile.overlap)
    return Measured(
        cycles=int(cycles),
        left_reads=column_blocks * height * length,
        right_reads=height * width,
        writes=row_blocks * width * length,
        errors=0,
    )


def output_stationary(tile: Tile, rows: int, columns: int) -> Measured:
    """Output stationary in the tile's selective mode."""
    terms = tile.terms.size
    more = (tile.taps,) if tile.mode == "channels" else ()
    counts = KERNELS[tile.mode](*_whole(tile), np.array([terms]), rows, columns, *more)[0, 0, 0]
    field = dict(zip(FOLD_FIELDS, counts.tolist(), strict=True))
    cycles = array.output_stationary(
        field["folds"], terms, field["sum_columns"], field["last_columns"], rows, tile.overlap
    )
    return Measured(
        cycles=int(cycles),
        left_reads=terms * field["sum_rows"],
        right_reads=terms * field["sum_columns"],
        writes=field["selected"],
        errors=0,
    )


def systolic(tile: Tile, rows: int, columns: int) -> Measured:
    return stationary(tile, rows, columns) if tile.stationary else output_stationary(tile, rows, columns)


def reduction(tile: Tile, hardware: ReductionArray) -> Measured:
    """Reduction spatial; `extra` is mask bits, issued elements, MACs, tree adds and passes."""
    counts = reduction_grid(*_whole(tile), np.array(tile.left.shape[1:]), hardware)[0, 0, 0]
    field = dict(zip(REDUCTION_FIELDS, counts.tolist(), strict=True))
    extra = ("mask_bits", "decoded_indices", "macs", "tree_adds", "passes")
    return Measured(
        cycles=field["cycles"],
        left_reads=field["dy_words"],
        right_reads=field["x_words"],
        writes=field["selected"],
        errors=0,
        extra=tuple(field[name] for name in extra),
    )
