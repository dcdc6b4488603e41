"""StepGraph: one training step as operations with phases, shapes, tensors and masks.

The whole operation set (N batch, C input channels, K output channels, P x Q output pixels, R x S taps,
G groups; `F = N*K*P*Q*(C/G)*R*S`):

| kind         | dims     | phases                            | work                                             |
|--------------|----------|-----------------------------------|--------------------------------------------------|
| conv         | Conv     | forward, grad_input, grad_weight  | F multiply-accumulates (MACs)                    |
| linear       | Conv     | forward, grad_input, grad_weight  | F MACs, H = W = R = S = 1, N counts tokens       |
| matmul       | Gemm     | forward, grad_input               | batch*M*N*K MACs (attention)                     |
| bias_grad    | Vector   | grad_weight                       | sum of dY over N, P, Q                           |
| batch_norm   | Vector   | forward, grad_input               | statistics pass and normalising pass             |
| layer_norm   | Vector   | forward, grad_input               | as batch_norm, over features                     |
| activation   | Vector   | forward, grad_input               | elementwise function                             |
| add, mul     | Vector   | forward, grad_input               | elementwise on two inputs                        |
| pool         | Pool     | forward, grad_input               | R*S operations per output element                |
| softmax      | Vector   | forward, grad_input               | attention softmax                                |
| softmax_loss | Vector   | forward, grad_input               | softmax, cross entropy and their gradient        |
| sgd          | Vector   | update                            | W -= lr * dW                                     |
| momentum     | Vector   | update                            | one state tensor                                 |
| adam         | Vector   | update                            | two state tensors                                |
| elementwise  | Vector   | any (`aux` for what a method adds)| `lane_ops` operations per element                |
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from npusim import notebook, text
from npusim.errors import TraceError
from npusim.masks import Mask

PHASES = ("forward", "grad_input", "grad_weight", "update", "aux")
TENSOR_KINDS = ("activation", "weight", "gradient", "weight_gradient", "state", "mask")
MAC_KINDS = ("conv", "linear", "matmul")
VECTOR_KINDS = (
    "bias_grad", "batch_norm", "layer_norm", "activation", "add", "mul", "softmax", "softmax_loss",
    "sgd", "momentum", "adam", "elementwise",
)  # fmt: skip
KINDS = (*MAC_KINDS, "pool", *VECTOR_KINDS)
MAX_DIMENSION = 2**40
# What the output of a GEMM shares with its B operand: pixels (forward, grad_input) or channels*taps (grad_weight).
PIXELS, TAPS = "pixels", "taps"


@dataclass(frozen=True, slots=True)
class Tensor:
    """A value of the step. `kind` decides its width on a machine; `dtype` is what the framework used.

    `grad_of` names the tensor whose gradient this is ('' for a value), so that a re-shaped step can
    give both the same shape.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    dtype: str = "float32"
    grad_of: str = ""

    @property
    def elements(self) -> int:
        n = 1
        for size in self.shape:
            n *= size
        return n


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution dimensions as in the forward pass, whatever the phase of the op that carries them."""

    n: int
    c: int
    h: int
    w: int
    k: int
    r: int = 1
    s: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def p(self) -> int:
        """Output rows: floor((H + 2*pad - dilation*(R-1) - 1) / stride) + 1."""
        return (self.h + 2 * self.padding[0] - self.dilation[0] * (self.r - 1) - 1) // self.stride[0] + 1

    @property
    def q(self) -> int:
        """Output columns."""
        return (self.w + 2 * self.padding[1] - self.dilation[1] * (self.s - 1) - 1) // self.stride[1] + 1

    @property
    def t(self) -> int:
        """Output pixels N*P*Q: the reduction length of grad_weight."""
        return self.n * self.p * self.q

    @property
    def weights(self) -> int:
        return self.k * (self.c // self.groups) * self.r * self.s

    @property
    def macs(self) -> int:
        """F: MACs of the forward pass, and of either gradient, taps on zero padding counted."""
        return self.t * self.weights


@dataclass(frozen=True, slots=True)
class Gemm:
    """`batch` products C[M, N] = A[M, K] B[K, N]."""

    batch: int
    m: int
    n: int
    k: int

    @property
    def macs(self) -> int:
        return self.batch * self.m * self.n * self.k


@dataclass(frozen=True, slots=True)
class Pool:
    """Pooling window; `adaptive` windows follow the input size (output size stays)."""

    n: int
    c: int
    h: int
    w: int
    p: int
    q: int
    r: int
    s: int
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    adaptive: bool = False
    macs = 0


@dataclass(frozen=True, slots=True)
class Vector:
    """`elements` elements; `lane_ops` operations each (0: the table in `vector_ops`)."""

    elements: int
    lane_ops: int = 0
    macs = 0


Dims = Conv | Gemm | Pool | Vector
DIMS = {cls.__name__.lower(): cls for cls in (Conv, Gemm, Pool, Vector)}


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of the step. `name` is the module path ('layer1.0.conv1'), shared by its phases.

    Inputs and outputs name tensors, in this order: forward (X, W) -> Y; grad_input (dY, W) -> dX;
    grad_weight (dY, X) -> dW; update (W, dW, state...) -> (W, state...). Of a matmul: A and B of its own product.
    `param` is the parameter whose weight is read (forward, grad_input) or whose gradient or update this
    is; it is the key of the step's masks.
    """

    name: str
    phase: str
    kind: str
    dims: Dims
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    param: str = ""

    @property
    def macs(self) -> int:
        """Multiply-accumulates as a framework counts them, before any mask."""
        return self.dims.macs

    @property
    def label(self) -> str:
        return f"{self.name}:{self.phase}"


@dataclass(frozen=True, repr=False)
class StepGraph:
    """One training step in the order in which it ran.

    `task_masks`: which weights are active in forward and grad_input. `update_masks`: which elements get a
    gradient and are updated. Both are keyed by parameter name and have the parameter's shape.
    `observed`: zero-bitmaps that were seen, not declared, keyed by tensor name; never used as masks.
    """

    name: str
    ops: tuple[Op, ...]
    tensors: Mapping[str, Tensor]
    task_masks: Mapping[str, Mask] = field(default_factory=dict)
    update_masks: Mapping[str, Mask] = field(default_factory=dict)
    observed: Mapping[str, Mask] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in ("tensors", "task_masks", "update_masks", "observed", "meta"):
            object.__setattr__(self, key, MappingProxyType(dict(getattr(self, key))))

    def __reduce__(self):
        parts = (self.tensors, self.task_masks, self.update_masks, self.observed, self.meta)
        return (StepGraph, (self.name, self.ops, *(dict(part) for part in parts)))

    def phase(self, name: str) -> tuple[Op, ...]:
        return tuple(op for op in self.ops if op.phase == name)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready ops, tensors and meta; masks appear as name -> shape and digest."""
        return {
            "name": self.name,
            "ops": [op_as_dict(op) for op in self.ops],
            "tensors": [asdict(t) for t in self.tensors.values()],
            "masks": {
                group: {key: {"shape": list(m.shape), "sha256": m.digest()} for key, m in getattr(self, group).items()}
                for group in ("task_masks", "update_masks", "observed")
            },
            "meta": dict(self.meta),
        }

    def digest(self) -> str:
        """sha256 of everything that decides the result (`meta` is provenance, and left out)."""
        value = self.as_dict()
        del value["meta"]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def verify(self) -> None:
        """Raise one TraceError that lists every inconsistency, with the op's index and name."""
        problems = [f"op {i} {op.label}: {text}" for i, op in enumerate(self.ops) for text in _op_problems(self, op)]
        problems += [text for group in ("task_masks", "update_masks") for text in _mask_problems(self, group)]
        if not self.ops:
            problems.append("the step has no operations")
        if problems:
            shown = "\n  ".join(problems[:20])
            more = f"\n  ... and {len(problems) - 20} more" if len(problems) > 20 else ""
            raise TraceError(f"step {self.name!r} is inconsistent:\n  {shown}{more}")

    def sentence(self) -> str:
        """The step in one line: operations, MACs, masks."""
        masks = self.update_masks.values()
        share = sum(mask.count for mask in masks) / max(1, sum(mask.size for mask in masks))
        updates = f"updates {text.percent(share)} of {len(masks)} masked parameters" if masks else "no update masks"
        macs = text.count(sum(op.macs for op in self.ops))
        return text.clean(f"{self.name}: {len(self.ops)} operations, {macs} MACs, {updates}")

    def __repr__(self) -> str:
        return f"<StepGraph {self.sentence()}>"

    def _repr_html_(self) -> str:
        phases = {phase: self.phase(phase) for phase in PHASES}
        rows = (
            (phase, len(ops), text.count(sum(op.macs for op in ops)), len({op.name for op in ops}))
            for phase, ops in phases.items() if ops
        )  # fmt: skip
        return notebook.paragraph(self.sentence()) + notebook.table(("phase", "operations", "MACs", "layers"), rows)

    def __str__(self) -> str:
        lines = [f"step {self.name}: {len(self.ops)} ops, {len(self.tensors)} tensors"]
        for i, op in enumerate(self.ops):
            lines.append(f"{i:4d} {op.phase:11s} {op.kind:12s} {op.name:28s} {describe(op.dims)}")
        return "\n".join(lines)


def op_as_dict(op: Op) -> dict[str, Any]:
    value = asdict(op)
    value["dims"] = {"type": type(op.dims).__name__.lower(), **value["dims"]}
    return value


def describe(dims: Dims) -> str:
    """Compact text of dimensions, as the printed step and the reports show them."""
    match dims:
        case Conv():
            text = f"N{dims.n} C{dims.c} {dims.h}x{dims.w} K{dims.k} {dims.r}x{dims.s}"
            text += f" s{dims.stride[0]}" if dims.stride != (1, 1) else ""
            text += f" p{dims.padding[0]}" if dims.padding != (0, 0) else ""
            text += f" d{dims.dilation[0]}" if dims.dilation != (1, 1) else ""
            return text + (f" g{dims.groups}" if dims.groups > 1 else "")
        case Gemm():
            return f"{dims.batch}x[{dims.m}x{dims.k}]x[{dims.k}x{dims.n}]"
        case Pool():
            return f"N{dims.n} C{dims.c} {dims.h}x{dims.w} -> {dims.p}x{dims.q} window {dims.r}x{dims.s}"
        case Vector():
            return f"{dims.elements} elements"


def _positive(dims: Dims) -> list[str]:
    bad = []
    for key, value in asdict(dims).items():
        least = 0 if key in ("padding", "lane_ops") else 1
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, bool) and not least <= number <= MAX_DIMENSION:
                bad.append(f"{key} = {value} is outside {least}..2^40")
    return bad


def _op_problems(graph: StepGraph, op: Op) -> list[str]:
    bad = _positive(op.dims)
    if op.phase not in PHASES:
        bad.append(f"unknown phase {op.phase!r}")
    if op.kind not in KINDS:
        bad.append(f"unknown kind {op.kind!r}; known: {', '.join(KINDS)}")
    bad += [f"unknown tensor {t!r}" for t in (*op.inputs, *op.outputs) if t not in graph.tensors]
    if not bad and isinstance(op.dims, Conv):
        d = op.dims
        if d.c % d.groups or d.k % d.groups:
            bad.append(f"groups = {d.groups} does not divide C = {d.c} and K = {d.k}")
        elif d.p < 1 or d.q < 1:
            bad.append(f"the window {d.r}x{d.s} does not fit the input {d.h}x{d.w}")
    expected = {"conv": Conv, "linear": Conv, "matmul": Gemm, "pool": Pool}.get(op.kind, Vector)
    if not isinstance(op.dims, expected):
        bad.append(f"kind {op.kind!r} needs {expected.__name__} dimensions, not {type(op.dims).__name__}")
    return bad


def _mask_problems(graph: StepGraph, group: str) -> list[str]:
    shapes: dict[str, tuple[int, ...]] = {}
    for op in graph.ops:
        if op.param and isinstance(op.dims, Conv):
            d = op.dims
            shapes[op.param] = (d.k, d.c // d.groups, d.r, d.s)
    bad = []
    for param, mask in getattr(graph, group).items():
        if param not in shapes:
            bad.append(f"{group}: no convolution or linear op has the parameter {param!r}")
        elif not _same_shape(mask.shape, shapes[param]):
            bad.append(f"{group}: mask of {param!r} has shape {mask.shape}, the parameter has {shapes[param]}")
    return bad


def _same_shape(mask: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    return mask == weight or (weight[2:] == (1, 1) and mask == weight[:2])
