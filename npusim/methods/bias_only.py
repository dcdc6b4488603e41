"""Only biases are trained (and the classifier): no weight gradients, and no X is kept for them.

Rule: parameters named `*.bias`, of convolutions, linear and normalisation layers; error propagation goes down to the
deepest one. Cost: F + E; bias gradients are sums of dY. Source: TinyTL (arXiv 2007.11622), its bias part.
Parameters: classifier (0, 1): whether the last layer's weight is trained too.
Not modelled: TinyTL's lite residual modules; norms keep batch statistics, so their backward still reads its input.
"""

from npusim import rewrite
from npusim.graph import StepGraph
from npusim.method import Method, Parameter


def train(graph: StepGraph, classifier: int) -> StepGraph:
    trained = rewrite.parameters(graph)
    wanted = {name for name in trained if name.rpartition(".")[2] == "bias"}
    if not wanted:
        raise rewrite.misfit("bias-only", graph, "-", "no layer of the step has a bias")
    found = rewrite.layers(graph)
    if classifier and found:
        wanted |= rewrite.of_layer(graph, found[-1])
    return rewrite.keep(graph, wanted)


METHOD = Method(
    "bias-only", "biases and the classifier are trained, no other weight", train, ("alive", "saved_tensor"),
    (Parameter("classifier", 1, "1: the last layer's weight is trained too", 0, 1),),
)  # fmt: skip
