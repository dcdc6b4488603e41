"""Emission of tasks: loops over tiles with buffer slots as tags; sums of masks. Arrays and scalars only."""

from __future__ import annotations

import numpy as np

from npusim.jit import njit
from npusim.program import (
    ACCUMULATOR,
    BUFFER_A,
    BUFFER_B,
    COMPUTE,
    LOAD,
    MASK_BUFFER,
    NO_BUFFER,
    STORE,
    VECTOR,
)

# Columns of the task table that the kernels write (TILE: which tile of its operand a LOAD or STORE moves);
# dependencies go to a second table of up to MAX_DEPS columns.
KIND, CYCLES, BYTES, BUFFER, SLOT, FOOTPRINT, TILE, FIELDS = range(8)
MAX_DEPS = 5
# Buffers whose loads are counted.
FILLED = (BUFFER_A, BUFFER_B, MASK_BUFFER)
# Rows of the slot state: tag held, load task, last task that used it, when it was last needed.
TAG, LOADED, USED, STAMP = range(4)


@njit
def _task(tasks, deps, n, kind, cycles, size, buffer, slot, footprint, tile):
    tasks[n, KIND] = kind
    tasks[n, CYCLES] = cycles
    tasks[n, BYTES] = size
    tasks[n, BUFFER] = buffer
    tasks[n, SLOT] = slot
    tasks[n, FOOTPRINT] = footprint
    tasks[n, TILE] = tile
    for d in range(MAX_DEPS):
        deps[n, d] = -1
    return n + 1


@njit
def _fetch(tasks, deps, n, state, tag, size, buffer, stamp):
    """Make `tag` present in a slot of `state`; returns (next task, slot). Refills the least recently needed."""
    victim = 0
    for s in range(state.shape[0]):
        if state[s, TAG] == tag:
            state[s, STAMP] = stamp
            return n, s
        if state[s, STAMP] < state[victim, STAMP]:
            victim = s
    used = state[victim, USED]
    state[victim, TAG], state[victim, LOADED], state[victim, USED], state[victim, STAMP] = tag, n, -1, stamp
    n = _task(tasks, deps, n, LOAD, 0, size, buffer, victim, size, tag)
    deps[n - 1, 0] = used
    return n, victim


@njit
def _slots(count):
    state = np.full((count, 4), -1, np.int64)
    return state


@njit
def emit_tiles(swap, g_class, a_bytes, b_bytes, mask_bytes, out_bytes, out_footprint, cycles, slots):
    """Tasks of one problem: for every group tile, for x, for y (y before x when `swap`), for z: compute (x, y, z).

    The output tile (x, y) accumulates over z. Arrays have one leading row per class of group tile (`g_class`
    int64[ng] gives the row): a_bytes [., nx, nz], b_bytes [., ny, nz], mask_bytes, out_bytes, out_footprint
    [., nx, ny], cycles [., nx, ny, nz] (0: the tile is dropped with its loads). slots: int64[4] of buffers a,
    b, accumulator, mask. Returns (tasks, deps) tables; a dependency of -1 means none (the caller ties tasks
    that have none to the opening fence).
    """
    nx, ny, nz = cycles.shape[1:]
    bound = g_class.size * nx * ny * (3 * nz + 2)
    tasks = np.empty((bound, FIELDS), np.int64)
    deps = np.empty((bound, MAX_DEPS), np.int64)
    a, b, mask = _slots(slots[0]), _slots(slots[1]), _slots(slots[3])
    stored = np.full(slots[2], -1, np.int64)
    outputs, last, n, stamp = 0, -1, 0, 0
    for step in range(g_class.size * nx * ny):
        group, g, within = step // (nx * ny), g_class[step // (nx * ny)], step % (nx * ny)
        x, y = (within % nx, within // nx) if swap else (within // ny, within % ny)
        result = (group * nx + x) * ny + y
        slot, before, computed = outputs % slots[2], stored[outputs % slots[2]], -1
        for z in range(nz):
            if cycles[g, x, y, z] == 0:
                continue
            stamp += 1
            n, sa = _fetch(tasks, deps, n, a, (group * nx + x) * nz + z, a_bytes[g, x, z], BUFFER_A, stamp)
            n, sb = _fetch(tasks, deps, n, b, (group * ny + y) * nz + z, b_bytes[g, y, z], BUFFER_B, stamp)
            sm = -1
            if mask_bytes[g, x, y] > 0:
                n, sm = _fetch(tasks, deps, n, mask, result, mask_bytes[g, x, y], MASK_BUFFER, stamp)
            first = computed < 0
            n = _task(tasks, deps, n, COMPUTE, cycles[g, x, y, z], 0, ACCUMULATOR if first else NO_BUFFER,
                      slot if first else 0, out_footprint[g, x, y] if first else 0, result)  # fmt: skip
            computed = n - 1
            deps[computed, 0], deps[computed, 1], deps[computed, 2] = last, a[sa, LOADED], b[sb, LOADED]
            a[sa, USED] = b[sb, USED] = last = computed
            if sm >= 0:
                deps[computed, 3] = mask[sm, LOADED]
                mask[sm, USED] = computed
            if first:
                deps[computed, 4] = before
        if out_bytes[g, x, y] > 0:
            n = _task(tasks, deps, n, STORE, 0, out_bytes[g, x, y], NO_BUFFER, 0, 0, result)
            deps[n - 1, 0] = computed
            stored[slot] = n - 1
            outputs += 1
    return tasks[:n], deps[:n]


@njit
def emit_stream(chunks, passes, a_bytes, b_bytes, out_bytes, cycles, slots):
    """Tasks of one vector operation: `passes` sweeps over `chunks` chunks, results stored in the last sweep.

    a_bytes, b_bytes, out_bytes, cycles int64[chunks] (0 bytes: no such load or store); slots as in emit_tiles.
    """
    bound = chunks * passes * 4
    tasks = np.empty((bound, FIELDS), np.int64)
    deps = np.empty((bound, MAX_DEPS), np.int64)
    a, b = _slots(slots[0]), _slots(slots[1])
    stored = np.full(slots[2], -1, np.int64)
    last, n, stamp = -1, 0, 0
    for sweep in range(passes):
        for i in range(chunks):
            stamp += 1
            sa = sb = -1
            if a_bytes[i] > 0:
                n, sa = _fetch(tasks, deps, n, a, i, a_bytes[i], BUFFER_A, stamp)
            if b_bytes[i] > 0:
                n, sb = _fetch(tasks, deps, n, b, i, b_bytes[i], BUFFER_B, stamp)
            writes = sweep == passes - 1 and out_bytes[i] > 0
            slot = i % slots[2]
            n = _task(tasks, deps, n, VECTOR, cycles[i], 0, ACCUMULATOR if writes else NO_BUFFER,
                      slot if writes else 0, out_bytes[i] if writes else 0, i)  # fmt: skip
            deps[n - 1, 0] = last
            last = n - 1
            if sa >= 0:
                deps[last, 1] = a[sa, LOADED]
                a[sa, USED] = last
            if sb >= 0:
                deps[last, 2] = b[sb, LOADED]
                b[sb, USED] = last
            if writes:
                deps[last, 3] = stored[slot]
                n = _task(tasks, deps, n, STORE, 0, out_bytes[i], NO_BUFFER, 0, 0, i)
                deps[n - 1, 0] = last
                stored[slot] = n - 1
    return tasks[:n], deps[:n]


@njit
def columns(tasks, deps, burst):
    """The columns of `builder.Stretch` for task and dependency tables; a burst of DRAM has `burst` bytes."""
    n = len(tasks)
    kind, buffer, slot = np.empty(n, np.uint8), np.empty(n, np.uint8), np.empty(n, np.uint8)
    cycles, moved, footprint = np.empty(n, np.int64), np.zeros(n, np.int64), np.empty(n, np.int64)
    counts, flat, ends = np.empty(n, np.int64), np.empty(n * MAX_DEPS, np.int64), np.empty(n, np.int64)
    traffic = np.zeros(6, np.int64)
    edges, stores, busy = 0, 0, -1
    for i in range(n):
        kind[i], cycles[i], footprint[i] = tasks[i, KIND], tasks[i, CYCLES], tasks[i, FOOTPRINT]
        buffer[i], slot[i] = tasks[i, BUFFER], tasks[i, SLOT]
        before = edges
        for d in range(MAX_DEPS):
            if deps[i, d] >= 0:
                flat[edges] = deps[i, d]
                edges += 1
        if edges == before:
            flat[edges] = -1
            edges += 1
        counts[i] = edges - before
        size = tasks[i, BYTES]
        if kind[i] == LOAD or kind[i] == STORE:
            moved[i] = (size + burst - 1) // burst * burst
        else:
            busy = i
        if kind[i] == LOAD:
            traffic[0] += moved[i]
            for k in range(3):
                traffic[3 + k] += size if tasks[i, BUFFER] == FILLED[k] else 0
        elif kind[i] == STORE:
            traffic[1] += moved[i]
            traffic[2] += size
            ends[stores] = i
            stores += 1
    if busy >= 0:
        ends[stores] = busy
        stores += 1
    return kind, cycles, moved, buffer, slot, footprint, counts, flat[:edges].copy(), ends[:stores].copy(), traffic


@njit
def corner_sums(bits, taps):
    """Selected elements above and left of each corner of rows and channels: int32 [K + 1, C + 1] from [K, C*taps]."""
    channels = bits.shape[1] // taps
    corners = np.zeros((bits.shape[0] + 1, channels + 1), np.int32)
    for row in range(bits.shape[0]):
        left = np.int32(0)
        for channel in range(channels):
            for tap in range(taps):
                left += np.int32(bits[row, channel * taps + tap])
            corners[row + 1, channel + 1] = corners[row, channel + 1] + left
    return corners


@njit
def touched(segments, burst):
    """Bursts of `burst` bytes that each segment (address, bytes, rows, stride) touches, int64[s]."""
    found = np.zeros(segments.shape[0], np.int64)
    for i in range(segments.shape[0]):
        size, stride = segments[i, 1], segments[i, 3]
        for r in range(segments[i, 2]):
            address = segments[i, 0] + r * stride
            found[i] += (address + size - 1) // burst - address // burst + 1
    return found
