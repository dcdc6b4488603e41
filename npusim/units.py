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


def table(
    program: tp.TileProgram, schedule: Schedule, capacity: np.ndarray, bus_cycles: int | None = None
) -> pd.DataFrame:
    """Server-cycles of each unit (rows) by use (columns CAUSES); a row adds up to servers x cycles of the run.

    busy: serving; for a DMA channel: its data is on the DRAM bus. wait_load, wait_store: the next task's operands are
    not there, or its accumulator slot has not left. wait_bus: a DMA channel waits for the DRAM bus; latency: it waits
    for the DRAM's answer. idle: nothing to do. With command-level memory (`bus_cycles`: cycles in which its data buses
    were taken) a DMA channel is busy from handing over its requests to their completion, and latency is the path.
    """
    import pandas as pd

    frame = pd.DataFrame(0, index=pd.Index(tp.UNIT_NAMES, name="unit"), columns=list(CAUSES), dtype=np.int64)
    for unit, kind in (("array", tp.COMPUTE), ("vector", tp.VECTOR)):
        waiting = waits(program, schedule, kind, int(program.op.max(initial=-1)) + 1).sum(axis=0)
        frame.loc[unit, ["wait_load", "wait_store"]] = waiting
        frame.loc[unit, "busy"] = program.cycles[program.kind == kind].sum()
    for unit, kind in (("dma_read", tp.LOAD), ("dma_write", tp.STORE)):
        chosen = program.kind == kind
        frame.loc[unit, "busy"] = (schedule.end - schedule.bus - program.tail)[chosen].sum()
        frame.loc[unit, "wait_bus"] = (schedule.bus - schedule.start)[chosen].sum()
        frame.loc[unit, "latency"] = program.tail[chosen].sum()
    both = frame.loc["dma_read", "busy"] + frame.loc["dma_write", "busy"]
    frame.loc["dram", "busy"] = both if bus_cycles is None else bus_cycles
    frame["idle"] = capacity * schedule.cycles - frame.drop(columns="idle").sum(axis=1)
    return frame
