"""Energy per access, leakage and area of SRAM macros, from figures computed with CACTI 7.0.

A macro is priced by bilinear interpolation of log(value) in log(size) and log(width), and in log(node) between
the measured nodes; leakage over node linearly in node, as CACTI interpolates its devices' currents per width. 57 of the
table's 495 grid points are absent from the figures; `kriging.py` filled them. `npusim validate energy` prints the
errors of both.

Outside the table: an error, unless the caller chooses the rule `power-law` (extends the slope of the two nearest
table points in log-log, at most 8 times beyond the table in size and 4 times in width) or, for other nodes,
`stillmaker-baas`. What was chosen is said in `Macro.notes`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from npusim.energy import scaling
from npusim.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

FIGURES = Path(__file__).resolve().parents[1] / "data" / "energy" / "cacti7_sram.csv"
FILLED = FIGURES.with_name("cacti7_sram_filled.csv")
WIRES = FIGURES.with_name("cacti7_wires.csv")
SOURCE = "CACTI 7.0 figures (300 K, one read-write port), npusim/data/energy/cacti7_sram.csv version 1"
WIRE_SOURCE = "repeated global wire of CACTI 7.0, npusim/data/energy/cacti7_wires.csv; half of the bits toggle"
# Read, write, leakage, area of one read and one write port over one read-write port: npusim/data/energy/cacti7_sram.md.
PORTS = {"1rw": (1.0, 1.0, 1.0, 1.0), "1r1w": (1.38, 1.40, 1.26, 2.03)}
COLUMNS = ("rd_pJ", "wr_pJ", "leak_mW", "area_mm2")
CELLS = ("hp", "lop", "lstp")
POWER_LAW = "power-law"
BEYOND_SIZE, BEYOND_WIDTH = 8, 4
TOGGLING = 0.5


class Point(NamedTuple):
    """One macro of the table."""

    node_nm: float
    cell: str
    size_bytes: int
    width_bits: int
    read_pj: float
    write_pj: float
    leakage_mw: float
    area_mm2: float

    @property
    def place(self) -> tuple[float, str, int, int]:
        return self[:4]

    @property
    def values(self) -> tuple[float, ...]:
        return self[4:]


@dataclass(frozen=True, slots=True)
class Macro:
    """One SRAM bank. `read_pj` and `write_pj` are per access of the whole word."""

    read_pj: float
    write_pj: float
    leakage_mw: float
    area_mm2: float
    source: str = SOURCE
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class SramTable:
    """log(value) `[node, cell, size, width, column]` on the grid nodes x CELLS x sizes (bytes) x widths (bits)."""

    nodes: np.ndarray
    sizes: np.ndarray
    widths: np.ndarray
    logs: np.ndarray

    def macro(
        self,
        size_bytes: float,
        width_bits: float,
        cell: str,
        node_nm: float,
        outside: str = "error",
        node_rule: str = "none",
        ports: str = "1rw",
    ) -> Macro:
        """The macro of `size_bytes` and words of `width_bits`; ConfigError states the range outside the table."""
        import numpy as np

        if cell not in CELLS:
            raise ConfigError(f"cell = {cell!r}: must be one of {', '.join(CELLS)}")
        notes = self._check(size_bytes, width_bits, outside)
        nearest = self._nearest(node_nm, node_rule)
        grid = self.logs[:, CELLS.index(cell)]
        # Leakage alone: device widths grow with the node, and CACTI interpolates the current per width linearly in it.
        # On 239 CACTI runs off the grid 2.6 % off; linear in node 5.9 %, in the logarithm 7.8 %.
        by_log = _along(np.log(self.nodes), grid, np.log(nearest))
        by_node = nearest * _along(self.nodes, np.exp(grid) / self.nodes.reshape(-1, 1, 1, 1), nearest)
        grid = np.where(np.arange(len(COLUMNS)) == COLUMNS.index("leak_mW"), np.log(by_node), by_log)
        grid = _along(np.log(self.sizes), grid, np.log(size_bytes))
        read, write, leakage, area = np.exp(_along(np.log(self.widths), grid, np.log(width_bits)))
        if nearest != node_nm:
            energy, space = scaling.energy_factor(nearest, node_nm), scaling.area_factor(nearest, node_nm)
            read, write, area = read * energy, write * energy, area * space
            notes.append(
                f"SRAM scaled from {nearest:g} to {node_nm:g} nm (Stillmaker-Baas: energy x{energy:.3g}, "
                f"area x{space:.3g}; leakage left as it is)"
            )
        found = zip((read, write, leakage, area), PORTS[ports], strict=True)
        read, write, leakage, area = (float(value) * ratio for value, ratio in found)
        source = SOURCE if ports == "1rw" else f"{SOURCE}; one read and one write port by CACTI's mean ratios"
        return Macro(read, write, leakage, area, source, tuple(notes))

    def wire_pj_per_bit_mm(self, cell: str, node_nm: float, node_rule: str = "none") -> float:
        """Moving one bit of random data by 1 mm, log-interpolated in node."""
        import numpy as np

        nearest = self._nearest(node_nm, node_rule)
        with WIRES.open(encoding="utf-8", newline="") as file:
            rows = [(float(r["node_nm"]), float(r["pj_per_bit_mm"])) for r in csv.DictReader(file) if r["cell"] == cell]
        nodes, values = np.log(np.array(rows)).T
        factor = scaling.energy_factor(nearest, node_nm) if nearest != node_nm else 1.0
        return TOGGLING * float(np.exp(np.interp(np.log(nearest), nodes, values))) * factor

    def _nearest(self, node_nm: float, node_rule: str) -> float:
        """The node of the figures to start from; ConfigError when it is another one and no rule was chosen."""
        low, high = float(self.nodes[0]), float(self.nodes[-1])
        nearest = min(max(node_nm, low), high)
        if nearest != node_nm and node_rule != scaling.RULE:
            raise ConfigError(
                f"node_nm = {node_nm:g}: the SRAM figures cover {low:g} to {high:g} nm (nearest: {nearest:g}); "
                f'choose [sram] node_rule = "{scaling.RULE}" in the energy table to scale from there'
            )
        return nearest

    def _check(self, size_bytes: float, width_bits: float, outside: str) -> list[str]:
        """Notes on values beyond the grid, or ConfigError when that was not chosen or goes too far."""
        notes = []
        for what, value, axis, factor in (
            ("size in bytes", size_bytes, self.sizes, BEYOND_SIZE),
            ("word width in bits", width_bits, self.widths, BEYOND_WIDTH),
        ):
            low, high = int(axis[0]), int(axis[-1])
            if low <= value <= high:
                continue
            nearest = low if value < low else high
            text = f"SRAM bank {what} = {value:.12g} is outside the CACTI figures, {low} to {high} (nearest: {nearest})"
            if outside != POWER_LAW:
                raise ConfigError(f'{text}; energy.sram_outside = "{POWER_LAW}" of the machine chooses to extrapolate')
            if not low / factor <= value <= high * factor:
                raise ConfigError(f"{text}; the power law is trusted from {low // factor} to {high * factor}")
            notes.append(f"{text}: extrapolated by the power law of the two nearest points, as chosen (low confidence)")
        return notes


def wire_mm(banks: int, area_mm2: float) -> float:
    """Mean Manhattan distance from the centres of equal banks, that fill a square, to the middle of one edge.

    A quarter of the side along the edge and half of it across; 0 for one bank, whose wires are in its own figures.
    """
    return 0.75 * area_mm2**0.5 if banks > 1 else 0.0


@cache
def load() -> SramTable:
    """The embedded table: the figures, and the filled points where they have none."""
    return build(read_points(FIGURES) + read_points(FILLED))


def build(points: list[Point]) -> SramTable:
    """A table of points that cover the grid of their nodes, cells, sizes and widths, each once."""
    import numpy as np

    points = sorted(points, key=lambda p: (p.node_nm, CELLS.index(p.cell), p.size_bytes, p.width_bits))
    nodes, sizes, widths = (np.array(sorted({p.place[i] for p in points}), dtype=np.float64) for i in (0, 2, 3))
    logs = np.log([p.values for p in points]).reshape(len(nodes), len(CELLS), len(sizes), len(widths), len(COLUMNS))
    return SramTable(nodes, sizes, widths, logs)


def read_points(path: Path) -> list[Point]:
    """The rows of one of the two files."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Point(
                float(row["node_nm"]),
                row["cell"].removeprefix("itrs-"),
                int(row["size_B"]),
                int(row["width_b"]),
                *(float(row[column]) for column in COLUMNS),
            )
            for row in csv.DictReader(file)
        ]


def _along(axis: np.ndarray, values: np.ndarray, at: float) -> np.ndarray:
    """Linear interpolation along the first dimension; beyond the ends, the slope of the last two points."""
    import numpy as np

    i = int(np.clip(np.searchsorted(axis, at) - 1, 0, len(axis) - 2))
    share = (at - axis[i]) / (axis[i + 1] - axis[i])
    return values[i] + share * (values[i + 1] - values[i])
