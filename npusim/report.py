"""Tables, CSV, JSON and sentences about results and comparisons; nothing here draws or writes files."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from npusim import text
from npusim.breakdown import (
    CYCLE_PARTS,
    PHASE_NAMES,
    STEP,
    WGC,
    comparison_cells,
    cycle_parts,
    energy_basis,
    energy_groups,
    phase_row,
    phase_sums,
    phases_of,
    rows_of,
    shown_groups,
    wgc_and_step,
)
from npusim.memory import GROUPS

if TYPE_CHECKING:
    import pandas as pd

    from npusim.comparison import Comparison
    from npusim.results import Result

MEMORY_NOT_MODELLED = {
    "ideal": "DRAM banks, rows, refresh and read-write turnaround: DRAM is a bandwidth and a latency",
    "commands": "DRAM commands while tilings are chosen (that is done on bandwidth and latency), and DRAM power-down",
}
NOT_MODELLED = (
    "data kept on chip from one operation to the next: each reads its operands from DRAM and writes its results there",
    "overlap of one operation with the next: the next one starts when all tasks of the one before have ended",
    "conflicts between banks of an on-chip buffer",
    "instruction fetch, host and driver; of the core's control only the address counters of the buffers",
    "zeros in activations or gradients: only declared update masks skip work, task masks do not",
    "more than one core",
    "how energy varies with data, temperature and voltage, and power-down of idle units",
    "effects of the machine's number formats on accuracy",
)


def not_modelled(comparison: Comparison) -> tuple[str, ...]:
    """What the results leave out, the memory models of their machines first."""
    models = dict.fromkeys(run.hardware.dram.model for run in comparison.runs)
    return (*(MEMORY_NOT_MODELLED[model] for model in models), *NOT_MODELLED)


# What a lower bound of `npusim.bounds` says in words.
LIMITS = {
    "compute": "is the time of the MACs on the array",
    "vector": "is the time of the vector unit",
    "dram": "is the time of the data on the DRAM bus",
    "a_port": "is the port of buffer a",
    "b_port": "is the port of buffer b",
    "mask_port": "is the port of the mask buffer",
    "critical_path": "is the longest chain of loads, tiles and stores",
}


@dataclass(frozen=True)
class Table:
    """Formatted cells, ready to print.

    `words`: how many leading columns hold text (the rest are numbers). `spare`: names of columns that a narrow
    terminal can do without, the least important first.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1
    spare: tuple[str, ...] = ()


def layer_table(run: Result) -> Table:
    """One row per operation, the columns that matter most."""
    header = ("operation", "phase", "kind", "shape", "dataflow", "density", "cycles", "utilisation", "waiting", "DRAM",
              "energy")  # fmt: skip
    rows = (
        (
            *(text.clean(row[key]) for key in ("name", "phase", "kind", "shape", "dataflow")),
            text.percent(row["density"]),
            f"{round(row['cycles']):,}",
            text.percent(row["utilisation"]),
            text.percent(sum(list(cycle_parts(row).values())[1:]) / max(1, row["cycles"])),
            text.size(row["dram_read_bytes"] + row["dram_write_bytes"]),
            text.joules(row["energy_pj"]),
        )
        for row in rows_of(run.layers)
    )
    title = f"{text.clean(run.facts.workload)} on {text.clean(run.hardware.name)}, {text.clean(_flow(run))}"
    return Table(title, header, tuple(rows), 5, ("shape", "kind", "utilisation", "density", "DRAM", "dataflow"))


def _flow(run: Result) -> str:
    return f"{run.facts.dataflow}, {run.facts.method}" if run.facts.method else run.facts.dataflow


def phase_table(run: Result) -> Table:
    """Sums per phase and for the whole step."""
    sums = phase_sums(run)
    header = ("phase", "cycles", "share", "utilisation", *CYCLE_PARTS, "DRAM", "energy")
    total = max(1, sums[STEP]["cycles"])
    rows = (
        (
            PHASE_NAMES.get(phase, phase),
            f"{round(row['cycles']):,}",
            text.percent(row["cycles"] / total),
            text.percent(row["utilisation"]),
            *(text.percent(part / max(1, row["cycles"])) for part in cycle_parts(row).values()),
            text.size(row["dram_read_bytes"] + row["dram_write_bytes"]),
            text.joules(row["energy_pj"]),
        )
        for phase, row in sums.items()
    )
    return Table("Phases", header, tuple(rows), 1, ("drain", "store stall", "port stall", "load stall", "busy"))


def comparison_table(comparison: Comparison) -> Table:
    """One row per phase and run; speedup and energy gain are against the first run."""
    cells = comparison_cells(comparison)
    if len(comparison.runs) == 1:
        return phase_table(comparison.baseline)
    header = ("phase", "run", "cycles", "utilisation", "stalled", "DRAM", "energy", "speedup", "energy gain")
    rows = []
    for phase in phases_of(comparison):
        for run in comparison.runs:
            row = cells.get((run.label, phase))
            if row is None:
                continue
            rows.append((
                PHASE_NAMES.get(phase, phase),
                text.clean(run.label),
                f"{round(row['cycles']):,}",
                text.percent(row["utilisation"]),
                text.percent(row["stall_share"]),
                text.size(row["dram_bytes"]),
                text.joules(row["energy_pj"]),
                *(text.times(row[key]) if isfinite(row[key]) else "-" for key in ("speedup", "energy_gain")),
            ))  # fmt: skip
    title = f"Speedup and energy gain against {text.clean(comparison.baseline.label)}"
    return Table(title, header, tuple(rows), 2, ("stalled", "DRAM", "utilisation"))


def energy_table(comparison: Comparison) -> Table:
    """Energy by component for WGC alone and for the whole step, of one run for every phase; without empty columns."""
    runs = comparison.runs
    phases = wgc_and_step(comparison) if len(runs) > 1 else phases_of(comparison)
    cells = [(phase, run, energy_groups(phase_row(run, phase))) for phase in phases for run in runs]
    used = shown_groups(groups for _, _, groups in cells)
    rows = [
        (
            PHASE_NAMES.get(phase, phase),
            text.clean(run.label),
            *(text.joules(groups.get(name, 0)) for name in used),
            text.joules(sum(groups.values())),
        )
        for phase, run, groups in cells
    ]
    spare = ("DRAM activates, background", "adder tree, index", "vector unit", "clock, control", "PE registers",
             "leakage")  # fmt: skip
    title = f"Energy by component ({energy_basis(comparison.baseline)})"
    header = ("phase", "run", *used, "total")
    return _alone(Table(title, header, tuple(rows), 2, tuple(s for s in spare if s in header)), comparison)


def _alone(table: Table, comparison: Comparison) -> Table:
    """The table without its column 'run' when there is only one."""
    if len(comparison.runs) > 1:
        return table
    at = table.header.index("run")
    rows = tuple((*row[:at], *row[at + 1 :]) for row in (table.header, *table.rows))
    return replace(table, header=rows[0], rows=rows[1:], words=table.words - 1)


def energy_lines(run: Result) -> list[str]:
    """What was extrapolated or is in doubt, and where sources are printed."""
    prices = run.facts.prices
    notes = [f"note: {text.clean(note)}" for note in prices.notes]
    return [*notes, f"Sources of every price: npusim show energy {text.clean(prices.table)}, or the report of --out."]


def stall_table(comparison: Comparison) -> Table:
    """Where the cycles go, for every phase and run."""
    rows = []
    for phase in phases_of(comparison):
        for run in comparison.runs:
            row = phase_row(run, phase)
            cycles = row["cycles"]
            parts = (f"{round(part):,} ({text.percent(part / max(1, cycles))})" for part in cycle_parts(row).values())
            rows.append((PHASE_NAMES.get(phase, phase), text.clean(run.label), f"{round(cycles):,}", *parts))
    table = Table("Where the cycles go", ("phase", "run", "cycles", *CYCLE_PARTS), tuple(rows), 2)
    return _alone(table, comparison)


def memory_table(run: Result) -> Table:
    """Bytes of every group of tensors: at the peak, and the most in each phase."""
    total = run.memory[list(GROUPS)].sum(axis=1)
    phases = list(dict.fromkeys(run.memory.phase))
    rows = [
        (
            group,
            text.size(int(run.memory.at[total.idxmax(), group])),
            *(text.size(int(run.memory.loc[run.memory.phase == phase, group].max())) for phase in phases),
        )
        for group in GROUPS
        if run.memory[group].any()
    ]
    most = [text.size(int(total[run.memory.phase == phase].max())) for phase in phases]
    rows.append(("all", text.size(run.peak_bytes), *most))
    return Table("Bytes alive: at the peak, and the most in each phase", ("group", "peak", *phases), tuple(rows))


def unit_table(comparison: Comparison) -> Table:
    """How every unit of the machine spent the step, in shares of its time."""
    rows = []
    for run in comparison.runs:
        for row in rows_of(run.units.reset_index()):
            unit, *parts = row.values()
            shares = (text.percent(part / max(1, sum(parts))) for part in parts)
            rows.append((text.clean(run.label), unit.replace("_", " "), *shares))
    header = ("run", "unit", *(name.replace("_", " ") for name in comparison.baseline.units.columns))
    return _alone(Table("How each unit spent the step", header, tuple(rows), 2), comparison)


def summary(comparison: Comparison) -> list[str]:
    """The comparison in a few sentences."""
    cells, base, phases = comparison_cells(comparison), comparison.baseline, phases_of(comparison)
    facts, step = base.facts, cells[base.label, STEP]
    by_method = f" and method {text.clean(facts.method)}" if facts.method else ""
    lines = [
        f"{text.clean(facts.workload)}: one training step of {facts.operations} operations, "
        f"{text.count(facts.macs)} multiply-accumulates before masks, on {text.clean(base.hardware)}.",
        masks_sentence(base),
        f"With {text.clean(facts.dataflow)}{by_method} the step takes {round(step['cycles']):,} cycles "
        f"({base.seconds * 1e3:.3g} ms) and {text.joules(step['energy_pj'])}.",
    ]
    if (base.label, WGC) in cells:
        wgc = cells[base.label, WGC]
        share = wgc["cycles"] / max(1, step["cycles"])
        limit = f"{1 / (1 - share):.2f}x" if share < 1 else "unboundedly"
        lines.append(
            f"Weight-gradient computation (WGC) is {text.percent(share)} of those cycles and "
            f"{text.percent(wgc['energy_pj'] / (step['energy_pj'] or 1))} of that energy; if WGC alone cost nothing, "
            f"the step would be {limit} faster."
        )
    if len(comparison.runs) == 1:
        return lines + run_sentences(base)
    return lines + [_verdict(cells, run.label, phases) for run in comparison.runs[1:]]


def run_sentences(run: Result) -> list[str]:
    """What one result is limited by, and what takes the most of it."""
    step, layers = phase_row(run, STEP), run.layers
    parts = cycle_parts(step)
    cycles = max(1, step["cycles"])
    cause, waited = max(list(parts.items())[1:], key=lambda item: item[1])
    lines = [
        f"The array or the vector unit works in {text.percent(parts['busy'] / cycles)} of the cycles; most of the "
        f"others are {cause} ({text.percent(waited / cycles)}). {text.percent(step['utilisation'])} of all slots for "
        f"MACs did wanted work.",
        f"The lower bounds of all operations sum to {round(step['bound_cycles']):,} cycles: no schedule of these tiles "
        f"can be more than {text.times(cycles / max(1, step['bound_cycles']))} as fast.",
    ]
    limits = layers.groupby("bound").bound_cycles.sum().sort_values(ascending=False)
    limits = limits[limits > 0] / max(1, limits.sum())
    shown = ", ".join(f"{text.percent(share)} {LIMITS.get(str(name), name)}" for name, share in limits.items())
    longest = layers.nlargest(3, "cycles")
    names = ", ".join(
        f"{text.clean(name)} {phase} ({text.percent(part / max(1, layers.cycles.sum()))})"
        for name, phase, part in longest[["name", "phase", "cycles"]].itertuples(index=False)
    )
    at = run.memory[list(GROUPS)].sum(axis=1)
    held = run.memory.loc[at.idxmax(), list(GROUPS)].sort_values(ascending=False)
    most = ", ".join(f"{text.size(size)} {group}" for group, size in held[held > 0].items())
    return [
        *lines,
        f"Of these bounds, {shown}.",
        f"The operations that take longest: {names}.",
        f"The tensors of the step take {text.size(run.peak_bytes)} at most: {most or 'none'}.",
    ]


def masks_sentence(run: Result) -> str:
    """How much of the weights gets a gradient."""
    masks = run.facts.masked
    if not masks.parameters:
        return "The step declares no update masks: every weight gets a gradient."
    share = masks.selected / masks.size if masks.size else 0
    return (
        f"Update masks select {text.percent(share)} of the weights of "
        f"{masks.parameters} masked parameters ({masks.selected:,} of {masks.size:,})."
    )


def _verdict(cells: Mapping[tuple[str, str], Mapping[str, Any]], name: str, phases: Sequence[str]) -> str:
    parts = []
    for phase, words in ((WGC, "WGC"), (STEP, "the whole step")):
        row = cells.get((name, phase), {})
        if row.get("speedup", 0) > 0:
            speed, saved = _against(row["speedup"], "faster", "slower"), _against(row["energy_gain"], "less", "more")
            parts.append(f"{words} {speed}, {saved} energy")
    return f"{text.clean(name)}: " + "; ".join(parts) + "."


def _against(ratio: float, better: str, worse: str) -> str:
    """'1.52x faster', '1.10x slower', 'as fast': a ratio to the baseline in words."""
    if text.times(ratio) == text.times(1):
        return {"faster": "as fast", "less": "the same"}[better]
    return f"{text.times(ratio)} {better}" if ratio > 1 else f"{text.times(1 / ratio)} {worse}"


def csv_text(frame: pd.DataFrame) -> str:
    """`frame` without its index as CSV; text cells are cleaned and can be no formula of a spreadsheet."""
    safe = frame.copy()
    for column in safe.columns:
        if not _numeric(safe[column]):
            safe[column] = safe[column].map(text.csv_cell)
    buffer = io.StringIO()
    safe.to_csv(buffer, index=False, lineterminator="\n")
    return buffer.getvalue()


def run_json(run: Result, manifest: Mapping[str, Any]) -> str:
    """One run for machines: provenance, phases and layers."""
    phases = run.phases.reset_index(names="phase")
    return json_text({"manifest": manifest, "phases": records(phases), "layers": records(run.layers)})


def comparison_json(comparison: Comparison) -> str:
    """A comparison for machines: provenance and one record per run and phase."""
    return json_text({"manifest": comparison.manifest, "comparison": records(comparison.table.reset_index())})


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True, default=str) + "\n"


def _numeric(column: pd.Series) -> bool:
    from pandas.api.types import is_numeric_dtype

    return is_numeric_dtype(column)
