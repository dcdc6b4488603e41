"""Fills the grid points that the CACTI figures lack, by kriging: a Gaussian process on log(value).

`python -m npusim.energy.kriging` writes `npusim/data/energy/cacti7_sram_filled.csv`; a test holds it to the figures.
The prior of log(value) is a trend (quadratic in log size and log width, a level per node and cell type) plus
deviations that fade with distance in octaves and are shared by all nodes and cell types, more by equal ones: CACTI's
choice of subarrays depends mostly on size and width.
"""

from __future__ import annotations

import csv
from itertools import product
from typing import TYPE_CHECKING

from npusim.energy.sram import CELLS, COLUMNS, FIGURES, FILLED, Point, read_points

if TYPE_CHECKING:
    import numpy as np

# One of 28 settings compared by leave-one-out (best read error 5.4 %, this one 5.5 %): the same for all columns and
# round, but chosen on the points it is judged by.
RANGE_OCTAVES = 4.0
NUGGET = 0.03
SHARED, SAME_CELL, SAME_NODE, SAME_BOTH, TREND = 1.0, 0.3, 0.3, 0.3, 0.1


def fill(points: list[Point]) -> list[Point]:
    """The points of the full grid that `points` lack, in order."""
    import numpy as np

    nodes, cells = sorted({p.node_nm for p in points}), sorted({p.cell for p in points})
    sizes, widths = sorted({p.size_bytes for p in points}), sorted({p.width_bits for p in points})
    measured = {point.place for point in points}
    holes = [place for place in product(nodes, cells, sizes, widths) if place not in measured]
    known, wanted = _coordinates([point.place for point in points]), _coordinates(holes)
    values = np.log([point.values for point in points])
    weights = np.linalg.solve(_covariance(known, known) + NUGGET * np.eye(len(known)), values)
    filled = np.exp(_covariance(wanted, known) @ weights)
    return [Point(*place, *map(float, row)) for place, row in zip(holes, filled, strict=True)]


def leave_one_out() -> dict[str, np.ndarray]:
    """Relative error of predicting each measured point from all others, per column of the table.

    Closed form for a Gaussian process: the residual of point i is (K^-1 y)_i / (K^-1)_ii
    (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, eq. 5.12).
    """
    import numpy as np

    points = read_points(FIGURES)
    known = _coordinates([point.place for point in points])
    inverse = np.linalg.inv(_covariance(known, known) + NUGGET * np.eye(len(known)))
    residual = (inverse @ np.log([point.values for point in points])) / np.diag(inverse)[:, None]
    return {column: np.exp(-residual[:, i]) - 1 for i, column in enumerate(COLUMNS)}


def write() -> None:
    """Write the filled points beside the figures."""
    with FILLED.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("node_nm", "cell", "size_B", "width_b", *COLUMNS))
        for point in fill(read_points(FIGURES)):
            writer.writerow((f"{point.node_nm:g}", point.cell, *point.place[2:], *(f"{v:.5g}" for v in point.values)))


def _coordinates(places: list[tuple]) -> np.ndarray:
    """Rows (node, cell number, log2 size, log2 width)."""
    import numpy as np

    return np.array([(node, CELLS.index(cell), np.log2(size), np.log2(width)) for node, cell, size, width in places])


def _covariance(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Prior covariance of log(value) between two lists of places."""
    import numpy as np

    apart = np.abs(x[:, None, 2] - y[None, :, 2]) + np.abs(x[:, None, 3] - y[None, :, 3])
    cell, node = x[:, None, 1] == y[None, :, 1], x[:, None, 0] == y[None, :, 0]
    alike = SHARED + SAME_CELL * cell + SAME_NODE * node + SAME_BOTH * (cell & node)
    return np.exp(-apart / RANGE_OCTAVES) * alike + TREND * (_trend(x) @ _trend(y).T)


def _trend(x: np.ndarray) -> np.ndarray:
    """Basis of the trend; 22 nm is the level that needs no column of its own."""
    import numpy as np

    size, width = x[:, 2], x[:, 3]
    levels = [(x[:, 0] == node) * (x[:, 1] == cell) for node in (45.0, 32.0) for cell in range(len(CELLS))]
    return np.column_stack([np.ones(len(x)), size, width, size * width, size**2, width**2, *levels])


if __name__ == "__main__":
    write()
