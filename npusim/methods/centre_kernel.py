"""Centre-sensitive kernel optimisation: only the centre tap of each kernel gets a gradient.

Rule: grad_weight of a convolution with R x S > 1 taps is that of a 1x1 convolution on the X pixels under the centre;
optionally only a share of its input channels. Formula: G / (R*S), times `channels`. Layers without taps are as before.
Source: arXiv 2406.08830 (abstract). Parameters: channels 0..1 (at least one channel per layer).
Not modelled: the paper's choice of channels; rows of X off the centre grid are kept with the rest of X.
"""

from dataclasses import replace

from npusim import rewrite
from npusim.graph import Conv, Op, StepGraph, Tensor, Vector
from npusim.method import Method, Parameter


def centre(d: Conv) -> Conv:
    """The 1x1 convolution of the centre taps: the pixels of X that lie under them."""
    rows, cols = (d.p - 1) * d.stride[0] + 1, (d.q - 1) * d.stride[1] + 1
    return Conv(d.n, d.c, rows, cols, d.k, 1, 1, d.stride, groups=d.groups)


def train(graph: StepGraph, channels: float) -> StepGraph:
    found = {op.param: op for op in rewrite.layers(graph)[:-1]}
    if not any(rewrite.dims_of(op).r * rewrite.dims_of(op).s > 1 for op in found.values()):
        raise rewrite.misfit("centre-kernel", graph, "all", "no convolution with taps: nothing lies off a centre")
    for op in found.values():
        d = rewrite.dims_of(op)
        if d.r % 2 == 0 or d.s % 2 == 0:
            raise rewrite.misfit("centre-kernel", graph, op.name, f"a window of {d.r}x{d.s} has no centre tap")
    counts = {param: max(1, round(rewrite.dims_of(op).c * channels)) for param, op in found.items()}
    step = rewrite.select_inputs(graph, counts)
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.phase != "grad_weight" or op.param not in found or op.kind != "conv":
            return op
        d = rewrite.dims_of(op)
        if d.r * d.s == 1:
            return op
        dw = step.tensors[op.outputs[0]]
        tensors[dw.name] = replace(dw, shape=(*dw.shape[:2], 1, 1))
        return replace(op, dims=centre(d))

    return rewrite.rewritten(step, _updates(step, found, tensors, change), tensors)


def _updates(step: StepGraph, found, tensors: dict[str, Tensor], change):
    """Updates of the centre taps only, as the gradients are."""

    def with_updates(op: Op):
        if op.phase != "update" or op.param not in found or op.inputs[1] not in tensors:
            return change(op)
        gradient = tensors[op.inputs[1]]
        names = {}
        for name in (*op.inputs, *op.outputs):
            tensor = step.tensors[name]
            if tensor.kind == "weight":
                names[name] = f"{name}[centre]"
                tensors[names[name]] = replace(tensor, name=names[name], shape=gradient.shape)
            elif tensor.kind == "state":
                tensors[name] = replace(tensor, shape=gradient.shape)
        return replace(
            op, dims=Vector(gradient.elements),
            inputs=tuple(names.get(n, n) for n in op.inputs), outputs=tuple(names.get(n, n) for n in op.outputs),
        )  # fmt: skip

    return with_updates


METHOD = Method(
    "centre-kernel", "gradients of the centre tap of each kernel only", train, ("axis_mask", "saved_tensor"),
    (Parameter("channels", 1.0, "share of input channels with a gradient", 0, 1),),
)  # fmt: skip
