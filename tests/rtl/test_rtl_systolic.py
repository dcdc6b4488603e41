"""The systolic array in RTL against the closed forms and the fold kernels: cycles, operand reads, result writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rtl_expected
from rtl_points import Tile, systolic_tiles
from rtl_simulator import SYSTOLIC, Measured, mismatches, run

pytestmark = pytest.mark.rtl

# (ROWS, COLS, points, array sizes per tile at most): few points where a simulated cycle is dear.
ARRAYS = [
    (1, 1, 24, 9), (1, 12, 48, 4), (2, 3, 60, 4), (3, 2, 60, 4), (3, 16, 48, 2.5), (4, 4, 60, 3.5), (5, 9, 48, 2.5),
    (8, 8, 48, 2.5), (7, 16, 32, 2), (12, 5, 32, 2), (16, 2, 48, 2.5), (16, 16, 48, 1.6),
]  # fmt: skip
NIGHTLY = [(rows, columns, 96, 3) for rows in (1, 2, 3, 5, 8, 12, 16) for columns in (1, 2, 4, 7, 11, 16)]


def _measure(folder: Path, rows: int, columns: int, tiles: list[Tile], mutation: int = 0) -> list[Measured]:
    points = [tile.systolic_text(i) for i, tile in enumerate(tiles)]
    return run(folder, SYSTOLIC, {"ROWS": rows, "COLS": columns, "MUTATION": mutation}, points)


def _compare(folder: Path, rows: int, columns: int, tiles: list[Tile], mutation: int = 0) -> list[str]:
    simulated = [rtl_expected.systolic(tile, rows, columns) for tile in tiles]
    return mismatches(tiles, simulated, _measure(folder, rows, columns, tiles, mutation))


@pytest.mark.parametrize(("rows", "columns", "count", "blocks"), ARRAYS)
def test_cycles_and_accesses_equal_rtl(tmp_path, rows, columns, count, blocks):
    assert _compare(tmp_path, rows, columns, systolic_tiles(rows, columns, count, blocks, seed=1)) == []


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "count", "blocks"), NIGHTLY)
def test_nightly_grid_equals_rtl(tmp_path, rows, columns, count, blocks):
    assert _compare(tmp_path, rows, columns, systolic_tiles(rows, columns, count, blocks, seed=2)) == []


MUTATIONS = {
    1: "overlapped folds enter one cycle too early",
    2: "the stream ends one operand early",
    3: "the last column is skewed by one cycle too many",
    4: "compacted folds are packed one short",
    5: "the first preload takes one cycle more",
}


@pytest.mark.parametrize("mutation", MUTATIONS, ids=MUTATIONS.values())
def test_an_off_by_one_in_the_rtl_is_caught(tmp_path, mutation):
    tiles = systolic_tiles(4, 4, 60, 3.5, seed=1)
    assert _compare(tmp_path, 4, 4, tiles, mutation)


def test_a_wide_fold_can_outlast_a_narrow_last_one(tmp_path):
    """ROWS = 1, COLS = 12, one term: folds enter every cycle, and the first one's 12 columns leave last."""
    one = np.zeros(1, np.int64)
    wide = np.arange(14).reshape(14, 1)
    tile = Tile(left=wide[3:4], right=wide, mask=np.ones((1, 14), np.uint8), terms=one, overlap=True)
    # Two folds of 12 and 2 columns leave after 1 + 12 and 2 + 2 cycles, plus 2 * ROWS - 2.
    assert _measure(tmp_path, 1, 12, [tile])[0].cycles == 13
    assert _compare(tmp_path, 1, 12, [tile]) == []
