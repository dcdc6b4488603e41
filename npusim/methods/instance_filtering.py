"""Early instance filtering and error-map pruning: fewer samples, and fewer output channels in their backward pass.

Rule (EIF): a small network looks at every sample; only the share `keep` of them is trained on.
Rule (EMP): the output channels with the lowest scores on dY are dropped from E and G; `channels` of K remain.
Formula (derived): filter + keep * (F + channels * (E + G)). Source: Wu et al., DATE 2021 (arXiv 2007.03213);
ResNet-110/CIFAR-10: 68 / 75 / 96 % of the computation saved.
Parameters: keep, channels 0..1. The filter here: two 3x3 convolutions of 8 channels, stride 2, and a linear
layer to two classes (the paper's is a small CNN whose sizes are not given). Scores: one operation per element of dY.
Not modelled: training of the filter; grouped convolutions and the classifier keep all channels.
"""

from dataclasses import replace
from fractions import Fraction

from npusim import rewrite
from npusim.graph import Conv, Op, Pool, StepGraph, Tensor, Vector
from npusim.method import Method, Parameter, Part, Plan


def train(graph: StepGraph, keep: float, channels: float) -> Plan:
    found = rewrite.layers(graph)
    if not found:
        raise rewrite.misfit("instance-filtering", graph, "-", "the step has no layer with a weight")
    step = _pruned(graph, channels) if channels < 1 else graph
    trained = Part(step, Fraction(keep).limit_denominator(10**6))
    return Plan((Part(_filter(graph, found[0])), trained) if keep < 1 else (trained,))


def _filter(graph: StepGraph, first: Op) -> StepGraph:
    d = rewrite.dims_of(first)
    if first.kind != "conv":
        raise rewrite.misfit(
            "instance-filtering", graph, first.name, "the filter looks at images; this is no convolution"
        )
    tensors = {first.inputs[0]: graph.tensors[first.inputs[0]]}

    def tensor(name: str, shape: tuple[int, ...], kind: str) -> str:
        tensors[name] = Tensor(name, shape, kind)
        return name

    ops, x, c, h, w = [], first.inputs[0], d.c, d.h, d.w
    for i in (1, 2):
        dims = Conv(d.n, c, h, w, 8, 3, 3, (2, 2), (1, 1))
        weight = tensor(f"filter.conv{i}.weight", (8, c, 3, 3), "weight")
        y = tensor(f"filter.conv{i}:y", (d.n, 8, dims.p, dims.q), "activation")
        ops.append(Op(f"filter.conv{i}", "forward", "conv", dims, (x, weight), (y,), weight))
        x, c, h, w = y, 8, dims.p, dims.q
    y = tensor("filter.pool:y", (d.n, 8, 1, 1), "activation")
    ops.append(Op("filter.pool", "forward", "pool", Pool(d.n, 8, h, w, 1, 1, h, w, (h, w)), (x,), (y,)))
    weight, out = tensor("filter.fc.weight", (2, 8), "weight"), tensor("filter.fc:y", (d.n, 2), "activation")
    ops.append(Op("filter.fc", "forward", "linear", Conv(d.n, 8, 1, 1, 2), (y, weight), (out,), weight))
    return StepGraph(f"{graph.name} filter", tuple(ops), tensors)


def _pruned(graph: StepGraph, share: float) -> StepGraph:
    params = {
        op.param: max(1, round(rewrite.dims_of(op).k * share))
        for op in rewrite.layers(graph)[:-1] if op.kind == "conv" and rewrite.dims_of(op).groups == 1
    }  # fmt: skip
    tensors: dict[str, Tensor] = {}
    scored: set[str] = set()

    def view(name: str, axis: int, size: int) -> str:
        base = graph.tensors[name]
        shape = tuple(size if i == axis else n for i, n in enumerate(base.shape))
        found = f"{name}[{':,' * axis}:{size}]"
        tensors[found] = replace(base, name=found, shape=shape, grad_of="")
        return found

    def change(op: Op):
        if op.param not in params or op.kind != "conv" or op.phase not in rewrite.BACKWARD:
            return op
        size, made = params[op.param], []
        dy = graph.tensors[op.inputs[0]]
        if dy.name not in scored:
            scored.add(dy.name)
            scores = Tensor(f"{dy.name}/scores", (rewrite.dims_of(op).k,), "state")
            tensors[scores.name] = scores
            made.append(rewrite.aux(f"{op.name}.scores", (dy,), (scores,), dy.elements, 1))
        narrow = replace(rewrite.dims_of(op), k=size)
        if op.phase == "grad_input":
            inputs = (view(dy.name, 1, size), view(op.inputs[1], 0, size))
            return (*made, replace(op, dims=narrow, inputs=inputs))
        dw = graph.tensors[op.outputs[0]]
        tensors[dw.name] = replace(dw, shape=(size, *dw.shape[1:]))
        return (*made, replace(op, dims=narrow, inputs=(view(dy.name, 1, size), op.inputs[1])))

    return _narrow_updates(rewrite.rewritten(graph, change, tensors), params)


def _narrow_updates(graph: StepGraph, params: dict[str, int]) -> StepGraph:
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.phase != "update" or op.param not in params:
            return op
        names = {}
        for name in (*op.inputs, *op.outputs):
            tensor = graph.tensors[name]
            if tensor.kind in ("weight", "state"):
                names[name] = f"{name}[:{params[op.param]}]"
                tensors[names[name]] = replace(tensor, name=names[name], shape=(params[op.param], *tensor.shape[1:]))
        elements = graph.tensors[op.inputs[1]].elements
        return replace(
            op, dims=Vector(elements),
            inputs=tuple(names.get(n, n) for n in op.inputs), outputs=tuple(names.get(n, n) for n in op.outputs),
        )  # fmt: skip

    return rewrite.rewritten(graph, change, tensors)


METHOD = Method(
    "instance-filtering", "easy samples and low-score error channels are dropped", train,
    ("axis_mask", "batch_keep", "schedule"),
    (
        Parameter("keep", 0.5, "share of samples that are trained on", 0.001, 1),
        Parameter("channels", 0.5, "share of output channels with an error", 0.001, 1),
    ),
)  # fmt: skip
