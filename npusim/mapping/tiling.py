"""Tilings of a problem: extents of tiles, the image regions that they read, taps that share words, array cycles."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from npusim.dataflow import TileGrid
from npusim.folding import ceil_div
from npusim.mapping.problem import Problem

if TYPE_CHECKING:
    from npusim.npu import Hardware

LINE_SHIFTS = 3


@dataclass(frozen=True, slots=True)
class Tiling:
    """Extents of a full tile: g groups, m rows, c channels, n x p x q pixels. `swap`: the m loop runs inside."""

    g: int
    m: int
    c: int
    n: int
    p: int
    q: int
    swap: bool

    def __str__(self) -> str:
        order = "c|t outer, m inner" if self.swap else "m outer, c|t inner"
        return f"g{self.g} m{self.m} c{self.c} n{self.n} p{self.p} q{self.q} ({order})"


def image_axis(problem: Problem, axis: int) -> tuple[int, int, int, int, int]:
    """Output positions, image size, stride, start and extent along rows (axis 0) or columns (axis 1)."""
    total, image = ((problem.p, problem.h), (problem.q, problem.w))[axis]
    return total, image, problem.stride[axis], problem.start[axis], problem.extent[axis]


def image_extents(problem: Problem, axis: int, size: int) -> np.ndarray:
    """Rows (axis 0) or columns (axis 1) of the B image that each tile of `size` output positions reads, clipped."""
    return axis_extents(image_axis(problem, axis), size)


def axis_extents(axis: tuple[int, int, int, int, int], size: int) -> np.ndarray:
    """As `image_extents`, for an `image_axis`."""
    total, image, stride, start, extent = axis
    first, count = tile_starts(total, size), tile_extents(total, size)
    if extent < stride:
        return np.minimum(count * extent, image)
    low = np.clip(first * stride + start, 0, image)
    high = np.clip((first + count - 1) * stride + start + extent, 0, image)
    return np.maximum(high - low, 1)


def image_span(problem: Problem, axis: int, size: np.ndarray) -> np.ndarray:
    """As `image_extents` for tiles of these sizes away from the image's edges."""
    _, image, stride, _, extent = image_axis(problem, axis)
    return np.minimum(size * extent if extent < stride else (size - 1) * stride + extent, image)


def tile_starts(total: int, size: int) -> np.ndarray:
    return np.arange(0, total, size, dtype=np.int64)


def tile_extents(total: int, size: int) -> np.ndarray:
    """Extents of the tiles that cover `total`, the last one ragged."""
    return np.minimum(size, total - tile_starts(total, size))


@lru_cache(maxsize=1024)
def tap_lines(problem: Problem) -> np.ndarray:
    """The line of every tap of a channel (see TileGrid.lines), int64 [taps].

    Taps (r, s) and (r, s') share a line when s and s' differ by whole pixel steps, two at most in all. A PE holds the
    word of the middle tap (of two, the right one) and takes the others from PEs of neighbouring pixels; beyond the
    ends of an image row it takes zero, so every word that it would need there must be padding.
    """
    taps_r, taps_s = problem.window
    stride, dilation, start = problem.stride[1], problem.dilation[1], problem.start[1]
    lines = np.arange(taps_s)
    for residue in range(stride):
        taps = [s for s in range(taps_s) if s * dilation % stride == residue]
        if len(taps) < 2:
            continue
        steps = [s * dilation // stride for s in taps]
        held = steps[len(steps) // 2]
        left = (held - 1) * stride + residue + start
        right = (problem.q + held) * stride + residue + start
        if steps[-1] - steps[0] < LINE_SHIFTS and left < 0 and (right >= problem.w or held == steps[-1]):
            lines[taps] = taps[0]
    lines = np.unique(lines, return_inverse=True)[1].reshape(-1)
    return (np.arange(taps_r)[:, None] * (lines.max() + 1) + lines[None, :]).reshape(-1)


def tile_cycles(cost, grid: TileGrid, hw: Hardware) -> np.ndarray:
    """Cycles that a tile occupies the array: its own, or those of the busiest buffer port if that is slower.

    An update of a partial sum takes a read and a write slot of the accumulator's port. The slots are fixed: that of a
    first value is empty (no read is counted, so it costs no energy), but no other access can take it.
    """
    buffers, busy, pieces = hw.buffers, cost.cycles * passes(grid, hw), hw.precision.pieces
    ports = (
        (cost.a_words * grid.a_bits * pieces(grid.b_bits), buffers.a),
        (cost.b_words * grid.b_bits * pieces(grid.a_bits), buffers.b),
        (2 * cost.updates * hw.precision.accumulator_bits, buffers.accumulator),
        (cost.mask_bits, buffers.mask),
    )
    for moved_bits, buffer in ports:
        busy = np.maximum(busy, ceil_div(moved_bits, 8 * buffer.bytes_per_cycle))
    return np.where(cost.cycles > 0, busy, 0)


def passes(grid: TileGrid, hw: Hardware) -> int:
    """How often the array works through a tile: once for every pair of pieces of its operands.

    The accumulator's traffic is taken as that of one pass: sums are shifted and added where they are.
    """
    return hw.precision.pieces(grid.a_bits) * hw.precision.pieces(grid.b_bits)
