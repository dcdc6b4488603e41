"""What a table of results says: its front, gains against a baseline, which key matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from npusim.sweep import front as fronts
from npusim.sweep import metrics
from npusim.sweep.axes import RUN_KEYS
from npusim.sweep.store import DONE

if TYPE_CHECKING:
    import pandas as pd

    from npusim.report import Table

SHOWN_FRONT = 20
GAINS = ("speedup", "wgc_speedup", "energy_gain")
NOT_KEYS = ("key", "status", "message", *GAINS)


def done(table: pd.DataFrame) -> pd.DataFrame:
    """Rows with numbers."""
    return table[table.status == DONE].reset_index(drop=True)


def keys_of(table: pd.DataFrame) -> list[str]:
    """Columns that describe the point, and vary."""
    return [
        name
        for name in table.columns
        if name not in NOT_KEYS and name not in metrics.METRICS and table[name].nunique(dropna=False) > 1
    ]


def groups_of(table: pd.DataFrame) -> list[tuple[str, ...]]:
    """Keys that vary, those joined that only vary together."""
    groups: list[list[str]] = []
    for key in keys_of(table):
        for group in groups:
            pairs = table[[group[0], key]].drop_duplicates()
            if len(pairs) == table[group[0]].nunique(dropna=False) == table[key].nunique(dropna=False):
                group.append(key)
                break
        else:
            groups.append([key])
    return [tuple(group) for group in groups]


def front(table: pd.DataFrame, objectives: Sequence[str]) -> list[int]:
    """Positions of the Pareto front of rows with numbers, best first objective first; one front per workload."""
    place = [name for name in ("workload", "input_size", "batch") if name in table and table[name].nunique(False) > 1]
    found: list[int] = []
    parts = [part for _, part in table.groupby(place, sort=False, dropna=False)] if place else [table]
    for part in parts:
        signed = [
            tuple(row) for row in (part[list(objectives)] * [metrics.sign(o) for o in objectives]).to_numpy(float)
        ]
        chosen = sorted(fronts.front(signed), key=lambda i: signed[i])
        found += [int(part.index[i]) for i in chosen]
    return found


def against(table: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """`table` with speedup, wgc_speedup and energy_gain against the baseline dataflow of the same point otherwise.

    Missing (NaN) where the baseline has no such point.
    """
    keys = [key for key in keys_of(table) if key != "dataflow"]
    measured = {"cycles": "speedup", "grad_weight_cycles": "wgc_speedup", "energy_pj": "energy_gain"}
    base = (
        table[table.dataflow == baseline].drop_duplicates(keys) if keys else table[table.dataflow == baseline].head(1)
    )
    columns = base[[*keys, *measured]].rename(columns={name: f"base_{name}" for name in measured})
    joined = table.merge(columns, how="left", on=keys) if keys else table.join(columns, how="cross")
    for name, gain in measured.items():
        wanted = joined[name].astype("float64")
        joined[gain] = joined.pop(f"base_{name}").astype("float64") / wanted.where(wanted > 0)
    return joined


def sensitivity(table: pd.DataFrame, metric: str) -> dict[str, float]:
    """Share of the variance of log(metric) that each group of keys explains alone (its main effect), largest first."""
    import numpy as np

    values = np.log(table[metric].astype("float64").clip(lower=1e-30))
    total = float(values.var(ddof=0))
    found = {}
    for group in groups_of(table):
        if total <= 0 or table[group[0]].nunique() > len(table) / 2:
            means = values * 0 + values.mean()
        else:
            means = values.groupby(table[group[0]]).transform("mean")
        found[group_label(group)] = float(means.var(ddof=0)) / total if total > 0 else 0.0
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def group_label(group: Sequence[str]) -> str:
    """'array.rows = array.cols'; of more keys that vary together, the first two name the group."""
    return " = ".join(map(short, group[:2])) + (", ..." if len(group) > 2 else "")


def group_shown(group: Sequence[str], row: Mapping[str, Any]) -> str:
    """The values of the keys that name a group: one when both are alike."""
    return " / ".join(dict.fromkeys(shown(key, row[key]) for key in group[:2]))


def short(key: str) -> str:
    """A key without its unit: 'buffers.a.bytes' -> 'buffers.a'."""
    for ending in (".bytes", "_bytes_per_s", "_hz", "_ns"):
        key = key.removesuffix(ending)
    return key


def shown(key: str, value: Any) -> str:
    """A value of a key for people: bytes in KiB, rates in GB/s."""
    from npusim import text

    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, float) and value == int(value):
        value = int(value)
    if isinstance(value, (bool, str)) or key in RUN_KEYS:
        return text.clean(value)
    if key.endswith("bytes_per_s"):
        return f"{value / 1e9:g} GB/s"
    if key.endswith("_hz"):
        return f"{value / 1e6:g} MHz"
    if key.endswith("bytes"):
        return f"{value // 1024} KiB" if value % 1024 == 0 and value < 2**20 else text.size(value)
    return f"{value:,}"


def measured(metric: str, value: float) -> str:
    """A value of a metric for people."""
    from npusim import text

    if metric.endswith("_pj"):
        return text.joules(value)
    if metric.endswith("bytes"):
        return text.size(value)
    if metric == "time_s":
        return f"{value * 1e3:.4g} ms"
    if metric == "utilisation":
        return text.percent(value)
    return f"{int(value):,}" if metric.endswith("cycles") or metric.startswith("macs") else f"{value:.4g}"


def front_table(table: pd.DataFrame, objectives: Sequence[str]) -> Table:
    """The Pareto front for a terminal, at most SHOWN_FRONT rows spread evenly over it."""
    from npusim.report import Table

    rows = done(table)
    groups, chosen = groups_of(rows), front(rows, objectives)
    picked = spread(chosen, SHOWN_FRONT)
    cells = []
    for i in picked:
        words = (group_shown(group, rows.loc[i]) for group in groups)
        cells.append((*words, *(measured(name, rows.at[i, name]) for name in objectives)))
    more = f" ({len(picked)} shown)" if len(picked) < len(chosen) else ""
    title = f"Pareto front of {', '.join(objectives)}: {len(chosen)} of {len(rows)} points{more}"
    return Table(title, (*map(group_label, groups), *objectives), tuple(cells), words=len(groups))


def spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of `items`, evenly, the first and last among them."""
    if len(items) <= count:
        return list(items)
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]
