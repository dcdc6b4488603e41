"""Training steps from forward-only layer lists: the backward phases and updates are synthesised.

| layer kind     | reads | parameters                                                                              |
|----------------|-------|-----------------------------------------------------------------------------------------|
| `input`        | 0     | `shape` (batch, channels, rows, columns, or batch first of any rank)                     |
| `conv`         | 1     | `out`, `kernel`, `stride`, `padding`, `dilation`, `groups`, `bias`                       |
| `linear`       | 1     | `out`, `bias`; the last dimension is the features                                        |
| `matmul`       | 2     | A[..., M, K] B[..., K, N]; with `transposed` B is [..., N, K]                            |
| `batch_norm`, `layer_norm` | 1 | scale and shift                                                                 |
| `activation`, `softmax` | 1 |                                                                                    |
| `add`, `mul`   | 2     |                                                                                         |
| `pool`         | 1     | `kernel`, `stride` (default: the kernel), `padding`, `average`; or `size`: adaptive average |
| `flatten`, `view` | 1  | no operation; `view` takes `shape` behind the batch                                      |
| `softmax_loss` | 1     | appended when the list does not end with it                                              |

`inputs` names the layers that are read; it defaults to the one before.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from npusim.errors import NpusimError, closest
from npusim.graph import Conv, Dims, Gemm, Op, Pool, StepGraph, Tensor, Vector

STATES = {"sgd": (), "momentum": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}
READS = {"input": 0, "matmul": 2, "add": 2, "mul": 2}
KINDS = (
    "input", "conv", "linear", "matmul", "batch_norm", "layer_norm", "activation", "softmax", "add", "mul", "pool",
    "flatten", "view", "softmax_loss",
)  # fmt: skip
Size = int | tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of a forward-only list; sizes are one number or (rows, columns)."""

    name: str
    kind: str
    inputs: tuple[str, ...] = ()
    shape: tuple[int, ...] = ()
    out: int = 0
    kernel: Size = 1
    stride: Size = 0
    padding: Size = 0
    dilation: Size = 1
    groups: int = 1
    bias: bool = False
    transposed: bool = False
    average: bool = False
    size: Size = 0


def from_layers(
    layers: Iterable[Layer | Mapping[str, Any]],
    name: str,
    optimizer: str = "sgd",
    meta: Mapping[str, Any] | None = None,
) -> StepGraph:
    """One whole training step: forward, gradients in reverse order, updates.

    A value gets a gradient when a parameter lies before it, so the first layer has no grad_input; a value
    read twice gets its gradients added. Tensors are named as in a captured step. NpusimError lists every
    layer that is wrong.
    """
    if optimizer not in STATES:
        raise NpusimError(f"unknown optimizer {optimizer!r}; allowed: {', '.join(STATES)}")
    step = _Step()
    for layer in _checked(layers, name):
        try:
            step.forward(layer)
        except _Misfit as problem:
            raise NpusimError(f"{name}: layer {layer.name!r} ({layer.kind}): {problem}") from None
    step.backward()
    step.updates(optimizer)
    return _finish(step, name, meta or {})


def from_file(path: str | Path) -> StepGraph:
    """The step of a layer list in TOML: `name`, `optimizer`, `meta`, and `layers`, an array of tables."""
    try:
        value = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NpusimError(f"{path}: cannot be read as a layer list: {error}") from error
    unknown = sorted(set(value) - {"name", "optimizer", "meta", "layers"})
    if unknown or not isinstance(value.get("layers"), list) or not isinstance(value.get("name"), str):
        what = f"unknown key {unknown[0]!r}" if unknown else "needs 'name' and 'layers'"
        raise NpusimError(f"{path}: {what}; allowed: name, optimizer, meta, layers")
    return from_layers(value["layers"], value["name"], value.get("optimizer", "sgd"), value.get("meta"))


class _Misfit(Exception):
    """A layer that does not fit its inputs."""


def _checked(layers: Iterable[Layer | Mapping[str, Any]], name: str) -> list[Layer]:
    """Layers with explicit inputs; every mistake that needs no shapes is reported together."""
    known = [f.name for f in fields(Layer)]
    result: list[Layer] = []
    bad: list[str] = []
    for i, item in enumerate(layers):
        value: dict[str, Any] = {key: getattr(item, key) for key in known} if isinstance(item, Layer) else dict(item)
        label = f"layer {i} {value.get('name', '')!r}"
        bad += [f"{label}: unknown key {key!r}{closest(str(key), known)}" for key in value if key not in known]
        value = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items() if key in known}
        if not isinstance(value.get("name"), str) or not value["name"] or value.get("kind") not in KINDS:
            bad.append(f"{label}: needs a name and a kind of {', '.join(KINDS)}")
            continue
        layer = Layer(
            **{**value, "inputs": value.get("inputs") or (() if i == 0 else (result[-1].name,) if result else ())}
        )
        bad += [f"{label}: {text}" for text in _layer_problems(layer, result)]
        result.append(layer)
    if not result or result[0].kind != "input":
        bad.append("the first layer must be an 'input' with a shape")
    if bad:
        raise NpusimError(f"layer list {name!r}:\n  " + "\n  ".join(bad))
    if result[-1].kind != "softmax_loss":
        result.append(Layer("softmax_loss", "softmax_loss", (result[-1].name,)))
    return result


def _layer_problems(layer: Layer, earlier: list[Layer]) -> list[str]:
    names = [item.name for item in earlier]
    bad = [f"the name {layer.name!r} is used twice"] if layer.name in names else []
    needed = READS.get(layer.kind, 1)
    if layer.kind != "input":
        bad += [
            f"reads {i!r}, which no earlier layer is{closest(str(i), names)}" for i in layer.inputs if i not in names
        ]
        if len(layer.inputs) != needed:
            bad.append(f"reads {len(layer.inputs)} layers, {layer.kind} reads {needed}")
    if layer.kind in ("conv", "linear") and not _whole(layer.out, 1):
        bad.append(f"out = {layer.out!r}; a whole number from 1 up is needed")
    if layer.kind in ("input", "view") and not (layer.shape and all(_whole(n, 1) for n in layer.shape)):
        bad.append(f"shape = {layer.shape!r}; whole numbers from 1 up are needed")
    for key, least in (("kernel", 1), ("stride", 0), ("padding", 0), ("dilation", 1), ("size", 0)):
        value = getattr(layer, key)
        parts = value if isinstance(value, tuple) else (value,)
        if len(parts) not in (1, 2) or not all(_whole(n, least) for n in parts):
            bad.append(f"{key} = {value!r}; one or two whole numbers from {least} up are needed")
    if not _whole(layer.groups, 1):
        bad.append(f"groups = {layer.groups!r}; a whole number from 1 up is needed")
    return bad


def _whole(value: Any, least: int) -> bool:
    return type(value) is int and least <= value < 2**40


def _pair(value: Size) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


@dataclass(slots=True)
class _Value:
    """What a layer computes: its tensor, its shape now (views change it), whether a gradient is wanted."""

    tensor: str
    shape: tuple[int, ...]
    wanted: bool


@dataclass(slots=True)
class _Record:
    layer: Layer
    dims: Dims
    reads: list[_Value]
    result: _Value


@dataclass(slots=True)
class _Step:
    """A step under construction."""

    ops: list[Op] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, _Value] = field(default_factory=dict)
    records: list[_Record] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    gradients: dict[str, str] = field(default_factory=dict)
    waiting: list[tuple[str, str]] = field(default_factory=list)
    _used: dict[str, int] = field(default_factory=dict)

    def tensor(self, name: str, shape: tuple[int, ...], kind: str, grad_of: str = "") -> str:
        self._used[name] = self._used.get(name, 0) + 1
        name = name if self._used[name] == 1 else f"{name}@{self._used[name]}"
        self.tensors[name] = Tensor(name, shape, kind, grad_of=grad_of)
        return name

    def parameter(self, layer: Layer, part: str, shape: tuple[int, ...]) -> str:
        name = self.tensor(f"{layer.name}.{part}", shape, "weight")
        self.parameters.append(name)
        return name

    def forward(self, layer: Layer) -> None:
        if layer.kind == "input":
            name = self.tensor("input", layer.shape, "activation")
            self.values[layer.name] = _Value(name, layer.shape, False)
            return
        reads = [self.values[name] for name in layer.inputs]
        first = reads[0]
        if layer.kind in ("flatten", "view"):
            rest = layer.shape or (_product(first.shape[1:]),)
            if _product(rest) * first.shape[0] != _product(first.shape):
                raise _Misfit(f"{_text(first.shape)} cannot be viewed as {_text((first.shape[0], *rest))}")
            self.values[layer.name] = _Value(first.tensor, (first.shape[0], *rest), first.wanted)
            return
        dims, shape = _shapes(layer, [value.shape for value in reads])
        inputs, param = [value.tensor for value in reads], ""
        if layer.kind in ("conv", "linear"):
            assert isinstance(dims, Conv)
            taps = (dims.r, dims.s) if layer.kind == "conv" else ()
            param = self.parameter(layer, "weight", (dims.k, dims.c // dims.groups, *taps))
        elif layer.kind in ("batch_norm", "layer_norm"):
            features = (first.shape[1 if layer.kind == "batch_norm" else -1],)
            param = self.parameter(layer, "weight", features)
        if layer.bias or layer.kind in ("batch_norm", "layer_norm"):
            self.parameter(layer, "bias", (layer.out,) if layer.bias else self.tensors[param].shape)
        output = self.tensor(f"{layer.name}:y", shape, "activation")
        wanted = bool(param) or any(value.wanted for value in reads)
        self.values[layer.name] = _Value(output, shape, wanted)
        names = dict.fromkeys([*inputs, *([param] if param else [])])
        self.ops.append(Op(layer.name, "forward", layer.kind, dims, tuple(names), (output,), param))
        self.records.append(_Record(layer, dims, reads, self.values[layer.name]))

    def backward(self) -> None:
        for record in reversed(self.records):
            if record.result.wanted and (record.layer.kind == "softmax_loss" or record.result.tensor in self.gradients):
                self._gradients_of(record)
                for value, gradient in self.waiting:
                    self._arrive(value, gradient)
                self.waiting.clear()

    def _gradients_of(self, record: _Record) -> None:
        layer, reads, y = record.layer, record.reads, record.result.tensor
        dy = self.gradients.get(y, "")
        weight, x = f"{layer.name}.weight", reads[0]
        match layer.kind:
            case "conv" | "linear":
                if x.wanted:
                    self._to(record, x, (dy, weight), weight)
                self._parameter_gradient(record, weight, (dy, x.tensor), layer.kind, record.dims)
                if layer.bias:
                    elements = self.tensors[y].elements
                    self._parameter_gradient(record, f"{layer.name}.bias", (dy,), "bias_grad", Vector(elements))
            case "batch_norm" | "layer_norm":
                extra = tuple(
                    self.tensor(f"{p}.grad", self.tensors[p].shape, "weight_gradient", p)
                    for p in (weight, f"{layer.name}.bias")
                )
                self._to(record, x, (dy, x.tensor), weight, extra)
            case "add":
                for value in reads:
                    if value.wanted:
                        self.waiting.append((value.tensor, dy))
            case "matmul" | "mul":
                self._two_operands(record, dy)
            case "softmax_loss":
                self._to(record, x, (y,))
            case "pool":
                keeps = layer.size == 0 and not layer.average
                self._to(record, x, (dy, x.tensor) if keeps else (dy,))
            case _:
                self._to(record, x, (dy, y))

    def _two_operands(self, record: _Record, dy: str) -> None:
        """dA = dC B^T, dB = A^T dC; of a product of equal shapes, dA = dC * B, dB = A * dC."""
        a, b = record.reads
        for value, other in ((a, b), (b, a)):
            if not value.wanted:
                continue
            dims = record.dims
            if isinstance(dims, Gemm):
                n = dims
                dims = Gemm(n.batch, n.m, n.k, n.n) if value is a else Gemm(n.batch, n.k, n.n, n.m)
            self._to(record, value, (dy, other.tensor), dims=dims)

    def _to(
        self,
        record: _Record,
        value: _Value,
        inputs: tuple[str, ...],
        param: str = "",
        extra: tuple[str, ...] = (),
        dims: Dims | None = None,
    ) -> None:
        """One grad_input op; its result waits for the layer's other gradients, as autograd adds them last."""
        outputs = extra
        if value.wanted:
            shape = self.tensors[value.tensor].shape
            outputs = (self.tensor(f"{value.tensor}.grad", shape, "gradient", value.tensor), *extra)
        layer = record.layer
        self.ops.append(Op(layer.name, "grad_input", layer.kind, dims or record.dims, inputs, outputs, param))
        if value.wanted:
            self.waiting.append((value.tensor, outputs[0]))

    def _arrive(self, value: str, gradient: str) -> None:
        """Note a gradient of `value`; a second one is added to the first."""
        if value not in self.gradients:
            self.gradients[value] = gradient
            return
        tensor = self.tensors[value]
        total = self.tensor(f"{value}.grad", tensor.shape, "gradient", value)
        inputs = (self.gradients[value], gradient)
        name = f"{value.split(':')[0]}.accumulate"
        self._used[name] = self._used.get(name, 0) + 1
        name = name if self._used[name] == 1 else f"{name}@{self._used[name]}"
        self.ops.append(Op(name, "grad_input", "add", Vector(tensor.elements), inputs, (total,)))
        self.gradients[value] = total

    def _parameter_gradient(self, record: _Record, param: str, inputs: tuple[str, ...], kind: str, dims: Dims) -> None:
        out = self.tensor(f"{param}.grad", self.tensors[param].shape, "weight_gradient", param)
        self.ops.append(Op(record.layer.name, "grad_weight", kind, dims, inputs, (out,), param))

    def updates(self, optimizer: str) -> None:
        for param in self.parameters:
            if f"{param}.grad" not in self.tensors:
                continue
            shape = self.tensors[param].shape
            state = tuple(self.tensor(f"{param}.{part}", shape, "state") for part in STATES[optimizer])
            module, dims = param.rpartition(".")[0], Vector(self.tensors[param].elements)
            self.ops.append(
                Op(module, "update", optimizer, dims, (param, f"{param}.grad", *state), (param, *state), param)
            )


def _finish(step: _Step, name: str, meta: Mapping[str, Any]) -> StepGraph:
    batch = step.tensors["input"].shape[0]
    notes = {"made_by": "npusim.synthesis.from_layers", "method": "dense", "batch": batch, **meta}
    graph = StepGraph(name, tuple(step.ops), step.tensors, meta=notes)
    graph.verify()
    return graph


def _shapes(layer: Layer, shapes: list[tuple[int, ...]]) -> tuple[Dims, tuple[int, ...]]:
    """Dimensions of the op and the shape of its result."""
    x = shapes[0]
    match layer.kind:
        case "conv":
            return _conv(layer, x)
        case "linear":
            return Conv(_product(x[:-1]), x[-1], 1, 1, layer.out), (*x[:-1], layer.out)
        case "matmul":
            return _matmul(layer, *shapes)
        case "pool":
            return _pool(layer, x)
        case "add" | "mul":
            if shapes[0] != shapes[1]:
                raise _Misfit(f"its inputs have the shapes {_text(shapes[0])} and {_text(shapes[1])}")
    return Vector(_product(x)), x


def _image(x: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(x) != 4:
        raise _Misfit(f"needs batch x channels x rows x columns, its input is {_text(x)}")
    return x[0], x[1], x[2], x[3]


def _conv(layer: Layer, x: tuple[int, ...]) -> tuple[Dims, tuple[int, ...]]:
    n, c, h, w = _image(x)
    stride = _pair(layer.stride or 1)
    r, s = _pair(layer.kernel)
    dims = Conv(n, c, h, w, layer.out, r, s, stride, _pair(layer.padding), _pair(layer.dilation), layer.groups)
    if c % layer.groups or layer.out % layer.groups:
        raise _Misfit(f"groups = {layer.groups} does not divide its {c} input and {layer.out} output channels")
    if dims.p < 1 or dims.q < 1:
        raise _Misfit(f"its window {r}x{s} does not fit {h}x{w}")
    return dims, (n, layer.out, dims.p, dims.q)


def _matmul(layer: Layer, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Dims, tuple[int, ...]]:
    if len(a) < 3 or len(a) != len(b) or a[:-2] != b[:-2]:
        raise _Misfit(f"{_text(a)} and {_text(b)} are not batches of matrices of one batch shape")
    rows, columns = (b[-1], b[-2]) if layer.transposed else (b[-2], b[-1])
    if rows != a[-1]:
        raise _Misfit(f"{_text(a)} has {a[-1]} columns, its second operand {rows} rows")
    return Gemm(_product(a[:-2]), a[-2], columns, a[-1]), (*a[:-1], columns)


def _pool(layer: Layer, x: tuple[int, ...]) -> tuple[Dims, tuple[int, ...]]:
    n, c, h, w = _image(x)
    if layer.size:
        p, q = _pair(layer.size)
        stride = (max(h // p, 1), max(w // q, 1))
        return Pool(n, c, h, w, p, q, -(-h // p), -(-w // q), stride, adaptive=True), (n, c, p, q)
    (r, s), padding = _pair(layer.kernel), _pair(layer.padding)
    stride = _pair(layer.stride or layer.kernel)
    p = (h + 2 * padding[0] - r) // stride[0] + 1
    q = (w + 2 * padding[1] - s) // stride[1] + 1
    if p < 1 or q < 1:
        raise _Misfit(f"its window {r}x{s} does not fit {h}x{w}")
    return Pool(n, c, h, w, p, q, r, s, stride, padding), (n, c, p, q)


def _product(sizes: Iterable[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def _text(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
