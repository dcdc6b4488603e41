"""SRAM prices against CACTI runs (`validation/energy/`), and what filling the table's gaps costs in accuracy.

Rows of the file are macros that CACTI 7.0 computed: any size, width and node of the table's range. Then every shipped
figure is predicted from the others, an eighth of them left out at a time, as the absent ones were.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from npusim.energy import kriging, sram
from npusim.errors import ConfigError
from npusim.validate.result import Bound, Cells, Row, Validation, read

PLACE = ("node_nm", "size_B", "width_b", "cell")
NAMES = dict(zip(sram.COLUMNS, ("read energy", "write energy", "leakage", "area"), strict=True))
NOT_MODELLED = (
    "temperatures other than 300 K; several ports (mean ratios), banks (wires) and error-correcting codes",
    "CACTI itself: a model, whose distance from silicon is not known here",
)


def validate(path: str | Path, configs: Path | None = None) -> Validation:
    """Every column of every row; ConfigError lists what is wrong with the file."""
    if configs is not None:
        raise ConfigError("validate energy takes no --configs: the figures are those that ship")
    rows = list(_off_grid(path)) + list(_filled())
    return Validation("energy", rows, {row.group: Bound(6, float("inf")) for row in rows}, NOT_MODELLED)


def _off_grid(path: str | Path) -> Iterator[Row]:
    figures = sram.load()
    found = []
    for cells in read(path, (*PLACE, *sram.COLUMNS)):
        place = (cells.number("size_B"), cells.number("width_b"), _cell(cells), cells.number("node_nm"))
        found.append((cells.line, place, [cells.number(column) for column in sram.COLUMNS]))
    for i, column in enumerate(sram.COLUMNS):
        for line, place, measured in found:
            case = f"{place[0]:g} bytes x {place[1]:g} bits, {place[2]}, {place[3]:g} nm"
            try:
                macro = figures.macro(*place)
            except ConfigError as error:
                yield Row(line, f"CACTI 7.0 {NAMES[column]}", case, measured[i], None, str(error))
                continue
            values = (macro.read_pj, macro.write_pj, macro.leakage_mw, macro.area_mm2)
            yield Row(line, f"CACTI 7.0 {NAMES[column]}", case, measured[i], values[i])


def _filled() -> Iterator[Row]:
    points = sram.read_points(sram.FIGURES)
    for i, (column, errors) in enumerate(kriging.cross_validation().items()):
        for line, (point, error) in enumerate(zip(points, errors, strict=True), start=2):
            case = f"{point.size_bytes} bytes x {point.width_bits} bits, {point.cell}, {point.node_nm:g} nm"
            measured = point.values[i]
            yield Row(line, f"left out: {NAMES[column]}", case, measured, measured * (1 + float(error)))


def _cell(cells: Cells) -> str:
    name = cells.text("cell").removeprefix("itrs-")
    if name not in sram.CELLS:
        cells.problem(f"cell = {cells.text('cell')!r}: must be {', '.join(sram.CELLS)}, with or without itrs-")
    return name if name in sram.CELLS else sram.CELLS[0]
