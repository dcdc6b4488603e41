"""The worst cases of steps mapped anew on a better machine: was the mapping before, kept on that machine, faster?

A tiling that fitted before still fits. Where the search finds something slower than what it had, it is the search;
where it does not, the better machine is slower with either mapping.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

from npusim import atomic
from npusim.mapping.choice import Choice
from npusim.method_runs import _fitting, machine_of
from npusim.npu import Hardware
from npusim.simulation import Run, simulate
from reliability import cases, laws

EACH = 10  # cases of every kind of change and memory


def run(model: Path, out: Path) -> None:
    """Look at the worst cases of the rows `model`; a JSON list with a row per kind of change and memory."""
    with model.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["free_ratio"] and float(row["free_ratio"]) > 1]
    rows.sort(key=lambda row: (-float(row["free_ratio"]), int(row["number"])))
    seen: Counter[tuple[str, str]] = Counter()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        key = (row["change"], row["memory"])
        seen[key] += 1
        if seen[key] > EACH:
            continue
        ratio = anew_over_kept(cases.numbered(int(row["seed"]), int(row["number"])))
        entry = found.setdefault(key, {"change": key[0], "memory": key[1], "cases": 0, "kept_faster": 0, "most": 0.0})
        if ratio is not None:
            entry["cases"] += 1
            entry["kept_faster"] += ratio > 1
            entry["most"] = max(entry["most"], ratio)
    ordered = sorted(found.values(), key=lambda e: (e["memory"] != "ideal", cases.CHANGES.index(e["change"])))
    atomic.write(out, json.dumps(ordered, indent=1) + "\n")


def anew_over_kept(case: cases.Case) -> float | None:
    """Cycles mapped anew over cycles with the mapping kept, on the better machine; None when it cannot be kept."""
    part = laws.planned(case).parts[0]
    graph, machine = part.step(), machine_of(part, case.hardware)
    names = Counter((op.name, op.phase) for op in graph.ops if op.macs)
    if max(names.values(), default=0) > 1:  # a mapping is fixed by name and phase
        return None
    flow = _fitting(graph, case.dataflow)
    before = simulate(graph, machine, flow, priced_as=case.hardware)
    better = laws.improved(before.hardware, case.change)
    anew = simulate(graph, better, flow, priced_as=case.hardware)
    kept = simulate(graph, better, flow, choice=_mapping(before, better), priced_as=case.hardware)
    return anew.schedule.cycles / kept.schedule.cycles


def _mapping(run: Run, better: Hardware) -> Choice:
    fixed = {
        (plan.op.name, plan.op.phase, part, plan.dataflow): tiling
        for plan in run.lowered.plans
        for part, tiling in enumerate(plan.tilings)
    }
    return Choice("cycles", tuple(fixed.items()), f"kept for {better.name}")
