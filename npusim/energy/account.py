"""Work times prices: picojoules per operation, action and component.

An action is one price of one kind of work. Kinds of work are the counters of `npusim.counters`, `cycles`, and, where
the DRAM is modelled command by command, its commands (`npusim.energy.dram.WORK`).

| action                        | work                     | component        | price                                  |
|-------------------------------|--------------------------|------------------|----------------------------------------|
| mac.done                      | macs_done                | mac              | the MAC of the machine's precision     |
| mac.gated                     | macs_gated               | mac              | gating fraction of it, or all of it    |
| mac.skipped                   | macs_skipped             | mac              | 0: they never occupied the array       |
| mac.pass                      | mac_passes               | mac              | as mac.done                            |
| register.write                | register_bytes           | register         | one byte written into a register       |
| adder_tree.add                | adder_tree_adds          | adder_tree       | one addition, accumulator precision    |
| vector.op                     | vector_lane_ops          | vector           | one operation, accumulator precision   |
| index.decode                  | index_decodes            | index            | one mask position found                |
| gather.mux                    | mux_words                | gather           | one operand word through one 2:1 stage |
| clock.tree                    | cycles                   | clock            | clock tree down to the clock gates     |
| clock.control                 | cycles                   | clock            | address counters of the buffers        |
| sram_<b>.read, .write         | <b>_read/write_bytes     | sram_<b>         | access of one bank word over its bytes |
| sram_wires.<b>_read, _write   | <b>_read/write_bytes     | sram_wires       | wires that join the banks              |
| dram_access.read, .write      | bytes; or bursts         | dram_access      | flat pJ/bit; or core + I/O of a burst  |
| dram_activate.activate        | activates                | dram_activate    | an activate and its precharge          |
| dram_background.refresh, ...  | refreshes, standby time  | dram_background  | refresh and standby currents           |
| crossbar.<what>               | cell_reads, dac_drives,  | crossbar         | one each; 0 without crossbars          |
|                               | adc_samples, shift_adds  |                  |                                        |
| crossbar.mac                  | macs_crossbar            | crossbar         | 0: what they cost is counted above     |
| cell_write.program            | cell_writes              | cell_write       | all pulses of programming one cell     |
| leakage.sram, leakage.logic   | cycles                   | leakage          | mW x ns = pJ                           |

A buffer of B bytes and W bytes per cycle in n banks is n macros of B/n bytes with words of W/n bytes: a byte costs the
access energy of such a macro over W/n. A narrower access than a word is priced by its bytes, which flatters it.
With the `ideal` DRAM, activates, refresh and standby are inside the flat pJ/bit: those two components are 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from npusim.counters import COUNTERS
from npusim.energy import area, dram, sram
from npusim.energy.table import ORDER, Action, EnergyTable
from npusim.errors import ConfigError
from npusim.npu import Hardware

if TYPE_CHECKING:
    import numpy as np

COMPONENTS = (
    "mac", "register", "adder_tree", "vector", "index", "gather", "clock",
    "sram_a", "sram_b", "sram_accumulator", "sram_mask", "sram_wires",
    "dram_access", "dram_activate", "dram_background", "leakage", "crossbar", "cell_write",
)  # fmt: skip
CYCLES = "cycles"
NO_CROSSBAR = "the machine has no crossbars"
CROSSBAR = {
    "macs_crossbar": ("crossbar", "mac"),
    "cell_reads": ("crossbar", "cell_read"),
    "dac_drives": ("crossbar", "dac"),
    "adc_samples": ("crossbar", "adc"),
    "shift_adds": ("crossbar", "shift_add"),
    "cell_writes": ("cell_write", "program"),
}
WITHIN_FLAT = "none of its own: within the flat pJ/bit of dram_access"


@dataclass(frozen=True, slots=True)
class Price:
    """`pj` for one unit of `work`, booked to `component`."""

    component: str
    name: str
    work: str
    pj: float

    def __str__(self) -> str:
        return f"{self.component}.{self.name}"


@dataclass(frozen=True, slots=True)
class Prices:
    """All prices of one machine, and per component source and confidence. `dram`: prices of DRAM commands, if modelled.

    `leakage_mw`: leakage of all buffers and all logic.
    """

    actions: tuple[Price, ...]
    leakage_mw: float
    node_nm: int
    table: str
    sources: dict[str, str]
    confidence: dict[str, str]
    notes: tuple[str, ...]
    dram: dram.CommandPrices | None = None

    def doubtful(self) -> tuple[str, ...]:
        """Components of low confidence that cost anything, in order."""
        priced = {action.component for action in self.actions if action.pj}
        return tuple(name for name in COMPONENTS if self.confidence[name] == "low" and name in priced)


@dataclass(frozen=True, slots=True, eq=False)
class Energy:
    """float64 pJ `[ops, COMPONENTS]`, and what it rests on: int64 amounts `[ops, prices.actions]` and prices."""

    pj: np.ndarray
    amounts: np.ndarray
    prices: Prices
    components: tuple[str, ...] = COMPONENTS

    @property
    def by_action(self) -> np.ndarray:
        """float64 pJ `[ops, prices.actions]`."""
        return self.amounts * [action.pj for action in self.prices.actions]

    @property
    def total_pj(self) -> float:
        return float(self.pj.sum())

    def provenance(self) -> list[str]:
        """Lines for a report: table and node, then one per component with source and confidence, then notes."""
        p = self.prices
        lines = [f"energy table {p.table}, {p.node_nm} nm"]
        lines += [f"{name}: {p.sources[name]} ({p.confidence[name]} confidence)" for name in self.components]
        return [*lines, *(f"note: {note}" for note in p.notes)]


def account(
    counts: np.ndarray, cycles_per_op: np.ndarray, hardware: Hardware, table: EnergyTable,
    figures: sram.SramTable | None = None, use: dram.Use | None = None,
) -> Energy:  # fmt: skip
    """Energy of `counts` (int64 [ops, COUNTERS]) over `cycles_per_op` (int64 [ops]).

    Time is booked by `cycles_per_op`, which should add up to the run's cycles. `figures` spares reading the SRAM
    table again. `use`: what the DRAM did, command by command; without it DRAM bytes have a flat price.
    """
    return apply(counts, cycles_per_op, prices(hardware, table, figures, use.prices if use else None), use)


def apply(counts: np.ndarray, cycles_per_op: np.ndarray, priced: Prices, use: dram.Use | None = None) -> Energy:
    """As `account`, with prices at hand."""
    import numpy as np

    counts, cycles = np.asarray(counts), np.asarray(cycles_per_op)
    if counts.shape != (len(cycles), len(COUNTERS)):
        raise ValueError(f"counts have shape {counts.shape}, not {(len(cycles), len(COUNTERS))}")
    if (priced.dram is None) != (use is None):
        raise ValueError("prices of DRAM commands go with counts of them, and a flat price with none")
    work: dict[str, np.ndarray] = {name: counts[:, i] for i, name in enumerate(COUNTERS)}
    work[CYCLES] = cycles
    if use is not None:
        if use.work.shape != (len(cycles), len(dram.WORK)):
            raise ValueError(f"DRAM work has shape {use.work.shape}, not {(len(cycles), len(dram.WORK))}")
        work |= {name: use.work[:, i] for i, name in enumerate(dram.WORK)}
    amounts = np.column_stack([work[action.work] for action in priced.actions])
    pj = np.zeros((len(cycles), len(COMPONENTS)))
    for column, action in enumerate(priced.actions):
        pj[:, COMPONENTS.index(action.component)] += amounts[:, column] * action.pj
    return Energy(pj, amounts, priced)


def prices(
    hardware: Hardware, table: EnergyTable, figures: sram.SramTable | None = None,
    commands: dram.CommandPrices | None = None,
) -> Prices:  # fmt: skip
    """The price of every action on a machine; ConfigError when table and machine do not fit together."""
    if table.node_nm != hardware.energy.node_nm:
        raise ConfigError(
            f"energy table {table.name!r} has node_nm = {table.node_nm}, but hardware {hardware.name!r} has "
            f"energy.node_nm = {hardware.energy.node_nm}; they must agree: change "
            "energy.node_nm or choose another table"
        )
    found = _logic(hardware, table)
    memories = area.memories(hardware, table, figures)
    found += _buffers(memories)
    found += _dram(hardware, table, commands)
    found += _crossbars(hardware, table)
    sources, trust = _provenance(hardware, table, memories, commands)
    ns = 1e9 / hardware.clock_hz
    sram_mw = sum(memory.leakage_mw for memory in memories.values())
    logic_mw = sum(area.logic_um2(hardware, table).values()) / 1e6 * table.logic.leakage_mw_per_mm2
    found.append(Price("leakage", "sram", CYCLES, sram_mw * ns))
    found.append(Price("leakage", "logic", CYCLES, logic_mw * ns))
    notes = [f"buffer {name}: {note}" for name, m in memories.items() for note in m.notes]
    notes += commands.notes if commands else ()
    notes += [table.scaled] if table.scaled else []
    leakage = sram_mw + logic_mw
    return Prices(tuple(found), leakage, table.node_nm, table.name, sources, trust, tuple(notes), commands)


def _logic(hardware: Hardware, table: EnergyTable) -> list[Price]:
    formats, array = hardware.precision, hardware.array
    mac = table.row("mac", formats.mac_format).pj
    return [
        Price("mac", "done", "macs_done", mac),
        Price("mac", "gated", "macs_gated", mac * (table.gating.fraction if array.gating else 1.0)),
        Price("mac", "skipped", "macs_skipped", 0.0),
        Price("mac", "pass", "mac_passes", mac),
        Price("register", "write", "register_bytes", table.register_byte.pj),
        Price("adder_tree", "add", "adder_tree_adds", table.row("adder", formats.accumulator_format).pj),
        Price("vector", "op", "vector_lane_ops", table.row("vector", formats.accumulator_format).pj),
        Price("index", "decode", "index_decodes", table.index_decode.pj),
        Price("gather", "mux", "mux_words", table.mux_bit.pj * formats.operand_bits),
        Price("clock", "tree", CYCLES, table.clock.pj_per_register_bit * area.register_bits(hardware)),
        Price("clock", "control", CYCLES, table.control.address_counters * table.control.counter_pj),
    ]


def _buffers(memories: Mapping[str, area.Memory]) -> Iterable[Price]:
    for name, memory in memories.items():
        yield Price(f"sram_{name}", "read", f"{name}_read_bytes", memory.read_pj_per_byte)
        yield Price(f"sram_{name}", "write", f"{name}_write_bytes", memory.write_pj_per_byte)
        for direction in ("read", "write"):
            yield Price("sram_wires", f"{name}_{direction}", f"{name}_{direction}_bytes", memory.wire_pj_per_byte)


def _dram(hardware: Hardware, table: EnergyTable, commands: dram.CommandPrices | None) -> list[Price]:
    if commands is not None:
        return [Price(component, name, work, pj) for component, name, work, pj in commands.actions()]
    flat = 8 * table.flat_dram(hardware.dram.standard).pj_per_bit
    return [Price("dram_access", way, f"dram_{way}_bytes", flat) for way in ("read", "write")]


def _crossbar_rows(hardware: Hardware, table: EnergyTable) -> dict[str, tuple[str, str, Action | None]]:
    """Component, name and row of the table for every counter of crossbars; no rows on a machine without them."""
    crossbar = hardware.crossbar
    keys = {"cell_reads": "cell_read", "shift_adds": "shift_add", "cell_writes": "cell_write"}
    if crossbar is not None:
        keys |= {"dac_drives": f"dac{crossbar.dac_bits}", "adc_samples": f"adc{crossbar.adc_bits}"}
    found: dict[str, tuple[str, str, Action | None]] = {}
    for counter, (component, name) in CROSSBAR.items():
        row = table.row("crossbar", keys[counter]) if crossbar is not None and counter in keys else None
        found[counter] = (component, name, row)
    return found


def _crossbars(hardware: Hardware, table: EnergyTable) -> list[Price]:
    rows = _crossbar_rows(hardware, table)
    return [Price(component, name, work, row.pj if row else 0.0) for work, (component, name, row) in rows.items()]


def _provenance(
    hardware: Hardware, table: EnergyTable, memories: Mapping[str, area.Memory], commands: dram.CommandPrices | None
) -> tuple[dict[str, str], dict[str, str]]:
    """Source and confidence of every component."""
    formats = hardware.precision
    rows = {
        "mac": table.row("mac", formats.mac_format),
        "register": table.register_byte,
        "adder_tree": table.row("adder", formats.accumulator_format),
        "vector": table.row("vector", formats.accumulator_format),
        "index": table.index_decode,
        "gather": table.mux_bit,
    }
    sources = {name: row.source for name, row in rows.items()}
    trust = {name: row.confidence for name, row in rows.items()}
    sources["clock"] = f"tree: {table.clock.source}; control: {table.control.source}"
    trust["clock"] = _worst(table.clock.confidence, table.control.confidence)
    for name, memory in memories.items():
        sources[f"sram_{name}"], trust[f"sram_{name}"] = memory.source, memory.confidence
    wires = {memory.wire_source: memory.wire_confidence for memory in memories.values()}
    sources["sram_wires"], trust["sram_wires"] = "; ".join(wires), _worst(*wires.values())
    sources |= dict.fromkeys(("dram_access", "dram_activate", "dram_background"), WITHIN_FLAT)
    if commands is None:
        row = table.flat_dram(hardware.dram.standard)
        sources["dram_access"] = f"flat pJ/bit of {hardware.dram.standard}: {row.source}"
        doubt: str = row.confidence
    else:
        sources |= commands.sources
        doubt = commands.confidence
    trust |= dict.fromkeys(("dram_access", "dram_activate", "dram_background"), doubt)
    rows_of_crossbar = _crossbar_rows(hardware, table).values()
    for component in ("crossbar", "cell_write"):
        used = [row for where, _, row in rows_of_crossbar if row and where == component]
        sources[component] = "; ".join(row.source for row in used) or NO_CROSSBAR
        trust[component] = _worst("high", *(row.confidence for row in used))
    sources["leakage"] = f"SRAM: {memories['a'].source}; logic: {table.logic.source}"
    trust["leakage"] = _worst(table.logic.confidence, *(m.confidence for m in memories.values()))
    return sources, trust


def _worst(*levels: str) -> str:
    return max(levels, key=ORDER.index)
