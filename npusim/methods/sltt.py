"""SLTT and SLTT-K: spiking networks trained without the error path through time.

Rule: T time steps forward; without temporal errors the backward pass of a time step needs that step only, so the
activations of one step are kept instead of T; SLTT-K runs the backward pass in K random steps of the T.
Formula: T*F + K*(E + G), one update; memory of one time step. `temporal` 1 is BPTT: K = T, activations of T steps.
Source: Meng et al., ICCV 2023 (arXiv 2302.14311). Parameters: T, K 1..T (0: K = T), temporal 0 or 1.
Not modelled: the membrane update costs what the layer's activation function costs; spikes are moved as activations
and their zeros are not skipped; the error path through the membrane in BPTT (elementwise) is not priced.
"""

from fractions import Fraction

from npusim.errors import NpusimError
from npusim.graph import StepGraph
from npusim.method import MemoryPolicy, Method, Parameter, Part, Plan


def cost(forward: float, backward: float, steps: int, kept: int) -> float:
    """MACs of a training step over `steps` time steps of which `kept` run backward."""
    return steps * forward + kept * backward


def train(graph: StepGraph, T: int, K: int, temporal: int) -> Plan:
    if K > T:
        raise NpusimError(f"method 'sltt': K = {K} is more than T = {T} time steps")
    if temporal and K not in (0, T):
        raise NpusimError(f"method 'sltt': K = {K}, but errors that go through time need all T = {T} steps")
    policy = MemoryPolicy(time_steps=T if temporal else 1)
    if T == 1:
        return Plan((Part(graph),), policy)
    parts = (
        Part(graph, Fraction(T), ("forward",)),
        Part(graph, Fraction(K or T), ("grad_input", "grad_weight", "aux")),
        Part(graph, Fraction(1), ("update",)),
    )
    return Plan(parts, policy)


METHOD = Method(
    "sltt", "spiking: no error path through time, backward in K of T steps", train, ("time", "saved_tensor"),
    (
        Parameter("T", 6, "time steps", 1, 10000),
        Parameter("K", 0, "time steps that run backward; 0: all", 0, 10000),
        Parameter("temporal", 0, "1: errors go through time (BPTT)", 0, 1),
    ),
)  # fmt: skip
