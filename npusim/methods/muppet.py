"""MuPPET: block floating point whose width grows when gradients stop agreeing.

Rule: 8, 12, 14, 16 bits, then FP32; the next width when the gradient diversity exceeds 1 + 1.5*exp(-0.1*epoch).
Formula: cost = sum over widths of share * step at that width. Source: Rajagopal et al., ICML 2020 (arXiv 2006.09049):
1.58x mean, 1.84x best. Parameters: epochs at each width e8, e12, e14, e16, e32 (the switches depend on the data, so
they are given); array as in fractrain.
Not modelled: the diversity itself, block exponents (one per layer) and their maximum search, master weights.
"""

import math
from fractions import Fraction

from npusim.errors import NpusimError
from npusim.graph import StepGraph
from npusim.method import Method, Parameter, Part, Plan

WIDTHS = (8, 12, 14, 16, 32)


def threshold(epoch: int) -> float:
    """Gradient diversity above which the next width begins."""
    return 1 + 1.5 * math.exp(-0.1 * epoch)


def train(graph: StepGraph, array: str, **epochs: int) -> Plan:
    total = sum(epochs.values())
    if total == 0:
        raise NpusimError("method 'muppet': e8..e32 are all 0; at least one epoch is needed")
    parts = []
    for width in WIDTHS:
        if epochs[f"e{width}"]:
            bits = dict.fromkeys(("activation", "weight", "gradient"), width)
            parts.append(Part(graph, Fraction(epochs[f"e{width}"], total), bits=bits, scalable=array == "scalable"))
    return Plan(tuple(parts))


METHOD = Method(
    "muppet", "block floating point of growing width", train, ("bits", "schedule"),
    (
        *(Parameter(f"e{width}", count, f"epochs at {width} bits", 0)
          for width, count in zip(WIDTHS, (30, 20, 20, 20, 10), strict=True)),
        Parameter("array", "fixed", "what narrow operands change", choices=("fixed", "scalable")),
    ),
)  # fmt: skip
