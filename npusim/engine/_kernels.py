"""The event loop of the fast engine: arrays and scalars only, and the DRAM's state when its commands are simulated."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim.engine import _dram_kernels as dram
from npusim.engine._dram_state import FAR, N_DONE, X_DONE, DramState
from npusim.jit import njit
from npusim.program import DMA_READ, DMA_WRITE, DRAM, FENCE, LOAD, STORE, UNIT_OF_KIND

# What a running slot waits for: the end of service on the bus, or the end of the task.
BUS_DONE, TASK_DONE = 0, 1
FREE = -1
NOBODY = -1
NOT_ENDED = -1


class MemoryState(NamedTuple):
    """The DRAM, `num` / `den` of its clocks per core cycle, the segments of every task and what is filled in.

    op int32[n]; first, pieces int64[n]: rows of `dram.segments`; channel int64[DMA channels]: the task that holds it;
    snapshots int64[ops, counted]: what the DRAM had counted when the operation's first fence ended (`noted` bool[ops]);
    columns: which of its statistics.
    """

    dram: DramState
    num: int
    den: int
    op: np.ndarray
    first: np.ndarray
    pieces: np.ndarray
    channel: np.ndarray
    columns: np.ndarray
    noted: np.ndarray
    snapshots: np.ndarray


@njit
def begin_transfer(memory, task, write, reads):
    """Hand the bytes of `task` to the lowest free DMA channel of its direction."""
    x = reads if write else 0
    while memory.channel[x] != FREE:
        x += 1
    memory.channel[x] = task
    dram.submit_segments(memory.dram, x, task, memory.first[task], memory.pieces[task], write)


@njit
def free_channel(memory, task):
    """The DMA channel of `task` takes another one."""
    for x in range(memory.channel.size):
        if memory.channel[x] == task:
            memory.channel[x] = FREE


@njit
def collect(memory, tail, run_time, run_task, run_stage, running):
    """Transfers that the DRAM has completed end when the core sees it, and `tail` later; returns `running`."""
    s = memory.dram
    for i in range(s.clock[N_DONE]):
        task = memory.channel[s.done[i]]
        run_time[running] = -(-s.xfer[s.done[i], X_DONE] * memory.den // memory.num) + tail[task]
        run_task[running] = task
        run_stage[running] = TASK_DONE
        running += 1
    s.clock[N_DONE] = 0
    return running


@njit
def earliest(run_time, running):
    """The next time at which a slot ends; FAR when none runs."""
    now = FAR
    for i in range(running):
        if run_time[i] < now:
            now = run_time[i]
    return now


@njit
def note(memory, task):
    """Keep what the DRAM has counted when the first fence of an operation ends."""
    op = memory.op[task]
    if not memory.noted[op]:
        memory.noted[op] = True
        dram.count(memory.dram, memory.columns, memory.snapshots[op])


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
def events(first, last, now, kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end, memory):
    """Fill `start` (unit granted), `bus` (DRAM bus granted) and `end` of tasks [first, last); returns tasks ended.

    All units are free in cycle `now`, in which every task before `first` has ended. capacity int64[5] in the
    order of program.UNIT_NAMES; columns as in TileProgram. `memory` is a MemoryState, or None for the DRAM bus
    of `ideal` memory; the compiler drops what belongs to the other one.
    The order of effects inside one cycle is the time rule: everything that ends or becomes ready first,
    until nothing changes; then one grant per free unit to its oldest request; then again.
    """
    units = capacity.size
    base = np.zeros(units + 1, np.int64)
    for i in range(first, last):
        if kind[i] != FENCE:
            base[UNIT_OF_KIND[kind[i]] + 1] += 1
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
    moving = 0
    # A task waits in the list of one dependency that has not ended (`waiter` of it, then `behind`); when that one
    # ends it goes to the next such list. Fences that are ready form a list of their own: they end on the spot.
    waiter = np.full(last - first, NOBODY, np.int32)
    behind = np.empty(last - first, np.int32)
    fences = NOBODY
    for i in range(first, last):
        end[i] = NOT_ENDED
        nearest = -1
        for e in range(dep_ptr[i], dep_ptr[i + 1]):
            nearest = max(nearest, dep_idx[e])
        if nearest >= first:
            behind[i - first] = waiter[nearest - first]
            waiter[nearest - first] = i
        elif kind[i] == FENCE:
            behind[i - first] = fences
            fences = i
        else:
            u = UNIT_OF_KIND[kind[i]]
            queued[u] = heap_push(heap, base[u], queued[u], i)
    ended = 0
    while True:
        while True:
            # Request phase.
            r = 0
            while fences != NOBODY or r < running:
                if fences != NOBODY:
                    task = fences
                    fences = behind[task - first]
                    start[task] = now
                    bus[task] = now
                    if memory is not None:
                        note(memory, task)
                else:
                    if run_time[r] != now:
                        r += 1
                        continue
                    task = run_task[r]
                    if run_stage[r] == BUS_DONE:
                        free[DRAM] += 1
                        run_stage[r] = TASK_DONE
                        run_time[r] = now + tail[task]
                        continue
                    running -= 1
                    run_time[r], run_task[r], run_stage[r] = run_time[running], run_task[running], run_stage[running]
                    free[UNIT_OF_KIND[kind[task]]] += 1
                    if memory is not None and (kind[task] == LOAD or kind[task] == STORE):
                        free_channel(memory, task)
                end[task] = now
                ended += 1
                waiting = waiter[task - first]
                while waiting != NOBODY:
                    i, waiting = waiting, behind[waiting - first]
                    e = dep_ptr[i]
                    while e < dep_ptr[i + 1] and end[dep_idx[e]] != NOT_ENDED:
                        e += 1
                    if e < dep_ptr[i + 1]:
                        behind[i - first] = waiter[dep_idx[e] - first]
                        waiter[dep_idx[e] - first] = i
                    elif kind[i] == FENCE:
                        behind[i - first] = fences
                        fences = i
                    else:
                        u = UNIT_OF_KIND[kind[i]]
                        queued[u] = heap_push(heap, base[u], queued[u], i)
            # Grant phase. Another round follows when there is something left for it.
            again = False
            for u in range(units):
                if free[u] == 0 or queued[u] == 0:
                    continue
                free[u] -= 1
                queued[u] = heap_pop(heap, base[u], queued[u])
                task = heap[base[u] + queued[u]]
                again = again or (free[u] > 0 and queued[u] > 0)
                if u == DRAM:
                    bus[task] = now
                else:
                    start[task] = now
                    if u in (DMA_READ, DMA_WRITE):
                        if memory is not None:
                            bus[task] = now
                            begin_transfer(memory, task, u == DMA_WRITE, capacity[DMA_READ])
                            moving += 1
                            continue
                        queued[DRAM] = heap_push(heap, base[DRAM], queued[DRAM], task)
                        again = True
                        continue
                    bus[task] = now
                again = again or cycles[task] == 0
                run_time[running] = now + cycles[task]
                run_task[running] = task
                run_stage[running] = BUS_DONE if u == DRAM else TASK_DONE
                running += 1
            if not again:
                break
        following = earliest(run_time, running)
        if memory is not None:
            # To the next transfer that ends before the core's next event, until there is none; then to that event.
            # One call: with it the compiler takes in the whole DRAM.
            stop = moving > 0
            while True:
                moving -= memory.dram.clock[N_DONE]
                running = collect(memory, tail, run_time, run_task, run_stage, running)
                following = earliest(run_time, running)
                stop = stop and moving > 0
                if not stop and following == FAR:
                    break
                until = FAR - 1 if following == FAR else following * memory.num // memory.den
                if not stop:
                    until = -(-following * memory.num // memory.den)
                dram.run(memory.dram, until, dram.TO_TRANSFER if stop else dram.TO_TIME)
                if not stop:
                    break
                stop = memory.dram.clock[N_DONE] > 0
        if following == FAR:
            return ended
        now = following
