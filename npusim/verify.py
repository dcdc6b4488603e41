"""Checks that a lowered program keeps its promises; every problem is reported, with the task's number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npusim import _analysis_kernels
from npusim import program as tp
from npusim.errors import BrokenLaw

if TYPE_CHECKING:
    from npusim.npu import Hardware


def problems(program: tp.TileProgram, hw: Hardware) -> list[str]:
    """Broken promises of `program` on `hw`: backward dependencies, slot capacity, safe refills, ordered operations."""
    found = []
    n = program.kind.size
    owner = np.repeat(np.arange(n), np.diff(program.dep_ptr))
    found += [f"task {owner[e]} depends on the later task {program.dep_idx[e]}"
              for e in np.flatnonzero(program.dep_idx >= owner)[:5]]  # fmt: skip
    if (program.dep_idx < 0).any():
        found.append("a dependency is negative")
    for column in ("cycles", "tail", "bytes", "footprint"):
        found += [f"task {i}: {column} is negative" for i in np.flatnonzero(getattr(program, column) < 0)[:5]]
    if (np.diff(program.op) < 0).any():
        found.append("operations are not in order")
    buffers = hw.buffers
    for code, buffer in enumerate((buffers.a, buffers.b, buffers.accumulator, buffers.mask), start=tp.BUFFER_A):
        fills = program.buffer == code
        for i in np.flatnonzero(fills & (program.footprint > buffer.slot_bytes))[:5]:
            room = f"a slot of {buffer.slot_bytes} of {tp.BUFFER_NAMES[code]}"
            found.append(f"task {i} puts {program.footprint[i]} bytes into {room}")
        found += [f"task {i} uses slot {program.slot[i]} of {tp.BUFFER_NAMES[code]}, which has {buffer.slots}"
                  for i in np.flatnonzero(fills & (program.slot >= buffer.slots))[:5]]  # fmt: skip
    if not found:
        first = _analysis_kernels.first_refill_violation(
            program.kind, program.buffer, program.slot, program.dep_ptr, program.dep_idx
        )
        if first < n:
            found.append(f"task {first} refills a slot before its last user has ended")
    return found


def verify(program: tp.TileProgram, hw: Hardware) -> None:
    """Raise BrokenLaw (a fault of npusim, not of the user) listing every problem of the program."""
    found = problems(program, hw)
    if found:
        raise BrokenLaw("the lowered program is wrong:\n  " + "\n  ".join(found))
