"""What a schedule says about each operation: waiting by cause, critical path. Arrays and scalars only."""

from __future__ import annotations

import numpy as np

from npusim.jit import njit
from npusim.program import ACCUMULATOR, FENCE, LOAD, NO_BUFFER, STORE


@njit
def waits(kind, op, dep_ptr, dep_idx, start, end, unit_kind, n_ops):
    """Cycles that the unit serving `unit_kind` waits inside each operation, by cause: int64 [n_ops, 2].

    Column 0: for a LOAD, column 1: for a STORE to free its accumulator slot. A wait lasts from the end of the
    unit's former task (or the operation's fence) to the start of the next; its cause is the LOAD or STORE
    dependency that ended last. The unit serves one task at a time, in program order.
    """
    found = np.zeros((n_ops, 2), np.int64)
    free = np.int64(0)
    for i in range(kind.size):
        if kind[i] == FENCE:
            free = end[i]
        if kind[i] != unit_kind:
            continue
        latest, cause = np.int64(-1), 0
        for e in range(dep_ptr[i], dep_ptr[i + 1]):
            d = dep_idx[e]
            if end[d] > latest and (kind[d] == LOAD or kind[d] == STORE):
                latest, cause = end[d], 1 if kind[d] == STORE else 0
        found[op[i], cause] += start[i] - free
        free = end[i]
    return found


@njit
def longest_path(cycles, tail, dep_ptr, dep_idx):
    """End of every task if no unit were ever shared: int64[n], a lower bound of every schedule."""
    finish = np.zeros(cycles.size, np.int64)
    for i in range(cycles.size):
        ready = np.int64(0)
        for e in range(dep_ptr[i], dep_ptr[i + 1]):
            ready = max(ready, finish[dep_idx[e]])
        finish[i] = ready + cycles[i] + tail[i]
    return finish


@njit
def first_refill_violation(kind, buffer, slot, dep_ptr, dep_idx):
    """The first task that refills a buffer slot without waiting for the last user of the old content; n if none.

    Operand and mask slots: users are the tasks that depend on the LOAD; they form a chain that runs in order, so
    waiting for the last one waits for all. Accumulator slots: the user is the first STORE after the task that
    filled it. Fences empty every slot.
    """
    n = kind.size
    filled = np.full((8, 256), -1, np.int64)
    last_user = np.full(n, -1, np.int64)
    unstored = -1
    for i in range(n):
        if kind[i] == FENCE:
            filled[:, :] = -1
            continue
        for e in range(dep_ptr[i], dep_ptr[i + 1]):
            if buffer[dep_idx[e]] != ACCUMULATOR:
                last_user[dep_idx[e]] = i
        if kind[i] == STORE and unstored >= 0:
            last_user[unstored] = i
            unstored = -1
        if buffer[i] == NO_BUFFER:
            continue
        old = filled[buffer[i], slot[i]]
        if old >= 0:
            waits_for = last_user[old] < 0
            for e in range(dep_ptr[i], dep_ptr[i + 1]):
                waits_for = waits_for or dep_idx[e] == last_user[old]
            if not waits_for:
                return i
        filled[buffer[i], slot[i]] = i
        if buffer[i] == ACCUMULATOR:
            unstored = i
    return n
