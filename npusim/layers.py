"""Layers of a forward-only network: their table, checks, and the shapes they compute.

| layer kind     | reads | parameters                                                                              |
|----------------|-------|-----------------------------------------------------------------------------------------|
| `input`        | 0     | `shape` (batch, channels, rows, columns, or batch first of any rank)                     |
| `conv`         | 1     | `out`, `kernel`, `stride`, `padding`, `dilation`, `groups`, `bias`                       |
| `linear`       | 1     | `out`, `bias`; the last dimension is the features                                        |
| `matmul`       | 2     | A[..., M, K] B[..., K, N]; with `transposed` B is [..., N, K]                            |
| `batch_norm`, `layer_norm` | 1 | scale and shift; without shift when `shift` is false                            |
| `activation`, `softmax` | 1 | `of_input`: the gradient is computed from the input (GELU, SiLU), not from the result |
| `add`, `mul`   | 2     | `add`: the second may be a `parameter`, the same for every sample                        |
| `pool`         | 1     | `kernel`, `stride` (default: the kernel), `padding`, `average`; or `size`: adaptive average |
| `embedding`    | 1     | `rows`, `out`: a table row for every number that is read                                 |
| `parameter`    | 0     | `shape`, with 1 in place of the batch: learned values (class token, positions)           |
| `elementwise`  | 1 ... | any function, sum or copy; `shape` of the result (default: as the first input); `of_input` |
| `concat`       | 2 ... | `axis` (default 1): copies its inputs one behind the other                               |
| `flatten`, `view` | 1  | no operation, nor for a transpose; `view` takes `shape` behind the batch                 |
| `part`         | 1     | no operation: addresses a part of its input; `shape` behind the batch                    |
| `softmax_loss` | 1     | appended when the list does not end with it                                              |

`inputs` names the layers that are read; it defaults to the one before. `tied` of a convolution or linear layer names
the layer whose weight it shares. With `whole`, a `shape` counts the batch too, wherever it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from npusim.errors import NpusimError, closest
from npusim.graph import Conv, Dims, Gemm, Pool, Vector

_FLAGS = ("bias", "transposed", "average", "shift", "of_input", "whole")
MANY, SOME = -2, -1  # at least two, at least one
READS = {"input": 0, "parameter": 0, "matmul": 2, "add": 2, "mul": 2, "concat": MANY, "elementwise": SOME}
KINDS = (
    "input", "conv", "linear", "matmul", "batch_norm", "layer_norm", "activation", "softmax", "add", "mul", "pool",
    "embedding", "parameter", "elementwise", "concat", "flatten", "view", "part", "softmax_loss",
)  # fmt: skip
_WITH_WEIGHTS = ("conv", "linear", "embedding")
MAX_PROBLEMS = 50
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
    shift: bool = True
    of_input: bool = False
    rows: int = 0
    axis: int = 1
    tied: str = ""
    whole: bool = False


class Misfit(Exception):
    """A layer that does not fit its inputs."""


def checked(layers: Iterable[Layer | Mapping[str, Any]], name: str) -> list[Layer]:
    """Layers with explicit inputs; every mistake that needs no shapes is reported together."""
    known = [f.name for f in fields(Layer)]
    result: list[Layer] = []
    bad: list[str] = []
    earlier: dict[str, str] = {}
    for i, item in enumerate(layers):
        if len(bad) > MAX_PROBLEMS:
            bad = [*bad[:MAX_PROBLEMS], "and more"]
            break
        if not isinstance(item, (Layer, Mapping)):
            bad.append(f"layer {i}: must be a table of keys and values")
            continue
        value: dict[str, Any] = {key: getattr(item, key) for key in known} if isinstance(item, Layer) else dict(item)
        label = f"layer {i} {value.get('name', '')!r}"
        bad += [f"{label}: unknown key {key!r}{closest(str(key), known)}" for key in value if key not in known]
        value = {key: tuple(v) if isinstance(v, list) else v for key, v in value.items() if key in known}
        if not isinstance(value.get("name"), str) or not value["name"] or value.get("kind") not in KINDS:
            bad.append(f"{label}: needs a name and a kind of {', '.join(KINDS)}")
            continue
        default = (result[-1].name,) if result and READS.get(value["kind"], 1) else ()
        layer = Layer(**{**value, "inputs": value.get("inputs") or default})
        bad += [f"{label}: {text}" for text in _layer_problems(layer, earlier)]
        result.append(layer)
        earlier[layer.name] = layer.kind
    if not result or result[0].kind != "input":
        bad.append("the first layer must be an 'input' with a shape")
    if bad:
        raise NpusimError(f"layer list {name!r}:\n  " + "\n  ".join(bad))
    if result[-1].kind != "softmax_loss":
        result.append(Layer("softmax_loss", "softmax_loss", (result[-1].name,)))
    return result


def _layer_problems(layer: Layer, earlier: Mapping[str, str]) -> list[str]:
    """What is wrong with a layer behind `earlier`, names and kinds."""
    if wrong := [key for key in ("inputs", "shape") if not isinstance(getattr(layer, key), tuple)]:
        return [f"{wrong[0]} must be a list"]
    if not all(isinstance(name, str) for name in (*layer.inputs, layer.tied)):
        return ["inputs must be a list of names, tied a name"]
    bad = [f"{key} must be true or false" for key in _FLAGS if not isinstance(getattr(layer, key), bool)]
    bad += ["has no bias to give"] if layer.bias and layer.kind not in ("conv", "linear") else []
    bad += [f"the name {layer.name!r} is used twice"] if layer.name in earlier else []
    needed = READS.get(layer.kind, 1)
    if layer.kind != "input":
        bad += [
            f"reads {i!r}, which no earlier layer is{closest(str(i), earlier)}"
            for i in layer.inputs
            if i not in earlier
        ]
        least = -needed if needed < 0 else needed
        if len(layer.inputs) < least or (needed >= 0 and len(layer.inputs) > needed):
            more = " or more" if needed < 0 else ""
            bad.append(f"reads {len(layer.inputs)} layers, {layer.kind} reads {least}{more}")
    if layer.kind in ("conv", "linear", "embedding") and not _whole(layer.out, 1):
        bad.append(f"out = {layer.out!r}; a whole number from 1 up is needed")
    if layer.kind == "embedding" and not _whole(layer.rows, 1):
        bad.append(f"rows = {layer.rows!r}; a whole number from 1 up is needed")
    if layer.kind == "concat" and not _whole(layer.axis, 1):
        bad.append(f"axis = {layer.axis!r}; a whole number from 1 up is needed")
    if layer.kind == "parameter" and layer.shape[:1] != (1,) and not layer.whole:
        bad.append(f"shape = {layer.shape!r}; the first size must be 1, in place of the batch")
    if layer.tied and earlier.get(layer.tied) not in _WITH_WEIGHTS:
        bad.append(f"tied = {layer.tied!r}, which no earlier {' or '.join(_WITH_WEIGHTS)} layer is")
    if layer.kind in ("input", "view", "part", "parameter") and not (
        layer.shape and all(_whole(n, 1) for n in layer.shape)
    ):
        bad.append(f"shape = {layer.shape!r}; whole numbers from 1 up are needed")
    if layer.tied and layer.kind not in ("conv", "linear"):
        bad.append("only a convolution or linear layer can be tied")
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


def shapes(layer: Layer, read: list[tuple[int, ...]]) -> tuple[Dims, tuple[int, ...]]:
    """Dimensions of the op and the shape of its result."""
    x = read[0]
    if len(x) < 2 and layer.kind not in ("softmax_loss", "elementwise", "activation"):
        raise Misfit(f"needs a batch of values, its input is {text_of(x)}")
    match layer.kind:
        case "conv":
            return _conv(layer, x)
        case "linear":
            return Conv(product(x[:-1]), x[-1], 1, 1, layer.out), (*x[:-1], layer.out)
        case "matmul":
            return _matmul(layer, *read)
        case "pool":
            return _pool(layer, x)
        case "embedding":
            return Vector(product(x) * layer.out, 1), (*x, layer.out)
        case "concat":
            return _concat(layer, read)
        case "elementwise":
            shape = (layer.shape if layer.whole else (x[0], *layer.shape)) if layer.shape else x
            return Vector(max(product(s) for s in (shape, *read)), 1), shape
        case "add" | "mul":
            if read[0] != read[1] and not (layer.kind == "add" and _repeats(read[1], read[0])):
                raise Misfit(f"its inputs have the shapes {text_of(read[0])} and {text_of(read[1])}")
    return Vector(product(x)), x


def _image(x: tuple[int, ...]) -> tuple[int, int, int, int]:
    if len(x) != 4:
        raise Misfit(f"needs batch x channels x rows x columns, its input is {text_of(x)}")
    return x[0], x[1], x[2], x[3]


def _conv(layer: Layer, x: tuple[int, ...]) -> tuple[Dims, tuple[int, ...]]:
    n, c, h, w = _image(x)
    stride = _pair(layer.stride or 1)
    r, s = _pair(layer.kernel)
    dims = Conv(n, c, h, w, layer.out, r, s, stride, _pair(layer.padding), _pair(layer.dilation), layer.groups)
    if c % layer.groups or layer.out % layer.groups:
        raise Misfit(f"groups = {layer.groups} does not divide its {c} input and {layer.out} output channels")
    if dims.p < 1 or dims.q < 1:
        raise Misfit(f"its window {r}x{s} does not fit {h}x{w}")
    return dims, (n, layer.out, dims.p, dims.q)


def _matmul(layer: Layer, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[Dims, tuple[int, ...]]:
    if len(a) < 3 or len(a) != len(b) or a[:-2] != b[:-2]:
        raise Misfit(f"{text_of(a)} and {text_of(b)} are not batches of matrices of one batch shape")
    rows, columns = (b[-1], b[-2]) if layer.transposed else (b[-2], b[-1])
    if rows != a[-1]:
        raise Misfit(f"{text_of(a)} has {a[-1]} columns, its second operand {rows} rows")
    return Gemm(product(a[:-2]), a[-2], columns, a[-1]), (*a[:-1], columns)


def _repeats(small: tuple[int, ...], large: tuple[int, ...]) -> bool:
    """Whether `small`, its last sizes aligned with those of `large`, repeats to fill it."""
    behind = large[len(large) - len(small) :] if len(small) <= len(large) else ()
    return bool(small) and len(behind) == len(small) and all(a in (1, b) for a, b in zip(small, behind, strict=True))


def _concat(layer: Layer, read: list[tuple[int, ...]]) -> tuple[Dims, tuple[int, ...]]:
    axis, batch = layer.axis, max(shape[0] for shape in read)
    whole = [(batch if shape[0] == 1 else shape[0], *shape[1:]) for shape in read]
    if any(len(s) <= axis or (*s[:axis], *s[axis + 1 :]) != (*whole[0][:axis], *whole[0][axis + 1 :]) for s in whole):
        raise Misfit(f"its inputs {', '.join(map(text_of, read))} differ in more than axis {axis}")
    shape = (*whole[0][:axis], sum(s[axis] for s in whole), *whole[0][axis + 1 :])
    return Vector(product(shape), 1), shape


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
        raise Misfit(f"its window {r}x{s} does not fit {h}x{w}")
    return Pool(n, c, h, w, p, q, r, s, stride, padding), (n, c, p, q)


def product(sizes: Iterable[int]) -> int:
    result = 1
    for size in sizes:
        result *= size
    return result


def text_of(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
