"""Training of masks per crossbar column over weights that stay in their cells: what XBM, XMA and XMA2 share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from npusim import rewrite
from npusim.crossbars import Matrix, matrix
from npusim.graph import Op, StepGraph, Tensor, Vector
from npusim.masks import Mask
from npusim.method import MisfitError
from npusim.npu import Hardware


def placed(graph: StepGraph, op: Op, hardware: Hardware, method: str) -> Matrix:
    """How the layer's forward weights lie in the machine's crossbars."""
    if hardware.crossbar is None:
        raise MisfitError(
            f"method {method!r} does not fit machine {hardware.name!r}: it masks columns of crossbars, and the machine "
            "has none; choose one with a [crossbar] section, such as reram-128x128"
        )
    d = rewrite.dims_of(op)
    length, outputs = d.c // d.groups * d.r * d.s, d.k // d.groups
    return matrix(d.groups, length, outputs, hardware.precision.weight_bits, hardware.crossbar)


def mask_values(found: tuple[Op, ...], lies: Mapping[str, Matrix]) -> int:
    """Mask values of a network: one per output channel and row block of its matrix."""
    return sum(rewrite.dims_of(op).k * lies[op.param].row_blocks for op in found)


def train(
    graph: StepGraph, found: tuple[Op, ...], lies: Mapping[str, Matrix], bits: int, programmed: Mapping[str, Mask]
) -> StepGraph:
    """Masks of `bits` per column trained through real-valued scores; weights in `programmed` are trained themselves.

    Per step and layer: scores give the masks that go to the periphery (2 operations per column); dW times W, summed
    over a column, gives the scores' gradient; SGD on the scores. Without `programmed` no cell is written.
    """
    params = {op.param for op in found}
    tensors: dict[str, Tensor] = {}
    for op in found:
        shape = (rewrite.dims_of(op).k, lies[op.param].row_blocks)
        tensors[f"{op.param}/scores"] = Tensor(f"{op.param}/scores", shape, "state")
        tensors[f"{op.param}/scores.grad"] = Tensor(f"{op.param}/scores.grad", shape, "weight_gradient")
        tensors[f"{op.param}/columns"] = Tensor(f"{op.param}/columns", (bits, *shape), "mask", "uint8")

    def change(op: Op):
        if op.param not in params or op.kind == "bias_grad":
            return op
        scores, gradient, columns = (tensors[op.param + end] for end in ("/scores", "/scores.grad", "/columns"))
        if op.phase == "forward":
            made = rewrite.aux(f"{op.name}.columns", (scores,), (columns,), scores.elements, 2)
            return made, replace(op, inputs=(*op.inputs, columns.name))
        if op.phase == "grad_input":
            return replace(op, inputs=(*op.inputs, columns.name))
        if op.phase == "grad_weight":
            # Every column needs its sum, so no mask of programmed weights may skip a gradient.
            return replace(op, param="") if op.param in programmed else op
        if op.phase == "update":
            weight, dw = graph.tensors[op.param], graph.tensors[op.inputs[1]]
            product = rewrite.aux(f"{op.name}.product", (dw, weight), (gradient,), weight.elements, 2)
            names = (scores.name, gradient.name)
            step = Op(f"{op.name}.columns", "update", "sgd", Vector(scores.elements), names, names[:1])
            return (product, step, op) if op.param in programmed else (product, step)
        return op

    step = rewrite.rewritten(graph, change, tensors)
    return rewrite.masked(step, programmed) if programmed else step
