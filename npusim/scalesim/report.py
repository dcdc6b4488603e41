"""SCALE-Sim's reports, in the columns and the form of its version 3.

Total Cycles are one less than the compute cycles, as it prints them. With InterfaceBandwidth = USER the stalls and the
DRAM columns stay empty, and Total Cycles and utilisation are those of an array that never waits for memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from npusim import atomic
from npusim.scalesim import config as configs
from npusim.scalesim import dram, model, topology

COMPUTE_COLUMNS = (
    "LayerID", "Total Cycles (incl. prefetch)", "Total Cycles", "Stall Cycles", "Overall Util %",
    "Mapping Efficiency %", "Compute Util %",
)  # fmt: skip
BANDWIDTH_COLUMNS = (
    "LayerID", "Avg IFMAP SRAM BW", "Avg FILTER SRAM BW", "Avg OFMAP SRAM BW", "Avg IFMAP DRAM BW",
    "Avg FILTER DRAM BW", "Avg OFMAP DRAM BW",
)  # fmt: skip
NOT_REPLAYED = (
    "stalls and DRAM columns stay empty: SCALE-Sim's limited bandwidth (InterfaceBandwidth = USER) is not reproduced",
    "DRAM columns stay empty for layers on which SCALE-Sim's unlimited mode stalls or stops",
)


@dataclass(frozen=True)
class Result:
    """One layer: `traffic` is None where it is not reproduced."""

    layer: topology.Layer
    counts: model.Counts
    traffic: dram.Traffic | None

    @property
    def total_cycles(self) -> int:
        return max(1, self.counts.cycles - 1)


def simulate(config: configs.Config, layers: Sequence[topology.Layer]) -> list[Result]:
    """Every layer by itself, in order; equal shapes are computed once."""
    known: dict[tuple[int, ...], tuple[model.Counts, dram.Traffic | None]] = {}
    results = []
    for layer in layers:
        shape = (layer.ifmap_h, layer.ifmap_w, layer.filter_h, layer.filter_w, layer.channels, layer.filters)
        key = (*shape, layer.stride_h, layer.stride_w)
        if key not in known:
            counts = model.counts(config.dataflow, layer.m, layer.k, layer.n, config.array_rows, config.array_cols)
            known[key] = counts, dram.traffic(layer, config)
        results.append(Result(layer, *known[key]))
    return results


def compute_report(results: Sequence[Result]) -> str:
    rows = []
    for i, r in enumerate(results):
        c, t = r.counts, r.traffic
        waits = (t.cycles, r.total_cycles, 0) if t else ("", r.total_cycles, "")
        rows.append((i, *waits, c.overall_pct, c.mapping_pct, c.compute_pct))
    return _csv(COMPUTE_COLUMNS, rows)


def bandwidth_report(results: Sequence[Result]) -> str:
    rows = []
    for i, r in enumerate(results):
        sram = (r.counts.ifmap_reads, r.counts.filter_reads, r.counts.ofmap_writes)
        dram = [port.words_per_cycle for port in r.traffic] if r.traffic else [""] * 3
        rows.append((i, *(words / r.total_cycles for words in sram), *dram))
    return _csv(BANDWIDTH_COLUMNS, rows)


def notes(config: configs.Config, results: Sequence[Result]) -> list[str]:
    """What the reports leave empty, and why."""
    if config.limited:
        return [NOT_REPLAYED[0]]
    return [NOT_REPLAYED[1]] if any(r.traffic is None for r in results) else []


def files(results: Sequence[Result]) -> dict[str, str]:
    return {"COMPUTE_REPORT.csv": compute_report(results), "BANDWIDTH_REPORT.csv": bandwidth_report(results)}


def run_scalesim(config_path: str | Path, topology_path: str | Path, out_dir: str | Path | None = None) -> list[Result]:
    """SCALE-Sim's files, unchanged; the reports go to `out_dir` when one is given. ConfigError lists what is wrong."""
    config = configs.read(config_path)
    layers = topology.read(topology_path)
    if out_dir is not None:
        atomic.check(Path(out_dir))
    results = simulate(config, layers)
    if out_dir is not None:
        atomic.write_files(out_dir, files(results))
    return results


def _csv(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """SCALE-Sim's form: a comma and a space between cells, a comma behind the last one."""
    return "".join(", ".join(str(cell) for cell in row) + ",\n" for row in (columns, *rows))
