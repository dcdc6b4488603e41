"""CPG: compacting, picking and growing for one task after another.

Rule: the weights that pruning freed are trained, the kept ones of earlier tasks are picked by a real-valued mask, and
pruning goes on in steps of 0.1 to 0.95; the network may grow. Formula: `passes` * (F + E + G), one product per
weight for the picking mask and its scores' gradient. Source: Hung et al., NeurIPS 2019 (arXiv 1910.06562).
Parameters: free 0..1, share of weights that the task trains (the others are picked); passes: retraining after every
pruning step, as a multiple of plain training (about 10: steps of 0.1 to 0.95); width 1..1.5: channels after growing, as
a multiple (the paper grows when accuracy asks for it; here it is given).
Not modelled: sorting of weights when pruning; free weights are drawn at random.
"""

from fractions import Fraction

from npusim import rewrite
from npusim.graph import Op, StepGraph, Tensor, Vector
from npusim.method import Method, Parameter, Part, Plan
from npusim.methods import _width


def train(graph: StepGraph, free: float, passes: int, width: float) -> Plan:
    if not rewrite.layers(graph):
        raise rewrite.misfit("cpg", graph, "-", "the step has no layer with a weight")
    graph = _width.widened(graph, width, "cpg")
    found = rewrite.layers(graph)
    params = {op.param for op in found[:-1]} if free < 1 else set()
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.phase != "update" or op.param not in params:
            return op
        weight, dw = graph.tensors[op.param], graph.tensors[op.inputs[1]]
        scores = Tensor(f"{op.param}/pick", weight.shape, "state")
        gradient = Tensor(f"{op.param}/pick.grad", weight.shape, "weight_gradient")
        mask = Tensor(f"{op.param}/free", weight.shape, "mask", "bool")
        tensors.update({t.name: t for t in (scores, gradient, mask)})
        picked = Op(f"{op.name}.pick", "update", "sgd", Vector(weight.elements), (scores.name, gradient.name),
                    (scores.name,))  # fmt: skip
        return (
            rewrite.aux(f"{op.name}.product", (dw, weight), (gradient,), weight.elements, 1),
            rewrite.aux(f"{op.name}.free", (dw, mask), (dw,), weight.elements, 1),
            picked,
            op,
        )

    return Plan((Part(rewrite.rewritten(graph, change, tensors), Fraction(passes)),))


METHOD = Method(
    "cpg", "compacting, picking and growing", train, ("axis_mask", "schedule"),
    (
        Parameter("free", 0.5, "share of weights that the task trains", 0, 1),
        Parameter("passes", 10, "retraining passes of the pruning steps", 1, 1000),
        Parameter("width", 1.0, "channels after growing, as a multiple", 1, 1.5),
    ),
)  # fmt: skip
