"""Steps that PyTorch wrote down: files of ExecutionTraceObserver and of torch.profiler.

Both hold the framework's operations, nested as they were called, with the shapes of their operands; the first also
says which storage every tensor lies in. `pytorch_replay` hands the operations to the same recorder as a live capture.
A file must hold one training step. How the files are made is in `docs/imports.md`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import TraceError
from npusim.trace.imports.files import load_json
from npusim.trace.imports.pytorch_guess import identify
from npusim.trace.imports.pytorch_replay import replay

if TYPE_CHECKING:
    from npusim.graph import StepGraph

MAX_EVENTS = 2_000_000
MAX_DEPTH = 200
MAX_RANK = 8
MAX_SIZE = 2**40
_FLOATS = ("float", "double", "c10::Half", "c10::BFloat16", "Half", "BFloat16")
_BACKWARD = "autograd::engine::evaluate_function"


class Sizes(tuple[int, ...]):
    """Shape of a tensor, as PyTorch's."""

    def numel(self) -> int:
        total = 1
        for size in self:
            total *= size
        return total


class Storage:
    """Identity of the memory of a tensor."""

    def __init__(self, number: int) -> None:
        self._cdata = number


@dataclass
class Seen:
    """A tensor as an event describes it; answers what the recorder asks of a tensor."""

    shape: Sizes
    strides: tuple[int, ...]
    dtype: str
    storage: int = -1
    grad: None = None

    def dim(self) -> int:
        return len(self.shape)

    def numel(self) -> int:
        return self.shape.numel()

    def stride(self, axis: int) -> int:
        return self.strides[axis] if len(self.strides) == len(self.shape) else 0

    def is_floating_point(self) -> bool:
        return self.dtype == "float32"

    def untyped_storage(self) -> Storage:
        return Storage(self.storage)

    def transpose(self, first: int, second: int) -> Seen:
        return self


@dataclass
class Event:
    """One entry of the file: an operation, a backward node, or an annotation."""

    label: str
    name: str
    args: list[Any] = field(default_factory=list)
    out: Any = None
    sequence: int = -1
    backward: bool = False
    children: list[Event] = field(default_factory=list)

    @property
    def op(self) -> str:
        return self.name.removeprefix("aten::")

    def walk(self) -> Iterator[Event]:
        waiting = [self]
        while waiting:
            event = waiting.pop()
            yield event
            waiting += event.children[::-1]


class _Wrong(Exception):
    pass


def from_execution_trace(path: str | Path, *, name: str = "", skip_unknown: bool = False) -> StepGraph:
    """The training step in a file of `torch.profiler.ExecutionTraceObserver` (JSON, gzipped or not).

    With `skip_unknown`, products of matrices that npusim does not know are left out and listed in `meta["skipped"]`.
    """
    value = load_json(path)
    nodes = value.get("nodes") if isinstance(value, dict) else None
    if not isinstance(nodes, list):
        raise TraceError(f"{path}: not an execution trace: it has no list 'nodes'")
    roots = _nested_by_parent(_limited(nodes, path), path)
    meta = {"made_by": "npusim.trace.from_execution_trace", "source": Path(path).name,
            "schema": str(value.get("schema"))[:100]}  # fmt: skip
    return replay(roots, str(path), name or _stem(path), meta, skip_unknown)


def from_profiler(path: str | Path, *, name: str = "", skip_unknown: bool = False) -> StepGraph:
    """The training step in a Chrome trace of `torch.profiler.profile(record_shapes=True)` (JSON, gzipped or not).

    Such a file does not say which tensor an operation reads: tensors are matched by size. Sizes, phases and order of
    the operations are as recorded; lifetimes of tensors, and so memory plans, are a guess.
    """
    value = load_json(path)
    events = value.get("traceEvents") if isinstance(value, dict) else None
    if not isinstance(events, list):
        raise TraceError(f"{path}: not a profile: it has no list 'traceEvents'")
    roots = _nested_by_time(_limited(events, path), path)
    if not any(isinstance(arg, Seen) for root in roots for event in root.walk() for arg in event.args):
        raise TraceError(f"{path}: no operation has the shapes of its operands; profile with record_shapes=True")
    meta = {"made_by": "npusim.trace.from_profiler", "source": Path(path).name,
            "tensors": "matched by size; lifetimes are a guess"}  # fmt: skip
    return replay(roots, str(path), name or _stem(path), meta, skip_unknown, identify)


def _stem(path: str | Path) -> str:
    return Path(path).name.removesuffix(".gz").removesuffix(".json") or "step"


def _limited(items: list[Any], path: str | Path) -> list[Any]:
    if len(items) > MAX_EVENTS:
        raise TraceError(f"{path}: {len(items)} events, at most {MAX_EVENTS} are allowed")
    return items


# --- execution traces


def _nested_by_parent(nodes: list[Any], path: str | Path) -> list[Event]:
    found: dict[int, tuple[int, Event]] = {}
    for index, node in enumerate(nodes):
        try:
            number, parent, event = _node(node, index)
        except _Wrong as problem:
            raise TraceError(f"{path}: nodes[{index}]: {problem}") from None
        found[number] = (parent, event)
    roots: list[Event] = []
    for number, (parent, event) in sorted(found.items()):
        if parent in found and parent < number:
            found[parent][1].children.append(event)
        else:
            roots.append(event)
    return roots


def _node(node: Any, index: int) -> tuple[int, int, Event]:
    if not isinstance(node, dict) or not isinstance(node.get("name"), str):
        raise _Wrong("must be an object with a name")
    number, parent = node.get("id"), node.get("ctrl_deps")
    if type(number) is not int or type(parent) is not int:
        raise _Wrong("id and ctrl_deps must be integers (schema 1.1 of PyTorch 2)")
    listed = node.get("attrs")
    attributes = [a for a in listed if isinstance(a, dict)] if isinstance(listed, list) else []
    event = Event(f"nodes[{index}] {node['name'][:100]}", node["name"])
    sequence = next((a.get("value") for a in attributes if a.get("name") == "seq_id"), -1)
    event.sequence = sequence if type(sequence) is int else -1
    if node["name"].startswith("aten::"):
        event.args = _operands(node.get("inputs"), "inputs")
        outputs = _operands(node.get("outputs"), "outputs")
        event.out = outputs[0] if len(outputs) == 1 else tuple(outputs)
    return number, parent, event


def _operands(value: Any, where: str) -> list[Any]:
    keys = ("values", "shapes", "types")
    if not isinstance(value, dict) or not all(isinstance(value.get(key), list) for key in keys):
        raise _Wrong(f"{where} must have the lists values, shapes and types")
    lists = [value[key] for key in keys]
    given = value.get("strides")
    strides = given if isinstance(given, list) else [[]] * len(lists[0])
    if len({len(part) for part in (*lists, strides)}) != 1:
        raise _Wrong(f"the lists of {where} differ in length")
    rows = enumerate(zip(*lists, strides, strict=True))
    return [_operand(part, size, kind, step, f"{where}[{i}]") for i, (part, size, kind, step) in rows]


def _operand(value: Any, shape: Any, kind: Any, strides: Any, where: str) -> Any:
    if not isinstance(kind, str):
        raise _Wrong(f"{where}: its type must be a text")
    if kind.startswith("Tensor(nullptr") or kind == "None":
        return None
    if kind.startswith("Tensor("):
        if not isinstance(value, list) or len(value) < 2 or type(value[1]) is not int:
            raise _Wrong(f"{where}: a tensor must be a list with its number and that of its storage")
        return _tensor(shape, strides, kind[7:-1], value[1], where)
    if kind.startswith("GenericList[Tensor"):
        kinds = kind[len("GenericList[") : -1].split(",")
        steps = strides if isinstance(strides, list) and strides else [[]] * len(kinds)
        if not all(isinstance(row, list) and len(row) == len(kinds) for row in (value, shape, steps)):
            raise _Wrong(f"{where}: a list of tensors must have as many values, shapes and types")
        rows = zip(value, shape, kinds, steps, strict=True)
        return [_operand(part, size, each, step, where) for part, size, each, step in rows]
    return value


def _tensor(shape: Any, strides: Any, dtype: str, storage: int, where: str) -> Seen:
    if not isinstance(shape, list) or len(shape) > MAX_RANK:
        raise _Wrong(f"{where}: its shape must be a list of at most {MAX_RANK} sizes")
    if not all(type(n) is int and 0 <= n < MAX_SIZE for n in shape) or Sizes(shape).numel() >= 2**62:
        raise _Wrong(f"{where}: its shape {str(shape)[:80]} is out of range")
    steps = tuple(strides) if isinstance(strides, list) and all(type(n) is int for n in strides) else ()
    return Seen(Sizes(shape), steps, "float32" if dtype in _FLOATS else "int64", storage)


# --- profiles


def _nested_by_time(items: list[Any], path: str | Path) -> list[Event]:
    timed: list[tuple[Any, float, float, Event]] = []
    for index, item in enumerate(items):
        if not isinstance(item, dict) or item.get("ph") != "X" or item.get("cat") not in ("cpu_op", "user_annotation"):
            continue
        try:
            timed.append(_timed(item, index))
        except _Wrong as problem:
            raise TraceError(f"{path}: traceEvents[{index}]: {problem}") from None
    roots: list[Event] = []
    open_events: dict[Any, list[tuple[float, Event]]] = {}
    for thread, start, end, event in sorted(timed, key=lambda entry: (entry[1], -entry[2])):
        stack = open_events.setdefault(thread, [])
        while stack and stack[-1][0] <= start:
            stack.pop()
        (stack[-1][1].children if stack else roots).append(event)
        if len(stack) > MAX_DEPTH:
            raise TraceError(f"{path}: operations are nested more than {MAX_DEPTH} deep")
        stack.append((end, event))
    return roots


def _timed(item: dict[str, Any], index: int) -> tuple[Any, float, float, Event]:
    name, start, length, given = (item.get(key) for key in ("name", "ts", "dur", "args"))
    if not isinstance(name, str) or not isinstance(start, (int, float)) or not isinstance(length, (int, float)):
        raise _Wrong("needs a name, ts and dur")
    given = given if isinstance(given, dict) else {}
    event = Event(f"traceEvents[{index}] {name[:100]}", name)
    sequence = given.get("Sequence number", -1)
    event.sequence = sequence if type(sequence) is int else -1
    if name.startswith("aten::") and "Input Dims" in given:
        columns = [given.get(key) for key in ("Input Dims", "Input type", "Concrete Inputs", "Input Strides")]
        dims, kinds = columns[:2]
        if not isinstance(dims, list) or not isinstance(kinds, list) or len(dims) != len(kinds):
            raise _Wrong("Input Dims and Input type must be lists of one length")
        texts, strides = (c if isinstance(c, list) and len(c) == len(dims) else [""] * len(dims) for c in columns[2:])
        rows = enumerate(zip(dims, kinds, texts, strides, strict=True))
        event.args = [_profiled(*row, f"Input Dims[{i}]") for i, row in rows]
    return str(item.get("tid")), float(start), float(start) + float(length), event


def _profiled(shape: Any, kind: Any, text: Any, strides: Any, where: str) -> Any:
    if kind == "TensorList":
        if not isinstance(shape, list):
            raise _Wrong(f"{where}: must be a list of shapes")
        return [_tensor(part, [], "float", -1, where) for part in shape]
    if kind in ("ScalarList", "Scalar", "", None):
        try:
            return json.loads(str(text).replace("True", "true").replace("False", "false")) if text else None
        except ValueError:
            return None
    return _tensor(shape, strides, str(kind), -1, where)
