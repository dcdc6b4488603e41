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

from npusim import catalogue, config
from npusim.config import Bytes, BytesPerSecond, Hertz, Model, Nanoseconds
from npusim.errors import ConfigError, closest

if TYPE_CHECKING:
    import numpy as np

Count = Annotated[int, Field(ge=1, le=2**20)]
Bits = Annotated[int, Field(ge=1, le=64)]
INT64_MAX = 2**63 - 1


class Array(Model):
    """`rows` x `cols` PEs, one MAC per PE and cycle.

    `fold_overlap`: the next fold is loaded while the present one drains (double-buffered PE registers).
    `pe_registers`: words of dY a PE holds in the reduction-spatial mode; 0 when the array lacks that mode.
    `gating`: PEs with nothing to do are clock-gated (priced by the table's gating fraction, else as active).
    """

    rows: Count
    cols: Count
    fold_overlap: bool
    pe_registers: Annotated[int, Field(ge=0, le=4096)]
    gating: bool


class Precision(Model):
    """Bits of every kind of tensor; `arithmetic` is int, fp (IEEE) or bf (bfloat16-like operands, fp accumulation)."""

    arithmetic: Literal["int", "fp", "bf"]
    activation_bits: Bits
    weight_bits: Bits
    gradient_bits: Bits
    weight_gradient_bits: Bits
    state_bits: Bits
    accumulator_bits: Bits

    def bits(self, tensor_kind: str) -> int:
        """Bits per element of a tensor kind of `npusim.graph` (a mask has 1)."""
        return 1 if tensor_kind == "mask" else getattr(self, f"{tensor_kind}_bits")

    @property
    def operand_bits(self) -> int:
        """Width of the multiplier: the widest operand it must take."""
        return max(self.activation_bits, self.weight_bits, self.gradient_bits)

    @property
    def accumulator_format(self) -> str:
        """Number format of sums, as energy tables name it: 'fp32', 'int32'."""
        return f"{'int' if self.arithmetic == 'int' else 'fp'}{self.accumulator_bits}"

    @property
    def mac_format(self) -> str:
        """Multiplier and adder, as energy tables name them: 'bf16+fp32', 'int8+int32'."""
        return f"{self.arithmetic}{self.operand_bits}+{self.accumulator_format}"


class Buffer(Model):
    """An SRAM of `banks` equal banks that are accessed together, `bytes_per_cycle` in all, reads plus writes."""

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


class Dma(Model):
    """DMA channels: how many loads and how many stores may be outstanding at once."""

    read_channels: Annotated[int, Field(ge=1, le=1024)]
    write_channels: Annotated[int, Field(ge=1, le=1024)]


class Dram(Model):
    """External memory. `standard` names its row in the energy table; `ideal` means bandwidth and latency only."""

    standard: Annotated[str, Field(min_length=1)]
    model: Literal["ideal"]
    bandwidth_bytes_per_s: Annotated[BytesPerSecond, Field(ge=1, le=10**15)]
    latency_ns: Annotated[Nanoseconds, Field(ge=0, le=10**6)]
    burst_bytes: Annotated[Bytes, Field(ge=1, le=4096)]


class VectorUnit(Model):
    """Elementwise unit: `lanes` operations per cycle."""

    lanes: Count


class EnergyKeys(Model):
    """Which energy table applies, the SRAM cell type and the technology node (the table's own node must agree)."""

    table: Annotated[str, Field(min_length=1)]
    cell: Literal["hp", "lop", "lstp"]
    node_nm: Annotated[int, Field(ge=3, le=250)]


class Hardware(Model):
    """A machine. `source` says where its numbers come from."""

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

    @model_validator(mode="after")
    def _consistent(self) -> Hardware:
        p = self.precision
        problems = [
            f"precision.accumulator_bits = {p.accumulator_bits} is less than precision.{key} = {bits}"
            for key, bits in (("weight_gradient_bits", p.weight_gradient_bits), ("operand_bits", p.operand_bits))
            if p.accumulator_bits < bits
        ]
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
        """sha256 of every key that decides a result (not name, description and source)."""
        value = self.model_dump(exclude={"name", "description", "source"})
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

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


def _paths(data: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Dotted paths of all leaves."""
    found = []
    for key, value in data.items():
        found += _paths(value, f"{prefix}{key}.") if isinstance(value, Mapping) else [prefix + key]
    return found


def _no_key(key: str, matches: list[str], paths: list[str]) -> str:
    if matches:
        return f"{key}: ambiguous, write one of {', '.join(matches)}"
    return f"{key}: unknown key{closest(key, [*paths, *(p.rpartition('.')[2] for p in paths)])}"
