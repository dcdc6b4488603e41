"""A timeline as a picture: a row per track coloured by what it does, and the buffers below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npusim import plot, text
from npusim.errors import NpusimError
from npusim.timeline import OPERATION, REFRESH, TRANSFER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from npusim.timeline import Timeline, Track

LOOK = {
    "busy": plot.PALETTE[0], "wait_load": plot.PALETTE[5], "wait_store": plot.PALETTE[1],
    "wait_bus": plot.PALETTE[3], "latency": plot.PALETTE[4], REFRESH: plot.PALETTE[6],
}  # fmt: skip
NAMES = {"wait_load": "waits for a load", "wait_store": "waits for a store", "wait_bus": "waits for the DRAM bus",
         "latency": "DRAM latency", "busy": "busy", REFRESH: "DRAM refresh"}  # fmt: skip
MOST_SLICES = 50_000
ROOM_FOR_NAME = 0.012  # share of the width that a letter takes


def figure(timeline: Timeline) -> Figure:
    """Tracks and counters over the cycles of the operations shown; NpusimError when there are too many slices."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    tracks = [track for track in timeline.tracks if track.size]
    if sum(track.size for track in tracks) > MOST_SLICES:
        raise NpusimError(
            f"a picture shows at most {MOST_SLICES:,} slices, these are {timeline.size:,}: choose fewer operations "
            "(--layers, --ops)"
        )
    counters = timeline.counters
    heights = [0.42 * len(tracks), *(0.55,) * len(counters)]
    drawn = Figure(figsize=(11, 1.6 + sum(heights)), layout="constrained")
    axes = drawn.subplots(1 + len(counters), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    # From the first operation to the last: queued writes reach the DRAM later than the operations that stored them.
    first, last = int(tracks[0].start.min()), int(tracks[0].end.max())
    for row, track in enumerate(tracks):
        _row(axes[0], row, track, first, last)
    axes[0].set_yticks(range(len(tracks)), [track.name for track in tracks])
    axes[0].set(ylim=(len(tracks) - 0.4, -0.6), xlim=(first, last))
    for axis, counter in zip(axes[1:], counters, strict=True):
        at = np.append(counter.at, last)
        axis.fill_between(at, np.append(counter.values, 0) / 1024, step="post", color=plot.PALETTE[2], linewidth=0)
        axis.set(ylim=(0, 1.1 * max(1, counter.values.max()) / 1024), ylabel="KiB")
        axis.set_title(
            f"{counter.name}: bytes in use, of {text.size(counter.limit_bytes)}", loc="left", fontsize=9, pad=2
        )
    for axis in axes:
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.tick_params(axis="y", length=0)
    axes[-1].set_xlabel(f"cycle (1 cycle = {1e9 / timeline.clock_hz:.4g} ns)")
    used = {cause for track in tracks for cause in track.causes}
    patches = [Patch(color=colour, label=NAMES[cause]) for cause, colour in LOOK.items() if cause in used]
    drawn.legend(handles=patches, loc="outside lower left", ncols=len(patches), fontsize=9)
    drawn.suptitle(timeline.title, x=0.01, ha="left", fontsize=10)
    return drawn


def _row(axes: Axes, row: int, track: Track, first: int, last: int) -> None:
    causes = np.array(track.causes)
    # An edge tells neighbours apart; of slices that are a point wide it would leave nothing.
    edge = 0.3 if np.median(track.end - track.start) > (last - first) / 400 else 0
    for cause in dict.fromkeys(track.causes):
        chosen = causes == cause
        spans = list(zip(track.start[chosen], (track.end - track.start)[chosen], strict=True))
        if cause == OPERATION:
            axes.broken_barh(spans, (row - 0.4, 0.8), facecolor="none", edgecolor=plot.INK, linewidth=0.6)
        elif cause != TRANSFER:
            axes.broken_barh(spans, (row - 0.4, 0.8), facecolor=LOOK[cause], edgecolor=plot.PAPER, linewidth=edge)
    for start, end, cause, name in zip(track.start, track.end, track.causes, track.names, strict=True):
        letters = int((end - start) / (last - first) / ROOM_FOR_NAME * 2)
        wanted = _short(name) if cause == "busy" else name
        if cause in (OPERATION, "busy") and letters >= min(6, len(wanted)) and name != "data":
            shown = wanted if len(wanted) <= letters else f"{wanted[: letters - 1]}…"
            colour = plot.INK if cause == OPERATION else plot.PAPER
            axes.text((start + end) / 2, row, shown, ha="center", va="center", fontsize=7.5, color=colour)


def _short(name: str) -> str:
    """A slice's name without the operation, which stands above it."""
    before, _, tile = name.rpartition(" tile ")
    if name.startswith("load "):
        return before.partition(",")[0]
    return "store" if name.startswith("store ") else f"tile {tile}"
