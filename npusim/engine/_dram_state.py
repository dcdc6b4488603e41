"""State of the DRAM model and the moves every controller policy shares: timing, bank queues, completions.

All times are int64 clocks of the command bus. What a standard calls pseudo-channel is a rank here. A channel is a row
of two arrays: `val` holds numbers (int64), `ref` holds places and flags (uint32). Both are cut into records, and a
record has the same place in both, its handle: `val[b + OPEN_ROW]` is the open row of bank `b`, `ref[b + RANK]` its
rank, whose open banks `val[ref[b + RANK] + OPEN_BANKS]` counts. No record has the handle `NONE`.

| record | `val` | `ref` |
|---|---|---|
| channel, at 0 | configuration, `RULES`, scalars, statistics | ends of lists, first and last records, `BUCKET` |
| rank, group, bank | earliest clock of each command by what was issued to it; a bank's row | units, ends of its queue |
| queue of the second pool | `LENGTH`, `WRITES` | ends and candidates, as a bank has for the first |
| entry: a burst that a controller holds | row, arrival, burst number | neighbours in its list, bank, transfer |

Everything that is shared by the channels has arrays of its own:

| array | shape | content |
|---|---|---|
| `cfg` | `N_CFG` | policy, sizes, latencies; every channel has a copy |
| `amap` | 6, 6 | per field (channel .. column): shift, mask, shift and mask of a second piece, its place, XOR shift |
| `xfer`, `agent` | id, columns | transfers and the in-order requesters that issue them |
| `ring`, `ring_at` | kind, place, 2 | completions in order of time: clock and transfer |
| `clock`, `done`, `lists` | | scalars, finished transfers, bursts of list transfers |
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
# Handles are unsigned: numba tests every signed index for being negative.
NONE = np.uint32(0)

# Commands as the kernels number them. RD and WR precharge themselves when `CLOSE_PAGE`, REF is a refresh of a rank or,
# with `REF_PER_BANK`, of a bank; PREA precharges a rank.
ACT, PRE, RD, WR, REF, PREA = range(6)
N_CMD = 6
NO_COMMAND = 7
SAME_BANK, SAME_GROUP, SAME_RANK, OTHER_RANK, OTHER_BANK = range(5)
CHANNEL, RANK_FIELD, GROUP_FIELD, BANK_FIELD, ROW_FIELD, COLUMN_FIELD = range(6)

# val of a channel: its configuration,
(
    POLICY, N_POOLS, FIFO_CAP_READ, FIFO_CAP_WRITE, BANK_CAP, HIT_CAP, PRE_RULE, DRAIN_HIGH, DRAIN_LOW,
    UNIFIED, CLOSE_PAGE, DUAL_BUS, SPLIT_ACT, ACT_DEADLINE, WCK_READ, WCK_WRITE, REF_INTERVAL, REF_BATCH,
    REF_PER_BANK, READ_LATENCY, WRITE_LATENCY, ACCEPT_LATENCY, WRITE_DONE, FORWARD, MERGE_READS, PER_CLOCK, FAW_DELAY,
    FAW_WINDOW, BURST_BITS, N_CHANNELS, N_RANKS, N_GROUPS, N_BANKS, REF_ALL_RANKS, ROOM, BANKS_PER_GROUP, LENGTH_COLUMN,
    OTHER_RANKS, FIRST_BANK, COLUMN_BITS, LENGTH_ROW,
) = range(41)  # fmt: skip
# LENGTH_ROW + command: clocks on the command bus of a row command.
N_CFG = LENGTH_ROW + N_CMD
# what issuing a command forbids: lists for the units of the bank, for other ranks, for other banks of the rank. `ref`
# of a list is its end; then come its rules: clocks in `val`, the unit's column in `ref` of the bank and, `RULE_AFTER`
# places on, the command after it;
RULES, RULE_LIST, RULE_COMMAND, RULE_AFTER = 64, 40, 120, 20
# scalars,
(
    NEXT, DRAINING, QUEUED, LEN_READ, LEN_WRITE, FREE_N, REF_NEXT, REF_PENDING, REF_HEAD, ACTIVE_N, WRITE_MODE,
    ACT2_DEADLINE, WCK_UNTIL, ISSUE_AT, SEQ,
) = range(RULES + N_CMD * RULE_COMMAND, RULES + N_CMD * RULE_COMMAND + 15)  # fmt: skip
# statistics.
STATS = SEQ + 1
(
    C_ACT, C_PRE, C_RD, C_WR, C_REF, C_HIT, C_LATENCY, C_READS, C_FORWARDED, C_MERGED, C_REFB, C_CAS,
) = range(STATS, STATS + 12)  # fmt: skip
# ref of a channel: ends of the lists of free entries and of transactions (one each for reads and writes), entries that
# the split activate and the running data clock wait for, records of units.
FREE, LAST_BANK, ACT2_SLOT, CAS_SLOT, RANKS, RANKS_END, BANKS, BANKS_END, ACTIVE = range(1, 10)
FIFO, FIFO_STRIDE = 16, 4
SCAN, FREED = 2, 3  # of a buffer of transactions, after HEAD and TAIL; see `first_movable`
# First of the linked lists of entries whose burst can be asked for, by hashed burst number.
BUCKET, HASH_MASK = STATS + 12, 1023
RECORDS = BUCKET + HASH_MASK + 1

# Units and queues: val. The first columns are the commands' earliest clocks.
STRIDE = 16
OPEN_ROW, HITS = 6, 7  # of a bank
OPEN_BANKS, RANK_ACTIVE = 6, 7  # of a rank
# Of a bank, command by command: first clock at which the bank allows its candidate, FAR when it has none; of a group:
# the least of its banks.
LEAST = 8
AT = 12  # of a group or rank: first clock at which any of its candidates could issue
LENGTH, WRITES = 12, 13  # of a queue
IDLE_SINCE, IDLE_CLOCKS = 13, 14  # of a rank
# ref
HEAD, TAIL, KIND, HIT_RD, HIT_WR, BANK_ACTIVE, WRITE_QUEUE = range(7)  # of a bank or queue; HEAD, TAIL of any list
SELF, GROUP, RANK = 7, 8, 9  # of a bank: its units
OLDEST, NEWEST = 10, 12  # of a bank: its transactions in the buffer of reads, and the next column: of writes
SOONEST = 0  # of a group, command by command: a bank that `LEAST` is of
# Of a group or rank: its first bank and the one after its last, the same of its groups, its ring of activates.
FIRST, LAST, FIRST_GROUP, LAST_GROUP, RING, RING_PLACE = range(9, 15)
# Entries.
ENTRY = 8
E_ROW, E_SEQ, E_ARRIVE, E_BURST = range(4)
E_NEXT, E_PREV, E_LINK, E_SHADOW, E_BANK, E_WRITE, E_XFER, E_STARTED = range(8)
E_LATER = E_STARTED  # bank queues: the next transaction of the same bank in its buffer

POLICY_BANK_QUEUES, POLICY_POOLS, POLICY_BANK_MACHINES = range(3)
# What must have room for a new request: its own buffer, both, the bank of the request before it, one shared buffer.
ROOM_OWN, ROOM_BOTH, ROOM_LAST_BANK, ROOM_SUM = range(4)
RULE_CAP, RULE_AGE = range(2)
DONE_AT_ACCEPT, DONE_AT_ISSUE, DONE_AT_DATA = range(3)
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
# A_SENT: bursts taken in this clock, or `REFUSED`.
(
    A_HEAD, A_TAIL, A_OUT, A_LIMIT, A_PER_CLOCK, A_VALID, A_CH, A_BANK, A_ROW, A_WRITE, A_BURST, A_SENT, A_ORDER,
) = range(13)  # fmt: skip
AGENT, REFUSED = 16, -1
# clock
# OFFER_AT: next clock at which requesters offer bursts; WAITING: whether any waits for room; RING_AT: of the next
# completion.
NOW, WAKE, N_DONE, LEFT, N_XFER, UNISSUED, FLUSH, OFFER_AT, WAITING, RING_AT = range(10)
N_CLOCK = 10
RING_READ, RING_ACCEPT, RING_WRITE = range(3)


class DramState(NamedTuple):
    """All of one DRAM system; see the module's tables. Kernels change the arrays in place."""

    cfg: np.ndarray
    amap: np.ndarray
    ref: np.ndarray
    val: np.ndarray
    xfer: np.ndarray
    agent: np.ndarray
    ring: np.ndarray
    ring_at: np.ndarray
    clock: np.ndarray
    done: np.ndarray
    lists: np.ndarray
    segments: np.ndarray


@inlined
def bank(ref, number):
    """Handle of bank `number`, counted rank by rank, then group by group."""
    return np.uint32(ref[BANKS] + number * STRIDE)


@inlined
def rank(ref, number):
    """Handle of rank `number`."""
    return np.uint32(ref[RANKS] + number * STRIDE)


@inlined
def following(record):
    """Handle of the next unit of the same kind."""
    return np.uint32(record + STRIDE)


@inlined
def earliest(ref, val, b, cmd):
    """First clock at which the constraints allow `cmd` to bank `b`."""
    return max(val[b + cmd], val[ref[b + GROUP] + cmd], val[ref[b + RANK] + cmd])


@kernel
def earliest_rank(ref, val, r, cmd):
    """First clock at which the constraints of every bank of rank `r` allow `cmd`."""
    t = NEVER
    b = ref[r + FIRST]
    while b < ref[r + LAST]:
        t = max(t, earliest(ref, val, b, cmd))
        b = following(b)
    return t


@inlined
def forbid_others(ref, val, rules, own, first, last, t):
    """Book the list `rules` for the units in [first, last) but `own`."""
    i = np.uint32(rules + 1)
    while i < ref[rules]:
        unit = first
        while unit < last:
            if unit != own:
                at = unit + ref[i + RULE_AFTER]
                val[at] = max(val[at], t + val[i])
            unit = following(unit)
        i = np.uint32(i + 1)


@inlined
def constrain(ref, val, b, cmd, t):
    """Book what issuing `cmd` to bank `b` at clock `t` forbids."""
    rules = np.uint32(RULES + cmd * RULE_COMMAND)
    i = np.uint32(rules + 1)
    while i < ref[rules]:
        at = ref[b + ref[i]] + ref[i + RULE_AFTER]
        val[at] = max(val[at], t + val[i])
        i = np.uint32(i + 1)
    r = ref[b + RANK]
    if val[OTHER_RANKS]:
        forbid_others(ref, val, np.uint32(rules + RULE_LIST), r, ref[RANKS], ref[RANKS_END], t)
    if cmd == REF and val[REF_PER_BANK]:
        forbid_others(ref, val, np.uint32(rules + 2 * RULE_LIST), b, ref[r + FIRST], ref[r + LAST], t)
    if cmd == ACT and val[FAW_WINDOW] > 0:
        place = ref[r + RING_PLACE]
        val[ref[r + RING] + place] = t
        place = np.uint32(place + 1)
        if place == val[FAW_WINDOW]:
            place = NONE
        ref[r + RING_PLACE] = place
        val[r + ACT] = max(val[r + ACT], val[ref[r + RING] + place] + val[FAW_DELAY])


@inlined
def open_row(ref, val, b, row, t):
    """Bank `b` opens `row`."""
    val[b + OPEN_ROW] = row
    val[b + HITS] = 0
    r = ref[b + RANK]
    if val[r + OPEN_BANKS] == 0:
        val[r + IDLE_CLOCKS] += t - val[r + IDLE_SINCE]
    val[r + OPEN_BANKS] += 1


@inlined
def close_row(ref, val, b, t):
    """Bank `b` closes; nothing when it is closed."""
    if val[b + OPEN_ROW] == CLOSED:
        return
    val[b + OPEN_ROW] = CLOSED
    val[b + HITS] = 0
    r = ref[b + RANK]
    val[r + OPEN_BANKS] -= 1
    if val[r + OPEN_BANKS] == 0:
        val[r + IDLE_SINCE] = t


@kernel
def candidates(ref, val, q, b):
    """Recompute which commands the entries of queue `q` of bank `b` could use next.

    Closed: ACT for the oldest entry. Open: the oldest read hit and write hit, and PRE when the oldest entry conflicts
    and `PRE_RULE` allows it: by cap, no hit is waiting or the row has served `HIT_CAP` accesses; by age, no hit is as
    old.
    """
    head = ref[q + HEAD]
    kind = NO_COMMAND
    rd = NONE
    wr = NONE
    if head != NONE:
        row = val[b + OPEN_ROW]
        if row == CLOSED:
            kind = ACT
        elif row >= 0:
            writes = val[q + WRITES]
            reads = val[q + LENGTH] - writes
            e = head
            while e != NONE:
                if val[e + E_ROW] == row:
                    if ref[e + E_WRITE] == 0:
                        if rd == NONE:
                            rd = e
                    elif wr == NONE and (rd == NONE or not reads_before(ref, val, head, e)):
                        wr = e
                    if (rd != NONE or reads == 0) and (wr != NONE or writes == 0):
                        break
                e = ref[e + E_NEXT]
            if val[head + E_ROW] != row:
                if rd == NONE and wr == NONE:
                    kind = PRE
                elif val[PRE_RULE] == RULE_CAP:
                    if val[b + HITS] >= val[HIT_CAP]:
                        kind = PRE
                else:
                    first = rd if rd != NONE else wr
                    if val[first + E_ARRIVE] > val[head + E_ARRIVE]:
                        kind = PRE
    ref[q + KIND] = kind
    ref[q + HIT_RD] = rd
    ref[q + HIT_WR] = wr


@kernel
def reads_before(ref, val, e, write):
    """Whether a read of the same burst stands in the queue from entry `e` on before the entry `write`."""
    while e != write:
        if ref[e + E_WRITE] == 0 and val[e + E_BURST] == val[write + E_BURST]:
            return True
        e = ref[e + E_NEXT]
    return False


@kernel
def all_candidates(ref, val, b):
    """Recompute the candidates of bank `b` in every pool."""
    candidates(ref, val, b, b)
    if val[N_POOLS] > 1:
        candidates(ref, val, ref[b + WRITE_QUEUE], b)


@inlined
def link(ref, q, e):
    """Append entry `e` to the list that begins and ends at `HEAD` and `TAIL` of `q`."""
    tail = ref[q + TAIL]
    ref[e + E_NEXT] = NONE
    ref[e + E_PREV] = tail
    if tail != NONE:
        ref[tail + E_NEXT] = e
    else:
        ref[q + HEAD] = e
    ref[q + TAIL] = e


@inlined
def unlink(ref, q, e):
    """Take entry `e` out of the list of `q`."""
    before = ref[e + E_PREV]
    after = ref[e + E_NEXT]
    if before != NONE:
        ref[before + E_NEXT] = after
    else:
        ref[q + HEAD] = after
    if after != NONE:
        ref[after + E_PREV] = before
    else:
        ref[q + TAIL] = before


@inlined
def push_entry(ref, val, q, b, e):
    """Append entry `e` to queue `q` of bank `b`; whether that changed its candidates."""
    alone = ref[q + HEAD] == NONE
    link(ref, q, e)
    val[q + LENGTH] += 1
    val[q + WRITES] += ref[e + E_WRITE]
    val[QUEUED] += 1
    val[e + E_SEQ] = val[SEQ]
    val[SEQ] += 1
    # A further hit behind one of its kind changes no candidate.
    hit = ref[q + HIT_WR] if ref[e + E_WRITE] else ref[q + HIT_RD]
    if alone or (val[e + E_ROW] == val[b + OPEN_ROW] and hit == NONE):
        candidates(ref, val, q, b)
        return True
    return False


@inlined
def unlink_entry(ref, val, q, e):
    """Take entry `e` out of queue `q`; the caller recomputes the candidates."""
    unlink(ref, q, e)
    val[q + LENGTH] -= 1
    val[q + WRITES] -= ref[e + E_WRITE]
    val[QUEUED] -= 1


@inlined
def new_entry(s, ref, val, a, t):
    """An entry with the head burst of agent `a`, or NONE when all are taken."""
    e = ref[FREE]
    if e == NONE:
        return e
    ref[FREE] = ref[e + E_NEXT]
    val[FREE_N] -= 1
    agent = s.agent
    val[e + E_ROW] = agent[a + A_ROW]
    val[e + E_ARRIVE] = t
    val[e + E_BURST] = agent[a + A_BURST]
    ref[e + E_BANK] = agent[a + A_BANK]
    ref[e + E_WRITE] = agent[a + A_WRITE]
    ref[e + E_XFER] = agent[a + A_HEAD]
    ref[e + E_STARTED] = 0
    ref[e + E_SHADOW] = NONE
    return e


@inlined
def free_entry(ref, val, e):
    """Give entry `e` back; it keeps what it held until it is taken again."""
    ref[e + E_NEXT] = ref[FREE]
    ref[FREE] = e
    val[FREE_N] += 1


@inlined
def find_pending(ref, val, burst, write):
    """The entry of a pending burst of that direction whose address is held back for forwarding, or NONE."""
    e = ref[BUCKET + (burst & HASH_MASK)]
    while e != NONE and (val[e + E_BURST] != burst or ref[e + E_WRITE] != write):
        e = ref[e + E_LINK]
    return e


@inlined
def remember(ref, val, e):
    """`find_pending` finds entry `e` from now on."""
    h = BUCKET + (val[e + E_BURST] & HASH_MASK)
    ref[e + E_LINK] = ref[h]
    ref[h] = e


@inlined
def forget(ref, val, e):
    """`find_pending` finds entry `e` no longer."""
    h = BUCKET + (val[e + E_BURST] & HASH_MASK)
    other = ref[h]
    if other == e:
        ref[h] = ref[e + E_LINK]
        return
    while ref[other + E_LINK] != e:
        other = ref[other + E_LINK]
    ref[other + E_LINK] = ref[e + E_LINK]


@inlined
def complete(s, kind, at, xfer):
    """Book that one burst of `xfer` completes at clock `at`; within one kind, calls come in order of time."""
    i = s.ring_at[kind, 1]
    s.ring[kind, i, 0] = at
    s.ring[kind, i, 1] = xfer
    i = i + 1 if i + 1 < s.ring.shape[1] else 0
    s.ring_at[kind, 1] = i
    s.clock[RING_AT] = min(s.clock[RING_AT], at)


@inlined
def retire(s, ref, val, e, t):
    """The column command of entry `e` is issued at `t`: statistics, completion, its place."""
    s.clock[UNISSUED] -= 1
    if ref[e + E_WRITE]:
        val[C_WR] += 1
        if val[WRITE_DONE] == DONE_AT_ISSUE:
            complete(s, RING_WRITE, t + 1, ref[e + E_XFER])
        elif val[WRITE_DONE] == DONE_AT_DATA:
            complete(s, RING_WRITE, t + val[WRITE_LATENCY], ref[e + E_XFER])
    else:
        val[C_RD] += 1
        at = t + val[READ_LATENCY]
        w = e
        while w != NONE:
            complete(s, RING_READ, at, ref[w + E_XFER])
            val[C_LATENCY] += at - val[w + E_ARRIVE]
            val[C_READS] += 1
            shadow = ref[w + E_SHADOW]
            if w != e:
                free_entry(ref, val, w)
            w = shadow
    free_entry(ref, val, e)


@inlined
def refresh_tick(val, t):
    """Ask for the refreshes that fall due at clock `t`."""
    if t >= val[REF_NEXT]:
        val[REF_NEXT] += val[REF_INTERVAL]
        val[REF_PENDING] += val[REF_BATCH]


@inlined
def refresh_unit(ref, val):
    """First bank of the pending refresh, and the bank after its last.

    Per-bank refreshes go through a rank with the bank group as the fastest index.
    """
    unit = val[REF_HEAD]
    if val[REF_PER_BANK] == 0:
        r = rank(ref, unit)
        return ref[r + FIRST], ref[r + LAST]
    groups = val[N_GROUPS]
    place = unit % (groups * val[BANKS_PER_GROUP])
    b = bank(ref, unit - place + place % groups * val[BANKS_PER_GROUP] + place // groups)
    return b, following(b)


@kernel
def issue_refresh(ref, val, b, t):
    """Issue the pending refresh, of which `b` is a bank."""
    constrain(ref, val, b, REF, t)
    val[C_REFB if val[REF_PER_BANK] else C_REF] += 1
    val[REF_PENDING] -= 1
    units = val[N_BANKS] if val[REF_PER_BANK] else (val[N_RANKS] if val[REF_ALL_RANKS] else 1)
    val[REF_HEAD] = (val[REF_HEAD] + 1) % units
