"""Variants of methods, against arithmetic by hand: wide operands, dilation, growth, blocks of branches, spikes."""

from dataclasses import replace

import pytest
from method_nets import machine, macs, plain, small, workload

from npusim import catalogue, method, rewrite
from npusim.errors import NpusimError
from npusim.graph import Conv, Op, StepGraph, Tensor
from npusim.mapping import _kernels, lower
from npusim.mapping.problem import problems
from npusim.mapping.tiling import Tiling
from npusim.method import MisfitError
from npusim.method_runs import compare_methods, machine_of, simulate_plan
from npusim.methods import _width
from npusim.program import COMPUTE
from npusim.simulation import simulate
from npusim.synthesis import from_layers


def one_product():
    """16 outputs x 32 inputs x 64 pixels."""
    tensors = {
        "x": Tensor("x", (1, 32, 8, 8), "activation"),
        "w": Tensor("w", (16, 32, 1, 1), "weight"),
        "y": Tensor("y", (1, 16, 8, 8), "activation"),
    }
    op = Op("conv", "forward", "conv", Conv(1, 32, 8, 8, 16), ("x", "w"), ("y",), "w")
    return StepGraph("one", (op,), tensors)


@pytest.mark.parametrize(
    ("activation", "weight", "passes"), [(8, 8, 1), (16, 8, 2), (8, 16, 2), (16, 16, 4), (12, 12, 4), (32, 8, 4)]
)
def test_operands_wider_than_the_multiplier(activation, weight, passes):
    """An 8-bit multiplier takes ceil(a/8) * ceil(w/8) passes, here of one tile; every pass reads its pieces."""
    wide = machine("mcu-8x8").replace({
        "precision.activation_bits": activation, "precision.weight_bits": weight, "precision.multiplier_bits": 8,
        **{f"buffers.{name}.bytes_per_cycle": 4096 for name in ("a", "b", "accumulator")},
    })  # fmt: skip
    native = wide.replace({"precision.multiplier_bits": 0})
    (problem,), dataflow = problems(one_product().ops[0]), catalogue.load_dataflow("dense-os")
    tile = Tiling(1, 16, 32, 1, 8, 8, False)
    one, many = (lower._map(problem, tile, dataflow, hw, None) for hw in (native, wide))
    busy = [
        int(mapped.tasks[mapped.tasks[:, _kernels.KIND] == COMPUTE, _kernels.CYCLES].sum()) for mapped in (one, many)
    ]
    assert busy[1] == passes * busy[0]
    assert many.counts["macs_done"] == one.counts["macs_done"] == 16 * 32 * 64
    assert many.counts["mac_passes"] == (passes - 1) * 16 * 32 * 64
    assert many.counts["a_read_bytes"] == -(-activation // 8) * one.counts["a_read_bytes"]
    assert many.counts["b_read_bytes"] == -(-weight // 8) * one.counts["b_read_bytes"]
    assert many.port_stall_cycles == 0


def test_a_narrow_array_pays_for_wide_steps():
    """MuPPET at 16 bits on an 8-bit array takes longer than at 8; narrow steps and the machine's own width one pass."""
    cycles = {}
    for width in (8, 12, 16):
        epochs = {f"e{w}": int(w == width) for w in (8, 12, 14, 16, 32)}
        plan = method.apply("muppet", small(), **epochs)
        cycles[width] = simulate_plan(plan, machine("mcu-8x8")).runs[0].array_cycles.sum()
        assert machine_of(plan.parts[0], machine("mcu-8x8")).precision.operand_bits == 8
    assert cycles[8] < cycles[12] <= cycles[16] and 2.5 < cycles[16] / cycles[8] < 4.5


def dilated(dilation):
    layers = [
        {"name": "image", "kind": "input", "shape": (1, 4, 16, 16)},
        {"name": "first", "kind": "conv", "out": 8, "kernel": 1},
        {"name": "conv", "kind": "conv", "out": 16, "kernel": 3, "padding": dilation, "dilation": dilation},
        {"name": "pool", "kind": "pool", "size": 1},
        {"name": "flatten", "kind": "flatten"},
        {"name": "fc", "kind": "linear", "out": 10},
    ]
    return from_layers(layers, "dilated")


@pytest.mark.parametrize(("dilation", "r", "step"), [(4, 2, 2), (2, 2, 1), (5, 2, 2), (4, 4, 1)])
def test_dilated_gradient_filtering(dilation, r, step):
    """Dilation of r or more: W keeps its 3x3 taps at distance floor(dilation / r); 9 * 8 * 16 MACs per patch."""
    graph = method.apply("gradient-filtering", dilated(dilation), r=r, layers=0).parts[0].graph
    (op,) = [op for op in graph.phase("grad_input") if op.name == "conv"]
    assert rewrite.dims_of(op).dilation == rewrite.dims_of(op).padding == (step, step)
    patches = (16 // r) ** 2
    assert (rewrite.dims_of(op).p, op.macs) == (16 // r, 9 * 8 * 16 * patches)
    assert not [op for op in graph.ops if op.name == "conv.sum_taps"]
    assert sum(op.macs for op in graph.phase("grad_weight") if op.name == "conv") == 8 * 16 * patches


@pytest.mark.parametrize(("dilation", "r"), [(1, 2), (2, 4)])
def test_small_dilation_is_filtered_as_none(dilation, r):
    graph = method.apply("gradient-filtering", dilated(dilation), r=r, layers=0).parts[0].graph
    (op,) = [op for op in graph.phase("grad_input") if op.name == "conv"]
    assert op.macs == 8 * 16 * (16 // r) ** 2


def test_growth_is_the_wider_network():
    """Widened by 1.5, a network has the operations and tensors of the one that is built so."""

    def net(width):
        layers = [
            {"name": "image", "kind": "input", "shape": (2, 3, 8, 8)},
            {"name": "conv1", "kind": "conv", "out": 4 * width, "kernel": 3, "padding": 1},
            {"name": "bn1", "kind": "batch_norm"},
            {"name": "relu1", "kind": "activation"},
            {
                "name": "depth",
                "kind": "conv",
                "out": 4 * width,
                "kernel": 3,
                "padding": 1,
                "groups": 4 * width,
            },
            {"name": "conv2", "kind": "conv", "out": 4 * width, "kernel": 3, "padding": 1, "bias": True},
            {"name": "add", "kind": "add", "inputs": ["conv2", "relu1"]},
            {"name": "pool", "kind": "pool", "size": 2},
            {"name": "flatten", "kind": "flatten"},
            {"name": "fc", "kind": "linear", "out": 10, "bias": True},
        ]
        return from_layers(layers, "net", "adam")

    assert _width.widened(net(2), 1.5, "cpg").digest() == net(3).digest()
    plan = method.apply("cpg", net(2), free=1.0, passes=1, width=1.5)
    assert macs(plan.parts[0].graph) == macs(net(3))


def test_growth_says_what_it_cannot_widen():
    masked = method.apply("packnet", small(), skip=1)
    with pytest.raises(MisfitError, match="start from a dense step"):
        method.apply("cpg", masked, width=1.5)
    with pytest.raises(NpusimError, match=r"width = 1\.6; a number in 1\.\.1\.5 is needed"):
        method.apply("cpg", small(), width=1.6)


def test_block_of_branches_by_hand():
    """DBB of conv2 (8 -> 16 channels, 3x3, stride 2, 16x16 -> 8x8 pixels), F, E and G each:

    3x3 73728; 1x1 with stride 8*16*64 = 8192; 1x1 then 3x3 8*8*256 + 73728; 1x1 then pooling 8*16*256 = 32768.
    """
    branches = 73728 + 8192 + (16384 + 73728) + 32768
    graph = method.apply("orepa", small(), space="activation").parts[0].graph
    graph.verify()
    for phase in ("forward", "grad_input", "grad_weight"):
        assert sum(op.macs for op in graph.phase(phase) if op.name.startswith("conv2.")) == branches
    norms = [op for op in graph.phase("grad_input") if op.kind == "batch_norm" and op.name.startswith("conv2.")]
    assert len(norms) == 6
    trained = {op.param for op in graph.phase("update")}
    assert {
        "conv2.weight",
        "conv2.point.weight",
        "conv2.reduce.weight",
        "conv2.deep.weight",
        "conv2.mean.weight",
    } <= trained
    assert "depth.origin.weight" not in trained  # grouped: as it was


def test_squeezed_blocks_cost_less_where_pixels_outnumber_weights():
    """OREPA against DBB at batch 16: less time and less memory; the plain network has the least of both."""
    from npusim.trace.reshape import reshape

    graph = reshape(small(), batch=16)
    names = ["orepa", "orepa:space=activation"]
    plain_run, orepa, dbb = compare_methods(graph, machine(), names).runs
    assert plain_run.step["cycles"] < orepa.step["cycles"] < dbb.step["cycles"]
    assert plain_run.memory.training_bytes <= orepa.memory.training_bytes < dbb.memory.training_bytes


def test_spikes_shorten_products_where_cores_gather():
    """A fifth of inputs fire: inner layers' F and G shrink to ceil(c / 5) channels; E, stem and classifier stay."""
    graph, cores = small(), machine("ipu-gc200")
    dense = macs(graph)
    made = macs(method.apply("snntorch-ipu", graph, None, cores, T=1, spikes=0.2).parts[0].graph)
    inner = (8 * 8 * 9 * 256, 16 * 8 * 9 * 64)
    assert dense["forward"] - made["forward"] == sum(f - f * 2 // 8 for f in inner)
    assert dense["grad_weight"] - made["grad_weight"] == sum(f - f * 2 // 8 for f in inner)
    assert made["grad_input"] == dense["grad_input"]
    plans = (method.apply("snntorch-ipu", workload("resnet18"), None, cores, T=2, spikes=s) for s in (1.0, 0.2))
    slow, quick = (simulate_plan(plan, cores).step["cycles"] for plan in plans)
    assert quick < slow
    with pytest.raises(MisfitError, match=r"machine 'edge-16x16': with spikes = 0\.2 .* array\.gather is false"):
        method.apply("snntorch-ipu", graph, None, machine(), spikes=0.2)
    with pytest.raises(MisfitError, match="no ungrouped inner layer reads spikes"):
        method.apply("snntorch-ipu", plain(), None, cores, spikes=0.2)


def test_the_many_core_preset_is_the_chip():
    """1472 cores x 64 MACs x 2 operations at 1.33 GHz are 250 TFLOPS; 136 KiB of each core are working memory."""
    cores = machine("ipu-gc200")
    assert cores.peak_macs_per_cycle == 1472 * 64
    assert 2 * cores.peak_macs_per_cycle * cores.clock_hz == pytest.approx(250e12, rel=0.005)
    assert cores.sram_bytes == 1472 * 136 * 1024
    assert replace(simulate(small(), cores)).schedule.cycles > 0
