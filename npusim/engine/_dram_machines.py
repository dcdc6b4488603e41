"""A controller with one state machine per bank (DRAMSys): every bank offers one command, the oldest earliest one wins.

A bank serves the oldest request that hits its open row, else the oldest; once it has opened a row for a request it
keeps that request unless another hits the row. Commands occupy the bus for several clocks (`LENGTH_*`), and the winner
is the one whose transmission could end first, even if it cannot start yet: then nothing issues in this clock.
"""

from __future__ import annotations

from npusim.engine._dram_policies import precharge
from npusim.engine._dram_state import (
    ACT,
    BANK_ACTIVE,
    C_ACT,
    C_HIT,
    C_PRE,
    CLOSED,
    DRAIN_HIGH,
    DRAIN_LOW,
    E_ROW,
    E_SEQ,
    E_STARTED,
    E_WRITE,
    FAR,
    HEAD,
    HIT_RD,
    HIT_WR,
    LEN_READ,
    LEN_WRITE,
    LENGTH,
    LENGTH_COLUMN,
    LENGTH_ROW,
    N_BANKS,
    N_POOLS,
    N_RANKS,
    OPEN_BANKS,
    OPEN_ROW,
    PRE,
    PREA,
    RANK_OF,
    RD,
    REF,
    REF_HEAD,
    REF_NEXT,
    REF_PENDING,
    WR,
    WRITE_MODE,
    all_candidates,
    close_row,
    constrain,
    earliest,
    earliest_rank,
    forget,
    inlined,
    issue_refresh,
    kernel,
    open_row,
    refresh_tick,
    retire,
    unlink_entry,
)


@inlined
def update_write_mode(s, ch):
    """Serve writes from above `DRAIN_HIGH` or when no read waits, until `DRAIN_LOW` or fewer are left."""
    reads = s.chan[ch, LEN_READ]
    writes = s.chan[ch, LEN_WRITE]
    if s.chan[ch, WRITE_MODE]:
        if writes <= s.cfg[DRAIN_LOW] and reads != 0:
            s.chan[ch, WRITE_MODE] = 0
    elif writes > s.cfg[DRAIN_HIGH] or reads == 0:
        s.chan[ch, WRITE_MODE] = 1


@inlined
def bank_request(s, ch, b):
    """The request bank `b` works on, or -1."""
    pool = s.chan[ch, WRITE_MODE] if s.cfg[N_POOLS] > 1 else 0
    q = pool * s.cfg[N_BANKS] + b
    if s.queue[ch, q, LENGTH] == 0:
        return -1
    rd = s.queue[ch, q, HIT_RD]
    wr = s.queue[ch, q, HIT_WR]
    if rd >= 0 and (wr < 0 or s.entry[ch, rd, E_SEQ] < s.entry[ch, wr, E_SEQ]):
        return rd
    if wr >= 0:
        return wr
    kept = s.bank[ch, b, BANK_ACTIVE]
    return kept - 1 if kept else s.queue[ch, q, HEAD]


@inlined
def bank_command(s, ch, b, e):
    """The command request `e` needs next."""
    row = s.bank[ch, b, OPEN_ROW]
    if row == CLOSED:
        return ACT
    if s.entry[ch, e, E_ROW] != row:
        return PRE
    return WR if s.entry[ch, e, E_WRITE] else RD


@kernel
def choose(s, ch, t):
    """(request or -1, command, bank or rank, start) of the command whose transmission ends first, oldest on ties."""
    best = FAR
    best_id = FAR
    best_slot = -1
    best_cmd = -1
    unit = -1
    start = FAR
    blocked = -1
    if s.chan[ch, REF_PENDING] > 0:
        blocked = s.chan[ch, REF_HEAD]
        best_cmd = PREA if s.rank[ch, blocked, OPEN_BANKS] > 0 else REF
        start = max(t, earliest_rank(s, ch, blocked, best_cmd))
        best = start + s.cfg[LENGTH_ROW + best_cmd]
        best_id = -1
        unit = blocked
    for b in range(s.cfg[N_BANKS]):
        if s.geom[b, RANK_OF] == blocked:
            continue
        e = bank_request(s, ch, b)
        if e < 0:
            continue
        cmd = bank_command(s, ch, b, e)
        at = max(t, earliest(s, ch, b, cmd))
        end = at + (s.cfg[LENGTH_COLUMN] if cmd in (RD, WR) else s.cfg[LENGTH_ROW + cmd])
        if end < best or (end == best and s.entry[ch, e, E_SEQ] < best_id):
            best, best_id, best_slot, best_cmd, unit, start = end, s.entry[ch, e, E_SEQ], e, cmd, b, at
    return best_slot, best_cmd, unit, start


@kernel
def wake_machines(s, ch, t):
    """First clock after `t` at which any bank or refresh command may start."""
    wake = s.chan[ch, REF_NEXT]
    blocked = -1
    if s.chan[ch, REF_PENDING] > 0:
        blocked = s.chan[ch, REF_HEAD]
        cmd = PREA if s.rank[ch, blocked, OPEN_BANKS] > 0 else REF
        wake = min(wake, max(t + 1, earliest_rank(s, ch, blocked, cmd)))
    for b in range(s.cfg[N_BANKS]):
        if s.geom[b, RANK_OF] == blocked:
            continue
        e = bank_request(s, ch, b)
        if e >= 0:
            wake = min(wake, max(t + 1, earliest(s, ch, b, bank_command(s, ch, b, e))))
    return wake


@kernel
def issue_machine(s, ch, t, e, cmd, unit):
    """Issue `cmd` for request `e` of bank `unit`, or for the refresh of rank `unit`."""
    if cmd in (REF, PREA):
        per_rank = s.cfg[N_BANKS] // s.cfg[N_RANKS]
        first = unit * per_rank
        if cmd == REF:
            issue_refresh(s, ch, first, REF, t)
            return
        constrain(s, ch, first, PREA, t)
        s.stats[ch, C_PRE] += 1
        for b in range(first, first + per_rank):
            close_row(s, ch, b, t)
            s.bank[ch, b, BANK_ACTIVE] = 0
            all_candidates(s, ch, b)
        return
    if cmd == PRE:
        s.entry[ch, e, E_STARTED] = 1
        s.bank[ch, unit, BANK_ACTIVE] = 0
        precharge(s, ch, unit, t)
        return
    constrain(s, ch, unit, cmd, t)
    if cmd == ACT:
        s.entry[ch, e, E_STARTED] = 1
        s.stats[ch, C_ACT] += 1
        open_row(s, ch, unit, s.entry[ch, e, E_ROW], t)
        s.bank[ch, unit, BANK_ACTIVE] = e + 1
        all_candidates(s, ch, unit)
        return
    if s.entry[ch, e, E_STARTED] == 0:
        s.stats[ch, C_HIT] += 1
    s.bank[ch, unit, BANK_ACTIVE] = 0
    write = s.entry[ch, e, E_WRITE]
    pool = write if s.cfg[N_POOLS] > 1 else 0
    unlink_entry(s, ch, pool * s.cfg[N_BANKS] + unit, e)
    s.chan[ch, LEN_READ + write] -= 1
    forget(s, ch, e)
    retire(s, ch, e, t)
    all_candidates(s, ch, unit)
    update_write_mode(s, ch)


@kernel
def tick_bank_machines(s, ch, t):
    """One clock of a controller with bank machines (DRAMSys)."""
    refresh_tick(s, ch, t)
    update_write_mode(s, ch)
    e, cmd, unit, start = choose(s, ch, t)
    if cmd >= 0 and start <= t:
        issue_machine(s, ch, t, e, cmd, unit)
        if cmd in (RD, WR):
            return t + 1
    return wake_machines(s, ch, t)
