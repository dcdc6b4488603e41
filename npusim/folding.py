"""Tile costs of the three classic stationary schemes, shared by the dataflow files.

Every fold uses at most R rows and C columns of the array; the tile's folds and their live columns give the
cycles through the closed forms of `npusim.array`, with the latencies of the array in `npusim.array_timing`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from npusim import array, array_timing
from npusim.dataflow import MaskGrid, TileCost, TileGrid
from npusim.reduction_kernels import FOLD_FIELDS

if TYPE_CHECKING:
    from npusim.npu import Hardware


def ceil_div(a, b):
    return -(-a // b)


def output_stationary(grid: TileGrid, hw: Hardware) -> TileCost:
    """Rows hold output rows m, columns hold output columns, the reduction streams; every element is computed."""
    rows, columns, length = hw.array.rows, grid.columns, grid.length
    row_blocks, column_blocks = ceil_div(grid.m, rows), ceil_div(columns, hw.array.cols)
    interval = array_timing.output_interval(length, hw.array)
    cycles = array_timing.output_stationary(
        grid.g * row_blocks * column_blocks,
        length,
        grid.g * row_blocks * columns,
        array.dense_tail_columns(columns, interval, rows, hw.array.cols),
        hw.array,
    )
    outputs = grid.g * grid.m * columns
    return TileCost(
        cycles=cycles,
        macs_done=grid.macs,
        macs_gated=0,
        a_words=grid.g * column_blocks * grid.m * length,
        b_words=grid.g * row_blocks * columns * length,
        updates=outputs * np.ones_like(length),
        outputs=outputs,
    )


def operand_stationary(grid: TileGrid, hw: Hardware, hold_a: bool) -> TileCost:
    """The reduction lies on the rows; columns hold the rows of A (`hold_a`) or the columns of B; the other streams."""
    held, streamed = (grid.m, grid.columns) if hold_a else (grid.columns, grid.m)
    reduction_blocks, held_blocks = ceil_div(grid.length, hw.array.rows), ceil_div(held, hw.array.cols)
    interval = array_timing.held_interval(streamed, hw.array)
    cycles = array_timing.operand_stationary(
        grid.g * reduction_blocks * held_blocks,
        streamed,
        grid.g * reduction_blocks * held,
        array.dense_tail_columns(held, interval, hw.array.rows, hw.array.cols),
        hw.array,
    )
    held_words = grid.g * grid.length * held
    streamed_words = grid.g * held_blocks * grid.length * streamed
    outputs = grid.g * grid.m * grid.columns
    return TileCost(
        cycles=cycles,
        macs_done=grid.macs,
        macs_gated=0,
        a_words=held_words if hold_a else streamed_words,
        b_words=streamed_words if hold_a else held_words,
        updates=outputs * reduction_blocks,
        outputs=outputs,
    )


def compacted_output_stationary(grid: TileGrid, hw: Hardware, folds: np.ndarray, skips: str) -> TileCost:
    """Output stationary on packed folds of a masked grad_weight grid.

    `folds` is int64 [row ranges, c tiles, t tiles, reduction_kernels.FOLD_FIELDS]; `skips` says which operand shrinks
    with the mask: 'rows' (dY of dead output channels is never loaded) or 'channels' (X of dead input channels).
    """
    assert grid.mask is not None
    cell = grid.mask.fields(folds, FOLD_FIELDS)
    cycles = array_timing.output_stationary(cell["folds"], grid.t, cell["sum_columns"], cell["last_columns"], hw.array)
    return TileCost(
        cycles=cycles,
        macs_done=cell["macs"],
        macs_gated=cell["mac_slots"] - cell["macs"],
        a_words=cell["sum_rows"] * grid.t,
        b_words=cell["sum_columns"] * grid.t,
        updates=cell["selected"],
        outputs=cell["selected"][..., :1],
        mask_bits=np.where(cycles > 0, cell["scan_bits"], 0),
        register_bytes=passed_bytes(grid, cell["idle_slots"]),
        live_rows=live_rows(grid.mask) if skips == "rows" else None,
        live_channels=live_channels(grid.mask, grid.taps) if skips == "channels" else None,
    )


def reduction_cost(grid: TileGrid, cell: Mapping[str, np.ndarray], mux_words: np.ndarray | int = 0) -> TileCost:
    """Cost of masked tiles whose PEs hold the reduction, from the named fields of a reduction kernel's grid."""
    assert grid.mask is not None
    return TileCost(
        cycles=cell["cycles"],
        macs_done=cell["macs"],
        macs_gated=0,
        a_words=cell["dy_words"],
        b_words=cell["x_words"],
        updates=cell["decoded_indices"],
        outputs=cell["selected"][..., :1],
        mask_bits=np.where(cell["cycles"] > 0, cell["mask_bits"] + cell["scan_bits"], 0),
        tree_adds=cell["tree_adds"],
        decodes=cell["decoded_indices"],
        mux_words=mux_words,
        live_rows=live_rows(grid.mask),
        live_channels=live_channels(grid.mask, grid.taps),
    )


def live_rows(mask: MaskGrid) -> np.ndarray:
    """How many rows (output channels) of each tile have any selected element, int64 [g tiles, m tiles]."""
    live = np.add.reduceat(mask.bits.any(axis=1).astype(np.int64), mask.row_start)
    return live.reshape(mask.group_tiles, -1)


def live_channels(mask: MaskGrid, taps: int) -> np.ndarray:
    """How many input channels of each tile, over its groups, have any selected element, int64 [g tiles, c tiles]."""
    groups = mask.bits.reshape(-1, mask.span, mask.bits.shape[1]).any(axis=1)
    live = groups.reshape(groups.shape[0], -1, taps).any(axis=2).astype(np.int64)
    first = mask.row_start.reshape(mask.group_tiles, -1)[:, 0] // mask.span
    return np.add.reduceat(np.add.reduceat(live, first, axis=0), mask.column_start // taps, axis=1)


def passed_bytes(grid: TileGrid, idle_slots: np.ndarray) -> np.ndarray:
    """Bytes written into operand registers of PEs that pass on operands of two groups and have nothing to sum."""
    return idle_slots * (grid.a_bits + grid.b_bits) // 8


def joined_groups(grid: TileGrid, rows: int) -> TileGrid:
    """To price tiles that pack several groups: blocks of `rows` rows take the columns of all groups they belong to."""
    groups = np.minimum(grid.g, ceil_div(rows, grid.m))
    return replace(grid, g=np.ones_like(grid.g), m=grid.g * grid.m, c=groups * grid.c)
