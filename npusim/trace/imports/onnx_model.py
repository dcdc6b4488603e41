"""ONNX models as layer lists: the forward topology; `npusim.synthesis` adds the backward phases and updates.

What a graph says and what is made of it:

| in the file                                  | layers                                                          |
|----------------------------------------------|-----------------------------------------------------------------|
| nodes in the table of `onnx_nodes`           | as listed there                                                 |
| a node that reads nothing but constants      | none: such values are computed once, not in every step          |
| float initializers that a node reads         | parameters of its layer, or `parameter` layers, all of them trained |
| literals of the exporter (`val_3`, `Constant`) | none                                                          |
| a first axis without a size                  | batch 1                                                         |
| the first output                             | a softmax loss is computed from it                              |

A layer is called like its weight without `.weight`, so that masks and methods find the parameters of the framework.
A weight's orientation is that of `npusim.graph`, whatever the file's. Padding that differs between the sides becomes an
equal one that gives the same result size. Weights are not read: shapes are all that counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError, TraceError
from npusim.layers import Layer, product
from npusim.synthesis import from_layers

if TYPE_CHECKING:
    from npusim.graph import StepGraph

MAX_FILE_BYTES = 2**30
MAX_NODES = 50_000
MAX_RANK = 8
MAX_SIZE = 2**40
_LITERAL = re.compile(r"(val|_val|const|lifted|onnx::)[\w:.]*|\d+")
_FLOATS = (1, 10, 11, 16, 17, 18, 19, 20)
Shape = tuple[int, ...]


class Unknown(Exception):
    """A node that cannot be turned into layers; the text says why."""


def from_onnx(path: str | Path, *, name: str = "", optimizer: str = "sgd", skip_unknown: bool = False) -> StepGraph:
    """One training step of the network in an ONNX file (`pip install "npusim[onnx]"`).

    With `skip_unknown`, nodes that no layer is known for are left out: their first input takes the place of their
    result when it has its shape; `meta["skipped"]` lists them. TraceError names the file and the node.
    """
    net = Net(_load(path), str(path), skip_unknown)
    try:
        layers = net.convert()
    except Unknown as problem:  # of an input of the graph; a node names itself
        raise TraceError(f"{path}: {problem}") from None
    meta = {
        "made_by": "npusim.trace.from_onnx", "source": Path(path).name, "producer": net.producer,
        "kind": "ONNX forward topology; backward phases synthesised; no masks", "skipped": net.skipped,
    }  # fmt: skip
    try:
        return from_layers(layers, name or Path(path).stem, optimizer, meta)
    except NpusimError as error:
        raise TraceError(f"{path}: {error}") from error


def _load(path: str | Path) -> Any:
    try:
        import onnx
        from onnx import inliner, shape_inference
    except ImportError:
        raise NpusimError('reading ONNX files needs the onnx package: pip install "npusim[onnx]"') from None
    try:
        size = Path(path).stat().st_size
        if not Path(path).is_file() or size > MAX_FILE_BYTES:
            raise TraceError(f"{path}: {size} bytes; a regular file of at most {MAX_FILE_BYTES} bytes is allowed")
        model = onnx.load(str(path), load_external_data=False)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read: {error.strerror or error}") from error
    except TraceError:
        raise
    except Exception as error:  # protobuf raises its own types
        raise TraceError(f"{path}: not an ONNX file: {error}") from error
    if not model.graph.node:
        raise TraceError(f"{path}: not an ONNX file, or one whose graph has no nodes")
    _batch_of_one(model.graph)
    try:
        if model.functions:
            model = inliner.inline_local_functions(model)
        return shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # the checker's own types, and those of the C++ side
        raise TraceError(f"{path}: shapes cannot be inferred: {' '.join(str(error).split())[:500]}") from error


def _batch_of_one(graph: Any) -> None:
    """An input's first axis without a size is a batch of one, and so is that name wherever it is used."""
    names = set()
    for value in graph.input:
        for axis in value.type.tensor_type.shape.dim[:1]:
            if not axis.HasField("dim_value"):
                names.add(axis.dim_param)
                axis.dim_value = 1
    for value in (*graph.input, *graph.output, *graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param and axis.dim_param in names:
                axis.dim_value = 1


class Net:
    """The layers made so far and what is known about the values of the graph."""

    def __init__(self, model: Any, label: str, skip_unknown: bool) -> None:
        self.graph = model.graph
        self.label = label
        self.skip_unknown = skip_unknown
        self.producer = f"{model.producer_name} {model.producer_version}".strip()[:200]
        self.opsets = {entry.domain: entry.version for entry in model.opset_import}
        self.skipped: list[str] = []
        self.layers: list[Layer] = []
        self.layer_of: dict[str, str] = {}
        self.shapes: dict[str, Shape] = {}
        self.floats: set[str] = set()
        self.constants: set[str] = {""}
        self.weights: dict[str, Shape] = {}
        self.source: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.readers: dict[str, list[Any]] = {}
        self.fused: set[str] = set()
        self._used: dict[str, int] = {}

    def convert(self) -> list[Layer]:
        graph = self.graph
        if len(graph.node) > MAX_NODES:
            raise TraceError(f"{self.label}: {len(graph.node)} nodes, at most {MAX_NODES} are allowed")
        for tensor in graph.initializer:
            self._constant(tensor.name, tuple(tensor.dims), tensor.data_type in _FLOATS)
        for tensor in graph.sparse_initializer:
            self._constant(tensor.values.name, tuple(tensor.dims), True)
        for value in (*graph.value_info, *graph.output, *graph.input):
            self._declare(value)
        for node in graph.node:
            for operand in node.input:
                self.readers.setdefault(operand, []).append(node)
        for value in graph.input:
            if value.name not in self.constants and self.readers.get(value.name):
                if not self.shape(value.name):
                    self.constants.add(value.name)
                    continue
                self.layer_of[value.name] = self.add("input", value.name, shape=self.shape(value.name))
        for index, node in enumerate(graph.node):
            self._node(index, node)
        output = next((value.name for value in graph.output if value.name in self.layer_of), "")
        if not output:
            raise TraceError(f"{self.label}: none of the graph's outputs depends on its inputs by float operations")
        self.add("softmax_loss", "softmax_loss", [self.layer_of[output]])
        return self.layers

    def _constant(self, name: str, dims: Shape, is_float: bool) -> None:
        self.constants.add(name)
        self.shapes[name] = self._checked(name, dims)
        if is_float:
            self.weights[name] = dims
            self.source[name] = name

    def _declare(self, value: Any) -> None:
        tensor = value.type.tensor_type
        if tensor.elem_type in _FLOATS:
            self.floats.add(value.name)
        if value.name not in self.shapes and tensor.HasField("shape"):
            sizes = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            if -1 not in sizes:
                self.shapes[value.name] = self._checked(value.name, sizes)

    def _checked(self, name: str, shape: Shape) -> Shape:
        if len(shape) > MAX_RANK or any(not 0 <= n < MAX_SIZE for n in shape) or product(shape) >= 2**62:
            raise TraceError(f"{self.label}: tensor {name!r}: shape {list(shape)} is out of range")
        return shape

    def _node(self, index: int, node: Any) -> None:
        from npusim.trace.imports.onnx_nodes import SIDE_RESULTS, convert

        where = f"{self.label}: node {index} {node.name!r} ({node.op_type})"
        if set(node.output) & self.fused:
            return
        if node.op_type in SIDE_RESULTS or all(name in self.constants for name in node.input):
            sources = {self.source[name] for name in node.input if name in self.source}
            for name in node.output:
                self.constants.add(name)
                if len(sources) == 1 and name in self.floats:
                    self.source[name] = next(iter(sources))
            return
        try:
            convert(self, node)
        except Unknown as problem:
            if not self.skip_unknown:
                raise TraceError(f"{where}: {problem}; --skip-unknown leaves such nodes out") from None
            self._skip(node, where, problem)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise TraceError(f"{where}: its inputs or attributes are not those of the operator ({reason})") from None

    def _skip(self, node: Any, where: str, problem: Unknown) -> None:
        source = next((name for name in node.input if name in self.layer_of), "")
        shape = self.shapes.get(node.output[0])
        if not source or shape is None or product(shape) != product(self.shape(source)):
            raise TraceError(f"{where}: {problem}; it cannot be left out: its result has another shape") from None
        self.skipped.append(f"{node.op_type} {node.name}".strip()[:200])
        self.layer_of[node.output[0]] = self.view(self.layer_of[source], shape, node.output[0])
        self.constants.update(node.output[1:])

    # --- what the handlers of nodes use

    def shape(self, name: str) -> Shape:
        if name not in self.shapes:
            raise Unknown(f"the shape of {name!r} is not known; export the model with fixed sizes")
        return self.shapes[name]

    def add(self, kind: str, name: str, inputs: Iterable[str] = (), **options: Any) -> str:
        """Append a layer; its name made unique."""
        base = name or kind
        self._used[base] = self._used.get(base, 0) + 1
        unique = base if self._used[base] == 1 else f"{base}@{self._used[base]}"
        self.layers.append(Layer(unique, kind, tuple(inputs), **options))
        return unique

    def view(self, layer: str, shape: Shape, name: str) -> str:
        return self.add("view", name, [layer], shape=shape or (1,), whole=True)

    def activation(self, name: str) -> str:
        """Layer of a value that must depend on the inputs."""
        if name not in self.layer_of:
            raise Unknown(f"operand {name!r} is a constant; an activation is needed")
        return self.layer_of[name]

    def weight(self, name: str) -> Shape:
        if name not in self.constants:
            raise Unknown(f"operand {name!r} is computed from the inputs; a weight of the model is needed")
        return self.shape(name)

    def stem(self, node: Any, *parameters: str) -> str:
        """Name of a layer: that of its first named parameter without the last part, else the node's."""
        for operand in parameters:
            origin = self.source.get(operand, "")
            if origin and not _LITERAL.fullmatch(origin):
                return origin.rpartition(".")[0] or origin
        return node.name or node.output[0]

    def tied(self, operand: str, layer: str) -> dict[str, str]:
        """`tied` when an earlier layer already owns the weight; else `layer` owns it from now on."""
        origin = self.source.get(operand)
        if origin is None:
            return {}
        if origin in self.owner:
            return {"tied": self.owner[origin]}
        self.owner[origin] = layer
        return {}

    def operand(self, name: str) -> str | None:
        """Layer of a value of an elementwise function; None for a constant that is no parameter."""
        if name in self.layer_of:
            return self.layer_of[name]
        origin = self.source.get(name, "")
        if not origin or _LITERAL.fullmatch(origin) or product(self.weights[origin]) < 2:
            return None
        if origin not in self.layer_of:
            title = origin.removesuffix(".weight")
            self.layer_of[origin] = self.add("parameter", title, shape=self.weights[origin], whole=True)
        shape, whole = self.shape(name), self.weights[origin]
        if shape != whole:
            same = product(shape) == product(whole)
            kind = "view" if same else "part" if product(shape) < product(whole) else "elementwise"
            self.layer_of[name] = self.add(kind, name, [self.layer_of[origin]], shape=shape, whole=True)
        return self.layer_of.get(name, self.layer_of[origin])

    def attributes(self, node: Any) -> Mapping[str, Any]:
        from onnx import helper

        return {item.name: helper.get_attribute_value(item) for item in node.attribute}
