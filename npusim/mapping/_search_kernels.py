"""Simulates many tilings of one problem with ideal memory: geometry, tasks, schedule. Arrays and scalars only."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim.engine import _segment_kernels
from npusim.jit import njit
from npusim.mapping import _kernels
from npusim.program import LOAD, STORE

# Columns of a tiling as the kernel takes it.
G, M, C, N, P, Q, SWAP = range(7)


class Shape(NamedTuple):
    """A problem and its widths in bits. `taps_role`: the output is [m, c*taps] and pixels are reduced."""

    taps_role: bool
    groups: int
    m: int
    c: int
    taps: int
    n: int
    p: int
    q: int
    h: int
    w: int
    stride_h: int
    stride_w: int
    start_h: int
    start_w: int
    extent_h: int
    extent_w: int
    a_bits: int
    b_bits: int
    out_bits: int


class Memory(NamedTuple):
    """Ideal DRAM and DMA: a transfer of whole bursts takes ceil(bytes * cycles_per / bytes_per) bus cycles."""

    burst_bytes: int
    cycles_per: int
    bytes_per: int
    latency_cycles: int


@njit
def extents(total, size):
    tiles = (total + size - 1) // size
    found = np.full(tiles, size, np.int64)
    found[tiles - 1] = total - (tiles - 1) * size
    return found


@njit
def image_extents(total, size, image, stride, start, extent):
    """As `tiling.image_extents`."""
    found = extents(total, size)
    for i in range(found.size):
        if extent < stride:
            found[i] = min(found[i] * extent, image)
        else:
            first = i * size * stride + start
            low = min(max(first, 0), image)
            high = min(max(first + (found[i] - 1) * stride + extent, 0), image)
            found[i] = max(high - low, 1)
    return found


@njit
def _bytes(words, bits):
    return (words * bits + 7) // 8


@njit
def tables(shape, tiling, busy):
    """The arrays that `emit_tiles` takes for a tiling without a mask, but for masks and footprints.

    busy int64[2, 2, 2, 2, 2, 2] (or 1 where no tile is ragged): array cycles of a tile that is full (0) or ragged (1)
    along g, m, c, n, p, q.
    """
    g, m, c = extents(shape.groups, tiling[G]), extents(shape.m, tiling[M]), extents(shape.c, tiling[C])
    n, p, q = extents(shape.n, tiling[N]), extents(shape.p, tiling[P]), extents(shape.q, tiling[Q])
    rows = image_extents(shape.p, tiling[P], shape.h, shape.stride_h, shape.start_h, shape.extent_h)
    columns = image_extents(shape.q, tiling[Q], shape.w, shape.stride_w, shape.start_w, shape.extent_w)
    pixels = np.empty(n.size * p.size * q.size, np.int64)
    region, t_class = np.empty_like(pixels), np.empty((pixels.size, 3), np.int64)
    for t in range(pixels.size):
        i, j, k = t // (p.size * q.size), t // q.size % p.size, t % q.size
        pixels[t], region[t] = n[i] * p[j] * q[k], n[i] * rows[j] * columns[k]
        t_class[t] = n[i] < tiling[N], p[j] < tiling[P], q[k] < tiling[Q]
    classes = 1 if g[-1] == tiling[G] or g.size == 1 else 2
    g_class = np.zeros(g.size, np.int64)
    if classes == 2:
        g_class[-1] = 1
    ny, nz = (c.size, pixels.size) if shape.taps_role else (pixels.size, c.size)
    a_bytes, b_bytes = np.empty((classes, m.size, nz), np.int64), np.empty((classes, ny, nz), np.int64)
    out_bytes, cycles = np.empty((classes, m.size, ny), np.int64), np.empty((classes, m.size, ny, nz), np.int64)
    for gc in range(classes):
        groups = g[-1] if gc == classes - 1 else g[0]
        ragged_g = int(groups < tiling[G])
        for y in range(ny):
            for z in range(nz):
                i, t = (y, z) if shape.taps_role else (z, y)
                b_bytes[gc, y, z] = _bytes(groups * c[i] * region[t], shape.b_bits)
                ragged_c = int(c[i] < tiling[C])
                for x in range(m.size):
                    ragged_m = int(m[x] < tiling[M])
                    cycles[gc, x, y, z] = busy[
                        ragged_g, ragged_m, ragged_c, t_class[t, 0], t_class[t, 1], t_class[t, 2]
                    ]
        for x in range(m.size):
            for z in range(nz):
                reduced = pixels[z] if shape.taps_role else c[z] * shape.taps
                a_bytes[gc, x, z] = _bytes(groups * m[x] * reduced, shape.a_bits)
            for y in range(ny):
                width = c[y] * shape.taps if shape.taps_role else pixels[y]
                out_bytes[gc, x, y] = _bytes(groups * m[x] * width, shape.out_bits)
    return g_class, a_bytes, b_bytes, out_bytes, cycles


@njit
def simulate(shape, memory, slots, capacity, tiling, busy):
    """(cycles, bytes moved in whole bursts, tasks) of the problem alone with this tiling."""
    g_class, a_bytes, b_bytes, out_bytes, cycles = tables(shape, tiling, busy)
    none = np.zeros_like(out_bytes)
    tasks, deps = _kernels.emit_tiles(
        bool(tiling[SWAP]), g_class, a_bytes, b_bytes, none, out_bytes, none, cycles, slots
    )
    n = len(tasks)
    kinds, served, tail = np.empty(n, np.uint8), np.empty(n, np.int64), np.zeros(n, np.int64)
    dep_ptr, dep_idx = np.zeros(n + 1, np.int64), np.empty(n * deps.shape[1], np.int32)
    edges, moved = 0, 0
    for i in range(n):
        kind = tasks[i, _kernels.KIND]
        kinds[i], served[i] = kind, tasks[i, _kernels.CYCLES]
        if kind in (LOAD, STORE):
            whole = (tasks[i, _kernels.BYTES] + memory.burst_bytes - 1) // memory.burst_bytes * memory.burst_bytes
            moved += whole
            served[i] = (whole * memory.cycles_per + memory.bytes_per - 1) // memory.bytes_per
            tail[i] = memory.latency_cycles
        for d in range(deps.shape[1]):
            if deps[i, d] >= 0:
                dep_idx[edges] = deps[i, d]
                edges += 1
        dep_ptr[i + 1] = edges
    start, bus, end = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    _segment_kernels.schedule(kinds, served, tail, dep_ptr, dep_idx[:edges], capacity, start, bus, end)
    return end.max(), moved, n


@njit
def evaluate(shape, memory, slots, capacity, tilings, busy, bounds, task_counts, budget):
    """Cycles and bytes moved of `tilings` int64 [k, 7], in their order; -1 where one was not simulated.

    A tiling is left out when its lower bound `bounds` int64[k] cannot beat the fewest cycles so far, or when its
    tasks would pass what is left of `budget`. Returns int64 [2, k].
    """
    found = np.full((2, len(tilings)), -1, np.int64)
    best = np.iinfo(np.int64).max
    for i in range(len(tilings)):
        if bounds[i] >= best or task_counts[i] > budget:
            continue
        found[0, i], found[1, i], tasks = simulate(shape, memory, slots, capacity, tilings[i], busy[i])
        best = min(best, found[0, i])
        budget -= tasks
    return found
