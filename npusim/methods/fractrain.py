"""FracTrain: fewer bits per phase, input and layer as training goes on.

Rule: activations a bits, weights w bits, gradients g bits. Formula (weighted MACs, exact): F*a*w/32^2, E*g*w/32^2,
G*a*g/32^2. Source: Fu et al., NeurIPS 2020 (arXiv 2012.13113): ResNet-38/CIFAR-10 1.18e14 -> 3.97e13 weighted MACs.
Parameters: a, w, g 1..32; array: fixed (PEs stay as they are: narrow operands only move fewer bytes) or scalable
(rows and columns grow by the ratio of the machine's operand width to max(a, w, g), rounded down to whole PEs).
Not modelled: the schedule over epochs and inputs (one setting per run); quantiser operations; MACs cost the machine's
own energy whatever their width.
"""

from npusim.graph import StepGraph
from npusim.method import Method, Parameter, Part, Plan


def weighted_macs(forward: float, grad_input: float, grad_weight: float, a: int, w: int, g: int) -> float:
    """MACs of the phases weighted by their operand widths, in units of a 32 x 32 bit MAC."""
    return (forward * a * w + grad_input * g * w + grad_weight * a * g) / 32**2


def train(graph: StepGraph, a: int, w: int, g: int, array: str) -> Plan:
    return Plan((Part(graph, bits={"activation": a, "weight": w, "gradient": g}, scalable=array == "scalable"),))


METHOD = Method(
    "fractrain", "fewer bits for activations, weights and gradients", train, ("bits", "schedule"),
    (
        Parameter("a", 8, "bits of activations", 1, 32),
        Parameter("w", 8, "bits of weights", 1, 32),
        Parameter("g", 8, "bits of gradients", 1, 32),
        Parameter("array", "fixed", "what narrow operands change", choices=("fixed", "scalable")),
    ),
)  # fmt: skip
