"""The event loop of the fast engine: arrays and scalars only."""

from __future__ import annotations

import numpy as np

from npusim.jit import njit
from npusim.program import DMA_READ, DMA_WRITE, DRAM

NO_UNIT = 255
# What a running slot waits for: the end of service on the bus, or the end of the task.
BUS_DONE, TASK_DONE = 0, 1


@njit
def heap_push(heap, base, size, task):
    """Insert `task` into the min-heap heap[base : base + size]; returns the new size."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if heap[base + parent] <= task:
            break
        heap[base + i] = heap[base + parent]
        i = parent
    heap[base + i] = task
    return size + 1


@njit
def heap_pop(heap, base, size):
    """Remove the smallest task; it stays at heap[base + size - 1]. Returns the new size."""
    top = heap[base]
    size -= 1
    last = heap[base + size]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= size:
            break
        if child + 1 < size and heap[base + child + 1] < heap[base + child]:
            child += 1
        if heap[base + child] >= last:
            break
        heap[base + i] = heap[base + child]
        i = child
    heap[base + i] = last
    heap[base + size] = top
    return size


@njit
def successors(dep_ptr, dep_idx):
    """Reverse the CSR dependencies: successors of task i are idx[ptr[i] : ptr[i + 1]], ascending."""
    n = dep_ptr.size - 1
    ptr = np.zeros(n + 1, np.int64)
    for e in range(dep_idx.size):
        ptr[dep_idx[e] + 1] += 1
    for i in range(n):
        ptr[i + 1] += ptr[i]
    at = ptr[:-1].copy()
    idx = np.empty(dep_idx.size, np.int32)
    for i in range(n):
        for e in range(dep_ptr[i], dep_ptr[i + 1]):
            d = dep_idx[e]
            idx[at[d]] = i
            at[d] += 1
    return ptr, idx


@njit
def schedule(unit, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end):
    """Fill `start` (unit granted), `bus` (DRAM bus granted) and `end` of every task; returns tasks ended.

    unit uint8[n] (NO_UNIT for a fence), capacity int64[5]; the other columns as in TileProgram.
    The order of effects inside one cycle is the time rule: everything that ends or becomes ready first,
    until nothing changes; then one grant per free unit to its oldest request; then again.
    """
    n = unit.size
    succ_ptr, succ_idx = successors(dep_ptr, dep_idx)
    waiting = np.empty(n, np.int32)
    units = capacity.size
    base = np.zeros(units + 1, np.int64)
    for i in range(n):
        waiting[i] = dep_ptr[i + 1] - dep_ptr[i]
        if unit[i] != NO_UNIT:
            base[unit[i] + 1] += 1
    base[DRAM + 1] = capacity[DMA_READ] + capacity[DMA_WRITE]
    for u in range(units):
        base[u + 1] += base[u]
    heap = np.empty(base[units], np.int32)
    queued = np.zeros(units, np.int64)
    free = capacity.copy()
    slots = capacity.sum()
    run_time = np.empty(slots, np.int64)
    run_task = np.empty(slots, np.int32)
    run_stage = np.empty(slots, np.uint8)
    running = 0
    # Tasks whose dependencies have ended; fences end on the spot, so this is a stack, not a loop over n.
    stack = np.empty(n, np.int32)
    depth = 0
    for i in range(n - 1, -1, -1):
        if waiting[i] == 0:
            stack[depth] = i
            depth += 1
    now = 0
    ended = 0
    while True:
        while True:
            # Request phase.
            i = 0
            while i < running:
                if run_time[i] != now:
                    i += 1
                    continue
                task = run_task[i]
                if run_stage[i] == BUS_DONE:
                    free[DRAM] += 1
                    run_stage[i] = TASK_DONE
                    run_time[i] = now + tail[task]
                    continue
                running -= 1
                run_time[i], run_task[i], run_stage[i] = run_time[running], run_task[running], run_stage[running]
                free[unit[task]] += 1
                end[task] = now
                ended += 1
                for e in range(succ_ptr[task], succ_ptr[task + 1]):
                    s = succ_idx[e]
                    waiting[s] -= 1
                    if waiting[s] == 0:
                        stack[depth] = s
                        depth += 1
            while depth > 0:
                depth -= 1
                task = stack[depth]
                u = unit[task]
                if u != NO_UNIT:
                    queued[u] = heap_push(heap, base[u], queued[u], task)
                    continue
                start[task] = now
                bus[task] = now
                end[task] = now
                ended += 1
                for e in range(succ_ptr[task], succ_ptr[task + 1]):
                    s = succ_idx[e]
                    waiting[s] -= 1
                    if waiting[s] == 0:
                        stack[depth] = s
                        depth += 1
            # Grant phase.
            granted = False
            for u in range(units):
                if free[u] == 0 or queued[u] == 0:
                    continue
                granted = True
                free[u] -= 1
                queued[u] = heap_pop(heap, base[u], queued[u])
                task = heap[base[u] + queued[u]]
                if u == DRAM:
                    bus[task] = now
                else:
                    start[task] = now
                    if u in (DMA_READ, DMA_WRITE):
                        queued[DRAM] = heap_push(heap, base[DRAM], queued[DRAM], task)
                        continue
                    bus[task] = now
                run_time[running] = now + cycles[task]
                run_task[running] = task
                run_stage[running] = BUS_DONE if u == DRAM else TASK_DONE
                running += 1
            if not granted:
                break
        if running == 0:
            return ended
        now = run_time[0]
        for i in range(1, running):
            if run_time[i] < now:
                now = run_time[i]
