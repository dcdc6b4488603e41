"""What each ONNX operator becomes; an operator that is not here is an error that names the node.

| operators                                                              | layer                             |
|-------------------------------------------------------------------------|-----------------------------------|
| Conv (1-D and 2-D)                                                      | conv                              |
| Gemm, MatMul by a weight, an Add of a bias behind it                    | linear                            |
| MatMul, Gemm of two activations                                         | matmul                            |
| BatchNormalization; Layer-, Group-, Instance-, RMSNormalization         | batch_norm; layer_norm            |
| Relu, Sigmoid, Tanh, Clip, ...; Gelu, HardSwish, Elu, ...               | activation (the latter `of_input`) |
| Softmax, LogSoftmax                                                     | softmax                           |
| Attention of separate heads, without a cache                            | matmul, softmax, matmul           |
| Max-, AveragePool and their Global forms                                | pool                              |
| Add and Mul of equal shapes                                             | add, mul                          |
| Gather of rows of a weight by inputs                                    | embedding                         |
| Concat                                                                  | concat                            |
| Slice, Split, Gather by constants                                       | part                              |
| Reshape, Transpose, Flatten, Squeeze, Unsqueeze, Identity, Cast, ...    | view                              |
| arithmetic, roots, reductions, Pad, Resize, Expand, Where, Dropout, ... | elementwise                       |
| Shape, comparisons, ArgMax, ...                                         | none                              |
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from npusim.layers import product
from npusim.trace.imports.onnx_model import Unknown

if TYPE_CHECKING:
    from npusim.trace.imports.onnx_model import Net, Shape

SIDE_RESULTS = (
    "Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual", "Not",
    "And", "Or", "Xor", "IsNaN", "IsInf", "OneHot", "Range", "ConstantOfShape", "EyeLike", "RandomUniformLike",
    "RandomNormalLike", "Bernoulli",
)  # fmt: skip
VIEWS = (
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "CastLike", "DepthToSpace",
    "SpaceToDepth",
)  # fmt: skip
OF_RESULT = ("Relu", "Sigmoid", "Tanh", "Clip", "HardSigmoid", "ThresholdedRelu")
OF_INPUT = ("Gelu", "Swish", "HardSwish", "Elu", "Celu", "Selu", "LeakyRelu", "PRelu", "Mish", "Softplus", "Softsign",
            "Shrink")  # fmt: skip
# Elementwise functions whose gradient needs the result's gradient alone, and those that need the operands.
LINEAR = (
    "Add", "Sub", "Neg", "Sum", "Mean", "Expand", "Tile", "Pad", "Resize", "Upsample", "ReduceMean", "ReduceSum",
    "Round", "Floor", "Ceil", "QuantizeLinear", "DequantizeLinear", "CumSum", "Trilu", "Dropout", "ReverseSequence",
)  # fmt: skip
CURVED = (
    "Mul", "Div", "Pow", "Sqrt", "Exp", "Log", "Erf", "Abs", "Reciprocal", "Sin", "Cos", "Min", "Max", "Where", "Sign",
    "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd",
    "LpNormalization", "MeanVarianceNormalization",
)  # fmt: skip


def convert(net: Net, node: Any) -> None:
    """Append the layers of one node and note where its result is."""
    handler = HANDLERS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if handler is None:
        known = "no layer is known for this operator"
        raise Unknown(known if node.domain in ("", "ai.onnx") else f"{known} of domain {node.domain!r}")
    handler(net, node)


def _done(net: Net, node: Any, layer: str, shape: Shape | None = None) -> None:
    """`layer` computes the node's first result; `shape` is the layer's own when it differs from the result's."""
    result = net.shape(node.output[0])
    net.layer_of[node.output[0]] = layer if shape in (None, result) else net.view(layer, result, node.output[0])
    net.constants.update(name for name in node.output[1:] if name not in net.layer_of)


def _conv(net: Net, node: Any) -> None:
    x, w = net.shape(node.input[0]), net.weight(node.input[1])
    if len(x) != len(w) or len(x) not in (3, 4):
        raise Unknown(f"a convolution over {len(x) - 2} dimensions; 1 and 2 are known")
    given = net.attributes(node)
    flat, result = len(x) == 3, net.shape(node.output[0])
    stride, dilation = (list(given.get(key) or [1] * (len(x) - 2)) for key in ("strides", "dilations"))
    padding = [
        fitting_padding(
            x[i + 2], result[i + 2], (w[i + 2] - 1) * dilation[i] + 1, stride[i], _pads(given, i, len(x) - 2)
        )
        for i in range(len(x) - 2)
    ]
    layer = net.activation(node.input[0])
    window, sizes = list(w[2:]), (stride, padding, dilation)
    if flat:
        layer = net.view(layer, (x[0], x[1], 1, x[2]), node.input[0])
        window, sizes = [1, *window], ([1, *stride], [0, *padding], [1, *dilation])
    bias = len(node.input) > 2 and bool(node.input[2])
    name = net.stem(node, *node.input[1:])
    made = net.add(
        "conv", name, [layer], out=w[0], kernel=tuple(window), stride=tuple(sizes[0]), padding=tuple(sizes[1]),
        dilation=tuple(sizes[2]), groups=int(given.get("group", 1)), bias=bias, **net.tied(node.input[1], name),
    )  # fmt: skip
    _done(net, node, made, (x[0], w[0], 1, result[2]) if flat else None)


def _pads(given: Any, axis: int, axes: int) -> int:
    """Padding of an axis, both sides together; 0 when `auto_pad` decides."""
    pads = list(given.get("pads") or [0] * (2 * axes))
    return pads[axis] + pads[axis + axes]


def fitting_padding(size: int, out: int, extent: int, stride: int, total: int) -> int:
    """Padding on both sides that gives `out` windows of `extent`; that of the file when it is symmetric."""
    if stride > 0:
        least = max(0, -((size - extent - (out - 1) * stride) // 2))
        for padding in ((total + 1) // 2, total // 2, least):
            if (size + 2 * padding - extent) // stride + 1 == out and padding < max(extent + stride, total):
                return padding
    raise Unknown(f"no padding gives {out} windows of {extent} with stride {stride} on {size} values")


def _gemm(net: Net, node: Any) -> None:
    given = net.attributes(node)
    if node.input[1] not in net.constants:
        if given.get("transA") or (len(node.input) > 2 and node.input[2]):
            raise Unknown("a product of two activations with transA or C")
        _product(net, node, bool(given.get("transB")))
        return
    w = net.weight(node.input[1])
    if given.get("transA"):
        raise Unknown("transA of an activation")
    bias = len(node.input) > 2 and bool(node.input[2])
    _linear(net, node, w[0] if given.get("transB") else w[1], bias, node.input[1:])


def _linear(net: Net, node: Any, out: int, bias: bool, parameters: Any) -> None:
    name = net.stem(node, *parameters)
    tied = net.tied(parameters[0], name)
    layer = net.add("linear", name, [net.activation(node.input[0])], out=out, bias=bias, **tied)
    _done(net, node, layer)


def _matmul(net: Net, node: Any) -> None:
    a, b = (net.shape(name) for name in node.input)
    if node.input[1] in net.constants and len(b) == 2:
        bias = _bias_behind(net, node, b[1])
        parameters = [node.input[1], *([bias[0]] if bias else [])]
        _linear(net, node, b[1], bool(bias), parameters)
        if bias:
            net.layer_of[bias[1]] = net.layer_of[node.output[0]]
            net.fused.add(bias[1])
    elif node.input[0] in net.constants and len(a) == 2 and len(b) >= 2:
        turned = (*b[:-2], b[-1], b[-2])
        layer = net.view(net.activation(node.input[1]), turned, node.input[1])
        name = net.stem(node, node.input[0])
        made = net.add("linear", name, [layer], out=a[0], **net.tied(node.input[0], name))
        _done(net, node, made, (*turned[:-1], a[0]))
    else:
        _product(net, node, False)


def _bias_behind(net: Net, node: Any, out: int) -> tuple[str, str] | None:
    """(bias, result) of an Add of a vector of `out` parameters that alone reads the product."""
    readers = net.readers.get(node.output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in {v.name for v in net.graph.output}:
        return None
    bias = next((name for name in readers[0].input if name != node.output[0]), "")
    fits = bias in net.constants and bias in net.source and net.shapes.get(bias) == (out,)
    return (bias, readers[0].output[0]) if fits and not _shared(net, bias) else None


def _shared(net: Net, parameter: str) -> bool:
    return len(net.readers.get(parameter, ())) != 1


def _product(net: Net, node: Any, transposed: bool) -> None:
    """A product of two activations; leading sizes must agree, two-dimensional ones are a batch of one."""
    layers, shapes = [net.activation(name) for name in node.input[:2]], [net.shape(name) for name in node.input[:2]]
    if len(shapes[0]) == len(shapes[1]) == 2:
        layers = [net.view(layer, (1, *s), node.output[0]) for layer, s in zip(layers, shapes, strict=True)]
    elif len(shapes[0]) < 3 or len(shapes[0]) != len(shapes[1]) or shapes[0][:-2] != shapes[1][:-2]:
        raise Unknown(f"a product of {list(shapes[0])} and {list(shapes[1])}; equal leading sizes are needed")
    made = net.add("matmul", node.name or node.output[0], layers, transposed=transposed)
    result = net.shape(node.output[0])
    _done(net, node, made, (1, *result) if len(result) == 2 else None)


def _batch_norm(net: Net, node: Any) -> None:
    x = net.activation(node.input[0])
    _done(net, node, net.add("batch_norm", net.stem(node, *node.input[1:3]), [x]))


def _layer_norm(net: Net, node: Any) -> None:
    x, scale = net.activation(node.input[0]), product(net.weight(node.input[1]))
    shift = len(node.input) > 2 and bool(node.input[2])
    _done(net, node, net.add("layer_norm", net.stem(node, *node.input[1:]), [x], out=scale, shift=shift))


def _activation(net: Net, node: Any) -> None:
    x = net.activation(node.input[0])
    _done(net, node, net.add("activation", node.name, [x], of_input=node.op_type in OF_INPUT))


def _softmax(net: Net, node: Any) -> None:
    _done(net, node, net.add("softmax", node.name, [net.activation(node.input[0])]))


def _attention(net: Net, node: Any) -> None:
    """Q K^T, softmax (scale and mask with it), P V; keys and values with as many heads as queries."""
    q, k, v = (net.shape(name) for name in node.input[:3])
    if any(node.input[4:]) or any(node.output[1:]):
        raise Unknown("attention with a cache of keys and values, or with further results")
    if not len(q) == len(k) == len(v) == 4 or not q[:2] == k[:2] == v[:2]:
        raise Unknown(f"attention of {list(q)}, {list(k)} and {list(v)}; [batch, heads, tokens, features] is needed, "
                      "with as many heads of keys and values as of queries")  # fmt: skip
    queries, keys, values = (net.activation(name) for name in node.input[:3])
    name = node.name or node.output[0]
    scores = net.add("matmul", f"{name}.scores", [queries, keys], transposed=True)
    shares = net.add("softmax", f"{name}.softmax", [scores])
    _done(net, node, net.add("matmul", name, [shares, values], transposed=False))


def _pool(net: Net, node: Any) -> None:
    x, given = net.shape(node.input[0]), net.attributes(node)
    layer, result = net.activation(node.input[0]), net.shape(node.output[0])
    if len(x) not in (3, 4):
        raise Unknown(f"pooling over {len(x) - 2} dimensions; 1 and 2 are known")
    flat, average = len(x) == 3, "Average" in node.op_type
    if flat:
        layer = net.view(layer, (x[0], x[1], 1, x[2]), node.input[0])
    options: dict[str, Any] = {"size": 1}
    if not node.op_type.startswith("Global"):
        window, axes = list(given["kernel_shape"]), len(x) - 2
        stride, dilation = (list(given.get(key) or [1] * axes) for key in ("strides", "dilations"))
        if set(dilation) != {1}:
            raise Unknown("pooling with dilation")
        padding = [
            fitting_padding(x[i + 2], result[i + 2], window[i], stride[i], _pads(given, i, axes)) for i in range(axes)
        ]
        one = [1] if flat else []
        none = [0] if flat else []
        options = {"kernel": (*one, *window), "stride": (*one, *stride), "padding": (*none, *padding)}
    made = net.add("pool", node.name, [layer], average=average, **options)
    _done(net, node, made, (*result[:2], 1, result[2]) if flat else None)


def _elementwise(net: Net, node: Any) -> None:
    names = [name for name in node.input if name in net.floats or name in net.source or name in net.layer_of]
    layers = [layer for name in names if (layer := net.operand(name))]
    if not layers:
        raise Unknown("none of its operands depends on the inputs by float operations")
    result = net.shape(node.output[0])
    shapes = [net.shape(name) for name in names if net.operand(name)]
    if node.op_type in ("Add", "Mul") and shapes == [result, result]:
        _done(net, node, net.add(node.op_type.lower(), node.name, layers))
        return
    if node.op_type == "Add" and len(layers) == 2 and result in shapes:
        order = sorted(range(2), key=lambda i: shapes[i] != result)
        if node.input[order[1]] in net.constants:
            _done(net, node, net.add("add", node.name, [layers[i] for i in order]))
            return
    scaled = len(layers) == 1 and node.op_type in ("Mul", "Div")  # by a constant
    curved = node.op_type in CURVED and not scaled
    made = net.add("elementwise", node.name, layers, shape=result or (1,), whole=True, of_input=curved)
    _done(net, node, made)


def _view(net: Net, node: Any) -> None:
    source = node.input[0]
    if node.op_type in ("Cast", "CastLike") and node.output[0] not in net.floats and source in net.floats:
        net.constants.update(node.output)
        return
    result = net.shape(node.output[0])
    if result == net.shape(source):
        net.layer_of[node.output[0]] = net.activation(source)
    else:
        net.layer_of[node.output[0]] = net.view(net.activation(source), result, node.output[0])


def _part(net: Net, node: Any) -> None:
    source = net.activation(node.input[0])
    for name in node.output:
        if name and net.shape(name) == net.shape(node.input[0]):
            net.layer_of[name] = source
        elif name:
            larger = product(net.shape(name)) > product(net.shape(node.input[0]))  # a lookup may repeat
            kind = "elementwise" if larger else "part"
            net.layer_of[name] = net.add(kind, name, [source], shape=net.shape(name) or (1,), whole=True)


def _gather(net: Net, node: Any) -> None:
    table, rows = node.input[:2]
    if table in net.constants:
        shape = net.weight(table)
        if len(shape) != 2 or net.attributes(node).get("axis", 0) != 0 or len(net.shape(rows)) < 2:
            raise Unknown("a lookup other than of rows of a table, for a batch of numbers")
        name = net.stem(node, table)
        net.tied(table, name)
        made = net.add("embedding", name, [net.activation(rows)], rows=shape[0], out=shape[1])
        _done(net, node, made)
    elif rows in net.constants:
        _part(net, node)
    else:
        raise Unknown("a lookup in an activation by computed positions")


def _concat(net: Net, node: Any) -> None:
    result, layers = net.shape(node.output[0]), [net.operand(name) for name in node.input]
    axis = net.attributes(node).get("axis", 0) % max(len(result), 1)
    found = [layer for layer in layers if layer]
    if axis > 0 and len(found) == len(layers) > 1:
        _done(net, node, net.add("concat", node.name, found, axis=axis))
    else:
        _done(net, node, net.add("elementwise", node.name, found, shape=result or (1,), whole=True))


_NORMS = ("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization")
HANDLERS: dict[str, Callable[[Net, Any], None]] = {
    "Conv": _conv, "Gemm": _gemm, "MatMul": _matmul, "BatchNormalization": _batch_norm,
    **dict.fromkeys(_NORMS, _layer_norm),
    **dict.fromkeys((*OF_RESULT, *OF_INPUT), _activation), **dict.fromkeys(("Softmax", "LogSoftmax"), _softmax),
    **dict.fromkeys(("MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool"), _pool),
    **dict.fromkeys((*LINEAR, *CURVED), _elementwise), **dict.fromkeys(VIEWS, _view),
    **dict.fromkeys(("Slice", "Split"), _part), "Gather": _gather, "Concat": _concat, "Attention": _attention,
}  # fmt: skip
