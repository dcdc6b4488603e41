"""KSM: one soft mask value per kernel (or group, channel, element) over a frozen backbone.

Rule: W_eff = W * m with m shared by a unit of the weights; dm = sum over the unit of dW_eff * W.
Formula: F + E + G dense; 2 operations per weight to apply m, 2 (product and sum) for its gradient; trainables K*C at
level kernel: mask state divided by R*S. Source: Yang et al., CVPR 2021 (Kernel-wise Soft Mask).
Parameters: level (kernel (k, c); group: 8 input channels of k; channel k; element).
Not modelled: the Gumbel relaxation that makes part of the mask binary.
"""

from npusim import rewrite
from npusim.graph import Op, StepGraph
from npusim.method import Method, Parameter
from npusim.methods import _task_masks


def unit(op: Op, level: str) -> tuple[int, ...]:
    """Shape of a layer's mask."""
    d = rewrite.dims_of(op)
    kernels = (d.k, d.c // d.groups)
    return {
        "kernel": kernels,
        "group": (d.k, -(-kernels[1] // 8)),
        "channel": (d.k,),
        "element": (*kernels, d.r, d.s),
    }[level]


def train(graph: StepGraph, level: str) -> StepGraph:
    step, found = _task_masks.frozen(graph, "ksm")
    return _task_masks.trained_scores(step, found, {op.param: unit(op, level) for op in found})


METHOD = Method(
    "ksm", "soft masks per kernel over a frozen backbone", train, ("alive", "schedule"),
    (Parameter("level", "kernel", "what shares a mask value", choices=("kernel", "group", "channel", "element")),),
)  # fmt: skip
