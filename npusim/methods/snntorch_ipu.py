"""snnTorch on IPU: BPTT over T time steps of a spiking network in half precision.

Rule: T*(F + E + G) and one update; activations of all T steps are kept; all tensors 16 bits wide.
Source: arXiv 2211.10725. Parameters: T. `spike_macs` counts what skipping silent inputs would leave.
Not modelled: the IPU's many cores with local memory (one array here), skipping of silent inputs (no dataflow does),
the membrane update beyond the activation function. So cycles are those of a dense machine in half precision.
"""

from fractions import Fraction

from npusim.graph import StepGraph
from npusim.method import WIDTHS, MemoryPolicy, Method, Parameter, Part, Plan


def spike_macs(forward: float, spikes: float, steps: int) -> float:
    """Accumulations of the forward pass when silent inputs are skipped."""
    return forward * spikes * steps


def train(graph: StepGraph, T: int) -> Plan:
    bits = dict.fromkeys(WIDTHS, 16)
    parts = (
        Part(graph, Fraction(T), ("forward", "grad_input", "grad_weight", "aux"), bits),
        Part(graph, Fraction(1), ("update",), bits),
    )
    return Plan(parts, MemoryPolicy(time_steps=T))


METHOD = Method(
    "snntorch-ipu", "spiking: BPTT over T steps in half precision", train, ("time", "bits"),
    (Parameter("T", 10, "time steps", 1, 10000),),
)  # fmt: skip
