"""The page of a sweep: one HTML file with all its numbers, drawn in the browser; it needs no network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from npusim import breakdown, text
from npusim.html import frame
from npusim.sweep import analysis, export, metrics
from npusim.sweep.figures import LABELS, energy_basis

if TYPE_CHECKING:
    import pandas as pd

    from npusim.sweep.layers import Roofline

SECTIONS = {
    "pareto": "Pareto front", "map": "Gain map", "energy": "Energy", "roofline": "Roofline",
    "sensitivity": "Sensitivity", "failures": "Points without a result", "provenance": "Provenance",
}  # fmt: skip
MOST_POINTS = 20_000
MOST_FAILURES = 200
GAINS = ("wgc_speedup", "speedup", "energy_gain")
PLOTTED = ("cycles", "time_s", "energy_pj", "area_mm2", "edp_pj_s", "utilisation", "dram_bytes", "sram_bytes", "pes",
           "grad_weight_cycles", "grad_weight_energy_pj", "macs_done", "load_stall_cycles")  # fmt: skip


def sweep_page(
    table: pd.DataFrame,
    description: Mapping[str, Any],
    rooflines: Sequence[Roofline],
    note: str = "",
) -> str:
    """The whole page of `export.frame`; `description` as `Store.sweeps` gives it, `note` about the rooflines.

    Of more than MOST_POINTS points those of the front and an even selection of the rest are in it.
    """
    spec = description["spec"]
    objectives = tuple(spec.get("objectives", ("cycles", "energy_pj", "area_mm2")))
    baseline = spec.get("baseline", "dense-os")
    done = analysis.done(table)
    rows = _selected(analysis.against(done, baseline), objectives)
    name = text.clean(spec["name"])
    about = f"{len(done):,} points with a result, {len(table) - len(done):,} without. {spec.get('description', '')}"
    if len(rows) < len(done):
        about += f" This page holds the front and {len(rows):,} points in all; results.csv holds every one."
    main = Template(frame.part("sweep.html")).substitute(
        objectives=escape(", ".join(LABELS.get(o, o) for o in objectives)),
        baseline=escape(text.clean(baseline)),
        note=escape(text.clean(note)),
        basis=escape(energy_basis(done)),
        failures=_failures(table),
        provenance=escape(json.dumps(dict(description), indent=2, ensure_ascii=True, default=str)),
    )
    data = _embedded(_data(rows, objectives, baseline, rooflines))
    extra = f'<div id="tip" role="tooltip" hidden></div>\n<script type="application/json" id="data">{data}</script>\n'
    styles = ("style.css", "sweep.css")
    return frame.page(f"Sweep {name}", text.clean(about), SECTIONS, main, styles, "sweep.js", extra)


def _embedded(value: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).replace("<", "\\u003c")


def _selected(rows: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    if len(rows) <= MOST_POINTS:
        return rows
    front = analysis.front(rows, objectives)
    even = range(0, len(rows), -(-len(rows) // MOST_POINTS))
    return rows.loc[sorted({*front, *even})].reset_index(drop=True)


def _data(
    rows: pd.DataFrame, objectives: Sequence[str], baseline: str, rooflines: Sequence[Roofline]
) -> dict[str, Any]:
    groups = analysis.groups_of(rows)
    keys = [group[0] for group in groups]
    gains = [gain for gain in GAINS if rows[gain].notna().any()] if "dataflow" in keys else []
    components = [name for name in rows.columns if name.endswith("_pj") and name in _components()]
    parts: dict[str, list] = {}
    for group, columns in _groups(components).items():
        parts[group] = _numbers(sum(rows[column].astype(float) for column in columns))
    plotted = [*dict.fromkeys([*objectives, *gains, *PLOTTED])]
    if not any(parts.get("crossbars", [])):
        parts.pop("crossbars", None)
    return {
        "count": len(rows),
        "baseline": text.clean(baseline),
        "objectives": [{"name": name, "sign": metrics.sign(name)} for name in objectives],
        "labels": {**{name: name.replace("_", " ") for name in plotted}, **LABELS, "energy_gain": "energy gain"},
        "keys": [_key(rows, group) for group in groups],
        "places": [keys.index(key) for key in ("workload", "input_size", "batch") if key in keys],
        "metrics": {name: _numbers(rows[name]) for name in plotted},
        "plotted": plotted,
        "detailed": plotted,
        "gains": gains,
        "parts": parts,
        "phases": list(metrics.PHASES),
        "rooflines": [_roofline(item) for item in rooflines],
    }


def _components() -> set[str]:
    from npusim.energy.account import COMPONENTS

    return {f"{name}_pj" for name in COMPONENTS}


def _groups(columns: Sequence[str]) -> dict[str, list[str]]:
    found = {
        group: [f"{part}_pj" for part in parts if f"{part}_pj" in columns]
        for group, parts in breakdown.ENERGY_GROUPS.items()
    }
    return {group: names for group, names in found.items() if names}


def _key(rows: pd.DataFrame, group: Sequence[str]) -> dict[str, Any]:
    """Keys that vary together are one for the page; `rows` are positions in `shown`."""
    key = group[0]
    first = rows.drop_duplicates(key).set_index(key, drop=False)
    values = export.values(rows[key])
    places = {value: i for i, value in enumerate(values)}
    column = [places.get(value, len(values)) for value in rows[key].tolist()]
    shown = [analysis.group_shown(group, first.loc[value]) for value in values]
    if len(values) in column:
        shown.append("-")
    return {"name": key, "label": text.clean(analysis.group_label(group)), "shown": shown, "rows": column}


def _numbers(column: Any) -> list[float | int | None]:
    """Six significant digits are more than a picture shows."""
    found: list[float | int | None] = []
    for value in column.tolist():
        if value is None or value != value:
            found.append(None)
        else:
            found.append(value if isinstance(value, int) else float(f"{float(value):.6g}"))
    return found


def _roofline(item: Roofline) -> dict[str, Any]:
    marks = [
        {**asdict(mark), "name": text.clean(mark.name), "intensity": mark.intensity, "rate": mark.rate}
        for mark in item.marks
    ]
    return {**asdict(item), "title": text.clean(item.title), "marks": marks}


def _failures(table: pd.DataFrame) -> str:
    bad = table[table.status != "done"]
    if bad.empty:
        return "<p>None.</p>"
    keys = [key for key in table.columns if key not in (*analysis.NOT_KEYS, *metrics.METRICS)]
    keys = [key for key in keys if table[key].nunique(dropna=False) > 1]
    head = "".join(
        f"<th scope=col>{escape(text.clean(name))}" for name in (*map(analysis.short, keys), "status", "message")
    )
    rows = []
    for row in breakdown.rows_of(bad.head(MOST_FAILURES)):
        cells = [*(analysis.shown(key, row[key]) for key in keys), row["status"], text.clean(row["message"])]
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}" for cell in cells))
    more = f"<p>{len(bad) - MOST_FAILURES:,} more are in results.csv.</p>" if len(bad) > MOST_FAILURES else ""
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Points without a result"><table class="failures">'
        f"<caption>{len(bad):,} points</caption><thead><tr>{head}</thead><tbody>{''.join(rows)}</tbody></table></div>"
        f"{more}"
    )
