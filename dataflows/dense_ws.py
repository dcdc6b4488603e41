"""Dense weight stationary: the operand with output-channel rows stays in the array.

The held operand is W in forward, the rotated W in grad_input and dY in grad_weight; the im2col operand
streams, and partial sums accumulate in the accumulator buffer over the folds of the reduction.
"""

from npusim.dataflow import Dataflow
from npusim.folding import operand_stationary

DATAFLOW = Dataflow(
    name="dense-ws",
    summary="dense, weight stationary: W (dY in grad_weight) is held, the im2col operand streams",
    cost=lambda grid, hardware: operand_stationary(grid, hardware, hold_a=True),
)
