"""ONNX models: a file that PyTorch exported, and graphs built node by node."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from npusim import trace
from npusim.errors import NpusimError, TraceError
from npusim.graph import Conv, Gemm

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

NET = Path(__file__).parents[1] / "data" / "imports" / "net.onnx"


def model(path, nodes, inputs, outputs, weights=()):
    """A model of float tensors: (name, shape) of inputs and outputs, (name, shape[, values]) of weights."""
    values = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in part] for part in (inputs, outputs)]
    tensors = []
    for name, shape, *ints in weights:
        kind = TensorProto.INT64 if ints else TensorProto.FLOAT
        count = 1
        for size in shape:
            count *= size
        tensors.append(helper.make_tensor(name, kind, shape, ints[0] if ints else [0.0] * count))
    graph = helper.make_graph(
        [helper.make_node(*n[:3], name=n[0].lower(), **n[3]) for n in nodes], "g", *values, tensors
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), str(path))
    return path


def kinds(step, phase="forward"):
    return [(op.kind, op.name) for op in step.phase(phase)]


def test_an_exported_network():
    step = trace.from_onnx(NET, optimizer="momentum")
    # The export folded batch norm into the stem and, as all exports, knows no gradients.
    assert kinds(step)[:6] == [
        ("conv", "stem"), ("activation", "node_relu"), ("conv", "depthwise"), ("conv", "pointwise"), 
        ("add", "node_add"), ("pool", "node_max_pool2d"),
    ]  # fmt: skip
    one = {op.name: op.dims for op in step.phase("forward")}
    assert one["depthwise"] == Conv(2, 8, 8, 8, 8, 3, 3, (1, 1), (1, 1), (1, 1), 8)
    assert one["qkv"] == Conv(32, 8, 1, 1, 24) and one["node_matmul"] == Gemm(4, 16, 16, 4)
    # stem 2*8*8*8*27 + depthwise 2*64*8*9 + pointwise 2*64*64 + qkv 32*8*24 + 2 products 4*16*16*4 + proj 32*64
    # + head 2*80
    assert sum(op.macs for op in step.phase("forward")) == 27_648 + 9_216 + 8_192 + 6_144 + 8_192 + 2_048 + 160
    # The products of attention have a gradient for both operands and none of a weight.
    assert sum(op.macs for op in step.phase("grad_input")) == 61_600 - 27_648 + 8_192
    assert sum(op.macs for op in step.phase("grad_weight")) == 61_600 - 8_192
    # 8*27 + 8, 72, 64, 2*8, 24*8 + 24, 64 + 8, 80 + 10: all of the network's but those of the folded batch norm
    assert sum(op.dims.elements for op in step.phase("update")) == 754
    assert {op.param for op in step.phase("update")} >= {"stem.weight", "stem.bias", "qkv.weight", "norm.bias"}
    assert step.meta["producer"].startswith("pytorch") and step.meta["skipped"] == []


def test_it_has_the_products_of_the_captured_step():
    pytest.importorskip("torch")
    import trace_models as models

    def products(step):
        return sorted(str((op.phase, op.kind, op.dims)) for op in step.ops if op.macs)

    captured = trace.capture_static(models.ImportNet, (2, 3, 16, 16))
    assert products(trace.from_onnx(NET)) == products(captured)


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 23, reason="needs an onnx that knows opset 23")
def test_exported_attention():
    step = trace.from_onnx(NET.with_name("attention.onnx"), optimizer="momentum")
    recorded = trace.from_execution_trace(NET.with_name("et-attention.json.gz"))
    # The same network; the recorded step has no gradient of its input, this one neither.
    for phase in ("forward", "grad_input", "grad_weight"):
        macs = [sorted(op.macs for op in graph.phase(phase) if op.macs) for graph in (step, recorded)]
        assert macs[0] == macs[1]
    assert sum(op.kind == "softmax" for op in step.ops) == 2 and step.meta["skipped"] == []


@pytest.mark.skipif(onnx.defs.onnx_opset_version() < 23, reason="needs an onnx that knows opset 23")
@pytest.mark.parametrize(
    "sizes, inputs, words",
    [
        (((1, 4, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)), "qkv", "as many heads of keys and values as of queries"),
        (((1, 5, 8), (1, 5, 8), (1, 5, 8)), "qkv", r"\[batch, heads, tokens, features\] is needed"),
    ],
)
def test_attention_that_is_not_known(tmp_path, sizes, inputs, words):
    options = {"q_num_heads": 2, "kv_num_heads": 2} if len(sizes[0]) == 3 else {}
    given = list(zip(inputs, sizes, strict=True))
    path = model(tmp_path / "a.onnx", [("Attention", list(inputs), ["y"], options)], given, [("y", sizes[0])])
    with pytest.raises(TraceError, match=words):
        trace.from_onnx(path)


def test_asymmetric_padding_gives_the_same_size(tmp_path):
    nodes = [("Conv", ["x", "w"], ["y"], {"pads": [0, 1, 1, 2], "strides": [2, 2]})]
    path = model(tmp_path / "a.onnx", nodes, [("x", [1, 3, 8, 8])], [("y", [1, 4, 4, 5])], [("w", [4, 3, 3, 3])])
    (op,) = [op for op in trace.from_onnx(path).phase("forward") if op.macs]
    assert (op.dims.p, op.dims.q) == (4, 5) and op.dims.macs == 4 * 5 * 4 * 27


def test_an_input_without_a_batch_size_is_a_batch_of_one(tmp_path):
    nodes = [("Gemm", ["x", "fc.weight", "fc.bias"], ["y"], {"transB": 1})]
    weights = [("fc.weight", [5, 8]), ("fc.bias", [5])]
    path = model(tmp_path / "a.onnx", nodes, [("x", ["batch", 8])], [("y", ["batch", 5])], weights)
    step = trace.from_onnx(path)
    assert step.ops[0].dims == Conv(1, 8, 1, 1, 5)
    assert [op.param for op in step.phase("update")] == ["fc.weight", "fc.bias"]
    assert trace.import_file(path).ops == step.ops


def test_parameters_of_elementwise_functions(tmp_path):
    nodes = [
        ("MatMul", ["x", "w"], ["a"], {}), ("Add", ["a", "pos"], ["b"], {}), ("Mul", ["b", "scale"], ["c"], {}),
        ("ReduceMean", ["c", "axes"], ["d"], {"keepdims": 0}), ("Mul", ["d", "two"], ["y"], {}),
    ]  # fmt: skip
    weights = [("w", [8, 6]), ("pos", [1, 4, 6]), ("scale", [6]), ("axes", [1], [1]), ("two", [])]
    step = trace.from_onnx(model(tmp_path / "a.onnx", nodes, [("x", [2, 4, 8])], [("y", [2, 6])], weights))
    assert kinds(step) == [
        ("linear", "w"), ("add", "add"), ("elementwise", "mul"), ("elementwise", "reducemean"), 
        ("elementwise", "mul@2"), ("softmax_loss", "softmax_loss"),
    ]  # fmt: skip
    assert {op.param: op.dims.elements for op in step.phase("update")} == {
        "w.weight": 48, "pos.weight": 24, "scale.weight": 6,
    }  # fmt: skip
    sums = {op.param: op.dims.elements for op in step.phase("grad_weight") if op.kind == "bias_grad"}
    assert sums == {"pos.weight": 48, "scale.weight": 6}


def test_unknown_operators_are_named_or_left_out(tmp_path):
    nodes = [("Relu", ["x"], ["a"], {}), ("Einsum", ["a"], ["b"], {"equation": "ij->ij"}),
             ("Gemm", ["b", "w"], ["y"], {})]  # fmt: skip
    path = model(tmp_path / "a.onnx", nodes, [("x", [2, 8])], [("y", [2, 5])], [("w", [8, 5])])
    with pytest.raises(TraceError, match=r"a\.onnx: node 1 'einsum' \(Einsum\): no layer is known"):
        trace.from_onnx(path)
    step = trace.from_onnx(path, skip_unknown=True)
    assert step.meta["skipped"] == ["Einsum einsum"]
    assert kinds(step) == [("activation", "relu"), ("linear", "w"), ("softmax_loss", "softmax_loss")]


@pytest.mark.parametrize("node, weights, words", [
    (("ConvTranspose", ["x", "w"], ["y"], {}), [("w", [3, 4, 3, 3])], "no layer is known"),
    (("Conv", ["x", "x"], ["y"], {}), [], "a weight of the model is needed"),
    (("MatMul", ["x", "w"], ["y"], {}), [("w", [2, 8, 8])], "operand 'w' is a constant"),
    (("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2], "dilations": [2, 2]}), [], "pooling with dilation"),
])  # fmt: skip
def test_nodes_that_no_layer_fits(tmp_path, node, weights, words):
    path = model(tmp_path / "a.onnx", [node], [("x", [1, 3, 8, 8])], [("y", None)], weights)
    with pytest.raises(TraceError, match=words):
        trace.from_onnx(path)


def test_files_that_are_no_models(tmp_path):
    for name, content, words in (
        ("empty", b"", "no nodes"), ("text", b"hello" * 100, "not an ONNX file"), 
        ("cut", NET.read_bytes()[:5000], "not an ONNX"),
    ):  # fmt: skip
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(TraceError, match=words):
            trace.from_onnx(path)
    with pytest.raises(TraceError, match="cannot be read: No such file"):
        trace.from_onnx(tmp_path / "none.onnx")
    path = model(tmp_path / "a.onnx", [("Relu", ["w"], ["y"], {})], [("x", [1, 8])], [("y", [8])], [("w", [8])])
    with pytest.raises(TraceError, match="none of the graph's outputs depends on its inputs"):
        trace.from_onnx(path)


def test_any_change_to_the_nodes_gives_a_step_or_one_error(tmp_path):
    rng, whole = random.Random(3), onnx.load(NET)
    path, names = tmp_path / "a.onnx", [name for node in whole.graph.node for name in (*node.input, *node.output)]
    for _ in range(80):
        broken = onnx.ModelProto()
        broken.CopyFrom(whole)
        for _ in range(rng.choice((1, 1, 4))):
            node = rng.choice(broken.graph.node)
            match rng.randrange(5):
                case 0 if node.attribute:
                    attribute = rng.choice(node.attribute)
                    attribute.i = rng.choice([-1, 0, 1, 7, 2**40])
                    attribute.ints[:] = rng.choice([[], [0, 0], [-1, 2], [3], [2**40] * 4, [2, 2]])
                case 1 if node.attribute:
                    del node.attribute[rng.randrange(len(node.attribute))]
                case 2 if node.input:
                    node.input[rng.randrange(len(node.input))] = rng.choice([*names, "", "nowhere"])
                case 3:
                    del node.input[rng.randrange(len(node.input)) :]
                case _:
                    node.op_type = rng.choice(
                        [other.op_type for other in whole.graph.node] + ["Concat", "Split", "Gather"]
                    )
        onnx.save(broken, str(path))
        try:
            trace.from_onnx(path, skip_unknown=rng.random() < 0.5).verify()
        except NpusimError as error:
            assert "a.onnx" in str(error)


def test_any_bytes_give_a_step_or_one_error(tmp_path):
    rng, data, path = random.Random(0), NET.read_bytes(), tmp_path / "a.onnx"
    for _ in range(80):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 3, 30))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        try:
            trace.from_onnx(path).verify()
        except NpusimError as error:
            assert "a.onnx" in str(error)
