"""The numba engine: the same schedule as `reference`, bit for bit."""

from __future__ import annotations

import numpy as np

from npusim.engine import _kernels
from npusim.program import UNIT_OF_KIND, TileProgram


def schedule(program: TileProgram, capacity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Start (unit granted), bus (DRAM bus granted) and end cycle of every task, int64 each."""
    n = program.kind.size
    start, bus, end = (np.zeros(n, np.int64) for _ in range(3))
    unit = UNIT_OF_KIND[program.kind]
    ended = _kernels.schedule(
        unit, program.cycles, program.tail, program.dep_ptr, program.dep_idx, capacity, start, bus, end
    )
    if ended != n:
        raise RuntimeError(f"the fast engine ended {ended} of {n} tasks")
    return start, bus, end
