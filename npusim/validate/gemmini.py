"""Gemmini end to end: GEMMs in LOOP_WS tiles with DMA and compute overlapped (`validation/gemmini/`).

`end_to_end` is what `npusim.validate.rtl` asks for rows of kind `data`.
"""

from __future__ import annotations

from pathlib import Path

from npusim.errors import ConfigError
from npusim.validate.gemmini_model import (
    ACCUMULATOR_BLOCKS,
    BLOCK,
    SCRATCHPAD_BLOCKS,
    Gemmini,
    matmul_layer,
    memory,
    run,
)
from npusim.validate.result import Bound, Cells, Row, Validation, read

SUM_BYTES = 4
MAX_BLOCKS = 2**22
BOUND = Bound(3, 10)
COLUMNS = ("M", "K", "N", "memory_latency", "tile_i", "tile_j", "tile_k", "measured_cycles")
NOT_MODELLED = ("page translation: addresses are physical", "banks of the accumulator below one half")


def end_to_end(m: int, k: int, n: int, tile: tuple[int, int, int], latency: int) -> int:
    """Cycles from the first command offered to the accelerator idle, 32-bit sums stored, ideal in-order memory.

    `tile` is in 16x16 blocks. ConfigError when a tile does not fit half of the scratchpad and of the accumulator.
    """
    ti, tj, tk = (min(t, -(-size // 16)) for t, size in zip(tile, (m, n, k), strict=True))
    if ti * tk + tk * tj > SCRATCHPAD_BLOCKS // 2:
        raise ConfigError(
            f"tile {ti}x{tj}x{tk}: {ti * tk + tk * tj} blocks of operands, and half of the scratchpad "
            f"has {SCRATCHPAD_BLOCKS // 2}"
        )
    if ti * tj > ACCUMULATOR_BLOCKS // 2:
        raise ConfigError(
            f"tile {ti}x{tj}: {ti * tj} blocks of sums, and half of the accumulator has {ACCUMULATOR_BLOCKS // 2}"
        )
    blocks = -(-m // BLOCK) * -(-k // BLOCK) * -(-n // BLOCK)
    if blocks > MAX_BLOCKS:
        raise ConfigError(f"{m}x{k}x{n} takes {blocks} commands of one block; at most {MAX_BLOCKS} are simulated")
    return run(matmul_layer(m, k, n, (ti, tj, tk), SUM_BYTES), Gemmini(), memory(latency)).cycles


def validate(path: str | Path, configs: Path | None = None) -> Validation:
    """Every row of a file with COLUMNS."""
    rows = [_row(cells) for cells in read(path, COLUMNS)]
    return Validation("gemmini", rows, {"end_to_end": BOUND}, NOT_MODELLED)


def _row(cells: Cells) -> Row:
    m, k, n, ti, tj, tk = (cells.integer(name, 1) for name in ("M", "K", "N", "tile_i", "tile_j", "tile_k"))
    latency = cells.integer("memory_latency")
    case = f"{m}x{k}x{n} tiles of {ti}x{tj}x{tk}, {latency} cycles of latency"
    try:
        simulated: int | None = end_to_end(m, k, n, (ti, tj, tk), latency)
        note = ""
    except ConfigError as error:
        simulated, note = None, str(error)
    return Row(cells.line, "end_to_end", case, cells.integer("measured_cycles", 1), simulated, note)
