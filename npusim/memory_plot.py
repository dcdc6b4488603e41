"""The memory timeline of a training step: bytes alive in every operation, by group, and the phases below."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npusim import memory, plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from npusim.memory import MemoryPlan

UNITS = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B"))


def timeline(plan: MemoryPlan, title: str = "", limit_bytes: int | None = None) -> Figure:
    """Stacked areas over the operations in their order; a line at the machine's limit, if one is given."""
    import matplotlib
    from matplotlib.figure import Figure

    table = plan.timeline()
    top = max(int(table.sum(axis=1).max(initial=0)), limit_bytes or 0, 1)
    unit, name = next((size, text) for size, text in UNITS if top >= size)
    with matplotlib.rc_context(plot.STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axis = figure.subplots()
        used = [i for i in range(len(memory.GROUPS)) if table[:, i].any()]
        axis.stackplot(
            range(len(table)), *(table[:, i] / unit for i in used), step="post",
            labels=[memory.GROUPS[i] for i in used], colors=[plot.PALETTE[i] for i in used],
        )  # fmt: skip
        if limit_bytes is not None:
            axis.axhline(limit_bytes / unit, color=plot.INK, linestyle="--", label="limit")
        _phases(axis, plan)
        axis.set_xlim(0, len(table))
        axis.set_ylabel(f"alive, {name}")
        axis.set_xlabel("operation of the step")
        axis.set_title(title or plan.graph.name)
        axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    return figure


def _phases(axis, plan: MemoryPlan) -> None:
    """A line where forward ends and where the first gradient of a weight is used."""
    phases = [op.phase for op in plan.graph.ops]
    for phase in ("grad_input", "update"):
        if phase in phases:
            axis.axvline(phases.index(phase), color=plot.INK, linewidth=0.6)
