"""Training steps from TinyEngine: the operation list that its compiler writes for an int8 network.

A JSON list of operations with `name`, `type`, `attrs`, `inputs` and `outputs` (name, shape, dtype), in execution order.

| type                                               | becomes                                               |
|----------------------------------------------------|-------------------------------------------------------|
| nn.mcuconv2d                                       | conv, forward                                         |
| nn.conv2d_transpose                                | conv, grad_input of the layer whose weight it reads   |
| nn.conv2d (groups = input channels, tiled dY)      | conv, grad_weight of the selected input channels      |
| sum over all but the channels                      | bias_grad                                             |
| nn.mcutruncate, nn.mcuadd, mcumean, nn.log_softmax | activation, add, pool, softmax                        |
| other arithmetic                                   | elementwise                                           |
| reshape, strided_slice, tile, transpose, zeros, ones | nothing: other names or constants                   |

Operations behind the loss are backward ones. The step has no updates: TinyEngine fuses them into the gradient kernels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npusim.errors import TraceError
from npusim.graph import Conv, Op, Pool, StepGraph, Tensor, Vector

LOSS = "nn.cross_entropy_with_logits"
ALIASES = ("reshape", "strided_slice", "tile", "transpose")
CONSTANTS = ("zeros", "ones")
FORWARD = {"nn.mcutruncate": "activation", "nn.mcuadd": "add", "nn.log_softmax": "softmax"}
ELEMENTWISE = (
    "cast", "multiply", "greater_equal", "less_equal", "where", "divide", "negative", "exp", "subtract", "sum", LOSS,
)  # fmt: skip
MAX_FILE_BYTES = 2**28


def read(path: str | Path, name: str = "tinyengine") -> StepGraph:
    """The step of a TinyEngine graph file; TraceError names the operation that cannot be understood."""
    try:
        if Path(path).stat().st_size > MAX_FILE_BYTES:
            raise TraceError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TraceError(f"{path}: cannot be read as a TinyEngine graph: {error}") from error
    return from_ops(value, name, str(Path(path).name))


def from_ops(value: Any, name: str, source: str = "operations") -> StepGraph:
    """The step of a decoded operation list."""
    if not isinstance(value, list) or not value:
        raise TraceError(f"{source}: a list of operations is needed")
    work = _Import()
    for i, item in enumerate(value):
        try:
            work.add(_parsed(item))
        except (KeyError, TypeError, ValueError, IndexError) as error:
            label = item.get("name", "?") if isinstance(item, dict) else "?"
            raise TraceError(f"{source}: operation {i} {label!r}: {_reason(error)}") from error
    used = dict.fromkeys(t for op in work.ops for t in (*op.inputs, *op.outputs))
    parents = dict.fromkeys(of for t in used if (of := work.tensors[t].grad_of))
    tensors = {t: work.tensors[t] for t in {**used, **parents}}
    meta = {"made_by": "npusim.trace.tinyengine", "method": "mcunetv3 sparse update", "batch": 1}
    graph = StepGraph(name, tuple(work.ops), tensors, meta=meta)
    try:
        graph.verify()
    except TraceError as error:
        raise TraceError(f"{source}: {error}") from None
    return graph


def _reason(error: Exception) -> str:
    return f"missing {error}" if isinstance(error, KeyError) else str(error)


@dataclass(frozen=True, slots=True)
class _Item:
    name: str
    type: str
    attrs: dict[str, Any]
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]


def _parsed(item: Any) -> _Item:
    if not isinstance(item, dict):
        raise TypeError("is not an object")
    found = _Item(item["name"], item["type"], item["attrs"], item["inputs"], item["outputs"])
    if not isinstance(found.name, str) or not isinstance(found.type, str) or not isinstance(found.attrs, dict):
        raise TypeError("name, type or attrs has the wrong type")
    if not isinstance(found.inputs, list) or not isinstance(found.outputs, list) or len(found.outputs) != 1:
        raise TypeError("inputs and outputs must be lists, with one output")
    for tensor in (*found.inputs, *found.outputs):
        sizes = tensor["shape"]
        if not isinstance(tensor["name"], str) or not isinstance(sizes, list):
            raise TypeError("a tensor needs a name and a shape")
        if not all(type(n) is int and 1 <= n < 2**31 for n in sizes):
            raise ValueError(f"tensor {tensor['name']!r} has the shape {sizes}")
    return found


@dataclass(slots=True)
class _Import:
    """A step under construction."""

    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    alias: dict[str, str] = field(default_factory=dict)
    readers: dict[str, Op] = field(default_factory=dict)
    casts: dict[str, str] = field(default_factory=dict)
    factors: dict[str, list[str]] = field(default_factory=dict)
    backward: bool = False

    def add(self, item: _Item) -> None:
        if item.type in CONSTANTS:
            return
        if item.type in ALIASES:
            self.alias[item.outputs[0]["name"]] = self.base(item.inputs[0]["name"])
            self.use(item.inputs[0])
            return
        match item.type:
            case "nn.mcuconv2d":
                self.convolution(item)
            case "nn.conv2d_transpose":
                self.grad_input(item)
            case "nn.conv2d":
                self.grad_weight(item)
            case "mcumean":
                n, c, h, w = self.use(item.inputs[0]).shape
                self.emit(item, "pool", Pool(n, c, h, w, 1, 1, h, w, (h, w), adaptive=True), item.inputs[:1])
            case "sum" if item.attrs.get("exclude") == 1 and self.backward:
                self.bias_gradient(item)
            case _ if item.type in FORWARD:
                count = 2 if item.type == "nn.mcuadd" else 1
                self.emit(item, FORWARD[item.type], self.vector(item), item.inputs[:count])
            case _ if item.type in ELEMENTWISE:
                self.elementwise(item)
            case _:
                raise ValueError(f"unknown type {item.type!r}")

    def base(self, name: str) -> str:
        return self.alias.get(name, name)

    def use(self, value: dict[str, Any], kind: str = "") -> Tensor:
        """The tensor of an operand; what nothing wrote is a parameter, or the input."""
        name = self.base(value["name"])
        if name not in self.tensors:
            if not kind:
                kind = "activation" if name in ("input", "label") else "weight"
            self.tensors[name] = Tensor(name, tuple(value["shape"]), kind, str(value.get("dtype", "float32")))
        return self.tensors[name]

    def emit(
        self, item: _Item, kind: str, dims: Any, reads: list[dict[str, Any]], phase: str = "", param: str = "",
        grad_of: str = "", name: str = "",
    ) -> Op:  # fmt: skip
        out = item.outputs[0]
        inputs = tuple(dict.fromkeys(self.use(value).name for value in reads if not _constant(value["name"])))
        boolean = out.get("dtype") == "bool"
        tensor_kind = "mask" if boolean else "gradient" if self.backward else "activation"
        if grad_of:
            tensor_kind = "weight_gradient"
        self.tensors[out["name"]] = Tensor(
            out["name"], tuple(out["shape"]), tensor_kind, str(out.get("dtype", "float32")), grad_of
        )
        phase = phase or ("grad_input" if self.backward else "forward")
        op = Op(name or item.name, phase, kind, dims, inputs, (out["name"],), param)
        self.ops.append(op)
        self.backward = self.backward or item.type == LOSS
        return op

    def vector(self, item: _Item) -> Vector:
        elements = 1
        for size in item.outputs[0]["shape"]:
            elements *= size
        return Vector(elements)

    def elementwise(self, item: _Item) -> None:
        reads = [value for value in item.inputs if self.base(value["name"]) in self.tensors or not self.zero(value)]
        self.emit(item, "elementwise", self.vector(item), reads)
        out = item.outputs[0]["name"]
        if item.type == "cast":
            self.casts[out] = self.base(item.inputs[0]["name"])
        self.factors[out] = [self.base(value["name"]) for value in item.inputs]

    def zero(self, value: dict[str, Any]) -> bool:
        """Whether an operand is a constant that `zeros` or `ones` made, or a scalar of the compiler."""
        return value["name"].startswith(("out_zeros@", "out_ones@")) or _constant(value["name"])

    def source(self, name: str) -> str:
        """The int8 tensor that a float one was cast from."""
        name = self.base(name)
        return self.casts.get(name, name)

    def convolution(self, item: _Item) -> None:
        x, weight = item.inputs[:2]
        n, c, h, w = x["shape"]
        k, per_group, r, s = weight["shape"]
        dims = Conv(n, c, h, w, k, r, s, *_window(item.attrs), groups=_groups(item.attrs))
        if per_group * dims.groups != c or [n, k, dims.p, dims.q] != item.outputs[0]["shape"]:
            raise ValueError("its input, weight and output do not fit together")
        module = weight["name"].removesuffix("_weight")
        op = self.emit(item, "conv", dims, [x, weight], param=weight["name"], name=module)
        self.readers[op.inputs[0]] = op

    def grad_input(self, item: _Item) -> None:
        dy, weight = item.inputs
        n, c, h, w = item.outputs[0]["shape"]
        k, _, r, s = weight["shape"]
        dims = Conv(n, c, h, w, k, r, s, *_window(item.attrs), groups=_groups(item.attrs))
        if [n, k, dims.p, dims.q] != dy["shape"]:
            raise ValueError("its input, weight and output do not fit together")
        param = self.source(weight["name"])
        self.emit(item, "conv", dims, [dy, weight], param=param, name=param.removesuffix("_weight"))

    def grad_weight(self, item: _Item) -> None:
        """out[1, c*k, R, S] of X[1, c, H, W] with dY repeated c times as kernel: dW of c input channels."""
        x, dy = item.inputs
        n, c, h, w = x["shape"]
        products, r, s = item.outputs[0]["shape"][1:]
        origin = self.source(x["name"])
        forward = self.readers.get(origin)
        if forward is None or not isinstance(forward.dims, Conv) or c < 1 or products % c:
            raise ValueError(f"no convolution reads {origin!r}")
        f = forward.dims
        depthwise = f.groups > 1
        dims = Conv(n, c, h, w, c if depthwise else products // c, r, s, f.stride, f.padding, f.dilation,
                    c if depthwise else 1)  # fmt: skip
        if (dims.p, dims.q) != tuple(dy["shape"][2:]) or (r, s) != (f.r, f.s):
            raise ValueError("its X and dY do not fit the layer's forward operation")
        part = self.base(x["name"])
        view = part
        if c < self.tensors[part].shape[1]:
            view = f"{part}[:{c}]"
            self.tensors[view] = Tensor(view, (n, c, h, w), "activation", self.tensors[part].dtype)
        op = self.emit(item, "conv", dims, [dy], "grad_weight", forward.param, forward.param, forward.name)
        self.ops[-1] = Op(op.name, op.phase, op.kind, dims, (self.base(dy["name"]), view), op.outputs, op.param)

    def bias_gradient(self, item: _Item) -> None:
        read = self.base(item.inputs[0]["name"])
        scales = [name for name in self.factors.get(read, []) if name.endswith("_scale")]
        bias = f"{scales[0].removesuffix('_scale')}_bias" if scales else f"{item.name}_bias"
        elements = self.tensors[read].elements
        self.tensors.setdefault(bias, Tensor(bias, tuple(item.outputs[0]["shape"]), "weight", "int32"))
        self.emit(item, "bias_grad", Vector(elements), item.inputs, "grad_weight", bias, bias,
                  bias.removesuffix("_bias"))  # fmt: skip


def _constant(name: str) -> bool:
    return name.endswith("-constant")


def _groups(attrs: dict[str, Any]) -> int:
    groups = attrs["groups"]
    if type(groups) is not int or groups < 1:
        raise ValueError(f"groups = {groups!r}")
    return groups


def _window(attrs: dict[str, Any]) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Stride, padding and dilation."""
    stride, padding, dilation = attrs["strides"], attrs["padding"], attrs["dilation"]
    if len(padding) != 4 or padding[:2] != padding[2:]:
        raise ValueError(f"padding = {padding}: equal on both sides is needed")
    pairs = [tuple(int(n) for n in values) for values in (stride, padding[:2], dilation)]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("stride, padding and dilation need two numbers")
    if min(pairs[0] + pairs[2]) < 1 or min(pairs[1]) < 0:
        raise ValueError(
            f"strides = {stride}, padding = {padding}, dilation = {dilation}: 1 or more, padding 0 or more"
        )
    return pairs[0][:2], pairs[1][:2], pairs[2][:2]  # type: ignore[return-value]
