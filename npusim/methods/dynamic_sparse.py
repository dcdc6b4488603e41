"""Dynamic gradient sparse update: another random subset of the important channels gets gradients in every iteration.

Rule: the last `layers` layers and the classifier are update layers; each step takes `share` of their input channels,
and keeps only those of X. Formula: stored activations = sum of Hi*Wi*|S|, G = F*|S|/C (derived: abstract only).
Source: Li et al., ISCAS 2024 (arXiv 2503.17959), abstract. Parameters: layers 1.., share 0..1 (at least one channel);
scores 0 or 1: whether channel scores are refreshed in the step (sum of |dW| per channel, 2 operations per element).
Not modelled: the paper's rule of importance and its pruned activations; every step costs the same, whatever is chosen.
"""

from npusim import rewrite
from npusim.graph import Op, StepGraph, Tensor
from npusim.method import Method, Parameter


def train(graph: StepGraph, layers: int, share: float, scores: int) -> StepGraph:
    found = rewrite.layers(graph)
    if len(found) < 2:
        raise rewrite.misfit("dynamic-sparse", graph, found[0].name if found else "-", "no layer before the classifier")
    chosen = found[:-1][-layers:]
    wanted = {op.param for op in chosen} | rewrite.of_layer(graph, found[-1])
    step = rewrite.keep(graph, wanted)
    counts = {op.param: max(1, round(rewrite.dims_of(op).c * share)) for op in chosen}
    step = rewrite.select_inputs(step, counts)
    return _scored(step, {op.param for op in chosen}) if scores else step


def _scored(graph: StepGraph, params: set[str]) -> StepGraph:
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.phase != "grad_weight" or op.param not in params:
            return op
        dw = graph.tensors[op.outputs[0]]
        score = Tensor(f"{op.param}/channels", (rewrite.dims_of(op).c,), "state")
        tensors[score.name] = score
        return op, rewrite.aux(f"{op.name}.scores", (dw,), (score,), dw.elements, 2)

    return rewrite.rewritten(graph, change, tensors)


METHOD = Method(
    "dynamic-sparse", "another subset of input channels of the update layers in every step", train,
    ("truncate_at", "axis_mask", "saved_tensor", "schedule"),
    (
        Parameter("layers", 12, "update layers before the classifier", 1, 10000),
        Parameter("share", 0.25, "input channels with a gradient", 0, 1),
        Parameter("scores", 1, "1: channel scores are refreshed in every step", 0, 1),
    ),
)  # fmt: skip
