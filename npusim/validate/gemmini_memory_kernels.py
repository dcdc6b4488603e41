"""Memory behind the Gemmini command model: when the reply to a request begins."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim.jit import njit

LINE_BYTES = 64
# Places of `port`.
REPLY, DRAM, RANDOM, PORTS = range(4)


class Memory(NamedTuple):
    """In-order memory; or, when `lines` is not empty, a write-back cache with random replacement and DRAM behind it.

    latency        cycles from acceptance to the first beat of the reply (of a hit)
    busy           cycles for which a request occupies its set: later ones to the set wait
    serve          least cycles between two requests that the cache takes
    miss           further cycles of a miss
    write_back     cycles for which a miss that must write a line back holds its register beyond its reply
    line_cycles    DRAM cycles per line, read or written back
    port[PORTS]    first cycle at which the reply channel (or the cache) and the DRAM are free; state of the replacement
    lines[sets, ways], dirty[sets, ways]   line number, and whether it must be written back
    set_free[sets] first cycle at which the set takes a request
    misses[n]      cycle at which each of the n miss registers is free
    """

    latency: int
    busy: int
    serve: int
    miss: int
    write_back: int
    line_cycles: int
    port: np.ndarray
    lines: np.ndarray
    dirty: np.ndarray
    set_free: np.ndarray
    misses: np.ndarray


@njit
def respond(memory, accepted, address, beats, earliest):
    """Cycle of the first beat of the reply; `beats` 0 is the reply to a write. Not before `earliest`."""
    if memory.set_free.size == 0:
        first = max(accepted + memory.latency, memory.port[REPLY], earliest)
        memory.port[REPLY] = first + max(beats, 1)
        return first
    return max(look_up(memory, accepted, address // LINE_BYTES, beats == 0), earliest)


@njit
def look_up(memory, accepted, line, write):
    """Cycle at which the cache answers a request."""
    place = line % memory.set_free.size
    taken = max(accepted, memory.port[REPLY])
    memory.port[REPLY] = taken + memory.serve
    start = max(taken, memory.set_free[place])
    for way in range(memory.lines.shape[1]):
        if memory.lines[place, way] == line:
            memory.dirty[place, way] |= write
            memory.set_free[place] = start + memory.busy
            return start + memory.latency
    register = 0
    for i in range(1, memory.misses.size):
        if memory.misses[i] < memory.misses[register]:
            register = i
    fetch = max(start, memory.misses[register], memory.port[DRAM])
    way = victim(memory)
    back = memory.dirty[place, way]
    memory.port[DRAM] = fetch + memory.line_cycles * (2 if back else 1)
    ready = fetch + memory.latency + memory.miss
    memory.misses[register] = ready + (memory.write_back if back else 0)
    memory.lines[place, way] = line
    memory.dirty[place, way] = write
    memory.set_free[place] = ready
    return ready


@njit
def victim(memory):
    """A way to replace, from a linear congruential sequence."""
    memory.port[RANDOM] = (memory.port[RANDOM] * 1103515245 + 12345) % (1 << 31)
    return (memory.port[RANDOM] >> 16) % memory.lines.shape[1]


@njit
def warm(memory, first, last):
    """Write lines first .. last - 1, as a processor that fills an array does before it starts the accelerator."""
    for line in range(first, last):
        place = line % memory.set_free.size
        way = victim(memory)
        for other in range(memory.lines.shape[1]):
            if memory.lines[place, other] == line:
                way = other
        memory.lines[place, way] = line
        memory.dirty[place, way] = True
