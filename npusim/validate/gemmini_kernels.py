"""Event loop of the Gemmini command model: arrays and scalars only.

    loops -> unroller -> reservation station -> load, execute and store controllers -> DMA -> memory

A cycle is visited when something can happen in it. In a visited cycle the stages act from the memory side
to the unroller, so a value made in one stage is seen by the next stage one visited cycle later, as registers do.
"""

from __future__ import annotations

from npusim.jit import njit
from npusim.validate.gemmini_memory_kernels import respond
from npusim.validate.gemmini_station_kernels import (
    A_FREE,
    ACCUMULATOR,
    ALLOCATED,
    ARRIVAL,
    BLOCKS,
    CALENDAR,
    CONFIG_READY,
    CONFIGURED,
    EX,
    EX_A,
    EX_BANK_A,
    EX_BANK_D,
    EX_D,
    EX_FREE,
    EX_NEXT,
    EX_ROWS,
    EX_SLOT,
    FIRED,
    INDEX,
    ISSUED,
    LAST,
    LD,
    LD_DATA,
    LD_FLYING,
    LD_OFFSET,
    LD_ROW,
    LOOP,
    MERGER_FREE,
    MOVED,
    NEVER,
    NEXT_DONE,
    NOW,
    ORDER,
    PARTS,
    READ_BYTES,
    READ_WAITS,
    READY,
    RING,
    ROW,
    ROWS_READ,
    ROWS_WRITTEN,
    ST,
    ST_ROW,
    TAKEN,
    USED,
    VALID,
    W_BEATS,
    W_OFFSET,
    W_SLOT,
    WRITES,
    WRITTEN_BYTES,
    allocate,
    complete,
    finish,
    head,
    issue,
)


@njit
def packet(address, left, bus_bytes, max_bytes):
    """Bytes and size of the aligned power-of-two request that covers most of the `left` bytes at `address`."""
    best, best_size = 0, 0
    size = bus_bytes
    while size <= max_bytes:
        covered = min(size - address % size, left)
        if covered > best:
            best, best_size = covered, size
        size *= 2
    return best, best_size


@njit
def first_free(times):
    """Index of the earliest entry."""
    best = 0
    for i in range(1, times.size):
        if times[i] < times[best]:
            best = i
    return best


@njit
def merge(m, beat, beats, row, covered, shift):
    """Cut the beats of a reply, from cycle `beat` on, into scratchpad rows; books the writes and the merger's time."""
    t, sc = m.timing, m.scalar
    width = t.bus_bytes
    offset = sc[LD_OFFSET] % width
    local = row[0] + sc[LD_OFFSET] // width * row[7] + sc[LD_ROW]
    cycle, sent = 0, 0
    while sent < covered:
        sent = min(sent + width - (offset if sent == 0 else 0), covered)
        cycle = max(cycle + 1, (sent + shift + width - 1) // width)
        if local < ACCUMULATOR:
            at = beat + cycle + t.spad_write
            m.calendar[at % CALENDAR] = at * 8 + local // t.scratchpad_bank
        local += row[7]
    sc[MERGER_FREE] = beat + max(cycle, beats) + row[6]
    return sc[MERGER_FREE] - 1


@njit
def load(m):
    """Load controller and DMA reader: one request per cycle while a request slot and a command slot are free."""
    t, sc = m.timing, m.scalar
    now = sc[NOW]
    slot = head(m, LD, 0)
    if slot < 0 or (sc[LD_DATA] < 0 and sc[LD_FLYING] >= t.commands_in_flight):
        return
    free = first_free(m.read_free)
    if m.read_free[free] > now:
        return
    if sc[A_FREE] > now + t.request + 4:
        sc[READ_WAITS] = 1
        return
    sc[READ_WAITS] = 0
    row = m.ld[m.slots[slot, ROW]]
    address = row[4] + sc[LD_ROW] * row[5] + sc[LD_OFFSET]
    sc[MOVED] = 1
    if sc[LD_DATA] < 0:
        sc[LD_FLYING] += 1
    covered, size = packet(address, row[3] - sc[LD_OFFSET], t.bus_bytes, t.max_bytes)
    beats = size // t.bus_bytes
    sc[READ_BYTES] += size
    accepted = max(now + t.request, sc[A_FREE])
    sc[A_FREE] = accepted + 1
    first_beat = respond(m.memory, accepted, address - address % size, beats, sc[MERGER_FREE] - t.reply) + t.reply
    m.read_free[free] = first_beat + beats
    sc[LD_DATA] = merge(m, first_beat, beats, row, covered, address % size)
    sc[LD_OFFSET] += covered
    if sc[LD_OFFSET] >= row[3]:
        sc[LD_OFFSET] = 0
        sc[LD_ROW] += 1
        if sc[LD_ROW] == row[2]:
            finish(m, slot, sc[LD_DATA] + t.load_done)
            m.queues[LD, TAKEN] += 1
            sc[LD_ROW], sc[LD_DATA] = 0, -1


@njit
def store_read(m):
    """Store controller: read one accumulator row per cycle unless the bank is accumulating or the pipe is full."""
    t, sc = m.timing, m.scalar
    now = sc[NOW]
    slot = head(m, ST, 0)
    if slot < 0 or sc[ROWS_READ] - sc[ROWS_WRITTEN] >= t.store_rows:
        return
    row = m.st[m.slots[slot, ROW]]
    bank = (row[0] - ACCUMULATOR + sc[ST_ROW]) // t.accumulator_bank
    for i in range(m.busy.shape[0]):
        if m.busy[i, 0] == bank and m.busy[i, 1] <= now < m.busy[i, 2]:
            return
    ring = m.rows[sc[ROWS_READ] % m.rows.shape[0]]
    ring[0], ring[1], ring[2] = now + t.store_pipe, row[4] + sc[ST_ROW] * row[5], row[3]
    sc[ROWS_READ] += 1
    sc[ST_ROW] += 1
    if sc[ST_ROW] == row[2]:
        finish(m, slot, now + 2)
        m.queues[ST, TAKEN] += 1
        sc[ST_ROW] = 0
    sc[MOVED] = 1


@njit
def store_write(m):
    """DMA writer: one beat per cycle. A request slot is taken with the first beat; with all slots taken not even the
    further beats of the last request go out."""
    t, sc = m.timing, m.scalar
    now = sc[NOW]
    if sc[ROWS_WRITTEN] == sc[ROWS_READ]:
        return
    ring = m.rows[sc[ROWS_WRITTEN] % m.rows.shape[0]]
    free = first_free(m.write_free)
    if ring[0] > now or m.write_free[free] > now or sc[A_FREE] > now + t.request + 4:
        return
    if sc[W_BEATS] == 0 and sc[READ_WAITS] == 1:
        sc[READ_WAITS], sc[MOVED] = 0, 1
        return
    address = ring[1] + sc[W_OFFSET]
    covered, size = packet(address, ring[2] - sc[W_OFFSET], t.bus_bytes, t.max_bytes)
    if sc[W_BEATS] == 0:
        sc[W_SLOT] = free
        m.write_free[free] = NEVER
        sc[W_BEATS] = size // t.bus_bytes
    accepted = max(now + t.request, sc[A_FREE])
    sc[A_FREE] = accepted + 1
    sc[W_BEATS] -= 1
    if sc[W_BEATS] == 0:
        reply = respond(m.memory, accepted, address - address % size, 0, 0) + t.write_reply
        m.write_free[sc[W_SLOT]] = reply
        sc[LAST] = max(sc[LAST], reply + t.end)
        sc[WRITTEN_BYTES] += covered
        sc[W_OFFSET] += covered
        if sc[W_OFFSET] >= ring[2]:
            sc[W_OFFSET] = 0
            sc[ROWS_WRITTEN] += 1
    sc[MOVED] = 1


@njit
def execute(m):
    """Execute controller: start a preload, a compute, or a compute with the next preload behind it."""
    t, sc = m.timing, m.scalar
    if sc[EX_FREE] > sc[NOW]:
        return
    if sc[EX_ROWS] > 0:
        fire_rows(m)
        sc[MOVED] = 1
        return
    first, second, third = head(m, EX, 0), head(m, EX, 1), head(m, EX, 2)
    preload = first >= 0 and m.slots[first, WRITES] == 1
    if first < 0 or (preload and second < 0):
        return
    sc[MOVED] = 1
    row = m.ex[m.slots[first, ROW]]
    sc[EX_SLOT], sc[EX_NEXT], sc[EX_BANK_A], sc[EX_BANK_D] = -1, -1, -1, -1
    weights = row[0] if preload else -1
    if not preload:
        sc[EX_SLOT] = first
        sc[EX_BANK_A] = row[5] // t.scratchpad_bank
        if second >= 0 and third >= 0:
            sc[EX_NEXT] = second
            weights = m.ex[m.slots[second, ROW], 0]
    sc[EX_ROWS] = t.block if weights >= 0 else (4 if preload else max(row[7], 4))
    if weights >= 0:
        sc[EX_BANK_D] = weights // t.scratchpad_bank
    m.queues[EX, TAKEN] += 2 if sc[EX_NEXT] >= 0 else 1
    sc[FIRED] += sc[EX_ROWS]
    sc[EX_A], sc[EX_D] = 0, 0
    fire_rows(m)


@njit
def fire_rows(m):
    """Read operand rows: inputs and weights at most one row apart; a bank that the DMA writes into waits."""
    t, sc = m.timing, m.scalar
    cycle = sc[NOW]
    rows, bank_a, bank_d = sc[EX_ROWS], sc[EX_BANK_A], sc[EX_BANK_D]
    a, d = sc[EX_A], sc[EX_D]
    end = cycle + t.block
    while cycle < end and (a < rows or d < rows):
        stamp = m.calendar[cycle % CALENDAR]
        written = stamp % 8 if stamp // 8 == cycle else -2
        can_a = a < rows and a <= d and written != bank_a
        can_d = d < rows and d <= a and written != bank_d and not (bank_a == bank_d and bank_a >= 0 and can_a)
        a += can_a
        d += can_d
        cycle += 1
    sc[EX_A], sc[EX_D], sc[EX_FREE] = a, d, cycle
    if a < rows or d < rows:
        return
    sc[EX_ROWS] = 0
    slot = sc[EX_SLOT]
    if slot < 0:
        return
    row = m.ex[m.slots[slot, ROW]]
    finish(m, slot, cycle + 1)
    finish(m, m.order[EX, 2 * sc[BLOCKS] % ORDER], cycle + t.mesh)
    sc[LAST] = max(sc[LAST], cycle + t.mesh + 1)
    sc[BLOCKS] += 1
    if row[4]:
        busy = m.busy[sc[RING] % m.busy.shape[0]]
        busy[0] = (row[2] - ACCUMULATOR) // t.accumulator_bank
        busy[1], busy[2] = cycle - rows + t.mesh, cycle - rows + t.mesh + row[7]
        sc[RING] += 1


@njit
def unroll(m, expand, loops):
    """Emit one command: stores first, then compute, then loads, each once what it needs has been emitted.

    Two loops may be active; the next is configured when the one before the last has emitted everything.
    Returns False when all is emitted.
    """
    t, sc, q = m.timing, m.scalar, m.queues
    now = sc[NOW]
    oldest = min(q[LD, LOOP], q[EX, LOOP], q[ST, LOOP])
    if sc[CONFIGURED] < loops.shape[0] and oldest >= sc[CONFIGURED] - 1:
        if sc[CONFIG_READY] < 0:
            wait = t.next_config if sc[CONFIGURED] > 1 else 0
            sc[CONFIG_READY] = now + wait + t.config_commands
            sc[MOVED] = 1
        elif sc[CONFIG_READY] <= now:
            expand(loops[sc[CONFIGURED]], m, sc[CONFIGURED] % PARTS)
            sc[CONFIGURED] += 1
            sc[CONFIG_READY] = -1
            sc[MOVED] = 1
    for queue in (ST, EX, LD):
        n = q[queue, LOOP]
        if n >= sc[CONFIGURED]:
            continue
        part = n % PARTS
        if q[queue, INDEX] == m.sizes[part, queue]:
            if (queue == EX and q[LD, LOOP] < n) or (queue == ST and q[EX, LOOP] < n):
                continue
            q[queue, LOOP] += 1
            q[queue, INDEX] = 0
            m.ends[n] = now
            sc[MOVED] = 1
            continue
        if q[queue, USED] < t.entries[queue] and emit(m, queue, part):
            return True
    return oldest < loops.shape[0]


@njit
def emit(m, queue, part):
    """Emit the next command of a queue if its gate is open."""
    q = m.queues
    n, i = q[queue, LOOP], q[queue, INDEX]
    if queue == LD:
        at = part * (m.ld.shape[0] // PARTS) + i
        row = m.ld[at]
        allocate(m, LD, at, row[0], row[1], -1, -1, True)
    elif queue == EX:
        at = part * (m.ex.shape[0] // PARTS) + i // 2
        row = m.ex[at]
        if q[LD, LOOP] < n or (q[LD, LOOP] == n and q[LD, INDEX] < row[8]):
            return False
        if i % 2 == 0:
            allocate(m, EX, at, row[2], row[3], row[0], row[1], True)
        else:
            allocate(m, EX, at, row[5], row[6], -1, -1, False)
    else:
        at = part * (m.st.shape[0] // PARTS) + i
        row = m.st[at]
        if q[EX, LOOP] < n or (q[EX, LOOP] == n and q[EX, INDEX] < 2 * row[6]):
            return False
        allocate(m, ST, at, row[0], row[1], -1, -1, False)
    q[queue, INDEX] += 1
    return True


@njit
def next_event(m):
    """The earliest cycle after now at which a waiting stage can move; NEVER when there is none."""
    sc, slots = m.scalar, m.slots
    now = sc[NOW]
    at = sc[NEXT_DONE]
    for slot in range(slots.shape[0]):
        if slots[slot, VALID] == 1:
            if now < slots[slot, READY] < at:
                at = slots[slot, READY]
            if now < slots[slot, ARRIVAL] < at:
                at = slots[slot, ARRIVAL]
    for i in range(m.read_free.size):
        if now < m.read_free[i] < at:
            at = m.read_free[i]
    for i in range(m.write_free.size):
        if now < m.write_free[i] < at:
            at = m.write_free[i]
    for i in range(m.rows.shape[0]):
        if now < m.rows[i, 0] < at:
            at = m.rows[i, 0]
    for i in range(m.busy.shape[0]):
        if now < m.busy[i, 2] < at:
            at = m.busy[i, 2]
    for time in (sc[EX_FREE], sc[CONFIG_READY], sc[A_FREE] - m.timing.request - 4):
        if now < time < at:
            at = time
    return at


@njit
def run(m, expand, loops):
    """Cycles from the first command offered to the accelerator idle; -1 when it comes to a stand."""
    sc = m.scalar
    sc[CONFIG_READY] = m.timing.first_config
    sc[LD_DATA] = -1
    sc[NEXT_DONE] = NEVER
    q = m.queues
    while True:
        sc[MOVED] = 0
        now = sc[NOW]
        if sc[NEXT_DONE] <= now:
            complete(m)
        if sc[ROWS_WRITTEN] != sc[ROWS_READ]:
            store_write(m)
        if q[ST, ISSUED] != q[ST, TAKEN]:
            store_read(m)
        if q[LD, ISSUED] != q[LD, TAKEN]:
            load(m)
        if sc[EX_FREE] <= now and (sc[EX_ROWS] > 0 or q[EX, ISSUED] != q[EX, TAKEN]):
            execute(m)
        if q[LD, ALLOCATED] + q[EX, ALLOCATED] + q[ST, ALLOCATED] != q[LD, ISSUED] + q[EX, ISSUED] + q[ST, ISSUED]:
            issue(m)
        more = unroll(m, expand, loops)
        if sc[MOVED]:
            sc[NOW] += 1
            continue
        at = next_event(m)
        if at == NEVER:
            return -1 if more else sc[LAST]
        sc[NOW] = at
