"""Tables, CSV, JSON and sentences about runs and comparisons; nothing here draws or writes files."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from npusim import text

if TYPE_CHECKING:
    import pandas as pd

    from npusim.compare import Comparison
    from npusim.simulate import Run

WGC, STEP = "grad_weight", "step"
PHASE_NAMES = {WGC: "grad_weight (WGC)", STEP: "whole step"}
# Where the cycles of an operation go: they sum to its cycles.
CYCLE_PARTS = ("busy", "port stall", "load stall", "store stall", "drain")
# Components of the energy account, joined for reading: what is in no group stands for itself.
ENERGY_GROUPS = {
    "MAC": ("mac",),
    "PE registers": ("register",),
    "vector unit": ("vector",),
    "adder tree, index": ("adder_tree", "index"),
    "SRAM": ("sram_a", "sram_b", "sram_accumulator", "sram_mask"),
    "DRAM": ("dram",),
    "leakage": ("leakage",),
}
NOT_MODELLED = (
    "DRAM banks, rows, refresh and read-write turnaround: DRAM is a bandwidth and a latency",
    "data kept on chip from one operation to the next: each reads its operands from DRAM and writes its results there",
    "overlap of one operation with the next: the next one starts when all tasks of the one before have ended",
    "conflicts between banks of an on-chip buffer, and wires between banks",
    "instruction fetch, control of the core, host and driver",
    "zeros in activations or gradients: only declared update masks skip work, task masks do not",
    "more than one core",
    "how energy varies with data, temperature and voltage, clock distribution, and power-down of idle units",
    "effects of the machine's number formats on accuracy",
)


@dataclass(frozen=True)
class Table:
    """Formatted cells, ready to print; `words` is how many leading columns hold text (the rest are numbers)."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int = 1


def layer_table(run: Run) -> Table:
    """One row per operation, the columns that matter most."""
    frame = run.layers
    waiting = _waiting(frame)
    header = ("operation", "phase", "kind", "shape", "dataflow", "density", "cycles", "utilisation", "waiting", "DRAM",
              "energy")  # fmt: skip
    rows = (
        (
            *(text.clean(value) for value in (row.name_, row.phase, row.kind, row.shape, row.dataflow)),
            text.percent(row.density),
            f"{row.cycles:,}",
            text.percent(row.utilisation),
            text.percent(wait / max(1, row.cycles)),
            text.size(row.dram_read_bytes + row.dram_write_bytes),
            text.joules(row.energy_pj),
        )
        for row, wait in zip(frame.rename(columns={"name": "name_"}).itertuples(), waiting, strict=True)
    )
    title = f"{text.clean(run.graph.name)} on {text.clean(run.hardware.name)}, {text.clean(run.dataflow)}"
    return Table(title, header, tuple(rows), words=5)


def phase_table(run: Run) -> Table:
    """Sums per phase and for the whole step."""
    sums = run.phases()
    header = ("phase", "cycles", "share", "utilisation", *(f"{part}" for part in CYCLE_PARTS), "DRAM", "energy")
    parts = cycle_parts(sums)
    total = max(1, int(sums.cycles[STEP]))
    rows = []
    for phase in sums.index:
        cycles = int(sums.cycles[phase])
        rows.append((
            PHASE_NAMES.get(phase, phase),
            f"{cycles:,}",
            text.percent(cycles / total),
            text.percent(sums.utilisation[phase]),
            *(text.percent(parts[name][phase] / max(1, cycles)) for name in CYCLE_PARTS),
            text.size(sums.dram_read_bytes[phase] + sums.dram_write_bytes[phase]),
            text.joules(sums.energy_pj[phase]),
        ))  # fmt: skip
    return Table("Phases", header, tuple(rows))


def comparison_table(comparison: Comparison) -> Table:
    """One row per phase and dataflow; speedup and energy gain are against the first dataflow."""
    table = comparison.table()
    header = ("phase", "dataflow", "cycles", "utilisation", "stalled", "DRAM", "energy", "speedup", "energy gain")
    rows = []
    for phase in phases_of(comparison):
        for run in comparison.runs:
            row = table.loc[(run.dataflow, phase)]
            rows.append((
                PHASE_NAMES.get(phase, phase),
                text.clean(run.dataflow),
                f"{int(row.cycles):,}",
                text.percent(row.utilisation),
                text.percent(row.stall_share),
                text.size(row.dram_bytes),
                text.joules(row.energy_pj),
                text.times(row.speedup),
                text.times(row.energy_gain),
            ))  # fmt: skip
    base = text.clean(comparison.baseline.dataflow)
    return Table(f"Speedup and energy gain against {base}", header, tuple(rows), words=2)


def energy_table(comparison: Comparison) -> Table:
    """Energy by component for WGC alone and for the whole step."""
    rows = []
    for phase in wgc_and_step(comparison):
        for run in comparison.runs:
            groups = energy_groups(run.phases())
            rows.append((
                PHASE_NAMES[phase],
                text.clean(run.dataflow),
                *(text.joules(groups[name][phase]) for name in groups.columns),
                text.joules(groups.loc[phase].sum()),
            ))  # fmt: skip
    names = energy_groups(comparison.baseline.phases()).columns
    return Table("Energy by component", ("phase", "dataflow", *names, "total"), tuple(rows), words=2)


def stall_table(comparison: Comparison) -> Table:
    """Where the cycles go, for every phase and dataflow."""
    rows = []
    for phase in phases_of(comparison):
        for run in comparison.runs:
            sums = run.phases()
            parts, cycles = cycle_parts(sums).loc[phase], int(sums.cycles[phase])
            shares = (f"{int(parts[name]):,} ({text.percent(parts[name] / max(1, cycles))})" for name in CYCLE_PARTS)
            rows.append((PHASE_NAMES.get(phase, phase), text.clean(run.dataflow), f"{cycles:,}", *shares))
    return Table("Where the cycles go", ("phase", "dataflow", "cycles", *CYCLE_PARTS), tuple(rows), words=2)


def cycle_parts(sums: pd.DataFrame) -> pd.DataFrame:
    """Cycles of `Run.phases` or `Run.layers` divided into CYCLE_PARTS, which sum to them."""
    import pandas as pd

    busy = sums.array_cycles + sums.vector_cycles - sums.port_stall_cycles
    values = (busy, sums.port_stall_cycles, sums.load_stall_cycles, sums.store_stall_cycles, sums.drain_cycles)
    return pd.DataFrame(dict(zip(CYCLE_PARTS, values, strict=True)))


def energy_groups(sums: pd.DataFrame) -> pd.DataFrame:
    """Picojoules of `Run.phases` in ENERGY_GROUPS; a component that no group names has a column of its own."""
    import pandas as pd

    components = [name.removesuffix("_pj") for name in sums.columns if name.endswith("_pj") and name != "energy_pj"]
    grouped = {part for parts in ENERGY_GROUPS.values() for part in parts}
    groups = ENERGY_GROUPS | {name: (name,) for name in components if name not in grouped}
    return pd.DataFrame({
        group: sum(sums[f"{part}_pj"] for part in parts if part in components)
        for group, parts in groups.items() if any(part in components for part in parts)
    })  # fmt: skip


def phases_of(comparison: Comparison) -> list[str]:
    """Phases of the step in order, then 'step'."""
    return list(comparison.baseline.phases().index)


def wgc_and_step(comparison: Comparison) -> list[str]:
    """What a comparison is about: grad_weight (if the step has any) and the whole step."""
    return [phase for phase in (WGC, STEP) if phase in phases_of(comparison)]


def summary(comparison: Comparison) -> list[str]:
    """The comparison in a few sentences."""
    table, base, phases = comparison.table(), comparison.baseline, phases_of(comparison)
    graph, names = base.graph, [run.dataflow for run in comparison.runs]
    lines = [
        f"{text.clean(graph.name)}: one training step of {len(graph.ops)} operations, "
        f"{text.count(sum(op.macs for op in graph.ops))} multiply-accumulates before masks, "
        f"on {text.clean(base.hardware)}.",
        masks_sentence(base),
    ]
    step = table.loc[(base.dataflow, STEP)]
    lines.append(
        f"With {text.clean(base.dataflow)} the step takes {int(step.cycles):,} cycles "
        f"({step.cycles / base.hardware.clock_hz * 1e3:.3g} ms) and {text.joules(step.energy_pj)}."
    )
    if WGC in phases:
        wgc = table.loc[(base.dataflow, WGC)]
        share = wgc.cycles / max(1, step.cycles)
        limit = f"{1 / (1 - share):.2f}x" if share < 1 else "unboundedly"
        lines.append(
            f"Weight-gradient computation (WGC) is {text.percent(share)} of those cycles and "
            f"{text.percent(wgc.energy_pj / (step.energy_pj or 1))} of that energy; if WGC alone cost nothing, "
            f"the step would be {limit} faster."
        )
    lines += [_verdict(table, name, phases) for name in names[1:]]
    return lines


def masks_sentence(run: Run) -> str:
    """How much of the weights gets a gradient."""
    masks = run.graph.update_masks
    if not masks:
        return "The step declares no update masks: every weight gets a gradient."
    selected, size = sum(mask.count for mask in masks.values()), sum(mask.size for mask in masks.values())
    return (
        f"Update masks select {text.percent(selected / size if size else 0)} of the weights of "
        f"{len(masks)} masked parameters ({selected:,} of {size:,})."
    )


def _verdict(table: pd.DataFrame, name: str, phases: Sequence[str]) -> str:
    parts = []
    for phase, words in ((WGC, "WGC"), (STEP, "the whole step")):
        if phase in phases:
            row = table.loc[(name, phase)]
            speed, saved = _against(row.speedup, "faster", "slower"), _against(row.energy_gain, "less", "more")
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


def run_files(run: Run, manifest: dict[str, Any]) -> dict[str, str]:
    """Files of one run: name -> content."""
    return {
        "layers.csv": csv_text(run.layers),
        "phases.csv": csv_text(run.phases().reset_index(names="phase")),
        "manifest.json": json_text(manifest),
    }


def comparison_files(comparison: Comparison, manifest: dict[str, Any]) -> dict[str, str]:
    """CSV and JSON files of a comparison: name -> content."""
    return {
        "comparison.csv": csv_text(comparison.table().reset_index()),
        "phases.csv": csv_text(_joined(comparison, lambda run: run.phases().reset_index(names="phase"))),
        "layers.csv": csv_text(_joined(comparison, lambda run: run.layers)),
        "manifest.json": json_text(manifest),
    }


def run_json(run: Run, manifest: dict[str, Any]) -> str:
    """One run for machines: provenance, phases and layers."""
    phases = run.phases().reset_index(names="phase")
    return json_text({"manifest": manifest, "phases": records(phases), "layers": records(run.layers)})


def comparison_json(comparison: Comparison, manifest: dict[str, Any]) -> str:
    """A comparison for machines: provenance and one record per dataflow and phase."""
    return json_text({"manifest": manifest, "comparison": records(comparison.table().reset_index())})


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain Python values."""
    return json.loads(frame.to_json(orient="records", double_precision=15))


def json_text(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=True, default=str) + "\n"


def _joined(comparison: Comparison, frame_of) -> pd.DataFrame:
    import pandas as pd

    return pd.concat([frame_of(run).assign(run=run.dataflow).pipe(_first, "run") for run in comparison.runs])


def _first(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame[[column, *(name for name in frame.columns if name != column)]]


def _waiting(frame: pd.DataFrame) -> pd.Series:
    return frame.port_stall_cycles + frame.load_stall_cycles + frame.store_stall_cycles + frame.drain_cycles


def _numeric(column: pd.Series) -> bool:
    from pandas.api.types import is_numeric_dtype

    return is_numeric_dtype(column)
