"""Small random problems and machines whose every tiling can be simulated."""

from itertools import product

import numpy as np

from npusim import catalogue, npu
from npusim.errors import CapacityError
from npusim.graph import Conv, Op
from npusim.mapping.candidates import described, fitting
from npusim.mapping.problem import problems

DATAFLOWS = ("dense-os", "dense-ws", "dense-is")
MOST = 8000


def random_machine(rng):
    """A small array with buffers, ports and DRAM drawn over a wide range."""
    array = {"array.rows": (2, 4, 8), "array.cols": (2, 4, 8), "array.fold_overlap": (False, True)}
    sizes = {f"buffers.{name}.bytes": (256, 512, 1024, 4096) for name in "ab"}
    sizes["buffers.accumulator.bytes"] = (512, 1024, 4096)
    slots = {f"buffers.{name}.double_buffered": (False, True, True, True) for name in ("a", "b", "accumulator")}
    dram = {"dram.bandwidth_bytes_per_s": ("1GB/s", "4GB/s", "16GB/s"), "dram.latency_ns": (0, 20, 100)}
    drawn = {key: values[rng.integers(len(values))] for key, values in {**array, **sizes, **slots, **dram}.items()}
    ports = {
        "buffers.a.bytes_per_cycle": 16,
        "buffers.b.bytes_per_cycle": 16,
        "buffers.accumulator.bytes_per_cycle": 64,
    }
    return npu.load("edge-16x16").replace({**drawn, **ports})


def random_problem(rng):
    """(problem, dense dataflow, machine) with 20 to MOST tilings that fit."""
    while True:
        window, stride, groups = (int(rng.choice(values)) for values in ((1, 1, 3), (1, 1, 2), (1, 1, 1, 2)))
        size, (n, c, k) = int(rng.integers(window + 1, 8)), (int(rng.integers(1, top)) for top in (3, 13, 13))
        dims = Conv(n, groups * c, size, size, groups * k, window, window, (stride, stride),
                    (window // 2, window // 2), groups=groups)  # fmt: skip
        found = problems(Op("x", str(rng.choice(["forward", "grad_input", "grad_weight"])), "conv", dims))
        problem, hw = found[rng.integers(len(found))], random_machine(rng)
        dataflow = catalogue.load_dataflow(str(rng.choice(DATAFLOWS)))
        if problem.taps and problem.m * problem.c * problem.t <= 3 * MOST:
            try:
                _, swap = every_tiling(problem, hw)
            except CapacityError:
                continue
            if 20 <= swap.size <= MOST:
                return problem, dataflow, hw


def every_tiling(problem, hw):
    """All tilings with both loop orders that fit `hw`: (candidates, loop orders)."""
    blocks = [(1, m, c) for m, c in product(range(1, problem.m + 1), range(1, problem.c + 1))]
    blocks += [(g, problem.m, problem.c) for g in range(2, problem.groups + 1)]
    pixels = product(range(1, problem.n + 1), range(1, problem.p + 1), range(1, problem.q + 1))
    extents = np.array([block + pixel for block, pixel in product(blocks, pixels)])
    fits = fitting(problem, hw, described(problem, extents), most_steps=2**40)
    both = np.repeat(np.arange(fits.g.size), 2)
    return fits.take(both), np.arange(both.size) % 2 > 0
