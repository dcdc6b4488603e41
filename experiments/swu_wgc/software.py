"""Element-sparse dW in software: one dot product per selected element against dense BLAS and a mask, one thread.

    OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 python experiments/swu_wgc/software.py

Needs scipy (numba takes its dot product); prints the speedup over dense by density.

Above the density at which the speedup crosses 1, computing everything and throwing most of it away is faster.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from npusim.jit import njit

# (K, C*R*S, T) of ResNet-18's four stages at 224 px, batch 1 (ImageNet form).
LAYERS = ((64, 576, 3136), (128, 1152, 784), (256, 2304, 196), (512, 4608, 49))
DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.25)


@njit
def sparse(bits, dy, x, dw):
    """dw[k, c] = dy[k] . x[c] where bits, column by column: a column of x stays in the cache for all of its rows."""
    for col in range(bits.shape[1]):
        for row in range(bits.shape[0]):
            if bits[row, col]:
                dw[row, col] = np.dot(dy[row], x[col])


def fastest(run: Callable[[], object], repeats: int = 7) -> float:
    """Seconds of the fastest of several runs, after one to warm up."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return min(times)


def main() -> None:
    rng = np.random.default_rng(0)
    print("layer (K x CRS, T)      dense GMAC/s   speedup at density " + "  ".join(f"{d:<5g}" for d in DENSITIES))
    for k, columns, t in LAYERS:
        dy, x = (rng.standard_normal((n, t)).astype(np.float32) for n in (k, columns))
        gains, dense = [], 0.0
        for density in DENSITIES:
            bits, dw = (rng.random((k, columns)) < density).astype(np.uint8), np.zeros((k, columns), np.float32)
            dense = fastest(lambda dy=dy, x=x, bits=bits: (dy @ x.T) * bits)
            gains.append(dense / fastest(lambda bits=bits, dy=dy, x=x, dw=dw: sparse(bits, dy, x, dw)))
        print(
            f"{k:4d} x {columns:4d}, {t:4d} {k * columns * t / dense / 1e9:16.0f}"
            + " " * 22
            + "  ".join(f"{g:<5.2f}" for g in gains)
        )


if __name__ == "__main__":
    main()
