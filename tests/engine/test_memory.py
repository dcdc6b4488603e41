"""Command-level memory behind both engines: one kernel, one schedule."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from test_engines import build

from npusim import engine
from npusim.engine.dram_standards import load_standard
from npusim.engine.memory import COUNTED, Memory
from npusim.program import COMPUTE, FENCE, LOAD, STORE, VECTOR

DEVICES = (("lpddr4-3200", 2, 16), ("ddr4-2400", 1, 0), ("hbm2-2000", 2, 0), ("lpddr5-6400", 1, 0))
INTERLEAVED = "co2-ch-co-bg-ba-ra-ro"


def memory_of(device, channels, bus_bits, clocks=Fraction(2), outstanding=16, controller="dramsim3-like"):
    config = load_standard(device, controller, channels=channels, bus_bits=bus_bits, address_map=INTERLEAVED)
    return Memory(config, clocks, outstanding)


def with_segments(program, rng, most=3, span=2**20):
    """Every LOAD and STORE moves 1 to `most` random pieces of the first `span` bytes and a little more."""
    dma = (program.kind == LOAD) | (program.kind == STORE)
    pieces = np.where(dma, rng.integers(1, most + 1, dma.size), 0)
    total = int(pieces.sum())
    segments = np.stack([rng.integers(0, span, total), rng.integers(1, 300, total), rng.integers(1, 5, total),
                         rng.integers(0, 5000, total)], axis=1)  # fmt: skip
    return program._replace(first=np.cumsum(pieces) - pieces, pieces=pieces, segments=segments,
                            cycles=np.where(dma, 0, program.cycles))  # fmt: skip


def random_tasks(rng):
    tasks = []
    for i in range(int(rng.integers(1, 30))):
        kind = int(rng.choice([LOAD, STORE, COMPUTE, VECTOR, FENCE], p=[0.35, 0.25, 0.2, 0.1, 0.1]))
        deps = sorted(rng.choice(i, size=int(rng.integers(0, min(i, 3) + 1)), replace=False).tolist())
        tail = int(rng.integers(0, 6)) if kind in (LOAD, STORE) else 0
        tasks.append((kind, 0 if kind == FENCE else int(rng.integers(0, 90)), tail, deps))
    return tasks


@pytest.mark.parametrize("controller", ["dramsim3-like", "ramulator-like"])
@pytest.mark.parametrize("device", DEVICES, ids=lambda d: d[0])
def test_engines_agree_with_commands_behind_the_dma_channels(device, controller):
    rng = np.random.default_rng(DEVICES.index(device))
    for clocks in (Fraction(2), Fraction(1250, 833), Fraction(1, 3), Fraction(7, 5)):
        memory = memory_of(*device, clocks, int(rng.integers(1, 40)), controller)
        # Half of the programs read and write the same few bursts over and over.
        program = with_segments(build(random_tasks(rng)), rng, span=int(rng.choice([2**9, 2**20])))
        program = program._replace(op=np.cumsum(program.kind == FENCE).astype(np.int32))
        capacity = rng.integers(1, 4, size=5)
        capacity[0] = 1
        fast, slow = (engine.run(program, capacity, name, memory) for name in engine.ENGINES)
        for one, other in zip(fast, slow, strict=True):
            np.testing.assert_array_equal(one, other)


def test_every_burst_is_served_once():
    rng = np.random.default_rng(7)
    memory = memory_of("lpddr4-3200", 2, 16)
    program = with_segments(build([task for task in random_tasks(rng) if task[0] != FENCE and not task[3]]), rng)
    totals = engine.run(program, np.array([1, 1, 1, 2, 1]), "fast", memory).memory.sum(axis=0)
    counted = dict(zip(COUNTED, totals, strict=True))
    bursts = 0
    for address, size, rows, stride in program.segments.tolist():
        starts = [address + r * stride for r in range(rows)]
        bursts += sum((a + size - 1) // 32 - a // 32 + 1 for a in starts)
    assert counted["RD"] + counted["WR"] + counted["forwarded"] + counted["merged"] == bursts
    assert counted["ACT"] >= counted["PRE"]


def test_a_load_alone_takes_activate_column_access_and_burst():
    # Address 0 at clock 0. DRAMsim3-like: accepted at 0, moved to the bank queue, ACT, RD after tRCD, data after RL and
    # the burst; seen ceil(clocks / 2) later, and 3 cycles of `tail` on top.
    memory = memory_of("lpddr4-3200", 2, 16)
    program = build([(LOAD, 0, 3, [])])
    program = program._replace(first=np.zeros(1, np.int64), pieces=np.ones(1, np.int64),
                               segments=np.array([[0, 32, 1, 0]]))  # fmt: skip
    done = engine.run(program, np.array([1, 1, 1, 1, 1]), "fast", memory)
    t_rcd, read_latency, burst = 29, 28, 8
    issued = done.end[0] - 3 - -(-(t_rcd + read_latency + burst) // 2)
    assert 0 <= issued <= 2


def test_more_outstanding_bursts_hide_latency():
    program = build([(LOAD, 0, 0, [])])._replace(first=np.zeros(1, np.int64), pieces=np.ones(1, np.int64),
                                                 segments=np.array([[0, 2**16, 1, 0]]))  # fmt: skip
    memory = memory_of("lpddr4-3200", 2, 16)
    cycles = [engine.run(program, np.array([1, 1, 1, 1, 1]), "fast", replace(memory, outstanding=n)).cycles
              for n in (1, 8, 64)]  # fmt: skip
    assert cycles[0] > 3 * cycles[1] and cycles[1] > cycles[2]
    # 2048 bursts of 8 clocks on two channels, 2 clocks per cycle: 4096 cycles at least, and refresh.
    assert 4096 <= cycles[2] < 1.15 * 4096
