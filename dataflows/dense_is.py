"""Dense input stationary: the im2col operand stays in the array.

The held operand is im2col(X) in forward and grad_weight and im2col(dY) in grad_input; the operand with
output-channel rows streams, and partial sums accumulate in the accumulator buffer.
"""

from npusim.dataflow import Dataflow
from npusim.folding import operand_stationary

DATAFLOW = Dataflow(
    name="dense-is",
    summary="dense, input stationary: the im2col operand is held, W (dY in grad_weight) streams",
    cost=lambda grid, hardware: operand_stationary(grid, hardware, hold_a=False),
)
