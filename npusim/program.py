"""TileProgram: the integer columns that engines run.

| task    | holds                                    | for                                                    |
|---------|------------------------------------------|--------------------------------------------------------|
| LOAD    | a DMA read channel, then the DRAM bus    | bus: `cycles`; channel: until `tail` cycles later      |
| STORE   | a DMA write channel, then the DRAM bus   | as LOAD                                                |
| COMPUTE | the PE array                             | `cycles`                                               |
| VECTOR  | the vector unit                          | `cycles`                                               |
| FENCE   | nothing; ends when its dependencies have | 0                                                      |

With command-level memory LOAD and STORE hold their DMA channel only: their bytes are those of `segments`, they end when
the DRAM has served them, and the channel is held `tail` cycles longer.

A task may start when every dependency has ended. Dependencies point backwards only. Buffer capacity is
expressed by dependencies: a task that fills a slot of a buffer depends on the last task that used what
the slot held before. Engines know nothing of masks, layers or bytes.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

LOAD, STORE, COMPUTE, VECTOR, FENCE = range(5)
KIND_NAMES = ("LOAD", "STORE", "COMPUTE", "VECTOR", "FENCE")
# Units in grant order (see the time rule); the DRAM bus is first, so a DMA channel granted in a round asks
# for the bus in the next one.
DRAM, ARRAY, VECTOR_UNIT, DMA_READ, DMA_WRITE = range(5)
UNIT_NAMES = ("dram", "array", "vector", "dma_read", "dma_write")
UNIT_OF_KIND = np.array([DMA_READ, DMA_WRITE, ARRAY, VECTOR_UNIT, 255], dtype=np.uint8)
# Buffers that a task fills.
NO_BUFFER, BUFFER_A, BUFFER_B, ACCUMULATOR, MASK_BUFFER = range(5)
BUFFER_NAMES = ("none", "a", "b", "accumulator", "mask")

NO_SEGMENT, NO_SEGMENTS = np.zeros(0, np.int64), np.zeros((0, 4), np.int64)


class TileProgram(NamedTuple):
    """`n` tasks of `m` ops as columns (all int64 unless said).

    kind        uint8[n]   LOAD, STORE, COMPUTE, VECTOR or FENCE
    op          int32[n]   index of the op the task belongs to, never decreasing
    cycles      [n]        service time on the unit (COMPUTE, VECTOR) or on the DRAM bus (LOAD, STORE)
    tail        [n]        cycles a DMA channel is held after the bus (latency); 0 elsewhere
    bytes       [n]        bytes moved over the DRAM bus; 0 elsewhere
    buffer      uint8[n]   buffer whose slot the task fills (NO_BUFFER if none)
    slot        uint8[n]   slot number in that buffer
    footprint   [n]        bytes the filled slot occupies
    dep_ptr     [n+1]      CSR row pointers into `dep_idx`
    dep_idx     int32[]    tasks that must have ended; each smaller than the task itself
    first       [n]        first row of `segments` that a LOAD or STORE moves; empty with `ideal` memory
    pieces      [n]        how many rows
    segments    [s, 4]     DRAM address, bytes, rows, stride: `rows` runs of `bytes`, `stride` bytes apart
    """

    kind: np.ndarray
    op: np.ndarray
    cycles: np.ndarray
    tail: np.ndarray
    bytes: np.ndarray
    buffer: np.ndarray
    slot: np.ndarray
    footprint: np.ndarray
    dep_ptr: np.ndarray
    dep_idx: np.ndarray
    first: np.ndarray = NO_SEGMENT
    pieces: np.ndarray = NO_SEGMENT
    segments: np.ndarray = NO_SEGMENTS


def digest(program: TileProgram) -> str:
    """sha256 of all columns."""
    h = hashlib.sha256()
    for name, column in zip(program._fields, program, strict=True):
        h.update(f"{name}:{column.dtype}:{column.size};".encode())
        h.update(np.ascontiguousarray(column).tobytes())
    return h.hexdigest()
