"""Engines: TileProgram in, end cycle of every task out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim.errors import TooLongError
from npusim.program import TileProgram

if TYPE_CHECKING:
    from npusim.engine.memory import Memory
    from npusim.npu import Hardware

# Kernels take 2^60 for a time that never comes.
MAX_CYCLES = 2**60
# Command-level memory may take so many times longer than the bus cycles of the program.
MEMORY_FACTOR = 1024
ENGINES = ("fast", "simpy")


class Schedule(NamedTuple):
    """When every task got its unit (`start`), the DRAM bus (`bus`, as start if it needs none) and ended.

    `memory`: what command-level memory counted per operation, int64 [operations, memory.COUNTED]; None if `ideal`.
    """

    start: np.ndarray
    bus: np.ndarray
    end: np.ndarray
    memory: np.ndarray | None = None

    @property
    def cycles(self) -> int:
        return int(self.end.max()) if self.end.size else 0


def unit_capacity(hardware: Hardware) -> np.ndarray:
    """How many tasks each unit serves at once, int64[5] in the order of program.UNIT_NAMES."""
    return np.array([1, 1, 1, hardware.dma.read_channels, hardware.dma.write_channels], dtype=np.int64)


def run(program: TileProgram, capacity: np.ndarray, engine: str = "fast", memory: Memory | None = None) -> Schedule:
    """Simulate `program`; `engine` is 'fast' (numba) or 'simpy' (the specification). Both agree exactly.

    `memory`: the command-level memory that serves LOAD and STORE; None for bus cycles and latency of the program.
    Raises TooLongError when all service times together could pass 2^60 cycles (with `memory`: of its clock, 2^10
    times over).
    """
    most = MAX_CYCLES if memory is None else MAX_CYCLES // MEMORY_FACTOR // max(memory.clocks.as_integer_ratio())
    longest = float(program.cycles.max(initial=0)) + float(program.tail.max(initial=0))
    if longest * program.kind.size >= most and _all_cycles(program) >= most:
        raise TooLongError(f"the program could take more than {most:,} cycles, the most that can be counted exactly")
    if engine == "fast":
        from npusim.engine import fast as chosen
    else:
        from npusim.engine import reference as chosen  # type: ignore[no-redef]
    return Schedule(*chosen.schedule(program, capacity, memory))


def _all_cycles(program: TileProgram) -> float:
    """All service times together."""
    return float(program.cycles.sum(dtype=np.float64)) + float(program.tail.sum(dtype=np.float64))
