"""The jaxpr of a training step: a stored one, live ones where JAX is installed, and values that are wrong."""

from __future__ import annotations

import copy
import gzip
import json
import random
import sys
from collections import Counter
from pathlib import Path

import pytest

from npusim import npu, trace
from npusim.errors import NpusimError, TraceError
from npusim.graph import Conv, Gemm, Pool
from npusim.simulation import simulate

DATA = Path(__file__).parents[1] / "data" / "imports"


@pytest.fixture
def value():
    return json.loads(gzip.decompress((DATA / "jax.json.gz").read_bytes()))


def write(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    return path


def test_a_stored_step():
    step = trace.import_file(DATA / "jax.json.gz")
    macs = {phase: sum(op.macs for op in step.phase(phase)) for phase in ("forward", "grad_input", "grad_weight")}
    # The figures of tests/trace/test_import_onnx.py: the same network.
    assert macs == {"forward": 61_600, "grad_input": 61_600 - 27_648 + 8_192, "grad_weight": 61_600 - 8_192}
    ops = {(op.param, op.phase): op for op in step.ops if op.macs and op.param}
    assert ops["stem.weight", "grad_weight"].dims == Conv(2, 3, 16, 16, 8, 3, 3, (2, 2), (1, 1))
    assert ops["depthwise.weight", "grad_input"].dims.groups == 8 and ("stem.weight", "grad_input") not in ops
    assert ops["qkv.weight", "grad_weight"].dims == Conv(32, 8, 1, 1, 24)
    pools = [op for op in step.ops if op.kind == "pool"]
    assert [op.phase for op in pools] == ["forward", "grad_input"]
    assert {op.dims for op in pools} == {Pool(2, 8, 8, 8, 4, 4, 2, 2, (2, 2))}
    # 216 + 8 + 72 + 64 + 192 + 64 + 80 + 10 parameters, with one state each
    assert sum(op.dims.elements for op in step.phase("update")) == 706
    assert {op.kind for op in step.phase("update")} == {"momentum"} and step.meta["jax"] == "0.10.2"
    assert step.tensors["qkv.weight"].shape == (24, 8)
    assert simulate(step, npu.load("edge-16x16")).layers.macs_done.sum() == sum(macs.values())


def test_it_has_the_products_of_the_captured_step():
    pytest.importorskip("torch")
    import trace_models as models

    def products(step):
        return Counter((op.phase, op.kind, op.macs) for op in step.ops if op.macs)

    captured = trace.capture_static(models.ImportNet, (2, 3, 16, 16))
    assert products(trace.import_file(DATA / "jax.json.gz")) == products(captured)


def test_gradients_of_both_operands_of_attention():
    step = trace.import_file(DATA / "jax.json.gz")
    dims = {(op.name, op.phase): [o.dims for o in step.ops if (o.name, o.phase) == (op.name, op.phase)]
            for op in step.ops if op.kind == "matmul"}  # fmt: skip
    assert {key: len(found) for key, found in dims.items()} == {
        ("matmul1", "forward"): 1, ("matmul2", "forward"): 1,
        ("matmul1", "grad_input"): 2, ("matmul2", "grad_input"): 2,
    }  # fmt: skip
    assert dims["matmul1", "forward"] == [Gemm(4, 16, 16, 4)]


def test_live_steps():
    jax = pytest.importorskip("jax")
    sys.path.insert(0, str(DATA))
    import make_jax

    stored = trace.import_file(DATA / "jax.json.gz")
    names = [f"{name}.weight" for name in sorted(make_jax.shapes()[0])]
    for function in (make_jax.step, jax.jit(make_jax.step)):
        live = trace.from_jaxpr(jax.make_jaxpr(function)(*make_jax.shapes()), parameters=names, name="jax")
        assert [(op.phase, op.macs) for op in live.ops if op.macs] == [
            (op.phase, op.macs) for op in stored.ops if op.macs
        ]
        assert [op.param for op in live.phase("update")] == [op.param for op in stored.phase("update")]


def products(step):
    return Counter((op.phase, op.kind, str(op.dims), op.param) for op in step.ops if op.macs)


def test_a_stored_step_with_loops():
    step = trace.import_file(DATA / "jax-scan.json.gz")
    # 5 time steps of a cell (4 x 6 x 8 and 4 x 8 x 8 MACs), 3 layers (4 x 8 x 8), a head (4 x 8 x 10).
    forward = Counter(op.param for op in step.phase("forward") if op.macs)
    assert forward == {"cell.weight": 5, "cell.recurrent": 5, "head.weight": 1,
                       **{f"blocks.{i}.weight": 1 for i in range(3)}}  # fmt: skip
    macs = {phase: sum(op.macs for op in step.phase(phase)) for phase in ("forward", "grad_input", "grad_weight")}
    cell, square, head = 4 * 6 * 8, 4 * 8 * 8, 4 * 8 * 10
    assert macs["forward"] == macs["grad_weight"] == 5 * (cell + square) + 3 * square + head
    # The input takes no gradient; JAX computes that of the first state, which is all zeros, too.
    assert macs["grad_input"] == 5 * square + 3 * square + head
    updates = {op.param: op.dims.elements for op in step.phase("update")}
    rows = {f"blocks.{i}.{part}": size for i in range(3) for part, size in (("weight", 64), ("bias", 8))}
    assert updates == {**rows, "cell.weight": 48, "cell.recurrent": 64, "head.weight": 80}
    assert step.tensors["blocks.2.weight"].shape == (8, 8) and not step.meta["skipped"]
    made = {name for op in step.ops for name in op.outputs}
    assert {op.inputs[1] for op in step.phase("update")} <= made
    assert simulate(step, npu.load("edge-16x16")).layers.macs_done.sum() == sum(macs.values())


def test_a_scan_is_the_loop_written_out():
    jax = pytest.importorskip("jax")
    sys.path.insert(0, str(DATA))
    import make_jax

    live = trace.from_jaxpr(jax.make_jaxpr(make_jax.scanned_step)(*make_jax.scanned_shapes()),
                            parameters=make_jax.SCANNED)  # fmt: skip
    assert products(live) == products(trace.import_file(DATA / "jax-scan.json.gz"))

    def written_out(body, carry, xs):
        made = []
        for now in xs:
            carry, y = body(carry, now)
            made.append(y)
        return carry, jax.numpy.stack(made)

    def step(scan):
        def loss(p, x):
            def cell(h, now):
                h = jax.numpy.tanh(now @ p["x"] + h @ p["h"])
                return h, h

            return (scan(cell, jax.numpy.zeros((4, 8)), x)[1].mean(0) @ p["head"]).sum()

        return lambda p, x: jax.tree.map(lambda w, d: w - 0.1 * d, p, jax.grad(loss)(p, x))

    sizes = {"x": (6, 8), "h": (8, 8), "head": (8, 10)}
    p = {name: jax.ShapeDtypeStruct(size, "float32") for name, size in sizes.items()}
    found = [
        trace.from_jaxpr(jax.make_jaxpr(step(scan))(p, jax.ShapeDtypeStruct((5, 4, 6), "float32")))
        for scan in (jax.lax.scan, written_out)
    ]
    scanned, plain = (Counter((op.phase, op.macs) for op in step.ops if op.macs) for step in found)
    # The loop written out does not propagate to its first state, a constant; a scan does, its body is always the same.
    assert scanned == plain + Counter({("grad_input", 4 * 8 * 8): 1})


def test_loops_that_cannot_be_unrolled(tmp_path, value):
    index = next(i for i, e in enumerate(value["eqns"]) if e["p"] == "tanh")
    value["eqns"][index] = {**value["eqns"][index], "p": "while", "params": {"products": True}}
    with pytest.raises(TraceError, match=r"\(while\): multiplies matrices inside.*a scan or fori_loop of fixed length"):
        trace.import_file(write(tmp_path, value))
    jax = pytest.importorskip("jax")

    def loss(w, x):
        return jax.lax.scan(lambda h, _: (h @ w, None), x, None, length=10**6)[0].sum()

    shape = jax.ShapeDtypeStruct((8, 8), "float32")
    with pytest.raises(TraceError, match=r"a scan of 1,000,000 rounds of \d+ equations is too long to be unrolled"):
        trace.from_jaxpr(jax.make_jaxpr(lambda w, x: w - jax.grad(loss)(w, x))(shape, shape))


def test_steps_that_are_not_training_steps(tmp_path, value):
    gone = copy.deepcopy(value)
    gone["outvars"] = gone["outvars"][-1:]
    with pytest.raises(TraceError, match="the first results are not the new values of the first arguments"):
        trace.import_file(write(tmp_path, gone))
    loop = copy.deepcopy(value)
    index = next(i for i, e in enumerate(loop["eqns"]) if e["p"] == "tanh")
    loop["eqns"][index] = {**loop["eqns"][index], "p": "scan", "params": {"products": True}}
    with pytest.raises(TraceError, match=rf"eqns\[{index}\] \(scan\): multiplies matrices inside"):
        trace.import_file(write(tmp_path, loop))
    assert trace.import_file(write(tmp_path, loop), skip_unknown=True).meta["skipped"] == [f"eqns[{index}] scan"]
    with pytest.raises(TraceError, match="a jaxpr is needed"):
        trace.from_jaxpr(3)


@pytest.mark.parametrize("key, bad, words", [
    ("npusim_jaxpr", 2, "is '2'; this version reads 1"),
    ("vars", [[[2, -3], "float32"]], r"vars\[0\]: size -3 is out of range"),
    ("invars", [10**6], "invars: numbers of variables"),
    ("eqns", [{"p": 1}], r"eqns\[0\]: must be an object"),
    ("parameters", [1], "parameters must be a list of names"),
])  # fmt: skip
def test_wrong_values(tmp_path, value, key, bad, words):
    with pytest.raises(TraceError, match=words):
        trace.import_file(write(tmp_path, {**value, key: bad}))


def mutated(rng, target):
    while True:
        key = rng.choice(list(target) if isinstance(target, dict) else list(range(len(target))))
        if not isinstance(target[key], (dict, list)) or not target[key] or rng.random() < 0.1:
            target[key] = rng.choice([None, -1, 2**70, "dot_general", [], {}, [[]], 0, True, 1.5, [2, 3], 7, 40])
            return
        target = target[key]


def test_any_change_gives_a_step_or_one_error(tmp_path, value):
    rng = random.Random(2)
    for _ in range(80):
        broken = copy.deepcopy(value)
        for _ in range(rng.choice((1, 10))):
            mutated(rng, broken[rng.choice(["eqns", "eqns", "vars", "invars", "outvars"])])
        try:
            trace.import_file(write(tmp_path, broken), "jax").verify()
        except NpusimError as error:
            assert "a.json" in str(error)
