"""Training of task masks over a frozen backbone: what Piggyback, SWU and KSM share."""

from dataclasses import replace

from npusim import rewrite
from npusim.graph import Op, StepGraph, Tensor, Vector


def backbone(graph: StepGraph, method: str) -> tuple[Op, ...]:
    """Every layer but the classifier; a step of one layer has no backbone."""
    found = rewrite.layers(graph)
    if len(found) < 2:
        raise rewrite.misfit(method, graph, found[0].name if found else "-", "no backbone in front of the classifier")
    return found[:-1]


def frozen(graph: StepGraph, method: str) -> tuple[StepGraph, tuple[Op, ...]]:
    """Norms (stored statistics) and biases of the backbone frozen; its masks and the classifier trained."""
    found = backbone(graph, method)
    wanted = {op.param for op in found} | rewrite.of_layer(graph, rewrite.layers(graph)[-1])
    return rewrite.frozen_norms(rewrite.keep(graph, wanted)), found


def trained_scores(graph: StepGraph, found: tuple[Op, ...], units: dict[str, tuple[int, ...]]) -> StepGraph:
    """The update of each weight replaced by that of its scores, of shape `units[param]`.

    Per step and layer: scores and W give the weight that forward and grad_input read (compare, select: 2 operations
    per weight); dW times W, summed over what shares a score, gives the scores' gradient; SGD on the scores.
    """
    params = {op.param for op in found}
    tensors: dict[str, Tensor] = {}
    for param in params:
        weight = graph.tensors[param]
        tensors[f"{param}/scores"] = Tensor(f"{param}/scores", units[param], "state")
        tensors[f"{param}/scores.grad"] = Tensor(f"{param}/scores.grad", units[param], "weight_gradient")
        tensors[f"{param}/masked"] = replace(weight, name=f"{param}/masked")

    def change(op: Op):
        if op.param not in params or (op.param not in op.inputs and op.phase != "grad_weight"):
            return op
        scores, gradient, effective = (tensors[op.param + end] for end in ("/scores", "/scores.grad", "/masked"))
        weight = graph.tensors[op.param]
        swapped = replace(op, inputs=tuple(effective.name if n == op.param else n for n in op.inputs))
        if op.phase == "forward":
            made = rewrite.aux(f"{op.name}.mask", (scores, weight), (effective,), weight.elements, 2, op.param)
            return made, swapped
        if op.phase == "grad_input":
            return swapped
        if op.phase == "update":
            dw = graph.tensors[op.inputs[1]]
            lane_ops = 1 if scores.elements == weight.elements else 2
            product = rewrite.aux(f"{op.name}.product", (dw, weight), (gradient,), weight.elements, lane_ops, op.param)
            step = Op(op.name, "update", "sgd", Vector(scores.elements), (scores.name, gradient.name),
                      (scores.name,), op.param)  # fmt: skip
            return product, step
        return op

    return rewrite.rewritten(graph, change, tensors)
