"""Tile extents of a problem: the candidate with the least estimated time that fits the buffers.

The estimate prices a full tile with the dataflow's own cost function and counts DRAM traffic from which
operands stay in their slots; it chooses, it is never reported.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from npusim.dataflow import Dataflow, TileGrid
from npusim.errors import CapacityError
from npusim.folding import ceil_div
from npusim.graph import TAPS
from npusim.mapping._kernels import corner_sums
from npusim.mapping.problem import Problem

if TYPE_CHECKING:
    from npusim.masks import Mask
    from npusim.npu import Hardware


MASKED_CANDIDATES, OTHER_CANDIDATES, NEAR = 8, 4, 1.2
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


def image_extents(problem: Problem, axis: int, size: int) -> np.ndarray:
    """Rows (axis 0) or columns (axis 1) of the B image that each tile of `size` output positions reads, clipped."""
    stride, extent = problem.stride[axis], problem.extent[axis]
    total, image = ((problem.p, problem.h), (problem.q, problem.w))[axis]
    first, count = tile_starts(total, size), tile_extents(total, size)
    if extent < stride:
        return np.minimum(count * extent, image)
    low = np.clip(first * stride + problem.start[axis], 0, image)
    high = np.clip((first + count - 1) * stride + problem.start[axis] + extent, 0, image)
    return np.maximum(high - low, 1)


@lru_cache(maxsize=4096)
def candidates(problem: Problem, dataflow: Dataflow, hw: Hardware, mask: Mask | None) -> tuple[Tiling, ...]:
    """Tilings of `problem` that fit, the best estimate first; one, or with a mask up to MASKED_CANDIDATES
    that differ in rows or channels, OTHER_CANDIDATES that differ in pixels, and as many with the
    least traffic within NEAR of the fewest cycles.

    A mask shrinks tiles in ways that the estimate cannot see (rows of one tile are packed together, those of two
    are not), so the candidates differ in rows, channels or pixels and the caller tries each. The mask of an output
    tile must fit the mask buffer.
    Raises CapacityError that names the buffer, the bytes needed and present.
    """
    g, m, c, n, p, q = _candidates(problem)
    masked = mask is not None
    footprints = _footprints(problem, hw, masked, g, m, c, n, p, q)
    if mask is not None and dataflow.compact_outputs:
        slot = 8 * hw.buffers.accumulator.slot_bytes // hw.precision.accumulator_bits
        largest = largest_selection(problem, mask, slot, g, m, c)
        footprints["accumulator"] = ceil_div(largest * hw.precision.accumulator_bits, 8)
    buffers = {"a": hw.buffers.a, "b": hw.buffers.b, "accumulator": hw.buffers.accumulator, "mask": hw.buffers.mask}
    fits = np.ones(g.shape, bool)
    for key, need in footprints.items():
        fits &= need <= buffers[key].slot_bytes
    if not fits.any():
        raise _does_not_fit(footprints, buffers, hw)
    g, m, c, n, p, q = (column[fits] for column in (g, m, c, n, p, q))
    density = mask.density if mask is not None and dataflow.selective else 1.0
    cycles, traffic = _estimate(problem, dataflow, hw, density, g, m, c, n, p, q)
    by_cycles = np.lexsort((traffic.ravel(), cycles.ravel()))
    by_traffic = np.lexsort((cycles.ravel(), traffic.ravel()))

    def tiling(order: int) -> Tiling:
        swap, i = divmod(int(order), g.size)
        return Tiling(int(g[i]), int(m[i]), int(c[i]), int(n[i]), int(p[i]), int(q[i]), bool(swap))

    if not masked:
        return (tiling(by_cycles[0]),)
    blocks: dict[tuple[str, int], Tiling] = {}
    pixels: dict[int, Tiling] = {}
    for order in by_cycles[cycles.ravel()[by_cycles] <= 2 * cycles.min()]:
        found = tiling(order)
        blocks.setdefault(("m", found.m), found)
        blocks.setdefault(("c", found.c), found)
        if len(pixels) < OTHER_CANDIDATES:
            pixels.setdefault(found.n * found.p * found.q, found)
        if len(set(blocks.values())) >= MASKED_CANDIDATES:
            break
    near = by_traffic[cycles.ravel()[by_traffic] <= NEAR * cycles.min()]
    lean = [tiling(order) for order in near[:OTHER_CANDIDATES]]
    return tuple(dict.fromkeys((*blocks.values(), *pixels.values(), *lean)))


def _sizes(total: int) -> list[int]:
    powers = {1 << i for i in range(total.bit_length()) if 1 << i <= total}
    return sorted(powers | {ceil_div(total, parts) for parts in range(1, 9)})


def _candidates(problem: Problem) -> list[np.ndarray]:
    """All combinations as six int64 columns; groups are joined only when a group's rows and channels are whole."""
    pixels = [(1, 1, q) for q in _sizes(problem.q)]
    pixels += [(1, p, problem.q) for p in _sizes(problem.p)]
    pixels += [(n, problem.p, problem.q) for n in _sizes(problem.n)]
    blocks = [(1, m, c) for m in _sizes(problem.m) for c in _sizes(problem.c)]
    blocks += [(g, problem.m, problem.c) for g in _sizes(problem.groups)]
    blocks_table, pixel_table = np.array(sorted(set(blocks))), np.array(sorted(set(pixels)))
    left = np.repeat(blocks_table, len(pixel_table), axis=0)
    right = np.tile(pixel_table, (len(blocks_table), 1))
    return [*left.T, *right.T]


def _footprints(problem: Problem, hw: Hardware, masked: bool, g, m, c, n, p, q) -> dict[str, np.ndarray]:
    """Bytes that a full tile takes in each buffer."""
    bits = hw.precision.bits
    rows = np.minimum((p - 1) * problem.stride[0] + problem.extent[0], problem.h)
    columns = np.minimum((q - 1) * problem.stride[1] + problem.extent[1], problem.w)
    taps, t = max(problem.taps, 1), n * p * q
    a_words, out_words = (m * t, m * c * taps) if problem.role == TAPS else (m * c * taps, m * t)
    need = {
        "a": ceil_div(g * a_words * bits(problem.a_kind), 8),
        "b": ceil_div(g * n * c * rows * columns * bits(problem.b_kind), 8),
        "accumulator": ceil_div(g * out_words * hw.precision.accumulator_bits, 8),
    }
    if masked:
        need["mask"] = ceil_div(g * m * c * taps, 8)
    return need


def largest_selection(
    problem: Problem, mask: Mask, slot: int, g: np.ndarray, m: np.ndarray, c: np.ndarray
) -> np.ndarray:
    """For tiles of g groups, m rows and c channels: selected elements of the fullest tile of the grid that they make.

    Tiles that have no more than `slot` elements are taken as full.
    """
    rows, channels = problem.m, problem.c
    found, where = np.unique(np.stack([g, m, c], axis=1), axis=0, return_inverse=True)
    fullest = found.prod(axis=1) * problem.taps
    large = np.flatnonzero(fullest > slot)
    corners = corner_sums(mask.matrix(), problem.taps) if large.size else np.empty((0, 0), np.int32)
    for i in large:
        groups, height, width = found[i]
        # Tiles of several groups hold all their rows.
        joined = np.arange(0, problem.groups, groups)[:, None] * rows
        first = (joined + np.arange(0, rows, height)).ravel()
        edges = np.append(first, problem.groups * rows), np.append(np.arange(0, channels, width), channels)
        fullest[i] = np.diff(np.diff(corners[np.ix_(*edges)], axis=0), axis=1).max()
    return fullest[where.reshape(-1)]


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


def _estimate(problem: Problem, dataflow: Dataflow, hw: Hardware, density: float, g, m, c, n, p, q):
    """Estimated cycles and DRAM bytes of each candidate, [2, candidates] (rows: loop orders)."""
    bits, taps, t = hw.precision.bits, max(problem.taps, 1), n * p * q
    lines = tap_lines(problem) if problem.role == TAPS else None
    grid = TileGrid(
        problem.role, g, m, c, t, taps, bits(problem.a_kind), bits(problem.b_kind), density=density, lines=lines,
        extents=(n, p, q), window=problem.window, stride=problem.stride,
    )  # fmt: skip
    tiles_g, tiles_m, tiles_c = ceil_div(problem.groups, g), ceil_div(problem.m, m), ceil_div(problem.c, c)
    tiles_t = ceil_div(problem.n, n) * ceil_div(problem.p, p) * ceil_div(problem.q, q)
    need = _footprints(problem, hw, False, g, m, c, n, p, q)
    nx, (ny, nz) = tiles_m, ((tiles_c, tiles_t) if problem.role == TAPS else (tiles_t, tiles_c))
    steps = tiles_g * nx * ny * nz
    compute = tile_cycles(dataflow.cost(grid, hw), grid, hw) * steps
    out_bytes = need["accumulator"] * bits(problem.out_kind) // hw.precision.accumulator_bits
    out_bytes = np.ceil(out_bytes * density).astype(np.int64)
    slots_a, slots_b = hw.buffers.a.slots, hw.buffers.b.slots
    total_cycles, total_bytes = [], []
    for swap in (False, True):
        a_kept, b_kept = (nx * nz, nz) if swap else (nz, ny * nz)
        a_loads = np.where(a_kept <= slots_a, tiles_g * nx * nz, steps)
        b_loads = np.where(b_kept <= slots_b, tiles_g * ny * nz, steps)
        read = a_loads * need["a"] + b_loads * need["b"]
        written = tiles_g * nx * ny * out_bytes
        bus_read, bus_write = hw.dram_cycles(read), hw.dram_cycles(written)
        latency = hw.dram_latency_cycles
        reading = (bus_read + (a_loads + b_loads) * latency) // hw.dma.read_channels
        writing = (bus_write + tiles_g * nx * ny * latency) // hw.dma.write_channels
        ends = hw.dram_cycles(need["a"] + need["b"]) + hw.dram_cycles(out_bytes) + 2 * latency
        busy = np.maximum(np.maximum(compute, bus_read + bus_write), np.maximum(reading, writing))
        total_cycles.append(busy + ends)
        total_bytes.append(read + written)
    return np.array(total_cycles), np.array(total_bytes)


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


def _does_not_fit(footprints, buffers, hw: Hardware) -> CapacityError:
    """The buffer that even the smallest candidate overflows, or all of them when no single one is to blame."""
    for key, need in footprints.items():
        if need.min() > buffers[key].slot_bytes:
            halves = "half of " if buffers[key].slots == 2 else ""
            return CapacityError(
                f"the smallest tile needs {int(need.min())} bytes in buffer {key!r}, but {hw.name} has "
                f"{buffers[key].slot_bytes} ({halves}{buffers[key].bytes} bytes); "
                f"raise buffers.{key}.bytes{' or switch off its double buffering' if halves else ''}"
            )
    shown = ", ".join(f"{key} {buffer.slot_bytes}" for key, buffer in buffers.items())
    return CapacityError(f"no tile fits the buffers of {hw.name} together (bytes per slot: {shown})")


def tile_starts(total: int, size: int) -> np.ndarray:
    return np.arange(0, total, size, dtype=np.int64)


def tile_extents(total: int, size: int) -> np.ndarray:
    """Extents of the tiles that cover `total`, the last one ragged."""
    return np.minimum(size, total - tile_starts(total, size))
