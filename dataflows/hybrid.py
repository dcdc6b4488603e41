"""Hybrid: every layer's grad_weight takes the dataflow that needs the fewest simulated cycles.

A machine that has the reduction-window array next to plain output-stationary feeding (dense, packed rows, channels or
column sets) or weight-stationary feeding chooses per layer, before the step, from the mask. Layers
without a mask, or with a full one, fall back to dense output stationary, and so do forward and grad_input.
"""

from npusim.dataflow import Dataflow
from npusim.folding import output_stationary

DATAFLOW = Dataflow(
    name="hybrid",
    summary="per layer the fastest of dense-os and the selective dataflows, by simulation (grad_weight)",
    cost=output_stationary,
    phases=("grad_weight",),
    structures=("element", "kernel", "output_channel", "input_channel", "tap", "column_set", "n_m", "layer"),
    fallback="dense-os",
    choices=(
        "dense-os",
        "selective-row",
        "channel-skipping",
        "column-set",
        "kernel-packed",
        "ws-selective",
        "reduction-spatial",
        "reduction-window",
    ),
)
