"""SparCL: sparse weights, sparse gradients and less data.

Rule: a weight mask (TDM) on the convolutions of the blocks (main path, taps > 1, not the first: 16 of ResNet-18's 20)
at density 1 - weights; a gradient mask (DGM) at density 1 - gradients of all; the easiest samples are dropped (DDR).
Formula: data * ((1 - weights) F + (1 - weights) E + (1 - gradients) G); 0.775 * (0.25 + 0.25 + 0.20) / 3 = 0.181.
Source: Wang et al., NeurIPS 2022 (arXiv 2209.09476); published 11.1e15 -> 2.0e15 FLOPs.
Parameters: weights, gradients: sparsity 0..1; data: mean share of the data, 0..1; seed.
Not modelled: no dataflow skips zero weights, so F and E take dense time here (`useful_macs` counts what the masks
leave); the scores of samples and weights between epochs (sorting); masks are drawn at random.
"""

from dataclasses import replace
from fractions import Fraction

from npusim import rewrite
from npusim.graph import StepGraph
from npusim.masks import Mask
from npusim.method import Method, Parameter, Part, Plan
from npusim.methods.gradient_filtering import main_path


def cost(weights: float = 0.75, gradients: float = 0.8, data: float = 0.775) -> float:
    """Share of the dense step's MACs that masks and data leave, over masked layers."""
    return data * (2 * (1 - weights) + (1 - gradients)) / 3


def train(graph: StepGraph, weights: float, gradients: float, data: float, seed: int) -> Plan:
    found = [op for op in main_path(graph)[1:] if rewrite.dims_of(op).r * rewrite.dims_of(op).s > 1]
    if not found:
        raise rewrite.misfit("sparcl", graph, "-", "no convolution with taps behind the first")
    step = graph
    if weights:
        task: dict[str, Mask] = {op.param: rewrite.random_mask(op, 1 - weights, seed) for op in found}
        step = replace(step, task_masks={**step.task_masks, **task})
    if gradients:
        step = rewrite.masked(step, {op.param: rewrite.random_mask(op, 1 - gradients, seed) for op in found})
    return Plan((Part(step, Fraction(data).limit_denominator(10**6)),) if data else ())


METHOD = Method(
    "sparcl", "sparse weights and gradients, easy samples dropped", train, ("axis_mask", "batch_keep", "schedule"),
    (
        Parameter("weights", 0.75, "share of weights that are zero", 0, 1),
        Parameter("gradients", 0.8, "share of weights without a gradient", 0, 1),
        Parameter("data", 0.775, "mean share of samples trained on", 0.001, 1),
        Parameter("seed", 0, "of the random masks", 0),
    ),
    selective=True,
)  # fmt: skip
