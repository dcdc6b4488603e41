"""Selective weight update: gradients only for mask scores near the threshold, which alone can flip in an epoch.

Rule: each epoch a searching range around the threshold is set from the mean of the scores and narrowed with the decay
of the learning rate; scores inside it get a gradient, an update and a new comparison, the others stay as they are.
Formula: F + E + density * G (unstructured, another selection every epoch); the selection reads every score once per
epoch (3 operations: sum, two comparisons) and writes one bit per weight.
Source: Shin et al., DAC 2020, doi 10.1109/DAC18072.2020.9218507 (abstract), and the claims of US 12481871 B2.
Parameters: density 0..1, the share of scores in the range (0.345 follows from the published 2.9x of WGC if work is
proportional to survivors); epoch_steps, over which the selection is spread; seed of the random elements.
Not modelled: the training that decides the range. Elements are drawn at random at the given density; recorded steps
(`experiments/record_swu`) hold real ones. The paper's machine, networks and precision are not public.
"""

from fractions import Fraction

from npusim import rewrite
from npusim.graph import StepGraph, Tensor
from npusim.method import Method, Parameter, Part, Plan
from npusim.methods import _task_masks


def train(graph: StepGraph, density: float, epoch_steps: int, seed: int) -> Plan:
    step, found = _task_masks.frozen(graph, "swu")
    step = _task_masks.trained_scores(step, found, {op.param: graph.tensors[op.param].shape for op in found})
    step = rewrite.masked(step, {op.param: rewrite.random_mask(op, density, seed) for op in found})
    ops, tensors = [], []
    for op in found:
        scores = step.tensors[f"{op.param}/scores"]
        chosen = Tensor(f"{op.param}/range", scores.shape, "mask", "bool")
        ops.append(rewrite.aux(f"{op.name}.range", (scores,), (chosen,), scores.elements, 3))
        tensors += [scores, chosen]
    selection = StepGraph(f"{graph.name} range", tuple(ops), {t.name: t for t in tensors})
    return Plan((Part(step), Part(selection, Fraction(1, epoch_steps))))


METHOD = Method(
    "swu", "gradients only for mask scores near the threshold", train, ("alive", "axis_mask", "schedule"),
    (
        Parameter("density", 0.345, "share of scores inside the searching range", 0, 1),
        Parameter("epoch_steps", 500, "steps per epoch: the range is set once in so many", 1),
        Parameter("seed", 0, "of the random selection", 0),
    ),
    selective=True,
)  # fmt: skip
