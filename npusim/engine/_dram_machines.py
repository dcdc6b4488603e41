"""A controller with one state machine per bank (DRAMSys): every bank offers one command, the oldest earliest one wins.

A bank serves the oldest request that hits its open row, else the oldest; once it has opened a row for a request it
keeps that request unless another hits the row. Commands occupy the bus for several clocks (`LENGTH_*`), and the winner
is the one whose transmission could end first, even if it cannot start yet: then nothing issues in this clock.
"""

from __future__ import annotations

from npusim.engine._dram_policies import (
    precharge,
    precharge_rank,
)
from npusim.engine._dram_state import (
    ACT,
    BANK_ACTIVE,
    BANKS,
    BANKS_END,
    C_ACT,
    C_HIT,
    CLOSED,
    DRAIN_HIGH,
    DRAIN_LOW,
    E_ROW,
    E_SEQ,
    E_STARTED,
    E_WRITE,
    FAR,
    FIRST,
    HEAD,
    HIT_RD,
    HIT_WR,
    LEN_READ,
    LEN_WRITE,
    LENGTH,
    LENGTH_COLUMN,
    LENGTH_ROW,
    N_POOLS,
    NO_COMMAND,
    NONE,
    OPEN_BANKS,
    OPEN_ROW,
    PRE,
    PREA,
    RANK,
    RD,
    REF,
    REF_HEAD,
    REF_NEXT,
    REF_PENDING,
    WR,
    WRITE_MODE,
    WRITE_QUEUE,
    all_candidates,
    constrain,
    earliest,
    earliest_rank,
    following,
    forget,
    inlined,
    issue_refresh,
    kernel,
    open_row,
    rank,
    refresh_tick,
    retire,
    unlink_entry,
)


@inlined
def update_write_mode(val):
    """Serve writes from above `DRAIN_HIGH` or when no read waits, until `DRAIN_LOW` or fewer are left."""
    if val[WRITE_MODE]:
        if val[LEN_WRITE] <= val[DRAIN_LOW] and val[LEN_READ] != 0:
            val[WRITE_MODE] = 0
    elif val[LEN_WRITE] > val[DRAIN_HIGH] or val[LEN_READ] == 0:
        val[WRITE_MODE] = 1


@inlined
def bank_request(ref, val, b):
    """The request bank `b` works on, or NONE."""
    q = ref[b + WRITE_QUEUE] if val[N_POOLS] > 1 and val[WRITE_MODE] else b
    if val[q + LENGTH] == 0:
        return NONE
    rd = ref[q + HIT_RD]
    wr = ref[q + HIT_WR]
    if rd != NONE and (wr == NONE or val[rd + E_SEQ] < val[wr + E_SEQ]):
        return rd
    if wr != NONE:
        return wr
    kept = ref[b + BANK_ACTIVE]
    return kept if kept != NONE else ref[q + HEAD]


@inlined
def bank_command(ref, val, b, e):
    """The command request `e` needs next."""
    row = val[b + OPEN_ROW]
    if row == CLOSED:
        return ACT
    if val[e + E_ROW] != row:
        return PRE
    return WR if ref[e + E_WRITE] else RD


@inlined
def held_back(ref, val):
    """The rank that a pending refresh holds back, or NONE."""
    return rank(ref, val[REF_HEAD]) if val[REF_PENDING] > 0 else NONE


@kernel
def choose(ref, val, t):
    """(request or NONE, command, bank or rank, start) of the command whose transmission ends first, oldest on ties."""
    best = FAR
    best_id = FAR
    best_entry = NONE
    best_cmd = NO_COMMAND
    unit = NONE
    start = FAR
    blocked = held_back(ref, val)
    if blocked != NONE:
        best_cmd = PREA if val[blocked + OPEN_BANKS] > 0 else REF
        start = max(t, earliest_rank(ref, val, blocked, best_cmd))
        best = start + val[LENGTH_ROW + best_cmd]
        best_id = -1
        unit = blocked
    b = ref[BANKS]
    while b < ref[BANKS_END]:
        e = bank_request(ref, val, b) if ref[b + RANK] != blocked else NONE
        if e != NONE:
            cmd = bank_command(ref, val, b, e)
            at = max(t, earliest(ref, val, b, cmd))
            end = at + (val[LENGTH_COLUMN] if cmd in (RD, WR) else val[LENGTH_ROW + cmd])
            if end < best or (end == best and val[e + E_SEQ] < best_id):
                best, best_id, best_entry, best_cmd, unit, start = end, val[e + E_SEQ], e, cmd, b, at
        b = following(b)
    return best_entry, best_cmd, unit, start


@kernel
def wake_machines(ref, val, t):
    """First clock after `t` at which any bank or refresh command may start."""
    wake = val[REF_NEXT]
    blocked = held_back(ref, val)
    if blocked != NONE:
        cmd = PREA if val[blocked + OPEN_BANKS] > 0 else REF
        wake = min(wake, max(t + 1, earliest_rank(ref, val, blocked, cmd)))
    b = ref[BANKS]
    while b < ref[BANKS_END]:
        e = bank_request(ref, val, b) if ref[b + RANK] != blocked else NONE
        if e != NONE:
            wake = min(wake, max(t + 1, earliest(ref, val, b, bank_command(ref, val, b, e))))
        b = following(b)
    return wake


@kernel
def issue_machine(s, ref, val, t, e, cmd, unit):
    """Issue `cmd` for request `e` of bank `unit`, or for the refresh of rank `unit`."""
    if cmd == REF:
        issue_refresh(ref, val, ref[unit + FIRST], t)
        return
    if cmd == PREA:
        precharge_rank(ref, val, unit, t)
        return
    if cmd == PRE:
        ref[e + E_STARTED] = 1
        ref[unit + BANK_ACTIVE] = NONE
        precharge(ref, val, unit, t)
        all_candidates(ref, val, unit)
        return
    constrain(ref, val, unit, cmd, t)
    if cmd == ACT:
        ref[e + E_STARTED] = 1
        val[C_ACT] += 1
        open_row(ref, val, unit, val[e + E_ROW], t)
        ref[unit + BANK_ACTIVE] = e
        all_candidates(ref, val, unit)
        return
    if ref[e + E_STARTED] == 0:
        val[C_HIT] += 1
    ref[unit + BANK_ACTIVE] = NONE
    write = ref[e + E_WRITE]
    unlink_entry(ref, val, ref[unit + WRITE_QUEUE] if write and val[N_POOLS] > 1 else unit, e)
    val[LEN_READ + write] -= 1
    forget(ref, val, e)
    retire(s, ref, val, e, t)
    all_candidates(ref, val, unit)
    update_write_mode(val)


@kernel
def tick_bank_machines(s, ref, val, t):
    """One clock of a controller with bank machines (DRAMSys)."""
    refresh_tick(val, t)
    update_write_mode(val)
    e, cmd, unit, start = choose(ref, val, t)
    if cmd != NO_COMMAND and start <= t:
        issue_machine(s, ref, val, t, e, cmd, unit)
        if cmd in (RD, WR):
            return t + 1
    return wake_machines(ref, val, t)
