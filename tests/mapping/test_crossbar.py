"""Crossbars: how weights lie in cells, cycles and counts of reads and re-programming, against arithmetic by hand."""

from dataclasses import replace

import numpy as np
import pytest

from npusim import npu
from npusim.crossbars import matrix
from npusim.errors import CapacityError, ConfigError
from npusim.graph import Conv, Op, StepGraph, Tensor
from npusim.mapping import crossbar
from npusim.mapping.problem import problems
from npusim.masks import Mask
from npusim.simulation import simulate
from npusim.synthesis import from_layers

MACHINE = npu.load("reram-128x128")


def net(channels=64):
    layers = [
        {"name": "image", "kind": "input", "shape": (2, channels, 8, 8)},
        {"name": "conv1", "kind": "conv", "out": 40, "kernel": 3, "padding": 1},
        {"name": "relu", "kind": "activation"},
        {"name": "conv2", "kind": "conv", "out": 24, "kernel": 3, "padding": 1, "stride": 2},
        {"name": "flatten", "kind": "flatten"},
        {"name": "fc", "kind": "linear", "out": 10},
    ]
    return from_layers(layers, "net")


def forward(dims):
    """One convolution alone."""
    x, w, y = (
        (dims.n, dims.c, dims.h, dims.w),
        (dims.k, dims.c // dims.groups, dims.r, dims.s),
        (dims.n, dims.k, dims.p, dims.q),
    )
    tensors = {"x": Tensor("x", x, "activation"), "w": Tensor("w", w, "weight"), "y": Tensor("y", y, "activation")}
    return StepGraph("one", (Op("conv", "forward", "conv", dims, ("x", "w"), ("y",), "w"),), tensors)


@pytest.mark.parametrize(
    ("groups", "length", "outputs", "crossbars"),
    [
        (1, 128, 32, 1),  # 8-bit weights take 4 columns of 2-bit cells: 32 weights per crossbar
        (1, 129, 32, 2),
        (1, 128, 33, 2),
        (1, 576, 64, 5 * 2),
        (96, 9, 1, 7),  # depthwise: min(128 // 9, 32 // 1) = 14 on a diagonal
        (2, 128, 32, 2),
    ],
)
def test_crossbars_of_a_matrix(groups, length, outputs, crossbars):
    lies = matrix(groups, length, outputs, 8, MACHINE.crossbar)
    assert (lies.slices, lies.crossbars, lies.cells) == (4, crossbars, groups * length * outputs * 4)


def test_reads_by_hand():
    """3x3x64 -> 40 channels on 8x8 pixels: 576 rows = 5 row blocks, 160 columns = 2 column blocks (32 + 8 weights).

    8 input bits are 8 reads of max(100 ns, 128 samples / 1.28 GS/s = 100 ns) = 80 cycles each, one more conversion
    behind: 64 vectors take 64 * 640 + 80 cycles. Cells sensed 576*160, rows driven 576*2, samples 5*160 per read.
    """
    run = simulate(forward(Conv(1, 64, 8, 8, 40, 3, 3, padding=(1, 1))), MACHINE)
    assert run.array_cycles.tolist() == [64 * 640 + 80]
    reads = 64 * 8
    found = {
        name: int(run.count(name)[0])
        for name in ("cell_reads", "dac_drives", "adc_samples", "shift_adds", "cell_writes")
    }
    assert found == {
        "cell_reads": reads * 576 * 160, "dac_drives": reads * 576 * 2, "adc_samples": reads * 5 * 160,
        "shift_adds": reads * 5 * 160, "cell_writes": 0,
    }  # fmt: skip
    assert run.count("macs_crossbar")[0] == 64 * 576 * 40
    assert run.count("macs_done")[0] == 0
    assert run.lowered.plans[0].dataflow == "crossbar"


def test_more_converters_do_not_beat_the_cells():
    """Two converters halve the 80 cycles of conversion, but a read takes 80 by itself; fewer input bits do pay off."""
    graph = forward(Conv(1, 64, 8, 8, 40, 3, 3, padding=(1, 1)))
    assert simulate(graph, MACHINE.replace({"crossbar.adcs": 2})).array_cycles[0] == 64 * 640 + 40
    quick = MACHINE.replace({"crossbar.adcs": 2, "crossbar.read_ns": 50})
    assert simulate(graph, quick).array_cycles[0] == 64 * 320 + 40
    assert simulate(graph, MACHINE.replace({"precision.activation_bits": 4})).array_cycles[0] == 64 * 320 + 80


def test_reprogramming_by_hand():
    """fc: 384 rows x 10 weights = 3 crossbars of 128 rows, all in one PE: 384 rows of 8 pulses of 50 ns = 320 cycles.

    Its copy for the backward pass: 10 rows, 384 weights over 12 crossbars: 120 row writes.
    """
    graph = net()
    run = simulate(graph, MACHINE)
    index = next(i for i, op in enumerate(graph.ops) if op.label == "fc:update")
    assert run.count("cell_writes")[index] == 2 * 3840 * 4
    assert run.array_cycles[index] == (384 + 120) * 320
    assert run.energy.pj[index, run.energy.components.index("cell_write")] == pytest.approx(2 * 3840 * 4 * 40)
    alone = simulate(graph, MACHINE.replace({"crossbar.crossbars_per_pe": 1}))
    assert alone.array_cycles[index] == (128 + 10) * 320


def test_only_what_is_written_is_programmed():
    """A frozen first layer costs no cell write, and as no error reaches it, the second has no copy for one."""
    from npusim import rewrite

    graph = net()
    wanted = set(rewrite.parameters(graph)) - {"conv1.weight"}
    all_cells, fewer = (simulate(g, MACHINE).count("cell_writes").sum() for g in (graph, rewrite.keep(graph, wanted)))
    assert all_cells - fewer == 576 * 40 * 4 + 360 * 24 * 4


@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("stride", [1, 2])
def test_rows_of_masked_weights_against_counting(groups, stride):
    """Rows and cells that a mask touches, counted weight by weight in forward and transposed crossbars."""
    dims = Conv(1, 40, 9, 9, 48, 3, 3, (stride, stride), (1, 1), groups=groups)
    rng = np.random.default_rng(0)
    bits = rng.random((48, 40 // groups, 3, 3)) < 0.02
    rows_wide, per_group = 128, (48 // groups, 40 // groups)
    for phase in ("forward", "grad_input"):
        op = Op("conv", phase, "conv", dims, ("x", "w"), ("y",), "w")
        for held in crossbar._held(op, MACHINE):
            touched, cells = set(), 0
            taps = [
                (r, s)
                for r in (held.taps[0] if held.taps else range(3))
                for s in (held.taps[1] if held.taps else range(3))
            ]
            for k, c, r, s in np.argwhere(bits):
                if (r, s) not in taps:
                    continue
                group, inner, tap = k // per_group[0], k % per_group[0], taps.index((r, s))
                row, column = (c * len(taps) + tap, inner) if phase == "forward" else (inner * len(taps) + tap, c)
                number = (
                    (group, row // rows_wide, column // 32) if held.lies.packed == 1 else (group // held.lies.packed,)
                )
                touched.add((number, group, row))
                cells += 4
            per_crossbar, written = crossbar._masked_rows(held, Mask.of(bits))
            assert (per_crossbar.sum(), written) == (len(touched), cells)
            assert per_crossbar.size == held.lies.crossbars
            everything = crossbar._masked_rows(held, Mask.of(np.ones_like(bits)))
            assert everything[0].tolist() == crossbar._all_rows(held.lies).tolist()
            assert everything[1] == held.lies.cells


def test_backward_copies_hold_every_weight():
    """The residues of a strided layer share its weights out: together as many cells as forward."""
    for dims in (Conv(1, 24, 9, 9, 48, 3, 3, (2, 2), (1, 1)), Conv(1, 24, 8, 8, 48, 3, 3, (1, 1), (1, 1))):
        ops = [Op("conv", phase, "conv", dims, ("x", "w"), ("y",), "w") for phase in ("forward", "grad_input")]
        cells = [sum(held.lies.cells for held in crossbar._held(op, MACHINE)) for op in ops]
        assert cells[0] == cells[1] == dims.weights * 4
        assert len(problems(ops[1])) == dims.stride[0] ** 2


def test_wear():
    """Cells of trained weights are written once a step; ten inferences of a frozen step never write."""
    from npusim import method
    from npusim.method import Part, Plan
    from npusim.method_runs import simulate_plan

    limited = MACHINE.replace({"crossbar.endurance_writes": 1000})
    dense = simulate_plan(method.apply("dense", net()), limited)
    assert (dense.wear()["writes_per_cell"], dense.wear()["steps_to_wear_out"]) == (1, 1000)
    thrice = simulate_plan(method.apply("cpg", net(), free=1.0, passes=3), limited)
    assert (thrice.wear()["writes_per_cell"], thrice.wear()["steps_to_wear_out"]) == (3, 1000 / 3)
    frozen = simulate_plan(Plan((Part(net(), phases=("forward",)),)), limited)
    assert (frozen.wear()["cell_writes"], frozen.wear()["steps_to_wear_out"]) == (0, float("inf"))
    assert simulate_plan(method.apply("dense", net()), npu.load("edge-16x16")).wear() == {}


def test_without_a_copy_errors_run_on_the_digital_array():
    graph = net()
    digital = simulate(graph, MACHINE.replace({"crossbar.backward_copy": False}))
    plans = {p.op.label: p.dataflow for p in digital.lowered.plans}
    assert (plans["conv2:forward"], plans["conv2:grad_input"]) == ("crossbar", "dense-os")
    assert digital.count("cell_writes").sum() < simulate(graph, MACHINE).count("cell_writes").sum()


def test_both_engines_agree():
    graph = net()
    fast, simpy = (simulate(graph, MACHINE, engine_name=name) for name in ("fast", "simpy"))
    assert fast.schedule.end.tolist() == simpy.schedule.end.tolist()
    assert fast.schedule.start.tolist() == simpy.schedule.start.tolist()


def test_a_network_without_room_is_named():
    small = MACHINE.replace({"crossbar.crossbars": 12})
    with pytest.raises(CapacityError, match=r"conv2:forward \(N2 C40 .*\) does not fit: 13 crossbars are needed"):
        simulate(net(), small)
    tight = MACHINE.replace({"buffers.b.bytes": 128, "buffers.b.banks": 1, "buffers.b.bytes_per_cycle": 64})
    with pytest.raises(CapacityError, match=r"conv1:forward .* on crossbars: one output pixel reads \d+ words"):
        simulate(net(), tight)


def test_column_masks_need_crossbars():
    graph = forward(Conv(1, 64, 8, 8, 40, 3, 3, padding=(1, 1)))
    mask = Tensor("m", (1, 40, 5), "mask")
    op = replace(graph.ops[0], inputs=("x", "w", "m"))
    masked = replace(graph, ops=(op,), tensors={**graph.tensors, "m": mask})
    with pytest.raises(ConfigError, match=r"conv:forward masks columns of crossbars \('m'\), which edge-16x16 has not"):
        simulate(masked, npu.load("edge-16x16"))
    plain, scaled = simulate(graph, MACHINE), simulate(masked, MACHINE)
    # 5 row blocks x 40 channels of 64 vectors, and 200 bits through the mask buffer's 8 bytes per cycle.
    assert scaled.count("shift_adds")[0] - plain.count("shift_adds")[0] == 64 * 200
    assert scaled.array_cycles[0] - plain.array_cycles[0] == 4
    assert scaled.count("mask_read_bytes")[0] == 25


@pytest.mark.parametrize(
    ("key", "value"),
    [("rows", 0), ("adcs", 0), ("cell_bits", 17), ("adc_rate_hz", 0), ("write_ns", -1), ("endurance_writes", 0)],
)
def test_mistakes_in_the_section_are_named(key, value):
    with pytest.raises(ConfigError, match=rf"crossbar\.{key} = {value}"):
        MACHINE.replace({f"crossbar.{key}": value})


def test_a_weight_must_fit_a_crossbar():
    with pytest.raises(ConfigError, match=r"crossbar\.cols = 3 cannot hold a weight of 8 bits"):
        MACHINE.replace({"crossbar.cols": 3})
