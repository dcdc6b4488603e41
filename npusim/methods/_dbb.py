"""A diverse branch block (DBB) in activation space: what OREPA squeezes away, as its baseline.

A convolution with K x K taps becomes four branches that are added: itself; 1x1; 1x1 then K x K; 1x1 then K x K average
pooling. Every convolution and the pooling has a batch norm behind it. Source: Ding et al., CVPR 2021 (Diverse Branch
Block). Not modelled: biases, and padding by the norm's offset in the sequential branches.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from npusim import rewrite
from npusim.graph import Conv, Op, Pool, StepGraph, Tensor, Vector


@dataclass(frozen=True)
class _Link:
    """One operation of a branch: a convolution or the pooling (no weight), with its norm behind it."""

    name: str
    dims: Conv | Pool
    x: str
    y: str
    out: str
    weight: str = ""


class Block:
    """The branches of one layer; `tensors` collects what they add to the step."""

    def __init__(self, graph: StepGraph, layer: Op, update: Op, tensors: dict[str, Tensor]) -> None:
        self.graph, self.layer, self.update, self.tensors = graph, layer, update, tensors
        d = rewrite.dims_of(layer)
        x, n = layer.inputs[0], layer.name
        wide, narrow = (d.n, d.c, d.h, d.w), (d.n, d.k, d.p, d.q)
        point = Conv(d.n, d.c, d.h, d.w, d.c)
        average = Pool(d.n, d.k, d.h, d.w, d.p, d.q, d.r, d.s, d.stride, d.padding)
        self.branches = [
            [self.link(f"{n}.origin", d, x, narrow, layer.param)],
            [self.link(f"{n}.point", Conv(d.n, d.c, d.h, d.w, d.k, 1, 1, d.stride), x, narrow)],
            [self.link(f"{n}.reduce", point, x, wide), self.link(f"{n}.deep", d, f"{n}.reduce:z", narrow)],
            [self.link(f"{n}.mean", replace(point, k=d.k), x, (d.n, d.k, d.h, d.w)),
             self.link(f"{n}.average", average, f"{n}.mean:z", narrow)],
        ]  # fmt: skip
        self.passed = False

    def link(self, name: str, dims: Conv | Pool, x: str, out: tuple[int, ...], weight: str = "") -> _Link:
        for end, kind in (("y", "activation"), ("z", "activation"), ("y.grad", "gradient"), ("z.grad", "gradient")):
            grad_of = f"{name}:{end[0]}" if kind == "gradient" else ""
            self.add(f"{name}:{end}", out, kind, grad_of)
        for part in ("weight", "bias"):
            self.add(f"{name}.norm.{part}", (out[1],), "weight")
            self.add(f"{name}.norm.{part}.grad", (out[1],), "weight_gradient", f"{name}.norm.{part}")
        if isinstance(dims, Conv) and not weight:
            weight = f"{name}.weight"
            self.add(weight, (dims.k, dims.c, dims.r, dims.s), "weight")
            self.add(f"{weight}.grad", (dims.k, dims.c, dims.r, dims.s), "weight_gradient", weight)
        return _Link(name, dims, x, f"{name}:y", f"{name}:z", weight if isinstance(dims, Conv) else "")

    def add(self, name: str, shape: tuple[int, ...], kind: str, grad_of: str = "") -> None:
        self.tensors[name] = Tensor(name, shape, kind, grad_of=grad_of)

    def elements(self, name: str) -> int:
        return (self.tensors.get(name) or self.graph.tensors[name]).elements

    def forward(self) -> Iterator[Op]:
        for branch in self.branches:
            for link in branch:
                reads = (link.x, link.weight) if link.weight else (link.x,)
                kind = "conv" if link.weight else "pool"
                yield Op(link.name, "forward", kind, link.dims, reads, (link.y,), link.weight)
                yield Op(f"{link.name}.norm", "forward", "batch_norm", Vector(self.elements(link.y)),
                         (link.y, f"{link.name}.norm.weight"), (link.out,), f"{link.name}.norm.weight")  # fmt: skip
        ends = tuple(branch[-1].out for branch in self.branches)
        y = self.layer.outputs
        yield Op(f"{self.layer.name}.sum", "forward", "elementwise", Vector(self.elements(y[0]), 3), ends, y)

    def norms_backward(self, dy: str) -> Iterator[Op]:
        """Errors of all branches up to their first convolution; once, in front of whatever needs them first."""
        if self.passed:
            return
        self.passed = True
        for branch in self.branches:
            error = dy
            for link in reversed(branch):
                norm = f"{link.name}.norm"
                yield Op(norm, "grad_input", "batch_norm", Vector(self.elements(link.y)), (error, link.y),
                         (f"{link.y}.grad", f"{norm}.weight.grad", f"{norm}.bias.grad"), f"{norm}.weight")  # fmt: skip
                if link is not branch[0]:
                    reads = (f"{link.y}.grad", link.weight) if link.weight else (f"{link.y}.grad",)
                    kind = "conv" if link.weight else "pool"
                    error = f"{link.x}.grad"
                    yield Op(link.name, "grad_input", kind, link.dims, reads, (error,), link.weight)

    def grad_input(self, op: Op) -> Iterator[Op]:
        yield from self.norms_backward(op.inputs[0])
        parts: list[str] = []
        for branch in self.branches:
            link, dx = branch[0], self.graph.tensors[op.outputs[0]]
            self.tensors[f"{link.name}:dx"] = replace(dx, name=f"{link.name}:dx")
            parts.append(f"{link.name}:dx")
            reads = (f"{link.y}.grad", link.weight)
            yield Op(link.name, "grad_input", "conv", link.dims, reads, (parts[-1],), link.weight)
        yield Op(f"{op.name}.accumulate", "grad_input", "elementwise", Vector(self.elements(op.outputs[0]), 3),
                 tuple(parts), op.outputs)  # fmt: skip

    def grad_weight(self, op: Op) -> Iterator[Op]:
        yield from self.norms_backward(op.inputs[0])
        for branch in self.branches:
            for link in branch:
                if link.weight:
                    dw = op.outputs if link.weight == op.param else (f"{link.weight}.grad",)
                    yield Op(link.name, "grad_weight", "conv", link.dims, (f"{link.y}.grad", link.x), dw, link.weight)

    def updates(self, op: Op) -> Iterator[Op]:
        """The layer's own, and SGD on what the branches add."""
        yield op
        for branch in self.branches:
            for link in branch:
                own = [f"{link.name}.norm.weight", f"{link.name}.norm.bias"]
                own += [link.weight] if link.weight and link.weight != op.param else []
                for name in own:
                    yield Op(
                        link.name, "update", "sgd", Vector(self.elements(name)), (name, f"{name}.grad"), (name,), name
                    )


def train(graph: StepGraph, found: dict[str, Op]) -> StepGraph:
    """Every layer of `found` as a block of branches."""
    tensors: dict[str, Tensor] = {}
    updates = {op.param: op for op in graph.phase("update") if op.param in found}
    blocks = {param: Block(graph, op, updates[param], tensors) for param, op in found.items() if param in updates}

    def change(op: Op):
        block = blocks.get(op.param)
        if block is None or op.kind == "bias_grad":
            return op
        made = {"forward": lambda: block.forward(), "grad_input": lambda: block.grad_input(op),
                "grad_weight": lambda: block.grad_weight(op), "update": lambda: block.updates(op)}  # fmt: skip
        return list(made[op.phase]())

    return rewrite.rewritten(graph, change, tensors)
