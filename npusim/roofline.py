"""The roofline of a result: operations per cycle against operations per DRAM byte, one point per operation.

Under a machine that does P operations per cycle and moves B bytes per cycle over the DRAM bus, an operation that does
I operations per byte can reach min(P, B x I) per cycle (Williams, Waterman, Patterson, CACM 2009). P is the PEs for
MACs and the lanes for the vector unit. Time is the operation's own, waiting included.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import atan, degrees
from typing import TYPE_CHECKING

from npusim import plot, text
from npusim.graph import PHASES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from npusim.npu import Hardware
    from npusim.results import Result

COLUMNS = 2
MOST, MOST_POINTS = 8, 1200


def points(result: Result) -> pd.DataFrame:
    """One row per operation that computes: name, phase, vector (lane operations instead of MACs), operations,
    dram_bytes, cycles, intensity (operations per byte), rate (operations per cycle)."""
    frame = result.layers
    on_array = frame.macs_done > 0
    found = frame[["name", "phase", "cycles"]].assign(
        vector=~on_array,
        operations=frame.macs_done.where(on_array, frame.vector_lane_ops),
        dram_bytes=frame.dram_read_bytes + frame.dram_write_bytes,
    )
    found = found[(found.operations > 0) & (found.cycles > 0) & (found.dram_bytes > 0)]
    return found.assign(intensity=found.operations / found.dram_bytes, rate=found.operations / found.cycles)


def names(result: Result, phase: str, vector: bool) -> list[str]:
    """Names of the operations of one series of points, in its order."""
    found = points(result)
    return list(found.name[(found.phase == phase) & (found.vector == vector)])


def bytes_per_cycle(hardware: Hardware) -> float:
    """Bytes that the DRAM bus moves in one cycle of the machine's clock."""
    return hardware.dram.bandwidth_bytes_per_s / hardware.clock_hz


def figure(results: Sequence[Result]) -> Figure:
    """A panel per result, at most MOST and while they have MOST_POINTS points; MACs as dots, operations of the vector
    unit as crosses, colours are phases."""
    from matplotlib.figure import Figure

    total, shown = 0, 0
    for result in results[:MOST]:
        total += len(result.layers)
        shown += total <= MOST_POINTS or shown < 2
    left_out = f" (the first {shown} of {len(results)} runs)" if len(results) > shown else ""
    results = results[:shown]
    rows = -(-len(results) // COLUMNS)
    columns = min(COLUMNS, len(results))
    drawn = Figure(figsize=(9, 0.9 + (4.4 if columns == 1 else 3.3) * rows), layout="constrained")
    grid = drawn.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    found = [points(result) for result in results]
    across = _across(results, found)
    for i, (axes, result) in enumerate(zip(grid, results, strict=False)):
        _panel(axes, result, found[i], i, across)
        if len(results) > 1:
            axes.set_title(plot.broken(text.clean(result.label), 44), loc="left", fontsize=10)
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("operations per byte of DRAM")
        if i % columns == 0:
            axes.set_ylabel("operations per cycle")
    for axes in grid[len(results) :]:
        axes.set_axis_off()
    drawn.suptitle(
        f"Roofline: every operation under the limits of the machine{left_out}", x=0.01, ha="left", fontsize=11
    )
    drawn.legend(*_legend(results), loc="outside lower left", ncols=7, columnspacing=1.2, handletextpad=0.4)
    return drawn


def _across(results: Sequence[Result], found: Sequence[pd.DataFrame]) -> tuple[float, float]:
    """From less than the least intensity to more than the most, and the ridges between."""
    ridges = [result.hardware.peak_macs_per_cycle / bytes_per_cycle(result.hardware) for result in results]
    seen = [value for frame in found for value in frame.intensity]
    return min([*seen, *ridges]) / 2, max([*seen, *ridges]) * 3


def _panel(axes: Axes, result: Result, found: pd.DataFrame, number: int, across: tuple[float, float]) -> None:
    import numpy as np

    hw = result.hardware
    moved = bytes_per_cycle(hw)
    x = np.geomspace(*across, 200)
    for peak, style, name in (
        (hw.peak_macs_per_cycle, "-", f"{hw.peak_macs_per_cycle:,} MACs"),
        (hw.vector.lanes, ":", f"{hw.vector.lanes:,} lanes"),
    ):
        axes.plot(x, np.minimum(peak, moved * x), style, color=plot.INK, linewidth=1.2)
        axes.annotate(name, (x[-1], peak), (0, 3), textcoords="offset points", ha="right", fontsize=8)
    # Above the slope, at a place in parts of its lower end, and turned as it is on logarithmic axes.
    at, above = 3 * x[0], 1.2
    axes.text(
        at, above * moved * at, f"DRAM {moved:.3g} bytes/cycle", fontsize=8, rotation=degrees(atan(above * moved)),
        rotation_mode="anchor", transform_rotates_text=True,
    )  # fmt: skip
    for phase in PHASES:
        for vector in (False, True):
            chosen = found[(found.phase == phase) & (found.vector == vector)]
            if len(chosen):
                mark, size, line = ("x", 16.0, 1.1) if vector else ("o", 22.0, 0.0)
                axes.scatter(
                    chosen.intensity, chosen.rate, s=size, color=colour(phase), marker=mark, alpha=0.8, linewidths=line,
                    gid=f"points-{number}-{phase}-{'vector' if vector else 'array'}",
                )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlim=(x[0], x[-1]))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")
    axes.grid(which="major")


def colour(phase: str) -> str:
    """The colour of a phase."""
    return plot.PALETTE[PHASES.index(phase)] if phase in PHASES else plot.INK


def _legend(results: Sequence[Result]) -> tuple[list, list[str]]:
    from matplotlib.lines import Line2D

    used = {phase for result in results for phase in result.layers.phase}
    names = [phase for phase in PHASES if phase in used]
    handles = [Line2D([], [], marker="o", linestyle="", color=colour(phase), markersize=5) for phase in names]
    handles += [Line2D([], [], marker=mark, linestyle="", color=plot.INK, markersize=5) for mark in "ox"]
    return handles, [*names, "MACs on the array", "vector unit"]
