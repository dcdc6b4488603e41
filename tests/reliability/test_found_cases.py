"""What random cases found once; each stays found."""

import json
import re
from pathlib import Path

import pytest

from npusim import method, npu
from npusim import program as tp
from npusim.errors import ConfigError, TraceError
from npusim.graph import Conv
from npusim.mapping import _kernels
from npusim.method_runs import simulate_plan
from npusim.simulation import simulate
from npusim.synthesis import from_layers


def grouped(groups=2, out=10):
    """A grouped convolution that is not depthwise, between two plain ones."""
    return from_layers(
        [
            {"name": "in", "kind": "input", "shape": (2, 4, 7, 7)},
            {"name": "conv0", "kind": "conv", "out": 8, "kernel": 3},
            {"name": "conv1", "kind": "conv", "out": out, "kernel": 3, "groups": groups, "bias": True},
            {"name": "flat", "kind": "flatten"},
            {"name": "fc", "kind": "linear", "out": 3, "bias": True},
        ],
        "grouped",
    )


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("dynamic-sparse", {"share": 0.25}),
        ("dynamic-sparse", {"share": 0.9}),
        ("mcunetv3", {"scheme": "custom", "biases": 2, "layers": "1", "ratios": "1/2"}),
        ("instance-filtering", {"channels": 0.3}),
    ],
)
@pytest.mark.parametrize("groups", [2, 4])
def test_methods_select_whole_groups_of_a_grouped_convolution(name, parameters, groups):
    graph = grouped(groups, out=12)
    plan = method.apply(name, graph, **parameters)
    for part in plan.parts:
        part.graph.verify()
        for op in part.graph.phase("grad_weight"):
            if op.name == "conv1" and isinstance(op.dims, Conv):
                assert op.dims.c // op.dims.groups == 8 // groups
                assert op.dims.k // op.dims.groups == 12 // groups
    simulate_plan(plan, npu.load("mcu-8x8"))


def test_half_of_the_channels_of_a_grouped_convolution_are_half_of_its_macs():
    dense = grouped(2)
    half = method.apply("dynamic-sparse", dense, share=0.5).parts[0].graph

    def macs(graph):
        return next(op.macs for op in graph.phase("grad_weight") if op.name == "conv1" and op.kind == "conv")

    assert macs(half) * 2 == macs(dense)


@pytest.mark.parametrize("rows, cols", [(5, 1), (1, 3), (3, 2), (1, 1), (7, 1)])
def test_reduction_spatial_on_fewer_pes_than_its_smallest_group(rows, cols):
    from examples import layer_step, random_mask
    from numpy.random import default_rng

    dims = Conv(1, 3, 6, 6, 5, 3, 3)
    hardware = npu.load("mcu-8x8").replace({"array.rows": rows, "array.cols": cols})
    run = simulate(layer_step(dims, random_mask(default_rng(1), dims, 0.4)), hardware, "reduction-spatial")
    assert run.layers.dataflow.iloc[-1] == "reduction-spatial"


def test_bias_only_on_a_step_of_norms_alone():
    graph = from_layers(
        [{"name": "in", "kind": "input", "shape": (2, 3, 4, 4)}, {"name": "bn", "kind": "batch_norm"}], "norms"
    )
    trained = {op.param for op in method.apply("bias-only", graph).parts[0].graph.phase("update")}
    assert trained == {"bn.bias"}


@pytest.mark.parametrize("name", method.names())
@pytest.mark.parametrize(
    "layers", [["batch_norm"], ["activation", "batch_norm"], ["activation"], ["batch_norm", "pool"]]
)
def test_every_method_on_a_step_without_weight_layers(name, layers):
    net = [{"name": "in", "kind": "input", "shape": (2, 3, 4, 4)}]
    graph = from_layers([*net, *({"name": f"{kind}{i}", "kind": kind} for i, kind in enumerate(layers))], "none")
    times = {(op.name, op.phase): 10 for op in graph.ops}
    hardware = npu.load("reram-128x128" if method.load(name).machine else "mcu-8x8")
    try:
        plan = method.apply(name, graph, times, hardware)
    except method.MisfitError as error:
        assert name in str(error) and "layer" in str(error)
        return
    if any(part.step().ops for part in plan.parts):
        simulate_plan(plan, hardware)


@pytest.mark.parametrize("strides", [[0, 1], [1, -1]])
def test_a_tinyengine_stride_of_zero_is_named(tmp_path, strides):
    from npusim.trace import tinyengine
    from reliability.targets import tinyengine_seeds

    ops = json.loads(tinyengine_seeds()[0])
    conv = next(op for op in ops if "strides" in op["attrs"])
    conv["attrs"]["strides"] = strides
    (tmp_path / "graph.json").write_text(json.dumps(ops))
    with pytest.raises(TraceError, match=r"graph\.json: operation \d+ .*strides = "):
        tinyengine.read(tmp_path / "graph.json")


@pytest.mark.parametrize("number", [995, 1202, 1352])
def test_bounds_of_command_level_memory_hold_at_the_end_of_a_step(number):
    """The last operation was charged for commands that the memory issued after the step had ended."""
    from reliability import cases, laws

    laws.check(cases.numbered(4, number))


def test_an_unknown_base_of_an_energy_table_names_the_table(tmp_path):
    from npusim.energy import table
    from npusim.errors import ConfigError

    (tmp_path / "mine.toml").write_text('name = "mine"\nbase = "generi-cm82n"\n')
    with pytest.raises(ConfigError, match=r"mine\.toml: base: unknown energy table 'generi-cm82n'"):
        table.load(tmp_path / "mine.toml")


def test_a_mask_on_a_part_of_a_weight_in_crossbars_is_refused():
    from reliability import cases, laws

    found = laws.check(cases.numbered(4, 1631))
    assert found.outcome == "refused: CapacityError" and "masks of parts are not modelled on crossbars" in found.message


@pytest.mark.parametrize(("a", "mask"), [(True, False), (False, True)])
def test_masks_of_crossbar_columns_come_through_the_slots_of_their_own_buffer(a, mask):
    """Their loads alternated between as many slots as buffer A has; a mask buffer of one slot was refilled in use."""
    from npusim.mapping import crossbar

    machine = npu.load("reram-128x128").replace({"buffers.a.double_buffered": a, "buffers.mask.double_buffered": mask})
    buffer = machine.buffers.mask
    tasks = crossbar.column_masks(5 * buffer.slot_bytes, machine)[0].tasks
    slots = tasks[tasks[:, _kernels.BUFFER] == tp.MASK_BUFFER, _kernels.SLOT]
    assert slots.tolist() == [i % buffer.slots for i in range(5)]


def imported(path, value):
    from npusim.trace import import_file

    path.write_text(json.dumps(value))
    return import_file(path)


def seed(name):
    return json.loads((Path(__file__).parents[2] / "reliability" / "seeds" / f"{name}.json").read_text())


@pytest.mark.parametrize("stride", [0, 2**40, 2**80])
def test_a_jax_convolution_whose_padding_fits_nothing_is_named_at_once(tmp_path, stride):
    """Paddings were tried one after the other, of a list as long as the stride."""
    value = seed("jax")
    value["eqns"][0]["params"]["window_strides"] = [stride, 1]
    value["vars"][3][0] = [2, 2, 0, 2]
    with pytest.raises(TraceError, match=r"step\.json: eqns\[0\] \(conv_general_dilated\): no padding gives"):
        imported(tmp_path / "step.json", value)


def test_the_padding_that_fits_is_the_smallest_one():
    from npusim.trace.imports.onnx_nodes import Unknown, fitting_padding

    for size in range(1, 9):
        for extent in range(1, 6):
            for stride in range(1, 5):
                for out in range(0, 8):
                    fitting = [p for p in range(extent + stride) if (size + 2 * p - extent) // stride + 1 == out]
                    try:
                        found = fitting_padding(size, out, extent, stride, 0)
                    except Unknown:
                        assert not fitting
                    else:
                        assert found == min(fitting)


def test_jax_equations_that_write_nothing_are_nothing(tmp_path):
    value = seed("jax")
    whole = imported(tmp_path / "step.json", value)
    value["eqns"].insert(3, {"p": "debug_callback", "in": [4], "out": [], "stack": "jvp()", "params": {}})
    assert imported(tmp_path / "step.json", value).digest() == whole.digest()


@pytest.mark.parametrize(
    ("out", "reads", "said"), [(4, [4], "variable 4 before it is written"), (3, [4], "variable 3 again")]
)
def test_jax_variables_that_lead_round_in_circles_are_refused(tmp_path, out, reads, said):
    value = seed("jax")
    value["eqns"][1] = {"p": "reshape", "in": reads, "out": [out], "stack": "jvp()", "params": {}}
    with pytest.raises(TraceError, match=said):
        imported(tmp_path / "step.json", value)


@pytest.mark.parametrize("name", ["execution-trace", "profiler"])
def test_a_convolution_with_stride_zero_or_three_dimensions_is_named_with_its_file(tmp_path, name):
    value = seed(name)
    for said, stride, transposed in (("stride", [0, 1], False), ("transposed", [1, 1], True)):
        for entry in value.get("nodes") or value["traceEvents"]:
            if entry["name"] == "aten::convolution":
                if name == "profiler":
                    entry["args"]["Concrete Inputs"][3] = str(stride)
                    entry["args"]["Concrete Inputs"][6] = str(transposed)
                else:
                    entry["inputs"]["values"][3], entry["inputs"]["values"][6] = stride, transposed
        with pytest.raises(TraceError, match=rf"step\.json: (nodes|traceEvents)\[\d+\] aten::convolution: .*{said}"):
            imported(tmp_path / "step.json", value)


def test_a_file_that_is_rewritten_at_once_is_read_again(tmp_path):
    """The parsed file was kept by its time stamp, which has steps of milliseconds."""
    value = seed("jax")
    assert imported(tmp_path / "step.json", value)
    for number in range(50):
        value["parameters"][0] = f"name{number}.weight"
        assert f"name{number}.weight" in imported(tmp_path / "step.json", value).tensors


LONG = "9" * 5000  # Python turns no text of more than 4,300 digits into a number


@pytest.mark.parametrize("text", ["\u00b2", LONG, "1," + LONG, "0"])
def test_bandwidths_of_scalesim_are_ordinary_numbers(tmp_path, text):
    from npusim.scalesim import config
    from reliability.targets import SCALESIM

    path = tmp_path / "scale.cfg"
    path.write_text(SCALESIM.decode().replace("Bandwidth: 10", f"Bandwidth: {text}"), encoding="utf-8")
    with pytest.raises(ConfigError, match="must be words per cycle"):
        config.read(path)


@pytest.mark.parametrize("layers", [LONG + "+1", "1+" + LONG])
def test_layer_numbers_of_mcunetv3_are_ordinary_numbers(layers):
    with pytest.raises(method.MisfitError, match="whole numbers joined by"):
        method.apply("mcunetv3", grouped(), scheme="custom", layers=layers, ratios="1+1")


@pytest.mark.parametrize("span", [LONG, "1-" + LONG, "\u00b2", "-", "1-2-3"])
def test_spans_of_operations_are_ordinary_numbers(span):
    import typer

    from npusim.cli.timelines import _span

    with pytest.raises(typer.BadParameter, match="write FIRST-LAST"):
        _span(span)
    assert _span("12-20") == (12, 20) and _span(" 7 ") == (7, 7)


def test_bits_of_an_address_map_are_ordinary_numbers(tmp_path):
    from npusim.engine.dram_standards import load_standard

    text = (Path(npu.__file__).parent / "data" / "dram" / "ddr4-2400.toml").read_text()
    assert 'address_map = "' in text
    first = text.split('address_map = "')[1].split("-")[0]
    for bits in ("\u00b2", LONG):
        path = tmp_path / "standard.toml"
        path.write_text(text.replace(f'address_map = "{first}', f'address_map = "{first}{bits}'), encoding="utf-8")
        with pytest.raises(ConfigError, match="is none of"):
            load_standard(str(path))


def test_an_onnx_input_without_sizes_is_named_with_its_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    from npusim.trace import import_file

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", "features"])
    weight = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, (3, 2), [0.0] * 6)
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 2])
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [out], [weight])), tmp_path / "m.onnx"
    )
    with pytest.raises(TraceError, match=r"m\.onnx: the shape of 'x' is not known; export the model with fixed sizes"):
        import_file(tmp_path / "m.onnx")


@pytest.mark.parametrize("value", ["-1", "1e308", "0.5", str(2**63), str(2**40)])
def test_refresh_intervals_without_sense_are_refused(tmp_path, value):
    """-1 was simulated without end, others were tracebacks."""
    import shutil

    from npusim.validate.dram import find_config

    folder = tmp_path / "configs"
    shutil.copytree(Path(__file__).parents[1] / "data" / "dram" / "configs", folder)
    file = folder / "dramsys_memspec_lp4x32.json"
    text = file.read_text()
    old = re.search(r'"REFI": (\d+)', text)
    file.write_text(text.replace(old[0], f'"REFI": {value}'))
    with pytest.raises(ConfigError, match="dramsys"):
        find_config("dramsys_lp4_3200_x32_g", "", folder)
