"""What must hold for every method: neutral parameters change nothing, disjoint rewrites commute, graphs verify."""

from pathlib import Path

import numpy as np
import pytest
from method_nets import machine, macs, plain, small, workload

from npusim import memory, method, rewrite
from npusim.errors import NpusimError
from npusim.method import MisfitError, Part, Plan
from npusim.method_runs import compare_methods, simulate_plan, times_of
from npusim.simulation import simulate
from npusim.spill import MemoryLimit


def summary(plan, dataflow="dense-os"):
    """Everything a plan is judged by."""
    run = simulate_plan(plan, machine(), dataflow)
    return {**run.step, "peak": run.memory.peak_bytes, "updated": run.updated}


CROSSBARS = ("xbm", "xma", "xma2")
# Parameters under which a method does what dense training does.
NEUTRAL = [
    ("dense", {}),
    ("last-k", {"k": 100}),
    ("gradient-filtering", {"r": 1, "layers": 0}),
    ("packnet", {"task": 1}),
    ("sparcl", {"weights": 0.0, "gradients": 0.0, "data": 1.0}),
    ("instance-filtering", {"keep": 1.0, "channels": 1.0}),
    ("fractrain", {"a": 16, "w": 16, "g": 16}),
    ("muppet", {"e8": 0, "e12": 0, "e14": 0, "e16": 9, "e32": 0}),
    ("orepa", {"branches": 1}),
    ("sltt", {"T": 1}),
    ("sltt", {"T": 1, "temporal": 1}),
    ("cpg", {"free": 1.0, "passes": 1}),
]


@pytest.mark.parametrize(("name", "parameters"), NEUTRAL)
def test_neutral_parameters_equal_dense(name, parameters):
    graph = small()
    if name == "gradient-filtering":
        # It trains convolutions and the classifier; without norms that is everything.
        graph = workload("mcunet-5fps")
    assert summary(method.apply(name, graph, **parameters)) == summary(Plan((Part(graph),)))


def test_full_density_masks_equal_piggyback():
    full, piggyback = method.apply("swu", small(), density=1.0), method.apply("piggyback", small())
    same = [simulate_plan(Plan((plan.parts[0],)), machine()).step for plan in (full, piggyback)]
    assert same[0] == same[1]


def test_all_channels_equal_dense_gradients():
    graph = small()
    counts = {op.param: rewrite.dims_of(op).c for op in rewrite.layers(graph)}
    assert rewrite.select_inputs(graph, counts).digest() == graph.digest()


def test_all_parameters_kept_is_the_identity():
    for graph in (small(), small("adam"), workload("resnet18"), workload("mobilenetv2")):
        assert rewrite.keep(graph, set(rewrite.parameters(graph))).digest() == graph.digest()


def test_backward_in_all_steps_costs_as_many_dense_steps():
    """T = K = 5: five forward, five backward, one update."""
    graph = small()
    dense = simulate_plan(Plan((Part(graph),)), machine()).phases.cycles
    spiking = simulate_plan(method.apply("sltt", graph, T=5), machine()).phases.cycles
    assert spiking["forward"] == 5 * dense["forward"]
    assert spiking["grad_weight"] == 5 * dense["grad_weight"]
    assert spiking["update"] == dense["update"]


DISJOINT = [
    (("last-k", {"k": 2}), ("fractrain", {})),
    (("last-k", {"k": 3}), ("sltt", {"T": 4, "K": 2})),
    (("swu", {}), ("fractrain", {"a": 8})),
    (("sparcl", {}), ("sltt", {"T": 3})),
    (("bias-only", {}), ("sltt", {"T": 3})),
    (("mcunetv3", {"int8": 0}), ("sltt", {"T": 2})),
    (("gradient-filtering", {"layers": 2}), ("fractrain", {})),
]


@pytest.mark.parametrize(("first", "second"), DISJOINT)
def test_disjoint_rewrites_commute(first, second):
    (a, ka), (b, kb) = first, second
    graph = small()
    ab = method.apply(b, method.apply(a, graph, **ka), **kb)
    ba = method.apply(a, method.apply(b, graph, **kb), **ka)
    assert _parts(ab) == _parts(ba)
    assert ab.policy == ba.policy


def _parts(plan):
    rows = [(p.step().digest(), p.share, tuple(sorted(p.bits.items())), p.scalable) for p in plan.parts if p.step().ops]
    return sorted(rows)


def test_deeper_primitives_commute():
    """alive with axis_mask, axis_mask with saved_tensor, schedule with alive."""
    graph = small("momentum")
    found = rewrite.layers(graph)
    wanted = rewrite.of_layer(graph, found[-1]) | rewrite.of_layer(graph, found[-2])
    counts = {found[-2].param: 3}
    pairs = [
        (lambda g: rewrite.keep(g, wanted), lambda g: rewrite.select_inputs(g, counts)),
        (lambda g: rewrite.sign_masks(g), lambda g: rewrite.select_inputs(g, counts)),
        (lambda g: rewrite.interleaved(g), lambda g: rewrite.keep(g, wanted)),
        (lambda g: rewrite.interleaved(g), lambda g: rewrite.select_inputs(g, counts)),
    ]
    for a, b in pairs:
        assert a(b(graph)).digest() == b(a(graph)).digest()


@pytest.mark.parametrize("name", method.names())
@pytest.mark.parametrize("net", ["small", "mcunet-5fps", "resnet18"])
def test_every_method_verifies_or_says_why_not(name, net):
    graph = small() if net == "small" else workload(net)
    times = {(op.name, op.phase): 10 for op in graph.ops}
    hardware = machine("reram-128x128" if method.load(name).machine else "edge-16x16")
    try:
        plan = method.apply(name, graph, times, hardware)
    except MisfitError as error:
        assert name in str(error) and graph.name in str(error)
        assert (net, name) == ("mcunet-5fps", "fast-ntk")
        return
    for part in plan.parts:
        part.graph.verify()
        read = {t for op in part.graph.ops for t in (*op.inputs, *op.outputs)}
        assert read == set(part.graph.tensors)
        _written_before_read(part.graph)
        assert memory.plan(part.graph, machine().precision.bits).peak_bytes > 0


def _written_before_read(graph):
    """What some operation writes is not read before, weights, state and views of what is written apart."""
    writers = {name: i for i, op in reversed(list(enumerate(graph.ops))) for name in op.outputs}
    for i, op in enumerate(graph.ops):
        for name in op.inputs:
            if graph.tensors[name].kind not in ("weight", "state"):
                assert writers.get(name, -1) < i, f"{op.label} reads {name} too early"


@pytest.mark.parametrize("name", method.names())
def test_every_method_on_a_network_without_convolutions(name):
    graph = plain()
    times = {(op.name, op.phase): 10 for op in graph.ops}
    try:
        method.apply(name, graph, times, machine("reram-128x128"))
    except MisfitError as error:
        assert "layer" in str(error)


def test_methods_simulate_within_the_laws():
    graph = small()
    names = method.names()
    found = compare_methods(graph, machine("mcu-8x8"), names, misfits=True)
    table = found.table()
    assert set(found.misfits) == set(CROSSBARS)
    assert set(table.method) == set(names) - set(CROSSBARS)
    assert (table.cycles > 0).all() and (table.energy_pj > 0).all()
    assert table.set_index("method").loc["classifier-only", "cycles"] == table.cycles.min()


def test_masks_pay_off_on_a_selective_dataflow():
    graph = small()
    dense, hybrid = (
        simulate_plan(method.apply("swu", graph, density=0.1), machine(), flow).phases.cycles["grad_weight"]
        for flow in ("dense-os", "reduction-spatial")
    )
    assert hybrid < dense


def test_scalable_array_is_faster():
    """Operands of half the width leave room for twice the rows and columns; a fixed array keeps its PEs."""
    graph = workload("resnet18")
    fixed = simulate_plan(method.apply("fractrain", graph), machine())
    scalable = simulate_plan(method.apply("fractrain", graph, array="scalable"), machine())
    assert scalable.runs[0].hardware.array.rows == 2 * fixed.runs[0].hardware.array.rows
    assert scalable.step["cycles"] < fixed.step["cycles"]


def test_times_are_those_of_the_run():
    run = simulate(small(), machine())
    assert sum(times_of(run).values()) == run.schedule.cycles == int(np.sum(run.cycles))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("last-k", {"k": 0}, "k = 0; a whole number in 1..1.04858e+06 is needed"),
        ("last-k", {"j": 1}, "unknown parameter 'j'; known: k"),
        ("swu", {"density": 1.5}, "density = 1.5; a number in 0..1 is needed"),
        ("swu", {"density": True}, "density = True"),
        ("ksm", {"level": "row"}, "one of kernel, group, channel, element"),
        ("sltt", {"T": 3, "K": 4}, "K = 4 is more than T = 3"),
        ("mcunetv3", {"scheme": "custom", "biases": 2, "layers": "9", "ratios": "1"}, "layer 9: out of range"),
        ("mcunetv3", {"scheme": "custom", "biases": 1, "layers": "1", "ratios": "1"}, "layer conv1: number 1 lies"),
        ("mcunetv3", {"scheme": "custom", "biases": 4, "layers": "1", "ratios": "3/2"}, "ratio '3/2' is not in 0..1"),
        ("mcunetv3", {"scheme": "100KB"}, "22 biases, but 4 layers"),
        ("lastk", {}, "did you mean 'last-k'"),
        ("elastic-trainer", {}, "simulate the dense step first"),
    ],
)
def test_mistakes_are_named(name, parameters, message):
    with pytest.raises(NpusimError) as caught:
        method.apply(name, small(), **parameters)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["gradient-filtering", "sparcl", "centre-kernel", "da3", "fast-ntk", "orepa"])
def test_a_network_that_does_not_fit_is_named(name):
    with pytest.raises(MisfitError, match="method '" + name):
        method.apply(name, plain())


def test_specs():
    assert method.parse("last-k:k=2") == ("last-k", {"k": 2})
    assert method.parse("swu:density=0.5:seed=3") == ("swu", {"density": 0.5, "seed": 3})
    for bad in ("a:b", "a:b=", "a:b=1:b=2"):
        with pytest.raises(NpusimError):
            method.parse(bad)


def test_every_method_is_documented():
    for name in method.names():
        text = method.document(name)
        assert name == "dense" or "Source" in text, name
        assert all(p.about for p in method.load(name).parameters)
        assert set(method.load(name).fields) <= set(method.FIELDS)


def test_a_method_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text(
        "from npusim.method import Method\nMETHOD = Method('mine', 'the identity', lambda graph: graph)\n"
    )
    (tmp_path / "methods" / "broken.py").write_text("import no_such_module\n")
    monkeypatch.setenv("NPUSIM_PATH", str(tmp_path))
    assert "mine" in method.names()
    assert method.apply("mine", small()).parts[0].graph is small()
    with pytest.raises(NpusimError, match="cannot be imported: ModuleNotFoundError"):
        method.load("broken")


def test_the_example_of_the_methods_page(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "methods.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "even_layers.py").write_text(code)
    monkeypatch.setenv("NPUSIM_PATH", str(tmp_path))
    graph = method.apply("even-layers", small()).parts[0].graph
    assert {op.name for op in graph.phase("update")} == {"stem", "depth", "fc"}
    with pytest.raises(MisfitError, match="layer 9: no layer from there on"):
        method.apply("even-layers", small(), first=9)


def test_a_masked_step_takes_no_second_shape():
    """Masks of swu have 3x3 taps; centre-kernel would leave one."""
    masked = method.apply("swu", small()).parts[0].graph
    with pytest.raises(MisfitError, match="start from the dense step"):
        method.apply("centre-kernel", masked)


def test_a_memory_limit_names_method_and_tensor():
    with pytest.raises(MisfitError, match=r"method 'dense': step 'small' needs .* bytes, the memory limit has 1000"):
        compare_methods(small(), machine(), ["last-k"], limit=MemoryLimit(1000))
    assert len(compare_methods(small(), machine(), ["last-k"], limit=MemoryLimit(10**9)).runs) == 2


def test_macs_of_last_k():
    """small: fc 16x10, conv2 8x16x9x64 = 73728 MACs; the last two layers get G, the last one E."""
    graph = method.apply("last-k", small(), k=2).parts[0].graph
    assert macs(graph)["grad_weight"] == 160 + 73728
    assert macs(graph)["grad_input"] == 160
