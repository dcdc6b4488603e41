"""Piggyback: a binary mask per task over a frozen backbone, trained through real-valued scores.

Rule: W_eff = W where score > threshold, else 0; d(score) = dW_eff * W; SGD on the scores.
Formula: F + E + G dense (the authors' code computes all of dW and multiplies), plus 2 elementwise operations per
weight for the mask, 1 for the product. Kept per task: 1 bit per weight. Source: Mallya et al., ECCV 2018
(arXiv 1801.06519): initial score 1e-2, threshold 5e-3. No parameters; works on any layer with a weight but the last,
which is the task's own classifier and trained densely.
Not modelled: Adam on the scores (SGD here); packing the final mask into bits, once per task.
"""

from npusim.graph import StepGraph
from npusim.method import Method
from npusim.methods import _task_masks


def train(graph: StepGraph) -> StepGraph:
    step, found = _task_masks.frozen(graph, "piggyback")
    return _task_masks.trained_scores(step, found, {op.param: graph.tensors[op.param].shape for op in found})


METHOD = Method("piggyback", "binary task masks over a frozen backbone, dense gradients", train, ("alive", "schedule"))
