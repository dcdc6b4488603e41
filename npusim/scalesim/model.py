"""What SCALE-Sim says of a layer: cycles, SRAM accesses and utilisation, in closed form.

With R rows, C columns, ifmap M x K, filter K x N and F folds:

| dataflow | folds                   | ifmap reads       | filter reads      | ofmap writes                          |
|----------|-------------------------|-------------------|-------------------|---------------------------------------|
| os       | ceil(M/R) * ceil(N/C)   | M K * ceil(N/C)   | K N * ceil(M/R)   | M N + F (R + C), a surplus of its own |
| ws       | ceil(K/R) * ceil(N/C)   | M K * ceil(N/C)   | K N               | M N * ceil(K/R)                       |
| is       | ceil(K/R) * ceil(M/C)   | M K               | K N * ceil(M/C)   | M N * ceil(K/R)                       |
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from npusim import array_timing, npu

PRESET = "scalesim-32x32"


class Counts(NamedTuple):
    """Compute cycles (its Total Cycles without stalls are one less), SRAM words, and percentages."""

    folds: int
    cycles: int
    ifmap_reads: int
    filter_reads: int
    ofmap_writes: int
    overall_pct: float
    mapping_pct: float
    compute_pct: float


@cache
def array(rows: int, cols: int) -> npu.Array:
    """The preset's array with another size."""
    return npu.load(PRESET).replace({"array.rows": rows, "array.cols": cols}).array


def counts(dataflow: str, m: int, k: int, n: int, rows: int, cols: int) -> Counts:
    """Everything that does not depend on memory sizes and bandwidth."""
    on_rows, on_columns, length = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    row_folds, column_folds = -(-on_rows // rows), -(-on_columns // cols)
    folds = row_folds * column_folds
    cycles = array_timing.gemm(dataflow.upper(), m, k, n, array(rows, cols))
    if dataflow == "os":
        ifmap, filters, ofmap = m * k * column_folds, k * n * row_folds, m * n + folds * (rows + cols)
        per_fold = length + rows + cols - 2
    else:
        ifmap, filters = (m * k * column_folds, k * n) if dataflow == "ws" else (m * k, k * n * column_folds)
        ofmap = m * n * row_folds
        # It adds the columns twice here.
        per_fold = length + 2 * rows + 2 * cols - 3
    pes = rows * cols
    mapped = on_rows * on_columns / (folds * pes)
    # Its total of one cycle less than the compute cycles is 0 for a single cycle, where it divides by zero.
    overall = 100 * m * k * n / (max(1, cycles - 1) * pes)
    return Counts(folds, cycles, ifmap, filters, ofmap, overall, 100 * mapped, 100 * mapped * length / per_fold)
