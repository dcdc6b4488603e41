"""The DRAM model's operations: `submit` a transfer, ask for the `next_event`, `run` to a time.

The order of effects within clock t, which makes any way of cutting a run into `run` calls give the same result:
completions due at t free their requester's place; requesters offer bursts, oldest transfer first; then every channel
with something to do runs one clock. `run(until)` runs all clocks before `until` and reports completions up to and
including `until`, so a transfer submitted at `until` takes part in that clock.
"""

from __future__ import annotations

import numpy as np

from npusim.engine._dram_machines import (
    tick_bank_machines,
)
from npusim.engine._dram_policies import (
    append_transaction,
    moves,
    tick_bank_queues,
    tick_pools,
)
from npusim.engine._dram_state import (
    A_BANK,
    A_BURST,
    A_CH,
    A_HEAD,
    A_LIMIT,
    A_ORDER,
    A_OUT,
    A_PER_CLOCK,
    A_ROW,
    A_SENT,
    A_TAIL,
    A_VALID,
    A_WRITE,
    ACCEPT_LATENCY,
    AGENT,
    BANK_CAP,
    BANK_FIELD,
    BANKS_PER_GROUP,
    BURST_BITS,
    C_FORWARDED,
    C_LATENCY,
    C_MERGED,
    C_READS,
    CHANNEL,
    COLUMN_BITS,
    DONE_AT_ACCEPT,
    E_BANK,
    E_SHADOW,
    FAR,
    FIFO_CAP_READ,
    FIFO_CAP_WRITE,
    FIRST_BANK,
    FLUSH,
    FORWARD,
    FREE_N,
    G_ADDR,
    G_BYTES,
    G_ROWS,
    G_STRIDE,
    GROUP_FIELD,
    IDLE_CLOCKS,
    IDLE_SINCE,
    LAST_BANK,
    LEFT,
    LEN_READ,
    LEN_WRITE,
    LENGTH,
    MERGE_READS,
    N_CHANNELS,
    N_DONE,
    N_GROUPS,
    N_POOLS,
    N_RANKS,
    N_XFER,
    NEXT,
    NONE,
    NOW,
    OFFER_AT,
    OPEN_BANKS,
    PER_CLOCK,
    POLICY,
    POLICY_BANK_QUEUES,
    POLICY_POOLS,
    RANK_FIELD,
    RANKS,
    RANKS_END,
    REFUSED,
    RING_ACCEPT,
    RING_AT,
    ROOM,
    ROOM_BOTH,
    ROOM_OWN,
    ROOM_SUM,
    ROW_FIELD,
    STRIDE,
    UNIFIED,
    UNISSUED,
    WAITING,
    WAKE,
    WRITE_DONE,
    WRITE_QUEUE,
    X_ADDR,
    X_AGENT,
    X_BYTES,
    X_CUR,
    X_DONE,
    X_END,
    X_LEFT,
    X_LIST,
    X_NEXT,
    X_ORDER,
    X_ROWS,
    X_SEGMENT,
    X_SEGMENTS_END,
    X_STRIDE,
    X_WRITE,
    complete,
    find_pending,
    following,
    inlined,
    kernel,
    new_entry,
    push_entry,
    remember,
)

FORWARD_NEVER, FORWARD_AFTER_ROOM, FORWARD_BEFORE_ROOM = range(3)
# How far `run` goes; a number, not flags, so that numba does not compile it once for variables and once for constants.
TO_TIME, TO_TRANSFER, TO_REST = range(3)


@inlined
def field(s, f, burst):
    """Field `f` of the address map: one or two bit pieces of the burst number, XORed with higher bits if so mapped."""
    m = s.amap[f]
    v = (burst >> m[0]) & m[1]
    if m[3]:
        v |= ((burst >> m[2]) & m[3]) << m[4]
    if m[5] >= 0:
        v ^= (burst >> m[5]) & (m[1] | (m[3] << m[4]))
    return v


@inlined
def place(s, a, burst, write):
    """Place `burst` at the head of agent `a`; where the last one lay in the same piece of a row, so does this."""
    agent = s.agent
    moved = (agent[a + A_BURST] ^ burst) >> s.cfg[COLUMN_BITS]
    agent[a + A_BURST] = burst
    agent[a + A_WRITE] = write
    agent[a + A_VALID] = 1
    if moved:
        agent[a + A_CH] = field(s, CHANNEL, burst)
        group = field(s, RANK_FIELD, burst) * s.cfg[N_GROUPS] + field(s, GROUP_FIELD, burst)
        number = group * s.cfg[BANKS_PER_GROUP] + field(s, BANK_FIELD, burst)
        agent[a + A_BANK] = s.cfg[FIRST_BANK] + number * STRIDE
        agent[a + A_ROW] = field(s, ROW_FIELD, burst)


@inlined
def load_head(s, a):
    """Place the next burst of agent `a`, if it has one."""
    x = s.agent[a + A_HEAD]
    if x < 0:
        s.agent[a + A_VALID] = 0
        return
    c = s.xfer[np.uint32(x)]
    if c[X_LIST] >= 0:
        v = s.lists[c[X_CUR]]
        place(s, a, v >> 1, v & 1)
    else:
        place(s, a, c[X_CUR], c[X_WRITE])
    s.agent[a + A_ORDER] = c[X_ORDER]


@inlined
def step_head(s, a):
    """The head burst of agent `a` was accepted: go to the next burst, row or transfer."""
    x = s.agent[a + A_HEAD]
    c = s.xfer[x]
    c[X_CUR] += 1
    if c[X_CUR] >= c[X_END]:
        c[X_ROWS] -= 1
        if c[X_ROWS] > 0:
            c[X_ADDR] += c[X_STRIDE]
            start_row(s, x)
        elif c[X_SEGMENT] + 1 < c[X_SEGMENTS_END]:
            start_segment(s, x, c[X_SEGMENT] + 1)
        else:
            s.agent[a + A_HEAD] = c[X_NEXT]
            if c[X_NEXT] < 0:
                s.agent[a + A_TAIL] = -1
    load_head(s, a)


@kernel
def start_row(s, x):
    """Bursts that the current row of transfer `x` touches; a partial burst counts whole."""
    bits = s.cfg[BURST_BITS]
    s.xfer[x, X_CUR] = s.xfer[x, X_ADDR] >> bits
    s.xfer[x, X_END] = ((s.xfer[x, X_ADDR] + s.xfer[x, X_BYTES] - 1) >> bits) + 1


@kernel
def start_segment(s, x, g):
    """Transfer `x` goes on with row `g` of `segments`."""
    c = s.xfer[x]
    c[X_SEGMENT] = g
    c[X_ADDR] = s.segments[g, G_ADDR]
    c[X_BYTES] = s.segments[g, G_BYTES]
    c[X_ROWS] = s.segments[g, G_ROWS]
    c[X_STRIDE] = s.segments[g, G_STRIDE]
    start_row(s, x)


@kernel
def merge(s, ref, val, a, t):
    """Serve the head burst of agent `a` from pending ones (forwarded read, merged write or read); whether it was."""
    write = s.agent[a + A_WRITE]
    burst = s.agent[a + A_BURST]
    if find_pending(ref, val, burst, 1) != NONE:
        complete(s, RING_ACCEPT, t + val[ACCEPT_LATENCY], s.agent[a + A_HEAD])
        s.clock[UNISSUED] -= 1
        val[C_MERGED if write else C_FORWARDED] += 1
        if not write:
            val[C_READS] += 1
            val[C_LATENCY] += val[ACCEPT_LATENCY]
        return True
    if not write and val[MERGE_READS]:
        first = find_pending(ref, val, burst, 0)
        if first != NONE:
            e = new_entry(s, ref, val, a, t)
            if e != NONE:
                ref[e + E_SHADOW] = ref[first + E_SHADOW]
                ref[first + E_SHADOW] = e
                s.clock[UNISSUED] -= 1
                val[C_MERGED] += 1
                return True
    return False


@inlined
def has_room(ref, val, write):
    """Whether a channel takes a request of that direction."""
    room = val[ROOM]
    if room == ROOM_OWN:
        if write and not val[UNIFIED]:
            return val[LEN_WRITE] < val[FIFO_CAP_WRITE]
        return val[LEN_READ] < val[FIFO_CAP_READ]
    if room == ROOM_BOTH:
        return val[LEN_READ] < val[FIFO_CAP_READ] and val[LEN_WRITE] < val[FIFO_CAP_WRITE]
    if room == ROOM_SUM:
        return val[LEN_READ] + val[LEN_WRITE] < val[FIFO_CAP_READ]
    last = ref[LAST_BANK]
    n = val[last + LENGTH]
    if val[N_POOLS] > 1:
        n += val[ref[last + WRITE_QUEUE] + LENGTH]
    return n < val[BANK_CAP]


@inlined
def accept(s, ref, val, a, t):
    """Offer the head burst of agent `a` to its channel, which has room or forwards before it asks for any; whether it
    was taken."""
    write = s.agent[a + A_WRITE]
    if val[FORWARD] != FORWARD_NEVER and merge(s, ref, val, a, t):
        return True
    if val[FORWARD] == FORWARD_BEFORE_ROOM and not has_room(ref, val, write):
        return False
    e = new_entry(s, ref, val, a, t)
    if e == NONE:
        return False
    remember(ref, val, e)
    pool = NONE if val[UNIFIED] else np.uint32(write)
    if val[POLICY] == POLICY_BANK_QUEUES:
        append_transaction(ref, val, pool, e)
        if moves(ref, val, pool, e, s.clock[FLUSH]):
            val[NEXT] = min(val[NEXT], t)
    else:
        b = ref[e + E_BANK]
        push_entry(ref, val, ref[b + WRITE_QUEUE] if pool and val[N_POOLS] > 1 else b, b, e)
        val[LEN_READ + pool] += 1
        ref[LAST_BANK] = b
    if write and val[WRITE_DONE] == DONE_AT_ACCEPT:
        complete(s, RING_ACCEPT, t + val[ACCEPT_LATENCY], s.agent[a + A_HEAD])
    return True


@inlined
def inject(s, t):
    """Let requesters offer bursts at clock `t`, oldest transfer first.

    Returns whether any could go on in the next clock by itself, and whether any waits for room.
    """
    agent = s.agent
    end = np.uint32(agent.size)
    sent = 0
    while True:
        more = False
        blocked = False
        flush = 1
        best = end
        first = FAR
        a = NONE
        while a < end:
            if agent[a + A_VALID]:
                flush = 0
                # One that comes after the best so far is not looked at: there is a next round, or a next clock.
                if agent[a + A_OUT] < agent[a + A_LIMIT] and agent[a + A_ORDER] < first:
                    ch = np.uint32(agent[a + A_CH])
                    if agent[a + A_SENT] == REFUSED:
                        blocked = True
                    elif agent[a + A_SENT] == agent[a + A_PER_CLOCK]:
                        more = True
                    elif s.cfg[FORWARD] == FORWARD_BEFORE_ROOM or has_room(s.ref[ch], s.val[ch], agent[a + A_WRITE]):
                        more = True
                        first = agent[a + A_ORDER]
                        best = a
                    else:
                        blocked = True
            a = np.uint32(a + AGENT)
        if best == end or sent == s.cfg[PER_CLOCK]:
            break
        ch = np.uint32(agent[best + A_CH])
        if accept(s, s.ref[ch], s.val[ch], best, t):
            sent += 1
            agent[best + A_SENT] += 1
            agent[best + A_OUT] += 1
            if s.cfg[POLICY] != POLICY_BANK_QUEUES:
                s.val[ch, NEXT] = min(s.val[ch, NEXT], t)
            step_head(s, best)
        else:
            agent[best + A_SENT] = REFUSED
    a = NONE
    while a < end:
        agent[a + A_SENT] = 0
        a = np.uint32(a + AGENT)
    if flush and not s.clock[FLUSH]:
        for each in range(s.cfg[N_CHANNELS]):
            s.val[each, NEXT] = min(s.val[each, NEXT], t)
    s.clock[FLUSH] = flush
    return more, blocked


@inlined
def room(val):
    """A number that grows whenever a channel may have room for more."""
    return val[FREE_N] - val[LEN_READ] - val[LEN_WRITE]


@inlined
def run_clock(s, t):
    """Run clock `t`; sets the next clock at which anything can happen."""
    policy = s.cfg[POLICY]
    if s.clock[OFFER_AT] <= t or policy != POLICY_BANK_QUEUES:
        more, blocked = inject(s, t)
        s.clock[WAITING] = blocked
        s.clock[OFFER_AT] = t + 1 if more else FAR
    wake = FAR
    for ch in range(s.cfg[N_CHANNELS]):
        val = s.val[ch]
        if val[NEXT] <= t:
            ref = s.ref[ch]
            before = room(val)
            if policy == POLICY_BANK_QUEUES:
                val[NEXT] = tick_bank_queues(s, ref, val, t)
            elif policy == POLICY_POOLS:
                val[NEXT] = tick_pools(s, ref, val, t)
            else:
                val[NEXT] = tick_bank_machines(s, ref, val, t)
            if s.clock[WAITING] and room(val) != before:
                s.clock[OFFER_AT] = t + 1
        wake = min(wake, val[NEXT])
    s.clock[WAKE] = min(wake, s.clock[OFFER_AT])


@inlined
def ring_time(s):
    """Clock of the earliest completion that is not reported yet."""
    at = FAR
    for k in range(3):
        i = s.ring_at[k, 0]
        if i != s.ring_at[k, 1]:
            at = min(at, s.ring[k, i, 0])
    return at


@inlined
def offer(s, at):
    """Something that lets requesters offer bursts has happened at clock `at`."""
    s.clock[OFFER_AT] = min(s.clock[OFFER_AT], at)
    s.clock[WAKE] = min(s.clock[WAKE], at)


@inlined
def pop_completions(s, at):
    """Report the completions of clock `at`; whether a transfer finished."""
    agent = s.agent
    finished = False
    for k in range(3):
        i = s.ring_at[k, 0]
        while i != s.ring_at[k, 1] and s.ring[k, i, 0] <= at:
            x = np.uint32(s.ring[k, i, 1])
            i = i + 1 if i + 1 < s.ring.shape[1] else 0
            c = s.xfer[x]
            a = np.uint32(c[X_AGENT])
            if agent[a + A_OUT] == agent[a + A_LIMIT] and agent[a + A_VALID]:
                offer(s, at)
            agent[a + A_OUT] -= 1
            s.clock[LEFT] -= 1
            c[X_LEFT] -= 1
            if c[X_LEFT] == 0:
                c[X_DONE] = at
                s.done[s.clock[N_DONE]] = x
                s.clock[N_DONE] += 1
                finished = True
        s.ring_at[k, 0] = i
    s.clock[RING_AT] = ring_time(s)
    return finished


@kernel
def submit(s, agent, order, addr, n_bytes, rows, stride, write):
    """Accept a transfer of `rows` rows of `n_bytes` bytes, `stride` bytes apart, from `agent` at the current clock.

    `order` is its place in program order: of the requesters that could offer a burst in a clock, the smallest goes
    first. Returns its id, or -1 when the table of transfers is full.
    """
    x = s.clock[N_XFER]
    if x >= s.xfer.shape[0]:
        return -1
    bits = s.cfg[BURST_BITS]
    total = 0
    for r in range(rows):
        a = addr + r * stride
        total += ((a + n_bytes - 1) >> bits) - (a >> bits) + 1
    c = s.xfer[x]
    c[X_ADDR] = addr
    c[X_BYTES] = n_bytes
    c[X_ROWS] = rows
    c[X_STRIDE] = stride
    c[X_WRITE] = write
    c[X_LIST] = -1
    c[X_SEGMENT] = c[X_SEGMENTS_END] = 0
    start_row(s, x)
    s.clock[N_XFER] += 1
    enqueue(s, x, agent, order, total)
    return x


@kernel
def submit_segments(s, x, order, first, count, write):
    """Accept `count` rows of `segments` from `first` on as transfer `x` of requester `x`, which has no other."""
    bits = s.cfg[BURST_BITS]
    total = 0
    for g in range(first, first + count):
        n_bytes = s.segments[g, G_BYTES]
        for r in range(s.segments[g, G_ROWS]):
            a = s.segments[g, G_ADDR] + r * s.segments[g, G_STRIDE]
            total += ((a + n_bytes - 1) >> bits) - (a >> bits) + 1
    c = s.xfer[x]
    c[X_WRITE] = write
    c[X_LIST] = -1
    c[X_SEGMENTS_END] = first + count
    start_segment(s, x, first)
    enqueue(s, x, x, order, total)


@kernel
def submit_list(s, agent, order, first, n):
    """Accept the bursts `lists[first : first + n]` (burst number * 2 + write) as one transfer; as `submit`."""
    x = s.clock[N_XFER]
    if x >= s.xfer.shape[0]:
        return -1
    c = s.xfer[x]
    c[X_CUR] = first
    c[X_END] = first + n
    c[X_ROWS] = 1
    c[X_LIST] = 0
    c[X_SEGMENT] = c[X_SEGMENTS_END] = 0
    s.clock[N_XFER] += 1
    enqueue(s, x, agent, order, n)
    return x


@kernel
def enqueue(s, x, agent, order, total):
    """Append transfer `x` of `total` bursts to the queue of `agent`."""
    c = s.xfer[x]
    a = np.uint32(agent * AGENT)
    c[X_AGENT] = a
    c[X_LEFT] = total
    c[X_DONE] = -1
    c[X_NEXT] = -1
    c[X_ORDER] = order
    s.clock[LEFT] += total
    s.clock[UNISSUED] += total
    tail = s.agent[a + A_TAIL]
    s.agent[a + A_TAIL] = x
    if tail >= 0:
        s.xfer[tail, X_NEXT] = x
    else:
        s.agent[a + A_HEAD] = x
        load_head(s, a)
    offer(s, s.clock[NOW])


@kernel
def next_event(s):
    """The next clock at which the model does anything by itself: nothing completes before it."""
    return min(max(s.clock[NOW], s.clock[WAKE]), s.clock[RING_AT])


@kernel
def run(s, until, goal):
    """Run all clocks before `until` and report completions up to it; returns the clock reached.

    With the goal `TO_TRANSFER`, only to the first clock at which a transfer finishes; with `TO_REST`, only until every
    transfer is complete and every write has reached the device (`until` is then `FAR - 1`).
    """
    clock = s.clock
    while True:
        t = clock[WAKE]
        r = clock[RING_AT]
        if r <= t and r <= until:
            finished = pop_completions(s, r)
            if goal == TO_REST:
                clock[NOW] = max(r + 1, clock[NOW])
            elif finished and goal == TO_TRANSFER:
                clock[NOW] = max(r, clock[NOW])
                return r
            continue
        if t >= until or (goal == TO_REST and clock[LEFT] == 0 and clock[UNISSUED] == 0):
            break
        run_clock(s, t)
        clock[NOW] = t + 1
    if goal != TO_REST:
        clock[NOW] = max(until, clock[NOW])
    return clock[NOW]


@kernel
def idle_clocks(s):
    """Clocks up to now, summed over all ranks, in which a rank had no open bank."""
    total = 0
    for ch in range(s.cfg[N_CHANNELS]):
        ref, val = s.ref[ch], s.val[ch]
        r = ref[RANKS]
        while r < ref[RANKS_END]:
            total += val[r + IDLE_CLOCKS]
            if val[r + OPEN_BANKS] == 0:
                total += s.clock[NOW] - val[r + IDLE_SINCE]
            r = following(r)
    return total


@kernel
def count(s, columns, found):
    """Fill `found` with the statistics in `columns`, summed over the channels; clocks of closed and open ranks."""
    for i in range(columns.size):
        found[i] = 0
        for ch in range(s.cfg[N_CHANNELS]):
            found[i] += s.val[ch, columns[i]]
    found[columns.size] = idle_clocks(s)
    found[columns.size + 1] = s.cfg[N_CHANNELS] * s.cfg[N_RANKS] * s.clock[NOW] - found[columns.size]
