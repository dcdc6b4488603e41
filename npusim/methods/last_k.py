"""The last k layers with weights are trained, with the norms and biases that lie behind the deepest of them.

Rule: error propagation ends at the k-th layer from the output. k at or above the number of layers is dense training.
Cost: forward of all layers; grad_weight of k, grad_input of k - 1. Source: transfer learning practice; the baseline
"update last k layers" of MCUNetV3 (arXiv 2206.15472).
Parameters: k, 1..; not modelled: normalisation layers in front stay in training mode (batch statistics).
"""

from npusim import rewrite
from npusim.graph import StepGraph
from npusim.method import Method, Parameter


def train(graph: StepGraph, k: int) -> StepGraph:
    found = rewrite.layers(graph)
    if not found:
        raise rewrite.misfit("last-k", graph, "-", "the step has no convolution or linear layer with a weight")
    if k >= len(found):
        return graph
    names = [op.name for op in graph.phase("forward")]
    start = names.index(found[-k].name)
    behind = {op.name for op in graph.phase("forward")[start:]}
    wanted = {p for p in rewrite.parameters(graph) if p.rpartition(".")[0] in behind}
    return rewrite.keep(graph, wanted)


METHOD = Method(
    "last-k", "only the last k layers are trained", train, ("alive", "truncate_at"),
    (Parameter("k", 3, "layers with weights that are trained, counted from the output", 1),),
)  # fmt: skip
