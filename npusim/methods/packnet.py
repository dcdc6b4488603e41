"""PackNet: each task trains the weights that the tasks before it left free, after pruning.

Rule: of the first task's weights the share `first` is pruned and freed, of every later one `later` of its own; task t
trains what is free: density(2) = first, density(t) = first * later^(t-2). Published 0.5, 0.75: 0.50, 0.375, 0.281.
Formula: F + E + G dense and a product with the mask when `skip` is 0, as in the authors' code; else density * G.
Source: Mallya and Lazebnik, CVPR 2018 (arXiv 1711.05769).
Parameters: task 1..; first, later 0..1; skip 0 or 1; seed.
Not modelled: pruning itself (sorting by magnitude, once per task); norms and biases are frozen after task 1. Free
weights are drawn at random.
"""

from npusim import rewrite
from npusim.graph import Op, StepGraph, Tensor
from npusim.method import Method, Parameter


def density(task: int, first: float = 0.5, later: float = 0.75) -> float:
    """Share of weights that task `task` trains; the first trains all."""
    return 1.0 if task == 1 else first * later ** (task - 2)


def train(graph: StepGraph, task: int, first: float, later: float, skip: int, seed: int) -> StepGraph:
    if task == 1:
        return graph
    found = rewrite.layers(graph)
    if not found:
        raise rewrite.misfit("packnet", graph, "-", "the step has no layer with a weight")
    wanted = {op.param for op in found[:-1]} | rewrite.of_layer(graph, found[-1])
    step = rewrite.keep(graph, wanted)
    share = density(task, first, later)
    masks = {op.param: rewrite.random_mask(op, share, seed) for op in found[:-1]}
    return rewrite.masked(step, masks) if skip else _products(step, {op.param for op in found[:-1]})


def _products(graph: StepGraph, params: set[str]) -> StepGraph:
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.phase != "update" or op.param not in params:
            return op
        gradient = graph.tensors[op.inputs[1]]
        mask = Tensor(f"{op.param}/free", gradient.shape, "mask", "bool")
        tensors[mask.name] = mask
        made = rewrite.aux(f"{op.name}.product", (gradient, mask), (gradient,), gradient.elements, 1)
        return made, op

    return rewrite.rewritten(graph, change, tensors)


METHOD = Method(
    "packnet", "each task trains the weights that pruning freed", train, ("axis_mask", "schedule"),
    (
        Parameter("task", 2, "which task is trained; the first is dense", 1, 100),
        Parameter("first", 0.5, "share pruned after the first task", 0, 1),
        Parameter("later", 0.75, "share pruned after every later task", 0, 1),
        Parameter("skip", 0, "1: gradients of fixed weights are not computed", 0, 1),
        Parameter("seed", 0, "of the random selection", 0),
    ),
    selective=True,
)  # fmt: skip
