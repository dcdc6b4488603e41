"""Training steps from forward-only layer lists: the backward phases and updates are synthesised.

The table of layer kinds and their keys is in `npusim.layers`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from npusim.config import read_toml
from npusim.errors import NpusimError
from npusim.graph import Conv, Dims, Gemm, Op, StepGraph, Tensor, Vector
from npusim.layers import Layer, Misfit, checked, product, shapes, text_of

STATES = {"sgd": (), "momentum": ("momentum_buffer",), "adam": ("exp_avg", "exp_avg_sq")}


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
    if not isinstance(optimizer, str) or optimizer not in STATES:
        raise NpusimError(f"unknown optimizer {optimizer!r}; allowed: {', '.join(STATES)}")
    step = _Step()
    for layer in checked(layers, name):
        try:
            step.forward(layer)
        except Misfit as problem:
            raise NpusimError(f"{name}: layer {layer.name!r} ({layer.kind}): {problem}") from None
    step.backward()
    step.updates(optimizer)
    return _finish(step, name, meta or {})


def from_file(path: str | Path, name: str = "", optimizer: str = "") -> StepGraph:
    """The step of a layer list in TOML: `name`, `optimizer`, `meta`, and `layers`, an array of tables.

    `name` and `optimizer`, when given, replace those of the file. NpusimError names the file.
    """
    value = read_toml(path)
    unknown = sorted(set(value) - {"name", "optimizer", "meta", "layers"})
    if (
        unknown
        or not isinstance(value.get("layers"), list)
        or not isinstance(value.get("name"), str)
        or not isinstance(value.get("meta", {}), dict)
    ):
        what = f"unknown key {unknown[0]!r}" if unknown else "needs 'name', 'layers' and, if any, 'meta' as a table"
        raise NpusimError(f"{path}: {what}; allowed: name, optimizer, meta, layers")
    chosen = optimizer or value.get("optimizer", "sgd")
    try:
        return from_layers(value["layers"], name or value["name"], chosen, value.get("meta"))
    except NpusimError as error:
        raise NpusimError(f"{path}: {error}") from None


@dataclass(slots=True)
class _Value:
    """What a layer computes: its tensor, its shape now (views change it), whether a gradient is wanted.

    Gradients are gathered under `key`, which is the tensor unless the value is only a part of it or a parameter;
    their tensor has the shape `grad_shape`.
    """

    tensor: str
    shape: tuple[int, ...]
    wanted: bool
    key: str
    grad_shape: tuple[int, ...]


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
    waiting: list[tuple[_Value, str]] = field(default_factory=list)
    weight_gradients: dict[str, str] = field(default_factory=dict)
    first_part: dict[str, str] = field(default_factory=dict)
    _used: dict[str, int] = field(default_factory=dict)

    def _unique(self, name: str) -> str:
        self._used[name] = self._used.get(name, 0) + 1
        return name if self._used[name] == 1 else f"{name}@{self._used[name]}"

    def tensor(self, name: str, shape: tuple[int, ...], kind: str, grad_of: str = "") -> str:
        name = self._unique(name)
        self.tensors[name] = Tensor(name, shape, kind, grad_of=grad_of)
        return name

    def parameter(self, layer: Layer, part: str, shape: tuple[int, ...]) -> str:
        name = self.tensor(f"{layer.name}.{part}", shape, "weight")
        self.parameters.append(name)
        return name

    def forward(self, layer: Layer) -> None:
        if layer.kind == "input":
            name = self.tensor("input", layer.shape, "activation")
            self.values[layer.name] = _Value(name, layer.shape, False, name, layer.shape)
            return
        reads = [self.values[name] for name in layer.inputs]
        if layer.kind in ("flatten", "view", "part"):
            self._view(layer, reads[0])
            return
        if layer.kind == "parameter":
            name = self.parameter(layer, "weight", layer.shape)
            value = _Value(name, layer.shape, True, f"{layer.name}:y", layer.shape)
            self.values[layer.name] = value
            self.records.append(_Record(layer, Vector(product(layer.shape)), [], value))
            return
        dims, shape = shapes(layer, [value.shape for value in reads])
        param = self._parameters(layer, dims, reads[0].shape)
        output = self.tensor(f"{layer.name}:y", shape, "activation")
        wanted = bool(param) or any(value.wanted for value in reads)
        value = _Value(output, shape, wanted, output, shape)
        self.values[layer.name] = value
        if layer.kind == "add" and reads[0].shape != reads[1].shape and self.tensors[reads[1].tensor].kind != "weight":
            raise Misfit(f"its inputs have the shapes {text_of(reads[0].shape)} and {text_of(reads[1].shape)}")
        names = [*(value.tensor for value in reads), *([param] if param else [])]
        inputs = tuple(names if layer.kind == "matmul" else dict.fromkeys(names))
        kind = "elementwise" if layer.kind in ("embedding", "concat") else layer.kind
        self.ops.append(Op(layer.name, "forward", kind, dims, inputs, (output,), param))
        self.records.append(_Record(layer, dims, reads, value))

    def _view(self, layer: Layer, source: _Value) -> None:
        """Another arrangement of a value, or a part of it: no operation."""
        shape = (source.shape[0], *(layer.shape or (product(source.shape[1:]),)))
        shape = layer.shape if layer.whole else shape
        if layer.kind == "part":
            if product(shape) > product(source.shape):
                raise Misfit(f"{text_of(source.shape)} has no part {text_of(shape)}")
            value = replace(source, shape=shape, key=f"{layer.name}:y", grad_shape=shape)
            self.first_part.setdefault(source.key, layer.name)
            self.records.append(_Record(layer, Vector(product(source.shape), 1), [source], value))
        elif product(shape) != product(source.shape):
            raise Misfit(f"{text_of(source.shape)} cannot be viewed as {text_of(shape)}")
        else:
            value = replace(source, shape=shape)
        self.values[layer.name] = value

    def _parameters(self, layer: Layer, dims: Dims, x: tuple[int, ...]) -> str:
        """Make the layer's parameters; the name of its weight, '' when it has none."""
        match layer.kind:
            case "conv" | "linear":
                assert isinstance(dims, Conv)
                taps = (dims.r, dims.s) if layer.kind == "conv" else ()
                shape: tuple[int, ...] = (dims.k, dims.c // dims.groups, *taps)
            case "batch_norm" | "layer_norm":
                shape = (layer.out or x[1 if layer.kind == "batch_norm" else -1],)
            case "embedding":
                shape = (layer.rows, layer.out)
            case _:
                return ""
        param = f"{layer.tied}.weight" if layer.tied else self.parameter(layer, "weight", shape)
        if self.tensors[param].shape != shape:
            raise Misfit(f"the weight of {layer.tied!r} is {text_of(self.tensors[param].shape)}, not {text_of(shape)}")
        if layer.bias or (layer.kind in ("batch_norm", "layer_norm") and layer.shift):
            self.parameter(layer, "bias", shape[:1])
        return param

    def backward(self) -> None:
        parts: dict[str, list[str]] = {}
        for record in reversed(self.records):
            arrived = record.layer.kind == "softmax_loss" or record.result.key in self.gradients
            if record.layer.kind == "part":
                self._part(record, parts)
            elif record.result.wanted and arrived:
                self._gradients_of(record)
            for value, gradient in self.waiting:
                self._arrive(value, gradient)
            self.waiting.clear()

    def _part(self, record: _Record, parts: dict[str, list[str]]) -> None:
        """The gradient of a value that is read in parts: theirs are copied into it, the rest is zero."""
        (source,) = record.reads
        found = parts.setdefault(source.key, [])
        if record.result.key in self.gradients:
            found.append(self.gradients[record.result.key])
        if self.first_part[source.key] == record.layer.name and found and source.wanted:
            self._to(record, source, tuple(found[::-1]), kind="elementwise")

    def _gradients_of(self, record: _Record) -> None:
        layer, reads, y = record.layer, record.reads, record.result.tensor
        dy = self.gradients.get(record.result.key, "")
        weight = f"{layer.tied or layer.name}.weight"
        match layer.kind:
            case "conv" | "linear":
                x = reads[0]
                if x.wanted:
                    self._to(record, x, (dy, weight), weight)
                self._parameter_gradient(record, weight, (dy, x.tensor), layer.kind, record.dims)
                if layer.bias:
                    elements = self.tensors[y].elements
                    self._parameter_gradient(record, f"{layer.name}.bias", (dy,), "bias_grad", Vector(elements))
            case "batch_norm" | "layer_norm":
                names = (weight, f"{layer.name}.bias") if layer.shift else (weight,)
                extra = tuple(self._new_weight_gradient(name) for name in names)
                self._to(record, reads[0], (dy, reads[0].tensor), weight, extra)
            case "embedding":
                self._parameter_gradient(record, weight, (dy,), "elementwise", record.dims)
            case "parameter":
                total = Vector(self.tensors[dy].elements)
                self._parameter_gradient(record, weight, (dy,), "bias_grad", total)
            case "add":
                self.waiting += [(value, dy) for value in reads if value.wanted]
            case "concat":
                self._split(record, dy)
            case "elementwise":
                for value in reads:
                    if value.wanted:
                        others = [other.tensor for other in reads] if layer.of_input else []
                        self._to(record, value, tuple(dict.fromkeys([dy, *others])))
            case "matmul" | "mul":
                self._two_operands(record, dy)
            case "softmax_loss":
                self._to(record, reads[0], (y,))
            case "pool":
                keeps = layer.size == 0 and not layer.average
                self._to(record, reads[0], (dy, reads[0].tensor) if keeps else (dy,))
            case _:
                self._to(record, reads[0], (dy, reads[0].tensor if layer.of_input else y))

    def _split(self, record: _Record, dy: str) -> None:
        """The gradient of a concatenation is copied apart, in one operation."""
        batch = record.result.shape[0]
        outputs, elements = [], 0
        for value in record.reads:
            if value.wanted:
                shape = value.grad_shape if value.shape[0] == batch else (batch, *value.shape[1:])
                gradient = self._new_gradient(value, shape)
                outputs.append(gradient)
                elements += product(shape)
                self.waiting.append((value, gradient))
        dims = Vector(elements, 1)
        self.ops.append(Op(record.layer.name, "grad_input", "elementwise", dims, (dy,), tuple(outputs)))

    def _two_operands(self, record: _Record, dy: str) -> None:
        """dA = dC B^T, dB = A^T dC; of a product of equal shapes, dA = dC * B, dB = A * dC. Operands in this order."""
        a, b = record.reads
        d = record.dims
        if a.wanted:
            dims = Gemm(d.batch, d.m, d.k, d.n) if isinstance(d, Gemm) else d
            self._to(record, a, (dy, b.tensor), dims=dims)
        if b.wanted:
            dims = Gemm(d.batch, d.k, d.n, d.m) if isinstance(d, Gemm) else d
            self._to(record, b, (a.tensor, dy), dims=dims)

    def _new_gradient(self, value: _Value, shape: tuple[int, ...]) -> str:
        of = value.tensor if self.tensors[value.tensor].kind == "activation" else ""
        return self.tensor(f"{value.key}.grad", shape, "gradient", of)

    def _to(
        self,
        record: _Record,
        value: _Value,
        inputs: tuple[str, ...],
        param: str = "",
        extra: tuple[str, ...] = (),
        dims: Dims | None = None,
        kind: str = "",
    ) -> None:
        """One grad_input op; its result waits for the layer's other gradients, as autograd adds them last."""
        outputs = extra
        if value.wanted:
            outputs = (self._new_gradient(value, value.grad_shape), *extra)
            self.waiting.append((value, outputs[0]))
        layer = record.layer
        self.ops.append(Op(layer.name, "grad_input", kind or layer.kind, dims or record.dims, inputs, outputs, param))

    def _arrive(self, value: _Value, gradient: str) -> None:
        """Note a gradient of `value`; a second one is added to the first."""
        if value.key not in self.gradients:
            self.gradients[value.key] = gradient
            return
        total = self._new_gradient(value, self.tensors[gradient].shape)
        inputs = (self.gradients[value.key], gradient)
        name = self._unique(f"{value.key.split(':')[0]}.accumulate")
        self.ops.append(Op(name, "grad_input", "add", Vector(self.tensors[total].elements), inputs, (total,)))
        self.gradients[value.key] = total

    def _new_weight_gradient(self, param: str) -> str:
        """The tensor of one gradient of `param`; the update reads it unless another is added to it."""
        name = self.tensor(f"{param}.grad", self.tensors[param].shape, "weight_gradient", param)
        self.weight_gradients[param] = name
        return name

    def _parameter_gradient(self, record: _Record, param: str, inputs: tuple[str, ...], kind: str, dims: Dims) -> None:
        before = self.weight_gradients.get(param)
        out = self._new_weight_gradient(param)
        self.ops.append(Op(record.layer.name, "grad_weight", kind, dims, inputs, (out,), param))
        if before:
            total, elements = self._new_weight_gradient(param), Vector(self.tensors[param].elements)
            name = self._unique(f"{param}.accumulate")
            self.ops.append(Op(name, "grad_weight", "add", elements, (before, out), (total,), param))

    def updates(self, optimizer: str) -> None:
        for param in self.parameters:
            if param not in self.weight_gradients:
                continue
            shape = self.tensors[param].shape
            state = tuple(self.tensor(f"{param}.{part}", shape, "state") for part in STATES[optimizer])
            module, dims = param.rpartition(".")[0], Vector(self.tensors[param].elements)
            self.ops.append(
                Op(
                    module,
                    "update",
                    optimizer,
                    dims,
                    (param, self.weight_gradients[param], *state),
                    (param, *state),
                    param,
                )
            )


def _finish(step: _Step, name: str, meta: Mapping[str, Any]) -> StepGraph:
    batch = step.tensors["input"].shape[0]
    notes = {"made_by": "npusim.synthesis.from_layers", "method": "dense", "batch": batch, **meta}
    graph = StepGraph(name, tuple(step.ops), step.tensors, meta=notes)
    graph.verify()
    return graph
