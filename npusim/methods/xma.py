"""XMA: a multi-level mask per crossbar column, applied as a shift, over a backbone whose cells stay as they are.

Rule: as XBM, but the mask is a power of two (or zero): the periphery's shift-and-add shifts the column's sum.
Formula: as XBM with `bits` mask bits per column. Source: Zhang et al., DAC 2022 (abstract): 96.6 % of Piggyback's mask
memory saved, about 4.3x its energy efficiency. Parameters: bits 1..8 of a mask value (the paper's levels are not
public). Needs a machine with a [crossbar] section. Not modelled: as XBM.
"""

from npusim.graph import StepGraph
from npusim.method import Method, Parameter
from npusim.methods import _column_masks, _task_masks
from npusim.npu import Hardware


def train(graph: StepGraph, bits: int, hardware: Hardware) -> StepGraph:
    lies = {op.param: _column_masks.placed(graph, op, hardware, "xma") for op in _task_masks.backbone(graph, "xma")}
    step, found = _task_masks.frozen(graph, "xma")
    return _column_masks.train(step, found, lies, bits, {})


METHOD = Method(
    "xma", "a shift per crossbar column, no cell re-programmed", train, ("alive", "schedule"),
    (Parameter("bits", 4, "bits of a mask value: zero, and powers of two", 1, 8),),
    machine=True,
)  # fmt: skip
