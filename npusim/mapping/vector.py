"""Elementwise operations: how often they read their inputs and what they cost per element.

| kind         | phase      | sweeps | lane operations per element |
|--------------|------------|--------|---------------------------------------------------------------------------------|
| batch_norm   | forward    | 2      | sweep 1: sum, sum of squares (2); sweep 2: scale and shift (1) |
| batch_norm   | grad_input | 2      | sweep 1: xhat, sum dY, sum dY*xhat (3); sweep 2: a*dY + b*xhat + c (2) |
| layer_norm   |            | 2      | as batch_norm |
| activation   |            | 1      | 1 |
| add, mul     |            | 1      | 1 |
| softmax      | forward    | 2      | sweep 1: maximum (1); sweep 2: exponent, sum, divide (3) |
| softmax      | grad_input | 2      | sweep 1: dot product (1); sweep 2: subtract, multiply (2) |
| softmax_loss |            | 2      | as softmax, and the subtraction of the target |
| bias_grad    |            | 1      | 1 (sum) |
| pool         | forward    | 1      | R*S per output (window comparisons or sums) |
| pool         | grad_input | 1      | R*S per output (scatter) |
| sgd          |            | 1      | 1 (W -= lr*dW) |
| momentum     |            | 1      | 2 (V = mu*V + dW; W -= lr*V) |
| adam         |            | 1      | 10 (two moving averages 4, two bias corrections 2, root, add, divide, update) |
| elementwise  |            | 1      | the operation's own `lane_ops` |

Counted from the formulas of the operations, one fused multiply-add as one lane operation.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from npusim.folding import ceil_div
from npusim.graph import Op, Pool, StepGraph, Vector
from npusim.mapping import _kernels, addresses, limits
from npusim.mapping.builder import Stretch, stretch

if TYPE_CHECKING:
    from npusim.masks import Mask
    from npusim.npu import Hardware

# (kind, phase or '' for any) -> (sweeps over the inputs, lane operations per element over all sweeps)
COSTS = {
    ("batch_norm", "forward"): (2, 3),
    ("batch_norm", "grad_input"): (2, 5),
    ("layer_norm", "forward"): (2, 3),
    ("layer_norm", "grad_input"): (2, 5),
    ("activation", ""): (1, 1),
    ("add", ""): (1, 1),
    ("mul", ""): (1, 1),
    ("softmax", "forward"): (2, 4),
    ("softmax", "grad_input"): (2, 3),
    ("softmax_loss", "forward"): (2, 5),
    ("softmax_loss", "grad_input"): (1, 2),
    ("bias_grad", ""): (1, 1),
    ("sgd", ""): (1, 1),
    ("momentum", ""): (1, 2),
    ("adam", ""): (1, 10),
}


def cost(op: Op) -> tuple[int, int, int]:
    """(sweeps over the inputs, elements, lane operations per element) of a non-MAC operation."""
    if isinstance(op.dims, Pool):
        d = op.dims
        return 1, d.n * d.c * d.p * d.q, d.r * d.s
    assert isinstance(op.dims, Vector)
    sweeps, lane_ops = COSTS.get((op.kind, op.phase)) or COSTS.get((op.kind, "")) or (1, 1)
    return sweeps, op.dims.elements, op.dims.lane_ops or lane_ops


def lower(
    op: Op, graph: StepGraph, hw: Hardware, selected: Mask | None
) -> tuple[Stretch, dict, addresses.Pieces | None]:
    """Tasks, work counts, and DRAM pieces (None with ideal memory) of one vector operation.

    Inputs stream through buffers a and b in turn, outputs leave through the accumulator buffer, in chunks that
    fill a slot. With `selected` (an operation on masked weights) only those elements are computed, gradients move
    compactly, and weights and state move in whole bursts that hold at least one selected element.
    """
    sweeps, elements, lane_ops = cost(op)
    sizes = [_moved_bytes(graph.tensors[name], hw, selected) for name in (*op.inputs, *op.outputs)]
    elements = selected.count if selected is not None else elements
    inputs, outputs = sizes[: len(op.inputs)], sizes[len(op.inputs) :]
    totals = {"a": sum(inputs[::2]), "b": sum(inputs[1::2]), "accumulator": sum(outputs)}
    buffers = hw.buffers
    chunks = max(1, *(ceil_div(totals[key], getattr(buffers, key).slot_bytes) for key in totals))
    limits.tasks(4 * sweeps * chunks, op.label)
    work = ceil_div(ceil_div(elements * lane_ops, sweeps), hw.vector.lanes)
    slots = buffers.a.slots, buffers.b.slots, buffers.accumulator.slots
    tasks, part = _stream(chunks, sweeps, *totals.values(), work, slots, hw.dram.burst_bytes)
    counts = {
        "vector_lane_ops": elements * lane_ops,
        "a_read_bytes": sweeps * totals["a"],
        "b_read_bytes": sweeps * totals["b"],
        "accumulator_write_bytes": totals["accumulator"],
    }
    pieces = None
    if hw.dram.model == "commands":
        spans = [_span_bytes(graph.tensors[name], hw, selected) for name in (*op.inputs, *op.outputs)]
        pieces = addresses.stream(sizes, spans, len(op.inputs), chunks, tasks, hw)
    return part, counts, pieces


@lru_cache(maxsize=4096)
def _stream(
    chunks: int, sweeps: int, a_bytes: int, b_bytes: int, out_bytes: int, cycles: int, slots: tuple[int, int, int],
    burst: int,
) -> tuple[np.ndarray, Stretch]:  # fmt: skip
    """Task table and its columns; all sizes of one sweep."""
    sizes = (_split(total, chunks) for total in (a_bytes, b_bytes, out_bytes, cycles))
    tasks, deps = _kernels.emit_stream(chunks, sweeps, *sizes, np.array(slots))
    return tasks, stretch(tasks, deps, burst)


def _span_bytes(tensor, hw: Hardware, selected: Mask | None) -> int:
    """Bytes over which those of `_moved_bytes` are spread."""
    if tensor.kind == "weight_gradient":
        return _moved_bytes(tensor, hw, selected)
    return _moved_bytes(tensor, hw, None)


def _moved_bytes(tensor, hw: Hardware, selected: Mask | None) -> int:
    bits = hw.precision.bits(tensor.kind)
    if selected is None:
        return ceil_div(tensor.elements * bits, 8)
    if tensor.kind == "weight_gradient":
        return ceil_div(selected.count * bits, 8)
    per_burst = max(1, hw.dram.burst_bytes * 8 // bits)
    return touched_bursts(selected, per_burst) * hw.dram.burst_bytes


@lru_cache(maxsize=1024)
def touched_bursts(mask: Mask, per_burst: int) -> int:
    """Bursts of `per_burst` consecutive elements that hold a selected one."""
    chosen = np.pad(mask.bits().reshape(-1), (0, -mask.size % per_burst)).reshape(-1, per_burst)
    return int(chosen.any(axis=1).sum())


def _split(total: int, parts: int) -> np.ndarray:
    """`total` in `parts` nearly equal int64 shares that sum to it."""
    share, rest = divmod(int(total), parts)
    return np.full(parts, share, np.int64) + (np.arange(parts) < rest)
