"""Requests that a run made to its DRAM, in the formats of DRAM simulators; replay with a `ramulator` that is installed.

| format     | a line, one per burst         | read by                                                                |
|------------|-------------------------------|------------------------------------------------------------------------|
| dramsim3   | `0x1C0 READ 57`               | DRAMsim3's trace-driven processor; the number is the DRAM clock         |
| ramulator2 | `LD 0x1C0`, `ST 0x1C0`        | Ramulator 2's LoadStoreTrace frontend, which sends one request per clock|

A burst's clock is that at which its transfer was handed over: the earliest at which the DMA channel could ask for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from npusim.errors import ConfigError, NpusimError, unknown
from npusim.program import LOAD, STORE

if TYPE_CHECKING:
    from npusim.engine import Schedule
    from npusim.engine.memory import Memory
    from npusim.program import TileProgram

FORMATS = ("dramsim3", "ramulator2")
TASKS_AT_ONCE = 4096
# Standards that Ramulator 2.1 has: its controller and DRAM classes, presets of organisation and timing.
RAMULATOR = {
    "ddr4-2400": ("GenericDDR", "DDR4", "DDR4_8Gb_x8", "DDR4_2400R"),
    "ddr4-3200": ("GenericDDR", "DDR4", "DDR4_8Gb_x8", "DDR4_3200AA"),
    "hbm2-2000": ("HBM12", "HBM2", "HBM2_8Gb", "HBM2_2000Mbps"),
    "lpddr5-6400": ("LPDDR5", "LPDDR5", "LPDDR5_8Gb_x16", "LPDDR5_6400"),
}


def bursts(program: TileProgram, schedule: Schedule, memory: Memory) -> Iterator[tuple[np.ndarray, ...]]:
    """(address, write, clock) int64, bool, int64 [bursts] of some transfers at a time, in order of their beginning."""
    size = memory.config.burst_bytes
    moving = np.flatnonzero((program.kind == LOAD) | (program.kind == STORE))
    moving = moving[np.argsort(schedule.start[moving], kind="stable")]
    for tasks in np.split(moving, range(TASKS_AT_ONCE, moving.size, TASKS_AT_ONCE)):
        task, segment = _spread(tasks, program.pieces[tasks], program.first[tasks])
        address, length, rows, stride = program.segments[segment].T
        of, row = _spread(np.arange(task.size), rows, np.zeros_like(rows))
        begin = address[of] + row * stride[of]
        first = begin // size
        count = (begin + length[of] - 1) // size - first + 1
        of, burst = _spread(of, count, first)
        owner = task[of]
        clock = -(-schedule.start[owner] * memory.clocks.numerator // memory.clocks.denominator)
        yield burst * size, program.kind[owner] == STORE, clock


def _spread(owner: np.ndarray, counts: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every owner `counts` times, beside the numbers first, first + 1, ..."""
    ends = np.cumsum(counts)
    index = np.arange(ends[-1] if ends.size else 0) - np.repeat(ends - counts, counts)
    return np.repeat(owner, counts), np.repeat(first, counts) + index


def lines(program: TileProgram, schedule: Schedule, memory: Memory | None, form: str) -> Iterator[bytes]:
    """The trace as pieces of text; ConfigError when no DRAM command was simulated."""
    if memory is None:
        raise ConfigError("a DRAM trace needs addresses: use a machine with dram.model = 'commands'")
    for address, write, clock in bursts(program, schedule, memory):
        rows = zip(address.tolist(), write.tolist(), clock.tolist(), strict=True)
        if form == "dramsim3":
            text = (f"0x{at:X} {'WRITE' if out else 'READ'} {when}\n" for at, out, when in rows)
        else:
            text = (f"{'ST' if out else 'LD'} 0x{at:X}\n" for at, out, _ in rows)
        yield "".join(text).encode()


def replay(trace: str | Path, device: str, channels: int = 1) -> dict[str, Any]:
    """Run a `ramulator2` trace through the installed `ramulator` and return its statistics.

    FR-FCFS, all-bank refresh, open rows, Ramulator's own timing preset of `device` and its RoBaRaCoCh address map: a
    second opinion on the traffic, not on the clock (its frontend sends one request per clock).
    NpusimError when the module is not installed, ConfigError when it has no such device.
    """
    if device not in RAMULATOR:
        raise unknown("DRAM device of Ramulator", device, list(RAMULATOR))
    try:
        import ramulator  # type: ignore[import-not-found, unused-ignore]
    except ImportError as error:
        raise NpusimError(
            "the Python module 'ramulator' is not installed; build Ramulator 2.1 with its Python bindings and install "
            f"it into this environment ({error})"
        ) from None
    kind, standard, organisation, timing = RAMULATOR[device]

    def controller() -> Any:
        return getattr(ramulator.controller, kind)(
            dram=getattr(ramulator.dram, standard)(org_preset=organisation, timing_preset=timing),
            scheduler=ramulator.scheduler.FRFCFSRowHit(),
            refresh_manager=ramulator.refresh_manager.AllBank(),
            row_policy=ramulator.row_policy.Open(),
            addr_mapper=ramulator.addr_mapper.RoBaRaCoCh(),
        )

    memory = ramulator.memory_system.GenericDRAM(
        clock_ratio=1, controllers=[controller() for _ in range(channels)],
        channel_mapper=ramulator.channel_mapper.CacheLineInterleave(),
    )  # fmt: skip
    simulation = ramulator.Simulation(ramulator.frontend.LoadStoreTrace(clock_ratio=1, path=str(trace)), memory)
    simulation.run()
    return dict(simulation.stats)
