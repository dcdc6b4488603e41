"""Programs with ideal memory, segment by segment: what lies between two fences runs alone, often the same again."""

from __future__ import annotations

import numpy as np

from npusim.engine import _kernels
from npusim.engine._kernels import NOT_ENDED
from npusim.jit import njit
from npusim.program import COMPUTE, DMA_READ, DMA_WRITE, DRAM, FENCE, LOAD, STORE, VECTOR

# What a segment came to instead of the cycle in which it ended.
OUT_OF_ORDER, OPEN = -1, -2
UNKNOWN = 2**62
PRIME = 2**31 - 1


@njit
def closed(first, last, kind, cycles, dep_ptr, dep_idx):
    """Whether tasks [first, last) all wait for the fence before them (task `first` - 1, if any) and take time."""
    for i in range(first, last):
        nearest = -1
        for e in range(dep_ptr[i], dep_ptr[i + 1]):
            nearest = max(nearest, dep_idx[e])
        if nearest < first - 1 or (cycles[i] == 0 and kind[i] != FENCE):
            return False
    return True


@njit
def ready(task, dep_ptr, dep_idx, end):
    """Cycle in which all dependencies have ended; NOT_ENDED when the end of one is not known."""
    latest = np.int64(0)
    known = True
    for e in range(dep_ptr[task], dep_ptr[task + 1]):
        ended = end[dep_idx[e]]
        known &= ended != NOT_ENDED
        latest = max(latest, ended)
    return latest if known else np.int64(NOT_ENDED)


@njit
def first_free(servers, low, high):
    """Which of servers[low:high] is free first."""
    found = low
    for s in range(low + 1, high):
        if servers[s] < servers[found]:
            found = s
    return found


@njit
def in_order(first, last, now, kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end, lists, servers):
    """Fill start, bus and end of tasks [first, last), none of them a fence, as the event loop does, if loads, stores,
    and tasks of array and vector unit each become ready in program order; else OUT_OF_ORDER.

    Then each DMA direction serves its transfers in program order, and the bus merges two ordered streams. A transfer
    that waits for one that has no grant yet is ready only after that one's, so the earliest known request is the next.
    Array and vector unit work as one chain, in which each task is ready when the one before has ended or later.

    All units are free in cycle `now`; every task takes at least a cycle. lists int32[3, >= last - first] and servers
    int64[DMA channels] are overwritten. Returns the cycle in which the last task ends.
    """
    loads, stores, chain = lists[0], lists[1], lists[2]
    all_loads = all_stores = all_chain = 0
    for i in range(first, last):
        loads[all_loads] = stores[all_stores] = chain[all_chain] = i
        all_loads += kind[i] == LOAD
        all_stores += kind[i] == STORE
        all_chain += (kind[i] == COMPUTE) | (kind[i] == VECTOR)
        end[i] = NOT_ENDED
    reads = capacity[DMA_READ]
    servers[:] = now
    bus_free = chain_free = load_ready = store_ready = latest = now
    load = store = link = 0
    # When the next load and the next store get a channel, and which.
    load_granted = store_granted = UNKNOWN
    load_server, store_server = 0, reads
    while True:
        while link < all_chain:
            task = chain[link]
            begin = ready(task, dep_ptr, dep_idx, end)
            if begin == NOT_ENDED:
                break
            if begin < chain_free:
                return OUT_OF_ORDER
            start[task] = bus[task] = begin
            end[task] = chain_free = begin + cycles[task]
            link += 1
        if load_granted == UNKNOWN and load < all_loads:
            begin = ready(loads[load], dep_ptr, dep_idx, end)
            if begin != NOT_ENDED:
                if begin < load_ready:
                    return OUT_OF_ORDER
                load_ready = begin
                load_server = first_free(servers, 0, reads)
                load_granted = max(begin, servers[load_server])
        if store_granted == UNKNOWN and store < all_stores:
            begin = ready(stores[store], dep_ptr, dep_idx, end)
            if begin != NOT_ENDED:
                if begin < store_ready:
                    return OUT_OF_ORDER
                store_ready = begin
                store_server = first_free(servers, reads, servers.size)
                store_granted = max(begin, servers[store_server])
        asked = min(load_granted, store_granted)
        if asked == UNKNOWN:
            break
        # Who asked before the bus came free is served by program order; later ones in the order of asking.
        if (load_granted < bus_free and store_granted < bus_free) or load_granted == store_granted:
            is_load = loads[load] < stores[store]
        else:
            is_load = load_granted < store_granted
        begin = max(bus_free, asked)
        if is_load:
            task, server, granted = loads[load], load_server, load_granted
            load_granted = UNKNOWN
            load += 1
        else:
            task, server, granted = stores[store], store_server, store_granted
            store_granted = UNKNOWN
            store += 1
        start[task] = granted
        bus[task] = begin
        bus_free = begin + cycles[task]
        end[task] = servers[server] = bus_free + tail[task]
        latest = max(latest, end[task])
    return max(latest, chain_free) if load + store + link == last - first else OUT_OF_ORDER


@njit
def equal(a, b, length, kind, cycles, tail, dep_ptr, dep_idx):
    """Whether tasks [a, a + length) and [b, b + length) are the same, with dependencies as far behind them."""
    different = np.int64(0)
    edges_a, edges_b = dep_ptr[a], dep_ptr[b]
    for i in range(length):
        different |= (cycles[a + i] ^ cycles[b + i]) | (tail[a + i] ^ tail[b + i])
        different |= (dep_ptr[a + i + 1] - edges_a) ^ (dep_ptr[b + i + 1] - edges_b)
    for i in range(length):
        different |= np.int64(kind[a + i] ^ kind[b + i])
    if different:
        return False
    offset = np.int32(b - a)
    for e in range(dep_ptr[a + length] - edges_a):
        different |= np.int64((dep_idx[edges_a + e] + offset) ^ dep_idx[edges_b + e])
    return different == 0


@njit
def place(first, last, cycles, dep_ptr, table):
    """Where a search of the hash table for tasks [first, last) begins."""
    mixed = np.int64(last - first)
    for value in (dep_ptr[last] - dep_ptr[first], cycles[first], cycles[first + (last - first) // 2]):
        mixed = (mixed * 1_000_003 + value % PRIME) % PRIME
    return mixed % len(table)


@njit
def seen(first, last, kind, cycles, tail, dep_ptr, dep_idx, table):
    """First task of an earlier segment equal to [first, last); -1 if there is none, and then this one is noted.

    table int64[rows, 2]: first task of a segment and its end, -1 where empty; at most half of it may fill.
    """
    row = place(first, last, cycles, dep_ptr, table)
    while table[row, 0] >= 0:
        other = table[row, 0]
        length = table[row, 1] - other
        if length == last - first and equal(other, first, length, kind, cycles, tail, dep_ptr, dep_idx):
            return other
        row = (row + 1) % len(table)
    table[row, 0], table[row, 1] = first, last
    return np.int64(-1)


@njit
def shifted(first, length, source, cycles, column):
    """column[first : first + length] is that of `source`, so many `cycles` later."""
    for i in range(length):
        column[first + i] = column[source + i] + cycles


@njit
def simulate(first, last, now, kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end, lists, servers):
    """The segment [first, last), which a fence may end, in cycle `now`: its last cycle; OPEN if it is not closed."""
    if not closed(first, last, kind, cycles, dep_ptr, dep_idx):
        return np.int64(OPEN)
    fence = last - 1 if kind[last - 1] == FENCE else last
    latest = np.int64(OUT_OF_ORDER)
    if capacity[DRAM] == 1:
        latest = in_order(first, fence, now, kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end, lists,
                          servers)  # fmt: skip
    if latest == OUT_OF_ORDER:
        _kernels.events(first, fence, now, kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end, None)
        latest = now
        for i in range(first, fence):
            latest = max(latest, end[i])
    if fence < last:
        fired = ready(fence, dep_ptr, dep_idx, end)
        if fired < latest:
            return np.int64(OPEN)
        start[fence] = bus[fence] = end[fence] = fired
    return latest


@njit
def schedule(kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end):
    """Fill `start`, `bus` and `end` of all tasks as `_kernels.events` does without a MemoryState; returns tasks ended.

    When every task waits for the fence before it, and every fence for all tasks before, the machine is idle at each
    fence: what follows depends on nothing before but the cycle. Then segments that are equal have equal times but for a
    shift, and only one of them is simulated. Programs of other forms are simulated as a whole, event by event.
    """
    n = kind.size
    segments = longest = length = 0
    for i in range(n):
        length += 1
        if kind[i] == FENCE or i == n - 1:
            segments, longest, length = segments + 1, max(longest, length), 0
    table = np.full((2 * segments + 1, 2), -1, np.int64)
    lists = np.empty((3, longest), np.int32)
    servers = np.empty(capacity[DMA_READ] + capacity[DMA_WRITE], np.int64)
    # Not the constant 0: numba would compile what is called once more for it.
    first = zero = now = np.int64(0)
    for i in range(n):
        if kind[i] != FENCE and i < n - 1:
            continue
        last = i + 1
        # What comes before the first fence waits for none.
        source = seen(first, last, kind, cycles, tail, dep_ptr, dep_idx, table) if first > 0 else np.int64(-1)
        if source >= 0:
            later = now - end[source - 1]
            shifted(first, last - first, source, later, start)
            shifted(first, last - first, source, later, bus)
            shifted(first, last - first, source, later, end)
            now = end[i]
        else:
            now = simulate(first, last, now, kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end, lists,
                           servers)  # fmt: skip
            if now == OPEN:
                return _kernels.events(zero, n, zero, kind, cycles, tail, dep_ptr, dep_idx, capacity, start, bus, end,
                                       None)  # fmt: skip
        first = np.int64(last)
    return n
