"""Figures of a sweep for papers and slides, in the style of `npusim.plot`."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from npusim import breakdown, plot, text
from npusim.sweep import analysis, export, metrics
from npusim.sweep.layers import Roofline

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PHASE_COLOURS = dict(zip(metrics.PHASES, plot.PALETTE, strict=False))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LABELS = {
    "cycles": "cycles", "energy_pj": "energy", "area_mm2": "area (mm2)", "time_s": "time (s)",
    "grad_weight_cycles": "cycles of WGC", "edp_pj_s": "energy x time (pJ s)",
    "speedup": "speedup of the step", "wgc_speedup": "speedup of WGC",
}  # fmt: skip
MOST_PANELS = 4


def figures(
    table: pd.DataFrame, objectives: Sequence[str], baseline: str, rooflines: Sequence[Roofline], name: str
) -> dict[str, Figure]:
    """Every figure of finished points (`analysis.done`) by file name without suffix."""
    import matplotlib

    caption = f"Sweep {text.clean(name)}: {len(table):,} points. {_fixed(table)}"
    caption = "\n".join([caption, *textwrap.wrap(energy_basis(table), plot.CAPTION_WIDTH)])
    with matplotlib.rc_context(plot.STYLE):
        drawn: dict[str, Figure | None] = {
            "pareto": pareto(table, objectives, caption),
            "speedup": speedup(table, baseline, caption),
            "energy": energy(table, objectives, caption),
            "roofline": roofline(rooflines, caption),
            "sensitivity": sensitivity(table, objectives, caption),
        }
        kept = {key: figure for key, figure in drawn.items() if figure is not None}
        for figure in kept.values():
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
    return kept


def pareto(table: pd.DataFrame, objectives: Sequence[str], caption: str) -> Figure:
    """The first objective against the second, and against the third; the front is outlined."""
    pairs = [(objectives[0], other) for other in objectives[1:]] or [("area_mm2", objectives[0])]
    figure = _figure(caption, 4.6)
    front = analysis.front(table, objectives)
    names = export.values(table.dataflow)
    for axes, (x, y) in zip(figure.subplots(1, len(pairs), squeeze=False)[0], pairs, strict=True):
        for i, name in enumerate(names):
            rows = table[table.dataflow == name]
            colour, marker = plot.PALETTE[i % len(plot.PALETTE)], MARKERS[i % len(MARKERS)]
            axes.scatter(rows[x].astype(float), rows[y].astype(float), s=16, c=colour, marker=marker, alpha=0.55,
                         linewidths=0, label=text.clean(name))  # fmt: skip
        chosen = table.loc[front].sort_values(x)
        axes.scatter(chosen[x].astype(float), chosen[y].astype(float), s=46, c="none", marker="o",
                     edgecolors=plot.INK, linewidths=1.1, label=f"front of {len(objectives)} objectives")  # fmt: skip
        axes.set(xlabel=LABELS.get(x, x), ylabel=LABELS.get(y, y))
        _scaled(axes, {"x": table[x], "y": table[y]})
        axes.grid(True)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=4)
    return figure


def speedup(table: pd.DataFrame, baseline: str, caption: str) -> Figure | None:
    """Heat maps over the first two varying keys: speedup against the baseline of the same machine, WGC and step."""
    gains = analysis.against(table, baseline)
    gains = gains[(gains.dataflow != baseline) & gains.speedup.notna()]
    groups = [g for g in analysis.groups_of(table) if not {"dataflow", "workload"} & set(g)]
    if gains.empty or not groups:
        return None
    names = export.values(gains.dataflow)[:MOST_PANELS]
    y, x = (groups[0][0], groups[1][0]) if len(groups) > 1 else ("workload", groups[0][0])
    figure = _figure(caption, 2.2 + 0.34 * 2 * gains[y].nunique() + 0.6, max(9.0, 2.6 + 2.6 * len(names)))
    panels = figure.subplots(2, len(names), squeeze=False, sharex=True, sharey=True)
    every = gains[["wgc_speedup", "speedup"]].to_numpy(float)
    spread = max(1.05, *(float(v) for v in (abs(_log(every))).ravel() if v == v))
    for row, column in enumerate(("wgc_speedup", "speedup")):
        for place, name in enumerate(names):
            axes = panels[row, place]
            cells = gains[gains.dataflow == name].pivot_table(index=y, columns=x, values=column, aggfunc="median")
            _heat(axes, cells, y, x, spread)
            axes.set_title(f"{text.clean(name)}: {'WGC' if row == 0 else 'whole step'}", fontsize=9.5)
            axes.set_xlabel(_group_label(groups, x) if row == 1 else "")
            axes.set_ylabel(_group_label(groups, y) if place == 0 else "")
    figure.suptitle(f"Speedup against {text.clean(baseline)} on the same machine (median of what else varies)",
                    x=0.01, ha="left", fontsize=11)  # fmt: skip
    return figure


def _log(values: Any) -> Any:
    import numpy as np

    return np.log2(np.where(values > 0, values, np.nan)) if values.size else values


def _heat(axes: Axes, cells: pd.DataFrame, y: str, x: str, spread: float) -> None:
    """Blue: faster, orange: slower; the same scale in every panel. Text says the number."""
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("gain", ["#d55e00", "#f4f4f6", "#0072b2"])
    axes.imshow(_log(cells.to_numpy(float)), cmap=colours, vmin=-spread, vmax=spread, aspect="auto", origin="lower")
    for i in range(cells.shape[0]):
        for j in range(cells.shape[1]):
            value = cells.iat[i, j]
            if value == value:
                dark = abs(math.log2(value)) > 0.55 * spread if value > 0 else False
                axes.text(j, i, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                          color="#ffffff" if dark else "#1c1c20")  # fmt: skip
    axes.set_xticks(range(cells.shape[1]), [analysis.shown(x, v) for v in cells.columns], rotation=35, ha="right")
    axes.set_yticks(range(cells.shape[0]), [analysis.shown(y, v) for v in cells.index])
    axes.tick_params(length=0, labelsize=8)


def energy(table: pd.DataFrame, objectives: Sequence[str], caption: str) -> Figure:
    """Stacked bars of points of the front: energy by component."""
    chosen = analysis.spread(analysis.front(table, objectives), 10)
    groups = analysis.groups_of(table)
    rows = breakdown.rows_of(table.loc[chosen])
    components = [f"{name}_pj" for name in _components()]
    stacks = [breakdown.energy_groups({name: row[name] for name in components}) for row in rows]
    largest = max(sum(stack.values()) for stack in stacks)
    factor, unit = next(((f, u) for f, u in plot.ENERGY_UNITS if largest >= f), plot.ENERGY_UNITS[-1])
    figure = _figure(caption, 1.7 + 0.42 * len(rows))
    axes = figure.subplots()
    left = [0.0] * len(rows)
    for i, part in enumerate(breakdown.shown_groups(stacks)):
        values = [stack[part] / factor for stack in stacks]
        axes.barh(range(len(rows)), values, 0.7, left, label=part, color=plot.PALETTE[i % len(plot.PALETTE)])
        left = [a + b for a, b in zip(left, values, strict=True)]
    for i, total in enumerate(left):
        axes.annotate(f"{total:.3g}", (total, i), (3, 0), textcoords="offset points", va="center", fontsize=8)
    names = [", ".join(analysis.group_shown(group, row) for group in groups) for row in rows]
    axes.set_yticks(range(len(rows)), names, fontsize=8)
    axes.set(
        xlabel=f"energy ({unit})", xlim=(0, 1.08 * max(left)), title="Energy of points of the front, fastest on top"
    )
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.grid(axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _components() -> tuple[str, ...]:
    from npusim.energy.account import COMPONENTS

    return COMPONENTS


def roofline(rooflines: Sequence[Roofline], caption: str) -> Figure | None:
    """Every operation of every phase under the roofs of its machine; one panel per point, four at most."""
    shown = rooflines[:MOST_PANELS]
    if not shown:
        return None
    rows = math.ceil(len(shown) / 2)
    figure = _figure(caption, 1.0 + 3.3 * rows)
    places = figure.subplots(rows, min(2, len(shown)), squeeze=False, sharex=True, sharey=True).ravel()
    for axes, item in zip(places, shown, strict=False):
        for phase, colour in PHASE_COLOURS.items():
            for vector, marker in ((False, "o"), (True, "x")):
                marks = [m for m in item.marks if m.phase == phase and m.vector == vector]
                if marks:
                    axes.scatter([m.intensity for m in marks], [m.rate for m in marks], s=18, c=colour, marker=marker,
                                 alpha=0.75, linewidths=0 if marker == "o" else 1,
                                 label=f"{phase}{' (vector unit)' if vector else ''}")  # fmt: skip
        spans = [m.intensity for m in item.marks]
        low, high = min(spans) / 2, max(spans) * 2
        for peak, style in ((item.macs_per_cycle, "-"), (item.lanes, ":")):
            knee = peak / item.bytes_per_cycle
            xs = sorted({low, min(max(knee, low), high), high})
            axes.plot(xs, [min(peak, item.bytes_per_cycle * x) for x in xs], style, color=plot.INK, linewidth=1)
        axes.set_xscale("log")
        axes.set_yscale("log")
        _plain(axes.xaxis)
        _plain(axes.yaxis)
        axes.set_title(_wrapped(item.title), fontsize=8.5)
        axes.grid(True)
    for axes in places[len(shown) :]:
        axes.set_axis_off()
    figure.supylabel("operations per cycle", fontsize=9.5)
    handles: dict[str, Any] = {}
    for axes in places:
        handles |= {label: h for h, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside upper left", ncols=4, fontsize=8)
    places[max(0, len(shown) - 1)].set_xlabel(
        "operations per byte of DRAM (line: MACs, dotted: vector unit)", fontsize=8.5
    )
    return figure


def sensitivity(table: pd.DataFrame, objectives: Sequence[str], caption: str) -> Figure | None:
    """Share of the variance of each objective (in logarithms) that a key explains alone."""
    effects = {name: analysis.sensitivity(table, name) for name in objectives}
    keys = list(effects[objectives[0]])
    if not keys:
        return None
    figure = _figure(caption, 1.6 + 0.24 * len(keys) * len(objectives))
    axes = figure.subplots()
    height = 0.8 / len(objectives)
    for i, name in enumerate(objectives):
        at = [k + (i + 0.5) * height - 0.4 for k in range(len(keys))]
        axes.barh(at, [effects[name][key] for key in keys], 0.9 * height, label=LABELS.get(name, name),
                  color=plot.PALETTE[i])  # fmt: skip
    axes.set_yticks(range(len(keys)), keys)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1), xlabel="share of the variance explained by this key alone", title="Which key matters most")
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper")
    return figure


def _figure(caption: str, height: float, width: float = 9.0) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(caption, fontsize=8, color=plot.INK, x=0.01, ha="left")
    return figure


def _scaled(axes: Axes, columns: Mapping[str, pd.Series]) -> None:
    """Logarithmic where the values span a factor of more than 5."""
    for name, column in columns.items():
        low, high = float(column.min()), float(column.max())
        if low > 0 and high / low > 5:
            getattr(axes, f"set_{name}scale")("log")
        _plain(getattr(axes, f"{name}axis"), str(column.name))


def _plain(axis: Any, metric: str = "") -> None:
    """Numbers as '150 k', '0.5': no powers in mathematical type, which the style leaves out."""
    from matplotlib.ticker import FuncFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: _number(value, metric)))
    decades = axis.get_scale() == "log" and math.log10(axis.get_view_interval()[1] / axis.get_view_interval()[0]) > 1.5
    axis.set_minor_formatter(FuncFormatter(lambda value, _: "" if decades else _number(value, metric)))


def _number(value: float, metric: str) -> str:
    if metric.endswith("_pj"):
        return text.joules(value)
    if abs(value) < 1000:
        return f"{value:.3g}"
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:.3g}"


def energy_basis(table: pd.DataFrame) -> str:
    """What the energies rest on, as the points say; of several tables, memories or rules the first two are named."""
    found = [text.clean(message) for message in export.values(table.message) if message]
    more = f" and {len(found) - 2} more (column message of results.csv)" if len(found) > 2 else ""
    return f"Energy: {' | '.join(found[:2])}{more}." if found else ""


def _fixed(table: pd.DataFrame) -> str:
    shown = []
    for key in ("workload", "hardware", "batch", "input_size"):
        if key in table and table[key].nunique() == 1:
            shown.append(f"{key} {analysis.shown(key, table[key].iloc[0])}")
    return ", ".join(shown) + "." if shown else ""


def _group_label(groups: Sequence[tuple[str, ...]], first: str) -> str:
    group = next((g for g in groups if g[0] == first), (first,))
    return analysis.group_label(group)


def _wrapped(title: str) -> str:
    return "\n".join(textwrap.wrap(title, 58)[:2])
