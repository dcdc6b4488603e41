"""The same network with more channels: what growing methods train."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from npusim import rewrite
from npusim.graph import Conv, Gemm, Op, Pool, StepGraph, Vector

Shape = tuple[int, ...]


def widened(graph: StepGraph, factor: float, method: str) -> StepGraph:
    """Every channel count times `factor` (rounded), but for the network's input and the last layer's outputs.

    For dense convolutional steps: masks and zero-bitmaps would no longer fit. MisfitError for attention, for layers
    grouped otherwise than depthwise, and for steps with masks.
    """
    if factor == 1:
        return graph
    if graph.update_masks or graph.task_masks:
        raise rewrite.misfit(method, graph, "-", "growing changes the shape of what is masked; start from a dense step")
    return _Wider(graph, factor, method).run()


class _Wider:
    """New shapes of the tensors, found along the forward operations."""

    def __init__(self, graph: StepGraph, factor: float, method: str) -> None:
        self.graph, self.factor, self.method = graph, factor, method
        self.last = rewrite.layers(graph)[-1]
        written = {name for op in graph.ops for name in op.outputs}
        self.shapes: dict[str, Shape] = {
            name: t.shape for name, t in graph.tensors.items() if name not in written and t.kind == "activation"
        }
        self.dims: dict[tuple[str, str], Conv | Pool] = {}
        self.channels: dict[str, int] = {}

    def run(self) -> StepGraph:
        forward = [self.forward(op) for op in self.graph.phase("forward")]
        for name, tensor in self.graph.tensors.items():
            if name not in self.shapes and tensor.kind == "weight" and len(tensor.shape) == 1:
                self.shapes[name] = (self.channels[name.rpartition(".")[0]],)
        for op in self.graph.phase("update"):
            for name in (*op.inputs, *op.outputs):
                if self.graph.tensors[name].kind == "state":
                    self.shapes[name] = self.shapes[op.param]
        for name, tensor in self.graph.tensors.items():
            if tensor.grad_of:
                self.shapes[name] = self.shapes[tensor.grad_of]
        rest = [self.backward(op) for op in self.graph.ops if op.phase != "forward"]
        tensors = {name: replace(t, shape=self.shapes.get(name, t.shape)) for name, t in self.graph.tensors.items()}
        made = replace(self.graph, ops=(*forward, *rest), tensors=tensors, observed={})
        made.verify()
        return made

    def forward(self, op: Op) -> Op:
        x, y = op.inputs[0], op.outputs[0]
        old, new = self.graph.tensors[x].shape, self.shapes[x]
        match op.dims:
            case Conv():
                dims: Conv | Pool | Vector = self.convolution(op, op.dims, new)
                assert isinstance(dims, Conv)
                old_y = self.graph.tensors[y].shape
                self.shapes[y] = (old_y[0], dims.k, *old_y[2:])
                weight = self.graph.tensors[op.param].shape
                self.shapes[op.param] = (dims.k, dims.c // dims.groups, *weight[2:])
            case Pool():
                dims = replace(op.dims, c=new[1])
                self.shapes[y] = (old[0], new[1], *self.graph.tensors[y].shape[2:])
            case Vector():
                dims = replace(op.dims, elements=op.dims.elements * prod(new) // prod(old))
                for name in op.outputs:
                    self.shapes[name] = new if self.graph.tensors[name].shape == old else (new[1],)
            case Gemm():
                raise rewrite.misfit(self.method, self.graph, op.name, "attention cannot be widened channel by channel")
        if isinstance(dims, Conv | Pool):
            self.dims[op.name, op.kind] = dims
        self.channels[op.name] = self.shapes[y][1]
        return replace(op, dims=dims)

    def convolution(self, op: Op, d: Conv, new: Shape) -> Conv:
        c = new[1] if op.kind == "conv" else prod(new[1:])
        if d.groups not in (1, d.c):
            raise rewrite.misfit(
                self.method, self.graph, op.name, f"{d.groups} groups of {d.c} channels cannot be widened"
            )
        if d.groups > 1:
            return replace(d, c=c, k=d.k * c // d.c, groups=c)
        return replace(d, c=c, k=d.k if op.param == self.last.param else max(1, round(d.k * self.factor)))

    def backward(self, op: Op) -> Op:
        if isinstance(op.dims, Conv | Pool):
            return replace(op, dims=self.dims[op.name, op.kind])
        assert isinstance(op.dims, Vector)
        name = op.inputs[0]
        old, new = self.graph.tensors[name].shape, self.shapes[name]
        return replace(op, dims=replace(op.dims, elements=op.dims.elements * prod(new) // prod(old)))
