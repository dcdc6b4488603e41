"""State of the Gemmini command model, and its reservation station: arrays and scalars only.

Rows of a command stream (int64 columns; addresses are rows of the scratchpad, accumulator rows from ACCUMULATOR on):

| queue | columns                                                                                                 |
|-------|---------------------------------------------------------------------------------------------------------|
| LD    | first and end local row, DRAM rows, bytes per row, DRAM address, stride, repeats of a row, block stride |
| EX    | weights, their end (-1: keep those present), sums, end, accumulate, inputs, end, rows, loads needed     |
| ST    | first and end accumulator row, DRAM rows, bytes per row, DRAM address, stride, blocks needed            |

A row of EX is a preload and the compute that follows it: two commands.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim.jit import njit
from npusim.validate.gemmini_memory_kernels import Memory

LD, EX, ST = range(3)
ACCUMULATOR = 1 << 20
NEVER = 1 << 60
# Columns of a reservation station slot.
VALID, READY, DONE, MASK, A_LO, A_HI, B_LO, B_HI, WRITES, ROW, ARRIVAL, SLOT_COLUMNS = range(12)
# Columns of a queue: commands allocated, issued, taken by the controller, slots in use, loop and place of the unroller.
ALLOCATED, ISSUED, TAKEN, USED, LOOP, INDEX, QUEUE_COLUMNS = range(7)
# Scalars of the state.
NOW, MOVED, LD_ROW, LD_OFFSET, LD_DATA, LD_FLYING, ST_ROW, W_OFFSET, W_BEATS, W_SLOT = range(10)
ROWS_READ, ROWS_WRITTEN = range(10, 12)
A_FREE, MERGER_FREE, EX_FREE, EX_SLOT, EX_NEXT, EX_ROWS, EX_A, EX_D, EX_BANK_A, EX_BANK_D, BLOCKS, FIRED = range(12, 24)
RING, CONFIGURED, CONFIG_READY, LAST, NEXT_DONE, READ_WAITS, READ_BYTES, WRITTEN_BYTES, SCALARS = range(24, 33)
CALENDAR = 4096
ORDER = 64
# Loops whose commands are kept: more than can be in the reservation station at once (16 EX entries are 8 blocks).
PARTS = 12


class Timing(NamedTuple):
    """Sizes and fixed latencies of the accelerator, in entries, rows, bytes and cycles."""

    entries: np.ndarray
    queue: np.ndarray
    block: int
    bus_bytes: int
    max_bytes: int
    commands_in_flight: int
    scratchpad_bank: int
    accumulator_bank: int
    first_config: int
    next_config: int
    config_commands: int
    request: int
    reply: int
    spad_write: int
    load_done: int
    mesh: int
    store_pipe: int
    store_rows: int
    write_reply: int
    end: int


class Machine(NamedTuple):
    """State of a run.

    slots[28, SLOT_COLUMNS]     reservation station: LD, EX, then ST entries
    queues[3, QUEUE_COLUMNS]    progress of each queue
    order[3, ORDER]             ring of slots in order of allocation
    read_free, write_free       cycle at which a DMA request slot is free
    rows[64, 3]                 ring of rows on their way to the writer: cycle ready, address, bytes
    busy[8, 3]                  ring of accumulating writes: bank, first and end cycle
    calendar[CALENDAR]          cycle * 8 + bank of DMA writes into the scratchpad
    ld, ex, st                  commands of PARTS consecutive loops (loop n in part n % PARTS)
    sizes[PARTS, 3]                commands of each part and queue
    ends[loops]                 cycle at which the last command of each loop was emitted
    """

    timing: Timing
    memory: Memory
    slots: np.ndarray
    queues: np.ndarray
    order: np.ndarray
    read_free: np.ndarray
    write_free: np.ndarray
    rows: np.ndarray
    busy: np.ndarray
    calendar: np.ndarray
    ld: np.ndarray
    ex: np.ndarray
    st: np.ndarray
    sizes: np.ndarray
    ends: np.ndarray
    scalar: np.ndarray


@njit
def kind_of(m, slot):
    """Queue of a reservation station slot."""
    first, second = m.timing.entries[LD], m.timing.entries[EX]
    return LD if slot < first else (EX if slot < first + second else ST)


@njit
def overlap(lo, hi, other_lo, other_hi):
    return lo < other_hi and other_lo < hi


@njit
def allocate(m, queue, row, a_lo, a_hi, b_lo, b_hi, writes):
    """Put a command into a free slot; it may issue two cycles later. Its mask has the slots it must wait for."""
    slots, q = m.slots, m.queues[queue]
    slot = -1
    mask = 0
    for other in range(slots.shape[0]):
        kind = kind_of(m, other)
        e = slots[other]
        if e[VALID] == 0:
            if kind == queue and slot < 0:
                slot = other
            continue
        if kind == queue:
            continue
        hit = overlap(a_lo, a_hi, e[A_LO], e[A_HI])
        if queue == LD:
            hit = hit or (kind == EX and overlap(a_lo, a_hi, e[B_LO], e[B_HI]))
        elif queue == EX:
            hit = (hit or overlap(b_lo, b_hi, e[A_LO], e[A_HI])) if kind == LD else (hit and writes)
        elif kind == EX:
            hit = hit and e[WRITES] == 1
        if hit:
            mask |= 1 << other
    e = slots[slot]
    e[VALID], e[READY], e[DONE], e[MASK] = 1, m.scalar[NOW] + 2, NEVER, mask
    e[A_LO], e[A_HI], e[B_LO], e[B_HI] = a_lo, a_hi, b_lo, b_hi
    e[WRITES], e[ROW], e[ARRIVAL] = 1 if writes else 0, row, NEVER
    m.order[queue, q[ALLOCATED] % ORDER] = slot
    q[USED] += 1
    q[ALLOCATED] += 1
    m.scalar[MOVED] = 1


@njit
def finish(m, slot, cycle):
    """The command in `slot` will be done at `cycle`."""
    m.slots[slot, DONE] = cycle
    m.scalar[NEXT_DONE] = min(m.scalar[NEXT_DONE], cycle)


@njit
def complete(m):
    """Free the slots of commands that are done and clear them from all masks."""
    slots, now = m.slots, m.scalar[NOW]
    if now < m.scalar[NEXT_DONE]:
        return
    cleared = 0
    following = NEVER
    for slot in range(slots.shape[0]):
        if slots[slot, VALID] == 1:
            if slots[slot, DONE] <= now:
                slots[slot, VALID] = 0
                kind = kind_of(m, slot)
                m.queues[kind, USED] -= 1
                if kind == LD:
                    m.scalar[LD_FLYING] -= 1
                cleared |= 1 << slot
            elif slots[slot, DONE] < following:
                following = slots[slot, DONE]
    for slot in range(slots.shape[0]):
        slots[slot, MASK] &= ~cleared
    m.scalar[NEXT_DONE] = following
    m.scalar[MOVED] = 1


@njit
def issue(m):
    """Hand the oldest waiting command of each queue to its controller when nothing it depends on is left."""
    now = m.scalar[NOW]
    for queue in range(3):
        q = m.queues[queue]
        if q[ISSUED] == q[ALLOCATED] or q[ISSUED] - q[TAKEN] >= m.timing.queue[queue]:
            continue
        e = m.slots[m.order[queue, q[ISSUED] % ORDER]]
        if e[MASK] == 0 and e[READY] <= now:
            e[ARRIVAL] = now + 1
            q[ISSUED] += 1
            m.scalar[MOVED] = 1


@njit
def head(m, queue, place):
    """Slot of the command at `place` of the controller's queue, or -1."""
    q = m.queues[queue]
    at = q[TAKEN] + place
    if at >= q[ISSUED]:
        return -1
    slot = m.order[queue, at % ORDER]
    return slot if m.slots[slot, ARRIVAL] <= m.scalar[NOW] else -1
