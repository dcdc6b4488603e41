"""Lower bounds that no simulated cycle count may undercut, per operation.

| bound         | cycles                                                                                     |
|---------------|--------------------------------------------------------------------------------------------|
| compute       | executed MACs (done and gated) / (rows * cols)                                             |
| vector        | vector lane operations / lanes                                                             |
| dram          | time of all bursts of the operation on the DRAM bus, back to back                          |
| a, b, accumulator, mask port | bytes that the array reads (and accumulates) / port width                    |
| critical_path | longest chain of dependent tasks with every unit free                                      |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npusim import _analysis_kernels
from npusim import program as tp
from npusim.counters import COUNTERS
from npusim.folding import ceil_div

if TYPE_CHECKING:
    from npusim.npu import Hardware

BOUNDS = ("compute", "vector", "dram", "a_port", "b_port", "mask_port", "critical_path")


def bounds(
    program: tp.TileProgram, counts: np.ndarray, hw: Hardware, bus_cycles: np.ndarray | None = None
) -> np.ndarray:
    """Lower bounds in cycles, int64 [operations, BOUNDS].

    bus_cycles int64 [operations]: what column commands need of the data buses with command-level memory.
    """
    ops = counts.shape[0]

    def column(name: str) -> np.ndarray:
        return counts[:, COUNTERS.index(name)]

    vector_ops = np.bincount(program.op[program.kind == tp.VECTOR], minlength=ops)[:ops] > 0
    buffers = hw.buffers
    dma = program.bytes > 0
    dram = np.zeros(ops, np.int64)
    np.add.at(dram, program.op[dma], program.cycles[dma])
    dram = dram if bus_cycles is None else bus_cycles
    fences = np.flatnonzero(program.kind == tp.FENCE)
    opening = fences[np.unique(program.op[fences], return_index=True)[1]]
    finish = _analysis_kernels.longest_path(program.cycles, program.tail, program.dep_ptr, program.dep_idx)
    marks = np.append(finish[opening], finish.max(initial=0))
    # Vector operations read the same buffers, but not through the array's ports.
    array_reads = {name: np.where(vector_ops, 0, column(f"{name}_read_bytes")) for name in ("a", "b", "mask")}
    return np.stack(
        [
            ceil_div(column("macs_done") + column("macs_gated"), hw.peak_macs_per_cycle),
            ceil_div(column("vector_lane_ops"), hw.vector.lanes),
            dram,
            *(ceil_div(array_reads[name], getattr(buffers, name).bytes_per_cycle) for name in ("a", "b", "mask")),
            np.diff(marks),
        ],
        axis=1,
    )
