"""Controller policies of the DRAM model: what one channel does in one clock.

`tick_bank_queues` follows DRAMsim3 (per-bank command queues, round robin, write drain), `tick_pools` Ramulator 2.1 (one
read and one write buffer, oldest ready first, activating requests first). Each returns the next clock at which the
channel has anything to do, given that nothing is accepted before.
"""

from __future__ import annotations

from npusim.engine._dram_state import (
    ACT,
    ACT2_DEADLINE,
    ACT2_SLOT,
    ACT_DEADLINE,
    ACTIVATING,
    ACTIVE_N,
    BANK_ACTIVE,
    BANK_CAP,
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
    E_NEXT,
    E_PREV,
    E_ROW,
    E_SEQ,
    E_STARTED,
    E_WRITE,
    FAR,
    FLUSH,
    FREED,
    HEAD,
    HIT_RD,
    HIT_WR,
    HITS,
    ISSUE_AT,
    KIND,
    LAST_BANK,
    LEN_READ,
    LEN_WRITE,
    LENGTH,
    N_BANKS,
    N_RANKS,
    NEVER,
    OPEN_BANKS,
    OPEN_ROW,
    PRE,
    PREA,
    QUEUED,
    RANK_ACTIVE,
    RANK_OF,
    RD,
    RDA,
    REF,
    REF_HEAD,
    REF_NEXT,
    REF_PENDING,
    REF_PER_BANK,
    REFB,
    SCAN,
    SPLIT_ACT,
    TAIL,
    UNIFIED,
    WCK_READ,
    WCK_UNTIL,
    WCK_WRITE,
    WR,
    WRA,
    WRITE_MODE,
    all_candidates,
    candidates,
    close_row,
    constrain,
    earliest,
    earliest_rank,
    find_pending,
    forget,
    inlined,
    issue_refresh,
    kernel,
    open_row,
    push_entry,
    refresh_tick,
    refresh_unit,
    retire,
    unlink_entry,
)

NOTHING, ROW_COMMAND, COLUMN_COMMAND = range(3)
ANY_BUS, COLUMN_BUS, ROW_BUS = range(3)
IN_ACTIVE, IN_POOL, IN_REFRESH = range(3)


@kernel
def precharge(s, ch, b, t):
    """Issue PRE to bank `b`."""
    constrain(s, ch, b, PRE, t)
    close_row(s, ch, b, t)
    s.stats[ch, C_PRE] += 1
    all_candidates(s, ch, b)


@kernel
def refresh_bank_queues(s, ch, t):
    """The pending refresh's next command if it may issue at `t`; returns -1 when issued, else when it could."""
    first, last = refresh_unit(s, ch)
    cmd = REFB if s.cfg[REF_PER_BANK] else REF
    ready = NEVER
    pre = FAR
    for b in range(first, last):
        if s.bank[ch, b, OPEN_ROW] != CLOSED:
            e = earliest(s, ch, b, PRE)
            if e <= t:
                precharge(s, ch, b, t)
                return -1
            pre = min(pre, e)
        else:
            ready = max(ready, earliest(s, ch, b, cmd))
    if pre < FAR:
        return pre
    if ready > t:
        return ready
    issue_refresh(s, ch, first, cmd, t)
    return -1


@inlined
def issue_column(s, ch, b, slot, t):
    """Issue the read or write in `slot` from bank queue `b`."""
    write = s.entry[ch, slot, E_WRITE]
    auto = s.cfg[CLOSE_PAGE]
    if s.bank[ch, b, HITS] != 0:
        s.stats[ch, C_HIT] += 1
    s.bank[ch, b, HITS] += 1
    if s.queue[ch, b, LENGTH] == s.cfg[BANK_CAP]:
        for pool in range(2):
            if s.fifo[ch, pool, FREED] not in (-1, b):
                s.fifo[ch, pool, SCAN] = s.fifo[ch, pool, HEAD]
            s.fifo[ch, pool, FREED] = b
    unlink_entry(s, ch, b, slot)
    forget(s, ch, slot)
    cmd = WR if write else RD
    if auto:
        cmd = WRA if write else RDA
        close_row(s, ch, b, t)
    constrain(s, ch, b, cmd, t)
    retire(s, ch, slot, t)


@inlined
def issue_row(s, ch, b, kind, t):
    """Issue the activate or precharge that bank queue `b` needs."""
    constrain(s, ch, b, kind, t)
    if kind == PRE:
        close_row(s, ch, b, t)
        s.stats[ch, C_PRE] += 1
    else:
        open_row(s, ch, b, s.entry[ch, s.queue[ch, b, HEAD], E_ROW], t)
        s.stats[ch, C_ACT] += 1


@inlined
def bank_ready(s, ch, b):
    """The earliest clock at which any candidate of bank queue `b` could issue; FAR when it has none."""
    auto = s.cfg[CLOSE_PAGE]
    at = FAR
    if s.queue[ch, b, KIND] >= 0:
        at = earliest(s, ch, b, s.queue[ch, b, KIND])
    if s.queue[ch, b, HIT_RD] >= 0:
        at = min(at, earliest(s, ch, b, RDA if auto else RD))
    if s.queue[ch, b, HIT_WR] >= 0:
        at = min(at, earliest(s, ch, b, WRA if auto else WR))
    return at


@inlined
def all_ready(s, ch, t, low, high):
    """The earliest clock at which any bank queue outside [low, high) could issue, as things stand at `t`."""
    when = s.when
    at = FAR
    for first, last in ((0, low), (high, s.cfg[N_BANKS])):
        for b in range(first, last):
            if when[ch, b] <= t:
                when[ch, b] = bank_ready(s, ch, b)
            at = min(at, when[ch, b])
    return at


@inlined
def choose_bank(s, ch, t, low, high):
    """Round robin over the bank queues outside [low, high): (kind of the first ready command, bank, slot).

    The kind is NOTHING when none is ready at `t`, the slot -1 for a row command.
    """
    n = s.cfg[N_BANKS]
    b = s.chan[ch, LAST_BANK]
    auto = s.cfg[CLOSE_PAGE]
    for _ in range(n):
        b = b + 1 if b + 1 < n else 0
        if s.when[ch, b] > t or low <= b < high:
            continue
        kind = s.queue[ch, b, KIND]
        if kind >= 0 and earliest(s, ch, b, kind) <= t:
            return ROW_COMMAND, b, -1
        rd = s.queue[ch, b, HIT_RD]
        wr = s.queue[ch, b, HIT_WR]
        slot = -1
        if rd >= 0 and earliest(s, ch, b, RDA if auto else RD) <= t:
            slot = rd
        first = wr >= 0 and (slot < 0 or s.entry[ch, wr, E_SEQ] < s.entry[ch, rd, E_SEQ])
        if first and earliest(s, ch, b, WRA if auto else WR) <= t:
            slot = wr
        if slot >= 0:
            return COLUMN_COMMAND, b, slot
    return NOTHING, -1, -1


@inlined
def issue_bank_queues(s, ch, t, low, high, done):
    """Issue the first ready command of the bank queues outside [low, high); of a dual command bus, one of each kind.

    `done`: the kind of command that went before in this clock. Returns whether any issued.
    """
    chan = s.chan
    while True:
        kind, b, slot = choose_bank(s, ch, t, low, high)
        if kind == NOTHING:
            break
        chan[ch, LAST_BANK] = b
        if kind == done:
            break
        if kind == ROW_COMMAND:
            issue_row(s, ch, b, s.queue[ch, b, KIND], t)
        else:
            issue_column(s, ch, b, slot, t)
        candidates(s, ch, b, b)
        if done != NOTHING or not s.cfg[DUAL_BUS]:
            done = kind
            break
        done = kind
    chan[ch, ISSUE_AT] = all_ready(s, ch, t, low, high)
    return done != NOTHING


@inlined
def first_movable(s, ch, pool):
    """The first transaction of buffer `pool` whose bank queue has room, or -1.

    Those before `SCAN` were seen to wait for room; since then, only the queue of bank `FREED` may have got some.
    """
    fifo = s.fifo
    cap = s.cfg[BANK_CAP]
    freed = fifo[ch, pool, FREED]
    if freed >= 0:
        if s.queue[ch, freed, LENGTH] < cap:
            e = fifo[ch, pool, HEAD]
            while e != fifo[ch, pool, SCAN]:
                if s.entry[ch, e, E_BANK] == freed:
                    return e
                e = s.entry[ch, e, E_NEXT]
        fifo[ch, pool, FREED] = -1
    e = fifo[ch, pool, SCAN]
    while e >= 0 and s.queue[ch, s.entry[ch, e, E_BANK], LENGTH] >= cap:
        e = s.entry[ch, e, E_NEXT]
    fifo[ch, pool, SCAN] = e
    return e


@inlined
def append_transaction(s, ch, pool, e):
    """Append entry `e` to buffer `pool`."""
    tail = s.fifo[ch, pool, TAIL]
    s.entry[ch, e, E_NEXT] = -1
    s.entry[ch, e, E_PREV] = tail
    if tail >= 0:
        s.entry[ch, tail, E_NEXT] = e
    else:
        s.fifo[ch, pool, HEAD] = e
    s.fifo[ch, pool, TAIL] = e
    if s.fifo[ch, pool, SCAN] < 0:
        s.fifo[ch, pool, SCAN] = e


@inlined
def take_transaction(s, ch, pool, e):
    """Take entry `e` out of buffer `pool`."""
    prev = s.entry[ch, e, E_PREV]
    nxt = s.entry[ch, e, E_NEXT]
    if prev >= 0:
        s.entry[ch, prev, E_NEXT] = nxt
    else:
        s.fifo[ch, pool, HEAD] = nxt
    if nxt >= 0:
        s.entry[ch, nxt, E_PREV] = prev
    else:
        s.fifo[ch, pool, TAIL] = prev
    if s.fifo[ch, pool, SCAN] == e:
        s.fifo[ch, pool, SCAN] = nxt
    s.chan[ch, LEN_READ + pool] -= 1


@inlined
def starts_draining(s, ch):
    """Whether the writes of channel `ch`, of which none drain, begin to do so."""
    held = s.chan[ch, LEN_WRITE]
    low = 0 if s.clock[FLUSH] and s.chan[ch, LEN_READ] == 0 else s.cfg[DRAIN_LOW]
    return held >= s.cfg[DRAIN_HIGH] or (held > low and s.chan[ch, QUEUED] == 0)


@inlined
def move_transaction(s, ch, t):
    """Move the first transaction whose bank queue has room; whether the next clock's move would change anything.

    Writes move only while draining: from the clock their buffer is full, or holds more than `DRAIN_LOW` while all bank
    queues are empty, until as many as it then held have moved or one must wait for an older read of the same burst.
    When that read has not moved and no bank queue holds anything, reads move (DRAMsim3 would wait for ever).
    """
    chan = s.chan
    unified = s.cfg[UNIFIED]
    before = chan[ch, DRAINING]
    if before == 0 and not unified and starts_draining(s, ch):
        chan[ch, DRAINING] = chan[ch, LEN_WRITE]
    pool = 1 if chan[ch, DRAINING] > 0 else 0
    e = first_movable(s, ch, pool)
    if e >= 0 and s.entry[ch, e, E_WRITE] and not unified:
        if find_pending(s, ch, s.entry[ch, e, E_BURST], 0) >= 0:
            chan[ch, DRAINING] = 0
            e = -1
            if chan[ch, QUEUED] == 0:
                pool = 0
                e = first_movable(s, ch, pool)
        else:
            chan[ch, DRAINING] -= 1
    if e >= 0:
        take_transaction(s, ch, pool, e)
        b = s.entry[ch, e, E_BANK]
        if push_entry(s, ch, b, b, e):
            s.when[ch, b] = bank_ready(s, ch, b)
            chan[ch, ISSUE_AT] = min(chan[ch, ISSUE_AT], max(t + 1, s.when[ch, b]))
    elif chan[ch, DRAINING] == before:
        return False
    if chan[ch, DRAINING] == 0 and not unified and starts_draining(s, ch):
        return True
    return first_movable(s, ch, 1 if chan[ch, DRAINING] > 0 else 0) >= 0


@inlined
def tick_bank_queues(s, ch, t):
    """One clock of a controller with per-bank command queues (DRAMsim3)."""
    chan = s.chan
    refresh_tick(s, ch, t)
    wake = chan[ch, REF_NEXT]
    low = 0
    high = 0
    refreshed = NOTHING
    pending = chan[ch, REF_PENDING]
    if pending > 0:
        low, high = refresh_unit(s, ch)
        r = refresh_bank_queues(s, ch, t)
        if r < 0:
            refreshed = ROW_COMMAND
            if chan[ch, REF_PENDING] < pending:
                high = low
        else:
            wake = min(wake, r)
        chan[ch, ISSUE_AT] = t
    if chan[ch, ISSUE_AT] <= t and (refreshed == NOTHING or s.cfg[DUAL_BUS]):
        issued = issue_bank_queues(s, ch, t, low, high, refreshed)
        if issued and pending > 0:
            wake = t + 1
    elif refreshed != NOTHING:
        wake = t + 1
    if move_transaction(s, ch, t):
        return t + 1
    return max(t + 1, min(wake, chan[ch, ISSUE_AT]))


@inlined
def write_mode(s, ch):
    """Whether the controller serves its write buffer now; between the watermarks it keeps what it did."""
    reads = s.chan[ch, LEN_READ]
    writes = s.chan[ch, LEN_WRITE]
    if s.chan[ch, WRITE_MODE] == 0:
        if writes >= s.cfg[DRAIN_HIGH] or reads == 0:
            s.chan[ch, WRITE_MODE] = 1
    elif writes < s.cfg[DRAIN_LOW] and reads != 0:
        s.chan[ch, WRITE_MODE] = 0
    return s.chan[ch, WRITE_MODE]


@inlined
def pick_active(s, ch, t):
    """The oldest request whose row was opened for it and that may issue at `t`: (slot or -1, when one could)."""
    best = -1
    later = FAR
    for i in range(s.chan[ch, ACTIVE_N]):
        e = s.active[ch, i]
        at = earliest(s, ch, s.entry[ch, e, E_BANK], WR if s.entry[ch, e, E_WRITE] else RD)
        if at > t:
            later = min(later, at)
        elif best < 0 or s.entry[ch, e, E_ARRIVE] < s.entry[ch, best, E_ARRIVE]:
            best = e
    return best, later


@kernel
def pick_refresh(s, ch, t):
    """The pending all-bank refresh's next command, PREA or REF: (command or -1, when it could)."""
    rank = s.chan[ch, REF_HEAD]
    if s.rank[ch, rank, OPEN_BANKS] > 0:
        waiting = s.chan[ch, ACT2_SLOT]
        opening = waiting >= 0 and s.geom[s.entry[ch, waiting, E_BANK], RANK_OF] == rank
        if opening or s.rank[ch, rank, RANK_ACTIVE] > 0:
            return -1, FAR
        at = earliest_rank(s, ch, rank, PREA)
        return (PREA, at) if at <= t else (-1, at)
    at = earliest_rank(s, ch, rank, REF)
    return (REF, at) if at <= t else (-1, at)


@inlined
def pick_pool(s, ch, t, bus):
    """The oldest ready command of the buffer in service on `bus`: (command or -1, slot, when one could)."""
    n = s.cfg[N_BANKS]
    pool = write_mode(s, ch)
    column = WR if pool else RD
    cmd = -1
    best = -1
    later = FAR
    act_pending = s.chan[ch, ACT2_SLOT] >= 0
    for b in range(n):
        q = pool * n + b
        if s.queue[ch, q, LENGTH] == 0:
            continue
        kind = s.queue[ch, q, KIND]
        allowed = not act_pending if kind == ACT else s.bank[ch, b, BANK_ACTIVE] == 0
        if kind >= 0 and bus != COLUMN_BUS and allowed:
            at = earliest(s, ch, b, kind)
            e = s.queue[ch, q, HEAD]
            if at > t:
                later = min(later, at)
            elif best < 0 or s.entry[ch, e, E_SEQ] < s.entry[ch, best, E_SEQ]:
                best, cmd = e, kind
        e = s.queue[ch, q, HIT_WR if pool else HIT_RD]
        if e >= 0 and bus != ROW_BUS:
            at = earliest(s, ch, b, column)
            if at > t:
                later = min(later, at)
            elif best < 0 or s.entry[ch, e, E_SEQ] < s.entry[ch, best, E_SEQ]:
                best, cmd = e, column
    return cmd, best, later


@inlined
def leave_pool(s, ch, slot, b):
    """Take `slot` out of its buffer; reads of its burst are no longer forwarded from it."""
    write = s.entry[ch, slot, E_WRITE]
    q = write * s.cfg[N_BANKS] + b
    unlink_entry(s, ch, q, slot)
    s.chan[ch, LEN_READ + write] -= 1
    forget(s, ch, slot)
    s.entry[ch, slot, E_BURST] = -1


@inlined
def make_active(s, ch, slot, b):
    """The row of `slot` is open: it is served before all buffers."""
    s.active[ch, s.chan[ch, ACTIVE_N]] = slot
    s.chan[ch, ACTIVE_N] += 1
    s.bank[ch, b, BANK_ACTIVE] += 1
    s.rank[ch, s.geom[b, RANK_OF], RANK_ACTIVE] += 1


@inlined
def leave_active(s, ch, slot, b):
    """Take `slot` out of the active list, keeping its order."""
    n = s.chan[ch, ACTIVE_N] - 1
    i = 0
    while s.active[ch, i] != slot:
        i += 1
    for k in range(i, n):
        s.active[ch, k] = s.active[ch, k + 1]
    s.chan[ch, ACTIVE_N] = n
    s.bank[ch, b, BANK_ACTIVE] -= 1
    s.rank[ch, s.geom[b, RANK_OF], RANK_ACTIVE] -= 1


@kernel
def issue_picked(s, ch, t, where, cmd, slot):
    """Issue `cmd` for the request in `slot` (or for the pending refresh)."""
    if where == IN_REFRESH:
        rank = s.chan[ch, REF_HEAD]
        per_rank = s.cfg[N_BANKS] // s.cfg[N_RANKS]
        first = rank * per_rank
        if cmd == REF:
            issue_refresh(s, ch, first, REF, t)
            return
        constrain(s, ch, first, PREA, t)
        s.stats[ch, C_PRE] += 1
        for b in range(first, first + per_rank):
            close_row(s, ch, b, t)
            all_candidates(s, ch, b)
        return
    b = s.entry[ch, slot, E_BANK]
    if cmd == PRE:
        s.entry[ch, slot, E_STARTED] = 1
        precharge(s, ch, b, t)
        return
    if cmd == ACT:
        s.entry[ch, slot, E_STARTED] = 1
        constrain(s, ch, b, ACT, t)
        s.stats[ch, C_ACT] += 1
        leave_pool(s, ch, slot, b)
        open_row(s, ch, b, ACTIVATING if s.cfg[SPLIT_ACT] else s.entry[ch, slot, E_ROW], t)
        if s.cfg[SPLIT_ACT]:
            s.chan[ch, ACT2_SLOT] = slot
            s.chan[ch, ACT2_DEADLINE] = t + s.cfg[ACT_DEADLINE]
        else:
            make_active(s, ch, slot, b)
        all_candidates(s, ch, b)
        return
    if s.entry[ch, slot, E_STARTED] == 0:
        s.stats[ch, C_HIT] += 1
    constrain(s, ch, b, cmd, t)
    if where == IN_ACTIVE:
        leave_active(s, ch, slot, b)
    else:
        leave_pool(s, ch, slot, b)
        all_candidates(s, ch, b)
    retire(s, ch, slot, t)


@inlined
def pick(s, ch, t, bus):
    """What the channel would issue on `bus` at `t`: (where, command or -1, slot, when anything could).

    Requests whose row was opened for them come first, then a pending refresh, then the buffer in service.
    """
    later = FAR
    if bus != ROW_BUS:
        slot, later = pick_active(s, ch, t)
        if slot >= 0:
            return IN_ACTIVE, WR if s.entry[ch, slot, E_WRITE] else RD, slot, t
    if s.chan[ch, REF_PENDING] > 0:
        if bus != COLUMN_BUS:
            cmd, at = pick_refresh(s, ch, t)
            if cmd >= 0:
                return IN_REFRESH, cmd, -1, t
            later = min(later, at)
        return IN_POOL, -1, -1, later
    cmd, slot, at = pick_pool(s, ch, t, bus)
    return IN_POOL, cmd, slot, min(later, at)


@kernel
def tick_pools(s, ch, t):
    """One clock of a controller with one read and one write buffer (Ramulator 2.1)."""
    refresh_tick(s, ch, t)
    if s.cfg[SPLIT_ACT]:
        wake = tick_split_activate(s, ch, t)
        return t + 1 if wake <= t else min(wake, s.chan[ch, REF_NEXT])
    where, cmd, slot, wake = pick(s, ch, t, COLUMN_BUS if s.cfg[DUAL_BUS] else ANY_BUS)
    issued = cmd >= 0
    if issued:
        issue_picked(s, ch, t, where, cmd, slot)
    if s.cfg[DUAL_BUS]:
        where, cmd, slot, at = pick(s, ch, t, ROW_BUS)
        wake = min(wake, at)
        if cmd >= 0:
            issued = True
            issue_picked(s, ch, t, where, cmd, slot)
    return t + 1 if issued else min(wake, s.chan[ch, REF_NEXT])


@kernel
def second_activate(s, ch):
    """Issue the second half of a split activate: the row is open now."""
    slot = s.chan[ch, ACT2_SLOT]
    b = s.entry[ch, slot, E_BANK]
    s.bank[ch, b, OPEN_ROW] = s.entry[ch, slot, E_ROW]
    s.chan[ch, ACT2_SLOT] = -1
    make_active(s, ch, slot, b)
    all_candidates(s, ch, b)


@kernel
def tick_split_activate(s, ch, t):
    """LPDDR5: an activate is two commands, and a column command needs a running data clock (CAS before it if not)."""
    slot = s.chan[ch, CAS_SLOT]
    if slot >= 0:
        write = s.entry[ch, slot, E_WRITE]
        cmd = WR if write else RD
        at = earliest(s, ch, s.entry[ch, slot, E_BANK], cmd)
        if at > t:
            return at
        s.chan[ch, CAS_SLOT] = -1
        s.chan[ch, WCK_UNTIL] = max(s.chan[ch, WCK_UNTIL], t + s.cfg[WCK_WRITE if write else WCK_READ])
        where = IN_POOL
        for i in range(s.chan[ch, ACTIVE_N]):
            if s.active[ch, i] == slot:
                where = IN_ACTIVE
        issue_picked(s, ch, t, where, cmd, slot)
        return t
    waiting = s.chan[ch, ACT2_SLOT] >= 0
    if waiting and s.chan[ch, ACT2_DEADLINE] <= t:
        second_activate(s, ch)
        return t
    where, cmd, slot, later = pick(s, ch, t, ANY_BUS)
    if cmd < 0:
        if waiting:
            second_activate(s, ch)
            return t
        return later
    if cmd in (RD, WR):
        if t >= s.chan[ch, WCK_UNTIL]:
            if waiting and s.chan[ch, ACT2_DEADLINE] <= t + 1:
                second_activate(s, ch)
            else:
                s.chan[ch, CAS_SLOT] = slot
                s.stats[ch, C_CAS] += 1
            return t
        s.chan[ch, WCK_UNTIL] = max(s.chan[ch, WCK_UNTIL], t + s.cfg[WCK_WRITE if cmd == WR else WCK_READ])
    issue_picked(s, ch, t, where, cmd, slot)
    return t
