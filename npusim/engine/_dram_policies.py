"""Controller policies of the DRAM model: what one channel does in one clock.

`tick_bank_queues` follows DRAMsim3 (per-bank command queues, round robin, write drain), `tick_pools` Ramulator 2.1 (one
read and one write buffer, oldest ready first, activating requests first). Each returns the next clock at which the
channel has anything to do, given that nothing is accepted before.
"""

from __future__ import annotations

import numpy as np

from npusim.engine._dram_state import (
    ACT,
    ACT2_DEADLINE,
    ACT2_SLOT,
    ACT_DEADLINE,
    ACTIVATING,
    ACTIVE,
    ACTIVE_N,
    AT,
    BANK_ACTIVE,
    BANK_CAP,
    BANKS,
    BANKS_END,
    C_ACT,
    C_CAS,
    C_HIT,
    C_PRE,
    CAS_SLOT,
    CLOSE_PAGE,
    CLOSED,
    DRAIN_HIGH,
    DRAIN_LOW,
    DRAINING,
    DUAL_BUS,
    E_ARRIVE,
    E_BANK,
    E_BURST,
    E_LATER,
    E_NEXT,
    E_ROW,
    E_SEQ,
    E_STARTED,
    E_WRITE,
    FAR,
    FIFO,
    FIFO_STRIDE,
    FIRST,
    FIRST_GROUP,
    FLUSH,
    FREED,
    GROUP,
    HEAD,
    HIT_RD,
    HIT_WR,
    HITS,
    ISSUE_AT,
    KIND,
    LAST,
    LAST_BANK,
    LAST_GROUP,
    LEAST,
    LEN_READ,
    LEN_WRITE,
    LENGTH,
    NEVER,
    NEWEST,
    NO_COMMAND,
    NONE,
    OLDEST,
    OPEN_BANKS,
    OPEN_ROW,
    OTHER_RANKS,
    PRE,
    PREA,
    QUEUED,
    RANK,
    RANK_ACTIVE,
    RANKS,
    RANKS_END,
    RD,
    REF,
    REF_HEAD,
    REF_NEXT,
    REF_PENDING,
    SCAN,
    SEQ,
    SOONEST,
    SPLIT_ACT,
    UNIFIED,
    WCK_READ,
    WCK_UNTIL,
    WCK_WRITE,
    WR,
    WRITE_MODE,
    WRITE_QUEUE,
    all_candidates,
    candidates,
    close_row,
    constrain,
    earliest,
    earliest_rank,
    find_pending,
    following,
    forget,
    inlined,
    issue_refresh,
    kernel,
    link,
    open_row,
    push_entry,
    rank,
    refresh_tick,
    refresh_unit,
    retire,
    unlink,
    unlink_entry,
)

NOTHING, ROW_COMMAND, COLUMN_COMMAND = range(3)
ANY_BUS, COLUMN_BUS, ROW_BUS = range(3)
IN_ACTIVE, IN_POOL, IN_REFRESH = range(3)


@inlined
def precharge(ref, val, b, t):
    """Issue PRE to bank `b`; the caller recomputes the candidates."""
    constrain(ref, val, b, PRE, t)
    close_row(ref, val, b, t)
    val[C_PRE] += 1


@inlined
def time_candidate(ref, val, b, cmd, candidate):
    """Bring up to date when bank `b`, and with it its group, could take `cmd`, as far as banks decide it."""
    g = ref[b + GROUP]
    at = val[b + cmd] if candidate else FAR
    val[b + LEAST + cmd] = at
    if at <= val[g + LEAST + cmd]:
        val[g + LEAST + cmd] = at
        ref[g + SOONEST + cmd] = b
    elif ref[g + SOONEST + cmd] == b:
        other = ref[g + FIRST]
        while other < ref[g + LAST]:
            if val[other + LEAST + cmd] < at:
                at = val[other + LEAST + cmd]
                b = other
            other = following(other)
        val[g + LEAST + cmd] = at
        ref[g + SOONEST + cmd] = b


@inlined
def time_bank(ref, val, b):
    """`time_candidate` of all commands."""
    time_candidate(ref, val, b, ACT, ref[b + KIND] == ACT)
    time_candidate(ref, val, b, PRE, ref[b + KIND] == PRE)
    time_candidate(ref, val, b, RD, ref[b + HIT_RD] != NONE)
    time_candidate(ref, val, b, WR, ref[b + HIT_WR] != NONE)


@inlined
def time_rank(ref, val, r):
    """Bring up to date when the candidates of rank `r` could issue."""
    first = FAR
    act = val[r + ACT]
    pre = val[r + PRE]
    rd = val[r + RD]
    wr = val[r + WR]
    g = ref[r + FIRST_GROUP]
    while g < ref[r + LAST_GROUP]:
        row = min(max(val[g + LEAST + ACT], val[g + ACT], act), max(val[g + LEAST + PRE], val[g + PRE], pre))
        column = min(max(val[g + LEAST + RD], val[g + RD], rd), max(val[g + LEAST + WR], val[g + WR], wr))
        at = min(row, column)
        val[g + AT] = at
        first = min(first, at)
        g = following(g)
    val[r + AT] = first


@inlined
def time_ranks(ref, val):
    """`time_rank` of all."""
    r = ref[RANKS]
    while r < ref[RANKS_END]:
        time_rank(ref, val, r)
        r = following(r)


@kernel
def settle(ref, val, b):
    """A command was issued to bank `b`: bring its candidates up to date, and when any bank could issue."""
    candidates(ref, val, b, b)
    time_bank(ref, val, b)
    if val[OTHER_RANKS]:
        time_ranks(ref, val)
    else:
        time_rank(ref, val, ref[b + RANK])


@kernel
def settle_all(ref, val):
    """A refresh was issued: bring up to date when any bank could issue."""
    b = ref[BANKS]
    while b < ref[BANKS_END]:
        time_bank(ref, val, b)
        b = following(b)
    time_ranks(ref, val)


@kernel
def refresh_bank_queues(ref, val, t):
    """The pending refresh's next command if it may issue at `t`; returns -1 when issued, else when it could."""
    first, last = refresh_unit(ref, val)
    ready = NEVER
    pre = FAR
    b = first
    while b < last:
        if val[b + OPEN_ROW] != CLOSED:
            at = earliest(ref, val, b, PRE)
            if at <= t:
                precharge(ref, val, b, t)
                settle(ref, val, b)
                return -1
            pre = min(pre, at)
        else:
            ready = max(ready, earliest(ref, val, b, REF))
        b = following(b)
    if pre < FAR:
        return pre
    if ready > t:
        return ready
    issue_refresh(ref, val, first, t)
    settle_all(ref, val)
    return -1


@inlined
def issue_column(s, ref, val, b, e, t):
    """Issue the read or write of entry `e` from the queue of bank `b`."""
    if val[b + HITS] != 0:
        val[C_HIT] += 1
    val[b + HITS] += 1
    if val[b + LENGTH] == val[BANK_CAP]:
        for pool in range(2):
            f = FIFO + pool * FIFO_STRIDE
            if ref[f + FREED] != NONE and ref[f + FREED] != b:
                ref[f + SCAN] = ref[f + HEAD]
            ref[f + FREED] = b
    unlink_entry(ref, val, b, e)
    forget(ref, val, e)
    if val[CLOSE_PAGE]:
        close_row(ref, val, b, t)
    constrain(ref, val, b, WR if ref[e + E_WRITE] else RD, t)
    retire(s, ref, val, e, t)


@inlined
def issue_row(ref, val, b, t):
    """Issue the activate or precharge that bank `b` needs."""
    if ref[b + KIND] == PRE:
        precharge(ref, val, b, t)
    else:
        constrain(ref, val, b, ACT, t)
        open_row(ref, val, b, val[ref[b + HEAD] + E_ROW], t)
        val[C_ACT] += 1


@inlined
def ready_at(ref, val, low, high):
    """The earliest clock at which any bank outside [low, high) could issue."""
    at = FAR
    if low == high:
        r = ref[RANKS]
        while r < ref[RANKS_END]:
            at = min(at, val[r + AT])
            r = following(r)
        return at
    b = ref[BANKS]
    while b < ref[BANKS_END]:
        if b < low or b >= high:
            for cmd in range(REF):
                at = min(at, max(val[b + LEAST + cmd], earliest(ref, val, b, cmd)))
        b = following(b)
    return at


@inlined
def latest(val, g, r, cmd, t):
    """What `LEAST` of a bank must not exceed for `cmd` to issue at `t`, as its group and rank have it."""
    return t if max(val[g + cmd], val[r + cmd]) <= t else -FAR


@inlined
def choose_bank(ref, val, t, low, high):
    """Round robin over the banks outside [low, high): (kind of the first ready command, bank, entry).

    The kind is NOTHING when none is ready at `t`, the entry NONE for a row command.
    """
    start = following(ref[LAST_BANK])
    for first, last in ((start, ref[BANKS_END]), (ref[BANKS], start)):
        b = first
        while b < last:
            r = ref[b + RANK]
            g = ref[b + GROUP]
            if val[g + AT] > t:
                b = ref[g + LAST] if val[r + AT] <= t else ref[r + LAST]
                continue
            end = min(ref[g + LAST], last)
            act = latest(val, g, r, ACT, t)
            pre = latest(val, g, r, PRE, t)
            read = latest(val, g, r, RD, t)
            write = latest(val, g, r, WR, t)
            while b < end:
                if low <= b < high:
                    b = following(b)
                    continue
                if val[b + LEAST + ACT] <= act or val[b + LEAST + PRE] <= pre:
                    return ROW_COMMAND, b, NONE
                rd = ref[b + HIT_RD] if val[b + LEAST + RD] <= read else NONE
                wr = ref[b + HIT_WR] if val[b + LEAST + WR] <= write else NONE
                if wr != NONE and (rd == NONE or val[wr + E_SEQ] < val[rd + E_SEQ]):
                    return COLUMN_COMMAND, b, wr
                if rd != NONE:
                    return COLUMN_COMMAND, b, rd
                b = following(b)
    return NOTHING, NONE, NONE


@inlined
def issue_bank_queues(s, ref, val, t, low, high, done):
    """Issue the first ready command of the banks outside [low, high); of a dual command bus, one of each kind.

    `done`: the kind of command that went before in this clock. Returns whether any issued.
    """
    more = True
    while more:
        kind, b, e = choose_bank(ref, val, t, low, high)
        if kind == NOTHING:
            break
        ref[LAST_BANK] = b
        if kind == done:
            break
        if kind == ROW_COMMAND:
            issue_row(ref, val, b, t)
        else:
            issue_column(s, ref, val, b, e, t)
        settle(ref, val, b)
        more = done == NOTHING and val[DUAL_BUS] and ready_at(ref, val, low, high) <= t
        done = kind
    val[ISSUE_AT] = ready_at(ref, val, low, high)
    return done != NOTHING


@inlined
def first_movable(ref, val, pool):
    """The first transaction of the buffer of `pool` whose bank queue has room, or NONE.

    Those before `SCAN` were seen to wait for room; since then, only the queue of bank `FREED` may have got some.
    """
    f = FIFO + pool * FIFO_STRIDE
    cap = val[BANK_CAP]
    scan = ref[f + SCAN]
    freed = ref[f + FREED]
    if freed != NONE:
        e = ref[freed + OLDEST + pool]
        if e != NONE and val[freed + LENGTH] < cap and (scan == NONE or val[e + E_SEQ] < val[scan + E_SEQ]):
            return e
        ref[f + FREED] = NONE
    e = scan
    while e != NONE and val[ref[e + E_BANK] + LENGTH] >= cap:
        e = ref[e + E_NEXT]
    ref[f + SCAN] = e
    return e


@inlined
def append_transaction(ref, val, pool, e):
    """Append entry `e` to the buffer of `pool`."""
    f = FIFO + pool * FIFO_STRIDE
    link(ref, f, e)
    if ref[f + SCAN] == NONE:
        ref[f + SCAN] = e
    b = ref[e + E_BANK]
    ref[e + E_LATER] = NONE
    newest = ref[b + NEWEST + pool]
    if newest != NONE:
        ref[newest + E_LATER] = e
    else:
        ref[b + OLDEST + pool] = e
    ref[b + NEWEST + pool] = e
    val[e + E_SEQ] = val[SEQ]
    val[SEQ] += 1
    val[LEN_READ + pool] += 1


@inlined
def take_transaction(ref, val, pool, e):
    """Take entry `e`, the oldest of its bank, out of the buffer of `pool`."""
    f = FIFO + pool * FIFO_STRIDE
    if ref[f + SCAN] == e:
        ref[f + SCAN] = ref[e + E_NEXT]
    unlink(ref, f, e)
    b = ref[e + E_BANK]
    ref[b + OLDEST + pool] = ref[e + E_LATER]
    if ref[e + E_LATER] == NONE:
        ref[b + NEWEST + pool] = NONE
    val[LEN_READ + pool] -= 1


@inlined
def starts_draining(val, flush):
    """Whether the writes of a channel, of which none drain, begin to do so."""
    held = val[LEN_WRITE]
    low = 0 if flush and val[LEN_READ] == 0 else val[DRAIN_LOW]
    return held >= val[DRAIN_HIGH] or (held > low and val[QUEUED] == 0)


@inlined
def moves(ref, val, pool, e, flush):
    """Whether entry `e`, just appended to the buffer of `pool`, gives `move_transaction` something to do."""
    draining = val[DRAINING] > 0
    if pool and not draining and starts_draining(val, flush):
        return True
    return pool == draining and val[ref[e + E_BANK] + LENGTH] < val[BANK_CAP]


@inlined
def move_transaction(s, ref, val, t):
    """Move the first transaction whose bank queue has room; whether the next clock's move would change anything.

    Writes move only while draining: from the clock their buffer is full, or holds more than `DRAIN_LOW` while all bank
    queues are empty, until as many as it then held have moved or one must wait for an older read of the same burst.
    When that read has not moved and no bank queue holds anything, reads move (DRAMsim3 would wait for ever).
    """
    unified = val[UNIFIED]
    before = val[DRAINING]
    if before == 0 and not unified and starts_draining(val, s.clock[FLUSH]):
        val[DRAINING] = val[LEN_WRITE]
    pool = 1 if val[DRAINING] > 0 else 0
    e = first_movable(ref, val, pool)
    if e != NONE and ref[e + E_WRITE] and not unified:
        if find_pending(ref, val, val[e + E_BURST], 0) != NONE:
            val[DRAINING] = 0
            e = NONE
            if val[QUEUED] == 0:
                pool = 0
                e = first_movable(ref, val, pool)
        else:
            val[DRAINING] -= 1
    if e != NONE:
        take_transaction(ref, val, pool, e)
        b = ref[e + E_BANK]
        if push_entry(ref, val, b, b, e):
            time_bank(ref, val, b)
            time_rank(ref, val, ref[b + RANK])
            val[ISSUE_AT] = min(val[ISSUE_AT], max(t + 1, val[ref[b + GROUP] + AT]))
    elif val[DRAINING] == before:
        return False
    if val[DRAINING] == 0 and not unified and starts_draining(val, s.clock[FLUSH]):
        return True
    return first_movable(ref, val, 1 if val[DRAINING] > 0 else 0) != NONE


@inlined
def tick_bank_queues(s, ref, val, t):
    """One clock of a controller with per-bank command queues (DRAMsim3)."""
    refresh_tick(val, t)
    wake = val[REF_NEXT]
    low = NONE
    high = NONE
    refreshed = NOTHING
    pending = val[REF_PENDING]
    if pending > 0:
        low, high = refresh_unit(ref, val)
        r = refresh_bank_queues(ref, val, t)
        if r < 0:
            refreshed = ROW_COMMAND
            if val[REF_PENDING] < pending:
                high = low
        else:
            wake = min(wake, r)
        val[ISSUE_AT] = t
    if val[ISSUE_AT] <= t and (refreshed == NOTHING or val[DUAL_BUS]):
        issued = issue_bank_queues(s, ref, val, t, low, high, refreshed)
        if issued and pending > 0:
            wake = t + 1
    elif refreshed != NOTHING:
        wake = t + 1
    if move_transaction(s, ref, val, t):
        return t + 1
    return max(t + 1, min(wake, val[ISSUE_AT]))


@inlined
def write_mode(val):
    """Whether the controller serves its write buffer now; between the watermarks it keeps what it did."""
    if val[WRITE_MODE] == 0:
        if val[LEN_WRITE] >= val[DRAIN_HIGH] or val[LEN_READ] == 0:
            val[WRITE_MODE] = 1
    elif val[LEN_WRITE] < val[DRAIN_LOW] and val[LEN_READ] != 0:
        val[WRITE_MODE] = 0
    return val[WRITE_MODE]


@inlined
def pick_active(ref, val, t):
    """The oldest request whose row was opened for it and that may issue at `t`: (entry or NONE, when one could)."""
    best = NONE
    later = FAR
    for i in range(val[ACTIVE_N]):
        e = ref[ref[ACTIVE] + i]
        at = earliest(ref, val, ref[e + E_BANK], WR if ref[e + E_WRITE] else RD)
        if at > t:
            later = min(later, at)
        elif best == NONE or val[e + E_ARRIVE] < val[best + E_ARRIVE]:
            best = e
    return best, later


@kernel
def pick_refresh(ref, val, t):
    """The pending all-bank refresh's next command, PREA or REF: (command or NO_COMMAND, when it could)."""
    r = rank(ref, val[REF_HEAD])
    cmd = REF
    if val[r + OPEN_BANKS] > 0:
        waiting = ref[ACT2_SLOT]
        if (waiting != NONE and ref[ref[waiting + E_BANK] + RANK] == r) or val[r + RANK_ACTIVE] > 0:
            return NO_COMMAND, FAR
        cmd = PREA
    at = earliest_rank(ref, val, r, cmd)
    return (cmd, at) if at <= t else (NO_COMMAND, at)


@inlined
def pick_pool(ref, val, t, bus):
    """The oldest ready command of the buffer in service on `bus`: (command or NO_COMMAND, entry, when one could)."""
    pool = write_mode(val)
    column = WR if pool else RD
    cmd = NO_COMMAND
    best = NONE
    later = FAR
    act_pending = ref[ACT2_SLOT] != NONE
    b = ref[BANKS]
    while b < ref[BANKS_END]:
        q = ref[b + WRITE_QUEUE] if pool else b
        if val[q + LENGTH] != 0:
            kind = ref[q + KIND]
            allowed = not act_pending if kind == ACT else ref[b + BANK_ACTIVE] == 0
            if kind != NO_COMMAND and bus != COLUMN_BUS and allowed:
                at = earliest(ref, val, b, kind)
                e = ref[q + HEAD]
                if at > t:
                    later = min(later, at)
                elif best == NONE or val[e + E_SEQ] < val[best + E_SEQ]:
                    best, cmd = e, kind
            e = ref[q + HIT_WR] if pool else ref[q + HIT_RD]
            if e != NONE and bus != ROW_BUS:
                at = earliest(ref, val, b, column)
                if at > t:
                    later = min(later, at)
                elif best == NONE or val[e + E_SEQ] < val[best + E_SEQ]:
                    best, cmd = e, column
        b = following(b)
    return cmd, best, later


@inlined
def leave_pool(ref, val, e, b):
    """Take entry `e` of bank `b` out of its buffer; reads of its burst are no longer forwarded from it."""
    write = ref[e + E_WRITE]
    unlink_entry(ref, val, ref[b + WRITE_QUEUE] if write else b, e)
    val[LEN_READ + write] -= 1
    forget(ref, val, e)


@inlined
def make_active(ref, val, e, b):
    """The row of entry `e` is open: it is served before all buffers."""
    ref[ref[ACTIVE] + val[ACTIVE_N]] = e
    val[ACTIVE_N] += 1
    ref[b + BANK_ACTIVE] += 1
    val[ref[b + RANK] + RANK_ACTIVE] += 1


@inlined
def leave_active(ref, val, e, b):
    """Take entry `e` out of the active list, keeping its order."""
    i = ref[ACTIVE]
    while ref[i] != e:
        i = np.uint32(i + 1)
    val[ACTIVE_N] -= 1
    while i < ref[ACTIVE] + val[ACTIVE_N]:
        ref[i] = ref[i + 1]
        i = np.uint32(i + 1)
    ref[b + BANK_ACTIVE] -= 1
    val[ref[b + RANK] + RANK_ACTIVE] -= 1


@kernel
def precharge_rank(ref, val, r, t):
    """Issue PREA to rank `r`."""
    constrain(ref, val, ref[r + FIRST], PREA, t)
    val[C_PRE] += 1
    b = ref[r + FIRST]
    while b < ref[r + LAST]:
        close_row(ref, val, b, t)
        ref[b + BANK_ACTIVE] = 0
        all_candidates(ref, val, b)
        b = following(b)


@kernel
def issue_picked(s, ref, val, t, where, cmd, e):
    """Issue `cmd` for the request in entry `e` (or for the pending refresh)."""
    if where == IN_REFRESH:
        r = rank(ref, val[REF_HEAD])
        if cmd == REF:
            issue_refresh(ref, val, ref[r + FIRST], t)
        else:
            precharge_rank(ref, val, r, t)
        return
    b = ref[e + E_BANK]
    if cmd == PRE:
        ref[e + E_STARTED] = 1
        precharge(ref, val, b, t)
        all_candidates(ref, val, b)
        return
    if cmd == ACT:
        ref[e + E_STARTED] = 1
        constrain(ref, val, b, ACT, t)
        val[C_ACT] += 1
        leave_pool(ref, val, e, b)
        open_row(ref, val, b, ACTIVATING if val[SPLIT_ACT] else val[e + E_ROW], t)
        if val[SPLIT_ACT]:
            ref[ACT2_SLOT] = e
            val[ACT2_DEADLINE] = t + val[ACT_DEADLINE]
        else:
            make_active(ref, val, e, b)
        all_candidates(ref, val, b)
        return
    if ref[e + E_STARTED] == 0:
        val[C_HIT] += 1
    constrain(ref, val, b, cmd, t)
    if where == IN_ACTIVE:
        leave_active(ref, val, e, b)
    else:
        leave_pool(ref, val, e, b)
        all_candidates(ref, val, b)
    retire(s, ref, val, e, t)


@inlined
def pick(ref, val, t, bus):
    """What the channel would issue on `bus` at `t`: (where, command or NO_COMMAND, entry, when anything could).

    Requests whose row was opened for them come first, then a pending refresh, then the buffer in service.
    """
    later = FAR
    if bus != ROW_BUS:
        e, later = pick_active(ref, val, t)
        if e != NONE:
            return IN_ACTIVE, WR if ref[e + E_WRITE] else RD, e, t
    if val[REF_PENDING] > 0:
        if bus != COLUMN_BUS:
            cmd, at = pick_refresh(ref, val, t)
            if cmd != NO_COMMAND:
                return IN_REFRESH, cmd, NONE, t
            later = min(later, at)
        return IN_POOL, NO_COMMAND, NONE, later
    cmd, e, at = pick_pool(ref, val, t, bus)
    return IN_POOL, cmd, e, min(later, at)


@kernel
def tick_pools(s, ref, val, t):
    """One clock of a controller with one read and one write buffer (Ramulator 2.1)."""
    refresh_tick(val, t)
    if val[SPLIT_ACT]:
        wake = tick_split_activate(s, ref, val, t)
        return t + 1 if wake <= t else min(wake, val[REF_NEXT])
    where, cmd, e, wake = pick(ref, val, t, COLUMN_BUS if val[DUAL_BUS] else ANY_BUS)
    issued = cmd != NO_COMMAND
    if issued:
        issue_picked(s, ref, val, t, where, cmd, e)
    if val[DUAL_BUS]:
        where, cmd, e, at = pick(ref, val, t, ROW_BUS)
        wake = min(wake, at)
        if cmd != NO_COMMAND:
            issued = True
            issue_picked(s, ref, val, t, where, cmd, e)
    return t + 1 if issued else min(wake, val[REF_NEXT])


@kernel
def second_activate(ref, val):
    """Issue the second half of a split activate: the row is open now."""
    e = ref[ACT2_SLOT]
    b = ref[e + E_BANK]
    val[b + OPEN_ROW] = val[e + E_ROW]
    ref[ACT2_SLOT] = NONE
    make_active(ref, val, e, b)
    all_candidates(ref, val, b)


@kernel
def tick_split_activate(s, ref, val, t):
    """LPDDR5: an activate is two commands; a column command needs a running data clock, else a CAS before it.

    With `WCK_READ` 0 the data clock never stops.
    """
    e = ref[CAS_SLOT]
    if e != NONE:
        write = ref[e + E_WRITE]
        cmd = WR if write else RD
        at = earliest(ref, val, ref[e + E_BANK], cmd)
        if at > t:
            return at
        ref[CAS_SLOT] = NONE
        val[WCK_UNTIL] = max(val[WCK_UNTIL], t + val[WCK_WRITE if write else WCK_READ])
        where = IN_POOL
        for i in range(val[ACTIVE_N]):
            if ref[ref[ACTIVE] + i] == e:
                where = IN_ACTIVE
        issue_picked(s, ref, val, t, where, cmd, e)
        return t
    waiting = ref[ACT2_SLOT] != NONE
    if waiting and val[ACT2_DEADLINE] <= t:
        second_activate(ref, val)
        return t
    where, cmd, e, later = pick(ref, val, t, ANY_BUS)
    if cmd == NO_COMMAND:
        if waiting:
            second_activate(ref, val)
            return t
        return later
    if cmd in (RD, WR):
        if val[WCK_READ] > 0 and t >= val[WCK_UNTIL]:
            if waiting and val[ACT2_DEADLINE] <= t + 1:
                second_activate(ref, val)
            else:
                ref[CAS_SLOT] = e
                val[C_CAS] += 1
            return t
        val[WCK_UNTIL] = max(val[WCK_UNTIL], t + val[WCK_WRITE if cmd == WR else WCK_READ])
    issue_picked(s, ref, val, t, where, cmd, e)
    return t
