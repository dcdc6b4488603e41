"""Random cases that the functional tests share."""

from __future__ import annotations

import numpy as np

from npusim.graph import Conv
from npusim.mapping.problem import Problem
from npusim.mapping.tiling import Tiling

DATAFLOWS = (
    "selective-row", "channel-skipping", "kernel-packed", "column-set", "element-gather", "ws-selective",
    "reduction-spatial", "reduction-window",
)  # fmt: skip
STRUCTURES = ("element", "kernel", "output_channel", "input_channel", "tap", "column_set", "n_m", "layer")
# Sums of up to some hundred products of standard normal numbers in single precision.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}


def numbers(rng, dims: Conv) -> tuple[np.ndarray, np.ndarray]:
    """dY [N, K, P, Q] and X [N, C, H, W], standard normal, float32."""
    dy = rng.standard_normal((dims.n, dims.k, dims.p, dims.q)).astype(np.float32)
    return dy, rng.standard_normal((dims.n, dims.c, dims.h, dims.w)).astype(np.float32)


def random_tiling(rng, problem: Problem) -> Tiling:
    """Any extents: whole image rows, or parts of one, or several images, as the tiling search makes them."""
    n, p, q = [(1, 1, int(rng.integers(1, problem.q + 1))), (1, int(rng.integers(1, problem.p + 1)), problem.q),
               (int(rng.integers(1, problem.n + 1)), problem.p, problem.q)][int(rng.integers(3))]  # fmt: skip
    swap = bool(rng.integers(2))
    if problem.groups > 1 and rng.integers(2):
        return Tiling(int(rng.integers(1, problem.groups + 1)), problem.m, problem.c, n, p, q, swap)
    return Tiling(1, int(rng.integers(1, problem.m + 1)), int(rng.integers(1, problem.c + 1)), n, p, q, swap)
