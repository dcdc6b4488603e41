"""What PyTorch wrote down of a training step, against the same step captured live, and files that are wrong."""

from __future__ import annotations

import copy
import gzip
import json
import random
from collections import Counter
from pathlib import Path

import pytest

from npusim import npu, trace
from npusim.errors import NpusimError, TraceError
from npusim.graph import Conv
from npusim.simulation import simulate

DATA = Path(__file__).parents[1] / "data" / "imports"
FILES = ("et.json.gz", "profiler.json.gz")


def load(name):
    return json.loads(gzip.decompress((DATA / name).read_bytes()))


def work(step):
    return Counter((op.phase, op.kind, str(op.dims)) for op in step.ops)


@pytest.mark.parametrize("name", FILES)
def test_a_recorded_step(name):
    step = trace.import_file(DATA / name)
    macs = {phase: sum(op.macs for op in step.phase(phase)) for phase in ("forward", "grad_input", "grad_weight")}
    # The figures of tests/trace/test_import_onnx.py: the same network, gradients recorded instead of synthesised.
    assert macs == {"forward": 61_600, "grad_input": 61_600 - 27_648 + 8_192, "grad_weight": 61_600 - 8_192}
    one = {(op.name, op.phase): op for op in step.ops if op.macs}
    assert one["conv1", "grad_weight"].dims == Conv(2, 3, 16, 16, 8, 3, 3, (2, 2), (1, 1))
    assert ("conv1", "grad_input") not in one and one["conv2", "grad_input"].dims.groups == 8
    assert {op.kind for op in step.phase("update")} == {"momentum"} and step.meta["updates"] == "SGD"
    # 770 parameters: those of the exported network and scale and shift of the batch norm
    assert sum(op.dims.elements for op in step.phase("update")) == 754 + 16
    assert step.tensors["linear1.weight"].shape == (24, 8)
    assert simulate(step, npu.load("edge-16x16")).layers.macs_done.sum() == sum(macs.values())


@pytest.mark.parametrize("name", FILES)
def test_it_is_the_step_that_a_live_capture_records(name):
    pytest.importorskip("torch")
    import trace_models as models

    captured = trace.capture_static(models.ImportNet, (2, 3, 16, 16), optimizer="momentum")
    assert work(trace.import_file(DATA / name)) == work(captured)


@pytest.mark.parametrize("name", ["et-attention.json.gz", "profiler-attention.json.gz"])
def test_fused_attention_is_expanded(name):
    step = trace.import_file(DATA / name)
    # 2 sequences x 2 heads; 6 tokens, 8 features per head: every product has 6 x 6 x 8 MACs each.
    products = [op for op in step.ops if op.kind == "matmul"]
    assert [(op.phase, op.name) for op in products] == [
        ("forward", "attention.scores"), ("forward", "attention"), *[("grad_input", "attention")] * 2,
        *[("grad_input", "attention.scores")] * 2,
    ]  # fmt: skip
    assert all(op.macs == 4 * 6 * 6 * 8 for op in products) and step.meta["skipped"] == []
    softmax = [(op.phase, op.dims.elements) for op in step.ops if op.kind == "softmax"]
    assert softmax == [("forward", 4 * 6 * 6), ("grad_input", 4 * 6 * 6)]
    assert simulate(step, npu.load("edge-16x16")).layers.macs_done.sum() == sum(op.macs for op in step.ops)


@pytest.mark.parametrize("name", ["et-attention.json.gz", "profiler-attention.json.gz"])
def test_fused_attention_is_that_of_a_live_capture(name):
    pytest.importorskip("torch")
    import trace_models as models

    captured = trace.capture_static(models.FusedAttentionNet, (2, 6, 16), optimizer="momentum")
    assert work(trace.import_file(DATA / name)) == work(captured)


def test_an_execution_trace_says_which_tensor_is_which():
    step = trace.from_execution_trace(DATA / "et.json.gz")
    ops = {(op.name, op.phase): op for op in step.ops if op.macs}
    conv = ops["conv2", "grad_weight"]
    assert conv.inputs[1] == ops["conv2", "forward"].inputs[0] == "activation:y"
    scores = ops["matmul", "forward"]
    assert scores.inputs == ("linear1:y", "linear1:y")
    reads = [name for op in step.ops for name in op.inputs]
    assert "input" in reads and "input@2" not in reads


def write(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    return path


def test_steps_that_are_not_one_step(tmp_path):
    value = load("et.json.gz")
    forward = {**value, "nodes": [n for n in value["nodes"] if n["id"] < 280]}
    with pytest.raises(TraceError, match="hold no backward"):
        trace.import_file(write(tmp_path, forward))
    twice = copy.deepcopy(value)
    extra = [n for n in twice["nodes"] if n["name"].startswith("Optimizer.step#")]
    twice["nodes"].append({**extra[0], "id": 99_999})
    with pytest.raises(TraceError, match="holds 2 optimizer steps"):
        trace.import_file(write(tmp_path, twice))
    extra[0]["name"] = "Optimizer.step#LBFGS.step"
    twice["nodes"].pop()
    with pytest.raises(TraceError, match="optimizer 'LBFGS' is not known: SGD, Adam, AdamW"):
        trace.import_file(write(tmp_path, twice))
    bare = {**value, "nodes": [n for n in value["nodes"] if n["id"] < extra[0]["id"]]}
    step = trace.import_file(write(tmp_path, bare))
    assert not step.phase("update") and step.meta["updates"] == "none recorded"


def test_a_profile_without_shapes_says_how_to_get_them(tmp_path):
    value = load("profiler.json.gz")
    for event in value["traceEvents"]:
        event.get("args", {}).pop("Input Dims", None)
    with pytest.raises(TraceError, match="record_shapes=True"):
        trace.import_file(write(tmp_path, value))


@pytest.mark.parametrize("name", FILES)
def test_unknown_products_are_named_or_left_out(tmp_path, name):
    value = load(name)
    for entry in value.get("nodes") or value["traceEvents"]:
        if entry.get("name") == "aten::bmm":
            entry["name"] = "aten::grouped_mm"
    path = write(tmp_path, value)
    with pytest.raises(TraceError, match=r"matrix products that npusim does not know:\n  .*aten::grouped_mm"):
        trace.import_file(path)
    step = trace.import_file(path, skip_unknown=True)
    assert len(step.meta["skipped"]) == 6 and not any(op.kind == "matmul" for op in step.ops)


def test_wrong_operands_are_named(tmp_path):
    value = load("et.json.gz")
    index = next(i for i, node in enumerate(value["nodes"]) if node["name"] == "aten::convolution")
    for key, bad, words in (
        ("shapes", [[2, 3, -16, 16]], "is out of range"), ("shapes", [], "differ in length"), 
        ("values", 7, "must have the lists"),
        ("shapes", [[2**39] * 4], "is out of range"), 
        ("types", ["Int"], "its operands are not those of aten::convolution"),
    ):  # fmt: skip
        broken = copy.deepcopy(value)
        old = broken["nodes"][index]["inputs"][key]
        broken["nodes"][index]["inputs"][key] = [*bad, *old[1:]] if bad and isinstance(bad, list) else bad
        with pytest.raises(TraceError, match=rf"nodes\[{index}\].*{words}"):
            trace.import_file(write(tmp_path, broken))


def mutated(rng, value):
    """The value with something in it replaced."""
    target = value
    while True:
        keys = list(target) if isinstance(target, dict) else list(range(len(target)))
        key = rng.choice(keys)
        if not isinstance(target[key], (dict, list)) or not target[key] or rng.random() < 0.1:
            target[key] = rng.choice([None, -1, 2**70, "x", [], {}, [[]], 0, True, 1.5, [2, 3], 7])
            return
        target = target[key]


@pytest.mark.parametrize("name", FILES)
def test_any_change_gives_a_step_or_one_error(tmp_path, name):
    rng, value = random.Random(1), load(name)
    for _ in range(20):
        broken = copy.deepcopy(value)
        for _ in range(rng.choice((1, 20))):
            mutated(rng, broken["nodes"] if "nodes" in broken else broken["traceEvents"])
        try:
            trace.import_file(write(tmp_path, broken), "execution-trace" if "nodes" in value else "profiler").verify()
        except NpusimError as error:
            assert "a.json" in str(error)
