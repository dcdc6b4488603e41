"""Energy tables: what one action of every kind costs, each number with its source and confidence.

Names of number formats: 'int32', 'fp16', 'fp32'; of multiply-accumulates: 'fp16+fp32' (product + sum). A user's
table may name another one as `base` and give only what differs: tables are merged key by key, the user's win. A
section [accelergy] takes prices from an Accelergy ERT (`npusim.energy.accelergy`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from npusim import catalogue, config
from npusim.config import Model
from npusim.energy import accelergy, scaling
from npusim.errors import CatalogueError, ConfigError, closest

Confidence = Literal["high", "medium", "low"]
ORDER = ("high", "medium", "low")
Amount = Annotated[float, Field(ge=0, le=1e12)]


class Sourced(Model):
    """Anything that says where it comes from and how far to trust it."""

    source: Annotated[str, Field(min_length=1)]
    confidence: Confidence


class Action(Sourced):
    """Energy of one action and area of the circuit that does it."""

    pj: Amount
    area_um2: Amount


class Gating(Sourced):
    """Share of an active MAC's energy that a clock-gated one costs."""

    fraction: Annotated[float, Field(ge=0, le=1)]


class Logic(Sourced):
    """Leakage of logic per area of its cells; share of the placed area that cells fill."""

    leakage_mw_per_mm2: Amount
    placement_density: Annotated[float, Field(gt=0, le=1)]


class Clock(Sourced):
    """Clock tree: energy per cycle for each register bit of the array and the vector unit, above the clock gates."""

    pj_per_register_bit: Amount


class Control(Sourced):
    """Sequencing of the core: counters that step every cycle."""

    address_counters: Annotated[int, Field(ge=0, le=1024)]
    counter_pj: Amount
    counter_um2: Amount


class BufferRow(Sourced):
    """A whole buffer given by the user in place of the CACTI figures."""

    read_pj_per_byte: Amount
    write_pj_per_byte: Amount
    leakage_mw: Amount
    area_mm2: Amount


class WireRow(Sourced):
    """Wires between the banks of a buffer, in place of CACTI's: energy of one bit moved by one millimetre."""

    pj_per_bit_mm: Amount


Buffered = Literal["a", "b", "accumulator", "mask"]


class Sram(Model):
    """What to do outside the CACTI figures, ports and own numbers of buffers (keys a, b, accumulator, mask).

    `ports`: "1rw", one port for both directions (the default), or "1r1w", one for each (CACTI's ratios apply).
    """

    outside: Literal["error", "power-law"] = "error"
    node_rule: Literal["none", "stillmaker-baas"] = "none"
    ports: dict[Buffered, Literal["1rw", "1r1w"]] = Field(default_factory=dict)
    wire: WireRow | None = None
    buffers: dict[Buffered, BufferRow] = Field(default_factory=dict)


class DramRow(Sourced):
    """Flat energy of moving one bit, reads and writes alike."""

    pj_per_bit: Amount


class DramCommandRow(Sourced):
    """DRAM priced by command, in place of the currents of a standard's file. Powers are of all ranks together.

    `read_pj_per_bit`, `write_pj_per_bit`: core, without I/O. `open_mw`, `closed_mw`: with an open row in every rank,
    and with none.
    """

    activate_pj: Amount
    read_pj_per_bit: Amount
    write_pj_per_bit: Amount
    io_pj_per_bit: Amount
    refresh_pj: Amount
    bank_refresh_pj: Amount = 0.0
    open_mw: Amount
    closed_mw: Amount


class EnergyTable(Model):
    """One table. `register_byte` is one byte written into a register, `index_decode` one mask position found.

    `scaled` says what was scaled from a base of another node (written when the table is read).
    `mux_bit` is one bit through a 2:1 multiplexer.

    name          as reports show it
    node_nm       technology node of all prices; the machine's must agree
    description   in a few words
    base          a table (name or file) whose prices hold wherever this one gives none
    mac           multiply-accumulates by number format, such as fp16+fp32
    adder         additions by number format
    vector        operations of a vector lane by number format
    dram          flat price by standard, such as LPDDR4
    crossbar      machines with ReRAM: cell_read, cell_write, shift_add, dacN and adcN (of N bits), one action each
    dram_command  prices by DRAM command, by device
    """

    name: Annotated[str, Field(min_length=1)]
    node_nm: Annotated[int, Field(ge=3, le=250)]
    description: str = ""
    base: str = ""
    scaled: str = ""
    mac: dict[str, Action]
    adder: dict[str, Action]
    vector: dict[str, Action]
    register_byte: Action
    index_decode: Action
    mux_bit: Action
    gating: Gating
    clock: Clock
    control: Control
    logic: Logic
    sram: Sram
    dram: dict[str, DramRow]
    crossbar: dict[str, Action] = Field(default_factory=dict)
    dram_command: dict[str, DramCommandRow] = Field(default_factory=dict)

    def row(self, group: str, key: str) -> Any:
        """Row `key` of mac, adder, vector, dram or crossbar; ConfigError lists the rows that exist."""
        rows: Mapping[str, Sourced] = getattr(self, group)
        if key not in rows:
            hint = closest(key, list(rows))
            raise ConfigError(f"energy table {self.name!r} has no row {group}.{key!r}{hint}; it has: {', '.join(rows)}")
        return rows[key]

    def flat_dram(self, standard: str) -> DramRow:
        """The flat price of a DRAM: its own row, or that of its family ('DDR4' for 'ddr4-2400')."""
        family = standard.partition("-")[0].upper()
        if family == "LPDDR4X" and family not in self.dram and standard not in self.dram:
            raise ConfigError(
                f"energy table {self.name!r}: LPDDR4X is priced only by your own figures: give a table with "
                "[dram.LPDDR4X] (pj_per_bit, source, confidence) by --energy"
            )
        return self.row("dram", standard if standard in self.dram or family not in self.dram else family)


def load(name_or_path: str | Path) -> EnergyTable:
    """The table of a built-in name, a name found through NPUSIM_PATH, or a TOML file; bases are merged in."""
    path = catalogue.find("energy", name_or_path)
    return config.validate(EnergyTable, _merged(path, ()), str(path))


def _merged(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    if path in below:
        raise ConfigError(f"{path}: base tables form a circle: {' -> '.join(map(str, (*below, path)))}")
    data = config.read_toml(path)
    base = data.get("base", "")
    section = data.pop("accelergy", None)
    if section is not None:
        data = _merge(accelergy.overlay(section, path), data)
    if not base or not isinstance(base, str):
        return data
    return _merge(_at_node(_merged(_base(path, base), (*below, path)), data, path), data)


def _at_node(base: dict[str, Any], data: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The base for the node of the table that names it: scaled when that is another one, as the table must choose."""
    node, own = data.get("node_nm"), base.get("node_nm")
    if type(node) is not int or type(own) is not int or node == own:
        return base
    sram = data.get("sram")
    if not isinstance(sram, dict) or sram.get("node_rule") != scaling.RULE:
        raise ConfigError(
            f"{path}: node_nm = {node}, but the prices of base = {data['base']!r} are those of {own} nm; choose "
            f'[sram] node_rule = "{scaling.RULE}" to scale them, or give the table without a base'
        )
    config.validate(EnergyTable, base, f"base {data['base']!r} of {path}")
    scaled, done = scaling.table(base, node)
    return {**scaled, "scaled": done}


def _base(path: Path, base: str) -> Path:
    """The file of a table's base; ConfigError names the table that asks for it."""
    try:
        return catalogue.find("energy", base)
    except CatalogueError as error:
        raise ConfigError(f"{path}: base: {error}") from None


def _merge(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, Mapping) and isinstance(old.get(key), Mapping)
        merged[key] = _merge(old[key], value) if both else value
    return merged
