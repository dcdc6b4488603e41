"""Grouped and depthwise convolutions under masks: tiles by hand, and what must hold for every mask and dataflow."""

from __future__ import annotations

import numpy as np
import pytest
from examples import layer_step, random_conv, random_mask

from npusim import npu
from npusim.catalogue import load_dataflow
from npusim.dataflow import MaskGrid, TileGrid
from npusim.gather_kernels import GATHER_FIELDS, UNION_FIELDS, GatherArray, gather_grid, union_grid
from npusim.graph import TAPS, Conv, Op
from npusim.mapping.candidates import largest_selection
from npusim.mapping.problem import problems
from npusim.masks import Mask
from npusim.reduction_kernels import (
    FOLD_FIELDS,
    REDUCTION_FIELDS,
    ReductionArray,
    channel_compaction_grid,
    reduction_grid,
    row_compaction_grid,
)
from npusim.simulation import simulate
from npusim.wgc_kernels import live_lines

PACKING = ("selective-row", "kernel-packed", "channel-skipping", "column-set")
SELECTIVE = (*PACKING, "element-gather", "ws-selective", "reduction-spatial", "reduction-window", "hybrid")
# Four channels of a depthwise layer with three taps.
DEPTHWISE = np.array([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], np.uint8)


@pytest.fixture(scope="module")
def edge():
    return npu.load("edge-16x16")


def _whole(bits):
    zero = np.zeros(1, np.int64)
    return bits, zero, zero + bits.shape[0], zero, zero + bits.shape[1]


def _named(names, cells):
    return dict(zip(names, cells[0, 0, 0].tolist(), strict=True))


def test_rows_are_packed_group_by_group():
    # 2 x 2 PEs, T = 5. Per channel two column blocks (2 and 1 wide), one row each; channel 1 is dead, and so is the
    # second block of channel 3: folds of 2 and 1 columns (channel 0), 2 and 1 (channel 2), 2 (channel 3).
    cell = _named(FOLD_FIELDS, row_compaction_grid(*_whole(DEPTHWISE), np.array([5]), 2, 2, 1))
    assert (cell["folds"], cell["sum_rows"], cell["sum_columns"]) == (5, 5, 2 + 1 + 2 + 1 + 2)
    assert (cell["mac_slots"], cell["macs"], cell["idle_slots"]) == (8 * 5, 6 * 5, 0)


def test_columns_of_several_groups_are_packed_together():
    # Blocks of 2 rows. Channels 0 and 1: columns 0 and 2 of channel 0, one fold of 2 x 2 of which row 1 wants nothing.
    # Channels 2 and 3: 3 + 1 columns in two folds. Every column meets two rows, one of them its own.
    cell = _named(FOLD_FIELDS, channel_compaction_grid(*_whole(DEPTHWISE), np.array([5]), 2, 2, 1, 1))
    assert (cell["folds"], cell["sum_rows"], cell["sum_columns"]) == (3, 6, 6)
    assert (cell["mac_slots"], cell["macs"], cell["idle_slots"]) == (6 * 5, 6 * 5, 6 * 5)


def test_rows_of_several_groups_gather_from_one_bus():
    # 4 rows x 2 PEs, bus of 4 words: channels 0, 2, 3 are live. Positions in order: channel 0 taps 0, 2; channel 2 taps
    # 0, 1; then its tap 2 does not fit row 2 (two PEs): second fold with tap 2 and channel 3's tap 1.
    array = GatherArray(4, 2, 4, 1, 8, True)
    cell = _named(GATHER_FIELDS, gather_grid(*_whole(DEPTHWISE), np.array([6]), array, 1))
    assert (cell["folds"], cell["selected"], cell["b_words"], cell["a_words"]) == (2, 6, 6 * 6, (2 + 2) * 6)
    assert cell["cycles"] == 2 + 2 * 6 + 2 * 4 - 2 + 1


def test_held_rows_of_several_groups():
    # 2 rows x 4 columns: dY of channels 0, 2, 3 is held, 2 pixels at a time; 2 + 3 + 1 columns stream.
    cell = _named(UNION_FIELDS, union_grid(*_whole(DEPTHWISE), np.array([4]), 2, 4, False, 1))
    assert cell["cycles"] == 2 * (6 + 2 * 2 - 2 + 3)
    assert (cell["mac_slots"], cell["macs"], cell["idle_slots"]) == (6 * 4, 6 * 4, 6 * 3 * 4 - 6 * 4)


def test_a_reduction_pass_over_several_groups():
    # One tree over 4 PEs twice, 4 dY registers, T = 4: channels 0, 2, 3 in one block, preload 3*4/4 = 3.
    # Six live columns, each met by one row: three batches of two, loads 2*4/2 = 4 each, walks of 1.
    array = ReductionArray(4, 2, 4, 1, 4, 2)
    cell = _named(REDUCTION_FIELDS, reduction_grid(*_whole(DEPTHWISE), np.array([4]), array, 1))
    assert cell["cycles"] == 3 + 4 + max(1, 4) + max(1, 4) + 1 + (2 + 2)
    assert (cell["passes"], cell["x_words"], cell["dy_words"], cell["mask_bits"]) == (1, 6 * 4, 3 * 4, 6)


def test_lines_of_several_groups():
    # Blocks of 2 live rows: channel 0, then channels 2 and 3 (rows are dealt out evenly, 1 and 2). Two lines a channel.
    tile = live_lines(DEPTHWISE, 0, 4, 0, 3, 3, np.array([0, 0, 1]), 2, 1)
    assert tile.work.tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 2, 1, 1, 0]]
    assert tile.members.tolist() == [[1, 0, 0, 0], [0, 0, 1, 1]]
    assert tile.bounds.tolist() == [[0, 2], [4, 8]]


def _cost(dataflow, bits, groups, terms, taps, hw):
    """Cost of one tile of all groups; `bits` [K, C/G*taps]."""
    rows, columns = bits.shape[0] // groups, bits.shape[1] // taps
    axes = [np.full((1, 1, 1, 1), n, np.int64) for n in (groups, rows, columns, terms)]
    mask = MaskGrid(*_whole(np.ascontiguousarray(bits, np.uint8)), rows)
    return load_dataflow(dataflow).cost(TileGrid(TAPS, *axes, taps, 16, 16, mask), hw)


@pytest.mark.parametrize("groups, rows, channels", [(32, 1, 1), (8, 4, 3), (3, 20, 2)])
@pytest.mark.parametrize("dataflow", PACKING)
def test_a_full_tile_costs_no_more_than_a_dense_tile(edge, dataflow, groups, rows, channels):
    """Rows are packed group by group, as dense folds are; columns of several groups can only save folds."""
    bits = np.ones((groups * rows, channels * 9))
    axes = [np.full((1, 1, 1, 1), n, np.int64) for n in (groups, rows, channels, 50)]
    dense = load_dataflow("dense-os").cost(TileGrid(TAPS, *axes, 9, 16, 16), edge)
    cost = _cost(dataflow, bits, groups, 50, 9, edge)
    assert cost.macs_done.item() == dense.macs_done.item()
    if dataflow in ("selective-row", "kernel-packed"):
        assert cost.cycles.item() == dense.cycles.item()
        assert (cost.a_words.item(), cost.b_words.item()) == (dense.a_words.item(), dense.b_words.item())
    else:
        assert cost.cycles.item() <= dense.cycles.item()


@pytest.mark.parametrize("groups, rows, channels", [(40, 1, 1), (6, 5, 2)])
@pytest.mark.parametrize("dataflow", SELECTIVE[:-1])
def test_cycles_fall_with_the_mask(edge, dataflow, groups, rows, channels):
    # Greedy folds, queues and blocks of live rows may get worse by a fold (T = 100) or some lines, as for one group.
    slack = {"element-gather": 100, "reduction-spatial": 10, "reduction-window": 10}.get(dataflow, 0)
    order = np.random.default_rng(3).random((groups * rows, channels * 9))
    former = None
    for density in np.linspace(1, 0, 15):
        cycles = _cost(dataflow, order < density, groups, 100, 9, edge).cycles.item()
        assert former is None or cycles <= former + slack
        former = cycles
    assert former == 0


@pytest.mark.parametrize("dataflow", SELECTIVE)
def test_laws_of_whole_operations(edge, dataflow):
    rng = np.random.default_rng(SELECTIVE.index(dataflow))
    for _ in range(4):
        dims = random_conv(rng)
        mask = random_mask(rng, dims)
        mask.reshape(-1)[0] = not mask.all()
        step = layer_step(dims, mask, ("grad_weight",))
        run, dense = simulate(step, edge, dataflow), simulate(step, edge)
        done, gated, skipped = (int(run.count(f"macs_{name}")[0]) for name in ("done", "gated", "skipped"))
        selective = load_dataflow(run.lowered.plans[0].dataflow).selective  # hybrid may take a dense one
        assert (done + gated + skipped, done) == (dims.macs, mask.sum() * dims.t if selective else dims.macs)
        assert min(gated, skipped) >= 0
        assert run.count("dram_write_bytes")[0] <= dense.count("dram_write_bytes")[0]
        full = simulate(layer_step(dims, np.ones_like(mask), ("grad_weight",)), edge, dataflow)
        np.testing.assert_array_equal(full.lowered.counts, dense.lowered.counts)
        assert full.cycles[0] == dense.cycles[0]


@pytest.mark.parametrize("dataflow", SELECTIVE)
def test_engines_agree(edge, dataflow):
    dims = Conv(1, 40, 9, 9, 40, 3, 3, padding=(1, 1), groups=40)
    step = layer_step(dims, random_mask(np.random.default_rng(6), dims, 0.2), ("grad_weight",))
    fast, slow = simulate(step, edge, dataflow), simulate(step, edge, dataflow, engine_name="simpy")
    np.testing.assert_array_equal(fast.schedule.end, slow.schedule.end)


def test_depthwise_layers_gain_by_order_of_what_their_mechanism_can_join(edge):
    """Dead channels only (rows packed), columns of several channels, and pixels on the PEs; 3x3, d = 0.16, T = 784."""
    dims = Conv(1, 192, 28, 28, 192, 3, 3, padding=(1, 1), groups=192)
    step = layer_step(dims, random_mask(np.random.default_rng(1), dims, 0.16), ("grad_weight",))
    dense = simulate(step, edge).array_cycles[0]
    flows = ("selective-row", "column-set", "element-gather", "reduction-window")
    gain = [dense / simulate(step, edge, name).array_cycles[0] for name in flows]
    # A channel is dead with probability 0.84^9 = 0.21.
    assert 1.15 < gain[0] < 1.35 < gain[1] < gain[2] < gain[3]


def test_the_fullest_tile_of_a_grouped_mask():
    (problem,) = problems(Op("layer", "grad_weight", "conv", Conv(1, 4, 5, 5, 8, 3, 3, groups=4)))
    bits = np.random.default_rng(2).random((8, 1, 3, 3)) < 0.4
    per_row = bits.reshape(8, -1).sum(axis=1)
    axes = [np.array(column) for column in ((1, 1, 2, 3, 4), (1, 2, 2, 2, 2), (1, 1, 1, 1, 1))]
    found = largest_selection(problem, Mask.of(bits), 0, *axes)
    by_group = per_row.reshape(4, 2).sum(axis=1)
    three = max(by_group[:3].sum(), by_group[3])
    assert found.tolist() == [
        per_row.max(),
        by_group.max(),
        by_group.reshape(2, 2).sum(axis=1).max(),
        three,
        bits.sum(),
    ]
    # Tiles within the slot are taken as full.
    assert largest_selection(problem, Mask.of(bits), 18, *axes).tolist()[:2] == [9, 18]
