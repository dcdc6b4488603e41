"""XBM: a binary mask per crossbar column over a backbone whose cells stay as they are.

Rule: the output of every crossbar column (one output channel, one block of rows) is kept or dropped in the periphery
before row blocks are added; masks are trained through real-valued scores. Formula: F + E + G; one mask bit per column
in place of one per weight (about 1 / rows), no cell written but those of the task's own classifier.
Source: Zhang et al., ASP-DAC 2022 (abstract): 1.4 % of Piggyback's mask memory, up to 40 % energy saved.
No parameters; needs a machine with a [crossbar] section, whose rows decide the blocks.
Not modelled: Adam on the scores; masks of single cell columns (all slices of a weight share one here).
"""

from npusim.graph import StepGraph
from npusim.method import Method
from npusim.methods import _column_masks, _task_masks
from npusim.npu import Hardware


def train(graph: StepGraph, hardware: Hardware) -> StepGraph:
    lies = {op.param: _column_masks.placed(graph, op, hardware, "xbm") for op in _task_masks.backbone(graph, "xbm")}
    step, found = _task_masks.frozen(graph, "xbm")
    return _column_masks.train(step, found, lies, 1, {})


METHOD = Method(
    "xbm", "a binary mask per crossbar column, no cell re-programmed", train, ("alive", "schedule"), machine=True
)
