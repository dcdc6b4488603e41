"""When the data buses of a command-level DRAM were taken, and by which transfer; worked out from a finished schedule.

The transfers go through a fresh DRAM once more, at the clocks at which the engine handed them over. Every completion
must be the engine's: if one is not, that is an error of npusim, not a picture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim.engine import _dram_watch as kernels
from npusim.program import DMA_READ, DMA_WRITE, LOAD, STORE

if TYPE_CHECKING:
    from npusim.engine import Schedule
    from npusim.engine.memory import Memory
    from npusim.program import TileProgram

READ, WRITE, REFRESH = kernels.READ, kernels.WRITE, kernels.REFRESH
LOG_ROWS = 1 << 16


class BusUse(NamedTuple):
    """Slices of time, int64 each, in order of time per bus: [start, end) in core cycles (rounded outwards, but never
    into the slice before), `bus` counted through all channels (behind the data buses: the refreshes of each channel),
    `what` (READ, WRITE, REFRESH), task (-1: a refresh), how many bursts or refreshes are `joined`."""

    bus: np.ndarray
    what: np.ndarray
    task: np.ndarray
    start: np.ndarray
    end: np.ndarray
    joined: np.ndarray


def use(
    program: TileProgram, schedule: Schedule, capacity: np.ndarray, memory: Memory, shown: np.ndarray | None = None
) -> BusUse:
    """What the data buses carried, of tasks in `shown` (bool [tasks]) only, and when the channels were refreshed.

    A slice is a run of bursts of one transfer in one direction without an idle core cycle between. Bursts that were
    still queued when the step ended are among them.
    """
    tasks, agents = _handed_over(program, schedule, capacity)
    config, clocks = memory.config, memory.clocks
    at = -(-schedule.start[tasks] * clocks.numerator // clocks.denominator)
    by_agent = np.lexsort((at, agents))
    channels = int(capacity[DMA_READ] + capacity[DMA_WRITE])
    per_channel = memory.buses // config.channels
    scalars = np.array([per_channel, memory.burst_clocks, _refresh_clocks(memory),
                        (clocks.numerator - 1) // clocks.denominator])  # fmt: skip
    open_ = np.zeros((memory.buses + config.channels, kernels.N_SLICE), np.int64)
    open_[:, kernels.L_TRANSFER] = -1
    watched = kernels.Watched(
        at, agents, tasks, program.first[tasks], program.pieces[tasks], (program.kind[tasks] == STORE).astype(np.int64),
        by_agent, np.searchsorted(agents[by_agent], np.arange(channels + 1)), np.zeros(tasks.size, np.int64),
        np.ones(tasks.size, np.bool_) if shown is None else shown[tasks],
        np.zeros((LOG_ROWS, kernels.N_SLICE), np.int64), open_, np.zeros((config.channels, 2), np.int64),
        np.zeros(2, np.int64), scalars,
    )  # fmt: skip
    state = memory.fresh(channels, program.segments)
    parts = []
    result = kernels.FULL
    while result == kernels.FULL:
        result = kernels.watch(state, watched)
        parts.append(watched.log[: watched.cursor[kernels.WRITTEN]].copy())
        watched.cursor[kernels.WRITTEN] = 0
    ended = -(-watched.done * clocks.denominator // clocks.numerator) + program.tail[tasks]
    if result == kernels.UNCLEAR or (ended != schedule.end[tasks]).any():
        raise RuntimeError("the DRAM, watched once more, did something other than in the engine's run")
    return _in_cycles(np.concatenate(parts), tasks, memory)


def _handed_over(program: TileProgram, schedule: Schedule, capacity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Transfers in the order in which they were handed over, and a requester of each that is free then.

    Which one it is changes nothing: of several, the oldest transfer in program order goes first.
    """
    found, requesters = [], []
    for kind, first, count in ((LOAD, 0, capacity[DMA_READ]), (STORE, capacity[DMA_READ], capacity[DMA_WRITE])):
        tasks = np.flatnonzero(program.kind == kind)
        tasks = tasks[np.lexsort((tasks, schedule.start[tasks]))]
        free = [0] * int(count)
        for start, end in zip(schedule.start[tasks].tolist(), schedule.end[tasks].tolist(), strict=True):
            lane = next(i for i, until in enumerate(free) if until <= start)
            free[lane] = end
            requesters.append(int(first) + lane)
        found.append(tasks)
    tasks, agents = np.concatenate(found), np.array(requesters, np.int64)
    order = np.lexsort((tasks, schedule.start[tasks]))
    return tasks[order].astype(np.int64), agents[order]


def _refresh_clocks(memory: Memory) -> int:
    """Clocks from a refresh to the next activate of what was refreshed; 0 when there is none."""
    return max((c.cycles for c in memory.config.constraints if c.before in ("REF", "REFB") and c.after == "ACT"
                and c.scope in ("bank", "rank")), default=0)  # fmt: skip


def _in_cycles(log: np.ndarray, tasks: np.ndarray, memory: Memory) -> BusUse:
    """The log with tasks and core cycles, in the order of buses and time."""
    log = log[np.lexsort((log[:, kernels.L_START], log[:, kernels.L_BUS]))]
    num, den = memory.clocks.numerator, memory.clocks.denominator
    bus, what = log[:, kernels.L_BUS], log[:, kernels.L_WHAT]
    start, end = log[:, kernels.L_START] * den // num, -(-log[:, kernels.L_END] * den // num)
    same = np.append(False, bus[1:] == bus[:-1])
    # Ends ascend along a bus, so no slice needs more than the end of the one before it.
    start = np.where(same, np.maximum(start, np.append(0, end[:-1])), start)
    task = np.where(what == REFRESH, -1, tasks[log[:, kernels.L_TRANSFER]])
    return BusUse(bus, what, task, start, np.maximum(start, end), log[:, kernels.L_BURSTS])
