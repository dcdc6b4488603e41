"""How every unit of the machine spent the run: busy, waiting by cause, idle; the shares add up to all of its time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npusim import _analysis_kernels
from npusim import program as tp

if TYPE_CHECKING:
    import pandas as pd

    from npusim.engine import Schedule

CAUSES = ("busy", "wait_load", "wait_store", "wait_bus", "latency", "idle")


def waits(program: tp.TileProgram, schedule: Schedule, kind: int, ops: int) -> np.ndarray:
    """Cycles that the unit of task `kind` waits for a LOAD and for a STORE, per operation, int64 [ops, 2]."""
    return _analysis_kernels.waits(
        program.kind, program.op, program.dep_ptr, program.dep_idx, schedule.start, schedule.end, kind, ops
    )


def server_cycles(
    program: tp.TileProgram, schedule: Schedule, capacity: np.ndarray, bus_cycles: int | None = None
) -> np.ndarray:
    """Server-cycles of each unit by use, int64 [program.UNIT_NAMES, CAUSES]; a row adds up to servers x cycles.


    busy: serving; for a DMA channel: its data is on the DRAM bus. wait_load, wait_store: the next task's operands are
    not there, or its accumulator slot has not left. wait_bus: a DMA channel waits for the DRAM bus; latency: it waits
    for the DRAM's answer. idle: nothing to do. With command-level memory (`bus_cycles`: cycles in which its data buses
    were taken) a DMA channel is busy from handing over its requests to their completion, and latency is the path.
    """
    found = np.zeros((len(tp.UNIT_NAMES), len(CAUSES)), np.int64)
    busy, wait_load, wait_store, wait_bus, latency, idle = range(len(CAUSES))
    for unit, kind in ((tp.ARRAY, tp.COMPUTE), (tp.VECTOR_UNIT, tp.VECTOR)):
        waiting = waits(program, schedule, kind, int(program.op.max(initial=-1)) + 1).sum(axis=0)
        found[unit, [wait_load, wait_store]] = waiting
        found[unit, busy] = program.cycles[program.kind == kind].sum()
    for unit, kind in ((tp.DMA_READ, tp.LOAD), (tp.DMA_WRITE, tp.STORE)):
        chosen = program.kind == kind
        found[unit, busy] = (schedule.end - schedule.bus - program.tail)[chosen].sum()
        found[unit, wait_bus] = (schedule.bus - schedule.start)[chosen].sum()
        found[unit, latency] = program.tail[chosen].sum()
    both = found[tp.DMA_READ, busy] + found[tp.DMA_WRITE, busy]
    found[tp.DRAM, busy] = both if bus_cycles is None else bus_cycles
    found[:, idle] = capacity * schedule.cycles - found.sum(axis=1)
    return found


def table(
    program: tp.TileProgram, schedule: Schedule, capacity: np.ndarray, bus_cycles: int | None = None
) -> pd.DataFrame:
    """`server_cycles` with names."""
    import pandas as pd

    found = server_cycles(program, schedule, capacity, bus_cycles)
    return pd.DataFrame(found, index=pd.Index(tp.UNIT_NAMES, name="unit"), columns=list(CAUSES))
