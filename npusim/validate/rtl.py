"""Cycles of other people's RTL, row by row (`validation/rtl/`).

Rows of kind `exact` must be equal: `compute` with both operands in the buffers, `dma_load` and `dma_store` of `blocks`
16x16 blocks. Rows of kind `data` (Gemmini end to end) have an error bound. Quoted figures are listed, not simulated.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from npusim import array_timing, dma, npu
from npusim.errors import ConfigError
from npusim.validate.result import EQUAL, Bound, Cells, Row, Validation, read

COLUMNS = (
    "source", "array", "dataflow", "op", "M", "K", "N", "memory_latency", "blocks", "tile_i", "tile_j", "tile_k",
    "measured_cycles", "kind",
)  # fmt: skip
PRESETS = {
    "gemmini_rtl": "gemmini-16x16",
    "scalesim_example_rtl": "scalesim-example-32x32",
    "opentpu_rtl": "opentpu-16x16",
    "axis_systolic_rtl": "axis-systolic-4x8",
}
OPERATIONS = ("compute", "dma_load", "dma_store", "end_to_end")
KINDS = {"exact": EQUAL, "data": Bound(3, 10)}
NOT_MODELLED = (
    "OpenTPU and axis-systolic-array beyond one instruction or stream: their weight and stream memories",
    "Gemmini's loads at memory latencies below 16 cycles are simulated, but were not held to RTL",
)
MAX_SIZE, MAX_BLOCKS, MAX_LATENCY = 2**20, 2**14, 10**6


def validate(path: str | Path, configs: Path | None = None) -> Validation:
    """Every row of a file with COLUMNS; ConfigError when it cannot be understood."""
    rows = [_row(cells) for cells in read(path, COLUMNS)]
    bounds = {f"{source} {kind}": bound for source in PRESETS for kind, bound in KINDS.items()}
    return Validation("rtl", rows, bounds, NOT_MODELLED)


def _row(cells: Cells) -> Row:
    kind, source, op = cells.text("kind"), cells.text("source"), cells.text("op")
    measured = cells.integer("measured_cycles")
    case = " ".join(filter(None, (cells.text("array"), cells.text("dataflow"), op, _shape(cells))))
    if "quoted" in kind:
        return Row(cells.line, f"{source} quoted", case, measured, None, "a quoted figure, not simulated")
    cells.choice("kind", tuple(KINDS))
    source = cells.choice("source", tuple(PRESETS))
    op = cells.choice("op", OPERATIONS)
    rows, cols = cells.array("array")
    simulated: int | None
    note = ""
    if op == "compute":
        simulated = _compute(cells, source, rows, cols)
    elif op == "end_to_end":
        simulated, note = _end_to_end(cells)
    else:
        simulated = _transfer(cells, source, rows, cols, op == "dma_store")
    return Row(cells.line, f"{source} {kind}", case, measured, simulated, note)


def _compute(cells: Cells, source: str, rows: int, cols: int) -> int:
    dataflow = cells.choice("dataflow", array_timing.DATAFLOWS)
    m, k, n = (_limited(cells, name, 1, MAX_SIZE) for name in "MKN")
    return array_timing.gemm(dataflow, m, k, n, machine(source, rows, cols).array)


def _transfer(cells: Cells, source: str, rows: int, cols: int, write: bool) -> int:
    blocks = _limited(cells, "blocks", 0, MAX_BLOCKS)
    latency = _limited(cells, "memory_latency", 0, MAX_LATENCY)
    return transfer_cycles(machine(source, rows, cols), blocks, latency, write)


def transfer_cycles(preset: npu.Hardware, blocks: int, latency_cycles: int, write: bool) -> int:
    """Blocks as large as the array: inputs come in, sums go out. A preset's clock makes 1 ns one cycle."""
    bits = preset.precision.accumulator_bits if write else preset.precision.activation_bits
    row_bytes = preset.array.cols * bits // 8
    return dma.block_cycles(preset.replace(latency_ns=latency_cycles), blocks * preset.array.rows, row_bytes, write)


def _end_to_end(cells: Cells) -> tuple[int | None, str]:
    """A GEMM with DMA and compute overlapped, in tiles of blocks: Gemmini's command model, when this version has it."""
    m, k, n = (_limited(cells, name, 1, MAX_SIZE) for name in "MKN")
    tile = tuple(_limited(cells, f"tile_{axis}", 1, MAX_BLOCKS) for axis in "ijk")
    latency = _limited(cells, "memory_latency", 0, MAX_LATENCY)
    if find_spec("npusim.validate.gemmini") is None:
        return None, "this version has no model of Gemmini's commands"
    try:
        return import_module("npusim.validate.gemmini").end_to_end(m, k, n, tile, latency), ""
    except ConfigError as error:
        return None, str(error)


@cache
def machine(source: str, rows: int, cols: int) -> npu.Hardware:
    """The preset of a source with another array size; a command that is one block follows the array's rows."""
    preset = npu.load(PRESETS[source])
    changes = {"array.rows": rows, "array.cols": cols}
    if preset.array.timing.command_vectors == preset.array.rows:
        changes["array.timing.command_vectors"] = max(rows, preset.array.timing.least_vectors)
    return preset.replace(changes)


def _limited(cells: Cells, column: str, low: int, high: int) -> int:
    value = cells.integer(column, low)
    if value > high:
        cells.problem(f"{column} = {value}: must be at most {high}")
        return low
    return value


def _shape(cells: Cells) -> str:
    parts = "x".join(value.removesuffix(".0") for value in map(cells.text, "MKN") if value)
    for column, unit in (("blocks", "blocks"), ("memory_latency", "cycles of latency")):
        value = cells.text(column).removesuffix(".0")
        parts += f" {value} {unit}" if value else ""
    return parts.strip()
