"""The manifest of a trace file: a step as JSON values, and strict checks on the way back.

| key       | value                                                                                            |
|-----------|--------------------------------------------------------------------------------------------------|
| `schema`  | 1                                                                                                |
| `name`    | name of the step                                                                                 |
| `ops`     | list of {name, phase, kind, dims: {type, ...}, inputs, outputs, param}, in order of execution     |
| `tensors` | list of {name, shape, kind, dtype, grad_of}                                                      |
| `masks`   | {task_masks, update_masks, observed}: name -> {shape, sha256, member}                            |
| `meta`    | provenance: scalars, lists and objects                                                           |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from npusim.errors import TraceError
from npusim.graph import DIMS, MAX_DIMENSION, TENSOR_KINDS, Conv, Dims, Op, StepGraph, Tensor

SCHEMA = 1
GROUPS = ("task_masks", "update_masks", "observed")
MAX_OPS = 200_000
MAX_TENSORS = 500_000
MAX_NAME = 300
MAX_RANK = 8
MAX_PRODUCT = 2**62
MAX_OPERANDS = 4096
MAX_META_DEPTH = 12
MAX_META_VALUES = 20_000
MAX_META_TEXT = 20_000
_DTYPE = re.compile(r"[a-z][a-z0-9_]{0,30}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PAIRS = ("stride", "padding", "dilation")


@dataclass(frozen=True, slots=True)
class MaskEntry:
    """Where a mask lies, its shape and its digest."""

    shape: tuple[int, ...]
    sha256: str
    member: str

    @property
    def packed_bytes(self) -> int:
        return -(-_product(self.shape) // 8)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A checked manifest, before its masks are read."""

    name: str
    ops: tuple[Op, ...]
    tensors: dict[str, Tensor]
    masks: dict[str, dict[str, MaskEntry]]
    meta: dict[str, Any]


def encode(graph: StepGraph) -> dict[str, Any]:
    """JSON-ready manifest; the caller adds each mask's member."""
    return {"schema": SCHEMA, **graph.as_dict()}


def decode(value: Any, label: str) -> Decoded:
    """Checked parts of a manifest; TraceError says where (`ops[3].dims.stride`) and what is allowed."""
    try:
        return _decode(value)
    except _Problem as problem:
        raise TraceError(f"{label}: member 'manifest.json': {problem}") from None


class _Problem(Exception):
    def __init__(self, where: str, text: str) -> None:
        super().__init__(f"{where}: {text}")


def _decode(value: Any) -> Decoded:
    root = _keys(value, "manifest", ("schema", "name", "ops", "tensors", "masks", "meta"))
    if _integer(root["schema"], "schema", 0, 2**31) != SCHEMA:
        raise _Problem("schema", f"is {root['schema']}; this version reads {SCHEMA}")
    tensors: dict[str, Tensor] = {}
    for i, item in enumerate(_list(root["tensors"], "tensors", MAX_TENSORS)):
        tensor = _tensor(item, f"tensors[{i}]")
        if tensor.name in tensors:
            raise _Problem(f"tensors[{i}]", f"the name {tensor.name!r} appears twice")
        tensors[tensor.name] = tensor
    for tensor in tensors.values():
        if tensor.grad_of and tensor.grad_of not in tensors:
            raise _Problem(f"tensor {tensor.name!r}", f"is the gradient of an unknown tensor {tensor.grad_of!r}")
    ops = tuple(_op(item, f"ops[{i}]") for i, item in enumerate(_list(root["ops"], "ops", MAX_OPS)))
    for i, op in enumerate(ops):
        _results_fit(op, tensors, f"ops[{i}]")
    groups = _keys(root["masks"], "masks", GROUPS)
    masks = {group: dict(_masks(groups[group], f"masks.{group}")) for group in GROUPS}
    for key, entry in masks["observed"].items():
        if key not in tensors or tensors[key].shape != entry.shape:
            raise _Problem(f"masks.observed[{key!r}]", "is not a tensor of the step with that shape")
    _meta(root["meta"])
    return Decoded(_name(root["name"], "name"), ops, tensors, masks, root["meta"])


def _tensor(value: Any, where: str) -> Tensor:
    item = _keys(value, where, ("name", "shape", "kind", "dtype", "grad_of"))
    if item["kind"] not in TENSOR_KINDS:
        raise _Problem(f"{where}.kind", f"is {_shown(item['kind'])}; allowed: {', '.join(TENSOR_KINDS)}")
    if not isinstance(item["dtype"], str) or not _DTYPE.fullmatch(item["dtype"]):
        raise _Problem(f"{where}.dtype", f"is {_shown(item['dtype'])}, not a type name")
    grad_of = _name(item["grad_of"], f"{where}.grad_of", empty=True)
    shape = _shape(item["shape"], f"{where}.shape")
    return Tensor(_name(item["name"], f"{where}.name"), shape, item["kind"], item["dtype"], grad_of)


def _op(value: Any, where: str) -> Op:
    item = _keys(value, where, tuple(f.name for f in fields(Op)))
    for key in ("phase", "kind"):
        _name(item[key], f"{where}.{key}")
    operands = []
    for key in ("inputs", "outputs"):
        names = _list(item[key], f"{where}.{key}", MAX_OPERANDS)
        operands.append(tuple(_name(n, f"{where}.{key}[{i}]") for i, n in enumerate(names)))
    name, param = _name(item["name"], f"{where}.name"), _name(item["param"], f"{where}.param", empty=True)
    dims = _dims(item["dims"], f"{where}.dims")
    return Op(name, item["phase"], item["kind"], dims, operands[0], operands[1], param)


def _results_fit(op: Op, tensors: dict[str, Tensor], where: str) -> None:
    """The result of a convolution or linear layer has N*K*P*Q elements."""
    dims = op.dims
    if op.phase != "forward" or not isinstance(dims, Conv) or len(op.outputs) != 1 or op.outputs[0] not in tensors:
        return
    elements = tensors[op.outputs[0]].elements
    if elements != dims.t * dims.k:
        raise _Problem(where, f"computes {dims.t * dims.k} elements, its result {op.outputs[0]!r} has {elements}")


def _dims(value: Any, where: str) -> Dims:
    kind = value.get("type") if isinstance(value, dict) else None
    if not isinstance(kind, str) or kind not in DIMS:
        raise _Problem(f"{where}.type", f"is {_shown(kind)}; allowed: {', '.join(DIMS)}")
    cls = DIMS[kind]
    item = _keys(value, where, ("type", *(f.name for f in fields(cls))))
    parts: dict[str, Any] = {}
    for key in (f.name for f in fields(cls)):
        if key == "adaptive":
            if not isinstance(item[key], bool):
                raise _Problem(f"{where}.{key}", "must be true or false")
            parts[key] = item[key]
        elif key in _PAIRS:
            numbers = _list(item[key], f"{where}.{key}", 2)
            if len(numbers) != 2:
                raise _Problem(f"{where}.{key}", "must be two integers")
            parts[key] = tuple(_integer(n, f"{where}.{key}", 0, MAX_DIMENSION) for n in numbers)
        else:
            parts[key] = _integer(item[key], f"{where}.{key}", 0, MAX_DIMENSION)
    dims = cls(**parts)
    if 0 in parts.get("stride", ()) or parts.get("groups") == 0:
        raise _Problem(where, "stride and groups must be at least 1")
    if abs(dims.macs) > MAX_PRODUCT or _product(n for n in parts.values() if type(n) is int and n) > 2**120:
        raise _Problem(where, "the operation has more than 2^62 multiply-accumulates")
    return dims


def _masks(value: Any, where: str) -> Iterator[tuple[str, MaskEntry]]:
    if not isinstance(value, dict):
        raise _Problem(where, "must be an object")
    for key, item in value.items():
        name = _name(key, f"{where} key")
        entry = _keys(item, f"{where}[{name!r}]", ("shape", "sha256", "member"))
        if not isinstance(entry["sha256"], str) or not _SHA256.fullmatch(entry["sha256"]):
            raise _Problem(f"{where}[{name!r}].sha256", "must be 64 hexadecimal digits")
        shape = _shape(entry["shape"], f"{where}[{name!r}].shape")
        yield name, MaskEntry(shape, entry["sha256"], _name(entry["member"], f"{where}[{name!r}].member"))


def _meta(value: Any) -> None:
    if not isinstance(value, dict):
        raise _Problem("meta", "must be an object")
    waiting: list[tuple[Any, int]] = [(value, 0)]
    seen = 0
    while waiting:
        item, depth = waiting.pop()
        seen += 1
        if depth > MAX_META_DEPTH or seen > MAX_META_VALUES:
            raise _Problem("meta", f"at most {MAX_META_DEPTH} levels and {MAX_META_VALUES} values are allowed")
        if isinstance(item, str) and len(item) > MAX_META_TEXT:
            raise _Problem("meta", f"a text has {len(item)} characters, at most {MAX_META_TEXT} are allowed")
        if isinstance(item, dict):
            waiting += [(_name(key, "meta key", empty=True), depth + 1) for key in item]
            waiting += [(part, depth + 1) for part in item.values()]
        elif isinstance(item, (list, tuple)):
            waiting += [(part, depth + 1) for part in item]


def _keys(value: Any, where: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Problem(where, "must be an object")
    if missing := [key for key in allowed if key not in value]:
        raise _Problem(where, f"lacks {', '.join(missing)}")
    if unknown := [key for key in value if key not in allowed]:
        raise _Problem(where, f"unknown key {_shown(unknown[0])}; allowed: {', '.join(allowed)}")
    return value


def _list(value: Any, where: str, most: int) -> list[Any]:
    if not isinstance(value, (list, tuple)):
        raise _Problem(where, "must be a list")
    if len(value) > most:
        raise _Problem(where, f"has {len(value)} entries, at most {most} are allowed")
    return list(value)


def _integer(value: Any, where: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _Problem(where, f"is {_shown(value)}; an integer in {least}..{most} is allowed")
    return value


def _shape(value: Any, where: str) -> tuple[int, ...]:
    shape = tuple(_integer(n, where, 0, MAX_DIMENSION) for n in _list(value, where, MAX_RANK))
    if _product(shape) > MAX_PRODUCT:
        raise _Problem(where, "the product of the sizes is above 2^62")
    return shape


def _name(value: Any, where: str, empty: bool = False) -> str:
    """A printable name: no control, bidirectional or other invisible characters reach a terminal or a report."""
    if not isinstance(value, str) or len(value) > MAX_NAME or not value.isprintable() or not (value or empty):
        raise _Problem(where, f"is {_shown(value)}; a printable name of at most {MAX_NAME} characters is allowed")
    return value


def _product(sizes: Any) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def _shown(value: Any) -> str:
    return ascii(value)[:60] if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
