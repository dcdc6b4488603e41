"""Dense training: every operation of the recorded step, nothing left out. The baseline of every comparison.

Rule: the identity. Cost: forward F, grad_input F, grad_weight F per layer, updates of all parameters.
"""

from npusim.method import Method

METHOD = Method("dense", "every parameter is trained: the step as it was recorded", lambda graph: graph)
