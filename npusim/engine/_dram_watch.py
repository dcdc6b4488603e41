"""A finished schedule's transfers once more through a DRAM, watched from outside, clock by clock.

The order of effects in `_dram_kernels` makes any way of cutting a run into `run` calls give the same result, so running
one clock at a time shows what the engines' run did. What a clock did is read off the statistics of each channel; the
burst that a column command served is the entry that was freed last, which keeps its fields until it is taken again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from npusim.engine._dram_kernels import (
    TO_TIME,
    next_event,
    run,
    submit_segments,
)
from npusim.engine._dram_state import (
    C_RD,
    C_REF,
    C_REFB,
    C_WR,
    E_ARRIVE,
    E_BANK,
    E_WRITE,
    E_XFER,
    FAR,
    FREE,
    LEFT,
    N_DONE,
    NOW,
    RANK,
    RANKS,
    READ_LATENCY,
    STRIDE,
    UNISSUED,
    WRITE_LATENCY,
    X_DONE,
    kernel,
)

# Columns of a slice: data bus (counted through all channels), what, transfer, first clock, clock of its end, bursts.
L_BUS, L_WHAT, L_TRANSFER, L_START, L_END, L_BURSTS = range(6)
N_SLICE = 6
READ, WRITE, REFRESH = range(3)
# Columns of `Watched.cursor`.
SENT, WRITTEN = range(2)
# Results of `watch`: the log is full and wants to be emptied; all is done; two column commands of a channel in a clock.
FULL, ENDED, UNCLEAR = range(3)


class Watched(NamedTuple):
    """Transfers in the order in which they were handed over, and what is filled in.

    at, agent, order, first, pieces, write int64 [n]: clock, requester, place in program order, rows of the DRAM's
    segments, direction. by_agent int64 [n]: transfers sorted by requester, then clock; begin int64 [requesters + 1]:
    where each one's begin there. done int64 [n]: clock of completion. log int64 [slices, N_SLICE]; open_ int64
    [buses, N_SLICE]: the slice that may go on, L_TRANSFER -1 when there is none; seen int64 [channels, 3]: column
    commands and refreshes before this clock. shown bool [n]: whether its bursts are logged. scalars int64: buses per
    channel, clocks of a burst, of a refresh, gap within a slice.
    """

    at: np.ndarray
    agent: np.ndarray
    order: np.ndarray
    first: np.ndarray
    pieces: np.ndarray
    write: np.ndarray
    by_agent: np.ndarray
    begin: np.ndarray
    done: np.ndarray
    shown: np.ndarray
    log: np.ndarray
    open_: np.ndarray
    seen: np.ndarray
    cursor: np.ndarray
    scalars: np.ndarray


@kernel
def owner(w, agent, clock):
    """The transfer that requester `agent` was sending at `clock`: the last one handed over by then."""
    low, high = w.begin[agent], w.begin[agent + 1]
    while high - low > 1:
        middle = (low + high) >> 1
        if w.at[w.by_agent[middle]] <= clock:
            low = middle
        else:
            high = middle
    return w.by_agent[low]


@kernel
def note(w, bus, what, transfer, start, end):
    """Let the open slice of `bus` go on, or log it and open another one."""
    o = w.open_[bus]
    if o[L_TRANSFER] == transfer and o[L_WHAT] == what and start - o[L_END] <= w.scalars[3]:
        o[L_END] = max(end, o[L_END])
        o[L_BURSTS] += 1
        return
    flush(w, bus)
    o[L_BUS], o[L_WHAT], o[L_TRANSFER], o[L_START], o[L_END], o[L_BURSTS] = bus, what, transfer, start, end, 1


@kernel
def flush(w, bus):
    """Log the open slice of `bus`."""
    o = w.open_[bus]
    if o[L_TRANSFER] >= 0:
        for column in range(N_SLICE):
            w.log[w.cursor[WRITTEN], column] = o[column]
        w.cursor[WRITTEN] += 1
        o[L_TRANSFER] = -1


@kernel
def look(s, w, t):
    """Note what every channel did in clock `t`; False when a channel issued two column commands."""
    buses, burst = w.scalars[0], w.scalars[1]
    for ch in range(s.val.shape[0]):
        ref, val = s.ref[ch], s.val[ch]
        columns = val[C_RD] + val[C_WR]
        refreshes = val[C_REF] + val[C_REFB]
        if columns > w.seen[ch, 0] + 1:
            return False
        if columns > w.seen[ch, 0]:
            e = ref[FREE]
            write = ref[e + E_WRITE]
            end = t + (s.cfg[WRITE_LATENCY] if write else s.cfg[READ_LATENCY])
            x = owner(w, ref[e + E_XFER], val[e + E_ARRIVE])
            bus = ch * buses + ((np.int64(ref[ref[e + E_BANK] + RANK]) - ref[RANKS]) // STRIDE if buses > 1 else 0)
            if w.shown[x]:
                note(w, bus, WRITE if write else READ, x, end - burst, end)
        if refreshes > w.seen[ch, 1]:
            # Behind the buses of data, one row per channel; no transfer owns it: 0 stands for "open".
            note(w, s.val.shape[0] * buses + ch, REFRESH, 0, t, t + w.scalars[2])
        w.seen[ch, 0], w.seen[ch, 1] = columns, refreshes
    return True


@kernel
def watch(s, w):
    """Go on until the log is full or every burst has reached the device; returns FULL, ENDED or UNCLEAR."""
    most = w.log.shape[0] - w.open_.shape[0] - 2 * s.val.shape[0]
    while True:
        i = w.cursor[SENT]
        until = w.at[i] if i < w.at.size else FAR - 1
        t = next_event(s)
        if i == w.at.size and s.clock[LEFT] == 0 and s.clock[UNISSUED] == 0:
            for bus in range(w.open_.shape[0]):
                flush(w, bus)
            return ENDED
        if t < until:
            run(s, t + 1, TO_TIME)
            if not look(s, w, t):
                return UNCLEAR
        else:
            run(s, until, TO_TIME)
        for k in range(s.clock[N_DONE]):
            x = s.done[k]
            w.done[owner(w, x, s.xfer[x, X_DONE] - 1)] = s.xfer[x, X_DONE]
        s.clock[N_DONE] = 0
        while i < w.at.size and w.at[i] == s.clock[NOW] and t >= until:
            submit_segments(s, w.agent[i], w.order[i], w.first[i], w.pieces[i], w.write[i])
            i += 1
        w.cursor[SENT] = i
        if w.cursor[WRITTEN] >= most:
            return FULL
