"""XMA2: the most critical processing elements are re-programmed, columns of the others get a scale.

Rule: tier 1 chooses the share `pes` of the processing elements (groups of crossbars) of the backbone; their weights are
trained and their cells written. Tier 2 is XMA's column mask, in every layer. Formula: F + E + G; cell writes: `pes` of
the backbone's cells and of its transposed copy. Source: Zhang et al., Frontiers in Electronics 2022,
doi 10.3389/felec.2022.1032485 (abstract). Parameters: pes 0..1; bits as in XMA; seed of the random choice.
Needs a machine with a [crossbar] section. Not modelled: how the critical elements are found (drawn at random here); the
choice is of forward crossbars, the transposed copies follow their weights.
"""

from npusim import rewrite
from npusim.graph import StepGraph
from npusim.masks import Mask
from npusim.method import Method, Parameter
from npusim.methods import _column_masks, _task_masks
from npusim.npu import Hardware


def chosen_weights(graph: StepGraph, found, lies, share: float, per_pe: int, seed: int) -> dict[str, Mask]:
    """Masks of the weights that lie in the chosen processing elements, for the layers that have any."""
    import numpy as np

    elements = [(op.param, i) for op in found for i in range(-(-lies[op.param].crossbars // per_pe))]
    rng = np.random.default_rng(seed)
    drawn = {elements[i] for i in rng.permutation(len(elements))[: round(share * len(elements))]}
    masks = {}
    for op in found:
        at, d = lies[op.param], rewrite.dims_of(op)
        first = np.arange(at.groups) // at.packed * at.row_blocks * at.column_blocks
        row, column = np.arange(at.length) // at.rows, np.arange(at.outputs) // at.weights
        number = first[:, None, None] + column[None, :, None] + (row * at.column_blocks)[None, None, :]
        wanted = [i for param, i in drawn if param == op.param]
        bits = np.isin(number // per_pe, wanted)
        if bits.any():
            masks[op.param] = Mask.of(bits.reshape(d.k, d.c // d.groups, d.r, d.s))
    return masks


def train(graph: StepGraph, pes: float, bits: int, seed: int, hardware: Hardware) -> StepGraph:
    lies = {op.param: _column_masks.placed(graph, op, hardware, "xma2") for op in _task_masks.backbone(graph, "xma2")}
    step, found = _task_masks.frozen(graph, "xma2")
    assert hardware.crossbar is not None
    masks = chosen_weights(step, found, lies, pes, hardware.crossbar.crossbars_per_pe, seed)
    return _column_masks.train(step, found, lies, bits, masks)


METHOD = Method(
    "xma2", "a share of the crossbars re-programmed, a shift per column of the rest", train,
    ("alive", "axis_mask", "schedule"),
    (
        Parameter("pes", 0.1, "share of processing elements that are re-programmed", 0, 1),
        Parameter("bits", 4, "bits of a mask value: zero, and powers of two", 1, 8),
        Parameter("seed", 0, "of the random choice", 0),
    ),
    machine=True,
)  # fmt: skip
