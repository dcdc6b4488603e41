"""A step as a table: one row per operation, and totals by phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npusim.graph import PHASES, StepGraph, Vector, describe
from npusim.text import clean, count, percent

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("phase", "name", "kind", "shape", "macs", "elements", "task_density", "update_density", "param")
_WIDEST = 48


def table(graph: StepGraph) -> pd.DataFrame:
    """One row per operation, in order of execution.

    `macs` are counted before masks; `elements` are those of a vector operation. Densities (0..1) are of
    the operation's parameter, and missing where no mask is declared.
    """
    import pandas as pd

    densities = [{key: mask.density for key, mask in masks.items()} for masks in (graph.task_masks, graph.update_masks)]
    rows = []
    for op in graph.ops:
        elements = op.dims.elements if isinstance(op.dims, Vector) else None
        task, updates = (each.get(op.param) for each in densities)
        shape = describe(op.dims)
        rows.append((op.phase, op.name, op.kind, shape, op.macs, elements, task, updates, op.param))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    types = {"macs": "int64", "elements": "Int64", "task_density": "float64", "update_density": "float64"}
    return frame.astype(types)


def totals(graph: StepGraph) -> pd.DataFrame:
    """Operations, MACs, and MACs that the masks select, by phase.

    Selected: forward and grad_input at the task mask's density, grad_weight at the update mask's.
    """
    frame = table(graph)
    density = frame["task_density"].where(frame["phase"] != "grad_weight", frame["update_density"]).fillna(1.0)
    frame["selected_macs"] = frame["macs"] * density
    frame["operations"] = 1
    summed = frame.groupby("phase")[["operations", "macs", "selected_macs"]].sum()
    return summed.reindex([phase for phase in PHASES if phase in summed.index])


def render(graph: StepGraph) -> str:
    """Plain text for a terminal: a line per operation, then totals by phase. Names are made harmless."""
    lines: list[tuple[str, ...]] = [("#", "phase", "kind", "name", "shape", "MACs", "task", "update")]
    for i, op in enumerate(graph.ops):
        selected = (graph.task_masks.get(op.param), graph.update_masks.get(op.param))
        densities = [percent(mask.density) if mask else "" for mask in selected]
        macs = count(op.macs) if op.macs else ""
        cells = (str(i), op.phase, op.kind, _short(op.name), describe(op.dims), macs, *densities)
        lines.append(tuple(clean(cell) for cell in cells))
    text = _aligned(lines)
    sums: list[tuple[str, ...]] = [("phase", "operations", "MACs", "selected")]
    for row in totals(graph).reset_index().to_numpy().tolist():
        sums.append((str(row[0]), str(row[1]), count(row[2]), count(row[3])))
    first = f"step {clean(graph.name)}: {len(graph.ops)} operations, {len(graph.tensors)} tensors"
    masks = f"masks: {len(graph.task_masks)} task, {len(graph.update_masks)} update, {len(graph.observed)} observed"
    notes = [f"{clean(key)}: {_short(clean(value))}" for key, value in graph.meta.items()]
    return "\n".join([first, masks, *notes, "", text, "", _aligned(sums)])


def _short(name: str) -> str:
    return name if len(name) <= _WIDEST else f"...{name[3 - _WIDEST :]}"


def _aligned(rows: list[tuple[str, ...]]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [
        i for i, title in enumerate(rows[0]) if title in ("#", "MACs", "task", "update", "operations", "selected")
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(w) if i in numeric else cell.ljust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
