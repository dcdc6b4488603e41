"""snnTorch on IPU: BPTT over T time steps of a spiking network in half precision, silent inputs skipped.

Rule: T*(F + E + G) and one update; activations of all T steps are kept; all tensors 16 bits wide. With `spikes` < 1 a
layer's input is turned into a list of its spikes per pixel (2 operations per input, 16 bits per entry), and F and G
shrink to that share of the input channels: F*spikes accumulations. E is dense: the surrogate gradient is.
Source: Sun et al., arXiv 2211.10725. Parameters: T; spikes 0..1, mean share of inputs that fire (1 skips nothing).
`spikes` < 1 needs an array that gathers (`array.gather`, as the many small cores of preset ipu-gc200): in others,
pixels share their weights. The network's input, grouped layers and the classifier stay dense.
Not modelled: spikes that differ from pixel to pixel (every list has the mean length); weights are fetched and dW is
written back as if all pixels had the same list; the membrane update beyond the activation function.
"""

from dataclasses import replace
from fractions import Fraction
from math import ceil

from npusim import rewrite
from npusim.graph import Op, StepGraph, Tensor
from npusim.method import WIDTHS, MemoryPolicy, Method, MisfitError, Parameter, Part, Plan
from npusim.npu import Hardware


def spike_macs(forward: float, spikes: float, steps: int) -> float:
    """Accumulations of the forward pass when silent inputs are skipped."""
    return forward * spikes * steps


def sparse(graph: StepGraph, spikes: float) -> StepGraph:
    """Inner ungrouped layers read lists of spikes in forward and grad_weight."""
    found = rewrite.layers(graph)
    chosen = {op.param: op for op in found[1:-1] if rewrite.dims_of(op).groups == 1}
    if not chosen:
        raise rewrite.misfit("snntorch-ipu", graph, "-", "no ungrouped inner layer reads spikes")
    tensors: dict[str, Tensor] = {}

    def change(op: Op):
        if op.param not in chosen or op.phase not in ("forward", "grad_weight") or op.kind == "bias_grad":
            return op
        layer = chosen[op.param]
        x = graph.tensors[layer.inputs[0]]
        d = rewrite.dims_of(op)
        live = max(1, ceil(d.c * spikes))
        events = Tensor(f"{x.name}/spikes", (x.shape[0], live, *x.shape[2:]), "activation")
        inputs = tuple(events.name if name == x.name else name for name in op.inputs)
        narrow = replace(op, dims=replace(d, c=live), inputs=inputs)
        if op.phase == "grad_weight" or events.name in tensors:
            return narrow
        tensors[events.name] = events
        return rewrite.aux(f"{op.name}.spikes", (x,), (events,), x.elements, 2), narrow

    return rewrite.rewritten(graph, change, tensors)


def train(graph: StepGraph, T: int, spikes: float, hardware: Hardware) -> Plan:
    if spikes < 1:
        if not hardware.array.gather:
            raise MisfitError(
                f"method 'snntorch-ipu' does not fit machine {hardware.name!r}: with spikes = {spikes:g} every pixel "
                "has its own list of inputs, but array.gather is false; choose ipu-gc200, or spikes=1"
            )
        graph = sparse(graph, spikes)
    bits = dict.fromkeys(WIDTHS, 16)
    parts = (
        Part(graph, Fraction(T), ("forward", "grad_input", "grad_weight", "aux"), bits),
        Part(graph, Fraction(1), ("update",), bits),
    )
    return Plan(parts, MemoryPolicy(time_steps=T))


METHOD = Method(
    "snntorch-ipu", "spiking: BPTT over T steps in half precision, silent inputs skipped", train, ("time", "bits"),
    (
        Parameter("T", 10, "time steps", 1, 10000),
        Parameter("spikes", 1.0, "mean share of inputs that fire; 1 skips nothing", 0, 1),
    ),
    machine=True,
)  # fmt: skip
