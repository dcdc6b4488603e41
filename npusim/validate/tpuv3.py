"""Single operations on one TPUv3 core (`validation/tpuv3/`): the preset `tpuv3` and a tile program per operation.

Two weight-stationary arrays share every pass: each takes 128 output columns, or half of the rows when there are at
most 128 columns. Tiles live in the vector memory, double-buffered; HBM, arrays and vector unit work at the same time
as far as dependencies let them. Words of HBM are 32 bits in rows of 128 lanes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from npusim import array, engine, npu
from npusim import program as tp
from npusim.folding import ceil_div
from npusim.validate.result import Bound, Cells, Row, Validation, read

if TYPE_CHECKING:
    from collections.abc import Callable

    from npusim.npu import Hardware

COLUMNS = ("Workload", "TPUv3")
WORD_BYTES = 4
SUBLANES, LANES = 8, 128
# Chosen on the shipped rows; everything else is the preset.
START_CYCLES = 300
SOFTMAX_OPERATIONS = 34  # vector operations per register of 8 x 128 values: maximum, exponential, sum, division
LAYERNORM_OPERATIONS = 46  # mean, variance, reciprocal root, scale and shift, three reductions over lanes
PARTIAL_LANES_PCT = 163  # time of streamed rows that do not fill their 128 lanes
MAX_SIZE = 2**16
MAX_TASKS = 200_000
BOUNDS = {kind: Bound(15, float("inf")) for kind in ("gemm", "conv", "attention")}
NOT_MODELLED = (
    "compiler choices of layout and fusion; layer normalisation and softmax alone have no stated bound: one row each, "
    f"which gave {LAYERNORM_OPERATIONS} and {SOFTMAX_OPERATIONS} operations per vector register; rows of fewer than "
    f"128 channels cost {PARTIAL_LANES_PCT} % (one row)",
)


class TooLarge(Exception):
    """An operation that cannot be tiled here."""


class _Program:
    """Tasks in program order; every method returns the number of its task."""

    def __init__(self, machine: Hardware) -> None:
        self.machine = machine
        self.rows: list[tuple[int, int, int]] = []
        self.dependencies: list[list[int]] = []

    def load(self, nbytes: int, *after: int | None) -> int:
        return self._move(tp.LOAD, nbytes, after)

    def store(self, nbytes: int, *after: int | None) -> int:
        return self._move(tp.STORE, nbytes, after)

    def compute(self, cycles: int, *after: int | None) -> int:
        return self._add(tp.COMPUTE, cycles, 0, after)

    def vector(self, cycles: int, *after: int | None) -> int:
        return self._add(tp.VECTOR, cycles, 0, after)

    def _move(self, kind: int, nbytes: int, after: tuple[int | None, ...]) -> int:
        return self._add(kind, int(self.machine.dram_cycles(np.array([nbytes]))[0]), nbytes, after)

    def _add(self, kind: int, cycles: int, nbytes: int, after: tuple[int | None, ...]) -> int:
        if len(self.rows) == MAX_TASKS:
            raise TooLarge(f"more than {MAX_TASKS} tiles")
        self.rows.append((kind, cycles, nbytes))
        self.dependencies.append(sorted({task for task in after if task is not None}))
        return len(self.rows) - 1

    def cycles(self) -> int:
        """From the first task to the end of the last."""
        kind, service, nbytes = (np.array(column, np.int64) for column in zip(*self.rows, strict=True))
        count = len(kind)
        moves = (kind == tp.LOAD) | (kind == tp.STORE)
        program = tp.TileProgram(
            kind.astype(np.uint8), np.zeros(count, np.int32), service,
            np.where(moves, self.machine.dram_latency_cycles, 0), nbytes, np.zeros(count, np.uint8),
            np.zeros(count, np.uint8), np.zeros(count, np.int64),
            np.cumsum([0, *map(len, self.dependencies)]).astype(np.int64),
            np.array([task for tasks in self.dependencies for task in tasks], np.int32),
        )  # fmt: skip
        return engine.run(program, engine.unit_capacity(self.machine)).cycles


def validate(path: str | Path, configs: Path | None = None) -> Validation:
    """Every row of a file with COLUMNS."""
    machine = npu.load("tpuv3")
    return Validation("tpuv3", [_row(cells, machine) for cells in read(path, COLUMNS)], BOUNDS, NOT_MODELLED)


def _row(cells: Cells, machine: Hardware) -> Row:
    name = cells.text("Workload")
    kind, sizes = _parse(cells, name)
    measured = cells.integer("TPUv3", 1)
    if kind is None:
        return Row(cells.line, "unknown", name, measured, None, "")
    try:
        return Row(cells.line, kind, name, measured, operation_cycles(machine, kind, sizes))
    except TooLarge as error:
        return Row(cells.line, kind, name, measured, None, str(error))


def operation_cycles(machine: Hardware, kind: str, sizes: tuple[int, ...]) -> int:
    """Cycles of one operation; `sizes` as in its name. TooLarge when its tiles do not fit the vector memory."""
    program = _Program(machine)
    OPERATIONS[kind][1](program, sizes)
    return START_CYCLES + program.cycles()


def _parse(cells: Cells, name: str) -> tuple[str | None, tuple[int, ...]]:
    match = re.fullmatch(r"([a-z]+)_(\d{1,5}(?:x\d{1,5})*)", name)
    kind = match[1] if match else None
    sizes = tuple(int(size) for size in match[2].split("x")) if match else ()
    forms = ", ".join(f"{known}_{form}" for known, (form, _) in OPERATIONS.items())
    if kind not in OPERATIONS or len(sizes) != len(OPERATIONS[kind][0].split("x")):
        cells.problem(f"Workload = {name!r}: must be one of {forms}")
        return None, ()
    wrong = [
        size for place, size in enumerate(sizes) if size > MAX_SIZE or (size == 0 and (kind, place) != ("conv", 6))
    ]
    if wrong or (kind == "conv" and not _conv_fits(sizes)):
        cells.problem(f"Workload = {name!r}: sizes must be 1 to {MAX_SIZE}, and the window must fit the padded image")
        return None, ()
    return kind, sizes


def _conv_fits(sizes: tuple[int, ...]) -> bool:
    _, height, width, _, _, window, pad, stride = sizes
    return stride > 0 and pad < window <= min(height, width) + 2 * pad


def _padded_bytes(rows: int, cols: int) -> int:
    """Bytes of a matrix in HBM or vector memory: rows of whole registers of 128 lanes."""
    return rows * ceil_div(cols, LANES) * LANES * WORD_BYTES


def _stream(machine: Hardware, rows: int, depth: int, cols: int, passes: int = 1) -> int:
    """Cycles in which both arrays stream `rows` rows of `depth` terms against `cols` output columns, `passes` times."""
    side = machine.array.rows
    length, blocks = (ceil_div(rows, 2), 1) if cols <= side else (rows, ceil_div(cols, machine.array.cols))
    folds = passes * ceil_div(depth, side) * blocks
    streamed = folds * max(length, side)
    if depth % side:
        streamed = streamed * PARTIAL_LANES_PCT // 100
    return streamed + int(array.operand_stationary(1, length, side, side, side, True)) - length


def _gemm(p: _Program, sizes: tuple[int, ...]) -> None:
    """A stays in vector memory, as many rows as fit; columns of B and C pass through, 256 at a time."""
    m, k, n = sizes
    width = min(n, p.machine.array.cols)
    b_bytes, memory = _padded_bytes(k, width), p.machine.sram_bytes
    per_row = _padded_bytes(1, k) + 2 * _padded_bytes(1, width)
    rows = min(m, (memory - 2 * b_bytes) // per_row)
    if rows < m:
        rows = (memory - 2 * b_bytes) // (per_row + _padded_bytes(1, k)) // SUBLANES * SUBLANES
    if rows < 1:
        raise TooLarge(f"{k} terms of a row of A and of {width} columns of B do not fit the vector memory")
    rows = ceil_div(m, ceil_div(m, rows))
    computed: list[int] = []
    stored: list[int] = []
    for top in range(0, m, rows):
        height = min(rows, m - top)
        earlier = computed[-ceil_div(n, width) - 1] if len(computed) > ceil_div(n, width) else None
        a = p.load(_padded_bytes(height, k), earlier)
        for left in range(0, n, width):
            cols = min(width, n - left)
            b = p.load(_padded_bytes(k, cols), computed[-2] if len(computed) > 1 else None)
            computed.append(
                p.compute(_stream(p.machine, height, k, cols), a, b, stored[-2] if len(stored) > 1 else None)
            )
            stored.append(p.store(_padded_bytes(height, cols), computed[-1]))


def _conv(p: _Program, sizes: tuple[int, ...]) -> None:
    """Weights stay in vector memory; images, or bands of rows of one image, pass through. One pass per tap."""
    batch, height, width, c, k, window, pad, stride = sizes
    out_rows, out_cols = ((size + 2 * pad - window) // stride + 1 for size in (height, width))
    # A row of taps is one pass when it fits the lanes.
    passes, depth = (window, c * window) if c * window <= LANES else (window * window, c)
    weights = passes * _padded_bytes(depth, k)
    image_in, image_out = _padded_bytes(height * width, c), _padded_bytes(out_rows * out_cols, k)
    space = (p.machine.sram_bytes - weights) // 2
    if space >= image_in + image_out:
        images = ceil_div(batch, ceil_div(batch, space // (image_in + image_out)))
        counts = [min(images, batch - first) for first in range(0, batch, images)]
        pieces = [(n * image_in, n * image_out, n * out_rows * out_cols) for n in counts]
    else:
        row_in, row_out = _padded_bytes(width, c), _padded_bytes(out_cols, k)
        rows = (space - (window - stride) * row_in) // (stride * row_in + row_out)
        if rows < 1:
            raise TooLarge("weights and two output rows do not fit the vector memory")
        bands = [min(rows, out_rows - first) for first in range(0, out_rows, rows)]
        band_in = [min(height, (n - 1) * stride + window) * row_in for n in bands]
        pieces = [(x, n * row_out, n * out_cols) for x, n in zip(band_in, bands, strict=True)] * batch
    w = p.load(weights)
    computed: list[int] = []
    stored: list[int] = []
    for bytes_in, bytes_out, pixels in pieces:
        x = p.load(bytes_in, computed[-2] if len(computed) > 1 else None)
        cycles = _stream(p.machine, pixels, depth, k, passes)
        computed.append(p.compute(cycles, w, x, stored[-2] if len(stored) > 1 else None))
        stored.append(p.store(bytes_out, computed[-1]))


def _registers(p: _Program, rows: int, cols: int) -> int:
    return ceil_div(rows * ceil_div(cols, LANES) * LANES, p.machine.vector.lanes)


def _rowwise(operations: int) -> Callable[[_Program, tuple[int, ...]], None]:
    def build(p: _Program, sizes: tuple[int, ...]) -> None:
        rows, cols = sizes
        tile = min(rows, p.machine.sram_bytes // (4 * _padded_bytes(1, cols)))
        if tile < 1:
            raise TooLarge("four rows do not fit the vector memory")
        worked: list[int] = []
        stored: list[int] = []
        for first in range(0, rows, tile):
            count = min(tile, rows - first)
            x = p.load(_padded_bytes(count, cols), worked[-2] if len(worked) > 1 else None)
            cycles = _registers(p, count, cols) * operations
            worked.append(p.vector(cycles, x, stored[-2] if len(stored) > 1 else None))
            stored.append(p.store(_padded_bytes(count, cols), worked[-1]))

    return build


def _attention(p: _Program, sizes: tuple[int, ...]) -> None:
    """Head by head, scores in vector memory: scores on the arrays, softmax on the vector unit, then their product."""
    heads, length, depth = sizes
    if 2 * _padded_bytes(length, length) + 8 * _padded_bytes(length, depth) > p.machine.sram_bytes:
        raise TooLarge("the scores of two heads do not fit the vector memory")
    done: list[int] = []
    for _ in range(heads):
        before = done[-2] if len(done) > 1 else None
        q, k, v = (p.load(_padded_bytes(length, depth), before) for _ in range(3))
        scores = p.compute(_stream(p.machine, length, depth, length), q, k)
        weights = p.vector(_registers(p, length, length) * SOFTMAX_OPERATIONS, scores)
        done.append(p.compute(_stream(p.machine, length, length, depth), weights, v))
        p.store(_padded_bytes(length, depth), done[-1])


# kind -> (sizes in its name, what builds its program); conv: batch, height, width, channels in and out, window,
# padding, stride; attention: heads, sequence, head dimension.
OPERATIONS: dict[str, tuple[str, Callable[[_Program, tuple[int, ...]], None]]] = {
    "gemm": ("MxKxN", _gemm),
    "conv": ("BxHxWxCxKxRxPxS", _conv),
    "attention": ("HxSxD", _attention),
    "softmax": ("RxC", _rowwise(SOFTMAX_OPERATIONS)),
    "layernorm": ("RxC", _rowwise(LAYERNORM_OPERATIONS)),
}
