"""Block transfers as single requests: how memory latency and a finite number of requests in flight bound a DMA.

A block moves row by row; every request takes the bus for its beats and one of `outstanding` places from its first beat
until its answer is back. So n requests in flight give at most n requests per round trip (Little's law). Commands
follow each other without a gap. The requests are tasks of the engine: the bus is its DRAM unit, the places are its DMA
channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim import engine
from npusim import program as tp

if TYPE_CHECKING:
    from npusim.npu import Hardware


class Requests(NamedTuple):
    """`number` equal requests: `beats` on the bus, then `tail` cycles until one of `places` is free again; `fixed`
    cycles before the first and after the last."""

    number: int
    beats: int
    tail: int
    places: int
    fixed: int


def requests(hardware: Hardware, rows: int, row_bytes: int, write: bool) -> Requests:
    """The requests that move `rows` rows of `row_bytes` between memory and the buffers."""
    rules = hardware.dma.requests
    size = min(row_bytes, rules.max_bytes)
    beats = int(hardware.dram_cycles(np.array([size]))[0])
    tail = hardware.dram_latency_cycles + rules.overhead_cycles
    places, fixed = rules.outstanding, rules.write_start_cycles if write else rules.read_start_cycles
    number = rows * -(-row_bytes // size)
    if write and rules.writes_hold_beats and beats > 1:
        # The write that takes the last place sends one beat and keeps the others back until a place is free: all but
        # one place hold whole writes, each of which is followed two cycles earlier than its answer and one beat allow.
        return Requests(number, beats, tail - 2, places - 1, fixed + 1)
    return Requests(number, beats, tail - 1, places, fixed)


def program(wanted: Requests, write: bool) -> tp.TileProgram:
    """The requests as independent tasks, in order."""
    n = wanted.number
    zeros = np.zeros(n, np.int64)
    return tp.TileProgram(
        kind=np.full(n, tp.STORE if write else tp.LOAD, np.uint8),
        op=np.zeros(n, np.int32),
        cycles=np.full(n, wanted.beats, np.int64),
        tail=np.full(n, wanted.tail, np.int64),
        bytes=zeros,
        buffer=np.zeros(n, np.uint8),
        slot=np.zeros(n, np.uint8),
        footprint=zeros,
        dep_ptr=np.zeros(n + 1, np.int64),
        dep_idx=np.zeros(0, np.int32),
    )


def block_cycles(hardware: Hardware, rows: int, row_bytes: int, write: bool, engine_name: str = "fast") -> int:
    """Cycles from the first command until the DMA is idle again; 0 when nothing moves."""
    wanted = requests(hardware, rows, row_bytes, write)
    if wanted.number == 0:
        return 0
    capacity = np.array([1, 1, 1, wanted.places, wanted.places], np.int64)
    return engine.run(program(wanted, write), capacity, engine_name).cycles + wanted.fixed
