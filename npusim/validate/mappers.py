"""Single layers beside ZigZag, AccelForge and Timeloop (`validation/mappers/`): cycles, and energy per MAC.

The mappers disagree among themselves by more than any bound would say, so none is stated; `docs/energy_crosscheck.md`
explains every difference above 20 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from npusim import npu, synthesis
from npusim.energy import table
from npusim.errors import ConfigError
from npusim.mapping.choice import Choice
from npusim.npu import Hardware
from npusim.simulation import simulate
from npusim.validate.result import Row, Validation, read

COLUMNS = ("tool", "workload", "phase", "array", "cycles", "pJ_per_mac")
MACHINE, PRICES = "machine.toml", "prices.toml"
DATAFLOW = "dense-ws"
# ResNet layers, 3x3, batch 1: channels in and out, size. As GEMM, dW[K, C*9] = dY[K, T] . X[T, C*9] with X written out.
CONVOLUTIONS = {"conv2_1": (64, 56), "conv4_2": (256, 14), "conv5_2": (512, 7)}
NAMES = (
    "gemm512", *CONVOLUTIONS, *(f"wg_gemm_{name}" for name in CONVOLUTIONS), *(f"wg_{n}_native" for n in CONVOLUTIONS),
)  # fmt: skip
NOT_MODELLED = (
    "the mappers' own mappings: npusim chooses its tiles for least time",
    "their prices of MAC, registers and buffers, which are not known; DRAM is 8 pJ/bit everywhere",
)


@dataclass(frozen=True)
class Point:
    """One layer on one array: cycles, MACs, picojoules by component, DRAM bytes moved and the least possible."""

    cycles: int
    macs: int
    pj: Mapping[str, float]
    dram_bytes: int
    least_bytes: int

    @property
    def pj_per_mac(self) -> float:
        return sum(self.pj.values()) / self.macs


def validate(path: str | Path, configs: Path | None = None) -> Validation:
    """Every row with cycles and energy; ConfigError lists what is wrong with the file."""
    rows, points = [], Points(configs)
    for cells in read(path, COLUMNS):
        tool = cells.text("tool").partition(" ")[0]
        name, (size, cols) = cells.choice("workload", NAMES), cells.array("array")
        case = f"{name}, {size}x{cols}"
        cycles, pj = cells.number("cycles"), cells.number("pJ_per_mac")
        point = points.of(name, size, cols)
        rows.append(Row(cells.line, f"{tool} cycles", case, cycles, point.cycles))
        rows.append(Row(cells.line, f"{tool} pJ/MAC", case, pj, point.pj_per_mac))
    return Validation("mappers", sorted(rows, key=lambda row: row.group.split()[1]), {}, NOT_MODELLED)


class Points:
    """Layers simulated on the machine of the folder `configs`; each once."""

    def __init__(self, configs: Path | None) -> None:
        if configs is None:
            raise ConfigError(f"validate mappers needs --configs, the folder of {MACHINE} and {PRICES}")
        self.hardware = npu.load(configs / MACHINE)
        self.prices = str(configs / PRICES)
        table.load(self.prices)
        self._known: dict[tuple[str, int, int, str], Point] = {}

    def of(self, name: str, rows: int, cols: int, objective: str = "cycles") -> Point:
        """The layer `name` on an array of `rows` x `cols`, with tilings of least cycles or energy."""
        key = (name, rows, cols, objective)
        if key not in self._known:
            machine = self.hardware.replace(rows=rows, cols=cols)
            self._known[key] = _simulated(name, machine, self.prices, Choice(objective))
        return self._known[key]


def _simulated(name: str, hardware: Hardware, prices: str, choice: Choice) -> Point:
    step = synthesis.from_layers(_layers(name), name)
    phase = "grad_weight" if name.startswith("wg_") else "forward"
    kept = tuple(op for op in step.ops if op.phase == phase and op.name == "layer")
    assert len(kept) == 1
    run = simulate(replace(step, ops=kept), hardware, DATAFLOW, energy=prices, choice=choice)
    pj = dict(zip(run.energy.components, map(float, run.energy.pj.sum(axis=0)), strict=True))
    bits = {name: hardware.precision.bits(step.tensors[name].kind) for name in (*kept[0].inputs, *kept[0].outputs)}
    least = sum(step.tensors[name].elements * bits[name] // 8 for name in bits)
    moved = int((run.count("dram_read_bytes") + run.count("dram_write_bytes")).sum())
    return Point(int(run.cycles.sum()), kept[0].macs, pj, moved, least)


def _layers(name: str) -> list[dict[str, Any]]:
    """A layer list whose layer 'layer' is the one of that name; a layer before it makes its input want a gradient."""
    base = name.removeprefix("wg_").removeprefix("gemm_").removesuffix("_native")
    if base == "gemm512":
        return _linear(512, 512, 512)
    channels, size = CONVOLUTIONS[base]
    if name.startswith("wg_gemm_"):
        return _linear(size * size, 9 * channels, channels)
    conv = {"kind": "conv", "out": channels, "kernel": 3, "padding": 1, "bias": False}
    return [{"name": "image", "kind": "input", "shape": [1, channels, size, size]}, {"name": "layer", **conv}]


def _linear(rows: int, features: int, out: int) -> list[dict[str, Any]]:
    linear = {"kind": "linear", "out": out, "bias": False}
    return [{"name": "image", "kind": "input", "shape": [rows, features]}, {"name": "layer", **linear}]
