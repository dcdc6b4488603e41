"""What any simulation of a program must do at least: one visit to every task and dependency."""

from __future__ import annotations

import numpy as np

from npusim.jit import njit


@njit
def in_program_order(unit, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end):
    """As the engine's `schedule`, but tasks take their units in program order: no queues, no arbitration.

    Fills start, bus and end; returns the last end. Its times are not those of the machine.
    """
    free = np.zeros((capacity.size + 1, capacity.max()), np.int64)
    last = np.int64(0)
    for i in range(unit.size):
        ready = np.int64(0)
        for e in range(dep_ptr[i], dep_ptr[i + 1]):
            ready = max(ready, end[dep_idx[e]])
        u = min(unit[i], capacity.size)
        server = 0
        for s in range(1, capacity[u] if u < capacity.size else 1):
            if free[u, s] < free[u, server]:
                server = s
        start[i] = max(ready, free[u, server])
        bus[i] = max(start[i], free[0, 0]) if tail[i] > 0 else start[i]
        end[i] = bus[i] + cycles[i] + tail[i]
        if tail[i] > 0:
            free[0, 0] = bus[i] + cycles[i]
        free[u, server] = end[i]
        last = max(last, end[i])
    return last
