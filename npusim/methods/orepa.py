"""OREPA: a training-time block of several branches, squeezed into one convolution before it runs.

Rule: branch weights are combined in weight space into one W (forward), and dW is spread to them (backward); the
convolution itself runs once. Branches of a layer with taps: K x K convolution, 1x1, 1x1 then K x K (a product of
K x C by C x C*R*S in weight space), average and frequency priors, each with a scaling vector.
Formula: F + E + G of the plain network + per layer 3*K*C*C*R*S MACs (one product forward, two backward) and
`branches` operations per weight in either direction. Source: Hu et al., CVPR 2022: ResNet-18 memory/time per batch:
plain 4.2 G/.086 s, DBB 7.5/.241, OREPA 5.2/.120. Parameters: branches 1.. (1 is the plain network).
The products count as forward and grad_input. At batch 1 weight space outweighs the convolutions.
space: weight (OREPA) or activation (DBB, the block before squeezing: every branch runs on activations; see `_dbb`).
Not modelled: the exact branch set of every block type; updates of branch weights count as `branches` times the plain
layer's.
"""

from dataclasses import replace

from npusim import rewrite
from npusim.graph import Gemm, Op, StepGraph, Tensor, Vector
from npusim.method import Method, Parameter
from npusim.methods import _dbb


def train(graph: StepGraph, branches: int, space: str) -> StepGraph:
    found = {
        op.param: op for op in rewrite.layers(graph)
        if op.kind == "conv" and rewrite.dims_of(op).r * rewrite.dims_of(op).s > 1 and rewrite.dims_of(op).groups == 1
    }  # fmt: skip
    if not found:
        raise rewrite.misfit("orepa", graph, "-", "no ungrouped convolution with taps to put branches on")
    if branches == 1:
        return graph
    if space == "activation":
        return _dbb.train(graph, found)
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.param not in found or op.phase not in ("forward", "update"):
            return op
        d, weight = rewrite.dims_of(found[op.param]), graph.tensors[op.param]
        stack = Tensor(f"{op.param}/branches", (branches, *weight.shape), "weight")
        point = Tensor(f"{op.param}/pointwise", (d.c, d.c, 1, 1), "weight")
        tensors.update({stack.name: stack, point.name: point})
        taps = d.c * d.r * d.s
        if op.phase == "forward":
            part = Tensor(f"{op.param}/product", weight.shape, "activation")
            tensors[part.name] = part
            product = Op(f"{op.name}.squeeze", "forward", "matmul", Gemm(1, d.k, taps, d.c), (stack.name, point.name),
                         (part.name,))  # fmt: skip
            total = rewrite.aux(f"{op.name}.combine", (stack, part), (weight,), weight.elements, branches)
            return product, total, op
        dw = graph.tensors[op.inputs[1]]
        spread = Tensor(f"{op.param}/branches.grad", stack.shape, "weight_gradient")
        inner = Tensor(f"{op.param}/pointwise.grad", point.shape, "weight_gradient")
        tensors.update({spread.name: spread, inner.name: inner})
        wide, narrow = Gemm(1, d.k, taps, d.c), Gemm(1, d.c, d.c, d.k * d.r * d.s)
        made = [
            Op(f"{op.name}.spread", "grad_input", "matmul", wide, (dw.name, point.name), (spread.name,)),
            Op(f"{op.name}.point", "grad_input", "matmul", narrow, (dw.name, stack.name), (inner.name,)),
            rewrite.aux(f"{op.name}.scale", (dw,), (spread,), weight.elements, branches),
        ]  # fmt: skip
        update = replace(op, kind="sgd", dims=Vector(stack.elements), inputs=(stack.name, spread.name),
                         outputs=(stack.name,))  # fmt: skip
        small = replace(op, name=f"{op.name}.pointwise", kind="sgd", dims=Vector(point.elements), param="",
                        inputs=(point.name, inner.name), outputs=(point.name,))  # fmt: skip
        return (*made, update, small)

    return rewrite.rewritten(graph, change, tensors)


METHOD = Method(
    "orepa", "branches squeezed into one convolution in weight space", train, ("schedule",),
    (
        Parameter("branches", 6, "branches of a block; 1: the plain network", 1, 100),
        Parameter("space", "weight", "activation: the block before squeezing, of four branches",
                  choices=("weight", "activation")),
    ),
)  # fmt: skip
