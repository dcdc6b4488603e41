"""Layers of chosen points, simulated once more: a store keeps sums, a roofline needs every operation."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from npusim.errors import NpusimError
from npusim.sweep import analysis

if TYPE_CHECKING:
    import pandas as pd

    from npusim.simulation import Run

MOST = 8


@dataclass(frozen=True)
class Mark:
    """One operation on a roofline: operations are MACs, or lane operations of the vector unit."""

    name: str
    phase: str
    vector: bool
    operations: int
    dram_bytes: int
    cycles: int
    energy_pj: float

    @property
    def intensity(self) -> float:
        """Operations per byte of DRAM."""
        return self.operations / max(1, self.dram_bytes)

    @property
    def rate(self) -> float:
        """Operations per cycle."""
        return self.operations / max(1, self.cycles)


@dataclass(frozen=True)
class Roofline:
    """The operations of one point under the limits of its machine, all per cycle."""

    title: str
    macs_per_cycle: int
    lanes: int
    bytes_per_cycle: float
    marks: tuple[Mark, ...]


def rooflines(table: pd.DataFrame, objectives: Sequence[str]) -> tuple[list[Roofline], str]:
    """Of points worth a look, and a note when stored results are of another version of the code.

    Those are the fastest machine of the front with every dataflow, then points of the front.
    """
    from npusim.sweep.evaluate import Evaluator, place
    from npusim.sweep.points import Resolver

    found: list[Roofline] = []
    resolver = Resolver()
    with tempfile.TemporaryDirectory(prefix="npusim-sweep-") as folder:
        evaluator = Evaluator(Path(folder))
        for i in _worth_a_look(table, objectives):
            point = _point(table, i)
            try:
                job = resolver.job(point)
            except NpusimError as error:
                return found, f"no rooflines: {error}"
            if job is None or job.key != table.at[i, "key"]:
                return found, "no rooflines: these results are of another version of npusim; run the sweep again"
            for digest in job.resources:
                place(Path(folder), digest, resolver.resources[digest])
            found.append(_roofline([run for _, run in evaluator.runs(job)], _title(table, i)))
    return found, ""


def _worth_a_look(table: pd.DataFrame, objectives: Sequence[str]) -> list[int]:
    front = analysis.front(table, objectives)
    if not front:
        return []
    keys = [key for key in analysis.keys_of(table) if key != "dataflow"]
    first = table.loc[front[0]]
    same = table
    for key in keys:
        same = same[same[key] == first[key]]
    chosen = list(dict.fromkeys([front[0], *same.drop_duplicates("dataflow").index, *analysis.spread(front, 4)]))
    return [int(i) for i in chosen[:MOST]]


def _point(table: pd.DataFrame, i: int) -> dict[str, Any]:
    from npusim.sweep.metrics import METRICS

    point = {}
    for key in table.columns:
        value = table.at[i, key]
        if key in (*analysis.NOT_KEYS, *METRICS) or value is None or value != value:
            continue
        value = value.item() if hasattr(value, "item") else value
        point[key] = int(value) if isinstance(value, float) and value == int(value) else value
    return point


def _title(table: pd.DataFrame, i: int) -> str:
    parts = []
    for group in analysis.groups_of(table):
        value = analysis.group_shown(group, table.loc[i])
        named = group[0] in ("dataflow", "workload", "hardware")
        parts.append(value if named else f"{analysis.group_label(group)} {value}")
    return ", ".join(parts)


def _roofline(runs: Sequence[Run], title: str) -> Roofline:
    hw = runs[0].hardware
    marks = [mark for run in runs for mark in _marks(run)]
    per_cycle = hw.dram.bandwidth_bytes_per_s / hw.clock_hz
    return Roofline(title, hw.peak_macs_per_cycle, hw.vector.lanes, per_cycle, tuple(marks))


def _marks(run: Run) -> list[Mark]:
    macs, vector = run.count("macs_done"), run.count("vector_lane_ops")
    moved = run.count("dram_read_bytes") + run.count("dram_write_bytes")
    energy = run.energy.pj.sum(axis=1)
    marks = []
    for i, op in enumerate(run.graph.ops):
        operations = int(macs[i] or vector[i])
        if operations and run.cycles[i] > 0:
            marks.append(
                Mark(op.name, op.phase, not macs[i], operations, int(moved[i]), int(run.cycles[i]), float(energy[i]))
            )
    return marks
