"""grad_weight on real numbers, by the schedules that the timing model uses.

`execute.execute` runs one convolution's selective grad_weight tile by tile, fold by fold or pass by pass, in the order
and with the skips of a dataflow and a tiling, and reports what it computed and wrote. `kernels` holds the compiled
schedules.
"""
