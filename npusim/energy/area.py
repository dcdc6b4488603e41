"""Area of a machine per component: buffers from CACTI, logic from published synthesis results.

DMA engines, the DRAM interface and the wiring between banks are not counted; of control only the address counters.
"""

from __future__ import annotations

from dataclasses import dataclass

from npusim.crossbars import Crossbar
from npusim.dataflow import Dataflow, Network
from npusim.energy import cacti, sram
from npusim.energy.table import EnergyTable
from npusim.errors import ConfigError
from npusim.npu import Buffer, Hardware

BUFFERS = ("a", "b", "accumulator", "mask")
SRAM_CONFIDENCE = "medium"


@dataclass(frozen=True, slots=True)
class Memory:
    """A buffer as priced: all banks together. `wire_pj_per_byte`: wires from the banks to the buffer's port."""

    read_pj_per_byte: float
    write_pj_per_byte: float
    wire_pj_per_byte: float
    leakage_mw: float
    area_mm2: float
    source: str
    confidence: str
    wire_source: str
    wire_confidence: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Area:
    """mm2 per component; `notes` name what was extrapolated."""

    mm2: dict[str, float]
    node_nm: int
    sources: dict[str, str]
    notes: tuple[str, ...]

    @property
    def total_mm2(self) -> float:
        return sum(self.mm2.values())


def area(
    hardware: Hardware, table: EnergyTable, figures: sram.SramTable | None = None, dataflow: Dataflow | None = None
) -> Area:
    """pe_array, adder_tree, vector, index, control and sram_<buffer>; logic is divided by its placement density.

    With a `dataflow` that adds a selection network to the array, `selection` too.
    A machine with ReRAM has `crossbar` too (placed area as published; its leakage is in the energy of its actions).
    """
    formats = hardware.precision
    placed = {name: um2 / 1e6 / table.logic.placement_density for name, um2 in logic_um2(hardware, table).items()}
    buffers = memories(hardware, table, figures)
    rows = {
        "pe_array": table.row("mac", formats.mac_format),
        "adder_tree": table.row("adder", formats.accumulator_format),
        "vector": table.row("vector", formats.accumulator_format),
        "index": table.index_decode,
        "control": table.control,
    }
    if dataflow is not None and dataflow.network is not None:
        placed["selection"] = network_um2(dataflow.network(hardware), table) / 1e6 / table.logic.placement_density
        rows["selection"] = table.mux_bit
    if hardware.crossbar is not None:
        placed["crossbar"] = crossbar_um2(hardware.crossbar, table) / 1e6
        rows["crossbar"] = table.row("crossbar", f"adc{hardware.crossbar.adc_bits}")
    return Area(
        placed | {f"sram_{name}": memory.area_mm2 for name, memory in buffers.items()},
        table.node_nm,
        {name: row.source for name, row in rows.items()} | {f"sram_{n}": m.source for n, m in buffers.items()},
        tuple(f"buffer {name}: {note}" for name, m in buffers.items() for note in m.notes),
    )


def logic_um2(hardware: Hardware, table: EnergyTable) -> dict[str, float]:
    """Cell area of the logic.

    A PE has a MAC, registers for its two operands and its sum, one more operand when folds overlap, and
    `pe_registers` words of dY. The adder tree (present with `pe_registers`) joins all PEs: PEs - 1 adders. One index
    decoder per array row.
    """
    array, formats = hardware.array, hardware.precision
    pes = hardware.peak_macs_per_cycle
    pe = table.row("mac", formats.mac_format).area_um2 + pe_bits(hardware) / 8 * table.register_byte.area_um2
    adder = table.row("adder", formats.accumulator_format).area_um2
    lane = table.row("vector", formats.accumulator_format).area_um2
    return {
        "pe_array": pes * pe,
        "adder_tree": (pes - 1) * adder if array.pe_registers else 0.0,
        "vector": hardware.vector.lanes * lane,
        "index": array.rows * table.index_decode.area_um2,
        "control": table.control.address_counters * table.control.counter_um2,
    }


def network_um2(network: Network, table: EnergyTable) -> float:
    """Cell area of a dataflow's selection network."""
    return network.mux_bits * table.mux_bit.area_um2 + network.register_bits / 8 * table.register_byte.area_um2


def pe_bits(hardware: Hardware) -> int:
    """Register bits of one PE, see `logic_um2`."""
    array, formats = hardware.array, hardware.precision
    operands = 3 if array.fold_overlap else 2
    return operands * formats.operand_bits + formats.accumulator_bits + array.pe_registers * formats.gradient_bits


def register_bits(hardware: Hardware) -> int:
    """Register bits that are clocked: those of all PEs, and two operands and a result per lane of the vector unit."""
    lanes = 3 * hardware.precision.accumulator_bits * hardware.vector.lanes
    return hardware.peak_macs_per_cycle * pe_bits(hardware) + lanes


def crossbar_um2(crossbar: Crossbar, table: EnergyTable) -> float:
    """Placed area of all crossbars: cells, a driver per row, the converters and a shift-adder for each."""
    cell, dac = table.row("crossbar", "cell_read").area_um2, table.row("crossbar", f"dac{crossbar.dac_bits}").area_um2
    adc, add = table.row("crossbar", f"adc{crossbar.adc_bits}").area_um2, table.row("crossbar", "shift_add").area_um2
    one = crossbar.rows * crossbar.cols * cell + crossbar.rows * dac + crossbar.adcs * (adc + add)
    return crossbar.crossbars * one


def memories(hardware: Hardware, table: EnergyTable, figures: sram.SramTable | None = None) -> dict[str, Memory]:
    """The four buffers, by name; `figures` spares reading the SRAM table again."""
    loaded = figures or sram.load()
    return {name: _memory(name, getattr(hardware.buffers, name), hardware, table, loaded) for name in BUFFERS}


def _memory(name: str, buffer: Buffer, hardware: Hardware, table: EnergyTable, figures: sram.SramTable) -> Memory:
    given = table.sram.buffers.get(name)  # type: ignore[call-overload]
    if given is not None:
        own = (given.source, given.confidence)
        return Memory(
            given.read_pj_per_byte, given.write_pj_per_byte, 0.0, given.leakage_mw, given.area_mm2, *own, *own
        )
    word, keys, rules = buffer.bytes_per_cycle / buffer.banks, hardware.energy, table.sram
    place = buffer.bytes / buffer.banks, 8 * word, keys.cell, keys.node_nm
    ports = rules.ports.get(name, "1rw")  # type: ignore[call-overload]
    program = cacti.binary()
    if program is not None:
        macro = sram.Macro(*cacti.macro(program, *place, ports), program.source)
    else:
        try:
            outside = sram.POWER_LAW if sram.POWER_LAW in (keys.sram_outside, rules.outside) else "error"
            macro = figures.macro(*place, outside, rules.node_rule, ports)
        except ConfigError as error:
            raise ConfigError(
                f"buffers.{name} (bytes = {buffer.bytes}, bytes_per_cycle = {buffer.bytes_per_cycle}, "
                f"banks = {buffer.banks}): {error}"
            ) from None
    area_mm2 = macro.area_mm2 * buffer.banks
    wire_pj, wire_source, wire_trust = _wire(table, figures, hardware)
    return Memory(
        macro.read_pj / word,
        macro.write_pj / word,
        8 * sram.wire_mm(buffer.banks, area_mm2) * wire_pj,
        macro.leakage_mw * buffer.banks,
        area_mm2,
        f"{macro.source}, {keys.cell} cells at {keys.node_nm} nm",
        "low" if macro.notes else SRAM_CONFIDENCE,
        wire_source,
        wire_trust,
        macro.notes,
    )


def _wire(table: EnergyTable, figures: sram.SramTable, hardware: Hardware) -> tuple[float, str, str]:
    """pJ per bit and mm, source, confidence."""
    own = table.sram.wire
    if own is not None:
        return own.pj_per_bit_mm, own.source, own.confidence
    keys = hardware.energy
    price = figures.wire_pj_per_bit_mm(keys.cell, keys.node_nm, table.sram.node_rule)
    return price, f"{sram.WIRE_SOURCE}, {keys.cell} at {keys.node_nm} nm", "low"
