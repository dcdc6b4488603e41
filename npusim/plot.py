"""Figures of a comparison, made with matplotlib's object interface: no global state, no display.

Colours are those of Okabe and Ito, told apart with any colour vision. Text, lines and background use INK,
FAINT and PAPER only, so that a page can swap them for its own theme.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import isfinite, nan
from typing import TYPE_CHECKING, Any

from npusim import breakdown, text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from npusim.comparison import Comparison

INK, FAINT, PAPER = "#26262b", "#b4b4bb", "#ffffff"
# Okabe and Ito, Color Universal Design, 2008; black left out, it vanishes on a dark page.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442")
HATCHES = ("", "//", "..", "xx")
STYLE: Any = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"], "font.size": 10,
    "axes.titlesize": 11, "axes.labelsize": 10, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5, "legend.fontsize": 9.5,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.titlecolor": INK,
    "axes.edgecolor": FAINT, "grid.color": FAINT, "grid.linewidth": 0.6, "grid.alpha": 0.6,
    "hatch.linewidth": 0.6, "hatch.color": INK, "legend.frameon": False, "axes.facecolor": "none",
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True,
    "svg.fonttype": "none", "svg.hashsalt": "npusim", "text.parse_math": False, "axes.formatter.use_mathtext": False,
}  # fmt: skip
CAPTION_WIDTH = 130
# Beyond this many times the baseline, bars have a logarithmic axis.
WIDE = 30
# More runs than this have a row each, for weight gradients and the whole step only.
CROWDED = 6
Panels = Mapping[str, Mapping[str, Mapping[str, float]]]
ENERGY_UNITS = ((1e12, "J"), (1e9, "mJ"), (1e6, "uJ"), (1e3, "nJ"), (1.0, "pJ"))
CYCLE_UNITS = ((1e9, "billion cycles"), (1e6, "million cycles"), (1e3, "thousand cycles"), (1.0, "cycles"))


def drawn(draw: Callable[..., Figure], value: object) -> Figure:
    """A figure that is laid out once and for all: drawing again would move things by fractions of a point."""
    import matplotlib

    with matplotlib.rc_context(STYLE), _any_script():
        figure = draw(value)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    # A notebook shows it without pyplot.
    figure._repr_png_ = partial(_saved, figure, "png", {"Software": None})  # type: ignore[attr-defined]
    return figure


def figures(comparison: Comparison) -> dict[str, Figure]:
    """Every figure of a comparison by file name without suffix; of one result alone, its possible speedup."""
    from npusim import memory_plot, roofline

    return {
        "speedup": drawn(speedup if len(comparison.runs) > 1 else headroom, comparison),
        "energy": drawn(energy, comparison),
        "cycles": drawn(cycles, comparison),
        "roofline": drawn(roofline.figure, comparison.runs),
        "memory": drawn(memory_plot.of_result, comparison.baseline),
    }


def pngs(figures: Mapping[str, Figure]) -> dict[str, bytes]:
    """Each figure at 160 dots per inch; the same bytes for the same figure."""
    return {name: _saved(figure, "png", {"Software": None}) for name, figure in figures.items()}


def svgs(figures: Mapping[str, Figure]) -> dict[str, str]:
    """Each figure with its text as text; the same characters for the same figure."""
    return {name: _saved(figure, "svg", {"Date": None}).decode() for name, figure in figures.items()}


def speedup(comparison: Comparison) -> Figure:
    """Grouped bars: speedup and energy gain per phase and for the step, against the first dataflow (line at 1x)."""
    if len(comparison.runs) > CROWDED:
        return _speedup_of_many(comparison)
    cells = breakdown.comparison_cells(comparison)
    runs = comparison.runs[1:] or comparison.runs
    # A phase that one of two steps lacks has no bar, one that no other run has no place.
    phases = [
        phase for phase in breakdown.phases_of(comparison)
        if any(isfinite(cells.get((run.label, phase), {}).get("speedup", nan)) for run in runs)
    ]  # fmt: skip
    # Inches: a bar as wide as its number.
    figure = _figure(comparison, width=max(9, 1 + 0.18 * len(runs) * len(phases)), height=6.4)
    top, bottom = figure.subplots(2, 1, sharex=True)
    width = 0.8 / len(runs)
    for axes, column, label in ((top, "speedup", "speedup (x)"), (bottom, "energy_gain", "energy gain (x)")):
        bars: list[tuple[float, float]] = []
        for i, run in enumerate(runs):
            values = [cells.get((run.label, phase), {}).get(column, nan) for phase in phases]
            at = [x + (i + 0.5) * width - 0.4 for x in range(len(phases))]
            axes.bar(at, values, 0.92 * width, label=text.clean(run.label), **_look(i + 1))
            bars += zip(at, values, strict=True)
        shown = [(x, value) for x, value in bars if isfinite(value)]
        highest = max(1.0, *(value for _, value in shown))
        for x, value in shown:
            # The number of a bar that ends just below the dashed line stands above that line.
            height = 1.0 if 0 < 1 - value < 0.09 * highest and highest <= WIDE else value
            _number(axes, x, height, _ratio(value))
        axes.axhline(1, color=INK, linewidth=1, linestyle="--")
        if highest > WIDE:
            lowest = min(1.0, *(value for _, value in shown if value > 0))
            axes.set(yscale="log", ylim=(lowest / 2, highest * (highest / lowest) ** 0.1))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        else:
            axes.set(ylim=(0, 1.15 * highest))
        axes.set_ylabel(f"{label}, logarithmic" if highest > WIDE else label)
        axes.grid(axis="y")
    base = text.clean(comparison.baseline.label)
    top.set_title(f"Speedup and energy gain against {base} (dashed line, 1x); higher is better", loc="left")
    bottom.set_xticks(range(len(phases)), [breakdown.PHASE_NAMES.get(name, name) for name in phases])
    bottom.tick_params(axis="x", length=0)
    handles, labels = top.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(4, len(labels)))
    return figure


def _speedup_of_many(comparison: Comparison) -> Figure:
    """A row per run: bars of speedup and energy gain, for WGC alone and for the whole step."""
    cells = breakdown.comparison_cells(comparison)
    runs, phases = comparison.runs[1:], breakdown.wgc_and_step(comparison)
    figure = _figure(comparison, width=9, height=1.9 + 0.34 * len(runs))
    height = 0.8 / len(phases)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, column, label in zip(panels, ("speedup", "energy_gain"), ("speedup (x)", "energy gain (x)"), strict=True):
        found = {
            (i, phase): value for i, run in enumerate(runs) for phase in phases
            if isfinite(value := cells.get((run.label, phase), {}).get(column, nan)) and value > 0
        }  # fmt: skip
        highest, lowest = max([1.0, *found.values()]), min([1.0, *found.values()])
        wide = highest / lowest > WIDE
        # The number of a bar that ends just left of the dashed line stands right of that line.
        close = (highest / lowest) ** -0.12 if wide else 1 - 0.12 * highest
        for k, phase in enumerate(phases):
            rows = [i for i in range(len(runs)) if (i, phase) in found]
            at = [i + (k + 0.5) * height - 0.4 for i in rows]
            values = [found[i, phase] for i in rows]
            axes.barh(at, values, 0.92 * height, label=breakdown.PHASE_NAMES[phase], **_look(k))
            for y, value in zip(at, values, strict=True):
                beside = {"textcoords": "offset points", "va": "center", "fontsize": 7.5}
                axes.annotate(_ratio(value), (1 if close < value < 1 else value, y), (3, 0), **beside)
        axes.axvline(1, color=INK, linewidth=1, linestyle="--")
        if wide:
            axes.set(xscale="log", xlim=(lowest / 2, highest * (highest / lowest) ** 0.25))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter("")
        else:
            axes.set_xlim(0, 1.2 * highest)
        axes.set_xlabel(f"{label}, logarithmic" if wide else label)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
    panels[0].set_yticks(range(len(runs)), [broken(run.label) for run in runs])
    panels[0].set_ylim(len(runs) - 0.4, -0.6)
    base = text.clean(comparison.baseline.label)
    figure.suptitle(f"Speedup and energy gain against {base} (dashed line, 1x); higher is better", x=0.01, ha="left",
                    fontsize=11)  # fmt: skip
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper right", ncols=len(phases))
    return figure


def _ratio(value: float) -> str:
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def headroom(comparison: Comparison) -> Figure:
    """Bars: cycles of one result over the lower bounds of its operations, per phase and for the step."""
    run = comparison.baseline
    sums = breakdown.phase_sums(run)
    figure = _figure(comparison, width=9, height=3.9)
    axes = figure.subplots()
    values = [row["cycles"] / max(1, row["bound_cycles"]) for row in sums.values()]
    axes.bar(range(len(values)), values, 0.5, color=PALETTE[0])
    for x, value in enumerate(values):
        _number(axes, x, value, f"{value:.2f}")
    axes.axhline(1, color=INK, linewidth=1, linestyle="--")
    axes.set(ylim=(0, 1.15 * max(values)), ylabel="cycles / lower bound (x)")
    axes.set_xticks(range(len(values)), [breakdown.PHASE_NAMES.get(name, name) for name in sums])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    axes.set_title("Possible speedup: cycles over the lower bound of every operation (dashed line, 1x)", loc="left")
    return figure


def energy(comparison: Comparison) -> Figure:
    """Stacked bars: energy by component, for WGC alone and for the whole step; of one result, for every phase."""
    panels = _panels(comparison, breakdown.energy_groups)
    return _stacks(comparison, panels, "Energy by component; lower is better", "energy", ENERGY_UNITS)


def cycles(comparison: Comparison) -> Figure:
    """Stacked bars: where the cycles go, for WGC alone and for the whole step; of one result, for every phase."""
    panels = _panels(comparison, breakdown.cycle_parts)
    return _stacks(comparison, panels, "Where the cycles go; lower is better", "time", CYCLE_UNITS)


def _panels(comparison: Comparison, parts: Callable[..., Mapping[str, float]]) -> Panels:
    """Title of a panel -> name of a bar -> its parts; parts that are zero in every bar are left out."""
    runs, names = comparison.runs, breakdown.PHASE_NAMES
    if len(runs) == 1:
        found = {"": {names.get(phase, phase): parts(row) for phase, row in breakdown.phase_sums(runs[0]).items()}}
    else:
        found = {
            names[phase]: {run.label: parts(breakdown.phase_row(run, phase)) for run in runs}
            for phase in breakdown.wgc_and_step(comparison)
        }
    used = breakdown.shown_groups(bar for panel in found.values() for bar in panel.values())
    return {
        title: {name: {part: bar.get(part, 0.0) for part in used} for name, bar in panel.items()}
        for title, panel in found.items()
    }


def _stacks(comparison: Comparison, panels: Panels, title: str, label: str, units) -> Figure:
    # Inches: numbers over the bars of both panels must not touch; 2.4 for axis and legend.
    figure = _figure(comparison, width=max(9, 2.4 + 0.42 * sum(map(len, panels.values()))), height=4.6)
    axes_of = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (heading, bars) in zip(axes_of, panels.items(), strict=True):
        totals = [sum(parts.values()) for parts in bars.values()]
        factor, unit = next(((f, u) for f, u in units if max(totals) >= f), units[-1])
        bottom = [0.0] * len(bars)
        for i, part in enumerate(next(iter(bars.values()))):
            values = [parts[part] / factor for parts in bars.values()]
            axes.bar(range(len(bars)), values, 0.7, bottom, label=part, **_look(i))
            bottom = [low + value for low, value in zip(bottom, values, strict=True)]
        for x, total in enumerate(bottom):
            _number(axes, x, total, text.three_digits(total))
        axes.set(ylim=(0, 1.12 * max(*bottom, 1e-12)), ylabel=f"{label} ({unit})", title=heading)
        axes.set_xlim(-0.6, len(bars) - 0.4)
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if heading else {}
        axes.set_xticks(range(len(bars)), [broken(name) for name in bars], **turned)
        axes.tick_params(axis="x", length=0)
        axes.grid(axis="y")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    # Read from top to bottom, as the bars are stacked.
    handles, labels = axes_of[0].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right upper")
    return figure


def _number(axes: Axes, x: float, y: float, shown: str) -> None:
    """A number just above (x, y)."""
    axes.annotate(shown, (x, y), (0, 2), textcoords="offset points", ha="center", fontsize=8)


def _figure(comparison: Comparison, width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.supxlabel(caption(comparison), fontsize=8, color=INK, x=0.01, ha="left")
    return figure


def caption(comparison: Comparison) -> str:
    """Workload, machine, and energy table with its doubts, in short lines."""
    facts = comparison.baseline.facts
    masks = facts.masked
    updated = f"{text.percent(masks.selected / max(1, masks.size))} of masked" if masks.parameters else "all"
    lines = (
        f"Workload {text.clean(facts.workload)}, one training step, {updated} weights updated.",
        f"Machine {text.clean(facts.hardware)}{_others(comparison)}.",
        f"Energy: {breakdown.energy_basis(comparison.baseline)}.",
    )
    return "\n".join(part for line in lines for part in textwrap.wrap(line, CAPTION_WIDTH))


def _others(comparison: Comparison) -> str:
    """What the caption leaves out of the other runs."""
    base = comparison.baseline.facts
    others = [run.facts for run in comparison.runs[1:]]
    differ = [
        name
        for name, key in (("workload", lambda f: f.digest), ("machine", lambda f: f.hardware.digest()))
        if any(key(facts) != key(base) for facts in others)
    ]
    return f"; other runs have another {' and '.join(differ)}" if differ else ""


def _look(index: int) -> dict[str, object]:
    """Colour of a series; hatched once the palette is used up."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "hatch": HATCHES[index // len(PALETTE) % len(HATCHES)],
        "linewidth": 0,
    }


def broken(name: str, most: int = 24) -> str:
    """A cleaned name of at most `most` characters."""
    shown = text.clean(name)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


@contextmanager
def _any_script() -> Iterator[None]:
    """A name in a script that the font lacks shows as boxes; that is no reason to fail."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def _saved(figure: Figure, kind: str, metadata: dict[str, None]) -> bytes:
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), _any_script():
        figure.savefig(buffer, format=kind, metadata=metadata, facecolor=PAPER, dpi=160)
    return buffer.getvalue()
