"""Tile timing of the selective dataflows by hand, and what must hold for every mask."""

from __future__ import annotations

import numpy as np
import pytest
from examples import layer_step

from npusim import npu
from npusim.catalogue import load_dataflow
from npusim.dataflow import MaskGrid, TileGrid
from npusim.errors import ConfigError
from npusim.gather_kernels import GATHER_FIELDS, UNION_FIELDS, GatherArray, gather_grid, union_grid
from npusim.graph import TAPS, Conv
from npusim.simulation import simulate
from npusim.wgc_kernels import WINDOW, BlockLines, WindowArray, live_lines, window_grid, window_pass, window_plan

OUTPUT_STATIONARY = ("selective-row", "channel-skipping", "kernel-packed", "column-set")
SELECTIVE = (*OUTPUT_STATIONARY, "element-gather", "ws-selective", "reduction-spatial", "reduction-window", "hybrid")
# 8 PEs, groups of 4 or 8, up to 2 groups share X; 2 dY words per PE; 1-byte words, ports of 4 and 2 bytes.
ARRAY = WindowArray(8, 4, 2, 2, 1, 4, 2)


@pytest.fixture(scope="module")
def edge():
    return npu.load("edge-16x16")


def _tile(bits):
    zero = np.zeros(1, np.int64)
    return bits, zero, zero + bits.shape[0], zero, zero + bits.shape[1]


def _lines(work, rows=None):
    """BlockLines of one group."""
    work = np.array(work, np.int32)
    rows = np.ones(len(work), np.int64) if rows is None else np.array(rows)
    totals = np.stack([work.sum(axis=1), (work > 0).sum(axis=1)], axis=1)
    return BlockLines(work, rows, rows[:, None], np.array([[0, work.shape[1]]] * len(work)), totals)


def _cycles(dataflow, bits, terms, taps, hw):
    where = _tile(np.ascontiguousarray(bits, np.uint8))
    axes = [np.full((1, 1, 1, 1), n, np.int64) for n in (1, bits.shape[0], bits.shape[1] // taps, terms)]
    grid = TileGrid(TAPS, *axes, taps, 16, 16, MaskGrid(*where))
    return int(load_dataflow(dataflow).cost(grid, hw).cycles.item())


def test_a_window_pass_with_one_queue_by_hand():
    # Lines of 4 words take 2 cycles of port B; dY preload 3. Elements per line: 2, 1, none (never loaded), 3.
    # line 0: port 0..2, walk 3..5; line 1 (other register): port 2..4, walk 5..6;
    # line 3: its register is free at 5, port 5..7, walk 7..10: one cycle of waiting.
    cell = np.zeros(WINDOW, np.int64)
    # Three lines are loaded, each meets the one row.
    assert window_pass(_lines([[2, 1, 0, 3]]), 0, 1, 1, 4, 3, ARRAY, cell) == 3
    assert cell[:5].tolist() == [10, 3, 1, 6, 0]
    assert cell[8] == 3 * 4


def test_a_window_pass_with_two_queues_by_hand():
    # No preload. Each queue has two registers, free at 0; a line goes where the other register is free first: line 0 to
    # queue 0 (busy until 7), line 1 to queue 1 (4..5), line 2 to queue 1 (its other one: 5, not 7), line 3 to queue 0.
    # Port: 2, 4, 6, 8. Queue 0 walks 2..7 and 8..9, queue 1 4..5 and 6..7. Elements: 6 and 2.
    cell = np.zeros(WINDOW, np.int64)
    window_pass(_lines([[5, 1, 1, 1]]), 0, 1, 2, 4, 0, ARRAY, cell)
    assert cell[:5].tolist() == [9, 0, 9 - 6, 4, 6 - 4]


def test_a_window_pass_with_shared_words_by_hand():
    # Two row blocks share X; a register is free when both have walked the line.
    # line 0: port 0..2; block 0 walks 2..3, block 1 2..6. line 1: port 2..4; block 0 4..6, block 1 6..6 (none).
    # line 2: register of line 0 is free at 6: port 6..8; block 0 8..9, block 1 8..10. Elements: 4 and 6.
    cell = np.zeros(WINDOW, np.int64)
    window_pass(_lines([[1, 2, 1], [4, 0, 2]]), 0, 2, 1, 4, 0, ARRAY, cell)
    assert cell[:5].tolist() == [10, 0, 4, 5, 1]
    assert cell[8] == 3 * 4


def test_lines_and_blocks_of_live_rows():
    # Rows 0, 2, 3 are live: two blocks of at most 2 rows (1 and 2). One channel of 3 taps on lines 0, 0, 1.
    bits = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1], [1, 0, 1]], np.uint8)
    tile = live_lines(bits, 0, 4, 0, 3, 3, np.array([0, 0, 1]), 2)
    assert tile.work.tolist() == [[2, 0], [1, 2]]
    assert tile.rows.tolist() == [1, 2]
    assert (tile.members.tolist(), tile.bounds.tolist()) == ([[1], [2]], [[0, 2], [0, 2]])


def test_chunks_of_falling_size():
    # T = 20 with groups of 8 and 4: no chunk is partial, so no PE ever idles for want of a pixel.
    tile, cells = _lines(np.full((2, 40), 2), [2, 2]), np.zeros((2, 64, WINDOW), np.int64)
    plan = window_plan(tile, 20, 1, 1, 0, ARRAY, cells[0], cells[1])
    assert (plan[:, 0] * plan[:, 2]).sum() == 20
    assert not plan[:, 3].any()


def test_a_window_tile_by_hand():
    # 2 rows x 3 channels of 1x1, T = 8, all selected. One chunk on one group of 8: preload 2*8/4 = 4, a line 4 cycles.
    # Walks 4..6, 8..10, (register of line 0 free at 6) port 8..12, 12..14; latency 2 + 3.
    # Groups of 4, two passes of 4 pixels: preload 2, a line 2 cycles (port 2, 4, 6), two queues: queue 0 walks 2..4,
    # queue 1 4..6, then queue 0 the third line 6..8; latency 2 + 2: 12 a pass, 24 for both.
    result = window_grid(*_tile(np.ones((2, 3), np.uint8)), np.array([8]), 1, np.array([0]), 0, ARRAY)[0, 0, 0]
    assert result[0] == min(14 + 5, 24)
    assert result[[6, 7, 8, 11, 12, 13, 14]].tolist() == [1, 16, 24, 6, 48, 42, 6]


def test_gathered_folds_by_hand():
    # 2 rows x 2 PEs, bus of 4 words, 2 banks with words of 2 pixels, T = 5, overlapped.
    # Fold 1: columns 0..2 (row 0 takes 0 and 2, row 1 column 1); column 3 would be row 0's third. Columns 0 and 2 in
    # bank 0: as many as a word has pixels, no stretch. Fold 2: column 3.
    bits = np.array([[1, 0, 1, 1], [0, 1, 0, 0]], np.uint8)
    array = GatherArray(2, 2, 4, 2, 2, True)
    cell = dict(zip(GATHER_FIELDS, gather_grid(*_tile(bits), np.array([5]), array)[0, 0, 0].tolist(), strict=True))
    # Decode 2 (row 0), two intervals of 5, fill and drain 2*2 - 2, one column in the last fold.
    assert cell["cycles"] == 2 + 2 * 5 + 2 + 1
    assert (cell["folds"], cell["conflict_cycles"], cell["selected"], cell["macs"]) == (2, 0, 4, 20)
    # Words: fold 1 has two busy rows and three columns, fold 2 one row and one column; the bus passes both rows.
    assert (cell["a_words"], cell["b_words"], cell["bus_words"]) == (15, 20, 40)


def test_bank_conflicts_stretch_the_stream():
    # Columns 0, 2 and 4 lie in bank 0 of 2; a bank word has 2 pixels: 3 accesses for every 2 of the 6 pixels.
    bits = np.array([[1, 0, 1, 0, 1]], np.uint8)
    array = GatherArray(2, 4, 4, 2, 2, True)
    cell = dict(zip(GATHER_FIELDS, gather_grid(*_tile(bits), np.array([6]), array)[0, 0, 0].tolist(), strict=True))
    assert cell["conflict_cycles"] == 3
    assert cell["cycles"] == 3 + 9 + 2 + 3


@pytest.mark.parametrize("overlap", [False, True])
def test_the_union_of_held_rows_by_hand(overlap):
    # 2 pixels x 2 rows held; T = 5 makes 3 pixel blocks. Rows 0 and 2 are live: one block; columns 0, 1, 3 stream.
    bits = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], np.uint8)
    result = union_grid(*_tile(bits), np.array([5]), 2, 2, overlap)[0, 0, 0]
    cell = dict(zip(UNION_FIELDS, result.tolist(), strict=True))
    assert cell["cycles"] == (3 * 3 + 2 * 2 - 2 + 2 if overlap else 3 * (3 + 2 * 2 - 2 + 2))
    assert (cell["a_words"], cell["b_words"], cell["mac_slots"], cell["macs"]) == (10, 15, 30, 15)
    assert (cell["updates"], cell["selected"]) == (9, 3)


@pytest.mark.parametrize("dataflow", SELECTIVE)
def test_a_full_mask_equals_dense(edge, dataflow):
    """In everything: a mask that selects every element is taken as none."""
    dims = Conv(1, 32, 14, 14, 48, 3, 3, padding=(1, 1))
    step = layer_step(dims, np.ones((48, 32, 3, 3), bool), ("grad_weight",))
    dense, run = simulate(step, edge), simulate(step, edge, dataflow)
    assert run.cycles[0] == dense.cycles[0]
    np.testing.assert_array_equal(run.lowered.counts, dense.lowered.counts)


@pytest.mark.parametrize("dataflow", OUTPUT_STATIONARY)
def test_a_full_tile_costs_what_a_dense_tile_costs(edge, dataflow):
    """Below full masks too: a tile of which everything is selected takes the cycles of a dense tile."""
    axes = [np.full((1, 1, 1, 1), n, np.int64) for n in (1, 40, 9, 50)]
    dense = load_dataflow("dense-os").cost(TileGrid(TAPS, *axes, 9, 16, 16), edge).cycles.item()
    assert _cycles(dataflow, np.ones((40, 81)), 50, 9, edge) == dense


# Share by which fewer selected elements may cost more cycles. Zero where work is a count of live rows or columns.
# Gathered folds are cut greedily and queues are filled first come, first served: less work can end in a worse packing
# (as in Graham's scheduling anomalies), by a line or a fold. A dead row can also shift which rows make a block of F.
ANOMALY = {
    "element-gather": 0.05,
    "reduction-spatial": 0.01,
    "reduction-window": 0.01,
}


@pytest.mark.parametrize("dataflow", [name for name in SELECTIVE if name != "hybrid"])
def test_cycles_fall_with_the_mask(edge, dataflow):
    rng = np.random.default_rng(3)
    order = rng.random((64, 90))
    former = None
    for density in np.linspace(1, 0, 21):
        cycles = _cycles(dataflow, order < density, 100, 9, edge)
        if former is not None:
            assert cycles <= former * (1 + ANOMALY.get(dataflow, 0))
        former = cycles
    assert former == 0


def test_unstructured_masks_save_nothing_on_output_stationary_tiles(edge):
    # P(a row of 16 columns, or a column of 16 rows, is dead at d = 0.5) = 2^-16; 4 x 24 such rows and columns in all.
    bits = np.random.default_rng(0).random((64, 96)) < 0.5
    dense = _cycles("selective-row", np.ones((64, 96)), 64, 1, edge)
    for dataflow in ("selective-row", "channel-skipping", "column-set"):
        assert _cycles(dataflow, bits, 64, 1, edge) == dense


def test_shared_column_sets_take_their_share_of_the_folds(edge):
    # 64 of 256 columns, the same for all 16 rows of a block: 4 folds in place of 16, T = 100 each, fill and drain 46.
    columns = np.random.default_rng(0).permuted(np.repeat([[True] + [False] * 3], 64, axis=0), axis=1).reshape(1, -1)
    bits = np.repeat(columns, 32, axis=0)
    assert _cycles("column-set", bits, 100, 1, edge) == 2 * 4 * 100 + 46
    assert _cycles("column-set", np.ones((32, 256)), 100, 1, edge) == 2 * 16 * 100 + 46


def test_the_window_array_comes_close_to_its_share(edge):
    """One element of four, 3x3 kernels, T = 784: at least 85 % of 1/d in array cycles, reduction-spatial below 75 %."""
    dims = Conv(1, 64, 28, 28, 64, 3, 3, padding=(1, 1))
    mask = np.random.default_rng(1).random((64, 64, 3, 3)) < 0.16
    step = layer_step(dims, mask, ("grad_weight",))
    dense = simulate(step, edge).array_cycles[0]
    gain = {
        name: dense / simulate(step, edge, name).array_cycles[0] for name in ("reduction-spatial", "reduction-window")
    }
    assert gain["reduction-window"] > 0.85 / 0.16
    assert gain["reduction-spatial"] < 0.75 / 0.16


def test_hybrid_takes_the_fastest_for_each_layer(edge):
    rng = np.random.default_rng(5)
    dims = Conv(1, 32, 14, 14, 32, 3, 3, padding=(1, 1))
    mask = np.repeat(rng.random((2, 32 * 9)) < 0.2, 16, axis=0).reshape(32, 32, 3, 3)
    step = layer_step(dims, mask, ("grad_weight",))
    choices = load_dataflow("hybrid").choices
    best = min(simulate(step, edge, name).cycles[0] for name in choices)
    assert simulate(step, edge, "hybrid").cycles[0] == best


@pytest.mark.parametrize("dataflow", SELECTIVE)
def test_engines_agree(edge, dataflow):
    rng = np.random.default_rng(6)
    dims = Conv(2, 12, 9, 9, 20, 3, 3, padding=(1, 1))
    step = layer_step(dims, rng.random((20, 12, 3, 3)) < 0.2)
    fast, slow = simulate(step, edge, dataflow), simulate(step, edge, dataflow, engine_name="simpy")
    np.testing.assert_array_equal(fast.schedule.end, slow.schedule.end)


def test_packed_kernels_by_hand(edge):
    # Two channels of 3x3 kernels, selected for rows 0..15 and for rows 16..31. Folds of 9 columns: one
    # per channel, T = 50 each, fill and drain 2*16 - 2 + 9. Dense: two row blocks by two column blocks, the last 2.
    bits = np.zeros((32, 18), bool)
    bits[:16, :9] = bits[16:, 9:] = True
    assert _cycles("kernel-packed", bits, 50, 9, edge) == 2 * 50 + 30 + 9
    assert _cycles("kernel-packed", np.ones((32, 18)), 50, 9, edge) == 4 * 50 + 30 + 2


def test_without_dy_registers_there_is_no_window_but_a_hybrid(edge):
    hw = edge.replace({"array.pe_registers": 0})
    dims = Conv(1, 12, 9, 9, 20, 3, 3, padding=(1, 1))
    step = layer_step(dims, np.random.default_rng(6).random((20, 12, 3, 3)) < 0.2, ("grad_weight",))
    with pytest.raises(ConfigError, match="reduction-window keeps dY in PE registers"):
        simulate(step, hw, "reduction-window")
    assert simulate(step, hw, "hybrid").lowered.plans[0].dataflow in ("dense-os", "column-set", "ws-selective")
