"""Primitives that methods are made of: each turns a StepGraph into a StepGraph that still verifies.

A tensor named `base[part]` is a view of `base`: a retained part of its storage, never a copy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from npusim.graph import MAC_KINDS, Conv, Op, StepGraph, Tensor, Vector
from npusim.masks import Mask
from npusim.method import MisfitError

BACKWARD = ("grad_input", "grad_weight")


def misfit(method: str, graph: StepGraph, layer: str, reason: str) -> MisfitError:
    """The error for a step that a method does not fit."""
    return MisfitError(f"method {method!r} does not fit step {graph.name!r}: layer {layer}: {reason}")


def layers(graph: StepGraph) -> tuple[Op, ...]:
    """Forward operations of the layers with weights (convolutions and linear), in order; one per parameter."""
    found: dict[str, Op] = {}
    for op in graph.phase("forward"):
        if op.kind in ("conv", "linear") and op.param:
            found.setdefault(op.param, op)
    return tuple(found.values())


def dims_of(op: Op) -> Conv:
    assert isinstance(op.dims, Conv)
    return op.dims


def parameters(graph: StepGraph) -> dict[str, Tensor]:
    """Parameters that get a gradient, by name: the tensors that weight gradients are the gradients of."""
    found = {}
    for op in graph.ops:
        for name in op.outputs if op.phase in BACKWARD else ():
            tensor = graph.tensors[name]
            if tensor.kind == "weight_gradient" and tensor.grad_of in graph.tensors:
                found[tensor.grad_of] = graph.tensors[tensor.grad_of]
    return found


def of_layer(graph: StepGraph, layer: Op) -> set[str]:
    """The trained parameters of a layer's own module: weight and, if any, bias."""
    module = layer.param.rpartition(".")[0]
    return {name for name in parameters(graph) if name == layer.param or name.rpartition(".")[0] == module}


def keep(graph: StepGraph, wanted: Collection[str]) -> StepGraph:
    """Only the parameters `wanted` are trained (fields alive, truncate_at).

    Updates of the others go, and every backward operation whose results nobody reads any more: error propagation
    ends at the deepest wanted parameter. Outputs that nobody reads are not written.
    """
    ops: list[Op] = []
    needed: set[str] = set()
    for op in reversed(graph.ops):
        if op.phase == "update" and op.param not in wanted:
            continue
        if op.phase in BACKWARD:
            outputs = tuple(o for o in op.outputs if o in needed or _wanted_gradient(graph, op, o, wanted))
            if not outputs:
                continue
            op = op if outputs == op.outputs else replace(op, outputs=outputs)
        needed.update(op.inputs)
        ops.append(op)
    return with_ops(graph, _runnable(graph, reversed(ops)))


def _wanted_gradient(graph: StepGraph, op: Op, name: str, wanted: Collection[str]) -> bool:
    tensor = graph.tensors[name]
    return tensor.kind == "weight_gradient" and (tensor.grad_of or op.param) in wanted


def _runnable(graph: StepGraph, ops: Iterable[Op]) -> list[Op]:
    """Without the `aux` operations that read something nobody writes any more."""
    written_before = {name for op in graph.ops for name in op.outputs}
    kept: list[Op] = []
    available: set[str] = set()
    for op in ops:
        if op.phase == "aux" and any(name in written_before and name not in available for name in op.inputs):
            continue
        available.update(op.outputs)
        kept.append(op)
    return kept


def with_ops(graph: StepGraph, ops: Iterable[Op], tensors: Iterable[Tensor] = ()) -> StepGraph:
    """Another list of operations; tensors (in order of use) and masks that it does not use are dropped."""
    ops = tuple(ops)
    if ops == graph.ops:
        return graph
    known = {**graph.tensors, **{t.name: t for t in tensors}}
    used = dict.fromkeys(name for op in ops for name in (*op.inputs, *op.outputs))
    used |= dict.fromkeys(of for name in used if (of := known[name].grad_of) in known)
    trained = {op.param for op in ops if op.phase in ("grad_weight", "update", "aux")}
    params = {op.param for op in ops}
    return replace(
        graph,
        ops=ops,
        tensors={name: known[name] for name in used},
        update_masks={key: mask for key, mask in graph.update_masks.items() if key in trained},
        task_masks={key: mask for key, mask in graph.task_masks.items() if key in params},
        observed={key: mask for key, mask in graph.observed.items() if key in used},
    )


def rewritten(
    graph: StepGraph, change: Callable[[Op], Op | Iterable[Op]], tensors: Mapping[str, Tensor] | None = None
) -> StepGraph:
    """Every operation replaced by what `change` makes of it: one operation, several, or none."""
    ops: list[Op] = []
    for op in graph.ops:
        made = change(op)
        ops += [made] if isinstance(made, Op) else made
    return with_ops(graph, ops, (tensors or {}).values())


def masked(graph: StepGraph, masks: Mapping[str, Mask]) -> StepGraph:
    """Update masks on more parameters (field axis_mask); on one that has a mask, both must select an element."""
    joined = {
        name: Mask.of(graph.update_masks[name].bits() & mask.bits()) if name in graph.update_masks else mask
        for name, mask in masks.items()
    }
    return replace(graph, update_masks={**graph.update_masks, **joined})


def random_mask(layer: Op, density: float, seed: int, unit: str = "element") -> Mask:
    """A mask with round(density * units) units of a layer's weights, drawn from `seed` and the layer's name.

    unit: element, kernel (k, c), input_channel, output_channel.
    """
    import zlib

    import numpy as np

    d = dims_of(layer)
    shape = (d.k, d.c // d.groups, d.r, d.s)
    units = {"element": shape, "kernel": (*shape[:2], 1, 1), "input_channel": (1, shape[1], 1, 1),
             "output_channel": (shape[0], 1, 1, 1)}[unit]  # fmt: skip
    total = int(np.prod(units))
    rng = np.random.default_rng([seed, zlib.crc32(layer.param.encode())])
    bits = np.zeros(total, bool)
    bits[: round(density * total)] = True
    rng.shuffle(bits)
    return Mask.of(np.broadcast_to(bits.reshape(units), shape))


def select_inputs(graph: StepGraph, counts: Mapping[str, int]) -> StepGraph:
    """Gradients of the first `counts[param]` input channels only (fields axis_mask and saved_tensor).

    The operations shrink, X is retained in part, and dW, its update and its optimizer state have the selected
    channels. Which channels are taken does not change the cost, so the first stand for them. Grouped layers select
    whole groups: those that the channels lie in.
    """
    whole = {op.param: _whole_groups(dims_of(op), counts[op.param]) for op in layers(graph) if op.param in counts}
    changed = {op.param: whole[op.param] for op in layers(graph) if whole.get(op.param, 2**62) < dims_of(op).c}
    tensors: dict[str, Tensor] = {}

    def change(op: Op) -> Op:
        if op.param not in changed or op.phase not in ("grad_weight", "update") or op.kind == "bias_grad":
            return op
        return _narrowed(graph, op, changed[op.param], tensors)

    return rewritten(graph, change, tensors)


def _whole_groups(d: Conv, count: int) -> int:
    """Input channels of the groups that hold the first `count` ones; `count` itself without groups."""
    if d.groups == 1:
        return count
    size = d.c // d.groups
    return -(-count // size) * size


def _narrowed(graph: StepGraph, op: Op, count: int, tensors: dict[str, Tensor]) -> Op:
    if op.phase == "grad_weight":
        d = dims_of(op)
        small = replace(d, c=count)
        if d.groups > 1:
            small = replace(d, c=count, k=d.k * count // d.c, groups=d.groups * count // d.c)
        dy, x = op.inputs
        dy = _view(graph, dy, f"[:{small.k}]", 1, small.k, tensors) if d.groups > 1 else dy
        inputs = (dy, _view(graph, x, f"[:{count}]", 1, count, tensors))
        outputs = tuple(_narrow_weight(graph, name, d, count, tensors) for name in op.outputs)
        return replace(op, dims=small, inputs=inputs, outputs=outputs)
    layer = next(item for item in layers(graph) if item.param == op.param)
    rename = {name: _narrow_weight(graph, name, dims_of(layer), count, tensors) for name in (*op.inputs, *op.outputs)}
    dims = Vector(tensors[rename[op.inputs[0]]].elements)
    return replace(op, dims=dims, inputs=tuple(rename[n] for n in op.inputs),
                   outputs=tuple(rename[n] for n in op.outputs))  # fmt: skip


def _view(graph: StepGraph, name: str, part: str, axis: int, size: int, tensors: dict[str, Tensor]) -> str:
    """A view of `size` entries along `axis` of a tensor with that axis; of any other, a flat view of its share."""
    base = graph.tensors[name]
    shape = list(base.shape)
    shape[axis] = size
    view = f"{name}{part}"
    tensors[view] = replace(base, name=view, shape=tuple(shape), grad_of="")
    return view


def _narrow_weight(graph: StepGraph, name: str, d: Conv, count: int, tensors: dict[str, Tensor]) -> str:
    base = graph.tensors[name]
    shape = list(base.shape)
    axis = 0 if d.groups > 1 else 1
    shape[axis] = shape[axis] * count // d.c if d.groups > 1 else count
    if base.kind == "weight":
        return _view(graph, name, f"[{':' if axis == 0 else ':,:'}{count}]", axis, shape[axis], tensors)
    tensors[name] = replace(base, shape=tuple(shape))
    return name


def sign_masks(graph: StepGraph) -> StepGraph:
    """Activation functions keep one bit per output instead of the output (field saved_tensor).

    Right for ReLU and its bounded forms, whose gradient depends only on whether the output is inside the range.
    """
    read = {op.inputs[1] for op in graph.ops if op.kind == "activation" and op.phase == "grad_input" and op.inputs[1:]}
    tensors = {y: replace(graph.tensors[y], name=f"{y}/range", kind="mask", dtype="bool") for y in read}

    def change(op: Op) -> Op:
        if op.kind != "activation":
            return op
        if op.phase == "forward" and op.outputs[0] in read:
            return replace(op, outputs=(*op.outputs, f"{op.outputs[0]}/range"))
        if op.phase == "grad_input" and len(op.inputs) > 1:
            return replace(op, inputs=(op.inputs[0], f"{op.inputs[1]}/range"))
        return op

    return rewritten(graph, change, {t.name: t for t in tensors.values()})


def frozen_norms(graph: StepGraph) -> StepGraph:
    """Batch norms without a trained parameter use stored statistics: one multiply-add forward, a scaling backward.

    Their backward then reads no activation.
    """
    trained = {op.name for op in graph.phase("update")}

    def change(op: Op) -> Op:
        if op.kind != "batch_norm" or op.name in trained or not isinstance(op.dims, Vector):
            return op
        dims = Vector(op.dims.elements, 1)
        if op.phase == "forward":
            return replace(op, kind="elementwise", dims=dims)
        scale = (op.param,) if op.param in graph.tensors else ()
        return replace(op, kind="elementwise", dims=dims, inputs=(op.inputs[0], *scale), param="")

    return rewritten(graph, change)


def interleaved(graph: StepGraph) -> StepGraph:
    """Updates moved to where their gradient is ready and nobody reads the old weight any more (field schedule)."""
    ops = [op for op in graph.ops if op.phase != "update"]
    after: dict[int, list[Op]] = {}
    for op in graph.phase("update"):
        own = set(op.inputs)
        last = max((i for i, other in enumerate(ops) if own & {*other.inputs, *other.outputs}), default=len(ops) - 1)
        after.setdefault(last, []).append(op)
    ordered = [item for i, op in enumerate(ops) for item in (op, *after.get(i, []))]
    return with_ops(graph, ordered)


def aux(name: str, reads: Iterable[Tensor], writes: Iterable[Tensor], elements: int, lane_ops: int, param="") -> Op:
    """An elementwise operation of phase `aux`."""
    inputs, outputs = tuple(t.name for t in reads), tuple(t.name for t in writes)
    return Op(name, "aux", "elementwise", Vector(elements, lane_ops), inputs, outputs, param)


def trained_weights(graph: StepGraph) -> int:
    """Elements that are updated: the sizes of the updates, of masked ones the selected elements."""
    total = 0
    for op in graph.phase("update"):
        mask = graph.update_masks.get(op.param)
        total += mask.count if mask is not None else op.dims.elements if isinstance(op.dims, Vector) else 0
    return total


def useful_macs(graph: StepGraph) -> float:
    """MACs that masks leave: those of forward and grad_input times the task mask's density, of grad_weight times the
    update mask's. What a machine without overheads would have to compute."""
    total = 0.0
    for op in graph.ops:
        if op.kind in MAC_KINDS:
            masks = graph.task_masks if op.phase in ("forward", "grad_input") else graph.update_masks
            total += op.macs * (masks[op.param].density if op.param in masks else 1.0)
    return total
