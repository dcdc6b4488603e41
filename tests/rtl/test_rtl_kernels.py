"""The tile kernels against loops written from rtl/README.md, over whole grids: what needs no RTL simulator."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from rtl_points import STRUCTURES, structured_mask

from npusim import array
from npusim.reduction_kernels import (
    FOLD_FIELDS,
    REDUCTION_FIELDS,
    ReductionArray,
    channel_compaction_grid,
    reduction_grid,
    row_compaction_grid,
    tile_skip_grid,
)


def _grid(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and size of ragged, gap-free ranges that cover `size`."""
    cuts = np.unique(np.concatenate([[0, size], rng.integers(0, size + 1, 2)]))
    return cuts[:-1], np.diff(cuts)


def _chunks(size: int, step: int) -> list[int]:
    return [min(step, size - start) for start in range(0, size, step)]


def naive_reduction(mask: np.ndarray, terms: int, hw: ReductionArray) -> dict[str, int]:
    """One tile, pass by pass and batch by batch."""
    out = dict.fromkeys(REDUCTION_FIELDS, 0)
    out["scan_bits"] = mask.size
    out["selected"] = int(mask.sum())
    live = mask[mask.any(axis=1)]
    for start in range(0, len(live), hw.registers):
        block = live[start : start + hw.registers]
        counts = block.sum(axis=0, dtype=np.int64)
        counts = counts[counts > 0].tolist()
        batches = [counts[i : i + hw.groups] for i in range(0, len(counts), hw.groups)]
        for chunk in _chunks(terms, hw.group):
            loads = [-(-len(batch) * chunk * hw.operand_bytes // hw.port_b_bytes) for batch in batches]
            steps = [max(batch) for batch in batches]
            preload = -(-len(block) * chunk * hw.operand_bytes // hw.port_a_bytes)
            walk_and_load = sum(max(step, load) for step, load in zip(steps, [*loads[1:], 0], strict=True))
            latency = 2 + hw.group.bit_length() - 1
            out["cycles"] += preload + loads[0] + walk_and_load + latency
            out["preload_cycles"] += preload
            out["load_wait_cycles"] += loads[0] + walk_and_load - sum(steps)
            out["walk_cycles"] += sum(steps)
            out["latency_cycles"] += latency
            out["passes"] += 1
            out["dy_words"] += len(block) * chunk
            out["x_words"] += len(counts) * chunk
            out["mask_bits"] += len(counts) * len(block)
            out["decoded_indices"] += sum(counts)
            out["macs"] += sum(counts) * chunk
            out["tree_adds"] += sum(counts) * (chunk - 1)
    return out


def naive_folds(mode: str, mask: np.ndarray, rows: int, columns: int, taps: int) -> list[tuple[int, int]]:
    """Live rows and columns of every fold of one tile, in order; `mask` starts at a channel."""
    folds = []
    if mode == "rows":
        for j in range(0, mask.shape[1], columns):
            part = mask[:, j : j + columns]
            folds += [(height, part.shape[1]) for height in _chunks(int(part.any(axis=1).sum()), rows)]
        return folds
    for i in range(0, mask.shape[0], rows):
        part = mask[i : i + rows]
        if mode == "channels":
            any_column = part.any(axis=0)
            live = sum(
                len(any_column[c : c + taps]) for c in range(0, len(any_column), taps) if any_column[c : c + taps].any()
            )
            folds += [(len(part), width) for width in _chunks(live, columns)]
        else:
            blocks = [part[:, j : j + columns] for j in range(0, mask.shape[1], columns)]
            folds += [block.shape for block in blocks if block.any()]
    return folds


@pytest.mark.parametrize("structure", STRUCTURES)
def test_reduction_grid_equals_naive_loops(structure):
    rng = np.random.default_rng(3)
    for _ in range(6):
        hw = ReductionArray(2 ** int(rng.integers(5)), *(int(v) for v in rng.integers(1, 9, 5)))
        mask = structured_mask(rng, structure, int(rng.integers(3, 30)), int(rng.integers(2, 9)), 4, 0.3)
        rows, columns = _grid(rng, mask.shape[0]), _grid(rng, mask.shape[1])
        terms = rng.integers(1, 50, 3)
        result = reduction_grid(mask, *rows, *columns, terms, hw)
        for (i, j, t), _ in np.ndenumerate(result[..., 0]):
            tile = mask[rows[0][i] :, columns[0][j] :][: rows[1][i], : columns[1][j]]
            assert dict(zip(REDUCTION_FIELDS, result[i, j, t].tolist(), strict=True)) == naive_reduction(
                tile, int(terms[t]), hw
            )


@pytest.mark.parametrize("mode", ["skip", "rows", "channels"])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_fold_grids_equal_naive_loops(mode, structure):
    rng = np.random.default_rng(4)
    for _ in range(6):
        rows, columns, taps = (int(v) for v in rng.integers(1, 7, 3))
        mask = structured_mask(rng, structure, int(rng.integers(3, 20)), int(rng.integers(2, 9)), taps, 0.2)
        row_grid, (start, size) = _grid(rng, mask.shape[0]), _grid(rng, mask.shape[1] // taps)
        column_grid = start * taps, size * taps
        terms = rng.integers(1, 12, 2)
        kernel = {"skip": tile_skip_grid, "rows": row_compaction_grid, "channels": channel_compaction_grid}[mode]
        more = (taps,) if mode == "channels" else ()
        result = kernel(mask, *row_grid, *column_grid, terms, rows, columns, *more)
        for (i, j, t), _ in np.ndenumerate(result[..., 0]):
            tile = mask[row_grid[0][i] :, column_grid[0][j] :][: row_grid[1][i], : column_grid[1][j]]
            folds, length = naive_folds(mode, tile, rows, columns, taps), int(terms[t])
            assert dict(zip(FOLD_FIELDS, result[i, j, t].tolist(), strict=True)) == {
                "folds": len(folds),
                "sum_rows": sum(height for height, _ in folds),
                "sum_columns": sum(width for _, width in folds),
                "last_columns": array.tail_columns([width for _, width in folds], length, rows),
                "mac_slots": length * sum(height * width for height, width in folds),
                "macs": length * int(tile.sum()),
                "selected": int(tile.sum()),
                "scan_bits": tile.size,
                "idle_slots": 0,
            }


def test_a_tile_that_cuts_a_channel_packs_its_part():
    """Columns 2..6 of channels of 3: one column of channel 0, all of channel 1, one of channel 2."""
    mask = np.zeros((1, 9), np.uint8)
    mask[0, [2, 4]] = 1
    one = np.ones(1, np.int64)
    result = channel_compaction_grid(mask, 0 * one, one, 2 * one, 5 * one, 7 * one, 1, 2, 3)[0, 0, 0]
    # 1 + 3 columns in folds of 2, each streaming 7 terms of one row.
    assert result.tolist() == [2, 2, 4, 2, 28, 14, 2, 5, 0]


def test_reduction_pass_by_hand():
    """Two groups of 4 PEs, 2 registers, 1-byte words, ports of 4 and 2 bytes; three live columns and 6 terms."""
    mask = np.array([[1, 1, 0, 0], [1, 0, 0, 1]], np.uint8)
    zero, two, four = np.array([0]), np.array([2]), np.array([4])
    result = reduction_grid(mask, zero, two, zero, four, np.array([6]), ReductionArray(4, 2, 2, 1, 4, 2))[0, 0, 0]
    # Chunk of 4: preload 2 * 4 / 4 = 2; loads 2 * 4 / 2 = 4 and 1 * 4 / 2 = 2; steps 2 and 1; latency 1 + 2 + 1.
    # Chunk of 2: preload 1; loads 2 and 1; steps 2 and 1; latency 4.
    assert result[0] == (2 + 4 + max(2, 2) + 1 + 4) + (1 + 2 + max(2, 1) + 1 + 4)
    assert result[1:].tolist() == [3, 6, 6, 8, 2, 12, 18, 12, 8, 8, 24, 16, 4]


def test_kernels_run_uncompiled():
    mask = structured_mask(np.random.default_rng(5), "element", 9, 3, 3, 0.3)
    ranges = np.array([0, 5]), np.array([5, 4]), np.array([0, 6]), np.array([6, 3]), np.array([3, 8])
    hw = ReductionArray(4, 2, 3, 1, 4, 4)
    calls = [(reduction_grid, (hw,)), (tile_skip_grid, (2, 3)), (row_compaction_grid, (2, 3))]
    for kernel, more in [*calls, (channel_compaction_grid, (2, 3, 3))]:
        plain = getattr(kernel, "py_func", kernel)
        assert (plain(mask, *ranges, *more) == kernel(mask, *ranges, *more)).all()


def test_dense_tail_columns_is_tail_columns_of_full_blocks_and_a_ragged_one():
    for size, length, rows, columns in product(range(1, 14), (1, 2, 9), (1, 3), (1, 4, 6)):
        widths = [min(columns, size - start) for start in range(0, size, columns)] * 2
        assert array.dense_tail_columns(size, length, rows, columns) == array.tail_columns(widths, length, rows)
