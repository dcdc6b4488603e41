"""Counters times prices: picojoules per operation and component.

| counters                    | component       | price                                                              |
|-----------------------------|-----------------|--------------------------------------------------------------------|
| macs_done                   | mac             | the MAC of the machine's precision                                 |
| macs_gated                  | mac             | the gating fraction of it; all of it when the array does not gate  |
| macs_skipped                | mac             | 0: they never occupied the array                                   |
| register_bytes              | register        | one byte written into a register                                   |
| adder_tree_adds             | adder_tree      | one addition in accumulator precision                              |
| vector_lane_ops             | vector          | one operation in accumulator precision                             |
| index_decodes               | index           | one mask position found                                            |
| mux_words                   | index           | one operand word through one 2:1 stage                             |
| mac_passes                  | mac             | as macs_done                                                       |
| macs_crossbar               | crossbar        | 0: what they cost is counted below                                 |
| cell_reads, dac_drives, adc_samples, shift_adds | crossbar | one each; 0 on machines without crossbars             |
| cell_writes                 | cell_write      | all pulses of programming one cell; 0 without crossbars            |
| a/b/accumulator/mask bytes  | sram_...        | access of one bank word / bytes of that word                       |
| dram_read/write_bytes       | dram            | 8 x pJ per bit, flat                                               |
| cycles (not a counter)      | leakage         | (SRAM + logic leakage) x time; 1 mW x 1 ns = 1 pJ                  |

A buffer of B bytes and W bytes per cycle in n banks is n macros of B/n bytes with words of W/n bytes: a byte costs the
access energy of such a macro over W/n. A narrower access than a word is priced by its bytes, which flatters it; wires
that join the banks are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from npusim.counters import COUNTERS
from npusim.energy import area, sram
from npusim.energy.table import ORDER, Action, EnergyTable
from npusim.errors import ConfigError
from npusim.npu import Hardware

if TYPE_CHECKING:
    import numpy as np

COMPONENTS = (
    "mac", "register", "adder_tree", "vector", "index",
    "sram_a", "sram_b", "sram_accumulator", "sram_mask", "dram", "leakage", "crossbar", "cell_write",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of a counter costs, and to which component it is booked."""

    component: str
    pj: float


@dataclass(frozen=True, slots=True)
class Prices:
    """All prices of one machine: per counter, and leakage power; with node, sources and confidence per component."""

    per_count: dict[str, Price]
    leakage_mw: float
    node_nm: int
    table: str
    sources: dict[str, str]
    confidence: dict[str, str]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Energy:
    """float64 pJ `[ops, COMPONENTS]` and what it rests on."""

    pj: np.ndarray
    prices: Prices
    components: tuple[str, ...] = COMPONENTS

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
    counts: np.ndarray,
    cycles_per_op: np.ndarray,
    hardware: Hardware,
    table: EnergyTable,
    figures: sram.SramTable | None = None,
) -> Energy:
    """Energy of `counts` (int64 [ops, COUNTERS]) over `cycles_per_op` (int64 [ops]).

    Leakage is booked by `cycles_per_op`, which should add up to the run's cycles. `figures` spares reading
    the SRAM table again.
    """
    return apply(counts, cycles_per_op, hardware, prices(hardware, table, figures))


def apply(counts: np.ndarray, cycles_per_op: np.ndarray, hardware: Hardware, priced: Prices) -> Energy:
    """As `account`, with prices at hand."""
    import numpy as np

    counts, cycles = np.asarray(counts), np.asarray(cycles_per_op)
    if counts.shape != (len(cycles), len(COUNTERS)):
        raise ValueError(f"counts have shape {counts.shape}, not {(len(cycles), len(COUNTERS))}")
    pj = np.zeros((len(cycles), len(COMPONENTS)))
    for column, counter in enumerate(COUNTERS):
        price = priced.per_count[counter]
        pj[:, COMPONENTS.index(price.component)] += counts[:, column] * price.pj
    nanoseconds = cycles * (1e9 / hardware.clock_hz)
    pj[:, COMPONENTS.index("leakage")] = nanoseconds * priced.leakage_mw
    return Energy(pj, priced)


def prices(hardware: Hardware, table: EnergyTable, figures: sram.SramTable | None = None) -> Prices:
    """The price of every counter on a machine; ConfigError when table and machine do not fit together."""
    if table.node_nm != hardware.energy.node_nm:
        raise ConfigError(
            f"energy table {table.name!r} has node_nm = {table.node_nm}, but hardware {hardware.name!r} has "
            f"energy.node_nm = {hardware.energy.node_nm}; they must agree: change "
            "energy.node_nm or choose another table"
        )
    formats = hardware.precision
    mac, adder = table.row("mac", formats.mac_format), table.row("adder", formats.accumulator_format)
    vector, dram = table.row("vector", formats.accumulator_format), table.row("dram", hardware.dram.standard)
    memories = area.memories(hardware, table, figures)
    idle = mac.pj * (table.gating.fraction if hardware.array.gating else 1.0)
    per_count = {
        "macs_done": Price("mac", mac.pj),
        "macs_gated": Price("mac", idle),
        "macs_skipped": Price("mac", 0.0),
        "mac_passes": Price("mac", mac.pj),
        "register_bytes": Price("register", table.register_byte.pj),
        "adder_tree_adds": Price("adder_tree", adder.pj),
        "vector_lane_ops": Price("vector", vector.pj),
        "index_decodes": Price("index", table.index_decode.pj),
        "mux_words": Price("index", table.mux_bit.pj * formats.operand_bits),
        "dram_read_bytes": Price("dram", 8 * dram.pj_per_bit),
        "dram_write_bytes": Price("dram", 8 * dram.pj_per_bit),
    }
    rows = {"mac": mac, "register": table.register_byte, "adder_tree": adder, "vector": vector, "dram": dram}
    rows["index"] = table.index_decode
    sources = {name: row.source for name, row in rows.items()}
    trust = {name: row.confidence for name, row in rows.items()}
    crossbar = _crossbar(hardware, table)
    per_count |= {counter: Price(component, row.pj if row else 0.0) for counter, (component, row) in crossbar.items()}
    analog = [row for component, row in crossbar.values() if row and component == "crossbar"]
    written = crossbar["cell_writes"][1]
    sources["crossbar"] = "; ".join(row.source for row in analog) or NO_CROSSBAR
    sources["cell_write"] = written.source if written else NO_CROSSBAR
    trust["crossbar"] = max((row.confidence for row in analog), key=ORDER.index, default="high")
    trust["cell_write"] = written.confidence if written else "high"
    for name in area.BUFFERS:
        memory = memories[name]
        per_count[f"{name}_read_bytes"] = Price(f"sram_{name}", memory.read_pj_per_byte)
        per_count[f"{name}_write_bytes"] = Price(f"sram_{name}", memory.write_pj_per_byte)
        sources[f"sram_{name}"], trust[f"sram_{name}"] = memory.source, memory.confidence
    sources["leakage"] = f"SRAM: {memories['a'].source}; logic: {table.logic.source}"
    trust["leakage"] = max((table.logic.confidence, *(m.confidence for m in memories.values())), key=ORDER.index)
    leakage = sum(m.leakage_mw for m in memories.values()) + _logic_leakage_mw(hardware, table)
    notes = tuple(f"buffer {name}: {note}" for name, m in memories.items() for note in m.notes)
    return Prices(per_count, leakage, table.node_nm, table.name, sources, trust, notes)


NO_CROSSBAR = "the machine has no crossbars"


def _crossbar(hardware: Hardware, table: EnergyTable) -> dict[str, tuple[str, Action | None]]:
    """Component and row of the table for every counter of crossbars; no rows on a machine without them."""
    crossbar = hardware.crossbar
    keys = {"cell_reads": "cell_read", "shift_adds": "shift_add", "cell_writes": "cell_write"}
    if crossbar is not None:
        keys |= {"dac_drives": f"dac{crossbar.dac_bits}", "adc_samples": f"adc{crossbar.adc_bits}"}
    found: dict[str, tuple[str, Action | None]] = {}
    for counter in ("macs_crossbar", "cell_reads", "dac_drives", "adc_samples", "shift_adds", "cell_writes"):
        row = table.row("crossbar", keys[counter]) if crossbar is not None and counter in keys else None
        found[counter] = ("cell_write" if counter == "cell_writes" else "crossbar", row)
    return found


def _logic_leakage_mw(hardware: Hardware, table: EnergyTable) -> float:
    cells_mm2 = sum(area.logic_um2(hardware, table).values()) / 1e6
    return cells_mm2 * table.logic.leakage_mw_per_mm2
