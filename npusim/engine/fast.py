"""The numba engine: the same schedule as `reference`, bit for bit."""

from __future__ import annotations

import numpy as np

from npusim.engine import _kernels, _segment_kernels
from npusim.engine.memory import COUNTED, STATS, Memory, final_counts
from npusim.program import DMA_READ, DMA_WRITE, TileProgram


def schedule(
    program: TileProgram, capacity: np.ndarray, memory: Memory | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Start (unit granted), bus (DRAM bus granted) and end of every task, int64 each; what `memory` counted."""
    n = program.kind.size
    start, bus, end = (np.empty(n, np.int64) for _ in range(3))
    state = _state(program, capacity, memory) if memory else None
    columns = (program.kind, program.cycles, program.tail, program.dep_ptr, program.dep_idx, capacity, start, bus, end)
    ended = _segment_kernels.schedule(*columns) if state is None else _kernels.events(0, n, 0, *columns, state)
    if ended != n:
        raise RuntimeError(f"the fast engine ended {ended} of {n} tasks")
    if not memory or not state:
        return start, bus, end, None
    return start, bus, end, final_counts(state.dram, state.snapshots, memory.entering(int(end.max(initial=0))))


def _state(program: TileProgram, capacity: np.ndarray, memory: Memory) -> _kernels.MemoryState:
    channels = int(capacity[DMA_READ] + capacity[DMA_WRITE])
    ops = int(program.op.max(initial=-1)) + 1
    return _kernels.MemoryState(
        memory.fresh(channels, program.segments), memory.clocks.numerator, memory.clocks.denominator, program.op,
        program.first, program.pieces, np.full(channels, _kernels.FREE, np.int64), STATS,
        np.zeros(ops, np.bool_), np.zeros((ops, len(COUNTED)), np.int64),
    )  # fmt: skip
