"""Whole layers on Gemmini as FPGAs ran it (`validation/firesim/`): its commands, a shared L2 and DRAM behind it.

The accelerator is the one of `npusim.validate.gemmini`, unchanged. `MEMORY` and `CONFIG_CYCLES` describe what is around
it; their free numbers were chosen on the shipped rows, with the cross-validated error in validation/firesim/README.md.
Layers of more than `LOOPS` loop instructions are simulated in part: of tiles of one shape, the first few.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from npusim.validate.gemmini_model import (
    ACCUMULATOR_BLOCKS,
    BLOCK,
    SCRATCHPAD_BLOCKS,
    Cache,
    Conv,
    Gemmini,
    Layer,
    cached_memory,
    ceil_div,
    conv_layer,
    matmul_layer,
    run,
)
from npusim.validate.result import Bound, Cells, Row, Validation, read

MEMORY = Cache(hit=40, busy=24, miss=20, write_back=75, misses=6, serve=6, line_cycles=4)
CONFIG_CYCLES = 200
LOOPS = 80
LEAD = 3
BOUND = Bound(20, float("inf"))
SPEARMAN = 0.98
DIMS = ("C", "K", "N", "P", "Q", "R", "S", "Hstride")
COLUMNS = (*(f"prob.{dim}" for dim in DIMS), "dse.auto_tiling", "cyc_median")
MAX_SIZE = 2**16
MAX_TAPS = 31
NOT_MODELLED = (
    "the processor beside a constant per loop instruction; page translation; DRAM rows and banks; what the L2 held "
    "before, other than the operands; padding is not in the file: 1 is taken for 3x3 layers of at most 28 rows, else 0",
)


class FiresimValidation(Validation):
    """A Validation that also holds Spearman's rank correlation to a bound."""

    @property
    def spearman(self) -> float:
        return rank_correlation([(row.measured, row.simulated) for row in self.rows if row.simulated is not None])

    @property
    def held(self) -> bool:
        return super().held and (len(self.rows) < 3 or self.spearman > SPEARMAN)

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | {"spearman": self.spearman, "spearman_bound": SPEARMAN, "parameters": parameters()}


def parameters() -> dict[str, int]:
    """The numbers that describe what is around the accelerator."""
    return dataclasses.asdict(MEMORY) | {"config_cycles": CONFIG_CYCLES}


def validate(path: str | Path, configs: Path | None = None) -> FiresimValidation:
    """Every row of a file with COLUMNS."""
    rows = [_row(cells) for cells in read(path, COLUMNS)]
    pairs = [(row.measured, row.simulated) for row in rows if row.simulated is not None]
    numbers = ", ".join(f"{name} {value}" for name, value in parameters().items())
    notes = (*NOT_MODELLED, f"Spearman {rank_correlation(pairs):.4f} (bound {SPEARMAN}); parameters: {numbers}")
    return FiresimValidation("firesim", rows, {"layers": BOUND}, notes)


def layer_cycles(layer: Layer, gemmini: Gemmini, cache: Cache, loops: int = LOOPS) -> float:
    """Cycles of a layer; of a long one, tiles of the same shape go at the rate of the first of them."""
    if len(layer.loops) <= loops:
        return run(layer, gemmini, cached_memory(cache, layer)).cycles
    _, kind = np.unique(layer.loops[:, layer.shape], axis=0, return_inverse=True)
    kind = kind.ravel()
    span = layer.period * ceil_div(6, layer.period)
    total = 0.0
    for number in range(kind.max() + 1):
        places = np.flatnonzero(kind == number)
        table = layer.part(places[: LEAD + span + 2])
        result = run(layer, gemmini, cached_memory(cache, layer), table)
        if len(table) < LEAD + span + 2:
            total += result.cycles
        else:
            total += (result.ends[LEAD + span] - result.ends[LEAD]) / span * len(places)
    return total


def rank_correlation(pairs: Sequence[tuple[float, float | None]]) -> float:
    """Spearman's coefficient, equal values sharing the mean of their ranks; nan for fewer than two values."""
    if len(pairs) < 2 or any(len(set(values)) < 2 for values in zip(*pairs, strict=True)):
        return float("nan")
    ranks = []
    for values in np.array(pairs, float).T:
        _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks.append((ends - (counts - 1) / 2)[place])
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _row(cells: Cells) -> Row:
    sizes = {dim: _limited(cells, f"prob.{dim}", MAX_TAPS if dim in "RS" else MAX_SIZE) for dim in DIMS}
    measured = cells.integer("cyc_median", 1)
    tile = _tile(cells)
    case = " ".join(f"{dim}{sizes[dim]}" for dim in DIMS)
    note = ""
    if sizes["N"] != 1:
        note = "a batch of more than one"
    elif tile is None or not _fits(sizes, tile):
        note = "a tile that does not fit half of the scratchpad and of the accumulator, or does not hold all taps"
    if note:
        return Row(cells.line, "layers", case, measured, None, note)
    gemmini = Gemmini(config_commands=CONFIG_CYCLES)
    return Row(cells.line, "layers", case, measured, round(layer_cycles(_layer(sizes, tile), gemmini, MEMORY)))


def _limited(cells: Cells, column: str, high: int) -> int:
    value = cells.integer(column, 1)
    if value > high:
        cells.problem(f"{column} = {value}: must be at most {high}")
        return 1
    return value


def _tile(cells: Cells) -> dict[str, int] | None:
    """`dse.auto_tiling`, R_S_P_Q_C_K_N; None when it is not that."""
    parts = cells.text("dse.auto_tiling").split("_")
    if len(parts) != 7 or not all(re.fullmatch(r"[0-9]{1,6}", part) and 0 < int(part) <= MAX_SIZE for part in parts):
        cells.problem(f"dse.auto_tiling = {cells.text('dse.auto_tiling')!r}: must be R_S_P_Q_C_K_N")
        return None
    return dict(zip("RSPQCKN", map(int, parts), strict=True))


def _is_matmul(sizes: dict[str, int]) -> bool:
    return sizes["R"] == sizes["S"] == sizes["Q"] == 1


def _fits(sizes: dict[str, int], tile: dict[str, int]) -> bool:
    p, q, c, k = (min(tile[dim], sizes[dim]) for dim in "PQCK")
    if _is_matmul(sizes):
        i, j, kk = ceil_div(p, BLOCK), ceil_div(k, BLOCK), ceil_div(c, BLOCK)
        return i * kk + kk * j <= SCRATCHPAD_BLOCKS // 2 and i * j <= ACCUMULATOR_BLOCKS // 2
    stride, r, s = sizes["Hstride"], sizes["R"], sizes["S"]
    pixels = ((p - 1) * stride + r) * ((q - 1) * stride + s)
    rows = ceil_div(c, BLOCK) * pixels + ceil_div(k, BLOCK) * r * s * c
    sums = p * q * ceil_div(k, BLOCK)
    whole = tile["R"] >= r and tile["S"] >= s
    return whole and rows <= SCRATCHPAD_BLOCKS * BLOCK // 2 and sums <= ACCUMULATOR_BLOCKS * BLOCK // 2


def _layer(sizes: dict[str, int], tile: dict[str, int] | None) -> Layer:
    assert tile is not None
    c, k, p, q, r, s, stride = (sizes[dim] for dim in ("C", "K", "P", "Q", "R", "S", "Hstride"))
    if _is_matmul(sizes):
        blocks = (ceil_div(min(tile[dim], sizes[dim]), BLOCK) for dim in "PKC")
        i, j, kk = blocks
        return matmul_layer(p, c, k, (i, j, kk), 1)
    pad = 1 if r == 3 and p <= 28 else 0
    return conv_layer(Conv(c, k, p, q, r, s, stride, pad, (tile["P"], tile["Q"], tile["K"], tile["C"])))
