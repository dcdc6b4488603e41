"""Fills the grid points that the CACTI figures lack, by kriging: a Gaussian process on log(value).

`python -m npusim.energy.kriging` writes `npusim/data/energy/cacti7_sram_filled.csv`; a test holds it to the figures.
The prior of log(value) is a trend (quadratic in log size and log width, a level per node and cell type) plus
deviations that fade with distance in octaves: one part shared by all nodes and cell types, as CACTI's choice of
subarrays depends mostly on size and width, and one of each cell type and node.
"""

from __future__ import annotations

import csv
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from npusim.energy.sram import CELLS, COLUMNS, FIGURES, FILLED, Point, read_points

if TYPE_CHECKING:
    import numpy as np


class Setting(NamedTuple):
    """Prior of one column: ranges in octaves of size and width, variances of the parts, and a nugget.

    The shared part fades with `shared_size`, `shared_width`; the parts of equal cells, equal nodes and equal both
    with `own_size`, `own_width`. The nugget is what neighbours cannot tell: CACTI's choice jumps.
    """

    shared_size: float
    shared_width: float
    own_size: float
    own_width: float
    shared: float
    cell: float
    node: float
    both: float
    nugget: float


# Maximum likelihood of each column's figures (L-BFGS on the logarithms), rounded; no cross-validation chose them.
SETTINGS = (
    Setting(4.4, 1.7, 12.8, 6.4, 0.0213, 0.0153, 0.0049, 0.0009, 0.0037),  # rd_pJ
    Setting(4.0, 2.4, 31.7, 46.2, 0.0041, 0.0220, 0.0048, 0.0004, 0.0018),  # wr_pJ
    Setting(32.9, 4.2, 148.0, 148.0, 0.0001, 0.592, 0.0, 0.0045, 0.0003),  # leak_mW
    Setting(5.6, 3.1, 2.3, 3.1, 0.0164, 0.0011, 0.0004, 0.0001, 0.0023),  # area_mm2
)
TREND = 30.0  # variance of each coefficient of the trend: no opinion
FOLDS = 8


def fill(points: list[Point]) -> list[Point]:
    """The points of the full grid that `points` lack, in order."""
    nodes, cells = sorted({p.node_nm for p in points}), sorted({p.cell for p in points})
    sizes, widths = sorted({p.size_bytes for p in points}), sorted({p.width_bits for p in points})
    measured = {point.place for point in points}
    holes = [place for place in product(nodes, cells, sizes, widths) if place not in measured]
    return predict(points, holes)


def predict(points: list[Point], places: list[tuple]) -> list[Point]:
    """The values at `places` that `points` make most likely."""
    import numpy as np

    known, wanted = _coordinates([point.place for point in points]), _coordinates(places)
    logs = np.log([point.values for point in points])
    mean = logs.mean(axis=0)
    columns = []
    for i, setting in enumerate(SETTINGS):
        prior = _covariance(known, known, setting) + setting.nugget * np.eye(len(known))
        columns.append(_covariance(wanted, known, setting) @ np.linalg.solve(prior, logs[:, i] - mean[i]))
    values = np.exp(np.column_stack(columns) + mean)
    return [Point(*place, *map(float, row)) for place, row in zip(places, values, strict=True)]


def leave_one_out() -> dict[str, np.ndarray]:
    """Relative error of predicting each measured point from all others, per column of the table.

    Closed form for a Gaussian process: the residual of point i is (K^-1 y)_i / (K^-1)_ii
    (Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, eq. 5.12).
    """
    import numpy as np

    points = read_points(FIGURES)
    known = _coordinates([point.place for point in points])
    logs = np.log([point.values for point in points])
    logs = logs - logs.mean(axis=0)
    errors = {}
    for i, (column, setting) in enumerate(zip(COLUMNS, SETTINGS, strict=True)):
        inverse = np.linalg.inv(_covariance(known, known, setting) + setting.nugget * np.eye(len(known)))
        errors[column] = np.exp(-(inverse @ logs[:, i]) / np.diag(inverse)) - 1
    return errors


def cross_validation(seed: int = 0) -> dict[str, np.ndarray]:
    """Relative error of each measured point, per column, when an eighth of all points is left out at a time.

    An eighth, about 55 points, is as much as the figures lack of the full grid. Rows are those of the figures.
    """
    import numpy as np

    points = read_points(FIGURES)
    order = np.random.default_rng(seed).permutation(len(points))
    errors = np.zeros((len(points), len(COLUMNS)))
    for fold in range(FOLDS):
        left_out = order[fold::FOLDS]
        kept = [points[i] for i in np.setdiff1d(order, left_out)]
        for i, found in zip(left_out, predict(kept, [points[i].place for i in left_out]), strict=True):
            errors[i] = np.array(found.values) / points[i].values - 1
    return {column: errors[:, i] for i, column in enumerate(COLUMNS)}


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


def _covariance(x: np.ndarray, y: np.ndarray, setting: Setting) -> np.ndarray:
    """Prior covariance of log(value), less its mean, between two lists of places."""
    import numpy as np

    size, width = (np.abs(x[:, None, i] - y[None, :, i]) for i in (2, 3))
    cell, node = x[:, None, 1] == y[None, :, 1], x[:, None, 0] == y[None, :, 0]
    shared = setting.shared * np.exp(-size / setting.shared_size - width / setting.shared_width)
    alike = setting.cell * cell + setting.node * node + setting.both * (cell & node)
    own = alike * np.exp(-size / setting.own_size - width / setting.own_width)
    return shared + own + TREND * (_trend(x) @ _trend(y).T)


def _trend(x: np.ndarray) -> np.ndarray:
    """Basis of the trend, each column about 1 in size; 22 nm is the level that needs no column of its own."""
    import numpy as np

    size, width = (x[:, 2] - 18) / 5, (x[:, 3] - 7) / 2
    levels = [(x[:, 0] == node) * (x[:, 1] == cell) for node in (45.0, 32.0) for cell in range(len(CELLS))]
    return np.column_stack([np.ones(len(x)), size, width, size * width, size**2, width**2, *levels])


if __name__ == "__main__":
    write()
