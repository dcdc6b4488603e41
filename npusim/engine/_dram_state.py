"""State of the DRAM model and the moves every controller policy shares: timing, bank queues, completions.

All times are int64 clocks of the command bus. One channel holds `n_banks` banks numbered rank-major, then bank group,
then bank; what a standard calls pseudo-channel is a rank here. Entries are bursts that a controller holds; they live in
slots of `entry` and are linked per bank and pool in `queue`. Everything that is not an array index is in `cfg`.

| array | shape | content |
|---|---|---|
| `cfg` | `N_CFG` | policy, sizes, latencies |
| `amap` | 6, 6 | per field (channel .. column): shift, mask, shift and mask of a second piece, its place, XOR shift |
| `rules` | command, rule, 3 | what a command forbids: scope, command after it, distance; `NO_RULE` ends the list |
| `geom` | bank, 4 | a bank's units in `ready` by scope (itself, its bank group, its rank), and the number of its rank |
| `chan` | channel, `N_CHAN` | scalars of one channel |
| `ready` | channel, unit, command | earliest clock by what was issued to the unit: banks, bank groups, then ranks |
| `acts` | channel, rank, window + 1 | ring of the last activates, its next place last |
| `rank` | channel, rank, `N_RANK` | open banks, active requests, idle clocks |
| `bank` | channel, bank, `N_BANK` | open row, hits since activate, active requests |
| `queue` | channel, pool * bank, `N_QUEUE` | linked list of a bank's entries and the commands it could use next |
| `when` | channel, pool * bank | bound: before that clock no candidate of a bank queue can issue |
| `entry` | channel, slot, `N_ENTRY` | one burst |
| `fifo` | channel, pool, `N_FIFO` | linked list of transactions in order of arrival; see `first_movable` |
| `bucket` | channel, hash | linked list of the entries whose burst can be asked for, by hashed burst number |
| `xfer`, `agent` | id, columns | transfers and the in-order requesters that issue them |
| `ring`, `ring_at` | kind, place, 2 | completions in order of time: clock and transfer |
| `clock`, `done`, `stats`, `lists` | | scalars, finished transfers, statistics per channel, bursts of list transfers |
| `segments` | segment, 4 | address, bytes, rows, stride: what transfers of several pieces move |
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from npusim.jit import njit

# No kernel allocates, so none needs numba's reference counts: with them, passing the state costs more than the model.
kernel = partial(njit, _nrt=False, error_model="numpy")
inlined = partial(kernel, forceinline=True)

NEVER = -(1 << 50)
FAR = 1 << 60
HASH_MASK = 2047

# Commands. PREA is precharge-all, REFB a per-bank refresh, RDA and WRA precharge themselves.
ACT, PRE, RD, WR, REF, REFB, PREA, RDA, WRA = range(9)
N_CMD = 9
SAME_BANK, SAME_GROUP, SAME_RANK, OTHER_RANK, OTHER_BANK = range(5)
NO_RULE = -1
RANK_OF = 3  # column of `geom`
CHANNEL, RANK, GROUP, BANK, ROW, COLUMN = range(6)

# cfg
(
    POLICY, N_POOLS, FIFO_CAP_READ, FIFO_CAP_WRITE, BANK_CAP, HIT_CAP, PRE_RULE, DRAIN_HIGH, DRAIN_LOW,
    UNIFIED, CLOSE_PAGE, DUAL_BUS, SPLIT_ACT, ACT_DEADLINE, WCK_READ, WCK_WRITE, REF_INTERVAL, REF_BATCH,
    REF_PER_BANK, READ_LATENCY, WRITE_LATENCY, ACCEPT_LATENCY, WRITE_DONE, FORWARD, MERGE_READS, PER_CLOCK, FAW_DELAY,
    FAW_WINDOW, BURST_BITS, N_CHANNELS, N_RANKS, N_GROUPS, N_BANKS, REF_ALL_RANKS, ROOM, BANKS_PER_GROUP, LENGTH_COLUMN,
    LENGTH_ROW,
) = range(38)  # fmt: skip
# LENGTH_ROW + command: clocks on the command bus of a row command.
N_CFG = LENGTH_ROW + N_CMD
POLICY_BANK_QUEUES, POLICY_POOLS, POLICY_BANK_MACHINES = range(3)
# What must have room for a new request: its own buffer, both, the bank of the request before it, one shared buffer.
ROOM_OWN, ROOM_BOTH, ROOM_LAST_BANK, ROOM_SUM = range(4)
RULE_CAP, RULE_AGE = range(2)
DONE_AT_ACCEPT, DONE_AT_ISSUE, DONE_AT_DATA = range(3)

# chan
(
    NEXT, DRAINING, LAST_BANK, QUEUED, LEN_READ, LEN_WRITE, FREE_N, REF_NEXT, REF_PENDING, REF_HEAD, ACTIVE_N,
    WRITE_MODE, ACT2_SLOT, ACT2_DEADLINE, CAS_SLOT, WCK_UNTIL, LAST_ISSUE, LAST_WRITE, REQUEST_AT,
    ISSUE_AT,
) = range(20)  # fmt: skip
N_CHAN = 20
OPEN_BANKS, RANK_ACTIVE, IDLE_SINCE, IDLE_CLOCKS = range(4)
N_RANK = 4
OPEN_ROW, HITS, BANK_ACTIVE = range(3)
N_BANK = 3
HEAD, TAIL, LENGTH, KIND, HIT_RD, HIT_WR, WRITES = range(7)
N_QUEUE = 7
SCAN, FREED = 2, 3
N_FIFO = 4
E_ROW, E_COL, E_BANK, E_WRITE, E_SEQ, E_ARRIVE, E_NEXT, E_PREV, E_XFER, E_STARTED, E_BURST, E_SHADOW, E_LINK = range(13)
N_ENTRY = 13
CLOSED, ACTIVATING = -1, -2

# xfer
(
    X_CUR, X_END, X_ROWS, X_ADDR, X_BYTES, X_STRIDE, X_WRITE, X_AGENT, X_LEFT, X_DONE, X_NEXT, X_ORDER, X_LIST,
    X_SEGMENT, X_SEGMENTS_END,
) = range(15)  # fmt: skip
N_XFER_COLS = 15
# segments
G_ADDR, G_BYTES, G_ROWS, G_STRIDE = range(4)
# agent
(
    A_HEAD, A_TAIL, A_OUT, A_LIMIT, A_PER_CLOCK, A_VALID, A_CH, A_BANK, A_ROW, A_COL, A_WRITE, A_BURST, A_BLOCKED,
    A_SENT, A_ORDER,
) = range(15)  # fmt: skip
N_AGENT = 15
# clock
# OFFER_AT: next clock at which requesters offer bursts; WAITING: whether any waits for room.
NOW, WAKE, N_DONE, SEQ, LEFT, N_XFER, UNISSUED, FLUSH, OFFER_AT, WAITING = range(10)
N_CLOCK = 10
RING_READ, RING_ACCEPT, RING_WRITE = range(3)
# count
C_ACT, C_PRE, C_RD, C_WR, C_REF, C_HIT, C_LATENCY, C_READS, C_FORWARDED, C_MERGED, C_REFB, C_CAS = range(12)
N_COUNT = 12


class DramState(NamedTuple):
    """All of one DRAM system; see the module's table. Kernels change the arrays in place."""

    cfg: np.ndarray
    amap: np.ndarray
    rules: np.ndarray
    geom: np.ndarray
    chan: np.ndarray
    ready: np.ndarray
    acts: np.ndarray
    rank: np.ndarray
    bank: np.ndarray
    queue: np.ndarray
    when: np.ndarray
    entry: np.ndarray
    free: np.ndarray
    fifo: np.ndarray
    active: np.ndarray
    bucket: np.ndarray
    xfer: np.ndarray
    agent: np.ndarray
    ring: np.ndarray
    ring_at: np.ndarray
    clock: np.ndarray
    done: np.ndarray
    stats: np.ndarray
    lists: np.ndarray
    segments: np.ndarray


@inlined
def earliest(s, ch, b, cmd):
    """First clock at which the constraints allow `cmd` to bank `b`."""
    g = s.ready[ch, s.geom[b, SAME_GROUP], cmd]
    r = s.ready[ch, s.geom[b, SAME_RANK], cmd]
    return max(s.ready[ch, b, cmd], g, r)


@kernel
def earliest_rank(s, ch, rank, cmd):
    """First clock at which the constraints of every bank of `rank` allow `cmd`."""
    per_rank = s.cfg[N_BANKS] // s.cfg[N_RANKS]
    t = NEVER
    for b in range(rank * per_rank, (rank + 1) * per_rank):
        t = max(t, earliest(s, ch, b, cmd))
    return t


@inlined
def constrain(s, ch, b, cmd, t):
    """Book what issuing `cmd` to bank `b` at clock `t` forbids."""
    ready = s.ready
    i = 0
    while s.rules[cmd, i, 0] != NO_RULE:
        scope = s.rules[cmd, i, 0]
        after = s.rules[cmd, i, 1]
        at = t + s.rules[cmd, i, 2]
        i += 1
        if scope < OTHER_RANK:
            unit = s.geom[b, scope]
            ready[ch, unit, after] = max(ready[ch, unit, after], at)
            continue
        if scope == OTHER_RANK:
            first, last, same = ready.shape[1] - s.cfg[N_RANKS], ready.shape[1], s.geom[b, SAME_RANK]
        else:
            per_rank = s.cfg[N_BANKS] // s.cfg[N_RANKS]
            first, same = s.geom[b, RANK_OF] * per_rank, b
            last = first + per_rank
        for unit in range(first, last):
            if unit != same:
                ready[ch, unit, after] = max(ready[ch, unit, after], at)
    if cmd == ACT and s.cfg[FAW_WINDOW] > 0:
        rank = s.geom[b, RANK_OF]
        window = s.cfg[FAW_WINDOW]
        place = s.acts[ch, rank, window]
        s.acts[ch, rank, place] = t
        place = place + 1 if place + 1 < window else 0
        s.acts[ch, rank, window] = place
        unit = s.geom[b, SAME_RANK]
        ready[ch, unit, ACT] = max(ready[ch, unit, ACT], s.acts[ch, rank, place] + s.cfg[FAW_DELAY])


@inlined
def open_row(s, ch, b, row, t):
    """Bank `b` opens `row`."""
    s.bank[ch, b, OPEN_ROW] = row
    s.bank[ch, b, HITS] = 0
    r = s.geom[b, RANK_OF]
    if s.rank[ch, r, OPEN_BANKS] == 0:
        s.rank[ch, r, IDLE_CLOCKS] += t - s.rank[ch, r, IDLE_SINCE]
    s.rank[ch, r, OPEN_BANKS] += 1


@inlined
def close_row(s, ch, b, t):
    """Bank `b` closes; nothing when it is closed."""
    if s.bank[ch, b, OPEN_ROW] == CLOSED:
        return
    s.bank[ch, b, OPEN_ROW] = CLOSED
    s.bank[ch, b, HITS] = 0
    r = s.geom[b, RANK_OF]
    s.rank[ch, r, OPEN_BANKS] -= 1
    if s.rank[ch, r, OPEN_BANKS] == 0:
        s.rank[ch, r, IDLE_SINCE] = t


@kernel
def find_candidates(cfg, bank, queue, when, entry, ch, q, b):
    """Recompute which commands the entries of bank queue `q` could use next.

    Closed: ACT for the oldest entry. Open: the oldest read hit and write hit, and PRE when the oldest entry conflicts
    and `PRE_RULE` allows it: by cap, no hit is waiting or the row has served `HIT_CAP` accesses; by age, no hit is as
    old.
    """
    head = queue[ch, q, HEAD]
    kind = -1
    rd = -1
    wr = -1
    if head >= 0:
        row = bank[ch, b, OPEN_ROW]
        if row == CLOSED:
            kind = ACT
        elif row >= 0:
            hit = False
            writes = queue[ch, q, WRITES]
            reads = queue[ch, q, LENGTH] - writes
            e = head
            while e >= 0:
                if entry[ch, e, E_ROW] == row:
                    hit = True
                    if entry[ch, e, E_WRITE] == 0:
                        if rd < 0:
                            rd = e
                    elif wr < 0 and (rd < 0 or not reads_before(queue, entry, ch, q, e)):
                        wr = e
                    if (rd >= 0 or reads == 0) and (wr >= 0 or writes == 0):
                        break
                e = entry[ch, e, E_NEXT]
            if entry[ch, head, E_ROW] != row:
                if not hit:
                    kind = PRE
                elif cfg[PRE_RULE] == RULE_CAP:
                    if bank[ch, b, HITS] >= cfg[HIT_CAP]:
                        kind = PRE
                else:
                    first = rd if rd >= 0 else wr
                    if entry[ch, first, E_ARRIVE] > entry[ch, head, E_ARRIVE]:
                        kind = PRE
    queue[ch, q, KIND] = kind
    queue[ch, q, HIT_RD] = rd
    queue[ch, q, HIT_WR] = wr
    when[ch, q] = FAR if kind < 0 and rd < 0 and wr < 0 else NEVER


@kernel
def reads_before(queue, entry, ch, q, slot):
    """Whether an older read of the same burst stands before the write in `slot`."""
    e = queue[ch, q, HEAD]
    while e != slot:
        if entry[ch, e, E_WRITE] == 0 and entry[ch, e, E_BURST] == entry[ch, slot, E_BURST]:
            return True
        e = entry[ch, e, E_NEXT]
    return False


@inlined
def candidates(s, ch, q, b):
    """`find_candidates` of bank queue `q`; the compiled call is cheaper with few arrays."""
    find_candidates(s.cfg, s.bank, s.queue, s.when, s.entry, ch, q, b)


@kernel
def all_candidates(s, ch, b):
    """Recompute the candidates of bank `b` in every pool."""
    for p in range(s.cfg[N_POOLS]):
        candidates(s, ch, p * s.cfg[N_BANKS] + b, b)


@inlined
def push_entry(s, ch, q, b, slot):
    """Append `slot` to bank queue `q`; whether that changed its candidates."""
    tail = s.queue[ch, q, TAIL]
    s.entry[ch, slot, E_NEXT] = -1
    s.entry[ch, slot, E_PREV] = tail
    if tail >= 0:
        s.entry[ch, tail, E_NEXT] = slot
    else:
        s.queue[ch, q, HEAD] = slot
    s.queue[ch, q, TAIL] = slot
    s.queue[ch, q, LENGTH] += 1
    s.queue[ch, q, WRITES] += s.entry[ch, slot, E_WRITE]
    s.chan[ch, QUEUED] += 1
    s.entry[ch, slot, E_SEQ] = s.clock[SEQ]
    s.clock[SEQ] += 1
    # A further hit behind one of its kind changes no candidate.
    hit = s.queue[ch, q, HIT_WR if s.entry[ch, slot, E_WRITE] else HIT_RD]
    if tail < 0 or (s.entry[ch, slot, E_ROW] == s.bank[ch, b, OPEN_ROW] and hit < 0):
        candidates(s, ch, q, b)
        return True
    return False


@inlined
def unlink_entry(s, ch, q, slot):
    """Take `slot` out of bank queue `q`; the caller recomputes the candidates."""
    prev = s.entry[ch, slot, E_PREV]
    nxt = s.entry[ch, slot, E_NEXT]
    if prev >= 0:
        s.entry[ch, prev, E_NEXT] = nxt
    else:
        s.queue[ch, q, HEAD] = nxt
    if nxt >= 0:
        s.entry[ch, nxt, E_PREV] = prev
    else:
        s.queue[ch, q, TAIL] = prev
    s.queue[ch, q, LENGTH] -= 1
    s.queue[ch, q, WRITES] -= s.entry[ch, slot, E_WRITE]
    s.chan[ch, QUEUED] -= 1


@inlined
def new_entry(s, ch, a, xfer, t):
    """A slot filled with the head burst of agent `a`, or -1 when all slots are taken."""
    n = s.chan[ch, FREE_N]
    if n == 0:
        return -1
    s.chan[ch, FREE_N] = n - 1
    e = s.free[ch, n - 1]
    s.entry[ch, e, E_ROW] = s.agent[a, A_ROW]
    s.entry[ch, e, E_COL] = s.agent[a, A_COL]
    s.entry[ch, e, E_BANK] = s.agent[a, A_BANK]
    s.entry[ch, e, E_WRITE] = s.agent[a, A_WRITE]
    s.entry[ch, e, E_ARRIVE] = t
    s.entry[ch, e, E_XFER] = xfer
    s.entry[ch, e, E_STARTED] = 0
    s.entry[ch, e, E_BURST] = s.agent[a, A_BURST]
    s.entry[ch, e, E_SHADOW] = -1
    return e


@inlined
def free_entry(s, ch, e):
    """Give slot `e` back."""
    s.entry[ch, e, E_BURST] = -1
    n = s.chan[ch, FREE_N]
    s.free[ch, n] = e
    s.chan[ch, FREE_N] = n + 1


@inlined
def find_pending(s, ch, burst, write):
    """The slot of a pending burst of that direction whose address is held back for forwarding, or -1."""
    e = s.bucket[ch, burst & HASH_MASK]
    while e >= 0 and (s.entry[ch, e, E_BURST] != burst or s.entry[ch, e, E_WRITE] != write):
        e = s.entry[ch, e, E_LINK]
    return e


@inlined
def remember(s, ch, e):
    """`find_pending` finds entry `e` from now on."""
    h = s.entry[ch, e, E_BURST] & HASH_MASK
    s.entry[ch, e, E_LINK] = s.bucket[ch, h]
    s.bucket[ch, h] = e


@inlined
def forget(s, ch, e):
    """`find_pending` finds entry `e` no longer."""
    h = s.entry[ch, e, E_BURST] & HASH_MASK
    other = s.bucket[ch, h]
    if other == e:
        s.bucket[ch, h] = s.entry[ch, e, E_LINK]
        return
    while s.entry[ch, other, E_LINK] != e:
        other = s.entry[ch, other, E_LINK]
    s.entry[ch, other, E_LINK] = s.entry[ch, e, E_LINK]


@inlined
def complete(s, kind, at, xfer):
    """Book that one burst of `xfer` completes at clock `at`; within one kind, calls come in order of time."""
    i = s.ring_at[kind, 1]
    s.ring[kind, i, 0] = at
    s.ring[kind, i, 1] = xfer
    i = i + 1 if i + 1 < s.ring.shape[1] else 0
    s.ring_at[kind, 1] = i


@inlined
def retire(s, ch, e, t):
    """The column command of entry `e` is issued at `t`: statistics, completion, slot."""
    write = s.entry[ch, e, E_WRITE]
    s.chan[ch, LAST_ISSUE] = t
    s.clock[UNISSUED] -= 1
    if write:
        s.stats[ch, C_WR] += 1
        if s.cfg[WRITE_DONE] == DONE_AT_ISSUE:
            complete(s, RING_WRITE, t + 1, s.entry[ch, e, E_XFER])
        elif s.cfg[WRITE_DONE] == DONE_AT_DATA:
            complete(s, RING_WRITE, t + s.cfg[WRITE_LATENCY], s.entry[ch, e, E_XFER])
    else:
        s.stats[ch, C_RD] += 1
        at = t + s.cfg[READ_LATENCY]
        w = e
        while w >= 0:
            complete(s, RING_READ, at, s.entry[ch, w, E_XFER])
            s.stats[ch, C_LATENCY] += at - s.entry[ch, w, E_ARRIVE]
            s.stats[ch, C_READS] += 1
            nxt = s.entry[ch, w, E_SHADOW]
            if w != e:
                free_entry(s, ch, w)
            w = nxt
    free_entry(s, ch, e)


@inlined
def refresh_tick(s, ch, t):
    """Ask for the refreshes that fall due at clock `t`."""
    if t >= s.chan[ch, REF_NEXT]:
        s.chan[ch, REF_NEXT] += s.cfg[REF_INTERVAL]
        s.chan[ch, REF_PENDING] += s.cfg[REF_BATCH]


@inlined
def refresh_unit(s, ch):
    """First bank of the pending refresh, and the bank after its last.

    Per-bank refreshes go through a rank with the bank group as the fastest index.
    """
    unit = s.chan[ch, REF_HEAD]
    per_rank = s.cfg[N_BANKS] // s.cfg[N_RANKS]
    if s.cfg[REF_PER_BANK] == 0:
        return unit * per_rank, (unit + 1) * per_rank
    place = unit % per_rank
    groups = s.cfg[N_GROUPS]
    b = unit - place + place % groups * s.cfg[BANKS_PER_GROUP] + place // groups
    return b, b + 1


@kernel
def issue_refresh(s, ch, b, cmd, t):
    """Issue the pending refresh `cmd` of which `b` is a bank."""
    constrain(s, ch, b, cmd, t)
    s.stats[ch, C_REFB if cmd == REFB else C_REF] += 1
    s.chan[ch, REF_PENDING] -= 1
    units = s.cfg[N_BANKS] if s.cfg[REF_PER_BANK] else (s.cfg[N_RANKS] if s.cfg[REF_ALL_RANKS] else 1)
    s.chan[ch, REF_HEAD] = (s.chan[ch, REF_HEAD] + 1) % units
