"""Published silicon: AlexNet's convolutions on Eyeriss, with the row-stationary dataflow on the preset `eyeriss`.

Columns: layer, n, c, h (input size), k, r (window), stride, padding, groups; measured processing_ms, total_ms,
active_pes, buffer_mb, dram_mb. Every measured number is a row of its own; no bound is stated.
"""

from __future__ import annotations

from pathlib import Path

from npusim import npu
from npusim.graph import Conv, Op, StepGraph
from npusim.simulation import Run, simulate
from npusim.validate.result import Cells, Row, Validation, read

SHAPE = ("n", "c", "h", "k", "r", "stride", "padding", "groups")
MEASURED = {
    "processing_ms": "processing latency (ms)",
    "total_ms": "total latency (ms)",
    "active_pes": "active PEs",
    "buffer_mb": "buffer accesses (MB)",
    "dram_mb": "DRAM accesses (MB)",
}
BUFFER_BYTES = tuple(f"{name}_{way}_bytes" for name in ("a", "b", "accumulator") for way in ("read", "write"))
NOT_MODELLED = (
    "run-length compression of inputs and outputs in DRAM (total latency and DRAM accesses come out too large)",
    "the chip's own tile sizes: npusim chooses them for its own buffers and time",
    "filling of the input pads and the networks on chip",
)


def validate(path: Path, configs: Path | None = None) -> Validation:
    """Simulate every layer of a file; ConfigError lists what is wrong in it."""
    lines = [_parse(cells) for cells in read(path, ("layer", *SHAPE, *MEASURED))]
    found = [_rows(*line) for line in lines]
    rows = [row for group in MEASURED.values() for layer in found for row in layer if row.group == group]
    return Validation("eyeriss", rows, {}, NOT_MODELLED)


def _parse(cells: Cells) -> tuple[int, str, Conv, dict[str, float]]:
    n, c, h, k, r, stride, padding, groups = (cells.integer(name, 0 if name == "padding" else 1) for name in SHAPE)
    dims = Conv(n, c, h, h, k, r, r, (stride, stride), (padding, padding), (1, 1), groups)
    return cells.line, cells.text("layer"), dims, {column: _number(cells, column) for column in MEASURED}


def _rows(line: int, layer: str, dims: Conv, measured: dict[str, float]) -> list[Row]:
    simulated = _results(_simulate(layer, dims), dims)
    return [Row(line, group, layer, measured[column], simulated[column]) for column, group in MEASURED.items()]


def _simulate(name: str, dims: Conv) -> Run:
    step = StepGraph(name, (Op(name or "layer", "forward", "conv", dims, param="weight"),), {})
    step.verify()
    return simulate(step, npu.load("eyeriss"), "row-stationary")


def _results(run: Run, dims: Conv) -> dict[str, float]:
    per_ms = run.hardware.clock_hz / 1000
    return {
        "processing_ms": int(run.array_cycles[0]) / per_ms,
        "total_ms": int(run.cycles[0]) / per_ms,
        "active_pes": dims.macs / int(run.array_cycles[0]),
        "buffer_mb": sum(int(run.count(name)[0]) for name in BUFFER_BYTES) / 1e6,
        "dram_mb": int(run.count("dram_read_bytes")[0] + run.count("dram_write_bytes")[0]) / 1e6,
    }


def _number(cells: Cells, column: str) -> float:
    try:
        return float(cells.text(column))
    except ValueError:
        cells.problem(f"{column} = {cells.text(column)!r}: must be a number")
        return 0.0
