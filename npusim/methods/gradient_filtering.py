"""Gradient filtering: gradients of patches of r x r output pixels instead of pixels.

Rule: dY is averaged over r x r patches; X is summed over patches of (r*stride)^2 during forward and only that is kept;
W is summed over its taps. grad_input: one product per patch with the summed W, broadcast back to the pixels.
grad_weight: dY~ . X~, the same value for every tap. Only the last `layers` convolutions and the classifier are
trained; a projection on a shortcut (a 1x1 convolution of what one with taps reads too) is not counted, and frozen.
Formula per layer, w = K*C/groups, q = ceil(P/r)*ceil(Q/r): G = w*q and E = w*q MACs; `flops` is the authors' count.
Dilated variant (their segmentation networks): where the dilation is r or more, W keeps its taps, and grad_input is a
convolution of the averaged dY with dilation floor(dilation / r): E = w*q*R*S; G is as before.
Source: Yang et al., CVPR 2023 (arXiv 2301.00330); the variant from their code (SLDGroup/GradientFilter-CVPR23).
Parameters: r 1.. (1 filters nothing: every pixel is its own patch and taps stay apart); layers, 0 for all.
Not modelled: norms behind the deepest layer stay frozen.
"""

from dataclasses import replace

from npusim import rewrite
from npusim.graph import Conv, Op, Pool, StepGraph, Tensor
from npusim.method import Method, Parameter


def main_path(graph: StepGraph) -> list[Op]:
    """Convolutions but for projections on shortcuts, in order."""
    found = [op for op in rewrite.layers(graph) if op.kind == "conv"]
    most: dict[str, int] = {}
    for op in found:
        most[op.inputs[0]] = max(most.get(op.inputs[0], 0), _taps(op))
    return [op for op in found if _taps(op) > 1 or most[op.inputs[0]] == 1]


def _taps(op: Op) -> int:
    return rewrite.dims_of(op).r * rewrite.dims_of(op).s


def flops(dims: Conv, r: int, propagates: bool) -> int:
    """The authors' operations of one convolution at batch 1: its grad_weight, and its grad_input if it propagates.

    r = 1 is the unfiltered layer.
    """
    w, pq, taps = dims.k * dims.c // dims.groups, dims.p * dims.q, dims.r * dims.s
    if r == 1:
        return w * (pq * (taps + 1) - 1) + (2 * w * pq * taps if propagates else 0)
    q = -(-dims.p // r) * -(-dims.q // r)
    product = w * q if dims.groups == dims.c else 2 * w * q
    return w * (2 * q - 1) + dims.k * pq + (product + w * (taps - 1) if propagates else 0)


def kept_bytes(dims: Conv, r: int) -> int:
    """Bytes of X that the authors count as kept for one convolution, 4 per value."""
    size = dims.h * dims.w if r == 1 else -(-dims.p // r) * -(-dims.q // r)
    return 4 * dims.c * size


def classifier_flops(dims: Conv) -> int:
    return 3 * dims.c * dims.k + dims.c


def train(graph: StepGraph, r: int, layers: int) -> StepGraph:
    found = main_path(graph)
    if not found:
        raise rewrite.misfit("gradient-filtering", graph, "-", "the step has no convolution")
    chosen = found[-layers:] if layers else found
    wanted = {name for op in (*chosen, rewrite.layers(graph)[-1]) for name in rewrite.of_layer(graph, op)}
    step = rewrite.keep(graph, wanted)
    return step if r == 1 else _Filter(step, chosen, r).run()


class _Filter:
    """Adds pooling, tap sums and broadcasts to the chosen layers."""

    def __init__(self, graph: StepGraph, chosen: list[Op], r: int) -> None:
        self.graph, self.r = graph, r
        self.chosen = {op.param: op for op in chosen}
        self.tensors: dict[str, Tensor] = {}
        self.pooled: set[str] = set()

    def run(self) -> StepGraph:
        return rewrite.rewritten(self.graph, self.change, self.tensors)

    def change(self, op: Op):
        if op.param not in self.chosen or op.kind == "bias_grad":
            return op
        d = rewrite.dims_of(self.chosen[op.param])
        small = Conv(d.n, d.c, -(-d.p // self.r), -(-d.q // self.r), d.k, groups=d.groups)
        match op.phase:
            case "forward":
                return self.forward(op, d, small)
            case "grad_input":
                return self.grad_input(op, d, small)
            case "grad_weight":
                return self.grad_weight(op, d, small)
        return op

    def forward(self, op: Op, d: Conv, small: Conv) -> list[Op]:
        x = self.graph.tensors[op.inputs[0]]
        kept = self.tensor(f"{op.name}:x/patches", (d.n, d.c, small.h, small.w), x)
        window = (self.r * d.stride[0], self.r * d.stride[1])
        dims = Pool(d.n, d.c, d.h, d.w, small.h, small.w, *window, stride=window)
        return [op, Op(f"{op.name}.pool_x", "aux", "pool", dims, (x.name,), (kept.name,))]

    def pool_dy(self, op: Op, d: Conv, small: Conv) -> tuple[list[Op], str]:
        dy = self.graph.tensors[op.inputs[0]]
        name = f"{op.name}:dy/patches"
        if name in self.tensors:
            return [], name
        self.tensor(name, (d.n, d.k, small.h, small.w), dy)
        dims = Pool(d.n, d.k, d.p, d.q, small.h, small.w, self.r, self.r, stride=(self.r, self.r))
        return [Op(f"{op.name}.pool_dy", "aux", "pool", dims, (dy.name,), (name,))], name

    def grad_input(self, op: Op, d: Conv, small: Conv) -> list[Op]:
        made, dy = self.pool_dy(op, d, small)
        weight, dx = self.graph.tensors[op.inputs[1]], self.graph.tensors[op.outputs[0]]
        if d.dilation[0] > 1 and d.dilation[0] >= self.r:
            step = d.dilation[0] // self.r
            small = replace(small, r=d.r, s=d.s, dilation=(step, step), padding=(step * (d.r // 2), step * (d.s // 2)))
        elif d.r * d.s > 1:
            summed = self.tensor(f"{op.param}/taps", (d.k, d.c // d.groups, 1, 1), weight)
            made.append(rewrite.aux(f"{op.name}.sum_taps", (weight,), (summed,), weight.elements, 1))
            weight = summed
        patches = self.tensor(f"{op.name}:dx/patches", (d.n, d.c, small.h, small.w), dx)
        made.append(replace(op, dims=small, inputs=(dy, weight.name), outputs=(patches.name,), param=op.param))
        made.append(rewrite.aux(f"{op.name}.broadcast", (patches,), (dx,), dx.elements, 1))
        return made

    def grad_weight(self, op: Op, d: Conv, small: Conv) -> list[Op]:
        made, dy = self.pool_dy(op, d, small)
        dw = self.graph.tensors[op.outputs[0]]
        self.tensors[dw.name] = replace(dw, shape=(d.k, d.c // d.groups, 1, 1))
        made.append(replace(op, dims=small, inputs=(dy, f"{op.name}:x/patches")))
        return made

    def tensor(self, name: str, shape: tuple[int, ...], like: Tensor) -> Tensor:
        self.tensors[name] = Tensor(name, shape, like.kind, like.dtype)
        return self.tensors[name]


METHOD = Method(
    "gradient-filtering", "gradients of r x r patches for the last convolutions", train,
    ("truncate_at", "pool", "saved_tensor"),
    (
        Parameter("r", 2, "patch size; 1 filters nothing", 1, 1024),
        Parameter("layers", 4, "convolutions trained, counted from the output; 0: all", 0, 10000),
    ),
)  # fmt: skip
