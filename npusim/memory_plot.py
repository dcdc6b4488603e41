"""The memory timeline of a training step: bytes alive in every operation, by group, and the phases below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from npusim import memory, plot, text

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

    from npusim.memory import MemoryPlan
    from npusim.results import Result

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def timeline(plan: MemoryPlan, title: str = "", limit_bytes: int | None = None) -> Figure:
    """Stacked areas over the operations in their order; a line at the machine's limit, if one is given."""
    import matplotlib

    with matplotlib.rc_context(plot.STYLE):
        phases = [op.phase for op in plan.graph.ops]
        figure = _figure(plan.timeline(), phases, title or plan.graph.name, limit_bytes)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def of_result(result: Result) -> Figure:
    """The timeline of a result's memory table, with its peak and the limit that was set."""
    frame = result.memory
    total = frame[list(memory.GROUPS)].sum(axis=1)
    title = f"Memory of {plot.broken(result.facts.workload, 40)}: peak {text.size(result.peak_bytes)}"
    if len(frame) and result.peak_bytes:
        at = frame.iloc[int(total.argmax())]
        title += f" in {plot.broken(at['name'], 40)} ({at.phase})"
    limit = (result.manifest.get("memory_limit") or {}).get("bytes")
    return _figure(frame[list(memory.GROUPS)].to_numpy(), list(frame.phase), title, limit)


def _figure(table: np.ndarray, phases: Sequence[str], title: str, limit_bytes: int | None = None) -> Figure:
    from matplotlib.figure import Figure

    total = table.sum(axis=1)
    top = max(int(total.max(initial=0)), limit_bytes or 0, 1)
    unit, name = next((size, text) for size, text in UNITS if top >= size)
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    axis = figure.subplots()
    used = [i for i in range(len(memory.GROUPS)) if table[:, i].any()]
    axis.stackplot(
        range(len(table)), *(table[:, i] / unit for i in used), step="post",
        labels=[memory.GROUPS[i] for i in used], colors=[plot.PALETTE[i] for i in used],
    )  # fmt: skip
    if limit_bytes is not None:
        axis.axhline(limit_bytes / unit, color=plot.INK, linestyle="--", label="limit")
    # A line where forward ends and where the first gradient of a weight is used.
    for phase in ("grad_input", "update"):
        if phase in phases:
            axis.axvline(phases.index(phase), color=plot.INK, linewidth=0.6)
    axis.set(xlim=(0, max(1, len(table))), ylim=(0, 1.08 * top / unit), ylabel=f"alive ({name})")
    axis.set_xlabel("operation of the step")
    axis.set_title(title, loc="left")
    if used:
        handles, labels = axis.get_legend_handles_labels()
        axis.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure
