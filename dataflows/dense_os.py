"""Dense output stationary: every output element is computed, masks are ignored.

Rows hold the GEMM's output rows (output channels), columns its output columns (pixels; channels x taps in
grad_weight), and the reduction streams through. An unstructured mask could only gate MACs here: a tile of R*C
outputs at density d is empty with probability (1-d)^(R*C).
"""

from npusim.dataflow import Dataflow
from npusim.folding import output_stationary

DATAFLOW = Dataflow(name="dense-os", summary="dense, output stationary; computes everything", cost=output_stationary)
