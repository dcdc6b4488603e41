"""A fresh memory system of a configuration, laid out as the kernels want it: see `_dram_state`."""

from __future__ import annotations

import numpy as np

from npusim.engine import _dram_state as st
from npusim.engine.dram_config import COMMANDS, POLICIES, DramConfig


def allocate(config: DramConfig, requesters: int, outstanding: int, per_clock: int, transfers: int) -> st.DramState:
    """Fresh state of `config`: all banks closed, clock 0."""
    policy, n_ch = config.policy, config.channels
    slots = policy.read_entries + policy.write_entries + config.banks * (policy.bank_entries + 2) + 256
    ref, val = _channel(config, slots)
    agent = np.zeros((requesters, st.AGENT), np.int64)
    agent[:, st.A_HEAD] = agent[:, st.A_TAIL] = agent[:, st.A_BURST] = -1
    agent[:, st.A_LIMIT] = outstanding
    agent[:, st.A_PER_CLOCK] = per_clock
    clock = np.zeros(st.N_CLOCK, np.int64)
    clock[st.WAKE] = val[st.NEXT]
    clock[st.OFFER_AT] = clock[st.RING_AT] = st.FAR
    in_flight = (config.read_latency + config.write_latency + 4) * (n_ch + policy.per_clock) + slots * n_ch
    return st.DramState(
        cfg=val[: st.N_CFG].copy(), amap=config.map_table(), ref=np.tile(ref, (n_ch, 1)), val=np.tile(val, (n_ch, 1)),
        xfer=np.zeros((transfers, st.N_XFER_COLS), np.int64), agent=agent.ravel(),
        ring=np.zeros((3, in_flight, 2), np.int64), ring_at=np.zeros((3, 2), np.int64), clock=clock,
        done=np.zeros(transfers, np.int64), lists=np.zeros(0, np.int64), segments=np.zeros((0, 4), np.int64),
    )  # fmt: skip


def _channel(config: DramConfig, slots: int) -> tuple[np.ndarray, np.ndarray]:
    """`ref` and `val` of a channel with room for `slots` bursts; see `_dram_state`."""
    n_rank, n_group, n_bank = config.ranks, config.ranks * config.groups, config.banks
    pools, window = 2 if config.policy.split_pools else 1, max(config.faw_window, 1)
    sizes = (n_rank, n_group, n_bank, (pools - 1) * n_bank)
    starts = np.cumsum([st.RECORDS, *(n * st.STRIDE for n in sizes), n_bank + 1, n_rank * window, slots * st.ENTRY])
    ranks, groups, banks, queues = (start + np.arange(n) * st.STRIDE for start, n in zip(starts, sizes, strict=False))
    active, rings = starts[4], starts[5] + np.arange(n_rank) * window
    entries = starts[6] + np.arange(slots) * st.ENTRY
    ref, val = np.zeros(starts[7], np.uint32), np.zeros(starts[7], np.int64)

    val[: st.N_CFG] = _cfg(config)
    val[st.FIRST_BANK] = ref[st.BANKS] = ref[st.LAST_BANK] = starts[2]
    ref[st.RANKS], ref[st.RANKS_END], ref[st.BANKS_END] = starts[0], starts[1], starts[3]
    lists = st.RULES + np.arange(st.N_CMD)[:, None] * st.RULE_COMMAND + np.arange(3) * st.RULE_LIST
    ref[lists] = lists + 1
    for before, scope, after, cycles in config.rules():
        rules = lists[before, max(scope - st.SAME_RANK, 0)]
        end = ref[rules]
        ref[end], ref[end + st.RULE_AFTER], val[end] = (st.SELF, st.GROUP, st.RANK, 0, 0)[scope], after, cycles
        ref[rules] = end + 1
        val[st.OTHER_RANKS] |= scope == st.OTHER_RANK
    val[st.NEXT] = val[st.REF_NEXT] = config.refresh.first if config.refresh.interval else st.FAR
    if config.policy.kind == "pools":
        val[st.NEXT] = 0  # A first clock without requests leaves the controller in write mode.
    val[st.ISSUE_AT] = st.FAR

    units = np.concatenate([ranks, groups, banks])
    val[units[:, None] + np.arange(st.N_CMD)] = st.NEVER
    for records, inner in ((ranks, banks), (groups, banks), (ranks, groups)):
        each = inner.size // records.size * st.STRIDE
        first, last = (st.FIRST, st.LAST) if inner is banks else (st.FIRST_GROUP, st.LAST_GROUP)
        ref[records + first] = inner[0] + np.arange(records.size) * each
        ref[records + last] = ref[records + first] + each
    val[np.concatenate([ranks, groups]) + st.AT] = st.FAR
    val[groups[:, None] + st.LEAST + np.arange(st.REF)] = st.FAR
    ref[ranks + st.RING] = rings
    val[rings[0] : rings[0] + n_rank * window] = st.NEVER
    val[banks + st.OPEN_ROW] = st.CLOSED
    val[banks[:, None] + st.LEAST + np.arange(st.REF)] = st.FAR
    ref[banks + st.SELF] = banks
    ref[banks + st.GROUP] = np.repeat(groups, n_bank // n_group)
    ref[banks + st.RANK] = np.repeat(ranks, n_bank // n_rank)
    ref[banks + st.WRITE_QUEUE] = queues if pools > 1 else banks
    ref[np.concatenate([banks, queues]) + st.KIND] = st.NO_COMMAND
    ref[st.ACTIVE] = active

    # The free entries, the one with the highest handle first.
    ref[st.FREE], val[st.FREE_N] = entries[-1], slots
    ref[entries[1:] + st.E_NEXT] = entries[:-1]
    return ref, val


def _cfg(config: DramConfig) -> np.ndarray:
    """The configuration's scalars as the kernel reads them."""
    p = config.policy
    r = config.refresh
    cfg = np.zeros(st.N_CFG, np.int64)
    kind = POLICIES.index(p.kind)
    values = {
        st.POLICY: kind, st.N_POOLS: 2 if p.split_pools else 1, st.FIFO_CAP_READ: p.read_entries,
        st.FIFO_CAP_WRITE: p.write_entries, st.BANK_CAP: p.bank_entries, st.HIT_CAP: p.hit_cap,
        st.PRE_RULE: st.RULE_AGE if p.kind == "pools" else st.RULE_CAP, st.DRAIN_HIGH: p.drain_high,
        st.DRAIN_LOW: p.drain_low, st.UNIFIED: p.unified, st.CLOSE_PAGE: p.close_page,
        st.SPLIT_ACT: p.split_activate, st.ACT_DEADLINE: p.act_deadline, st.WCK_READ: p.wck_read,
        st.WCK_WRITE: p.wck_write, st.REF_INTERVAL: r.interval or st.FAR, st.REF_BATCH: r.batch,
        st.REF_PER_BANK: r.per_bank, st.REF_ALL_RANKS: r.all_ranks, st.READ_LATENCY: config.read_latency,
        st.WRITE_LATENCY: config.write_latency, st.ACCEPT_LATENCY: 1,
        st.WRITE_DONE: ("accept", "issue", "data").index(p.write_done),
        st.FORWARD: ("never", "after_room", "before_room").index(p.forward), st.MERGE_READS: p.merge_reads,
        st.PER_CLOCK: p.per_clock, st.FAW_DELAY: config.faw, st.FAW_WINDOW: config.faw_window,
        st.BURST_BITS: config.burst_bytes.bit_length() - 1, st.N_CHANNELS: config.channels, st.N_RANKS: config.ranks,
        st.ROOM: ("own", "both", "last_bank", "sum").index(p.room),
        st.N_GROUPS: config.groups, st.N_BANKS: config.banks,
        st.BANKS_PER_GROUP: config.banks_per_group,
    }  # fmt: skip
    for i, v in values.items():
        cfg[i] = v
    cfg[st.DUAL_BUS] = p.dual_bus
    lowest, bits = next(((name, bits) for name, bits in config.address_map if bits), ("row", 0))
    cfg[st.COLUMN_BITS] = bits if lowest == "column" else 0
    cfg[st.LENGTH_COLUMN] = cfg[st.LENGTH_ROW :] = 1
    for name, cycles in p.command_cycles:
        cfg[st.LENGTH_ROW + COMMANDS[name]] = cycles
        if name == "RD":
            cfg[st.LENGTH_COLUMN] = cycles
    return cfg
