"""What the DRAM kernel keeps up to date step by step is what a look at everything gives, wherever a run is stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as hyp

from npusim.engine import _dram_state as st
from npusim.engine.dram import Dram
from npusim.engine.dram_config import DramConfig
from npusim.engine.dram_standards import load_standard

COMMANDS = (st.ACT, st.PRE, st.RD, st.WR)


class Channel:
    """One channel's records, read the long way."""

    def __init__(self, state: st.DramState, number: int) -> None:
        self.ref, self.val = (rows[number].astype(np.int64) for rows in (state.ref, state.val))
        self.banks = range(self.ref[st.BANKS], self.ref[st.BANKS_END], st.STRIDE)
        self.pools = int(self.val[st.N_POOLS])

    def entries(self, queue: int) -> list[int]:
        """The list of `queue` from its head on; it must be the same from its tail."""
        forward, backward = [], []
        e = self.ref[queue + st.HEAD]
        while e:
            forward.append(int(e))
            e = self.ref[e + st.E_NEXT]
        e = self.ref[queue + st.TAIL]
        while e:
            backward.append(int(e))
            e = self.ref[e + st.E_PREV]
        assert forward == backward[::-1]
        return forward

    def queues(self, bank: int) -> list[int]:
        return [bank, int(self.ref[bank + st.WRITE_QUEUE])][: self.pools]

    def buffers(self) -> list[list[int]]:
        return [self.entries(st.FIFO + pool * st.FIFO_STRIDE) for pool in range(2)]

    def free(self) -> int:
        count, e = 0, self.ref[st.FREE]
        while e:
            count, e = count + 1, self.ref[e + st.E_NEXT]
        return count

    def wanted(self, bank: int) -> set[int]:
        """The commands that the queue of `bank` could use next (one queue, row closed after `HIT_CAP` hits)."""
        held = self.entries(bank)
        row = self.val[bank + st.OPEN_ROW]
        if not held or row == st.CLOSED:
            return {st.ACT} if held else set()
        found = set()
        reads = set()
        for e in held:
            write, burst = self.ref[e + st.E_WRITE], self.val[e + st.E_BURST]
            if self.val[e + st.E_ROW] == row and not (write and burst in reads):
                found.add(st.WR if write else st.RD)
            if not write:
                reads.add(burst)
        conflict = self.val[held[0] + st.E_ROW] != row
        if conflict and (not found or self.val[bank + st.HITS] >= self.val[st.HIT_CAP]):
            found.add(st.PRE)
        return found


def check_lists(c: Channel) -> None:
    for bank in c.banks:
        for queue in c.queues(bank):
            held = c.entries(queue)
            assert c.val[queue + st.LENGTH] == len(held)
            assert c.val[queue + st.WRITES] == sum(c.ref[e + st.E_WRITE] for e in held)
            assert all(c.ref[e + st.E_BANK] == bank for e in held)
            assert held == sorted(held, key=lambda e: c.val[e + st.E_SEQ])
    queued = [e for bank in c.banks for queue in c.queues(bank) for e in c.entries(queue)]
    buffered = [e for held in c.buffers() for e in held]
    assert c.val[st.QUEUED] == len(queued)
    assert c.val[st.FREE_N] == c.free()
    assert len(set(queued + buffered)) == len(queued) + len(buffered)


def check_bank_queues(c: Channel) -> None:
    """Buffers know the transactions of every bank; banks, groups and ranks when a command could issue."""
    for pool, held in enumerate(c.buffers()):
        assert c.val[st.LEN_READ + pool] == len(held)
        for bank in c.banks:
            own = [e for e in held if c.ref[e + st.E_BANK] == bank]
            assert c.ref[bank + st.OLDEST + pool] == (own[0] if own else st.NONE)
            assert c.ref[bank + st.NEWEST + pool] == (own[-1] if own else st.NONE)
            assert [c.ref[e + st.E_LATER] for e in own[:-1]] == own[1:]
    for bank in c.banks:
        wanted = c.wanted(bank)
        for cmd in COMMANDS:
            assert c.val[bank + st.LEAST + cmd] == (c.val[bank + cmd] if cmd in wanted else st.FAR), cmd
    for rank in {int(c.ref[bank + st.RANK]) for bank in c.banks}:
        firsts = []
        for group in {int(c.ref[bank + st.GROUP]) for bank in c.banks if c.ref[bank + st.RANK] == rank}:
            banks = [bank for bank in c.banks if c.ref[bank + st.GROUP] == group]
            first = st.FAR
            for cmd in COMMANDS:
                least = min(c.val[bank + st.LEAST + cmd] for bank in banks)
                assert c.val[group + st.LEAST + cmd] == least
                first = min(first, max(least, c.val[group + cmd], c.val[rank + cmd]))
            assert c.val[group + st.AT] == first
            firsts.append(first)
        assert c.val[rank + st.AT] == min(firsts)


def configs() -> list[DramConfig]:
    ddr4, hbm = load_standard("ddr4-3200", ranks=2), load_standard("hbm2-2000", channels=2)
    small = replace(ddr4, policy=replace(ddr4.policy, bank_entries=2, hit_cap=1, read_entries=6, write_entries=6,
                                         drain_high=5, drain_low=1))  # fmt: skip
    return [
        load_standard("lpddr4-3200"), load_standard("lpddr4-3200", per_bank_refresh=True), ddr4, small, hbm,
        replace(ddr4, policy=replace(ddr4.policy, close_page=True)),
        replace(ddr4, policy=replace(ddr4.policy, unified=True)),
        load_standard("ddr4-3200", "ramulator-like", ranks=2), load_standard("lpddr5-6400", "ramulator-like"),
    ]  # fmt: skip


TRANSFER = hyp.tuples(hyp.integers(0, 1 << 21), hyp.integers(1, 3000), hyp.booleans(), hyp.integers(0, 300))


@pytest.mark.parametrize("config", configs(), ids=range(len(configs())))
@settings(max_examples=8, deadline=None)
@given(hyp.lists(TRANSFER, min_size=1, max_size=8), hyp.integers(1, 50))
def test_what_is_kept_is_what_a_look_at_everything_gives(
    config: DramConfig, transfers: list[tuple[int, int, bool, int]], step: int
) -> None:
    dram = Dram(replace(config, refresh=replace(config.refresh, interval=min(config.refresh.interval, 700), first=200)),
                requesters=3, outstanding=24)  # fmt: skip
    now = 0
    for order, (address, size, write, gap) in enumerate(transfers):
        dram.submit(order % 3, order, address, size, write=write)
        until = now + gap
        while now <= until:
            now += step
            dram.advance(now)
            for number in range(config.channels):
                channel = Channel(dram.state, number)
                check_lists(channel)
                if config.policy.kind == "bank_queues":
                    check_bank_queues(channel)
    dram.drain()
    for number in range(config.channels):
        channel = Channel(dram.state, number)
        check_lists(channel)
        assert not any(channel.buffers()) and channel.val[st.QUEUED] == 0
