"""Results and comparisons as plain values: sums per phase, where cycles go, energy by group of components."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from npusim import text
from npusim.graph import PHASES

if TYPE_CHECKING:
    import pandas as pd

    from npusim.comparison import Comparison
    from npusim.energy.account import Prices
    from npusim.npu import Hardware
    from npusim.results import Result

WGC, STEP = "grad_weight", "step"
PHASE_NAMES = {WGC: "grad_weight (WGC)", STEP: "whole step"}
# Where the cycles of an operation go: they sum to its cycles.
CYCLE_PARTS = ("busy", "port stall", "load stall", "store stall", "drain")
# Components of the energy account, joined for reading: what is in no group stands for itself.
ENERGY_GROUPS = {
    "MAC": ("mac",),
    "PE registers": ("register",),
    "vector unit": ("vector",),
    "adder tree, index": ("adder_tree", "index", "gather"),
    "clock, control": ("clock",),
    "SRAM": ("sram_a", "sram_b", "sram_accumulator", "sram_mask", "sram_wires"),
    "DRAM access": ("dram_access",),
    "DRAM activates, background": ("dram_activate", "dram_background"),
    "leakage": ("leakage",),
    "crossbars": ("crossbar", "cell_write"),
}


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of a table: column -> value."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def phase_sums(run: Result) -> dict[str, dict[str, Any]]:
    """`Result.phases` as plain values: phase -> column -> number."""
    frame = run.phases
    return dict(zip(map(str, frame.index), rows_of(frame), strict=True))


def phase_row(run: Result, phase: str) -> dict[str, Any]:
    """One row of `phase_sums`; zeros when the step has no such phase."""
    sums = phase_sums(run)
    return sums.get(phase) or dict.fromkeys(sums[STEP], 0)


def comparison_cells(comparison: Comparison) -> dict[tuple[str, str], dict[str, Any]]:
    """`Comparison.table` as plain values: (run, phase) -> column -> number; no key for a phase that a run lacks."""
    frame = comparison.table
    return {(str(key[0]), str(key[1])): row for key, row in zip(frame.index, rows_of(frame), strict=True)}


def cycle_parts(row: Mapping[str, Any]) -> dict[str, int]:
    """Cycles of a row of `Result.phases` or `Result.layers` divided into CYCLE_PARTS, which sum to them."""
    port, load, store, drain = (row[f"{name}_cycles"] for name in ("port_stall", "load_stall", "store_stall", "drain"))
    busy = row["array_cycles"] + row["vector_cycles"] - port
    return dict(zip(CYCLE_PARTS, (busy, port, load, store, drain), strict=True))


def energy_groups(row: Mapping[str, Any]) -> dict[str, float]:
    """Picojoules of a row of `Result.phases` in ENERGY_GROUPS; what no group names stands for itself."""
    components = [key.removesuffix("_pj") for key in row if key.endswith("_pj") and key != "energy_pj"]
    grouped = {part for parts in ENERGY_GROUPS.values() for part in parts}
    groups = ENERGY_GROUPS | {name: (name,) for name in components if name not in grouped}
    return {
        group: sum(row[f"{part}_pj"] for part in parts if part in components)
        for group, parts in groups.items()
        if any(part in components for part in parts)
    }


def energy_basis(run: Result) -> str:
    """Table, node, DRAM, what is priced with low confidence or by a scaling rule, in a few words."""
    prices = run.facts.prices
    return _basis(prices.table, prices.node_nm, run.hardware.dram.standard, prices.doubtful, prices.notes)


def prices_basis(prices: Prices, hardware: Hardware) -> str:
    """As `energy_basis`, of prices that were not stored."""
    return _basis(prices.table, prices.node_nm, hardware.dram.standard, prices.doubtful(), prices.notes)


def _basis(table: str, node_nm: int, dram: str, doubtful: Sequence[str], notes: Sequence[str]) -> str:
    low = f"; low confidence: {', '.join(name.replace('_', ' ') for name in doubtful)}" if doubtful else ""
    ruled = dict.fromkeys(note.partition(":")[0] for note in notes if note.startswith("buffer "))
    rule = f"; by a scaling rule: {', '.join(ruled)}" if ruled else ""
    return f"{text.clean(table)}, {node_nm} nm, {text.clean(dram)}{low}{rule}"


def shown_groups(stacks: Iterable[Mapping[str, float]]) -> list[str]:
    """Parts of several stacks (`energy_groups`, `cycle_parts`) that are not zero in all of them, in their order."""
    found = list(stacks)
    groups = dict.fromkeys(group for stack in found for group in stack)
    return [group for group in groups if any(stack.get(group) for stack in found)]


def phases_of(comparison: Comparison) -> list[str]:
    """Phases of any of the steps in order, then 'step'."""
    found = {str(phase) for run in comparison.runs for phase in run.phases.index}
    return [phase for phase in (*PHASES, STEP) if phase in found]


def wgc_and_step(comparison: Comparison) -> list[str]:
    """What a comparison is about: grad_weight (if any step has some) and the whole step."""
    return [phase for phase in (WGC, STEP) if phase in phases_of(comparison)]
