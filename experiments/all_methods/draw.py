"""The figure of every method: speedup, energy gain and training memory, one column of panels per network."""

from __future__ import annotations

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from npusim import plot

COLUMNS = (
    ("speedup", "speedup of the step"),
    ("energy_gain", "energy gain of the step"),
    ("memory_share", "training memory / dense"),
)
MARKERS = (
    ("edge-16x16", "o", plot.PALETTE[0]), ("mcu-8x8", "s", plot.PALETTE[1]),
    ("reram-128x128", "^", plot.PALETTE[2]), ("ipu-gc200", "D", plot.PALETTE[3]),
)  # fmt: skip


def figure_files(table: pd.DataFrame) -> dict[str, bytes | str]:
    """methods.png and methods.svg."""
    with matplotlib.rc_context(plot.STYLE):
        drawn = {"methods": draw(table)}
        for figure in drawn.values():
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        return {
            **{f"{name}.png": image for name, image in plot.pngs(drawn).items()},
            **{f"{name}.svg": image for name, image in plot.svgs(drawn).items()},
        }


def draw(table: pd.DataFrame) -> Figure:
    """Dots on a logarithmic axis: one line per method and dataflow, one marker per machine."""
    table = table.copy()
    label = table.method.where(table.dataflow == "dense-os", table.method + "  [" + table.dataflow + "]")
    table["label"] = label
    dense = table[table.method == "dense"].set_index(["network", "hardware"]).training_bytes
    keys = list(zip(table.network, table.hardware, strict=True))
    table["memory_share"] = table.training_bytes / dense.loc[keys].to_numpy()
    networks = list(dict.fromkeys(table.network))
    order = list(dict.fromkeys(label))[::-1]
    figure = Figure(figsize=(13, 0.145 * len(order) * len(COLUMNS) + 1), layout="constrained")
    axes = figure.subplots(len(COLUMNS), len(networks), squeeze=False, sharey=True, sharex="row")
    for line, (column, title) in zip(axes, COLUMNS, strict=True):
        for axis, network in zip(line, networks, strict=True):
            _panel(axis, table[table.network == network], column, order)
            axis.set_xlabel(title)
            if column == COLUMNS[0][0]:
                axis.set_title(network)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=len(MARKERS))
    return figure


def _panel(axis, part: pd.DataFrame, column: str, order: list[str]) -> None:
    for machine, marker, colour in MARKERS:
        rows = part[part.hardware == machine]
        places = [order.index(text) for text in rows.label]
        axis.plot(rows[column], places, marker, color=colour, markersize=3.5, label=machine, linestyle="none")
    axis.axvline(1, color=plot.INK, linewidth=0.6)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter("")
    axis.set_yticks(range(len(order)), order, fontsize=6.5)
    axis.set_ylim(-0.7, len(order) - 0.3)
    axis.grid(True, axis="both")
