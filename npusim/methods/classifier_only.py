"""Only the last layer is trained: feature extraction.

Rule: gradients of the last layer with a weight; no error propagation below it. Cost: F of all, G of the last layer.
Source: transfer learning practice. No parameters.
"""

from npusim import rewrite
from npusim.graph import StepGraph
from npusim.method import Method


def train(graph: StepGraph) -> StepGraph:
    found = rewrite.layers(graph)
    if not found:
        raise rewrite.misfit("classifier-only", graph, "-", "the step has no layer with a weight")
    return rewrite.keep(graph, rewrite.of_layer(graph, found[-1]))


METHOD = Method("classifier-only", "only the last layer is trained", train, ("alive", "truncate_at"))
