"""Training steps from forward-only layer lists: the backward phases and updates are synthesised.

The table of layer kinds and their keys is in `npusim.layers`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


def from_file(path: str | Path) -> StepGraph:
    """The step of a layer list in TOML: `name`, `optimizer`, `meta`, and `layers`, an array of tables."""
    try:
        value = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise NpusimError(f"{path}: cannot be read as a layer list: {error}") from error
    unknown = sorted(set(value) - {"name", "optimizer", "meta", "layers"})
    if (
        unknown
        or not isinstance(value.get("layers"), list)
        or not isinstance(value.get("name"), str)
        or not isinstance(value.get("meta", {}), dict)
    ):
        what = f"unknown key {unknown[0]!r}" if unknown else "needs 'name', 'layers' and, if any, 'meta' as a table"
        raise NpusimError(f"{path}: {what}; allowed: name, optimizer, meta, layers")
    return from_layers(value["layers"], value["name"], value.get("optimizer", "sgd"), value.get("meta"))


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
            rest = layer.shape or (product(first.shape[1:]),)
            if product(rest) * first.shape[0] != product(first.shape):
                raise Misfit(f"{text_of(first.shape)} cannot be viewed as {text_of((first.shape[0], *rest))}")
            self.values[layer.name] = _Value(first.tensor, (first.shape[0], *rest), first.wanted)
            return
        dims, shape = shapes(layer, [value.shape for value in reads])
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
