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


def summary(plan, dataflow="dense-os", on="edge-16x16"):
    """Everything a plan is judged by."""
    run = simulate_plan(plan, machine(on), dataflow)
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
    ("orepa", {"branches": 1, "space": "activation"}),
    ("sltt", {"T": 1}),
    ("sltt", {"T": 1, "temporal": 1}),
    ("cpg", {"free": 1.0, "passes": 1, "width": 1.0}),
]


def every_weight(graph):
    """Gradients of all weights, of no other parameter but the classifier's."""
    return rewrite.keep(graph, {op.param for op in rewrite.layers(graph)} | last_layer(graph))


def every_layer(graph):
    """Weights and biases of all layers; norms stay."""
    return rewrite.keep(graph, {name for op in rewrite.layers(graph) for name in rewrite.of_layer(graph, op)})


def last_layer(graph):
    return rewrite.of_layer(graph, rewrite.layers(graph)[-1])


def signs_of_bias_only(graph):
    return rewrite.sign_masks(method.apply("bias-only", graph).parts[0].graph)


def every_bias(graph):
    wanted = {name for name in rewrite.parameters(graph) if name.endswith("bias")}
    return rewrite.keep(graph, wanted | last_layer(graph))


def with_method(name, **parameters):
    return lambda graph: method.apply(name, graph, None, machine("reram-128x128"), **parameters)


LAYERS = {"layers": "+".join(map(str, range(42))), "ratios": "+".join(["1"] * 42)}
CUSTOM = {"scheme": "custom", "biases": 42, "reorder": 0, "int8": 0}
# Methods that are not dense training for any parameters: under these they equal another step in everything that NEUTRAL
# compares: (method, parameters, network, the other step, machine).
EQUIVALENT = [
    ("bias-only", {"classifier": 1}, "mcunet-5fps", every_bias, "edge-16x16"),
    ("classifier-only", {}, "small", with_method("last-k", k=1), "edge-16x16"),
    ("mcunetv3", CUSTOM | LAYERS, "mcunet-5fps", rewrite.sign_masks, "edge-16x16"),
    ("mcunetv3", CUSTOM, "mcunet-5fps", signs_of_bias_only, "edge-16x16"),
    ("dynamic-sparse", {"layers": 100, "share": 1.0, "scores": 0}, "mcunet-5fps", every_weight, "edge-16x16"),
    ("swu", {"density": 1.0, "epoch_steps": 2**20}, "small", with_method("piggyback"), "edge-16x16"),
    ("piggyback", {}, "small", with_method("ksm", level="element"), "edge-16x16"),
    ("ksm", {"level": "element"}, "small", with_method("piggyback"), "edge-16x16"),
    ("xbm", {}, "small", with_method("xma", bits=1), "reram-128x128"),
    ("xma", {"bits": 3}, "small", with_method("xma2", pes=0.0, bits=3), "reram-128x128"),
    ("xma2", {"pes": 0.0, "bits": 1}, "small", with_method("xbm"), "reram-128x128"),
    ("elastic-trainer", {"rho": 1.0, "quanta": 10**6}, "small", every_layer, "edge-16x16"),
    ("snntorch-ipu", {"T": 5}, "small", with_method("sltt", T=5, temporal=1), "edge-16x16"),
]
# Methods with another law: a test of its own, by name.
OTHER_LAW = {
    "fast-ntk": "test_one_output_is_the_training_of_norms_and_a_kernel",
    "da3": "test_no_adaptor_but_one_is_the_classifier_and_that_one",
    "fasthebb": "test_fasthebb_has_the_products_of_dense_gradients",
    "centre-kernel": "test_centre_of_one_tap_is_every_weight",
}


def network(name):
    return small() if name == "small" else workload(name)


def test_every_method_has_an_invariant():
    """Whoever adds a method says here what it must equal."""
    known = {name for name, *_ in (*NEUTRAL, *EQUIVALENT)} | set(OTHER_LAW)
    assert known == set(method.names())
    assert all(callable(globals().get(test)) for test in OTHER_LAW.values())


@pytest.mark.parametrize(("name", "parameters"), NEUTRAL)
def test_neutral_parameters_equal_dense(name, parameters):
    graph = small()
    if name == "gradient-filtering":
        # It trains convolutions and the classifier; without norms that is everything.
        graph = workload("mcunet-5fps")
    assert summary(method.apply(name, graph, **parameters)) == summary(Plan((Part(graph),)))


@pytest.mark.parametrize(("name", "parameters", "net", "other", "on"), EQUIVALENT)
def test_equivalent_parameters(name, parameters, net, other, on):
    graph = network(net)
    times = times_of(simulate(graph, machine(on)))
    made = method.apply(name, graph, times, machine(on), **parameters)
    if name == "swu":
        # Its selection, once in so many steps, is beside the step.
        made = Plan(made.parts[:1], made.policy)
    expected = other(graph)
    expected = expected if isinstance(expected, Plan) else Plan((Part(expected),))
    found, wanted = summary(made, on=on), summary(expected, on=on)
    if name == "snntorch-ipu":
        wanted |= {"updated": found["updated"]}
    assert found == pytest.approx(wanted, rel=1e-12)


def test_one_output_is_the_training_of_norms_and_a_kernel():
    """Fast-NTK with one output: the norms' parameters alone, and one kernel of batch squared over them."""
    graph = small()
    plan = method.apply("fast-ntk", graph, outputs=1)
    norms = {name for name in rewrite.parameters(graph) if name.startswith("bn")}
    steps = [part for part in plan.parts if "kernel" not in part.graph.name]
    alone = sum(macs(rewrite.keep(graph, norms)).values())
    assert sum(float(part.share) * sum(op.macs for op in part.step().ops) for part in steps) == alone
    (kernel,) = [part for part in plan.parts if "kernel" in part.graph.name]
    assert sum(op.macs for op in kernel.graph.ops) == sum(graph.tensors[name].elements for name in norms)


def test_no_adaptor_but_one_is_the_classifier_and_that_one():
    """DA3 with one adaptor, on conv1 (8 channels, 16x16, pooled by 2): F of all and of it, G of it and of the last."""
    graph = small()
    made = macs(method.apply("da3", graph, every=100, pool=2).parts[0].graph)
    own = 8 * 8 * 8 * 8
    dense, classifier = macs(graph), macs(method.apply("classifier-only", graph).parts[0].graph)
    assert made["forward"] == dense["forward"] + own
    assert made["grad_weight"] == classifier["grad_weight"] + own


def test_fasthebb_has_the_products_of_dense_gradients():
    """G of every layer as in dense training, and K x K . K x CRS more per hidden layer, in forward."""
    graph = small()
    made = method.apply("fasthebb", graph).parts[0].graph
    assert macs(made)["grad_weight"] == macs(graph)["grad_weight"]
    decorrelation = 8 * 8 * 27 + 8 * 8 * 72 + 8 * 9 + 16 * 16 * 72
    assert macs(made)["forward"] - macs(graph)["forward"] == decorrelation


def test_centre_of_one_tap_is_every_weight():
    """Where a kernel is its centre nothing changes; with all channels, the other layers keep G / (R*S)."""
    graph = small()
    found, dense = (macs(g)["grad_weight"] for g in (method.apply("centre-kernel", graph).parts[0].graph, graph))
    classifier = 160
    assert found - classifier == (dense - classifier) / 9
    pointwise = workload("mcunet-5fps")
    ops = {op.param: op for op in pointwise.phase("grad_weight")}
    for op in method.apply("centre-kernel", pointwise).parts[0].graph.phase("grad_weight"):
        if op.kind == "conv" and rewrite.dims_of(ops[op.param]).r == 1:
            assert op == ops[op.param]


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
    page = (Path(__file__).parents[2] / "docs" / "howto" / "method.md").read_text()
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
