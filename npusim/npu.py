"""The machine: PE array, buffers, DMA, DRAM, vector unit and clock, read from TOML.

    DRAM <-> DMA channels <-> buffers A, B, mask -> PE array <-> accumulator buffer <-> vector unit

A preset is a file in `npusim/data/hardware/`; a user's file has the same keys. Times are in cycles of the one
clock. The energy keys say which table prices the work and which SRAM cells and node the buffers are made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from npusim import catalogue, config, notebook, text
from npusim.config import Bytes, BytesPerSecond, Hertz, Model, Nanoseconds
from npusim.crossbars import Crossbar
from npusim.errors import ConfigError, closest

if TYPE_CHECKING:
    import numpy as np

Count = Annotated[int, Field(ge=1, le=2**20)]
Latency = Annotated[int, Field(ge=0, le=2**20)]
Bits = Annotated[int, Field(ge=1, le=64)]
INT64_MAX = 2**63 - 1


class ArrayTiming(Model):
    """What an array does beside one MAC per PE and cycle and one hop per cycle; the defaults add nothing.

    start_cycles         from the command to the first word at the array's edge, once per tile
    output_cycles        from a sum leaving the array to where it counts as written
    mac_cycles           from operands at a PE to their sum in its register; when an operand is held, a partial sum
                         takes them in every row
    accumulator_preload  output stationary: initial sums are shifted in through all rows before the first fold
    first_preload        operand held: the first one is shifted in within the tile's time, not before it
    preload_gap_cycles   operand held: cycles between its last row and the first streamed vector; with 0 they share one
    drain                output stationary: results leave "down" their columns, a row per cycle; or "across" their
                         rows, a column per cycle, once the last PE is done: then a fold takes rows + cols or more; or
                         "none": every PE writes its result itself, in the cycle of its last sum
    live_columns_only    a fold that uses fewer columns ends earlier; else every fold is as long as a full one
    command_vectors      vectors stream in commands of so many; shorter ones are filled up
    least_vectors        operand held: vectors of the last command, behind which no operand is shifted in, at least
    """

    start_cycles: Latency = 0
    output_cycles: Latency = 0
    mac_cycles: Annotated[int, Field(ge=1, le=1024)] = 1
    accumulator_preload: bool = False
    first_preload: bool = True
    preload_gap_cycles: Latency = 0
    drain: Literal["down", "across", "none"] = "down"
    live_columns_only: bool = True
    command_vectors: Count = 1
    least_vectors: Count = 1

    @model_validator(mode="after")
    def _consistent(self) -> ArrayTiming:
        if self.least_vectors > self.command_vectors:
            raise ValueError(
                f"least_vectors = {self.least_vectors} is more than command_vectors = {self.command_vectors}"
            )
        return self


class Array(Model):
    """`rows` x `cols` PEs, one MAC per PE and cycle.

    `rows`: PEs above each other. `cols`: PEs beside each other.
    `fold_overlap`: the next fold is loaded while the present one drains (double-buffered PE registers).
    `pe_registers`: words of dY a PE holds in the reduction-spatial mode; 0 when the array lacks that mode.
    `gating`: PEs with nothing to do are clock-gated (priced by the table's gating fraction, else as active).
    `timing`: latencies of a particular array; without it, those of an ideal one.
    `gather`: columns fetch operands by address (small cores with memory of their own), so each can work on its own list
    of live inputs.
    """

    rows: Count
    cols: Count
    fold_overlap: bool
    pe_registers: Annotated[int, Field(ge=0, le=4096)]
    gating: bool
    timing: ArrayTiming = ArrayTiming()
    gather: bool = False


class Precision(Model):
    """Bits of every kind of tensor.

    arithmetic            int, fp (IEEE) or bf (bfloat16-like operands, fp accumulation)
    activation_bits       of activations, forward and saved
    weight_bits           of weights as the array reads them
    gradient_bits         of errors, the gradients of activations
    weight_gradient_bits  of weight gradients in memory
    state_bits            of optimizer state, such as momentum
    accumulator_bits      of partial sums

    `multiplier_bits`: width of the multiplier; 0: as wide as the widest operand. A wider operand is cut into pieces of
    that width, and a product takes one pass of the array for every pair of pieces.
    """

    arithmetic: Literal["int", "fp", "bf"]
    activation_bits: Bits
    weight_bits: Bits
    gradient_bits: Bits
    weight_gradient_bits: Bits
    state_bits: Bits
    accumulator_bits: Bits
    multiplier_bits: Annotated[int, Field(ge=0, le=64)] = 0

    def bits(self, tensor_kind: str) -> int:
        """Bits per element of a tensor kind of `npusim.graph` (a mask has 1)."""
        return 1 if tensor_kind == "mask" else getattr(self, f"{tensor_kind}_bits")

    @property
    def operand_bits(self) -> int:
        """Width of the multiplier: as given, else the widest operand it must take."""
        return self.multiplier_bits or max(self.activation_bits, self.weight_bits, self.gradient_bits)

    def pieces(self, bits: int) -> int:
        """Into how many pieces of the multiplier's width an operand is cut."""
        return -(-bits // self.operand_bits)

    @property
    def accumulator_format(self) -> str:
        """Number format of sums, as energy tables name it: 'fp32', 'int32'."""
        return f"{'int' if self.arithmetic == 'int' else 'fp'}{self.accumulator_bits}"

    @property
    def mac_format(self) -> str:
        """Multiplier and adder, as energy tables name them: 'bf16+fp32', 'int8+int32'."""
        return f"{self.arithmetic}{self.operand_bits}+{self.accumulator_format}"


class Buffer(Model):
    """An SRAM of equal banks that are accessed together.

    bytes            size, all banks together
    bytes_per_cycle  through its port, reads plus writes; of all banks together
    banks            how many; they divide both sizes
    double_buffered  two slots of half the size: one is filled while the other is used
    """

    bytes: Annotated[Bytes, Field(ge=1, le=2**40)]
    bytes_per_cycle: Annotated[Bytes, Field(ge=1)]
    banks: Count
    double_buffered: bool

    @property
    def slots(self) -> int:
        return 2 if self.double_buffered else 1

    @property
    def slot_bytes(self) -> int:
        return self.bytes // self.slots

    @model_validator(mode="after")
    def _consistent(self) -> Buffer:
        problems = [
            f"banks = {self.banks} does not divide {key} = {value}"
            for key, value in (("bytes", self.bytes), ("bytes_per_cycle", self.bytes_per_cycle))
            if value % self.banks
        ]
        if self.bytes_per_cycle > self.bytes:
            problems.append(f"bytes_per_cycle = {self.bytes_per_cycle} is more than bytes = {self.bytes}")
        if self.bytes % self.slots:
            problems.append(f"bytes = {self.bytes} is odd, but double_buffered needs two equal slots")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class Buffers(Model):
    """The four SRAM buffers of the core."""

    a: Buffer
    b: Buffer
    accumulator: Buffer
    mask: Buffer


class DmaRequests(Model):
    """How a DMA engine moves a block of rows: row by row, in requests.

    max_bytes           a request, at most
    outstanding         requests in flight at once, in each direction
    overhead_cycles     from the last beat of a request until its place is free again, beyond the memory's latency
    read_start_cycles, write_start_cycles   from the command to the first beat, and from the last answer to idle
    writes_hold_beats   every beat of a write waits for a free place, not only its first one
    """

    max_bytes: Annotated[Bytes, Field(ge=1, le=2**20)] = 2**20
    outstanding: Annotated[int, Field(ge=1, le=2**16)] = 1
    overhead_cycles: Latency = 0
    read_start_cycles: Latency = 0
    write_start_cycles: Latency = 0
    writes_hold_beats: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> DmaRequests:
        if self.writes_hold_beats and (self.outstanding < 2 or self.overhead_cycles < 2):
            raise ValueError("writes_hold_beats needs outstanding >= 2 and overhead_cycles >= 2")
        return self


class Dma(Model):
    """DMA channels, each with one transfer at a time.

    `read_channels`: loads at the same time. `write_channels`: stores at the same time.
    `requests`: how one block transfer is split, for `npusim.dma`; the tile engine takes a transfer as one request.
    """

    read_channels: Annotated[int, Field(ge=1, le=1024)]
    write_channels: Annotated[int, Field(ge=1, le=1024)]
    requests: DmaRequests = DmaRequests()


class DramCommands(Model):
    """What the command-level model simulates: a DRAM standard behind a controller, see `npusim.engine.memory`.

    device        a built-in standard, a file of npusim/data/dram, or a TOML file
    controller    how requests are scheduled: dramsim3-like or ramulator-like
    channels, ranks, bus_bits   replace those of the file; 0 keeps them
    address_map   order of the address fields from the least significant bit upwards; "" keeps the file's
    outstanding   bursts that one DMA channel may have in flight
    path_ns       from the DMA engine to the controller and back, beside the DRAM's own time
    """

    device: Annotated[str, Field(min_length=1)]
    controller: Annotated[str, Field(min_length=1)] = "dramsim3-like"
    channels: Annotated[int, Field(ge=0, le=64)] = 0
    ranks: Annotated[int, Field(ge=0, le=8)] = 0
    bus_bits: Annotated[int, Field(ge=0, le=1024)] = 0
    address_map: str = ""
    outstanding: Annotated[int, Field(ge=1, le=2**16)] = 64
    path_ns: Annotated[Nanoseconds, Field(ge=0, le=10**6)] = 0


class Dram(Model):
    """External memory.

    standard               its row in the energy table, such as LPDDR4
    bandwidth_bytes_per_s  of the bus, reads and writes together
    latency_ns             from the end of a transfer's bus time to its data being there
    burst_bytes            the smallest transfer; all are rounded up to whole bursts

    `model`: ideal is bandwidth and latency; commands simulates every DRAM command of the device in `commands`, and
    bandwidth and latency are then only what tilings are chosen by.
    """

    standard: Annotated[str, Field(min_length=1)]
    model: Literal["ideal", "commands"]
    bandwidth_bytes_per_s: Annotated[BytesPerSecond, Field(ge=1, le=10**15)]
    latency_ns: Annotated[Nanoseconds, Field(ge=0, le=10**6)]
    burst_bytes: Annotated[Bytes, Field(ge=1, le=4096)]
    commands: DramCommands | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Dram:
        if self.model == "commands" and self.commands is None:
            raise ValueError(
                "model = 'commands' needs a table commands with at least device, "
                'for example commands = {device = "lpddr4-3200", channels = 2, bus_bits = 16}'
            )
        return self


class VectorUnit(Model):
    """Elementwise unit. `lanes`: operations per cycle."""

    lanes: Count


class EnergyKeys(Model):
    """Prices of the machine.

    table    a name of `npusim list energy`, or a TOML file
    cell     SRAM cells: high performance, low operating power or low standby power
    node_nm  technology node; the table's own must agree
    sram_outside
             buffers whose banks are outside the CACTI figures: an error, or extrapolated by the power law of the two
             nearest points, which every report then says
    """

    table: Annotated[str, Field(min_length=1)]
    cell: Literal["hp", "lop", "lstp"]
    node_nm: Annotated[int, Field(ge=3, le=250)]
    sram_outside: Literal["error", "power-law"] = "error"


class Hardware(Model):
    """A machine.

    name         as reports show it
    description  in a few words
    source       where its numbers come from
    clock_hz     of the core: array, vector unit, buffers, DMA

    `crossbar`: weights lie in ReRAM.
    """

    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: str
    source: str
    clock_hz: Annotated[Hertz, Field(ge=1, le=10**11)]
    array: Array
    precision: Precision
    buffers: Buffers
    dma: Dma
    dram: Dram
    vector: VectorUnit
    energy: EnergyKeys
    crossbar: Crossbar | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Hardware:
        p = self.precision
        problems = [
            f"precision.accumulator_bits = {p.accumulator_bits} is less than precision.{key} = {bits}"
            for key, bits in (("weight_gradient_bits", p.weight_gradient_bits), ("operand_bits", p.operand_bits))
            if p.accumulator_bits < bits
        ]
        if self.crossbar is not None and p.weight_bits > self.crossbar.cols * self.crossbar.cell_bits:
            problems.append(f"crossbar.cols = {self.crossbar.cols} cannot hold a weight of {p.weight_bits} bits")
        if self.crossbar is not None and self.dram.model == "commands":
            problems.append("dram.model = 'commands' is not known with a section crossbar; use dram.model = 'ideal'")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def peak_macs_per_cycle(self) -> int:
        return self.array.rows * self.array.cols

    @property
    def sram_bytes(self) -> int:
        b = self.buffers
        return b.a.bytes + b.b.bytes + b.accumulator.bytes + b.mask.bytes

    @property
    def dram_latency_cycles(self) -> int:
        """Cycles from request to first data, rounded up."""
        return -(-self.dram.latency_ns * self.clock_hz // 10**9)

    @property
    def dram_path_cycles(self) -> int:
        """Cycles from the DMA engine to the DRAM controller and back, rounded up; 0 with `ideal` memory."""
        commands = self.dram.commands if self.dram.model == "commands" else None
        return -(-commands.path_ns * self.clock_hz // 10**9) if commands else 0

    def dram_cycles(self, nbytes: np.ndarray) -> np.ndarray:
        """Bus cycles of each transfer: whole bursts at the DRAM's bandwidth, rounded up once per transfer; 0 for 0.

        Exact in integers; OverflowError when a result exceeds int64.
        """
        import numpy as np

        sizes = np.asarray(nbytes, dtype=np.int64)
        if sizes.size == 0:
            return sizes.copy()
        if sizes.min() < 0:
            raise ValueError("a transfer has a negative number of bytes")
        burst = self.dram.burst_bytes
        per_byte = Fraction(self.clock_hz, self.dram.bandwidth_bytes_per_s)
        largest = int(sizes.max()) + burst
        if largest * per_byte.numerator + per_byte.denominator > INT64_MAX:
            sizes = sizes.astype(object)
        padded = (sizes + burst - 1) // burst * burst
        return ((padded * per_byte.numerator + per_byte.denominator - 1) // per_byte.denominator).astype(np.int64)

    def replace(self, changes: Mapping[str, Any] | None = None, **keys: Any) -> Hardware:
        """A machine with some keys changed: `replace({"array.rows": 32})` or, if unambiguous, `replace(rows=32)`."""
        data = self.model_dump()
        paths = _paths(data)
        requested = dict(changes or {}) | keys
        problems, shown = [], []
        for key, value in requested.items():
            path = [key] if key in paths else [p for p in paths if p.rpartition(".")[2] == key]
            if len(path) != 1:
                problems.append(_no_key(key, path, paths))
                continue
            *tables, last = path[0].split(".")
            table = data
            for part in tables:
                table = table[part]
            table[last] = value
            shown.append(f"{path[0]} = {value}")
        if problems:
            raise ConfigError("\n  ".join([f"hardware {self.name!r} cannot be changed:", *problems]))
        return config.validate(Hardware, data, f"hardware {self.name!r} with {', '.join(shown)}")

    def digest(self) -> str:
        """sha256 of every key that decides a result: not name, description, source; not optional keys left alone."""
        value = self.model_dump(exclude={"name", "description", "source"}, exclude_defaults=True)
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def __repr__(self) -> str:
        return f"<Hardware {text.clean(self)}>"

    def _repr_html_(self) -> str:
        rows = [row for row in config.leaves(self.model_dump()) if row[0] not in ("name", "description", "source")]
        about = f"<p>{notebook.safe(self)}<br>{notebook.safe(self.description)}</p>"
        return about + notebook.table(("key", "value"), rows, 2)

    def __str__(self) -> str:
        sram, bandwidth = self.sram_bytes / 1024, self.dram.bandwidth_bytes_per_s / 1e9
        return (
            f"{self.name}: {self.array.rows}x{self.array.cols} PEs {self.precision.mac_format} at "
            f"{self.clock_hz / 1e6:g} MHz, {sram:g} KiB SRAM, {self.dram.standard} {bandwidth:g} GB/s, "
            f"{self.energy.node_nm} nm"
        )


def load(name_or_path: str | Path) -> Hardware:
    """The machine of a preset name, a name found through NPUSIM_PATH, or a TOML file."""
    return config.load(Hardware, catalogue.find("hardware", name_or_path))


def _paths(data: Mapping[str, Any]) -> list[str]:
    """Dotted paths of all leaves."""
    return [path for path, _ in config.leaves(data)]


def _no_key(key: str, matches: list[str], paths: list[str]) -> str:
    if matches:
        return f"{key}: ambiguous, write one of {', '.join(matches)}"
    return f"{key}: unknown key{closest(key, [*paths, *(p.rpartition('.')[2] for p in paths)])}"
