"""Products and re-programming on ReRAM crossbars, as tasks of the same program that digital arrays run.

Convolutions and linear layers whose weights lie in cells are streams: input pixels come through buffer B, COMPUTE tasks
last for the reads of their vectors, results leave through the accumulator buffer. All crossbars of an operation read at
once, those of others rest. A read takes max(read, conversion) cycles, since conversion of one overlaps the next:

    cycles of n vectors = n * ceil(input bits / dac_bits) * max(read, convert) + min(read, convert)

or the time of buffer B's port, if longer. An operation that writes a tensor whose values lie in cells (an update, a
mask product) is followed by loading it and by COMPUTE tasks that program its cells: only rows with changed cells when
an update mask says which weights change, else all. Not modelled: copies of early layers for speed, pipelining of
layers, noise and wrong bits, wires and drops along them, wear levelling.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from npusim import program as tp
from npusim.crossbars import Crossbar, Matrix, matrix
from npusim.errors import CapacityError
from npusim.folding import ceil_div
from npusim.graph import Conv, Op, StepGraph, describe
from npusim.mapping import _kernels, limits
from npusim.mapping.problem import Problem, problems, residue_taps
from npusim.mapping.tiling import image_extents, tile_extents

if TYPE_CHECKING:
    from npusim.masks import Mask
    from npusim.npu import Hardware


class Stream(NamedTuple):
    """Task and dependency tables of one stream of chunks; see `_kernels.emit_stream`."""

    tasks: np.ndarray
    deps: np.ndarray


class Held(NamedTuple):
    """A matrix in cells; for those of grad_input the taps (rows, columns) of the window that it has, else ()."""

    lies: Matrix
    dims: Conv
    taps: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Placement:
    """Which tensors lie in cells: by name, the matrices of every operation that reads them."""

    crossbar: Crossbar
    matrices: Mapping[str, tuple[Held, ...]]

    def multiplies(self, op: Op) -> bool:
        """Whether the operation's product runs on crossbars."""
        return _on_cells(op, self.crossbar) and op.inputs[1] in self.matrices

    def written(self, op: Op) -> list[tuple[str, tuple[Held, ...]]]:
        """Tensors in cells that the operation writes, and where they lie."""
        return [(name, self.matrices[name]) for name in op.outputs if name in self.matrices]

    @property
    def crossbars(self) -> int:
        return sum(held.lies.crossbars for found in self.matrices.values() for held in found)

    @property
    def cells(self) -> int:
        """Cells that hold weights."""
        return sum(held.lies.cells for found in self.matrices.values() for held in found)


def place(graph: StepGraph, hw: Hardware) -> Placement:
    """All weights of products that crossbars run; CapacityError names the first layer that finds no room."""
    assert hw.crossbar is not None
    found: dict[str, dict[str, tuple[Held, ...]]] = {}
    used = 0
    for op in graph.ops:
        if not _on_cells(op, hw.crossbar) or graph.tensors[op.inputs[1]].kind not in ("weight", "activation"):
            continue
        uses = found.setdefault(op.inputs[1], {})
        if op.phase in uses:
            continue
        uses[op.phase] = tuple(_held(op, hw))
        used += sum(held.lies.crossbars for held in uses[op.phase])
        if used > hw.crossbar.crossbars:
            raise CapacityError(
                f"{op.label} ({describe(op.dims)}) does not fit: {used} crossbars are needed up to here, {hw.name} has "
                f"{hw.crossbar.crossbars}; raise crossbar.crossbars"
            )
    return Placement(hw.crossbar, {name: sum(uses.values(), ()) for name, uses in found.items()})


def writes_of_busiest_cell(graph: StepGraph, placement: Placement) -> int:
    """How often the cells that are written most are programmed in one run of the step: their endurance ends first."""
    writes: dict[str, int] = {}
    for op in graph.ops:
        for name, _ in placement.written(op):
            writes[name] = writes.get(name, 0) + 1
    return max(writes.values(), default=0)


def _on_cells(op: Op, crossbar: Crossbar) -> bool:
    phases = ("forward", "grad_input") if crossbar.backward_copy else ("forward",)
    return op.kind in ("conv", "linear") and op.phase in phases and len(op.inputs) > 1


def _held(op: Op, hw: Hardware) -> Iterator[Held]:
    d = op.dims
    assert isinstance(d, Conv)
    taps: Iterable[tuple[tuple[int, ...], ...]] = [()]
    if op.phase == "grad_input":
        taps = itertools.product(*(residue_taps(*axis) for axis in (
            (d.h, d.r, d.stride[0], d.padding[0], d.dilation[0]), (d.w, d.s, d.stride[1], d.padding[1], d.dilation[1])
        )))  # fmt: skip
    for problem, part in zip(problems(op), taps, strict=True):
        if problem.taps:
            yield Held(_matrix(problem, hw), d, part)


def _matrix(problem: Problem, hw: Hardware) -> Matrix:
    assert hw.crossbar is not None
    return matrix(problem.groups, problem.c * problem.taps, problem.m, hw.precision.weight_bits, hw.crossbar)


def product(problem: Problem, hw: Hardware, scaled: bool) -> tuple[Stream, dict[str, int]]:
    """Tasks and work counts of one product; `scaled`: every column of every row block is masked or shifted after it.

    Raises CapacityError when the input of one output pixel does not fit buffer B, or its output the accumulator.
    """
    assert hw.crossbar is not None
    lies = _matrix(problem, hw)
    in_bits, out_bits = hw.precision.bits(problem.b_kind), hw.precision.bits(problem.out_kind)
    reads = ceil_div(in_bits, hw.crossbar.dac_bits)
    read, convert = hw.crossbar.read_cycles(lies.busiest_columns, hw.clock_hz)
    vectors, image = _chunks(problem, hw)
    outputs = vectors * problem.groups * problem.m
    words = problem.groups * lies.length
    port = ceil_div(vectors * words * in_bits, 8 * hw.buffers.b.bytes_per_cycle)
    cycles = np.maximum(vectors * reads * max(read, convert, 1) + min(read, convert), port)
    footprint = ceil_div(outputs * hw.precision.accumulator_bits, 8)
    stream = _stream(np.zeros_like(vectors), ceil_div(image * in_bits, 8), ceil_div(outputs * out_bits, 8), cycles, hw)
    stream.tasks[stream.tasks[:, _kernels.KIND] == tp.COMPUTE, _kernels.FOOTPRINT] = footprint
    total, sums = problem.t, problem.groups * problem.m * lies.row_blocks
    samples = total * reads * sums * lies.slices
    return stream, {
        "macs_crossbar": problem.macs,
        "cell_reads": total * reads * lies.cells,
        "dac_drives": total * reads * words * lies.column_blocks,
        "adc_samples": samples,
        "shift_adds": samples + (total * sums if scaled else 0),
        "b_read_bytes": ceil_div(total * words * in_bits, 8),
        "accumulator_write_bytes": ceil_div(total * problem.groups * problem.m * hw.precision.accumulator_bits, 8),
    }


def column_masks(nbytes: int, hw: Hardware) -> tuple[Stream, dict[str, int]]:
    """Masks of columns moved through the mask buffer into the registers of the periphery."""
    buffer = hw.buffers.mask
    chunks = max(1, ceil_div(nbytes, buffer.slot_bytes))
    limits.tasks(4 * chunks, "crossbars")
    sizes = _split(nbytes, chunks)
    none, cycles = np.zeros_like(sizes), ceil_div(sizes, buffer.bytes_per_cycle)
    stream = _stream(sizes, none, none, cycles, hw, buffer.slots)
    loads = stream.tasks[:, _kernels.BUFFER] == tp.BUFFER_A
    stream.tasks[loads, _kernels.BUFFER] = tp.MASK_BUFFER
    return stream, {"mask_read_bytes": nbytes}


def reprogram(matrices: tuple[Held, ...], nbytes: int, mask: Mask | None, hw: Hardware) -> tuple[Stream, dict]:
    """Weights of `nbytes` loaded through buffer A and written into their cells; `mask`: those that change."""
    assert hw.crossbar is not None
    rows, cells = 0, 0
    for held in matrices:
        lies = held.lies
        per_crossbar, written = (_all_rows(lies), lies.cells) if mask is None else _masked_rows(held, mask)
        per_pe = np.add.reduceat(per_crossbar, np.arange(0, per_crossbar.size, hw.crossbar.crossbars_per_pe))
        rows, cells = rows + int(per_pe.max()), cells + written
    buffer = hw.buffers.a
    chunks = max(1, ceil_div(nbytes, buffer.slot_bytes))
    limits.tasks(4 * chunks, "crossbars")
    sizes = _split(nbytes, chunks)
    busy = _split(rows * hw.crossbar.row_write_cycles(hw.clock_hz), chunks)
    cycles = np.maximum(busy, ceil_div(sizes, buffer.bytes_per_cycle))
    stream = _stream(sizes, np.zeros_like(sizes), np.zeros_like(sizes), cycles, hw)
    return stream, {"cell_writes": cells, "a_read_bytes": nbytes}


def _all_rows(lies: Matrix) -> np.ndarray:
    """Rows in use of every crossbar, int64 [crossbars]."""
    if lies.packed > 1:
        return tile_extents(lies.groups, lies.packed) * lies.length
    blocks = np.repeat(tile_extents(lies.length, lies.rows), lies.column_blocks)
    return np.tile(blocks, lies.groups)


def _masked_rows(held: Held, mask: Mask) -> tuple[np.ndarray, int]:
    """Rows with a selected weight of every crossbar, int64 [crossbars], and selected cells."""
    lies, d = held.lies, held.dims
    if mask.size != d.weights:
        raise CapacityError(
            f"a mask of {mask.size} elements on a part of the {d.weights} weights ({describe(d)}) that lie in cells: "
            "masks of parts are not modelled on crossbars"
        )
    bits = mask.bits().reshape(d.groups, d.k // d.groups, d.c // d.groups, d.r, d.s)
    if held.taps:
        bits = bits[..., held.taps[0], :][..., held.taps[1]].transpose(0, 2, 1, 3, 4)
    parts = bits.reshape(lies.groups, lies.outputs, lies.length)
    live = np.maximum.reduceat(parts, np.arange(0, lies.outputs, lies.weights), axis=1).astype(np.int64)
    rows = np.add.reduceat(live, np.arange(0, lies.length, lies.rows), axis=2).transpose(0, 2, 1).reshape(-1)
    if lies.packed > 1:
        rows = np.add.reduceat(rows, np.arange(0, rows.size, lies.packed))
    return rows, int(parts.sum(dtype=np.int64)) * lies.slices


def _chunks(problem: Problem, hw: Hardware) -> tuple[np.ndarray, np.ndarray]:
    """Output pixels and input words of every chunk: whole output rows, or parts of one when a row is too large."""
    bits, accumulator = hw.precision.bits(problem.b_kind), hw.precision.accumulator_bits
    room_in = hw.buffers.b.slot_bytes * 8 // bits
    room_out = hw.buffers.accumulator.slot_bytes * 8 // accumulator
    channels, outputs = problem.groups * problem.c, problem.groups * problem.m
    for p, q in [*((p, problem.q) for p in _halves(problem.p)), *((1, q) for q in _halves(problem.q)[1:])]:
        rows, columns = image_extents(problem, 0, p), image_extents(problem, 1, q)
        words = channels * (rows[:, None] * columns[None, :])
        pixels = tile_extents(problem.p, p)[:, None] * tile_extents(problem.q, q)[None, :]
        if words.max() <= room_in and pixels.max() * outputs <= room_out:
            return np.tile(pixels.reshape(-1), problem.n), np.tile(words.reshape(-1), problem.n)
    raise CapacityError(
        f"one output pixel reads {int(words.max())} words and writes {outputs}, but {hw.name} has room for {room_in} "
        f"in buffer b and for {room_out} in the accumulator; raise buffers.b.bytes or buffers.accumulator.bytes"
    )


def _halves(total: int) -> list[int]:
    """total, total/2 ... 1, rounded up, each once."""
    sizes = [total]
    while sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    return sizes


def _stream(a_bytes, b_bytes, out_bytes, cycles, hw: Hardware, first_slots: int = 0) -> Stream:
    """A stream whose work is done by the array's unit in place of the vector unit.

    `first_slots` of the buffer that its first operand comes through, when that is not A.
    """
    buffers = hw.buffers
    slots = np.array([first_slots or buffers.a.slots, buffers.b.slots, buffers.accumulator.slots])
    columns = (np.ascontiguousarray(c, dtype=np.int64) for c in (a_bytes, b_bytes, out_bytes, cycles))
    tasks, deps = _kernels.emit_stream(len(cycles), 1, *columns, slots)
    tasks[tasks[:, _kernels.KIND] == tp.VECTOR, _kernels.KIND] = tp.COMPUTE
    return Stream(tasks, deps)


def _split(total: int, parts: int) -> np.ndarray:
    share, rest = divmod(int(total), parts)
    return np.full(parts, share, np.int64) + (np.arange(parts) < rest)
