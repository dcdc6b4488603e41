"""What can be simulated exactly and in memory: 64-bit integers that cannot overflow, and programs of bounded size.

Counts, bytes and cycles are int64 everywhere. Before anything is multiplied, the most that a step could come to is
added up in whole numbers without limit:

    per multiply-accumulate   a fold of its own: 2 * R + 2 * C + what `ArrayTiming` adds, the memory's latency and two
                              loads of a burst and a word each, in cycles of the bus; 64 bits moved
    per element               the same, for each of its operations

A step whose sum reaches 2^60 is refused, although it might take less.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from npusim.errors import CapacityError
from npusim.graph import Conv, Gemm, Op, Pool, StepGraph, describe

if TYPE_CHECKING:
    from npusim.npu import Hardware

MAX_SUM = 2**60
MAX_TASKS = 2**24
MAX_TAPS = 2**16
MAX_SCANNED = 2**22
MAX_PARTS = 4096
WORD_BYTES = 8
# The most that one element of a vector operation costs by itself (`mapping.vector.COSTS`).
ELEMENT_OPS = 10


def check(graph: StepGraph, hw: Hardware) -> None:
    """CapacityError that names the first operation at which the step gets too large to be counted exactly."""
    total, unit = 0, _cycles_of_one(hw)
    for op in graph.ops:
        _window(op)
        elements = sum(graph.tensors[name].elements for name in (*op.inputs, *op.outputs))
        total += (_work(op) + elements) * unit
        if total >= MAX_SUM:
            raise CapacityError(
                f"{op.label} ({describe(op.dims)}): counts of the step up to here could pass 2^60 on {hw.name}; "
                f"at most {MAX_SUM // unit:,} multiply-accumulates and elements in all can be counted exactly there"
            )


def tasks(count: int, what: str = "") -> None:
    """CapacityError when a program would get `count` tasks and that is too many."""
    if count > MAX_TASKS:
        raise CapacityError(
            f"{what}{': ' if what else ''}up to {count:,} tasks; at most {MAX_TASKS:,} are simulated: larger buffers "
            "make larger and fewer tiles"
        )


def _cycles_of_one(hw: Hardware) -> int:
    """Cycles, or bits, that one multiply-accumulate or element could come to at most."""
    timing = hw.array.timing
    fold = (2 + timing.mac_cycles) * hw.array.rows + 2 * hw.array.cols + timing.start_cycles + timing.output_cycles
    fold += timing.preload_gap_cycles + timing.command_vectors + timing.least_vectors
    if hw.crossbar is not None:
        reads = sum(hw.crossbar.read_cycles(hw.crossbar.cols, hw.clock_hz))
        fold += 8 * WORD_BYTES * reads + hw.crossbar.row_write_cycles(hw.clock_hz)
    load_bytes = 2 * (WORD_BYTES + hw.dram.burst_bytes)
    bus = -(-load_bytes * hw.clock_hz // hw.dram.bandwidth_bytes_per_s)
    return fold + bus + 2 * hw.dram_latency_cycles + 8 * load_bytes


def _work(op: Op) -> int:
    """Multiply-accumulates, or operations on elements."""
    d = op.dims
    if isinstance(d, Conv):
        return d.macs + d.n * d.c * d.h * d.w + d.n * d.k * d.p * d.q
    if isinstance(d, Gemm):
        return d.macs + d.batch * (d.m * d.k + d.k * d.n + d.m * d.n)
    if isinstance(d, Pool):
        return d.n * d.c * d.p * d.q * d.r * d.s + d.n * d.c * d.h * d.w
    return d.elements * max(d.lane_ops, ELEMENT_OPS)


def _window(op: Op) -> None:
    """Taps and strides are walked through one by one."""
    d = op.dims
    if not isinstance(d, Conv):
        return
    parts = min(d.stride[0], d.h) * min(d.stride[1], d.w)
    scanned = max(d.stride[0] * d.r, d.stride[1] * d.s)
    if d.r * d.s > MAX_TAPS or scanned > MAX_SCANNED or (op.phase == "grad_input" and parts > MAX_PARTS):
        raise CapacityError(
            f"{op.label} ({describe(d)}): a window of at most {MAX_TAPS} taps, window times stride of at most "
            f"{MAX_SCANNED} and stride times stride of at most {MAX_PARTS} (grad_input) can be mapped"
        )
